//! `run:list` and its kin: one-off dynos, those that have ended among them.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::client;
use crate::context::{self, AppArg, Context};
use crate::error::Result;
use crate::output::{self, Field, Mood};

/// `GET /apps/:app/runs`
#[derive(Debug, Deserialize)]
struct Run {
    name: String,
    state: String,
    command: String,
    size: String,
    release_version: u64,
    attached: bool,
    exit_status: Option<i32>,
    failure: Option<String>,
    user: Option<String>,
    time_to_live: u64,
    created_at: String,
    started_at: Option<String>,
    ended_at: Option<String>,
}

impl Run {
    /// What became of it, in a word or two.
    fn result(&self) -> Field {
        match (self.state.as_str(), self.exit_status) {
            ("complete", Some(0)) => Field::from("succeeded").mood(Mood::Good),
            ("complete", Some(status)) => Field::from(format!("failed ({status})").as_str()).mood(Mood::Bad),
            ("complete", None) => Field::from("lost").mood(Mood::Bad),
            (state, _) => Field::from(state).mood(if state == "up" { Mood::Good } else { Mood::Busy }),
        }
    }
}

/// List the one-off dynos of an app, the newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform run:list
  $ platform run:list -n 100 -a my-app --json")]
pub(crate) struct List {
    /// How many at most
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    num: u32,
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let runs = client.newest_by("created_at", (&["apps", &name, "runs"], &[]), self.num)?;
        cx.show_list(&runs, |out, runs: Vec<Run>| {
            let row = |run: Run| {
                let since = output::ago(run.ended_at.as_ref().unwrap_or(&run.created_at), context::now());
                let release = format!("v{}", run.release_version);
                let result = run.result();
                vec![run.name.into(), result, since.into(), release.into(), run.size.into(), run.command.into()]
            };
            out.table(
                &["Dyno", "State", "Since", "Release", "Size", "Command"],
                runs.into_iter().map(row).collect(),
                &format!("{name} had no one-off dynos. `platform run COMMAND` starts one."),
            )
        })
    }
}

/// Show a one-off dyno: what it runs, since when, and how it ended
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform run:info run.4242
  $ platform run:info run.4242 -a my-app --json")]
pub(crate) struct Info {
    /// Its name; of several, the newest
    #[arg(value_name = "DYNO")]
    dyno: String,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let found = client.get(&["apps", &name, "runs", &self.dyno])?;
        let run: Run = client::typed(&found)?;
        let when = |time: &Option<String>| time.as_ref().map(|time| output::ago(time, context::now()));
        let mut fields: Vec<(&str, Field)> = vec![
            ("Dyno", run.name.as_str().into()),
            ("State", run.result()),
            ("Command", run.command.as_str().into()),
            ("Release", format!("v{}", run.release_version).as_str().into()),
            ("Size", run.size.as_str().into()),
            ("Attached", if run.attached { "yes" } else { "no" }.into()),
            ("Time limit", format!("{} s", run.time_to_live).as_str().into()),
        ];
        let more = [
            ("Started by", run.user.clone()),
            ("Started", when(&run.started_at)),
            ("Ended", when(&run.ended_at)),
            ("Why", run.failure.clone()),
        ];
        fields.extend(more.into_iter().filter_map(|(label, text)| Some((label, text?.as_str().into()))));
        cx.show(&found, |out| out.pairs(fields))
    }
}

/// Stop a one-off dyno
///
/// Its processes get SIGTERM, and SIGKILL if they do not end in time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform run:stop run.4242")]
pub(crate) struct Stop {
    /// Its name
    #[arg(value_name = "DYNO")]
    dyno: String,
    #[command(flatten)]
    app: AppArg,
}

impl Stop {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let path = ["apps", &name, "runs", &self.dyno, "actions", "stop"];
        let stop = || client.post(&path, &json!({}));
        cx.done(&cx.out.step(&format!("Stopping {} of {name}", self.dyno), stop)?)
    }
}
