//! How process types scale by themselves.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Result};
use crate::output::{self, Output};

/// A setting of a policy.
#[derive(Debug, Deserialize)]
struct Setting {
    name: String,
    source: String,
    value: String,
}

/// Let an app sleep when nobody uses it: after an idle time its web dynos stop, and the next request starts them
///
/// The request waits meanwhile, as do all that come then; none is lost. Without arguments, shows what is in force. Other process types go on
/// while web sleeps.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:sleep
  $ platform ps:sleep 30m
  $ platform ps:sleep 1h -a my-app
  $ platform ps:sleep --unset")]
pub(crate) struct Sleep {
    /// Time without a request: 90s, 30m, 2h
    #[arg(value_name = "TIME")]
    after: Option<String>,
    /// Leave it to app.json again
    #[arg(long, conflicts_with = "after")]
    unset: bool,
    #[command(flatten)]
    app: AppArg,
}

impl Sleep {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let change = match (self.after, self.unset) {
            (Some(after), _) => Some(after.into()),
            (None, true) => Some(Value::Null),
            (None, false) => None,
        };
        sleep_after(cx, &self.app, change)
    }
}

/// Keep an app awake, whoever uses it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:sleep:off
  $ platform ps:sleep:off -a my-app")]
pub(crate) struct SleepOff {
    #[command(flatten)]
    app: AppArg,
}

impl SleepOff {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        sleep_after(cx, &self.app, Some("never".into()))
    }
}

fn sleep_after(cx: &Context, app: &AppArg, change: Option<Value>) -> Result<()> {
    let (client, name) = cx.app(app)?;
    let path = ["apps", &name, "formation", "web", "scaling-policy"];
    let settings = match change {
        None => client.list(&path)?,
        Some(change) => {
            let what = format!("Setting when {name} sleeps");
            cx.out.step(&what, || client.patch(&path, &json!({ "sleep_after": change })))?
        }
    };
    let all: Vec<Setting> = crate::client::typed(&settings)?;
    let setting = all.into_iter().find(|setting| setting.name == "sleep_after");
    let setting = setting.ok_or_else(|| CliError::failed("The platform does not say when the app sleeps"))?;
    let who = words(&setting.source);
    let text = match setting.value.as_str() {
        "never" => format!("{name} never sleeps ({who})"),
        after => format!("{name} sleeps after {after} without a request ({who})"),
    };
    cx.show_line(&json!({ "sleep_after": setting.value, "source": setting.source }), text)
}

/// Show how a process type of an app scales by itself, and what was decided
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:autoscale
  $ platform ps:autoscale worker -a my-app")]
pub(crate) struct Autoscale {
    /// The process type
    #[arg(value_name = "TYPE", default_value = "web")]
    process_type: String,
    #[command(flatten)]
    app: AppArg,
}

/// A change that the platform made by itself.
#[derive(Debug, Deserialize)]
struct Decision {
    created_at: String,
    from: u32,
    to: u32,
    reason: String,
}

impl Autoscale {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let path = |what| ["apps", &name, "formation", &self.process_type, what];
        let settings = client.list(&path("scaling-policy"))?;
        let decisions = client.list(&path("scaling-decisions"))?;
        let value = json!({ "settings": settings, "decisions": decisions });
        cx.show(&value, |out| {
            show_settings(out, crate::client::typed(&settings)?)?;
            let row = |decision: Decision| {
                let change = format!("{} -> {}", decision.from, decision.to);
                let when = output::ago(&decision.created_at, context::now());
                vec![when.into(), change.into(), decision.reason.into()]
            };
            let decisions: Vec<Decision> = crate::client::typed(&decisions)?;
            out.line("")?;
            let rows = decisions.into_iter().map(row).collect();
            out.table(&["When", "Dynos", "Why"], rows, "Nothing was decided yet.")
        })
    }
}

/// Let a process type scale by itself: by response time, requests, CPU or memory
///
/// Without a measure, by the response time. What is not named stays as it is. Scaling by hand goes on to work: the platform goes on from there, and
/// leaves alone what is scaled to 0.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:autoscale:enable --p95 400 --min 1 --max 5
  $ platform ps:autoscale:enable --rps 25 --cool-down 10m
  $ platform ps:autoscale:enable worker --cpu 60 --max 8 -a my-app")]
pub(crate) struct AutoscaleEnable {
    /// The process type
    #[arg(value_name = "TYPE", default_value = "web")]
    process_type: String,
    /// Milliseconds within which 95 % of the requests are to be answered
    #[arg(long, value_name = "MS", group = "measure")]
    p95: Option<u64>,
    /// Requests a second on each dyno
    #[arg(long, value_name = "NUMBER", group = "measure")]
    rps: Option<u64>,
    /// Per cent of the CPU of each dyno
    #[arg(long, value_name = "PERCENT", group = "measure")]
    cpu: Option<u64>,
    /// Per cent of the memory of each dyno
    #[arg(long, value_name = "PERCENT", group = "measure")]
    memory: Option<u64>,
    /// Fewest dynos
    #[arg(long, value_name = "NUMBER")]
    min: Option<u32>,
    /// Most dynos
    #[arg(long, value_name = "NUMBER")]
    max: Option<u32>,
    /// So long after a change there are not fewer: 90s, 5m
    #[arg(long, value_name = "TIME")]
    cool_down: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl AutoscaleEnable {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let measures = [("p95", self.p95), ("rps", self.rps), ("cpu", self.cpu), ("memory", self.memory)];
        let measure = measures.into_iter().find_map(|(metric, target)| Some((metric, target?)));
        let mut changes = serde_json::Map::new();
        changes.insert("metric".to_owned(), measure.map_or("p95", |(metric, _)| metric).into());
        changes.insert("target".to_owned(), measure.map_or("auto".into(), |(_, target)| target.into()));
        let rest = [("min", self.min.map(Value::from)), ("max", self.max.map(Value::from))];
        let rest = rest.into_iter().chain([("cool_down", self.cool_down.map(Value::from))]);
        changes.extend(rest.filter_map(|(name, value)| Some((name.to_owned(), value?))));
        set(cx, &self.app, &self.process_type, changes)
    }
}

/// Let a process type have as many dynos as it has, until somebody scales it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:autoscale:disable
  $ platform ps:autoscale:disable worker -a my-app
  $ platform ps:autoscale:disable --unset")]
pub(crate) struct AutoscaleDisable {
    /// The process type
    #[arg(value_name = "TYPE", default_value = "web")]
    process_type: String,
    /// Leave all of it to app.json again
    #[arg(long)]
    unset: bool,
    #[command(flatten)]
    app: AppArg,
}

impl AutoscaleDisable {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let names = ["metric", "target", "min", "max", "cool_down"].map(str::to_owned);
        let changes = if self.unset {
            names.into_iter().map(|name| (name, Value::Null)).collect()
        } else {
            [("metric".to_owned(), "off".into())].into_iter().collect()
        };
        set(cx, &self.app, &self.process_type, changes)
    }
}

fn set(cx: &Context, app: &AppArg, process_type: &str, changes: serde_json::Map<String, Value>) -> Result<()> {
    let (client, name) = cx.app(app)?;
    let path = ["apps", &name, "formation", process_type, "scaling-policy"];
    let what = format!("Setting how {process_type} of {name} scales");
    let settings = cx.out.step(&what, || client.patch(&path, &Value::Object(changes)))?;
    cx.show_list(&settings, show_settings)
}

fn show_settings(out: Output, settings: Vec<Setting>) -> Result<()> {
    let row = |setting: Setting| vec![setting.name.into(), setting.value.into(), setting.source.into()];
    out.table(&["Setting", "Value", "Set by"], settings.into_iter().map(row).collect(), "No settings.")
}

/// Who says so.
fn words(source: &str) -> &str {
    match source {
        "app" => "set for the app",
        "app.json" => "its app.json says so",
        _ => "the default",
    }
}
