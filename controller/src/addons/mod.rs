//! Add-ons: backing services that the engine keeps alive, and the config vars by which apps reach them.
//!
//! What should be is in the store; one idempotent [`worker`] makes it so, whoever asks: a verb that wants it done before it
//! answers, or the loop that is woken by changes of either side and by a timer.
//!
//! The order is always the same. An app is let through to a service before a release tells it where the service is, and shut
//! out only when no release that was told runs any more.

mod backups;
mod client;
mod external;
mod facts;
mod kind;
mod links;
mod postgres;
mod redis;
mod server;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use builder::stack::{ServiceImage, StackError};
use model::{AddonId, AddonName, AppId, AttachmentName, ConfigVarName, Digest, Role};
use tokio::sync::{Mutex, Notify};

use crate::apps::choose_name;
use crate::live::Locked;
use crate::store::{Action, Addon, AddonState, App, Attachment, NewAddon, NewEvent, Resource, StoreError};
use crate::{Actor, Controller, Error};
pub(crate) use backups::recover as recover_backups;
pub use client::ClientRequest;
pub use kind::{KINDS, Kind, Plan, find as find_kind};
use links::Links;
pub(crate) use links::routes;
use worker::Worker;
pub(crate) use worker::work;

/// How often another name is tried when the chosen one is taken.
const NAME_ATTEMPTS: usize = 10;

/// Second names of attachments, after the kind's own: `POSTGRES_AMBER`.
const COLOURS: [&str; 16] = [
    "AMBER", "AQUA", "BLUE", "BRONZE", "COPPER", "CRIMSON", "CYAN", "GOLD", "GREEN", "IVORY", "JADE", "ORANGE",
    "PURPLE", "ROSE", "SILVER", "TEAL",
];

/// Makes the image of a service, or finds it made, and tells how it goes, line by line. Takes up to a minute.
pub type Images = Arc<dyn Fn(&ServiceImage, &mut dyn FnMut(&str)) -> Result<Digest, StackError> + Send + Sync>;

/// What a controller knows of add-ons only while it lives.
pub struct Addons {
    /// Told after every committed change of what should be.
    changed: Notify,
    /// One at a time looks and acts.
    worker: Mutex<Worker>,
    /// The apps that get through to each add-on.
    reach: Locked<BTreeMap<AddonId, BTreeSet<AppId>>>,
    images: Images,
    links: Links,
}

impl Addons {
    /// With what makes images.
    pub fn new(images: Images) -> Self {
        let (worker, reach, links) = (Mutex::default(), Locked::default(), Links::default());
        Self { changed: Notify::new(), worker, reach, images, links }
    }

    /// Wakes the loop.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Whether an app is known to get through to an add-on.
    pub(crate) fn reaches(&self, app: AppId, addon: AddonId) -> bool {
        self.reach.lock().get(&addon).is_some_and(|apps| apps.contains(&app))
    }
}

/// What a user may say about a new add-on.
#[derive(Debug, Default)]
pub struct AddonRequest {
    /// A kind, or a kind and a plan: `postgres`, `postgres:mini`.
    pub plan: String,
    /// The name; without one the platform chooses.
    pub name: Option<String>,
    /// The name under which the app uses it.
    pub attachment: Option<String>,
    /// What its kind wants to know.
    pub config: BTreeMap<String, String>,
}

impl Controller {
    /// Makes an add-on for an app. It is there at once, and can be used once its state says so.
    pub async fn create_addon(
        self: &Arc<Self>,
        app: &App,
        actor: &Actor,
        request: AddonRequest,
    ) -> Result<Addon, Error> {
        self.check_held(app, actor).await?;
        let (kind, plan) = find_kind(&request.plan)?;
        let credentials = kind.credentials(&request.config, &*self.random)?;
        let attachment = self.attachment_name(app, kind, request.attachment.as_deref()).await?;
        self.admit_one(&server::words(kind, plan), server::demand(kind, plan)).await?;
        for attempt in 1.. {
            let name = match &request.name {
                Some(name) => name.clone(),
                None => format!("{}-{}", kind.slug(), choose_name(&*self.random)),
            };
            let name: AddonName = name.parse()?;
            let new = NewAddon {
                id: AddonId::random(&*self.random),
                name: &name,
                app: app.id,
                kind: kind.slug(),
                plan: plan.name,
                credentials: &credentials,
                attachment: &attachment,
            };
            match self.store.insert_addon(new, &self.stamp(actor)).await {
                Err(StoreError::Taken("Name")) if request.name.is_none() && attempt < NAME_ATTEMPTS => {}
                Err(error) => return Err(error.into()),
                Ok(addon) => {
                    self.note(app, actor, &format!("Create add-on {name} ({}:{})", kind.slug(), plan.name));
                    self.settle_addons().await;
                    return self.store.addon(addon.id).await?.ok_or(Error::NotFound("add-on"));
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Removes an add-on with all its data. One that other apps use too is removed only by `force`.
    pub async fn destroy_addon(self: &Arc<Self>, addon: &Addon, actor: &Actor, force: bool) -> Result<(), Error> {
        let attachments = self.store.attachments_of_addon(addon.id).await?;
        let other = attachments.iter().find(|attachment| attachment.app != addon.app);
        if let Some(other) = other.filter(|_| !force) {
            return Err(Error::Invalid(format!(
                "{} is also attached to {} as {}. Detach it there first, or destroy it by force",
                addon.name, other.app_name, other.name
            )));
        }
        for app in attachments.iter().map(|attachment| attachment.app).chain([addon.app]) {
            if let Some(app) = self.store.app(app).await? {
                self.check_held(&app, actor).await?;
            }
        }
        self.store.remove_addon(addon, &self.stamp(actor)).await?;
        if let Some(app) = self.store.app(addon.app).await? {
            self.note(&app, actor, &format!("Destroy add-on {}", addon.name));
        }
        self.settle_addons().await;
        Ok(())
    }

    /// Gives an add-on another plan of its kind. Its server restarts with other limits; its data stays.
    pub async fn change_plan(self: &Arc<Self>, addon: &Addon, actor: &Actor, plan: &str) -> Result<Addon, Error> {
        let (kind, plan) = find_kind(plan)?;
        if kind.slug() != addon.kind {
            return Err(Error::Invalid(format!("{} is {}: its plan must be one of that", addon.name, addon.kind)));
        }
        if plan.name != addon.plan {
            let before = server::demand(kind, server::kind_of(addon)?.1);
            self.admit_instead(&server::words(kind, plan), server::demand(kind, plan), before).await?;
            self.store.set_addon_plan(addon, plan.name, &self.stamp(actor)).await?;
            if let Some(app) = self.store.app(addon.app).await? {
                self.note(&app, actor, &format!("Change plan of {} to {}:{}", addon.name, addon.kind, plan.name));
            }
            self.settle_addons().await;
        }
        self.store.addon(addon.id).await?.ok_or(Error::NotFound("add-on"))
    }

    /// Lets an app use an add-on.
    pub async fn attach_addon(
        self: &Arc<Self>,
        addon: &Addon,
        (app, actor): (&App, &Actor),
        name: Option<&str>,
    ) -> Result<Attachment, Error> {
        self.check_held(app, actor).await?;
        let kind = find_kind(&addon.kind)?.0;
        if addon.state == AddonState::Failed {
            return Err(Error::Invalid(format!("{} never came up: {}", addon.name, failure(addon))));
        }
        let name = self.attachment_name(app, kind, name).await?;
        let made = self.store.insert_attachment(addon, app.id, &name, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Attach add-on {} as {name}", addon.name));
        self.settle_addons().await;
        Ok(made)
    }

    /// Ends the use of an add-on by an app. The add-on and its data stay.
    pub async fn detach_addon(self: &Arc<Self>, attachment: &Attachment, actor: &Actor) -> Result<(), Error> {
        let app = self.store.app(attachment.app).await?;
        if let Some(app) = &app {
            self.check_held(app, actor).await?;
        }
        self.store.delete_attachment(attachment, &self.stamp(actor)).await?;
        if let Some(app) = app {
            self.note(&app, actor, &format!("Detach add-on {}", attachment.addon_name));
        }
        self.settle_addons().await;
        Ok(())
    }

    /// Restarts an add-on's server. Its clients lose their connections; its data stays.
    pub async fn restart_addon(&self, addon: &Addon, actor: &Actor) -> Result<(), Error> {
        let data = serde_json::json!({ "name": addon.name, "restarted": true });
        let (resource, id) = (Resource::Addon, addon.id.to_string());
        let event = NewEvent { app: Some(addon.app), resource, id, action: Action::Update, data };
        self.store.record(&self.stamp(actor), event).await?;
        for status in self.engine.list().await?.iter().filter(|status| status.app == addon.id.into()) {
            for instance in &status.instances {
                self.engine.restart(&instance.id).await?;
            }
        }
        Ok(())
    }

    /// The add-ons that `reference` means to this user: a name, an id, or, of an app, the name of an attachment with or without
    /// `_URL`.
    pub async fn find_addons(&self, actor: &Actor, reference: &str, app: Option<&App>) -> Result<Vec<Addon>, Error> {
        if let Some(addon) = self.store.find_addon(actor.user.id, reference).await? {
            return Ok(vec![addon]);
        }
        let Some(app) = app else { return Ok(Vec::new()) };
        let attachments = self.store.attachments_of_app(app.id).await?;
        let wanted = reference.strip_suffix("_URL").unwrap_or(reference);
        let attached = attachments.iter().filter(|attachment| attachment.name.as_str() == wanted);
        let mut found: Vec<AddonId> = attached.map(|attachment| attachment.addon).collect();
        if found.is_empty()
            && let Ok((kind, _)) = find_kind(reference)
        {
            let own = self.store.addons_of_app(app.id).await?;
            found = own.iter().filter(|addon| addon.kind == kind.slug()).map(|addon| addon.id).collect();
        }
        let mut addons = Vec::new();
        for id in found {
            addons.extend(self.store.addon(id).await?);
        }
        Ok(addons)
    }

    /// The one add-on that `reference` means to somebody who may do with its app what `need` may. Looking at it is for all whose
    /// apps use it.
    pub async fn find_addon(
        &self,
        actor: &Actor,
        (reference, app): (&str, Option<&App>),
        need: Role,
    ) -> Result<Addon, Error> {
        let mut found = self.find_addons(actor, reference, app).await?;
        match (found.pop(), found.pop()) {
            (None, _) => Err(Error::NotFound("add-on")),
            (Some(addon), None) => {
                if need > Role::View {
                    let owner = self.store.app(addon.app).await?.ok_or(Error::NotFound("add-on"))?;
                    self.check_role(actor, &owner, need).await?;
                }
                Ok(addon)
            }
            (Some(one), Some(other)) => Err(Error::Ambiguous(format!(
                "{reference} means more than one add-on: {} and {}. Name one of them",
                other.name, one.name
            ))),
        }
    }

    /// The config vars that an attachment of this name gives its app, with their values; none until the add-on can be used.
    pub async fn attachment_vars(
        &self,
        attachment: &AttachmentName,
        addon: &Addon,
    ) -> Result<BTreeMap<ConfigVarName, String>, Error> {
        let (AddonState::Provisioned, Some(address)) = (addon.state, &addon.address) else {
            return Ok(BTreeMap::new());
        };
        let kind = find_kind(&addon.kind)?.0;
        let credentials = self.store.addon_credentials(addon.id).await?;
        let vars = kind.vars(address, &credentials).into_iter();
        vars.map(|(end, value)| Ok((var_name(attachment, end)?, value))).collect()
    }

    /// Makes true what the store says as far as it can be done now; the loop does the rest.
    pub(crate) async fn settle_addons(self: &Arc<Self>) {
        let mut worker = self.addons.worker.lock().await;
        if let Err(error) = worker.tick(self).await {
            tracing::info!(error = crate::errors::chain(&error), "Add-ons cannot be brought up to date yet");
        }
        drop(worker);
        self.addons.wake();
    }

    /// The name that was asked for, or a free one. No attachment takes a config var away that a user set.
    async fn attachment_name(&self, app: &App, kind: &dyn Kind, wanted: Option<&str>) -> Result<AttachmentName, Error> {
        let attachments = self.store.attachments_of_app(app.id).await?;
        let config = self.store.config(app.id).await?;
        let is_attached = |name: &AttachmentName| attachments.iter().any(|attachment| attachment.name == *name);
        let is_set = |name: &AttachmentName| var_name(name, "URL").is_ok_and(|var| config.get(&var).is_some());
        if let Some(wanted) = wanted {
            let name: AttachmentName = wanted.parse()?;
            if is_attached(&name) {
                return Err(Error::Invalid(format!("{name} is attached to {} already; choose another name", app.name)));
            }
            if is_set(&name) {
                return Err(Error::Invalid(format!(
                    "{name}_URL is a config var of {} already; unset it first, or choose another name",
                    app.name
                )));
            }
            return Ok(name);
        }
        let second = COLOURS.iter().map(|colour| format!("{}_{colour}", kind.slug().to_uppercase()));
        let names = [kind.attachment().to_owned()].into_iter().chain(second);
        let mut free = names.filter_map(|name| name.parse().ok()).filter(|name| !is_attached(name) && !is_set(name));
        free.next().ok_or_else(|| Error::Invalid("No attachment name is free; choose one".to_owned()))
    }
}

/// Why an add-on never came up.
pub(crate) fn failure(addon: &Addon) -> &str {
    addon.failure.as_deref().unwrap_or("the reason is not known")
}

fn var_name(attachment: &AttachmentName, end: &str) -> Result<ConfigVarName, Error> {
    Ok(format!("{attachment}_{end}").parse()?)
}
