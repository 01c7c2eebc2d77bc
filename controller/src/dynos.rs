//! Dynos: what runs right now, and one-offs that people start.

mod inside;
pub(crate) mod runs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use engine::{Instance, InstanceState, OneOffId};
use model::{DynoName, Timestamp};
use sha2::{Digest, Sha256};

use crate::formation::WEB;
use crate::rollout::size_of;
use crate::sizes::DEFAULT_SIZE;
use crate::store::{Action, App, NewEvent, Release, Resource};
use crate::{Actor, Controller, Error};
pub use inside::ExecRequest;
pub use runs::{RunRequest, Started};

/// The state of a dyno that a request would start.
pub(crate) const IDLE: &str = "idle";

/// One dyno as people see it.
#[derive(Debug, Clone)]
pub struct Dyno {
    /// Unique for ever.
    pub id: String,
    /// `web.1`, `run.1234`
    pub name: DynoName,
    /// What it runs.
    pub command: String,
    /// `starting`, `up`, `idle`, `crashed`, `stopping`
    pub state: &'static str,
    /// Since when.
    pub since: Timestamp,
    /// The release that it runs.
    pub release: Release,
    /// Canonical name of the size that it really has.
    pub size: String,
    /// Whether routers send it requests, as they say themselves; none of what never gets any.
    pub routed: Option<bool>,
    /// Whether somebody started it beside the formation.
    pub is_one_off: bool,
    /// What the engine says of it; none of one-offs, and of those that sleep.
    pub instance: Option<Instance>,
}

impl Dyno {
    /// The id that clients know: engines have ids of their own, the API wants UUIDs. The same one every time.
    pub fn uuid(&self) -> String {
        uuid_of(&self.id)
    }

    /// Whether `name` means it: its name, its process type, or its id.
    fn is_named(&self, name: &str) -> bool {
        let is_type = name == self.name.process_type.as_str();
        // Whoever names a process type of the formation does not mean what others started beside it.
        name == self.name.to_string()
            || (is_type && (!self.is_one_off || name == runs::ONE_OFF))
            || name == self.id
            || name == self.uuid()
    }
}

impl Controller {
    /// The dynos of an app, one-offs among them, by process type and number.
    pub async fn dynos(&self, app: &App) -> Result<Vec<Dyno>, Error> {
        let mut releases: BTreeMap<u64, Release> = BTreeMap::new();
        let formation = self.store.formation(app.id).await?;
        let routed = self.routed(app).await;
        let sizes = self.sizes().await?;
        let mut dynos = Vec::new();
        for status in self.engine.list_of(&[app.id]).await? {
            if !releases.contains_key(&status.release) {
                let found = self.store.release_by_version(app.id, status.release).await?;
                releases.extend(found.map(|release| (release.version, release)));
            }
            let Some(release) = releases.get(&status.release) else { continue };
            let image = self.image_of(release).await?;
            let process = image.processes.iter().find(|process| process.process_type == status.process_type);
            let row = formation.iter().find(|row| row.process_type == status.process_type);
            // What older programs wished does not say its size.
            let size = sizes.find(size_of(&status.id)).map(|size| &size.name).or_else(|| row.map(|row| &row.size));
            let is_web = status.process_type.as_str() == WEB;
            let takes = |instance: &Instance| instance.is_healthy() && routed.contains(&status.id);
            let stops = |number: u32| status.instances.iter().any(|instance| instance.dyno.number == number);
            let sleepers = status.asleep.map(|since| (1..=status.quantity).map(move |number| (number, since)));
            let sleepers = sleepers.into_iter().flatten().filter(|(number, _)| !stops(*number));
            dynos.extend(sleepers.map(|(number, since)| Dyno {
                routed: is_web.then(|| routed.contains(&status.id)),
                id: format!("{}.{number}", status.id),
                name: DynoName { process_type: status.process_type.clone(), number },
                command: process.map(model::Process::display).unwrap_or_default(),
                state: IDLE,
                since,
                release: release.clone(),
                size: size.map_or(DEFAULT_SIZE, String::as_str).to_owned(),
                is_one_off: false,
                instance: None,
            }));
            dynos.extend(status.instances.into_iter().map(|instance| Dyno {
                routed: is_web.then(|| takes(&instance)),
                id: instance.id.clone(),
                name: instance.dyno.clone(),
                command: process.map(model::Process::display).unwrap_or_default(),
                state: match instance.state {
                    InstanceState::Starting => "starting",
                    InstanceState::Up => "up",
                    InstanceState::Crashed { .. } | InstanceState::GaveUp => "crashed",
                    InstanceState::Stopping => "stopping",
                },
                since: instance.since,
                release: release.clone(),
                size: size.map_or(DEFAULT_SIZE, String::as_str).to_owned(),
                is_one_off: false,
                instance: Some(instance),
            }));
        }
        dynos.extend(self.running_oneoffs(app.id).await?);
        dynos.sort_by(|a, b| (&a.name, a.release.version).cmp(&(&b.name, b.release.version)));
        Ok(dynos)
    }

    /// Restarts the dynos that `which` names: all of the formation, those of a process type, or one. A one-off just ends.
    pub async fn restart_dynos(&self, app: &App, actor: &Actor, which: Option<&str>) -> Result<(), Error> {
        let is_meant = |dyno: &Dyno| which.map_or(!dyno.is_one_off, |which| dyno.is_named(which));
        let dynos: Vec<Dyno> = self.dynos(app).await?.into_iter().filter(is_meant).collect();
        if dynos.is_empty() && which.is_some() {
            return Err(Error::NotFound("dyno"));
        }
        self.note(app, actor, &format!("Restart {}", which.unwrap_or("all dynos")));
        let restarted: Vec<_> = dynos.iter().map(|dyno| dyno.name.to_string()).collect();
        let id = which.unwrap_or("all").to_owned();
        self.record_dynos(app, actor, (Action::Destroy, id, serde_json::json!({ "restarted": restarted }))).await?;
        self.end_dynos(&dynos).await
    }

    /// Stops the dynos that `which` names: those of a process type, or one. The formation starts its own ones again, as on
    /// Heroku: what should not run is scaled down. A one-off is over.
    pub async fn stop_dynos(&self, app: &App, actor: &Actor, which: &str) -> Result<(), Error> {
        let dynos: Vec<Dyno> = self.dynos(app).await?.into_iter().filter(|dyno| dyno.is_named(which)).collect();
        if dynos.is_empty() {
            return Err(Error::NotFound("dyno"));
        }
        self.note(app, actor, &format!("Stop {which}"));
        let stopped: Vec<_> = dynos.iter().map(|dyno| dyno.name.to_string()).collect();
        let data = serde_json::json!({ "stopped": stopped });
        self.record_dynos(app, actor, (Action::Destroy, which.to_owned(), data)).await?;
        self.end_dynos(&dynos).await
    }

    async fn end_dynos(&self, dynos: &[Dyno]) -> Result<(), Error> {
        for dyno in dynos {
            if dyno.is_one_off {
                self.engine.stop(&OneOffId(dyno.id.clone())).await?;
            } else {
                self.engine.restart(&dyno.id).await?;
            }
        }
        Ok(())
    }

    /// What people do with dynos is in no table of its own.
    pub(crate) async fn record_dynos(
        &self,
        app: &App,
        actor: &Actor,
        (action, id, data): (Action, String, serde_json::Value),
    ) -> Result<(), Error> {
        let event = NewEvent { app: Some(app.id), resource: Resource::Dyno, id, action, data };
        Ok(self.store.record(&self.stamp(actor), event).await?)
    }
}

/// An engine's id as clients know it.
fn uuid_of(id: &str) -> String {
    let hash = Sha256::digest(id.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
