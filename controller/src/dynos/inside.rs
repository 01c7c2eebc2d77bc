//! Looking into dynos that run.

use engine::{Archive, EngineError, Exec, RunningOneOff};
use model::AppId;
use serde_json::json;

use super::runs::{LONGEST, Started, check_process, terminal};
use super::{Dyno, IDLE};
use crate::attach::{Protocol, What};
use crate::errors::chain;
use crate::store::{Action, App};
use crate::{Actor, Controller, Error};

/// As long as Linux takes.
const LONGEST_PATH: usize = 4095;

/// A process to start in a dyno.
#[derive(Debug)]
pub struct ExecRequest {
    /// A shell command line.
    pub command: String,
    /// Environment on top of the dyno's own.
    pub env: Vec<(String, String)>,
    /// What its client speaks.
    pub protocol: Protocol,
    /// Whether it gets no terminal.
    pub no_tty: bool,
}

impl Controller {
    /// Starts a process in a dyno once its client comes. It ends with its client and with the dyno.
    pub async fn exec(&self, (app, actor): (&App, &Actor), dyno: &str, request: ExecRequest) -> Result<Started, Error> {
        check_process(&request.command, &request.env)?;
        let dyno = self.dyno_within(app, dyno).await?;
        let image = self.image_of(&dyno.release).await?;
        let exec = Exec {
            args: image.inside_args(&request.command),
            env: request.env.iter().cloned().collect(),
            tty: (!request.no_tty).then(|| terminal(&request.env)),
            time_limit: LONGEST,
        };
        if exec.args.is_empty() {
            return Err(Error::Invalid("The image has no shell, and no command was given.".to_owned()));
        }
        self.note_use(app, actor, &dyno, json!({ "exec": request.command })).await?;
        self.note(app, actor, &format!("Run `{}` in {}", request.command, dyno.name));
        let what = What::Exec { instance: dyno.id.clone(), exec };
        let attach_url = Some(self.open_attachment(what, None, request.protocol)?);
        Ok(Started { dyno, attach_url })
    }

    /// An address at which a port of a dyno is reached, again and again for as long as somebody does.
    pub async fn forward(&self, (app, actor): (&App, &Actor), dyno: &str, port: u16) -> Result<(Dyno, String), Error> {
        let dyno = self.dyno_within(app, dyno).await?;
        self.note_use(app, actor, &dyno, json!({ "forward": port })).await?;
        self.note(app, actor, &format!("Forward port {port} of {}", dyno.name));
        let what = What::Port { app: app.id, dyno: dyno.name.to_string(), port };
        let url = self.open_attachment(what, None, Protocol::WebSocket)?;
        Ok((dyno, url))
    }

    /// Connects to a port of the dyno that has a name now.
    pub(crate) async fn connect(&self, app: AppId, dyno: &str, port: u16) -> Result<RunningOneOff, EngineError> {
        let failed = |error: Error| EngineError::Failed(chain(&error));
        let app = self.store.app(app).await.map_err(|error| failed(error.into()))?;
        let app = app.ok_or_else(|| failed(Error::NotFound("app")))?;
        let dyno = self.dyno_within(&app, dyno).await.map_err(failed)?;
        self.engine.connect(&dyno.id, port).await
    }

    /// A file or folder of a dyno, with what is in it, as a tar archive.
    pub async fn files(&self, (app, actor): (&App, &Actor), dyno: &str, path: &str) -> Result<Archive, Error> {
        check_path(path)?;
        let dyno = self.dyno_within(app, dyno).await?;
        self.note_use(app, actor, &dyno, json!({ "copied_from": path })).await?;
        self.note(app, actor, &format!("Copy {path} of {}", dyno.name));
        self.engine.files(&dyno.id, path).await.map_err(refused)
    }

    /// Unpacks a tar archive in a dyno.
    pub async fn put_files(
        &self,
        (app, actor): (&App, &Actor),
        dyno: &str,
        (path, archive): (&str, Archive),
    ) -> Result<Dyno, Error> {
        check_path(path)?;
        let dyno = self.dyno_within(app, dyno).await?;
        self.note_use(app, actor, &dyno, json!({ "copied_to": path })).await?;
        self.note(app, actor, &format!("Copy to {path} of {}", dyno.name));
        self.engine.put_files(&dyno.id, path, archive).await.map_err(refused)?;
        Ok(dyno)
    }

    /// The dyno of this name or id that something can be done in. Of two of a name, while a release replaces another, it is the one
    /// that serves, and of those the newest.
    pub(super) async fn dyno_within(&self, app: &App, name: &str) -> Result<Dyno, Error> {
        let all = self.dynos(app).await?;
        let named = all.into_iter().filter(|dyno| dyno.name.to_string() == name || dyno.uuid() == name);
        let found = named.max_by_key(|dyno| (dyno.state == "up", dyno.release.version));
        let dyno = found.ok_or(Error::NotFound("dyno"))?;
        if dyno.is_one_off {
            let text = "Only dynos of the formation can be entered; a one-off has whoever started it at its terminal.";
            return Err(Error::Invalid(text.to_owned()));
        }
        match dyno.state {
            "starting" | "up" => Ok(dyno),
            IDLE => {
                let text =
                    format!("{} sleeps, so nothing can be done in it: a request to the app starts it.", dyno.name);
                Err(Error::Conflict(text))
            }
            state => Err(Error::Conflict(format!("{} is {state}: nothing can be done in it.", dyno.name))),
        }
    }

    /// Whoever looks into a dyno is remembered.
    pub(super) async fn note_use(
        &self,
        app: &App,
        actor: &Actor,
        dyno: &Dyno,
        data: serde_json::Value,
    ) -> Result<(), Error> {
        self.record_dynos(app, actor, (Action::Update, dyno.name.to_string(), data)).await
    }
}

fn check_path(path: &str) -> Result<(), Error> {
    if !path.starts_with('/') || path.len() > LONGEST_PATH || path.contains('\0') {
        return Err(Error::Invalid(format!("path must begin with / and have at most {LONGEST_PATH} bytes")));
    }
    Ok(())
}

/// What an engine says of a path that cannot be copied is for whoever named it.
fn refused(error: EngineError) -> Error {
    match error {
        EngineError::Failed(reason) => Error::Invalid(reason),
        other => other.into(),
    }
}
