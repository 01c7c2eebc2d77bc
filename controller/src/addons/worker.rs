//! The loop that makes true what the store says of add-ons.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use builder::stack::StackError;
use engine::{EngineError, InstanceState, WorkloadStatus};
use model::{AddonId, AppId, AttachmentId, ConfigVarName, Digest};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::kind::Server;
use super::server::{demand, kind_of, oneoff_prefix, volume, words, workload_id};
use crate::errors::chain;
use crate::store::{Addon, AddonState, App, Attached, Attachment, Change, NewRelease};
use crate::watch::Watch;
use crate::{Controller, Error};

/// Something may have changed that nobody told of.
const INTERVAL: Duration = Duration::from_secs(5);
/// Pause after a failure of the store or the engine.
const RETRY: Duration = Duration::from_millis(500);
/// A new server that crashed this often in a row will not come up.
const CRASHES: u32 = 5;

/// What is remembered from one look to the next; all of it can be found out again.
#[derive(Default)]
pub(super) struct Worker {
    /// Images that are being made, by kind.
    images: HashMap<&'static str, JoinHandle<Result<Digest, StackError>>>,
    /// What the engine was told of each add-on.
    applied: HashMap<AddonId, Applied>,
    /// What each app was told.
    told: HashMap<AppId, Vec<Told>>,
    /// The add-ons, and the apps that were told of any: nothing else that runs is of interest.
    concerned: BTreeSet<AppId>,
}

/// Everything that makes one add-on's workload differ from one look to the next.
#[derive(PartialEq, Eq)]
struct Applied {
    layer: Digest,
    generation: u64,
    clients: BTreeSet<AppId>,
}

/// Everything that makes an attachment's config vars differ from one look to the next.
#[derive(PartialEq, Eq)]
struct Told {
    attachment: AttachmentId,
    state: AddonState,
    address: Option<String>,
}

/// Works for as long as the process lives.
pub(crate) async fn work(controller: Arc<Controller>) {
    let mut watch = Watch::default();
    let mut trouble = String::new();
    loop {
        // What it is does not matter: each tick looks at all add-ons.
        watch.news(controller.engine.as_ref()).await;
        let (result, concerned) = {
            let mut worker = controller.addons.worker.lock().await;
            (worker.tick(&controller).await, worker.concerned.clone())
        };
        let now = result.err().map(|error| chain(&error)).unwrap_or_default();
        let pause = if now.is_empty() { INTERVAL } else { RETRY };
        if now != trouble && !now.is_empty() {
            tracing::warn!(error = now, "Add-ons are tried again until they can be brought up to date");
        }
        trouble = now;
        tokio::select! {
            () = controller.addons.changed.notified() => {}
            () = something_concerns(&controller, &mut watch, &concerned) => {}
            () = sleep(pause) => {}
        }
    }
}

/// Waits until something changed of these apps.
async fn something_concerns(controller: &Controller, watch: &mut Watch, apps: &BTreeSet<AppId>) {
    loop {
        watch.changed().await;
        let news = watch.news(controller.engine.as_ref()).await;
        if news.all || !news.apps.is_disjoint(apps) {
            return watch.give_back(news);
        }
    }
}

impl Worker {
    /// Looks at both sides once and does everything that is due. What cannot be done for one add-on holds up no other.
    pub(super) async fn tick(&mut self, controller: &Arc<Controller>) -> Result<(), Error> {
        let told = controller.store.attached_releases().await?.into_iter().map(|(app, _, _)| app);
        self.concerned = told.chain(controller.store.addons().await?.iter().map(|addon| addon.id.into())).collect();
        if self.concerned.is_empty() {
            return Ok(());
        }
        // What runs before what is wanted: what is made meanwhile is not taken for a leftover.
        let observed = controller.engine.list_of(&self.concerned.iter().copied().collect::<Vec<_>>()).await?;
        let addons = controller.store.addons().await?;
        let attachments = controller.store.attachments().await?;
        let told = controller.store.attached_releases().await?;
        let clients = clients(&attachments, &told, &observed);
        let mut trouble = None;
        let mut unreached = BTreeSet::new();
        for addon in addons {
            let clients = clients.get(&addon.id).cloned().unwrap_or_default();
            let mine: Vec<_> = observed.iter().filter(|status| status.app == addon.id.into()).collect();
            if let Err(error) = self.advance(controller, &addon, (&mine, clients)).await {
                unreached.insert(addon.id);
                trouble = Some(error);
            }
        }
        let apps = told.into_iter().map(|(app, _, _)| app).collect();
        self.tell(controller, apps, &unreached).await?;
        trouble.map_or(Ok(()), Err)
    }

    /// Makes a release of every app whose config vars are not what its attachments say; not of apps for which a service is not
    /// within reach yet. `apps` are those that were told of an add-on before.
    async fn tell(
        &mut self,
        controller: &Arc<Controller>,
        apps: BTreeSet<AppId>,
        unreached: &BTreeSet<AddonId>,
    ) -> Result<(), Error> {
        let addons: HashMap<_, _> =
            controller.store.addons().await?.into_iter().map(|addon| (addon.id, addon)).collect();
        let mut wanted: BTreeMap<AppId, Vec<Told>> = apps.into_iter().map(|app| (app, Vec::new())).collect();
        let mut waiting = BTreeSet::new();
        for attachment in controller.store.attachments().await? {
            let Some(addon) = addons.get(&attachment.addon) else { continue };
            let (state, address) = (addon.state, addon.address.clone());
            wanted.entry(attachment.app).or_default().push(Told { attachment: attachment.id, state, address });
            if unreached.contains(&addon.id) {
                waiting.insert(attachment.app);
            }
        }
        self.told.retain(|app, _| wanted.contains_key(app));
        for (id, wanted) in wanted.into_iter().filter(|(app, _)| !waiting.contains(app)) {
            if self.told.get(&id) == Some(&wanted) {
                continue;
            }
            if let Some(app) = controller.store.app(id).await? {
                controller.release_attachments(&app).await?;
                self.told.insert(id, wanted);
            }
        }
        Ok(())
    }

    async fn advance(
        &mut self,
        controller: &Arc<Controller>,
        addon: &Addon,
        (mine, clients): (&[&WorkloadStatus], BTreeSet<AppId>),
    ) -> Result<(), Error> {
        match addon.state {
            AddonState::Removing => self.remove(controller, addon, mine).await,
            AddonState::Failed => delete(controller, mine.iter().copied()).await,
            AddonState::Provisioning | AddonState::Provisioned => match (kind_of(addon)?.0.server(), &addon.layer) {
                (None, _) if addon.state == AddonState::Provisioned => {
                    controller.let_through(addon.id, &clients);
                    Ok(())
                }
                (None, _) => Ok(controller.store.provision_addon(addon, "", &controller.own_stamp()).await?),
                (Some(server), None) => self.make_image(controller, addon, server).await,
                (Some(server), Some(layer)) => {
                    let wanted = Applied { layer: layer.clone(), generation: addon.generation, clients };
                    self.keep(controller, (addon, &server), (mine, wanted)).await
                }
            },
        }
    }

    /// Makes the image of a kind, once for all that wait for it.
    async fn make_image(&mut self, controller: &Arc<Controller>, addon: &Addon, server: Server) -> Result<(), Error> {
        let image = server.image;
        let Some(task) = self.images.get_mut(image.name) else {
            let controller = Arc::clone(controller);
            let task = tokio::task::spawn_blocking(move || {
                let said = &mut |line: &str| tracing::debug!(line, "Making an image");
                let result = (controller.addons.images)(&image, said);
                controller.addons.wake();
                result
            });
            self.images.insert(image.name, task);
            return Ok(());
        };
        if !task.is_finished() {
            return Ok(());
        }
        let result = task.await;
        self.images.remove(image.name);
        match result {
            Ok(Ok(layer)) => controller.store.set_addon_layer(addon.id, &layer, controller.clock.now()).await?,
            Ok(Err(error)) => give_up(controller, addon, &chain(&error)).await?,
            Err(panic) => give_up(controller, addon, &panic.to_string()).await?,
        }
        controller.addons.wake();
        Ok(())
    }

    /// Tells the engine what to keep alive and for whom, and notes where it answers.
    async fn keep(
        &mut self,
        controller: &Arc<Controller>,
        (addon, server): (&Addon, &Server),
        (mine, wanted): (&[&WorkloadStatus], Applied),
    ) -> Result<(), Error> {
        let id = workload_id(addon);
        let there = mine.iter().find(|status| status.id == id && !status.deleting);
        if there.is_none() && addon.state == AddonState::Provisioning {
            // Its image took time, and others may have taken the room.
            let (kind, plan) = kind_of(addon)?;
            if let Err(Error::Conflict(refusal)) = controller.admit_one(&words(kind, plan), demand(kind, plan)).await {
                return give_up(controller, addon, &refusal).await;
            }
        }
        if there.is_none() || self.applied.get(&addon.id) != Some(&wanted) {
            let workload = controller.addon_workload(addon, (server, &wanted.layer), wanted.clients.clone()).await?;
            match controller.engine.apply(workload).await {
                Ok(()) => {
                    controller.let_through(addon.id, &wanted.clients);
                    self.applied.insert(addon.id, wanted);
                }
                // This program runs such servers in another way than the one that started it.
                Err(EngineError::Immutable(_)) => {
                    controller.store.renew_addon(addon.id, controller.clock.now()).await?;
                    controller.addons.wake();
                    return Ok(());
                }
                Err(error @ EngineError::Unreachable { .. }) => return Err(error.into()),
                Err(error) if addon.state == AddonState::Provisioning => {
                    return give_up(controller, addon, &chain(&error)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        delete(controller, mine.iter().copied().filter(|status| status.id != id)).await?;
        let Some(status) = there else { return Ok(()) };
        let is_up = status.instances.iter().any(|instance| instance.state == InstanceState::Up);
        let is_new = addon.state == AddonState::Provisioning;
        match &status.address {
            Some(address) if addon.address.as_ref() != Some(address) && (is_up || !is_new) => {
                controller.store.provision_addon(addon, address, &controller.own_stamp()).await?;
            }
            _ if is_new && status.instances.iter().any(|instance| instance.crashes >= CRASHES) => {
                let reason = controller.why_it_crashes(addon, status).await;
                give_up(controller, addon, &reason).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends what runs, then removes the data, then forgets the add-on; its files go with the next sweep.
    async fn remove(
        &mut self,
        controller: &Arc<Controller>,
        addon: &Addon,
        mine: &[&WorkloadStatus],
    ) -> Result<(), Error> {
        self.applied.remove(&addon.id);
        if !mine.is_empty() {
            return delete(controller, mine.iter().copied()).await;
        }
        let prefix = oneoff_prefix(addon.id);
        for oneoff in controller.engine.oneoffs().await?.iter().filter(|oneoff| oneoff.0.starts_with(&prefix)) {
            controller.engine.kill(oneoff).await?;
        }
        controller.engine.remove_volume(&volume(addon.id)).await?;
        controller.store.delete_addon(addon.id).await?;
        controller.live.litter.notify_one();
        Ok(())
    }
}

impl Controller {
    /// Notes who gets through to an add-on; releases may wait for that.
    fn let_through(&self, addon: AddonId, apps: &BTreeSet<AppId>) {
        let before = self.addons.reach.lock().insert(addon, apps.clone()).unwrap_or_default();
        apps.difference(&before).for_each(|app| self.changed.app(*app));
    }

    async fn why_it_crashes(&self, addon: &Addon, status: &WorkloadStatus) -> String {
        let Some(instance) = status.instances.first() else { return "it ends at once".to_owned() };
        let exit = instance.last_exit.map(|exit| exit.to_string()).unwrap_or_default();
        let log = self.dyno_log(addon.id.into(), &instance.dyno, addon.created_at).await;
        let end: Vec<_> = log.iter().rev().take(5).rev().map(String::as_str).collect();
        format!("the server {exit}: {}", end.join(" / "))
    }
}

/// The apps that each add-on lets through: those that it is attached to, and those that still run a release which was told of it.
fn clients(
    attachments: &[Attachment],
    told: &[(AppId, u64, Attached)],
    observed: &[WorkloadStatus],
) -> BTreeMap<AddonId, BTreeSet<AppId>> {
    let mut clients: BTreeMap<AddonId, BTreeSet<AppId>> = BTreeMap::new();
    for attachment in attachments {
        clients.entry(attachment.addon).or_default().insert(attachment.app);
    }
    let running: BTreeSet<_> = observed.iter().map(|status| (status.app, status.release)).collect();
    for (app, _, attached) in told.iter().filter(|(app, version, _)| running.contains(&(*app, *version))) {
        for addon in attached.values() {
            clients.entry(*addon).or_default().insert(*app);
        }
    }
    clients
}

impl Controller {
    async fn release_attachments(&self, app: &App) -> Result<(), Error> {
        let mut vars = BTreeMap::new();
        let mut names = BTreeMap::new();
        let seen = self.store.present(app.id).await?.attachments;
        for (attachment, it) in &seen {
            let Some(addon) = self.store.addon(it.addon).await? else { continue };
            for (name, value) in self.attachment_vars(attachment, &addon).await? {
                vars.insert(name, (addon.id, value));
            }
            names.insert(addon.id, addon.name.to_string());
        }
        let before = self.store.attached(app.id).await?;
        let config = self.store.config(app.id).await?;
        let same = |(name, (addon, value)): (&ConfigVarName, &(AddonId, String))| {
            before.get(name) == Some(addon) && config.get(name) == Some(value.as_str())
        };
        if before.len() == vars.len() && vars.iter().all(same) {
            return Ok(());
        }
        for addon in before.values() {
            if let Some(addon) = self.store.addon(*addon).await? {
                names.insert(addon.id, addon.name.to_string());
            }
        }
        let description = describe(&before, &vars, &names);
        let change = Change::Attachments { seen: &seen, vars: &vars };
        let (app_id, user) = (app.id, app.owner.id);
        let new = NewRelease { app: app_id, user, description: &description, reason: None, change };
        if let Some(release) = self.store.create_release(new, &self.own_stamp()).await? {
            let source = model::LogSource::app("api");
            let line = format!("{description}: release v{}", release.version);
            self.logs.write(app.id, self.clock.now(), &source, &line);
            self.changed.app(app.id);
            // Whoever let the app through to a service may have to shut it out once the release before has ended.
            self.addons.wake();
        }
        Ok(())
    }
}

/// `Attach DATABASE (@ref:postgres-quiet-harbor-41730)`, as Heroku words it.
fn describe(
    before: &Attached,
    after: &BTreeMap<ConfigVarName, (AddonId, String)>,
    names: &BTreeMap<AddonId, String>,
) -> String {
    let part = |verb: &str, var: &ConfigVarName, addon: &AddonId| {
        let attachment = var.as_str().rsplit_once('_').map_or(var.as_str(), |(name, _)| name);
        let name = names.get(addon).map_or("gone", String::as_str);
        format!("{verb} {attachment} (@ref:{name})")
    };
    let gone = before.iter().filter(|(var, _)| !after.contains_key(var)).map(|(var, id)| part("Detach", var, id));
    let fresh = after.iter().filter(|(var, _)| !before.contains_key(var)).map(|(var, it)| part("Attach", var, &it.0));
    let parts: Vec<_> = gone.chain(fresh).collect();
    if parts.is_empty() { "Update of what add-ons provide".to_owned() } else { parts.join(", ") }
}

async fn delete<'a>(controller: &Controller, workloads: impl Iterator<Item = &'a WorkloadStatus>) -> Result<(), Error> {
    for status in workloads.filter(|status| !status.deleting) {
        controller.engine.delete(&status.id).await?;
    }
    Ok(())
}

async fn give_up(controller: &Controller, addon: &Addon, reason: &str) -> Result<(), Error> {
    tracing::error!(addon.name = %addon.name, reason, "An add-on does not come up");
    controller.store.fail_addon(addon, reason, &controller.own_stamp()).await?;
    controller.addons.wake();
    Ok(())
}
