//! `rollouts` and its kin: how releases take each other's place.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::releases;
use crate::client::{self, Client};
use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Result};
use crate::output::{self, Field, Mood};

/// A rollout, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Rollout {
    created_at: String,
    ended_at: Option<String>,
    failure: Option<Failure>,
    live_at: Option<String>,
    lost: u64,
    percent: Option<u8>,
    policy: BTreeMap<String, String>,
    requests: u64,
    returned_by: Option<u32>,
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
                ("Strategy", rollout.policy.get("strategy").map(|strategy| strategy.as_str().into())),
                (
                    "Waits at",
                    rollout.percent.map(|percent| format!("{percent} % of the requests and the dynos").into()),
                ),
                ("Lost", Some(format!("{} of {} requests", rollout.lost, rollout.requests).into())),
                ("Back with", rollout.returned_by.map(|version| format!("v{version}").into())),
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

/// Let a canary that waits go on to its next step
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform rollouts:continue
  $ platform rollouts:continue v12 -a my-app")]
pub(crate) struct Continue {
    /// The release, such as v12; the one that is under way if missing
    release: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Continue {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        act(cx, &self.app, self.release.as_deref(), ("continue", "Continuing"))
    }
}

/// End a rollout: what was live before it takes every request again
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform rollouts:abort
  $ platform rollouts:abort v12 -a my-app")]
pub(crate) struct Abort {
    /// The release, such as v12; the one that is under way if missing
    release: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Abort {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        act(cx, &self.app, self.release.as_deref(), ("abort", "Ending"))
    }
}

fn act(cx: &Context, app: &AppArg, release: Option<&str>, (action, verb): (&str, &str)) -> Result<()> {
    let (client, name) = cx.app(app)?;
    let version = match release {
        Some(release) => releases::version_of(release)?,
        None => under_way(&client, &name)?,
    };
    let what = format!("{verb} the rollout of v{version} of {name}");
    let version = version.to_string();
    let path = ["apps", &name, "releases", &version, "rollout", "actions", action];
    cx.done(&cx.out.step(&what, || client.post(&path, &json!({})))?)
}

/// The release of which a rollout is under way.
fn under_way(client: &Client, app: &str) -> Result<u32> {
    let rollouts: Vec<Rollout> = client::typed(&client.list(&["apps", app, "rollouts"])?)?;
    let found = rollouts.iter().rev().find(|rollout| rollout.state == "running");
    found.map(|rollout| rollout.version).ok_or_else(|| {
        CliError::failed(format!("No rollout of {app} is under way"))
            .hint(format!("See what there was: platform rollouts -a {app}"))
    })
}

/// Show or set how the releases of an app take each other's place
///
/// What is set counts before what app.json says, and that before the default. It works from the next release on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform rollouts:policy
  $ platform rollouts:policy strategy=canary steps=5,20,50 pause=10m
  $ platform rollouts:policy max_surge=100%
  $ platform rollouts:policy --unset strategy -a my-app")]
pub(crate) struct Policy {
    /// What to set
    #[arg(value_name = "NAME=VALUE")]
    changes: Vec<String>,
    /// What to leave to app.json again
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

/// A setting of a policy.
#[derive(Debug, Deserialize)]
struct Setting {
    name: String,
    source: String,
    value: String,
}

impl Policy {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let changes = changes(&self.changes, &self.unset, "rollouts:policy strategy=canary steps=5,20,50")?;
        let (client, name) = cx.app(&self.app)?;
        let what = format!("Setting the rollout policy of {name}");
        settings(cx, &client, (&["apps", &name, "rollout-policy"], changes), &what)
    }
}

/// What to set of a policy and what to unset, as its resource in the API takes it.
pub(super) fn changes(set: &[String], unset: &[String], example: &str) -> Result<serde_json::Map<String, Value>> {
    let mut changes = serde_json::Map::new();
    for change in set {
        let (name, value) = change.split_once('=').ok_or_else(|| {
            CliError::usage(format!("`{change}` is not of the form NAME=VALUE"))
                .hint(format!("Like this: platform {example}"))
        })?;
        changes.insert(name.to_owned(), value.into());
    }
    changes.extend(unset.iter().map(|name| (name.clone(), Value::Null)));
    Ok(changes)
}

/// Changes the settings of a policy, if there is anything to change, and shows them all.
pub(super) fn settings(
    cx: &Context,
    client: &Client,
    (path, changes): (&[&str], serde_json::Map<String, Value>),
    what: &str,
) -> Result<()> {
    let settings = if changes.is_empty() {
        client.list(path)?
    } else {
        cx.out.step(what, || client.patch(path, &Value::Object(changes)))?
    };
    cx.show_list(&settings, |out, settings: Vec<Setting>| {
        let row = |setting: Setting| vec![setting.name.into(), setting.value.into(), setting.source.into()];
        out.table(&["Setting", "Value", "Set by"], settings.into_iter().map(row).collect(), "No settings.")
    })
}

fn state(state: &str) -> Field {
    Field::from(state).mood(match state {
        "succeeded" | "watching" => Mood::Good,
        "failed" | "returned" => Mood::Bad,
        _ => Mood::Busy,
    })
}
