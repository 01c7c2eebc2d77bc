//! `rollouts` and its kin: how releases take each other's place.

use clap::Args;
use serde::Deserialize;

use super::releases;
use crate::client;
use crate::context::{self, AppArg, Context};
use crate::error::Result;
use crate::output::{self, Field, Mood};

/// A rollout, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Rollout {
    created_at: String,
    ended_at: Option<String>,
    failure: Option<Failure>,
    live_at: Option<String>,
    state: String,
    unconfirmed: bool,
    version: u32,
}

/// Why one failed.
#[derive(Debug, Deserialize)]
struct Failure {
    message: String,
    evidence: Evidence,
}

/// What that is known from.
#[derive(Debug, Deserialize)]
struct Evidence {
    dyno: Option<String>,
    exit_code: Option<i32>,
    hints: Vec<String>,
    listening: Vec<String>,
    log: Vec<String>,
    memory_limit: Option<u64>,
    probe: Option<String>,
    signal: Option<i32>,
}

/// List how the newest releases of an app took over from those before them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform rollouts -a my-app")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let rollouts = client.list(&["apps", &name, "rollouts"])?;
        cx.show_list(&rollouts, |out, rollouts: Vec<Rollout>| {
            let row = |rollout: Rollout| {
                let begun = output::ago(&rollout.created_at, context::now());
                let why = rollout.failure.map(|failure| failure.message).unwrap_or_default();
                vec![format!("v{}", rollout.version).into(), state(&rollout.state), begun.into(), why.into()]
            };
            out.table(
                &["Release", "State", "Begun", "Failure"],
                rollouts.into_iter().map(row).collect(),
                &format!("{name} had no rollouts yet. The first comes with `git push platform main`."),
            )
        })
    }
}

/// Show how one release took over, or why it did not and what that is known from
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform rollouts:info
  $ platform rollouts:info v12 -a my-app
  $ platform rollouts:info v12 --json | jq -r '.failure.evidence.log[]'")]
pub(crate) struct Info {
    /// The release, such as v12; the newest if missing
    release: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let version = releases::version_or_newest(&client, &name, self.release.as_deref())?.to_string();
        let value = client.get(&["apps", &name, "releases", &version, "rollout"])?;
        cx.show(&value, |out| {
            let rollout: Rollout = client::typed(&value)?;
            out.heading(&format!("{name} v{}", rollout.version))?;
            let when = |time: &str| Field::from(output::when(time, context::now()));
            let unconfirmed = "no: a router did not say in time that it serves it";
            let mut known = vec![
                ("State", Some(state(&rollout.state))),
                ("Begun", Some(when(&rollout.created_at))),
                ("Live", rollout.live_at.as_deref().map(when)),
                ("Over", rollout.ended_at.as_deref().map(when)),
                ("Confirmed", rollout.unconfirmed.then(|| unconfirmed.into())),
            ];
            let mut log = Vec::new();
            if let Some(Failure { message, evidence }) = rollout.failure {
                known.push(("Failure", Some(message.into())));
                known.push(("Dyno", evidence.dyno.map(Field::from)));
                known.push(("Exit code", evidence.exit_code.map(|code| code.to_string().into())));
                known.push(("Signal", evidence.signal.map(|signal| signal.to_string().into())));
                known.push(("Memory limit", evidence.memory_limit.map(|bytes| output::size(bytes).into())));
                known.push(("Last probe", evidence.probe.map(Field::from)));
                let listened = (!evidence.listening.is_empty()).then(|| evidence.listening.join(", ").into());
                known.push(("Listened on", listened));
                known.push(("Hint", (!evidence.hints.is_empty()).then(|| evidence.hints.join(" ").into())));
                log = evidence.log;
            }
            out.pairs(known.into_iter().filter_map(|(name, value)| Some((name, value?))))?;
            if !log.is_empty() {
                out.line("")?;
                out.heading("last lines of its log")?;
            }
            log.iter().try_for_each(|line| out.line(output::harmless(line)))
        })
    }
}

fn state(state: &str) -> Field {
    Field::from(state).mood(match state {
        "succeeded" => Mood::Good,
        "failed" | "returned" => Mood::Bad,
        _ => Mood::Busy,
    })
}
