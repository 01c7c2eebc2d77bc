//! Reading releases, and going back to one. Config changes and deploys make theirs elsewhere.

use model::ReleaseId;

use crate::store::{App, Change, NewRelease, Release, Status};
use crate::{Actor, Controller, Error};

impl Controller {
    /// The release of an app that `reference` means: a version with or without `v`, or an id.
    pub async fn find_release(&self, app: &App, reference: &str) -> Result<Release, Error> {
        let found = match (reference.parse::<ReleaseId>(), reference.trim_start_matches('v').parse()) {
            (_, Ok(version)) => self.store.release_by_version(app.id, version).await?,
            (Ok(id), _) => self.store.release(id).await?.filter(|release| release.app == app.id),
            _ => None,
        };
        found.ok_or(Error::NotFound("release"))
    }

    /// Makes a new release with the image and the config vars of an earlier one.
    pub async fn rollback(&self, app: &App, actor: &Actor, target: &Release) -> Result<Release, Error> {
        if !is_eligible(target, self.store.was_deployed(app.id).await?) {
            let version = target.version;
            let message = match target.status {
                Status::Failed => format!("Cannot roll back to v{version}: it failed"),
                Status::Pending => format!("Cannot roll back to v{version}: it is not over yet"),
                Status::Succeeded => format!("Cannot roll back to v{version}: it has nothing to run"),
            };
            return Err(Error::Invalid(message));
        }
        let description = format!("Rollback to v{}", target.version);
        let change = Change::Rollback(target.id);
        let new = NewRelease { app: app.id, user: actor.user.id, description: &description, change };
        let release = self.store.create_release(new, &self.stamp(actor)).await?.ok_or(Error::NotFound("release"))?;
        self.note(app, actor, &format!("{description}: release v{}", release.version));
        self.changed.app(app.id);
        Ok(release)
    }
}

/// Whether one can go back to this release: it served, and it has something to run unless nothing was ever deployed.
pub fn is_eligible(release: &Release, app_was_deployed: bool) -> bool {
    release.status == Status::Succeeded && (release.image.is_some() || !app_was_deployed)
}
