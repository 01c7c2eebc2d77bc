//! Add-ons of the first deploy: what is not there is made; what is on its way is waited for, so that the build is given its
//! config vars.

use std::sync::Arc;
use std::time::Duration;

use manifest::{Addon, At};
use model::{AttachmentName, ConfigVarName};
use tokio::time::Instant;

use super::check::stand_in;
use crate::addons::{AddonRequest, failure, find_kind};
use crate::builds::{Output, Refused};
use crate::store::{AddonState, App, Attachment};
use crate::{Actor, Controller, Error};

/// How long a push waits for one add-on. The first of a service takes a minute, since its image is made.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// How often is looked.
const POLL: Duration = Duration::from_millis(100);

impl Controller {
    pub(super) async fn provide_addons(
        self: &Arc<Self>,
        (app, actor): (&App, &Actor),
        wanted: &[At<Addon>],
        output: &mut Output,
    ) -> Result<(), Refused> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut there = Vec::new();
        for attachment in self.store.attachments_of_app(app.id).await? {
            let addon = self.store.addon(attachment.addon).await?.ok_or(Error::NotFound("add-on"))?;
            there.push((attachment, addon.kind));
        }
        let mut provided = Vec::new();
        for addon in wanted.iter().map(|addon| &addon.value) {
            if let Some(index) = there.iter().position(|(attachment, kind)| serves(addon, attachment, kind)) {
                provided.push(there.swap_remove(index).0);
            } else {
                provided.push(self.make_addon((app, actor), addon, output).await?);
            }
        }
        for attachment in provided {
            self.wait_for((app, actor), &attachment, output).await?;
        }
        Ok(())
    }

    async fn make_addon(
        self: &Arc<Self>,
        (app, actor): (&App, &Actor),
        wanted: &Addon,
        output: &mut Output,
    ) -> Result<Attachment, Refused> {
        let request = AddonRequest {
            plan: wanted.plan.clone(),
            attachment: wanted.attachment.as_ref().map(ToString::to_string),
            config: wanted.options.clone(),
            ..AddonRequest::default()
        };
        let made = self.create_addon(app, actor, request).await?;
        let attachments = self.store.attachments_of_addon(made.id).await?;
        let attachment = attachments.into_iter().next().ok_or(Error::NotFound("attachment"))?;
        output.line(&format!("       Add-on {} ({}) as {}", made.name, wanted.plan, attachment.name)).await;
        Ok(attachment)
    }

    /// Waits until the add-on can be used and its app was told.
    async fn wait_for(
        self: &Arc<Self>,
        (app, actor): (&App, &Actor),
        attachment: &Attachment,
        output: &mut Output,
    ) -> Result<(), Refused> {
        let (began, name) = (Instant::now(), &attachment.addon_name);
        let var = var(&attachment.name);
        let mut is_said = false;
        loop {
            let addon = self.store.addon(attachment.addon).await?.ok_or(Error::NotFound("add-on"))?;
            match addon.state {
                AddonState::Provisioned if self.is_set(app, var.as_ref()).await? => return Ok(()),
                AddonState::Provisioning | AddonState::Provisioned => {}
                AddonState::Failed | AddonState::Removing => {
                    // The next push shall try again.
                    self.destroy_addon(&addon, actor, true).await?;
                    return Err(Refused::Said(format!("{name} did not come up: {}", failure(&addon))));
                }
            }
            if began.elapsed() > LIMIT {
                return Err(Refused::Said(format!(
                    "{name} is not up after {} minutes. Push again when `platform addons -a {}` shows it provisioned.",
                    LIMIT.as_secs() / 60,
                    app.name
                )));
            }
            if !is_said {
                output.line(&format!("       Waiting until {name} is up")).await;
                is_said = true;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn is_set(&self, app: &App, var: Option<&ConfigVarName>) -> Result<bool, Error> {
        let config = self.store.config(app.id).await?;
        Ok(var.is_none_or(|var| config.get(var).is_some()))
    }
}

/// Whether an attachment is what is wanted: of that name if there is one, of that kind, or the stand-in for a service that this
/// platform does not have.
fn serves(wanted: &Addon, attachment: &Attachment, kind: &str) -> bool {
    match (&wanted.attachment, find_kind(&wanted.plan)) {
        (Some(name), _) => attachment.name == *name,
        (None, Ok((wanted, _))) => wanted.slug() == kind,
        (None, Err(_)) => Some(&attachment.name) == stand_in(wanted).as_ref(),
    }
}

/// The config vars that an add-on will give its app.
pub(super) fn vars(wanted: &Addon) -> Option<ConfigVarName> {
    let own = || find_kind(&wanted.plan).ok().and_then(|(kind, _)| kind.attachment().parse().ok());
    var(&wanted.attachment.clone().or_else(own)?)
}

/// Every kind gives at least this one.
fn var(attachment: &AttachmentName) -> Option<ConfigVarName> {
    format!("{attachment}_URL").parse().ok()
}
