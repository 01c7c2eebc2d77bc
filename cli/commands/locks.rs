//! `lock`, `freezes` and their kin: when nothing is deployed.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::client::{self, Named};
use crate::context::{self, AppArg, Context, ScopeArg};
use crate::error::Result;
use crate::output;

/// The last word of the paths of freeze windows.
const WINDOWS: &str = "freeze-windows";

/// A lock, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Locked {
    created_at: String,
    message: Option<String>,
    user: client::Account,
}

/// A freeze window, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Window {
    active_until: Option<String>,
    app: Option<Named>,
    id: String,
    over: bool,
    period: String,
    reason: Option<String>,
    team: Option<Named>,
}

/// Let nobody deploy or configure an app until it is unlocked
///
/// Pushes, builds, rollbacks, changes of config vars and of add-ons are refused with your message. Scaling, restarts and
/// maintenance go on. An admin of the app can deploy all the same: --force, or `git push -o force`. Locking a locked app gives it
/// another message.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform lock -m 'Release day, ask Ada' -a my-app
  $ platform lock")]
pub(crate) struct Lock {
    /// Why, for whoever is stopped by it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Lock {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let content = json!({ "message": self.message });
        cx.done(&cx.out.step(&format!("Locking {name}"), || client.put(&["apps", &name, "lock"], &content))?)
    }
}

/// Show who locked an app, when and why
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform lock:info -a my-app")]
pub(crate) struct Info {
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let lock = client.get(&["apps", &name, "lock"])?;
        cx.show(&lock, |out| {
            let locked: Locked = client::typed(&lock)?;
            out.pairs([
                ("App", name.into()),
                ("Message", locked.message.unwrap_or_default().into()),
                ("Locked by", locked.user.email.into()),
                ("Since", output::when(&locked.created_at, context::now()).into()),
            ])
        })
    }
}

/// Let an app be deployed and configured again
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform unlock -a my-app")]
pub(crate) struct Unlock {
    #[command(flatten)]
    app: AppArg,
}

impl Unlock {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        cx.done(&cx.out.step(&format!("Unlocking {name}"), || client.delete(&["apps", &name, "lock"]))?)
    }
}

/// List when nothing is deployed
///
/// Of an app: its own freeze windows, those of its team and those of the platform.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform freezes -a my-app
  $ platform freezes --team my-team
  $ platform freezes --platform --json")]
pub(crate) struct List {
    #[command(flatten)]
    scope: ScopeArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, path, _) = self.scope.collection(cx, WINDOWS)?;
        let windows = client.list(&path.iter().map(String::as_str).collect::<Vec<_>>())?;
        cx.show_list(&windows, |out, windows: Vec<Window>| {
            let row = |window: Window| {
                let whose = context::whose(window.app, window.team);
                let state = match window.active_until {
                    Some(end) => format!("frozen until {}", output::when(&end, context::now())),
                    None if window.over => "over".to_owned(),
                    None => String::new(),
                };
                let reason = window.reason.unwrap_or_default();
                vec![window.period.into(), whose.into(), reason.into(), state.into(), window.id.into()]
            };
            let none = "No freeze windows. `platform freezes:add 'fri 16:00 - mon 08:00 Europe/Berlin'` adds one.";
            let header = ["When", "Of", "Why", "Now", "Id"];
            out.table(&header, windows.into_iter().map(row).collect(), none)
        })
    }
}

/// Let nothing be deployed or configured at some time, every week or once
///
/// A time zone is the name of a place, such as Europe/Berlin; without one it is UTC. A day without a time begins at midnight.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform freezes:add 'fri 16:00 - mon 08:00 Europe/Berlin' --reason weekend -a my-app
  $ platform freezes:add '2026-12-23 18:00 - 2027-01-02 Europe/Berlin' --team my-team
  $ platform freezes:add 'sat - mon' --platform")]
pub(crate) struct Add {
    /// When: a part of every week, or from one date to another
    period: String,
    /// Why, for whoever is stopped by it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    scope: ScopeArg,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, path, whose) = self.scope.collection(cx, WINDOWS)?;
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        let content = json!({ "period": self.period, "reason": self.reason });
        let made = cx.out.step(&format!("Adding a freeze window for {whose}"), || client.post(&path, &content))?;
        cx.show(&made, |out| {
            let window: Window = client::typed(&made)?;
            out.pairs([("When", window.period.into()), ("Id", window.id.into())])
        })
    }
}

/// End a freeze window
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform freezes:remove 3f0a8c8e-6d0b-4f6e-9b8e-2f8d2f1f2a3b -a my-app
  $ platform freezes:remove 3f0a8c8e-6d0b-4f6e-9b8e-2f8d2f1f2a3b --team my-team")]
pub(crate) struct Remove {
    /// Its id, as `platform freezes` shows it
    id: String,
    #[command(flatten)]
    scope: ScopeArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, mut path, whose) = self.scope.collection(cx, WINDOWS)?;
        path.push(self.id);
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        cx.done(&cx.out.step(&format!("Removing a freeze window of {whose}"), || client.delete(&path))?)
    }
}
