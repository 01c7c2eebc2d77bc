//! How process types scale by themselves.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::{AppArg, Context};
use crate::error::{CliError, Result};

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

/// Who says so.
fn words(source: &str) -> &str {
    match source {
        "app" => "set for the app",
        "app.json" => "its app.json says so",
        _ => "the default",
    }
}
