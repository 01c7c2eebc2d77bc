//! A service is within reach before an app is told of it, also when a rollback attaches it again.

use model::AddonId;

use crate::store::{AddonState, Release};
use crate::{Controller, Error};

impl Controller {
    /// Whether the app gets through to every add-on that a release tells of. What the release before was told of is within
    /// reach already, and nobody waits for what is gone.
    pub(super) async fn is_within_reach(&self, candidate: &Release) -> Result<bool, Error> {
        let told = |release: &Release| -> Vec<AddonId> {
            release.attachments.iter().flatten().map(|(_, it)| it.addon).collect()
        };
        let mut unknown = told(candidate);
        unknown.retain(|addon| !self.addons.reaches(candidate.app, *addon));
        if unknown.is_empty() {
            return Ok(true);
        }
        if let Some(app) = self.store.app(candidate.app).await?
            && let Some(current) = self.store.release(app.current_release).await?
        {
            let before = told(&current);
            unknown.retain(|addon| !before.contains(addon));
        }
        let used = self.store.attachments_of_app(candidate.app).await?;
        unknown.retain(|addon| used.iter().any(|it| it.addon == *addon));
        for addon in unknown {
            let addon = self.store.addon(addon).await?;
            if addon.is_some_and(|addon| addon.state == AddonState::Provisioned) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
