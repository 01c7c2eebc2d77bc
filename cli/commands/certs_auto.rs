//! `certs:auto` and its kin: certificates that the platform gets by itself.

use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{self, Client};
use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Result};
use crate::output::{self, Field, Mood};

/// Between two looks.
const POLL: Duration = Duration::from_secs(2);
const ISSUED: &str = "cert issued";

/// A domain, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Domain {
    hostname: String,
    kind: String,
    path: Option<String>,
    acm_status: Option<String>,
    acm_status_reason: Option<String>,
    updated_at: String,
}

impl Domain {
    /// The default one has the platform's, and a path of a host that of the host.
    fn needs_one(&self) -> bool {
        self.kind == "custom" && self.path.is_none()
    }
}

/// Show how far the platform is with certificates for an app's domains
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform certs:auto -a my-app
  $ platform certs:auto --wait")]
pub(crate) struct Show {
    /// Wait until every domain has one, or has failed
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    app: AppArg,
}

impl Show {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let app = client.get(&["apps", &name])?;
        if app["acm"] != Value::Bool(true) {
            return cx.show(&app, |out| {
                out.line(format!("{name} gets no certificates by itself. `platform certs:auto:enable` lets it."))
            });
        }
        let domains = if self.wait { wait(&client, &name)? } else { client.list(&["apps", &name, "domains"])? };
        show(cx, &domains)
    }
}

/// Let the platform get certificates for an app's domains, and renew them
///
/// Each custom domain gets one of its own once its DNS points to this machine. A wildcard needs the operator's DNS hook.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform certs:auto:enable -a my-app
  $ platform certs:auto:enable --wait")]
pub(crate) struct Enable {
    /// Wait until every domain has one, or has failed
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    app: AppArg,
}

impl Enable {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let enable = || client.post(&["apps", &name, "acm"], &Value::Null);
        let app = cx.out.step(&format!("Enabling automatic certificates for {name}"), enable)?;
        if !self.wait {
            return cx.done(&app);
        }
        show(cx, &wait(&client, &name)?)
    }
}

/// Let the platform get no certificates for an app any more, and remove those that it got
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform certs:auto:disable -a my-app
  $ platform certs:auto:disable -a my-app --confirm my-app")]
pub(crate) struct Disable {
    /// The app's name again, instead of being asked for it
    #[arg(long, short, value_name = "APP")]
    confirm: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Disable {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let what = "This removes the certificates that the platform got; browsers then warn of their domains.";
        let command = format!("platform certs:auto:disable -a {name} --confirm {name}");
        context::confirm(&name, self.confirm, (what, &command))?;
        let disable = || client.delete(&["apps", &name, "acm"]);
        cx.done(&cx.out.step(&format!("Disabling automatic certificates for {name}"), disable)?)
    }
}

/// Try again at once to get the certificates that could not be had
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform certs:auto:refresh -a my-app")]
pub(crate) struct Refresh {
    #[command(flatten)]
    app: AppArg,
}

impl Refresh {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let refresh = || client.patch(&["apps", &name, "acm"], &Value::Null);
        cx.done(&cx.out.step(&format!("Trying again for {name}"), refresh)?)
    }
}

/// Wait until every domain of an app has a certificate, or has failed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform certs:auto:wait -a my-app")]
pub(crate) struct Wait {
    #[command(flatten)]
    app: AppArg,
}

impl Wait {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let domains = wait(&client, &name)?;
        show(cx, &domains)?;
        let failed: Vec<Domain> = client::typed(&domains)?;
        match failed.iter().filter(|domain| domain.acm_status.as_deref() == Some("failed")).count() {
            0 => Ok(()),
            count => Err(CliError::failed(format!("{count} of the domains of {name} got no certificate"))
                .hint("Mend what the reason says, then `platform certs:auto:refresh`.")),
        }
    }
}

/// The domains, once all are done.
fn wait(client: &Client, app: &str) -> Result<Value> {
    loop {
        let value = client.list(&["apps", app, "domains"])?;
        let domains: Vec<Domain> = client::typed(&value)?;
        let is_done = |domain: &Domain| {
            !domain.needs_one() || [Some(ISSUED), Some("failed")].contains(&domain.acm_status.as_deref())
        };
        if domains.iter().all(is_done) {
            return Ok(value);
        }
        thread::sleep(POLL);
    }
}

fn show(cx: &Context, domains: &Value) -> Result<()> {
    cx.show_list(domains, |out, domains: Vec<Domain>| {
        let row = |domain: Domain| {
            let status = domain.acm_status.unwrap_or_default();
            let mood = match status.as_str() {
                ISSUED => Mood::Good,
                "failed" | "failing" => Mood::Bad,
                _ => Mood::Plain,
            };
            let since = output::when(&domain.updated_at, context::now());
            let reason = domain.acm_status_reason.unwrap_or_default();
            vec![domain.hostname.into(), Field::from(status).mood(mood), since.into(), reason.into()]
        };
        let custom = domains.into_iter().filter(Domain::needs_one).map(row).collect();
        let empty = "The app has no domains of its own. Add one with `platform domains:add HOSTNAME`.";
        out.table(&["Domain", "Certificate", "Since", "Reason"], custom, empty)
    })
}
