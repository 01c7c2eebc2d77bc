//! `config` and its kin.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use clap::Args;
use serde_json::{Map, Value};

use crate::client::{self, Client};
use crate::commands::releases;
use crate::context::{AppArg, Context};
use crate::error::{CliError, Result};

/// Show the config vars of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform config -a my-app
  $ platform config --shell > .env
  $ platform config --json | jq -r .DATABASE_URL")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
    /// Print lines that a shell can read: KEY='value'
    #[arg(short, long, conflicts_with = "json")]
    shell: bool,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let vars = client.get(&["apps", &name, "config-vars"])?;
        cx.show(&vars, |out| {
            let vars: BTreeMap<String, String> = client::typed(&vars)?;
            if self.shell {
                return vars.iter().try_for_each(|(key, value)| out.line(format!("{key}={}", quoted(value))));
            }
            if vars.is_empty() {
                out.note(&format!("{name} has no config vars. Set one with `platform config:set KEY=VALUE`."));
                return Ok(());
            }
            out.heading(&format!("{name} config vars"))?;
            out.pairs(vars.iter().map(|(key, value)| (key, value.into())))
        })
    }
}

/// Print one config var of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform config:get DATABASE_URL -a my-app
  $ psql \"$(platform config:get DATABASE_URL)\"")]
pub(crate) struct Get {
    /// Name of the config var
    key: String,
    #[command(flatten)]
    app: AppArg,
    /// Quote the value for a shell: KEY='value'
    #[arg(short, long)]
    shell: bool,
}

impl Get {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let vars: BTreeMap<String, String> = client::typed(&client.get(&["apps", &name, "config-vars"])?)?;
        match vars.get(&self.key) {
            Some(value) if self.shell => cx.out.line(format!("{}={}", self.key, quoted(value))),
            Some(value) => cx.show_one(&self.key, value),
            None => Err(CliError::failed(format!("{} is not set on {name}", self.key))
                .hint(format!("See what is: platform config -a {name}"))),
        }
    }
}

/// Set config vars of an app
///
/// All of them together make one new release, and the app restarts with it. Values are taken as they are: quotes,
/// newlines, `=` and `$` need no escaping beyond what your own shell asks for.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform config:set GREETING='hello world' DEBUG=1
  $ platform config:set --from-file TLS_KEY=./key.pem
  $ pass show api-key | platform config:set --from-file API_KEY=-")]
pub(crate) struct Set {
    /// Config vars to set
    #[arg(value_name = "KEY=VALUE", required_unless_present = "from_file")]
    vars: Vec<String>,
    /// Take a value from a file, or from standard input if PATH is `-`
    #[arg(short, long, value_name = "KEY=PATH")]
    from_file: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Set {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let mut changes = Map::new();
        for text in &self.vars {
            let (key, value) = split(text)?;
            changes.insert(key.to_owned(), value.into());
        }
        for text in &self.from_file {
            let (key, path) = split(text)?;
            changes.insert(key.to_owned(), read(path)?.into());
        }
        let (client, name) = cx.app(&self.app)?;
        let keys = names(changes.keys());
        let (vars, version) =
            cx.out.step(&format!("Setting {keys} on {name}"), || change(&client, &name, &changes.into()))?;
        cx.out.note(&format!("v{version} is the current release, with it."));
        cx.done(&vars)
    }
}

/// Unset config vars of an app
///
/// Makes one new release, and the app restarts with it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform config:unset GREETING
  $ platform config:unset DEBUG TRACE -a my-app")]
pub(crate) struct Unset {
    /// Names of the config vars
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Unset {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let changes: Map<_, _> = self.keys.iter().map(|key| (key.clone(), Value::Null)).collect();
        let keys = names(self.keys.iter());
        let (vars, version) =
            cx.out.step(&format!("Unsetting {keys} on {name}"), || change(&client, &name, &changes.into()))?;
        cx.out.note(&format!("v{version} is the current release, without it."));
        cx.done(&vars)
    }
}

/// Makes the change and waits until the release with it is current; all config vars, and its version.
fn change(client: &Client, app: &str, changes: &Value) -> Result<(Value, u32)> {
    let vars = client.patch(&["apps", app, "config-vars"], changes)?;
    let mut releases: Vec<Value> = client::typed(&client.newest(&["apps", app, "releases"], 1)?)?;
    match releases.pop() {
        Some(release) => Ok((vars, releases::finished(client, app, release)?.0.version)),
        None => Err(CliError::failed("The platform made no release of it")),
    }
}

fn names<'a>(keys: impl Iterator<Item = &'a String>) -> String {
    keys.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn split(text: &str) -> Result<(&str, &str)> {
    text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
        CliError::usage(format!("`{text}` is not of the form KEY=VALUE"))
            .hint("To take a config var away: platform config:unset KEY")
    })
}

/// The whole content, without the one newline that editors and `echo` put at the end.
fn read(path: &str) -> Result<String> {
    let content = if path == "-" { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) };
    let mut content =
        content.map_err(|error| CliError::failed(format!("Cannot read the value from {path}")).because(&error))?;
    if content.ends_with('\n') {
        content.pop();
    }
    Ok(content)
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_equals_sign_divides() {
        assert_eq!(split("URL=postgres://x?a=b\nc").unwrap(), ("URL", "postgres://x?a=b\nc"));
        assert_eq!(split("EMPTY=").unwrap(), ("EMPTY", ""));
        assert!(split("=x").is_err());
        assert!(split("x").is_err());
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        let value = "it's \"$HOME\"\n`x`";
        let echoed =
            std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quoted(value))]).output().unwrap();
        assert_eq!(String::from_utf8(echoed.stdout).unwrap(), value);
    }
}
