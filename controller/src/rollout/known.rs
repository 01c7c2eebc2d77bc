//! What the store says of apps, as the plan needs it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use engine::WorkloadStatus;
use model::routes::Place;
use model::{AppId, Digest, ProcessType, RoutePolicy};

use super::phase::PROCESS_TYPE;
use super::plan::{Desired, Progress, Scale, Stage, Target, shares_of};
use crate::formation::WEB;
use crate::live::Others;
use crate::scaling::policy_of;
use crate::setup::Kept;
use crate::store::{
    App, FormationRow, ProcessScale, Release, RolloutRow, RolloutState, ScalingTexts, Standing, TcpRoute,
};
use crate::{Controller, Error};

/// One app as the store knows it.
pub(super) struct Known {
    pub(super) app: App,
    pub(super) current: Option<Release>,
    pub(super) candidate: Option<Release>,
    /// How far the candidate is; none before it begins.
    pub(super) rollout: Option<RolloutRow>,
    /// The candidate as it should run; it is desired once its release command is over.
    pub(super) target: Option<Target>,
    pub(super) desired: Desired,
    pub(super) domains: Vec<Place>,
    /// How routers treat its requests, if anybody says anything.
    pub(super) policy: Option<Box<RoutePolicy>>,
    /// Ports whose connections it takes as they are.
    pub(super) tcp: Vec<TcpRoute>,
}

impl Known {
    /// Whether a port leads to this process type, other than as web processes have one.
    pub(super) fn has_port(&self, process_type: &ProcessType) -> bool {
        process_type.as_str() != WEB && self.tcp.iter().any(|route| route.process_type == *process_type)
    }

    /// What takes the connections of process types that ports lead to.
    pub(super) fn others(&self, observed: &[WorkloadStatus]) -> Others {
        let types = self.tcp.iter().map(|route| &route.process_type).filter(|name| self.has_port(name));
        types.map(|name| (name.clone(), shares_of(&self.desired, name, observed))).collect()
    }
}

/// The oldest pending release of each app that has one: what is to replace its current release.
pub(super) type Candidates = BTreeMap<AppId, Candidate>;

/// A pending release.
pub(super) struct Candidate {
    pub(super) release: Release,
    /// How far it is; none before it begins.
    pub(super) rollout: Option<RolloutRow>,
}

impl Candidate {
    /// Whether instances of it may be wanted: its release command is over.
    fn is_prepared(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| rollout.state != RolloutState::Preparing)
    }
}

/// Reads apps from the store. Remembers the process types of images, which never change.
pub(super) struct Reader {
    controller: Arc<Controller>,
    types: HashMap<Digest, Vec<ProcessType>>,
}

impl Reader {
    pub(super) fn new(controller: Arc<Controller>) -> Self {
        Self { controller, types: HashMap::new() }
    }

    /// What is to replace the current releases of some apps, or of all.
    pub(super) async fn candidates(&self, apps: Option<&[AppId]>) -> Result<Candidates, Error> {
        let mut candidates = Candidates::new();
        for release in self.controller.store.pending_releases(apps).await? {
            candidates.entry(release.app).or_insert(Candidate { release, rollout: None });
        }
        for rollout in self.controller.store.rollouts_on_their_way(apps).await? {
            if let Some(candidate) = candidates.get_mut(&rollout.app).filter(|it| it.release.id == rollout.release) {
                candidate.rollout = Some(rollout);
            }
        }
        Ok(candidates)
    }

    /// These apps, without those that are gone.
    pub(super) async fn known(&mut self, apps: &[AppId], candidates: &Candidates) -> Result<Vec<Known>, Error> {
        let mut all = Vec::new();
        for standing in self.controller.store.standing(apps).await? {
            let Standing { app, current, formation, domains, tcp, scaling, routing, pages, manifest } = standing;
            let pending = candidates.get(&app.id);
            let candidate = pending.map(|it| it.release.clone());
            let rollout = pending.and_then(|it| it.rollout.clone());
            let target = match &candidate {
                Some(release) => {
                    let idle = idle(&self.controller.kept_of(release).await.unwrap_or_default(), &scaling);
                    self.target(Some(release), &formation, |row| (release.scale(row), idle)).await?
                }
                None => None,
            };
            // What one app's file says that cannot be read holds up no other.
            let kept = Kept::read(manifest.as_deref()).unwrap_or_default();
            let policy = Controller::route_policy(&pages, &kept, &routing);
            let idle = idle(&kept, &scaling);
            let desired = Desired {
                app: app.id,
                current: self.target(current.as_ref(), &formation, |row| (row.scale(), idle)).await?,
                candidate: target.clone().filter(|_| pending.is_some_and(Candidate::is_prepared)),
                progress: rollout.as_ref().map(progress).unwrap_or_default(),
            };
            all.push(Known { app, current, candidate, rollout, target, desired, domains, policy, tcp });
        }
        Ok(all)
    }

    /// Whether a command runs before this release becomes current.
    pub(super) async fn has_phase(&mut self, release: &Release) -> Result<bool, Error> {
        Ok(self.types(release).await?.iter().any(|name| name.as_str() == PROCESS_TYPE))
    }

    /// A release as it should run once it is current.
    pub(super) async fn target_of(&mut self, release: &Release) -> Result<Option<Target>, Error> {
        let formation = self.controller.store.formation(release.app).await?;
        self.target(Some(release), &formation, |row| (release.scale(row), None)).await
    }

    /// What of the formation a release really has. The release phase is no instance.
    async fn target(
        &mut self,
        release: Option<&Release>,
        formation: &[FormationRow],
        scale: impl Fn(&FormationRow) -> (ProcessScale, Option<Duration>),
    ) -> Result<Option<Target>, Error> {
        let Some(release) = release else { return Ok(None) };
        let types = self.types(release).await?;
        let offers =
            |row: &&FormationRow| types.contains(&row.process_type) && row.process_type.as_str() != PROCESS_TYPE;
        let scaled = |row: &FormationRow| {
            let (ProcessScale { quantity, size }, idle) = scale(row);
            let idle = idle.filter(|_| row.process_type.as_str() == WEB);
            let exclusive = release.mounts(&row.process_type).next().is_some();
            let quantity = if exclusive { quantity.min(1) } else { quantity };
            (quantity > 0).then(|| (row.process_type.clone(), Scale { quantity, size, exclusive, idle }))
        };
        let processes = formation.iter().filter(offers).filter_map(scaled).collect();
        Ok(Some(Target { release: release.id, version: release.version, processes }))
    }

    /// The process types of a release's image.
    async fn types(&mut self, release: &Release) -> Result<&[ProcessType], Error> {
        let digest = release.image.as_ref().ok_or(Error::NotFound("image"))?;
        if !self.types.contains_key(digest) {
            let image = self.controller.image_of(release).await?;
            let types = image.processes.into_iter().map(|process| process.process_type).collect();
            self.types.insert(digest.clone(), types);
        }
        Ok(self.types.get(digest).map(Vec::as_slice).unwrap_or_default())
    }
}

/// After how long without a request the web process of a release sleeps: what is set counts before what its app.json says.
fn idle(kept: &Kept, set: &BTreeMap<ProcessType, ScalingTexts>) -> Option<Duration> {
    let own = |all: &BTreeMap<ProcessType, ScalingTexts>| {
        all.iter().find(|(name, _)| name.as_str() == WEB).map(|(_, texts)| texts.clone()).unwrap_or_default()
    };
    policy_of(&own(&kept.scaling), &own(set)).sleep_after
}

/// How far a rollout is, as the plan needs it.
fn progress(rollout: &RolloutRow) -> Progress {
    let stage = match rollout.state {
        RolloutState::Routing => Stage::Routing,
        RolloutState::Returning => {
            Stage::Returning { condemned: rollout.failure().is_some_and(|failure| failure.is_of_answers()) }
        }
        _ => Stage::Running { step: rollout.step, reached_at: rollout.reached_at },
    };
    Progress { policy: rollout.policy.clone(), stage, aborted: rollout.aborted, ..Progress::default() }
}
