//! The loop that makes true what the store says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use engine::{EngineError, WorkloadStatus};
use model::{AppId, ReleaseId};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::{Instant, sleep};

use super::changed::Due;
use super::failure::Failure;
use super::known::{Candidates, Known, Reader};
use super::names::{Visit, route};
use super::plan::{Stage, Step, count_healthy, plan, shares};
use super::stall::Stall;
use super::traffic::Traffic;
use crate::errors::chain;
use crate::live::Served;
use crate::store::{App, Beginning, Release, RolloutRow, RolloutState};
use crate::watch::Watch;
use crate::{Controller, Error};

/// Somebody may have left in the middle of something, and some things are due by the clock: every release that is on its way, or
/// live and looked after, has its turn.
const INTERVAL: Duration = Duration::from_secs(5);
/// An app, or what runs of it, may have changed without a word, as when a client left in the middle of its request.
const LOOK_AT_ALL: Duration = Duration::from_secs(30);
/// Pause after a failure of the store or the engine.
const RETRY: Duration = Duration::from_millis(250);
/// Apps that are read together, and of those that nobody said anything of, so many between two looks at what somebody did say.
const AT_ONCE: usize = 200;

/// The rollout of all apps. One exists in a controller process.
///
/// It looks only at apps with a reason: somebody said that they changed, or what runs of them changed; and a few times a minute at
/// those of which a release is on its way. So what one change costs does not grow with the number of apps. Now and then it looks
/// at all of them, a part at a time, so that no change waits for that.
pub(crate) struct Rollout {
    pub(super) controller: Arc<Controller>,
    pub(super) reader: Reader,
    /// The release phases of pending releases. A release that is not here has not begun its phase in this process.
    phases: HashMap<ReleaseId, Phase>,
    /// When each pending release was first wanted.
    pub(super) started: HashMap<ReleaseId, Instant>,
    /// How long each pending release has come no further.
    stalls: HashMap<ReleaseId, Stall>,
    /// Tells of which apps `observed` is old.
    watch: Watch,
    /// What runs, as far as it was looked at.
    observed: Arc<Observed>,
    /// Apps for which not everything could be done.
    pub(super) owed: Due,
    looked_at_all: Option<Instant>,
    /// When what is due by the clock had its turn.
    pub(super) kept_time: Option<Instant>,
    /// Those whose turn is still to come of a look at all apps.
    pub(super) backlog: BTreeSet<AppId>,
    /// The engine did not answer: every app may have a reason that was passed over.
    blind: bool,
}

/// What runs, by app.
pub(super) type Observed = HashMap<AppId, Vec<WorkloadStatus>>;

enum Phase {
    Running(oneshot::Receiver<Result<Option<String>, Error>>),
    Over,
}

impl Rollout {
    /// A rollout that has yet to look.
    pub(crate) fn new(controller: Arc<Controller>) -> Self {
        Self {
            reader: Reader::new(Arc::clone(&controller)),
            controller,
            phases: HashMap::new(),
            started: HashMap::new(),
            stalls: HashMap::new(),
            watch: Watch::default(),
            observed: Arc::default(),
            owed: Due::default(),
            looked_at_all: None,
            kept_time: None,
            backlog: BTreeSet::new(),
            blind: false,
        }
    }

    /// Tells routers what is known before anything is done.
    pub(crate) async fn begin(&mut self) -> Result<(), Error> {
        let observed = self.controller.engine.list().await.ok().map(by_app);
        let all = self.controller.store.app_ids().await?;
        self.tell(&all, observed.as_ref()).await
    }

    /// Works for as long as the process lives.
    pub(crate) async fn run(mut self) {
        let controller = Arc::clone(&self.controller);
        let mut trouble = String::new();
        loop {
            let now = self.tick().await.err().map(|error| chain(&error)).unwrap_or_default();
            let pause = match (now.is_empty(), self.backlog.is_empty()) {
                (true, true) => INTERVAL,
                (true, false) => Duration::ZERO,
                (false, _) => RETRY,
            };
            if now != trouble && !now.is_empty() {
                tracing::warn!(error = now, "The rollout tries again until it can go on");
            }
            trouble = now;
            tokio::select! {
                () = controller.changed.notified() => {}
                () = self.watch.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Looks at both sides once and takes every step that is due. What cannot be done for one app holds up no other.
    pub(super) async fn tick(&mut self) -> Result<(), Error> {
        let mut due = self.controller.changed.take();
        if self.looked_at_all.is_none_or(|moment| moment.elapsed() >= LOOK_AT_ALL) {
            self.looked_at_all = Some(Instant::now());
            due.all = true;
        }
        due.add(std::mem::take(&mut self.owed));
        let result = match self.observe(&due).await {
            Ok(changed) => {
                due.apps.extend(changed);
                due.all |= std::mem::take(&mut self.blind);
                self.look(&mut due).await
            }
            // Visitors need not wait for it: a new name leads to what serves already.
            Err(error) => {
                self.blind = true;
                self.look_without_engine(&mut due).await.map(|()| Some(error.into()))
            }
        };
        match result {
            Ok(None) => Ok(()),
            Ok(Some(trouble)) => Err(trouble),
            Err(error) => {
                self.owed.add(due);
                Err(error)
            }
        }
    }

    /// Brings `observed` up to date, and says of which apps something else runs now. Everything is asked for only if nobody can say
    /// what changed, or to find what nobody said.
    async fn observe(&mut self, due: &Due) -> Result<Vec<AppId>, EngineError> {
        let engine = Arc::clone(&self.controller.engine);
        let news = self.watch.news(engine.as_ref()).await;
        let apps: Option<Vec<AppId>> = (!news.all && !due.all).then(|| news.apps.union(&due.apps).copied().collect());
        let list = match &apps {
            None => engine.list().await,
            Some(apps) if apps.is_empty() => return Ok(Vec::new()),
            Some(apps) => engine.list_of(apps).await,
        };
        let mut now = match list {
            Ok(list) => by_app(list),
            Err(error) => {
                self.watch.give_back(news);
                return Err(error);
            }
        };
        let Some(apps) = apps else {
            let changed = differences(&self.observed, &now);
            self.observed = Arc::new(now);
            return Ok(changed);
        };
        let observed = Arc::make_mut(&mut self.observed);
        let mut changed = Vec::new();
        for app in apps {
            let (before, now) = (observed.remove(&app), now.remove(&app));
            if before != now {
                changed.push(app);
            }
            observed.extend(now.map(|now| (app, now)));
        }
        Ok(changed)
    }

    /// Does what is due now for these apps. What cannot be done for some is owed, and the answer is why.
    async fn look(&mut self, due: &mut Due) -> Result<Option<Error>, Error> {
        let observed = Arc::clone(&self.observed);
        self.take_turns(due).await?;
        let by_the_clock = self.kept_time.is_none_or(|moment| moment.elapsed() >= INTERVAL);
        let apps: Vec<AppId> = due.apps.iter().copied().collect();
        let among = Some(apps.as_slice()).filter(|apps| !by_the_clock && apps.len() <= 2 * AT_ONCE);
        // First: what takes an app back is a candidate as any other.
        let mut trouble = self.look_after(among, &observed).await?;
        let mut candidates = self.reader.candidates(among).await?;
        self.hold_back(&mut candidates).await?;
        self.begin_rollouts(&mut candidates, &observed).await?;
        if among.is_none() {
            let all: BTreeSet<ReleaseId> = candidates.values().map(|candidate| candidate.release.id).collect();
            self.phases.retain(|id, _| all.contains(id));
            self.started.retain(|id, _| all.contains(id));
            self.stalls.retain(|id, _| all.contains(id));
            self.kept_time = Some(Instant::now());
        }
        let apps: BTreeSet<AppId> = apps.into_iter().chain(candidates.keys().copied()).collect();
        for apps in Vec::from_iter(apps).chunks(AT_ONCE) {
            let mut known = self.publish(apps, &candidates, Some(&observed)).await?;
            trouble = self.advance_phases(&mut known).await.or(trouble);
            self.wait_for(&mut known, &observed);
            trouble = self.act(&known, &observed).await.or(trouble);
            self.delete_orphans(apps, &known, &observed).await?;
        }
        Ok(trouble)
    }

    /// Adds those to the apps that are due whose turn it is of a look at all of them.
    async fn take_turns(&mut self, due: &mut Due) -> Result<(), Error> {
        if due.all {
            self.backlog.extend(self.controller.store.app_ids().await?);
            // Those that are gone.
            self.backlog.extend(self.controller.live.names.keys());
            self.backlog.extend(self.observed.keys());
            due.all = false;
        }
        let turn = std::iter::from_fn(|| self.backlog.pop_first());
        due.apps.extend(turn.take(AT_ONCE));
        Ok(())
    }

    /// Leaves out what has not begun and tells of add-ons that are not within reach yet.
    async fn hold_back(&self, candidates: &mut Candidates) -> Result<(), Error> {
        let mut held = Vec::new();
        for candidate in candidates.values() {
            let release = &candidate.release;
            let begun = self.phases.contains_key(&release.id) || self.started.contains_key(&release.id);
            if !begun && candidate.rollout.is_none() && !self.controller.is_within_reach(release).await? {
                held.push(release.app);
            }
        }
        candidates.retain(|app, _| !held.contains(app));
        Ok(())
    }

    /// Notes how those are to go on that have not begun.
    async fn begin_rollouts(&mut self, candidates: &mut Candidates, observed: &Observed) -> Result<(), Error> {
        let controller = Arc::clone(&self.controller);
        let mut refused = Vec::new();
        for candidate in candidates.values_mut().filter(|candidate| candidate.rollout.is_none()) {
            let release = &candidate.release;
            let has_phase = self.reader.has_phase(release).await?;
            let state = if has_phase { RolloutState::Preparing } else { RolloutState::Running };
            let policy = controller.policy_of(release).await?;
            let policy = match self.fitted(release, policy.clone(), observed).await? {
                Ok(fitted) => fitted,
                Err(reason) => {
                    refused.push((release.clone(), reason));
                    policy
                }
            };
            let traffic = Traffic::begin(of(observed, release.app), controller.live.names.traffic());
            let begun = Beginning { policy, state, traffic: serde_json::to_string(&traffic).unwrap_or_default() };
            controller.store.begin_rollout(release, &begun, controller.clock.now()).await?;
            candidate.rollout = controller.store.rollout(release.id).await?;
        }
        for (release, reason) in refused {
            candidates.remove(&release.app);
            self.fail(&release, reason.clone(), &Failure::of("refused", reason)).await?;
        }
        Ok(())
    }

    /// What can be done while the engine does not say what runs.
    async fn look_without_engine(&mut self, due: &mut Due) -> Result<(), Error> {
        self.take_turns(due).await?;
        let apps: Vec<AppId> = due.apps.iter().copied().collect();
        self.tell(&apps, None).await
    }

    /// Tells routers of these apps, and does nothing else.
    async fn tell(&mut self, apps: &[AppId], observed: Option<&Observed>) -> Result<(), Error> {
        for apps in apps.chunks(AT_ONCE) {
            let candidates = self.reader.candidates(Some(apps)).await?;
            self.publish(apps, &candidates, observed).await?;
        }
        Ok(())
    }

    /// Tells routers under which names visitors reach what. While the engine does not say what runs, visitors stay where
    /// they are; at first, that follows from the store alone.
    async fn publish(
        &mut self,
        apps: &[AppId],
        candidates: &Candidates,
        observed: Option<&Observed>,
    ) -> Result<Vec<Known>, Error> {
        let controller = Arc::clone(&self.controller);
        let mut serves = controller.live.serving.lock().await;
        let all = self.reader.known(apps, candidates).await?;
        let before: BTreeMap<_, _> = apps.iter().filter_map(|app| Some((*app, serves.remove(app)?))).collect();
        let mut rows: BTreeMap<_, _> = apps.iter().map(|app| (*app, None)).collect();
        let mut serve_now = Vec::new();
        for known in &all {
            let id = known.app.id;
            let unmoved = before
                .get(&id)
                .filter(|_| observed.is_none())
                .map(|served| (served.shares.clone(), served.others.clone()));
            let running = observed.map_or(&[][..], |all| of(all, id));
            let serve = unmoved.unwrap_or_else(|| (shares(&known.desired, running), known.others(running)));
            serve_now.push((id, serve.clone()));
            let (domains, policy, tcp) = (known.domains.clone(), known.policy.clone(), known.tcp.clone());
            match route(&controller, &known.app, Visit { domains, policy, tcp }, known.current.is_some(), serve) {
                Ok(route) => {
                    rows.insert(id, Some(route));
                }
                Err(error) => tracing::error!(app.name = %known.app.name, error = chain(&error), "An app has no route"),
            }
        }
        let version = controller.live.names.set_all(rows);
        for (app, (shares, others)) in serve_now {
            let same = before.get(&app).filter(|served| served.shares == shares);
            let since = same.map_or(version, |served| served.since);
            serves.insert(app, Served { shares, others, since });
        }
        Ok(all)
    }

    /// Notes for how long each candidate has come no further.
    fn wait_for(&mut self, all: &mut [Known], observed: &Observed) {
        let now = self.controller.clock.now();
        for known in all {
            let Some(candidate) = &known.desired.candidate else { continue };
            let stall = self.stalls.entry(candidate.release).or_default();
            let observed = of(observed, known.app.id);
            let healthy = u64::from(count_healthy(candidate.version, observed));
            let progress = &mut known.desired.progress;
            let traffic = known.rollout.as_ref().map(RolloutRow::traffic).unwrap_or_default();
            progress.traffic = traffic.until_now(candidate.version, observed, self.controller.live.names.traffic());
            progress.stalled = match progress.stage {
                // Whoever waits for a pause or for somebody's word is not stuck.
                Stage::Running { reached_at: Some(_), .. } => stall.rest(now),
                Stage::Running { step, .. } => stall.look((step as u64) << 32 | healthy, now),
                Stage::Routing => stall.look(1 << 48, now),
                // By what there was before.
                Stage::Returning { .. } => {
                    let back = known.current.as_ref().map_or(0, |release| count_healthy(release.version, observed));
                    stall.look(1 << 49 | u64::from(back), now)
                }
            };
        }
    }

    /// Takes the steps that are due.
    async fn act(&mut self, all: &[Known], observed: &Observed) -> Option<Error> {
        let now = self.controller.clock.now();
        let plans: Vec<_> = all.iter().map(|known| plan(&known.desired, of(observed, known.app.id), now)).collect();
        let deletes = plans.iter().flatten().any(|step| matches!(step, Step::Delete(_)));
        if deletes && !self.controller.acknowledged().await {
            tracing::warn!("A router does not acknowledge the newest names; going on without it");
        }
        let mut trouble = None;
        for (known, steps) in all.iter().zip(plans) {
            for step in steps {
                if let Err(error) = self.take(known, step).await {
                    self.owed.apps.insert(known.app.id);
                    trouble = Some(error);
                }
            }
        }
        trouble
    }

    /// Ends what runs of apps and add-ons that are gone.
    async fn delete_orphans(&self, apps: &[AppId], known: &[Known], observed: &Observed) -> Result<(), Error> {
        let known: BTreeSet<AppId> = known.iter().map(|known| known.app.id).collect();
        for app in apps.iter().filter(|app| !known.contains(app)) {
            let running = || of(observed, *app).iter().filter(|status| !status.deleting);
            if running().next().is_some() && !self.controller.store.is_owner(*app).await? {
                for orphan in running() {
                    self.controller.engine.delete(&orphan.id).await?;
                }
            }
        }
        Ok(())
    }

    /// Runs the release phases that are due; a candidate is wanted only once its phase is over.
    async fn advance_phases(&mut self, all: &mut [Known]) -> Option<Error> {
        let mut trouble = None;
        for known in all {
            let Some(candidate) = known.candidate.clone() else { continue };
            if known.desired.candidate.is_some() {
                continue;
            }
            match self.phase_is_over(&known.app, &candidate).await {
                Ok(true) => known.desired.candidate.clone_from(&known.target),
                Ok(false) => {}
                Err(error) => {
                    self.owed.apps.insert(known.app.id);
                    trouble = Some(error);
                }
            }
        }
        trouble
    }

    async fn phase_is_over(&mut self, app: &App, candidate: &Release) -> Result<bool, Error> {
        let has_phase = self.reader.has_phase(candidate).await?;
        let result = match self.phases.remove(&candidate.id) {
            _ if !has_phase => Ok(None),
            Some(Phase::Over) => Ok(None),
            Some(Phase::Running(mut running)) => match running.try_recv() {
                Ok(result) => result,
                Err(TryRecvError::Empty) => {
                    self.phases.insert(candidate.id, Phase::Running(running));
                    return Ok(false);
                }
                Err(TryRecvError::Closed) => Ok(Some("The platform lost the release command. Push again.".to_owned())),
            },
            None => {
                self.phases.insert(candidate.id, self.begin_phase(app.clone(), candidate.clone()));
                return Ok(false);
            }
        };
        match result {
            Ok(None) => {
                self.phases.insert(candidate.id, Phase::Over);
                self.controller.store.start_rollout(candidate.id).await?;
                return Ok(true);
            }
            Ok(Some(reason)) => self.fail(candidate, reason.clone(), &Failure::of("release_command", reason)).await?,
            // It begins anew when the engine is back.
            Err(Error::Engine(EngineError::Unreachable { .. })) => {}
            Err(error) => {
                let reason = chain(&error);
                self.fail(candidate, reason.clone(), &Failure::of("release_command", reason)).await?;
            }
        }
        Ok(false)
    }

    fn begin_phase(&self, app: App, release: Release) -> Phase {
        let controller = Arc::clone(&self.controller);
        let (sender, running) = oneshot::channel();
        tokio::spawn(async move {
            let result = controller.release_phase(&app, &release).await;
            // The result first, or the loop that is woken would not find it. Nobody wants that of an app that is gone.
            let _ = sender.send(result);
            controller.changed.app(app.id);
        });
        Phase::Running(running)
    }
}

fn by_app(all: Vec<WorkloadStatus>) -> Observed {
    let mut by_app = Observed::new();
    for status in all {
        by_app.entry(status.app).or_default().push(status);
    }
    by_app
}

pub(super) fn of(observed: &Observed, app: AppId) -> &[WorkloadStatus] {
    observed.get(&app).map(Vec::as_slice).unwrap_or_default()
}

/// The apps of which not the same runs.
fn differences(before: &Observed, now: &Observed) -> Vec<AppId> {
    let changed = now.iter().filter(|(app, status)| before.get(app) != Some(status)).map(|(app, _)| *app);
    changed.chain(before.keys().filter(|app| !now.contains_key(app)).copied()).collect()
}
