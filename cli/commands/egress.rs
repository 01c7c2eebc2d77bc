//! `egress` and its kin: what apps may reach outside.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client;
use crate::context::{AppArg, Context};
use crate::error::{CliError, Result};

/// A policy, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Policy {
    default: String,
    in_force: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    to: String,
    ports: Option<String>,
}

/// Show what an app may reach outside
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform egress -a my-app
  $ platform egress --json | jq -r .default")]
pub(crate) struct Show {
    #[command(flatten)]
    app: AppArg,
}

impl Show {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let policy = client.get(&["apps", &name, "egress"])?;
        show(cx, &name, &policy)
    }
}

/// Set what the dynos and one-off dynos of an app may reach outside
///
/// It holds at once, for what runs as well. Add-ons and name servers are always within reach; other apps, this machine and
/// addresses where clouds tell their secrets never are. Builds are not held to it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform egress:set --deny --except public:443
  $ platform egress:set --deny --except 203.0.113.0/24:5432,6432 --except 198.51.100.7
  $ platform egress:set --allow --except private -a my-app")]
pub(crate) struct Set {
    /// Let everything through that is not excepted
    #[arg(long, conflicts_with = "deny", required_unless_present = "deny")]
    allow: bool,
    /// Let nothing through that is not excepted
    #[arg(long)]
    deny: bool,
    /// Where the opposite holds: public, private, an address or a network, and if need be ports
    #[arg(long, value_name = "TO[:PORTS]")]
    except: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Set {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let rules: Vec<Value> = self.except.iter().map(|text| rule(text)).collect::<Result<_>>()?;
        let content = json!({ "default": if self.allow { "allow" } else { "deny" }, "rules": rules });
        let (client, name) = cx.app(&self.app)?;
        let what = format!("Setting what {name} may reach");
        let policy = cx.out.step(&what, || client.put(&["apps", &name, "egress"], &content))?;
        show(cx, &name, &policy)
    }
}

/// Let an app reach everything again that any app may
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform egress:clear -a my-app")]
pub(crate) struct Clear {
    #[command(flatten)]
    app: AppArg,
}

impl Clear {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let what = format!("Letting {name} reach everything that any app may");
        let policy = cx.out.step(&what, || client.delete(&["apps", &name, "egress"]))?;
        show(cx, &name, &policy)
    }
}

fn rule(text: &str) -> Result<Value> {
    let rule: model::EgressRule = text.parse().map_err(|error: model::EgressError| {
        CliError::usage(format!("`{text}` is not of the form TO[:PORTS]"))
            .because(&error)
            .hint("Like this: platform egress:set --deny --except public:443 --except 203.0.113.0/24")
    })?;
    serde_json::to_value(rule).map_err(|error| CliError::failed("A rule cannot be sent").because(&error))
}

fn show(cx: &Context, name: &str, value: &Value) -> Result<()> {
    cx.show(value, |out| {
        let policy: Policy = client::typed(value)?;
        let (everything, except) =
            if policy.default == "allow" { ("allowed", "Refused") } else { ("refused", "Allowed") };
        let rule = |rule: Rule| rule.ports.map_or(rule.to.clone(), |ports| format!("{}:{ports}", rule.to));
        let rules: Vec<String> = policy.rules.into_iter().map(rule).collect();
        let mut known = vec![("App", name.into()), ("Everything", everything.into())];
        if !rules.is_empty() {
            known.push((except, rules.join(", ").into()));
        }
        let in_force = if policy.in_force { "yes" } else { "not yet: the platform tries until it is" };
        known.push(("In force", in_force.into()));
        out.pairs(known)
    })
}
