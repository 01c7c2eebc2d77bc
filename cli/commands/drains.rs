//! `drains` and its kin: where else an app's log goes.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::client;
use crate::context::{AppArg, Context};
use crate::error::Result;

/// A log drain, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Drain {
    url: String,
    token: String,
}

/// List where else the log of an app goes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform drains
  $ platform drains -a my-app --json")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let drains = client.list(&["apps", &name, "log-drains"])?;
        cx.show_list(&drains, |out, drains: Vec<Drain>| {
            let row = |drain: Drain| vec![drain.url.into(), drain.token.into()];
            let empty = "The log goes nowhere else. `platform drains:add URL` sends it on.";
            out.table(&["Drain", "Token"], drains.into_iter().map(row).collect(), empty)
        })
    }
}

/// Send the log of an app on, as it comes
///
/// To a syslog server (RFC 5424 over TCP, with or without TLS) or to an HTTPS address that takes it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform drains:add syslog+tls://logs.example.com:6514 -a my-app
  $ platform drains:add https://user:password@logs.example.com/drain")]
pub(crate) struct Add {
    /// Where to: syslog://, syslog+tls:// or https://
    url: String,
    #[command(flatten)]
    app: AppArg,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let add = || client.post(&["apps", &name, "log-drains"], &json!({ "url": self.url }));
        let made = cx.out.step(&format!("Adding a drain to {name}"), add)?;
        cx.show(&made, |out| {
            let drain: Drain = client::typed(&made)?;
            out.pairs([("Drain", drain.url.into()), ("Token", drain.token.into())])
        })
    }
}

/// Send the log of an app there no more
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform drains:remove syslog+tls://logs.example.com:6514 -a my-app")]
pub(crate) struct Remove {
    /// Its address or its token
    drain: String,
    #[command(flatten)]
    app: AppArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let remove = || client.delete(&["apps", &name, "log-drains", &self.drain]);
        cx.done(&cx.out.step(&format!("Removing a drain from {name}"), remove)?)
    }
}
