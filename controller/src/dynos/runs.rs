//! One-off dynos that people start. One without a client belongs to the engine once it runs: no restart of a controller ends it,
//! and how it ended is taken down when there is one again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use engine::{EngineError, OneOff, OneOffId, RunningOneOff, TtySize};
use model::{AppId, ConfigVarName, DynoName, Exit, ProcessType};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{Dyno, uuid_of};
use crate::admission::demand_of;
use crate::attach::{Protocol, What};
use crate::config_vars::MAX_VALUE_BYTES;
use crate::errors::chain;
use crate::formation::process_type;
use crate::jobs::is_of_job;
use crate::rollout::Task;
use crate::sizes::DEFAULT_SIZE;
use crate::store::{Action, App, NewEvent, Release, Resource, Run, RunEnd, RunState};
use crate::watch::{News, Watch};
use crate::{Actor, Controller, Error};

/// As on Heroku, a one-off ends after a day at the latest.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The process type of one-offs that people start, unless they say another.
pub(super) const ONE_OFF: &str = "run";
/// How often a name is looked for that nobody has.
const ATTEMPTS: u32 = 20;
/// How often what runs is looked at although nothing is said to have changed, and how long after a failure.
const INTERVAL: Duration = Duration::from_secs(5);

/// A one-off to run.
#[derive(Debug)]
pub struct RunRequest {
    /// A shell command line.
    pub command: String,
    /// Name of a dyno size.
    pub size: Option<String>,
    /// The first part of its name.
    pub process_type: Option<String>,
    /// Environment on top of the app's own.
    pub env: Vec<(String, String)>,
    /// How somebody will attach; without anybody its output goes to the log.
    pub attach: Option<Protocol>,
    /// Whether an attached one gets no terminal, so that its output is what it wrote, byte for byte.
    pub no_tty: bool,
    /// It is stopped after this long; a day unless somebody says less.
    pub time_limit: Option<Duration>,
}

/// A one-off that was started.
#[derive(Debug)]
pub struct Started {
    /// The dyno.
    pub dyno: Dyno,
    /// Where to attach, for an attached one; works once, for a minute.
    pub attach_url: Option<String>,
}

/// Follows one-offs for as long as the process lives.
pub(crate) async fn work(controller: Arc<Controller>) {
    let mut watch = Watch::default();
    loop {
        let news = watch.news(&*controller.engine).await;
        if let Err(error) = controller.settle_runs(&news).await {
            tracing::debug!(error = chain(&error), "how one-offs ended cannot be taken down yet");
            watch.give_back(news);
            sleep(INTERVAL).await;
            continue;
        }
        tokio::select! {
            () = watch.changed() => {}
            () = sleep(INTERVAL) => {}
        }
    }
}

impl Controller {
    /// Starts a one-off in the current release; on the bare stack before the first deploy.
    pub async fn run(self: &Arc<Self>, app: &App, actor: &Actor, request: RunRequest) -> Result<Started, Error> {
        check_request(&request)?;
        let release = self.store.release(app.current_release).await?.ok_or(Error::NotFound("release"))?;
        self.live.ready().await?;
        let size = request.size.as_deref().unwrap_or(DEFAULT_SIZE);
        let sizes = self.sizes().await?;
        let size = sizes.find(size).ok_or_else(|| sizes.unknown(size))?;
        let who = format!("A one-off dyno of {}", size.name.to_ascii_lowercase());
        self.admit_one(&who, demand_of(&sizes, &size.name, 1)).await?;
        let kind = process_type(request.process_type.as_deref().unwrap_or(ONE_OFF))?;
        let mut container = self.container(app, &release, Task::Line(&request.command), &size.name).await?;
        container.env.extend(request.env.iter().cloned());
        let run = self.note_run(app, actor, (kind, &release, &size.name), &request).await?;
        container.env.insert("DYNO".to_owned(), run.dyno.to_string());
        let wants_tty = run.attached && !request.no_tty;
        let oneoff = OneOff {
            id: OneOffId(run.engine_id.clone()),
            app: app.id,
            container,
            tty: wants_tty.then(|| terminal(&request.env)),
            time_limit: run.time_limit,
            stop_grace: self.settings.stop_grace,
            is_build: false,
            log: (!run.attached).then(|| run.dyno.clone()),
        };
        self.note(app, actor, &format!("Starting process with command `{}`", request.command));
        let dyno = dyno_of(&run, release);
        let attach_url = if let Some(protocol) = request.attach {
            Some(self.open_attachment(What::OneOff(Box::new(oneoff)), Some(run), protocol)?)
        } else {
            let running = self.engine.run(oneoff).await;
            self.note_start(&run, running).await?;
            None
        };
        Ok(Started { dyno, attach_url })
    }

    /// Gives a one-off a name that no other one of its app has. That of one without a client is committed before it starts.
    async fn note_run(
        &self,
        app: &App,
        actor: &Actor,
        (kind, release, size): (ProcessType, &Release, &str),
        request: &RunRequest,
    ) -> Result<Run, Error> {
        for _ in 0..ATTEMPTS {
            let dyno = DynoName { process_type: kind.clone(), number: self.run_number() };
            let engine_id = format!("run-{}-{}-{}", app.id, dyno.number, &self.new_secret()[..8]);
            let run = Run {
                id: uuid_of(&engine_id),
                app: app.id,
                release: release.version,
                dyno,
                command: request.command.clone(),
                size: size.to_owned(),
                attached: request.attach.is_some(),
                user: Some(actor.user.email.to_string()),
                engine_id,
                state: RunState::Starting,
                exit: None,
                failure: None,
                time_limit: request.time_limit.unwrap_or(LONGEST),
                created_at: self.clock.now(),
                started_at: None,
                ended_at: None,
            };
            let data = serde_json::json!({ "command": run.command, "size": run.size });
            let (id, action) = (run.dyno.to_string(), Action::Create);
            let event = NewEvent { app: Some(app.id), resource: Resource::Dyno, id, action, data };
            if run.attached {
                if self.store.open_runs_of(app.id).await?.iter().all(|other| other.dyno != run.dyno) {
                    self.store.record(&self.stamp(actor), event).await?;
                    return Ok(run);
                }
            } else if self.store.insert_run(&run, Some(event), &self.stamp(actor)).await? {
                return Ok(run);
            }
        }
        Err(Error::Conflict(format!("{} runs too many one-off dynos at once.", app.name)))
    }

    /// Notes one whose client has come.
    pub(crate) async fn note_attached(&self, run: &Run) -> Result<(), Error> {
        if self.store.insert_run(run, None, &self.own_stamp()).await? {
            return Ok(());
        }
        Err(Error::Conflict(format!("Another {} was started meanwhile. Run it again.", run.dyno)))
    }

    /// Notes that a run began, or why it did not.
    pub(crate) async fn note_start(
        &self,
        run: &Run,
        running: Result<RunningOneOff, EngineError>,
    ) -> Result<RunningOneOff, EngineError> {
        let noted = match &running {
            Ok(_) => self.store.start_run(&run.engine_id, self.clock.now()).await,
            Err(error) => {
                let end = RunEnd::Failed(format!("It could not be started: {}", chain(error)));
                self.store.end_run(&run.engine_id, &end, self.clock.now()).await
            }
        };
        if let Err(error) = noted {
            // The next look at what runs finds it out again.
            tracing::warn!(run.id = %run.id, error = chain(&error), "The start of a one-off could not be noted");
        }
        running
    }

    /// Passes on how an attached one ends, and notes it.
    pub(crate) fn note_end(self: &Arc<Self>, run: &Run, running: RunningOneOff) -> RunningOneOff {
        let RunningOneOff { input, output, exit } = running;
        let (sender, passed_on) = oneshot::channel();
        let (controller, id) = (Arc::clone(self), run.engine_id.clone());
        tokio::spawn(async move {
            let exit = exit.await.unwrap_or(Exit::Lost);
            let _ = sender.send(exit);
            let noted = controller.store.end_run(&id, &RunEnd::Exited(exit), controller.clock.now()).await;
            if let Err(error) = noted {
                tracing::warn!(oneoff.id = %id, error = chain(&error), "The end of a one-off could not be noted");
            }
        });
        RunningOneOff { input, output, exit: passed_on }
    }

    /// Tells a run to end.
    pub async fn stop_run(&self, app: &App, actor: &Actor, run: &Run) -> Result<(), Error> {
        if run.ended_at.is_some() {
            return Err(Error::Invalid(format!("{} has ended already.", run.dyno)));
        }
        self.note(app, actor, &format!("Stop {}", run.dyno));
        let data = serde_json::json!({ "stopped": [run.dyno.to_string()] });
        self.record_dynos(app, actor, (Action::Destroy, run.dyno.to_string(), data)).await?;
        Ok(self.engine.stop(&OneOffId(run.engine_id.clone())).await?)
    }

    /// The one-offs of an app that have not ended, as dynos.
    pub(super) async fn running_oneoffs(&self, app: AppId) -> Result<Vec<Dyno>, Error> {
        let mut dynos = Vec::new();
        for run in self.store.open_runs_of(app).await? {
            let release = self.store.release_by_version(app, run.release).await?;
            dynos.extend(release.map(|release| dyno_of(&run, release)));
        }
        Ok(dynos)
    }

    /// What an earlier controller had started: the ids of what runs on. Those that had a client end, because it has gone.
    pub(crate) async fn recover_runs(&self) -> Result<BTreeSet<OneOffId>, Error> {
        let open = self.store.open_runs().await?;
        let running: BTreeSet<OneOffId> = self.engine.oneoffs().await?.into_iter().collect();
        let ended: BTreeSet<OneOffId> = self.engine.ended().await?.into_iter().map(|ended| ended.id).collect();
        let mut kept = BTreeSet::new();
        for run in open {
            let (id, now) = (OneOffId(run.engine_id.clone()), self.clock.now());
            if run.attached {
                self.engine.stop(&id).await?;
                let end = RunEnd::Failed("It ended with its connection when the platform was restarted.".to_owned());
                self.store.end_run(&id.0, &end, now).await?;
            } else if running.contains(&id) || ended.contains(&id) {
                self.store.start_run(&id.0, now).await?;
            } else if run.state == RunState::Starting {
                let end = RunEnd::Failed("The platform was restarted before it began.".to_owned());
                self.store.end_run(&id.0, &end, now).await?;
            }
            kept.insert(id);
        }
        Ok(kept)
    }

    /// Takes down how one-offs ended, if it is news of their apps.
    pub(crate) async fn settle_runs(&self, news: &News) -> Result<(), Error> {
        if !news.all && news.apps.is_empty() {
            return Ok(());
        }
        // What is open is read before what runs, and that before what has ended: nothing can slip through.
        let mut open = self.store.open_runs().await?;
        open.retain(|run| !run.attached && (news.all || news.apps.contains(&run.app)));
        if open.is_empty() && !news.all {
            return Ok(());
        }
        let running: BTreeSet<OneOffId> = self.engine.oneoffs().await?.into_iter().collect();
        let mut ended = self.engine.ended().await?;
        ended.retain(|ended| !is_of_job(&ended.id));
        for ended in &ended {
            self.store.end_run(&ended.id.0, &RunEnd::Exited(ended.exit), ended.at).await?;
            self.engine.forget(&ended.id).await?;
        }
        for run in open.iter().filter(|run| run.state == RunState::Up) {
            let id = OneOffId(run.engine_id.clone());
            if !running.contains(&id) && ended.iter().all(|ended| ended.id != id) {
                self.store.end_run(&id.0, &RunEnd::Exited(Exit::Lost), self.clock.now()).await?;
            }
        }
        Ok(())
    }

    fn run_number(&self) -> u32 {
        let mut bytes = [0; 2];
        self.random.fill(&mut bytes);
        1000 + u32::from(u16::from_le_bytes(bytes)) % 9000
    }
}

fn dyno_of(run: &Run, release: Release) -> Dyno {
    Dyno {
        id: run.engine_id.clone(),
        name: run.dyno.clone(),
        command: run.command.clone(),
        state: run.state.as_str(),
        since: run.started_at.unwrap_or(run.created_at),
        release,
        size: run.size.clone(),
        routed: None,
        is_one_off: true,
        instance: None,
    }
}

/// Refuses what no process could be given.
fn check_request(request: &RunRequest) -> Result<(), Error> {
    if request.time_limit.is_some_and(|limit| limit.is_zero() || limit > LONGEST) {
        let longest = LONGEST.as_secs();
        return Err(Error::Invalid(format!("time_to_live must be between 1 and {longest} seconds")));
    }
    check_process(&request.command, &request.env)
}

/// Refuses a command line and an environment that no process could be given.
pub(crate) fn check_process(command: &str, env: &[(String, String)]) -> Result<(), Error> {
    let texts = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain([("command", command)]);
    for (name, text) in texts {
        if text.len() > MAX_VALUE_BYTES {
            let bytes = text.len();
            return Err(Error::Invalid(format!("{name} has {bytes} bytes; at most {MAX_VALUE_BYTES} are possible")));
        }
    }
    for (name, _) in env {
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
