//! `domains` and its kin.

use clap::Args;
use serde_json::json;

use crate::client::{self, Domain};
use crate::context::{self, AppArg, Context};
use crate::error::Result;

/// List the domains of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform domains
  $ platform domains -a my-app --json")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let domains = client.list(&["apps", &name, "domains"])?;
        cx.show_list(&domains, |out, domains: Vec<Domain>| {
            let row = |domain: Domain| {
                let kind = if domain.kind == "heroku" { "platform" } else { "custom" };
                vec![domain.hostname.into(), kind.into(), domain.cname.unwrap_or_default().into()]
            };
            out.table(&["Domain", "Kind", "DNS target"], domains.into_iter().map(row).collect(), "No domains.")
        })
    }
}

/// Add domains to an app
///
/// The platform answers for the domain at once. Point the domain's DNS at this machine yourself.
/// A path after the host name lets the app answer only that and what is below it; the host is a domain of another app of yours.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform domains:add www.example.com -a my-app
  $ platform domains:add '*.example.com'
  $ platform domains:add www.example.com/api --strip -a my-api")]
pub(crate) struct Add {
    /// Host names, of which the first label may be `*`, or paths of them
    #[arg(required = true, value_name = "HOSTNAME")]
    hostnames: Vec<String>,
    /// The app does not see the path, only what follows it
    #[arg(long)]
    strip: bool,
    #[command(flatten)]
    app: AppArg,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let mut all = Vec::new();
        for hostname in &self.hostnames {
            let content = json!({ "hostname": hostname, "sni_endpoint": null, "strip": self.strip });
            let made = cx
                .out
                .step(&format!("Adding {hostname} to {name}"), || client.post(&["apps", &name, "domains"], &content))?;
            let domain: Domain = client::typed(&made)?;
            if let Some(cname) = domain.cname.filter(|_| domain.path.is_none()) {
                cx.out.note(&format!("Point the DNS of {hostname} at {cname}."));
            }
            all.push(made);
        }
        cx.done(&all.into())
    }
}

/// Show what is known about a domain
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform domains:info www.example.com")]
pub(crate) struct Info {
    /// Host name
    hostname: String,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let value = client.get(&["apps", &name, "domains", &self.hostname])?;
        cx.show(&value, |out| {
            let domain: Domain = client::typed(&value)?;
            out.heading(&domain.hostname)?;
            let kind = if domain.kind == "heroku" { "platform" } else { "custom" };
            out.pairs([
                ("App", name.as_str().into()),
                ("Kind", kind.into()),
                ("DNS target", domain.cname.unwrap_or_default().into()),
                ("The app sees", if domain.strip { "what follows the path" } else { "the whole path" }.into()),
            ])
        })
    }
}

/// Remove all custom domains from an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform domains:clear -a my-app --confirm my-app")]
pub(crate) struct Clear {
    /// The app's name again, instead of being asked for it
    #[arg(long, short, value_name = "APP")]
    confirm: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Clear {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let domains: Vec<Domain> = client::typed(&client.list(&["apps", &name, "domains"])?)?;
        let what = format!("This removes all custom domains of {name}.");
        let command = format!("platform domains:clear -a {name} --confirm {name}");
        context::confirm(&name, self.confirm, (&what, &command))?;
        // Paths of a host before the host.
        let custom: Vec<_> = domains.into_iter().rev().filter(|domain| domain.kind != "heroku").collect();
        let clear = || {
            let remove = |domain: &Domain| client.delete(&["apps", &name, "domains", &domain.hostname]);
            custom.iter().map(remove).collect::<Result<Vec<_>>>()
        };
        cx.done(&cx.out.step(&format!("Removing all custom domains of {name}"), clear)?.into())
    }
}

/// Remove domains from an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform domains:remove www.example.com -a my-app")]
pub(crate) struct Remove {
    /// Host names
    #[arg(required = true, value_name = "HOSTNAME")]
    hostnames: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let mut all = Vec::new();
        for hostname in &self.hostnames {
            let remove = || client.delete(&["apps", &name, "domains", hostname]);
            all.push(cx.out.step(&format!("Removing {hostname} from {name}"), remove)?);
        }
        cx.done(&all.into())
    }
}
