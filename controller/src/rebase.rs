//! A new run image under an app: a release without a build.

use builder::rebase;

use crate::store::{App, Change, Contents, NewRelease, Release, StoreError};
use crate::{Actor, Controller, Error};

/// So often it begins anew because somebody else was quicker.
const ATTEMPTS: usize = 20;

impl Controller {
    /// Puts an app on the newest run image of its stack. None if it is there already.
    pub async fn rebase(&self, app: &App, actor: &Actor) -> Result<Option<Release>, Error> {
        self.check_held(app, actor).await?;
        let stack = (self.builder.stack)()
            .map_err(|source| Error::System { action: "find the stack", source: source.into() })?;
        let stack = stack.ok_or_else(|| Error::Conflict("The platform has no stack yet".to_owned()))?;
        for _ in 0..ATTEMPTS {
            let present = self.store.present(app.id).await?;
            let nothing = || Error::Invalid(format!("{} has nothing to rebase: nothing was deployed yet", app.name));
            let digest = present.image.clone().ok_or_else(nothing)?;
            let image = self.store.image(&digest).await?.ok_or(Error::NotFound("image"))?;
            let refused = |why: builder::RebaseError| Error::Invalid(format!("{} cannot be rebased: {why}", app.name));
            let Some(image) = rebase(&image, &stack).map_err(refused)? else { return Ok(None) };
            self.store.keep_rebased(&image, &digest, self.clock.now()).await?;
            let next = Contents { image: Some(image.digest), ..present.clone() };
            let description = format!("Rebase on {} {}", stack.name, stack.version);
            let new = NewRelease {
                app: app.id,
                user: actor.user.id,
                description: &description,
                reason: None,
                change: Change::Replace { seen: &present, next: &next },
            };
            match self.store.create_release(new, &self.stamp(actor)).await {
                Err(StoreError::Stale) => {}
                made => {
                    let made = made?;
                    if let Some(release) = &made {
                        self.note(app, actor, &format!("{description}: release v{}", release.version));
                        self.changed.app(app.id);
                    }
                    return Ok(made);
                }
            }
        }
        Err(Error::Conflict(format!("{} is being changed by others all the time. Try again.", app.name)))
    }
}
