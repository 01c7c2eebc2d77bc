//! `jobs` and its kin: what an app wants to have run at certain times.

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::logs::Logs;
use crate::client::{self, Client};
use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Result};
use crate::output::{self, Field, Mood};

/// A job, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Job {
    alert: Option<Alert>,
    last_run: u64,
    name: String,
    next_due: Option<String>,
    settings: Vec<Setting>,
}

/// What went wrong last.
#[derive(Debug, Deserialize)]
struct Alert {
    at: String,
    message: String,
}

#[derive(Debug, Deserialize)]
struct Setting {
    name: String,
    source: String,
    value: String,
}

impl Job {
    fn setting(&self, name: &str) -> &str {
        self.settings.iter().find(|setting| setting.name == name).map_or("", |setting| &setting.value)
    }

    fn next(&self) -> Field {
        match &self.next_due {
            Some(due) => output::when(due, context::now()).into(),
            None if self.setting("suspend") == "true" => Field::from("suspended").mood(Mood::Busy),
            None => "–".into(),
        }
    }
}

/// A run of a job, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Run {
    begun_at: Option<String>,
    cause: String,
    due_at: String,
    ended_at: Option<String>,
    failure: Option<String>,
    number: u64,
    release_version: Option<u64>,
    shards: Vec<Shard>,
    state: String,
    user: Option<String>,
}

/// A part of a run.
#[derive(Debug, Deserialize)]
struct Shard {
    attempt: u32,
    dyno: String,
    exit_status: Option<i32>,
    instance: Option<String>,
    number: u32,
    reason: Option<String>,
    state: String,
}

impl Run {
    fn state(&self) -> Field {
        Field::from(self.state.as_str()).mood(match self.state.as_str() {
            "succeeded" => Mood::Good,
            "failed" | "skipped" => Mood::Bad,
            _ => Mood::Busy,
        })
    }

    fn exits(&self) -> String {
        let exit = |shard: &Shard| shard.exit_status.map_or_else(|| "–".to_owned(), |status| status.to_string());
        self.shards.iter().map(exit).collect::<Vec<_>>().join(" ")
    }
}

/// List the scheduled jobs of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs
  $ platform jobs -a my-app --json")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let jobs = client.list(&["apps", &name, "jobs"])?;
        cx.show_list(&jobs, |out, jobs: Vec<Job>| {
            let row = |job: Job| {
                let schedule = match (job.setting("schedule"), job.setting("timezone")) {
                    (schedule @ "manual", _) | (schedule, "UTC") => schedule.to_owned(),
                    (schedule, zone) => format!("{schedule} {zone}"),
                };
                let (next, command) = (job.next(), job.setting("command").to_owned());
                let alert =
                    job.alert.map_or_else(|| Field::from(""), |alert| Field::from(alert.message).mood(Mood::Bad));
                vec![job.name.into(), schedule.into(), next, command.into(), alert]
            };
            out.table(
                &["Job", "Schedule", "Next", "Command", "Alert"],
                jobs.into_iter().map(row).collect(),
                &format!("{name} has no jobs. `platform jobs:add` makes one, and so does `cron` in its app.json."),
            )
        })
    }
}

/// Show a job: its settings and who set them, when it is due, and what went wrong last
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs:info nightly
  $ platform jobs:info nightly -a my-app --json")]
pub(crate) struct Info {
    /// Its name
    job: String,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let found = client.get(&["apps", &name, "jobs", &self.job])?;
        show(cx, &found)
    }
}

/// Add a job to an app
///
/// The command runs in a dyno of its own, with the app's code and config vars. app.json can have jobs as well, in `cron`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs:add nightly '0 3 * * *' 'rake reports:build'
  $ platform jobs:add nightly @daily 'rake reports:build' --set timezone=Europe/Berlin --set timeout=30m --set retries=2
  $ platform jobs:add import manual './import' --set shards=4 --set overlap=forbid")]
pub(crate) struct Add {
    /// Its name
    job: String,
    /// When it is due: five fields of crontab(5), `@daily` and the like, or `manual`
    schedule: String,
    /// A command line
    command: String,
    /// More settings
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let mut settings = settings(&self.settings, &[])?;
        settings.insert("schedule".to_owned(), self.schedule.into());
        settings.insert("command".to_owned(), self.command.into());
        let content = json!({ "name": self.job, "settings": settings });
        let add = || client.post(&["apps", &name, "jobs"], &content);
        let job = cx.out.step(&format!("Adding job {} to {name}", self.job), add)?;
        show(cx, &job)
    }
}

/// Change settings of a job
///
/// What is set counts before what app.json says of a job of that name. The settings are shown by `jobs:info`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs:update nightly schedule='30 4 * * *' timezone=Europe/Berlin
  $ platform jobs:update nightly --unset timeout")]
pub(crate) struct Update {
    /// Its name
    job: String,
    /// What to set
    #[arg(value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// What to leave to app.json, or to what is usual
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Update {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        if self.settings.is_empty() && self.unset.is_empty() {
            return Err(CliError::usage("There is nothing to change")
                .hint("Like this: platform jobs:update nightly timeout=30m retries=2"));
        }
        update(cx, &self.app, &self.job, (settings(&self.settings, &self.unset)?, "Changing"))
    }
}

/// Suspend a job: it is not due until it is resumed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs:suspend nightly")]
pub(crate) struct Suspend {
    /// Its name
    job: String,
    #[command(flatten)]
    app: AppArg,
}

impl Suspend {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        update(cx, &self.app, &self.job, (settings(&["suspend=true".to_owned()], &[])?, "Suspending"))
    }
}

/// Resume a job: it is due at its next time
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs:resume nightly")]
pub(crate) struct Resume {
    /// Its name
    job: String,
    #[command(flatten)]
    app: AppArg,
}

impl Resume {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        update(cx, &self.app, &self.job, (settings(&["suspend=false".to_owned()], &[])?, "Resuming"))
    }
}

/// Remove a job: what runs of it is stopped, what ran is forgotten
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs:remove nightly")]
pub(crate) struct Remove {
    /// Its name
    job: String,
    #[command(flatten)]
    app: AppArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let remove = || client.delete(&["apps", &name, "jobs", &self.job]);
        cx.done(&cx.out.step(&format!("Removing job {} from {name}", self.job), remove)?)
    }
}

/// Run a job now, whatever its schedule says
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs:run nightly
  $ platform jobs:logs nightly --tail")]
pub(crate) struct RunNow {
    /// Its name
    job: String,
    #[command(flatten)]
    app: AppArg,
}

impl RunNow {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let start = || client.post(&["apps", &name, "jobs", &self.job, "runs"], &json!({}));
        let made = cx.out.step(&format!("Running job {} of {name}", self.job), start)?;
        let run: Run = client::typed(&made)?;
        cx.show(&made, |out| out.line(run.number.to_string()))?;
        let (job, number) = (&self.job, run.number);
        cx.out.note(&format!(
            "Its output: platform jobs:logs {job} {number} -a {name}. Its end: platform jobs:runs {job} -a {name}"
        ));
        Ok(())
    }
}

/// Stop a run of a job
///
/// Its processes get SIGTERM, and SIGKILL if they do not end in time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs:stop nightly
  $ platform jobs:stop nightly 17")]
pub(crate) struct Stop {
    /// Its name
    job: String,
    /// The number of the run; the oldest that is not over if missing
    number: Option<u64>,
    #[command(flatten)]
    app: AppArg,
}

impl Stop {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let number = match self.number {
            Some(number) => number,
            None => oldest(&client, &name, &self.job)?,
        };
        let text = number.to_string();
        let path = ["apps", &name, "jobs", &self.job, "runs", &text, "actions", "stop"];
        let stop = || client.post(&path, &json!({}));
        cx.done(&cx.out.step(&format!("Stopping run {number} of job {}", self.job), stop)?)
    }
}

/// The oldest run of a job that is not over.
fn oldest(client: &Client, app: &str, job: &str) -> Result<u64> {
    let runs: Vec<Run> = client::typed(&client.list(&["apps", app, "jobs", job, "runs"])?)?;
    let found = runs.iter().rev().find(|run| run.ended_at.is_none());
    found.map(|run| run.number).ok_or_else(|| {
        CliError::failed(format!("No run of job {job} is under way"))
            .hint(format!("See what there was: platform jobs:runs {job} -a {app}"))
    })
}

/// List the runs of a job, the newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs:runs nightly
  $ platform jobs:runs nightly -a my-app --json")]
pub(crate) struct Runs {
    /// Its name
    job: String,
    /// How many at most
    #[arg(short, long, default_value_t = 20)]
    num: usize,
    #[command(flatten)]
    app: AppArg,
}

impl Runs {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let mut runs = client.list(&["apps", &name, "jobs", &self.job, "runs"])?;
        if let Some(list) = runs.as_array_mut() {
            list.truncate(self.num);
        }
        cx.show_list(&runs, |out, runs: Vec<Run>| {
            let row = |run: Run| {
                let (state, exits) = (run.state(), run.exits());
                let took = match (&run.begun_at, &run.ended_at) {
                    (Some(begun), Some(ended)) => took(begun, ended),
                    _ => String::new(),
                };
                let why = match run.user {
                    Some(user) => format!("{} ({user})", run.cause),
                    None => run.cause,
                };
                let release = run.release_version.map(|version| format!("v{version}")).unwrap_or_default();
                let due = output::when(&run.due_at, context::now());
                let failure = run.failure.unwrap_or_default();
                vec![
                    run.number.to_string().into(),
                    state,
                    due.into(),
                    took.into(),
                    exits.into(),
                    release.into(),
                    why.into(),
                    failure.into(),
                ]
            };
            out.table(
                &["Run", "State", "Due", "Took", "Exit", "Release", "Cause", "Why"],
                runs.into_iter().map(row).collect(),
                &format!("Job {} has not run yet. `platform jobs:run {}` runs it now.", self.job, self.job),
            )
        })
    }
}

/// Show a run of a job and its shards
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs:runs:info nightly 17")]
pub(crate) struct RunInfo {
    /// Its name
    job: String,
    /// The number of the run
    number: u64,
    #[command(flatten)]
    app: AppArg,
}

impl RunInfo {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let found = client.get(&["apps", &name, "jobs", &self.job, "runs", &self.number.to_string()])?;
        let run: Run = client::typed(&found)?;
        cx.show(&found, |out| {
            let when = |time: &String| Field::from(output::when(time, context::now()));
            let known = [
                ("State", Some(run.state())),
                ("Due", Some(when(&run.due_at))),
                ("Begun", run.begun_at.as_ref().map(when)),
                ("Ended", run.ended_at.as_ref().map(when)),
                ("Why", run.failure.clone().map(Field::from)),
            ];
            out.pairs(known.into_iter().filter_map(|(name, value)| Some((name, value?))))?;
            out.line("")?;
            let row = |shard: Shard| {
                let exit = shard.exit_status.map(|status| status.to_string()).unwrap_or_default();
                let (number, attempt) = (shard.number.to_string(), shard.attempt.to_string());
                let why = shard.reason.or(shard.instance).unwrap_or_default();
                vec![number.into(), shard.state.into(), attempt.into(), exit.into(), shard.dyno.into(), why.into()]
            };
            let rows = run.shards.into_iter().map(row).collect();
            out.table(&["Shard", "State", "Attempt", "Exit", "Dyno", ""], rows, "It has no processes.")
        })
    }
}

/// Show what a job wrote
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform jobs:logs nightly
  $ platform jobs:logs nightly 17
  $ platform jobs:logs nightly --tail")]
pub(crate) struct JobLogs {
    /// Its name
    job: String,
    /// The number of a run; all of them if missing
    number: Option<u64>,
    /// Go on showing lines as they come
    #[arg(short, long)]
    tail: bool,
    /// How many lines to begin with
    #[arg(short = 'n', long = "num", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=1500))]
    lines: u32,
    #[command(flatten)]
    app: AppArg,
}

impl JobLogs {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let dynos = if let Some(number) = self.number {
            let path = ["apps", &name, "jobs", &self.job, "runs", &number.to_string()];
            let run: Run = client::typed(&client.get(&path)?)?;
            run.shards.into_iter().map(|shard| shard.dyno).collect::<Vec<_>>().join(",")
        } else {
            client.get(&["apps", &name, "jobs", &self.job])?;
            format!("job-{}", self.job)
        };
        Logs::of(dynos, (self.tail, self.lines), self.app).run(cx)
    }
}

fn update(cx: &Context, app: &AppArg, job: &str, (settings, verb): (Map<String, Value>, &str)) -> Result<()> {
    let (client, name) = cx.app(app)?;
    let content = json!({ "settings": settings });
    let change = || client.patch(&["apps", &name, "jobs", job], &content);
    let job = cx.out.step(&format!("{verb} job {job} of {name}"), change)?;
    show(cx, &job)
}

fn show(cx: &Context, value: &Value) -> Result<()> {
    let job: Job = client::typed(value)?;
    cx.show(value, |out| {
        out.heading(&job.name)?;
        let mut known: Vec<(&str, Field)> = vec![("Next", job.next()), ("Runs", job.last_run.to_string().into())];
        if let Some(alert) = &job.alert {
            let text = format!("{} ({})", alert.message, output::ago(&alert.at, context::now()));
            known.push(("Alert", Field::from(text).mood(Mood::Bad)));
        }
        out.pairs(known)?;
        out.line("")?;
        let row = |setting: Setting| vec![setting.name.into(), setting.value.into(), setting.source.into()];
        out.table(&["Setting", "Value", "Set by"], job.settings.into_iter().map(row).collect(), "No settings.")
    })
}

fn settings(words: &[String], unset: &[String]) -> Result<Map<String, Value>> {
    let mut settings = Map::new();
    for word in words {
        let (name, value) = word.split_once('=').ok_or_else(|| {
            CliError::usage(format!("`{word}` is not of the form NAME=VALUE"))
                .hint("Like this: timezone=Europe/Berlin timeout=30m")
        })?;
        settings.insert(name.to_owned(), value.into());
    }
    settings.extend(unset.iter().map(|name| (name.clone(), Value::Null)));
    Ok(settings)
}

/// `13 s`
fn took(from: &str, to: &str) -> String {
    let moment = |text: &str| model::Timestamp::parse(text);
    let time = moment(to).zip(moment(from)).map(|(to, from)| to.since(from));
    time.map(|time| format!("{} s", time.as_secs())).unwrap_or_default()
}
