//! Dynos: what runs right now, and one-offs that people start.

mod oneoffs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::{InstanceState, Lines, OneOff, OneOffId, RunningOneOff, TtySize};
use model::{AppId, ConfigVarName, DynoName, Exit, LogSource, Timestamp};
use sha2::{Digest, Sha256};

use crate::attach::Protocol;
use crate::config_vars::MAX_VALUE_BYTES;
use crate::formation::{DEFAULT_SIZE, WEB, dyno_size, process_type};
use crate::rollout::{Task, size_of};
use crate::store::{Action, App, NewEvent, Release, Resource};
use crate::{Actor, Controller, Error};
pub(crate) use oneoffs::Listed;

/// As on Heroku, a one-off ends after a day.
const TIME_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The process type of one-offs that people start.
const ONE_OFF: &str = "run";

/// One dyno as people see it.
#[derive(Debug, Clone)]
pub struct Dyno {
    /// Unique for ever.
    pub id: String,
    /// `web.1`, `run.1234`
    pub name: DynoName,
    /// What it runs.
    pub command: String,
    /// `starting`, `up`, `crashed`, `stopping`
    pub state: &'static str,
    /// Since when.
    pub since: Timestamp,
    /// The release that it runs.
    pub release: Release,
    /// Canonical name of the size that it really has.
    pub size: String,
    /// Whether routers send it requests, as they say themselves; none of what never gets any.
    pub routed: Option<bool>,
}

/// A one-off to run.
#[derive(Debug)]
pub struct RunRequest {
    /// A shell command line.
    pub command: String,
    /// Name of a dyno size.
    pub size: Option<String>,
    /// Environment on top of the app's own.
    pub env: Vec<(String, String)>,
    /// How somebody will attach; without anybody its output goes to the log.
    pub attach: Option<Protocol>,
    /// Whether an attached one gets no terminal, so that its output is what it wrote, byte for byte.
    pub no_tty: bool,
}

/// A one-off that was started.
#[derive(Debug)]
pub struct Started {
    /// The dyno.
    pub dyno: Dyno,
    /// Where to attach, for an attached one; works once, for a minute.
    pub attach_url: Option<String>,
}

impl Dyno {
    /// The id that clients know: engines have ids of their own, the API wants UUIDs. The same one every time.
    pub fn uuid(&self) -> String {
        let hash = Sha256::digest(self.id.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// Whether `name` means it: its name, its process type, or its id.
    fn is_named(&self, name: &str) -> bool {
        name == self.name.to_string()
            || name == self.name.process_type.as_str()
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
            let size = size_of(&status.id).map(|size| &size.name).or_else(|| row.map(|row| &row.size));
            let is_web = status.process_type.as_str() == WEB;
            let takes = |state| state == InstanceState::Up && routed.as_ref() == Some(&status.id);
            dynos.extend(status.instances.into_iter().map(|instance| Dyno {
                routed: is_web.then(|| takes(instance.state)),
                id: instance.id,
                name: instance.dyno,
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
            }));
        }
        dynos.extend(self.running_oneoffs(app.id));
        dynos.sort_by(|a, b| (&a.name, a.release.version).cmp(&(&b.name, b.release.version)));
        Ok(dynos)
    }

    /// Restarts the dynos that `which` names: all of the formation, those of a process type, or one. A one-off just ends.
    pub async fn restart_dynos(&self, app: &App, actor: &Actor, which: Option<&str>) -> Result<(), Error> {
        let is_meant =
            |dyno: &Dyno| which.map_or(dyno.name.process_type.as_str() != ONE_OFF, |which| dyno.is_named(which));
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
            if dyno.name.process_type.as_str() == ONE_OFF {
                self.engine.kill(&OneOffId(dyno.id.clone())).await?;
            } else {
                self.engine.restart(&dyno.id).await?;
            }
        }
        Ok(())
    }

    /// Starts a one-off in the current release; on the bare stack before the first deploy.
    pub async fn run(self: &Arc<Self>, app: &App, actor: &Actor, request: RunRequest) -> Result<Started, Error> {
        check_request(&request)?;
        let release = self.store.release(app.current_release).await?.ok_or(Error::NotFound("release"))?;
        self.live.ready().await?;
        let size = request.size.as_deref().unwrap_or(DEFAULT_SIZE);
        let size = dyno_size(size).ok_or_else(|| Error::Invalid(format!("size {size:?} does not exist")))?;
        let number = self.run_number();
        let name = DynoName { process_type: process_type(ONE_OFF)?, number };
        let mut container = self.container(app, &release, Task::Line(&request.command), &size.name).await?;
        container.env.extend(request.env.iter().cloned());
        container.env.insert("DYNO".to_owned(), name.to_string());
        let wants_tty = request.attach.is_some() && !request.no_tty;
        let tty = wants_tty.then(|| terminal(&request.env));
        let id = OneOffId(format!("run-{}-{number}-{}", app.id, &self.new_secret()[..8]));
        let oneoff = OneOff { id: id.clone(), app: app.id, container, tty, time_limit: TIME_LIMIT };
        let data = serde_json::json!({ "command": request.command, "size": size.name });
        self.record_dynos(app, actor, (Action::Create, name.to_string(), data)).await?;
        self.note(app, actor, &format!("Starting process with command `{}`", request.command));
        let dyno = Dyno {
            id: id.0,
            name,
            command: request.command,
            state: "starting",
            since: self.clock.now(),
            release,
            size: size.name.clone(),
            routed: None,
        };
        let attach_url = match request.attach {
            Some(protocol) => Some(self.open_attachment(oneoff, Some(dyno.clone()), protocol)?),
            None => self.run_detached(oneoff, dyno.clone()).await?,
        };
        Ok(Started { dyno, attach_url })
    }

    /// What people do with dynos is in no table of its own.
    async fn record_dynos(
        &self,
        app: &App,
        actor: &Actor,
        (action, id, data): (Action, String, serde_json::Value),
    ) -> Result<(), Error> {
        let event = NewEvent { app: Some(app.id), resource: Resource::Dyno, id, action, data };
        Ok(self.store.record(&self.stamp(actor), event).await?)
    }

    fn run_number(&self) -> u32 {
        let mut bytes = [0; 2];
        self.random.fill(&mut bytes);
        1000 + u32::from(u16::from_le_bytes(bytes)) % 9000
    }

    async fn run_detached(self: &Arc<Self>, oneoff: OneOff, dyno: Dyno) -> Result<Option<String>, Error> {
        let (app, source) = (oneoff.app, LogSource::app(&dyno.name));
        let running = self.engine.run(oneoff).await?;
        let listed = Listed::new(self, app, dyno);
        let controller = Arc::clone(self);
        tokio::spawn(async move {
            controller.log_run(app, source, running).await;
            drop(listed);
        });
        Ok(None)
    }

    async fn log_run(&self, app: AppId, source: LogSource, mut running: RunningOneOff) {
        let write = |line: &String| self.logs.write(app, self.clock.now(), &source, line);
        let mut lines = Lines::default();
        while let Some(bytes) = running.output.recv().await {
            lines.push(&bytes).iter().for_each(write);
        }
        lines.rest().iter().for_each(write);
        let exit = running.exit.await.unwrap_or(Exit::Lost);
        let source = LogSource::platform(&source.process);
        self.logs.write(app, self.clock.now(), &source, &format!("Process {exit}"));
    }
}

/// Refuses what no process could be given.
fn check_request(request: &RunRequest) -> Result<(), Error> {
    let texts = request.env.iter().map(|(name, value)| (name.as_str(), value)).chain([("command", &request.command)]);
    for (name, text) in texts {
        if text.len() > MAX_VALUE_BYTES {
            let bytes = text.len();
            return Err(Error::Invalid(format!("{name} has {bytes} bytes; at most {MAX_VALUE_BYTES} are possible")));
        }
    }
    for (name, _) in &request.env {
        let rule = |rule| Error::Invalid(format!("env {name:?} is not valid: {rule}"));
        name.parse::<ConfigVarName>().map_err(rule)?;
    }
    Ok(())
}

/// The terminal that a client asks for: it sends its size as environment variables, as the `heroku` program does.
pub(crate) fn terminal(env: &[(String, String)]) -> TtySize {
    let size = |name: &str, default| {
        let value = env.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.parse().ok());
        value.filter(|value| *value > 0).unwrap_or(default)
    };
    TtySize { rows: size("LINES", 24), columns: size("COLUMNS", 80) }
}
