//! What of a manifest is kept with each release, for whoever watches over instances and starts jobs.

use std::collections::BTreeMap;

use manifest::{CronJob, HealthCheck, Manifest, Restarts};
use model::{ProcessType, VolumeName};
use serde::{Deserialize, Serialize};

use crate::store::Release;
use crate::{Controller, Error};

/// All that is kept. What an older platform kept has less in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// When instances of each process type count as started, ready and alive.
    pub(crate) healthchecks: BTreeMap<ProcessType, Vec<HealthCheck>>,
    /// When what ended by itself is started again.
    pub(crate) restart: Restarts,
    /// What should run at certain times.
    pub(crate) cron: Vec<CronJob>,
    /// How the release takes the place of the one before it: settings of a [`model::RolloutPolicy`].
    pub(crate) rollout: BTreeMap<String, String>,
    /// How many of each process type there are when nobody says so: settings of a [`model::ScalingPolicy`].
    pub(crate) scaling: BTreeMap<ProcessType, BTreeMap<String, String>>,
    /// How routers treat the requests to the app: settings of a [`model::RoutePolicy`].
    pub(crate) routing: BTreeMap<String, String>,
    /// The volumes that it names.
    pub(crate) volumes: Vec<VolumeName>,
}

impl Controller {
    /// What is kept of a manifest; none if it says nothing of the kind.
    pub(crate) fn kept(manifest: &Manifest) -> Result<Option<String>, Error> {
        let (healthchecks, restart) = (manifest.healthchecks.clone(), manifest.restart.clone());
        let cron = manifest.cron.iter().map(|job| job.value.clone()).collect();
        let (rollout, scaling) = (manifest.rollout.clone(), manifest.scaling.clone());
        let routing = manifest.routing.clone();
        let volumes = manifest.volumes.keys().cloned().collect();
        let kept = Kept { healthchecks, restart, cron, rollout, scaling, routing, volumes };
        let failed = |source: serde_json::Error| Error::System { action: "keep a manifest", source: source.into() };
        (kept != Kept::default()).then(|| serde_json::to_string(&kept).map_err(failed)).transpose()
    }

    /// What is kept of the manifest that a release's code came with.
    pub(crate) async fn kept_of(&self, release: &Release) -> Result<Kept, Error> {
        Kept::read(self.store.manifest_of(release.id).await?.as_deref())
    }
}

impl Kept {
    /// What a release keeps.
    pub(crate) fn read(text: Option<&str>) -> Result<Self, Error> {
        let failed =
            |source: serde_json::Error| Error::System { action: "read a kept manifest", source: source.into() };
        text.map_or_else(|| Ok(Self::default()), |text| serde_json::from_str(text).map_err(failed))
    }
}
