//! What people ask of rollouts. What they do is in `rollout/`.

use crate::rollout::Failure;
use crate::store::{App, RolloutRow};
use crate::{Controller, Error};

impl Controller {
    /// The rollout of the release of an app that `reference` means; see [`Controller::find_release`].
    pub async fn find_rollout(&self, app: &App, reference: &str) -> Result<RolloutRow, Error> {
        let release = self.find_release(app, reference).await?;
        self.store.rollout(release.id).await?.ok_or(Error::NotFound("rollout"))
    }
}

impl RolloutRow {
    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<Failure> {
        // What another version wrote is told as far as it can be read.
        self.failure.as_ref().and_then(|text| serde_json::from_str(text).ok())
    }
}
