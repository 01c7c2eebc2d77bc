//! The pre-receive hook: this program, run by git, between the objects' arrival and the branch's move.
//!
//! It hands the push to the controller over its control socket and prints what comes back, which git shows as `remote:`
//! lines. It decides nothing.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use model::{AppId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::variable;
use crate::actors::By;

/// Whose push it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Push {
    pub(crate) app: AppId,
    pub(crate) by: By,
    /// They may deploy even if the app is locked or frozen.
    pub(crate) may_insist: bool,
    /// When the request came.
    pub(crate) began: Timestamp,
}

impl Push {
    pub(super) fn to_env(&self) -> String {
        // Ids, texts and a number always become JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What the hook tells the controller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) push: Push,
    /// The branches and tags that the push moves.
    pub(crate) updates: Vec<RefUpdate>,
    /// Environment under which git finds the new objects.
    pub(crate) env: BTreeMap<String, String>,
    /// What was said with `git push -o`.
    pub(crate) options: Vec<String>,
}

/// One line of a pre-receive hook's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefUpdate {
    pub(crate) old: String,
    pub(crate) new: String,
    pub(crate) name: String,
}

impl RefUpdate {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ').map(str::to_owned);
        Some(Self { old: words.next()?, new: words.next()?, name: words.next()? })
    }

    pub(crate) fn is_deletion(&self) -> bool {
        is_none(&self.new)
    }

    /// The commit that whoever pushed saw there; none if it was nothing.
    pub(crate) fn previous(&self) -> Option<&str> {
        Some(&*self.old).filter(|old| !is_none(old))
    }
}

/// githooks(5): an id of zeros is nothing.
fn is_none(commit: &str) -> bool {
    commit.bytes().all(|byte| byte == b'0')
}

/// What the controller answers, one JSON object a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// To show to the person who pushed.
    Line(String),
    /// The last one: whether the branches may move.
    Done {
        /// They may.
        accepted: bool,
    },
}

/// Runs the hook; its input is git's.
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let text = format!(
                " !     The platform's controller went away during the push: {error}.\n \
                 !     What was live still is. If the build was over, its release goes live by itself (`platform releases`); \
                 else push again.\n"
            );
            // Nobody is left to tell if this fails.
            let _ = io::stderr().write_all(text.as_bytes());
            ExitCode::FAILURE
        }
    }
}

async fn run() -> io::Result<bool> {
    let variable = |name| std::env::var(name).map_err(|_| io::Error::other(format!("{name} is not set")));
    let updates = io::stdin().lock().lines().map_while(Result::ok).filter_map(|line| RefUpdate::parse(&line)).collect();
    let quarantine = ["GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH"];
    let env = quarantine.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    // githooks(5), "pre-receive".
    let count = std::env::var("GIT_PUSH_OPTION_COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(0_usize);
    let options = (0..count).filter_map(|n| std::env::var(format!("GIT_PUSH_OPTION_{n}")).ok()).collect();
    let received = Received { push: serde_json::from_str(&variable(variable::PUSH)?)?, updates, env, options };

    let stream = UnixStream::connect(variable(variable::SOCKET)?).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
    tokio::spawn(connection);
    let request = Request::post("/hooks/pre-receive")
        .header("host", "control")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(&received)?)))
        .map_err(other)?;
    let mut body = sender.send_request(request).await.map_err(other)?.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        pending.extend_from_slice(frame.map_err(other)?.data_ref().map(Bytes::as_ref).unwrap_or_default());
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            match serde_json::from_slice(&line)? {
                Reply::Line(text) => io::stderr().write_all(format!("{text}\n").as_bytes())?,
                Reply::Done { accepted } => return Ok(accepted),
            }
        }
    }
    Err(io::Error::other("its answer ended early"))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
