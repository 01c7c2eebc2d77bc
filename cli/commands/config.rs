//! `config` and its kin.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::{self, Client, ConfigChanged, Release};
use crate::commands::releases;
use crate::context::{self, AppArg, Context, ReleaseArg};
use crate::error::{CliError, Result};
use crate::output;

/// Show the config vars of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform config -a my-app
  $ platform config --shell > .env
  $ platform config --scopes
  $ platform config --json | jq -r .DATABASE_URL")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
    /// Print lines that a shell can read: KEY='value'
    #[arg(short, long, conflicts_with = "json")]
    shell: bool,
    /// Show where they are given instead of their values: to builds, to what runs, or to all
    #[arg(long, conflicts_with = "shell")]
    scopes: bool,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let list = if self.scopes { "config-var-scopes" } else { "config-vars" };
        let vars = client.get(&["apps", &name, list])?;
        cx.show(&vars, |out| {
            let vars: BTreeMap<String, String> = client::typed(&vars)?;
            if self.shell {
                return vars.iter().try_for_each(|(key, value)| out.line(format!("{key}={}", output::quoted(value))));
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
            Some(value) if self.shell => cx.out.line(format!("{}={}", self.key, output::quoted(value))),
            Some(value) => cx.show_one(&self.key, value),
            None => Err(CliError::failed(format!("{} is not set on {name}", self.key))
                .hint(format!("See what is: platform config -a {name}"))),
        }
    }
}

/// Set config vars of an app
///
/// All of them together make one new release, and the app restarts with it. Values are taken as they are, byte for byte:
/// quotes, newlines, `=` and `$` need no escaping beyond what your own shell asks for.
///
/// `-` reads config vars from standard input, `--env-file` from a file: JSON as `platform config --json` prints it, or lines
/// like those of a .env file. `--from-file` takes one value from a file, to its last byte.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform config:set GREETING='hello world' DEBUG=1
  $ platform config:set --run-only PAYMENT_KEY=abc123 --reason 'new payment provider'
  $ platform config:set --build-only NPM_TOKEN=abc123
  $ platform config:set --run-only DATABASE_URL
  $ platform config:set --from-file TLS_KEY=./key.pem
  $ pass show api-key | platform config:set --chomp --from-file API_KEY=-
  $ platform config --json -a one-app | platform config:set - -a other-app")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Set {
    /// Config vars to set; a name alone with --build-only, --run-only or --everywhere
    #[arg(value_name = "KEY=VALUE", required_unless_present_any = ["from_file", "env_file"])]
    vars: Vec<String>,
    /// Take a value from a file, or from standard input if PATH is `-`
    #[arg(short, long, value_name = "KEY=PATH")]
    from_file: Vec<String>,
    /// Leave out the newline at the end of values from files
    #[arg(long, requires = "from_file")]
    chomp: bool,
    /// Take config vars from a file of JSON or of KEY=VALUE lines
    #[arg(long, value_name = "PATH")]
    env_file: Vec<String>,
    /// Give them to builds only
    #[arg(long, group = "place")]
    build_only: bool,
    /// Give them to what runs only, never to builds
    #[arg(long, group = "place")]
    run_only: bool,
    /// Give them to builds and to what runs, as without any of these options if they are new
    #[arg(long, group = "place")]
    everywhere: bool,
    /// Why, for whoever reads the releases
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    app: ReleaseArg,
}

impl Set {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let place = self.place();
        let (mut vars, mut scopes) = (Map::new(), Map::new());
        for text in &self.vars {
            match text.as_str() {
                "-" => vars.extend(many("-")?),
                name if place.is_some() && !name.contains('=') => {
                    scopes.insert(name.to_owned(), place.into());
                }
                text => {
                    let (key, value) = split(text)?;
                    vars.insert(key.to_owned(), value.into());
                }
            }
        }
        for path in &self.env_file {
            vars.extend(many(path)?);
        }
        for text in &self.from_file {
            let (key, path) = split(text)?;
            vars.insert(key.to_owned(), self.value(path)?.into());
        }
        if let Some(place) = place {
            scopes.extend(vars.keys().map(|key| (key.clone(), Value::from(place))));
        }
        let (client, name) = cx.app_to_release(&self.app)?;
        let keys = names(vars.keys().chain(scopes.keys().filter(|key| !vars.contains_key(*key))));
        let wish = json!({ "vars": vars, "scopes": scopes, "reason": self.reason });
        change(cx, (&client, &name), &format!("Setting {keys} on {name}"), &wish)
    }

    fn place(&self) -> Option<&'static str> {
        match (self.build_only, self.run_only, self.everywhere) {
            (true, ..) => Some("build"),
            (_, true, _) => Some("run"),
            (.., true) => Some("all"),
            _ => None,
        }
    }

    /// The whole content of a file, as it is.
    fn value(&self, path: &str) -> Result<String> {
        let mut content = read(path)?;
        if self.chomp && content.ends_with('\n') {
            content.pop();
        }
        Ok(content)
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
    /// Why, for whoever reads the releases
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    app: ReleaseArg,
}

impl Unset {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app_to_release(&self.app)?;
        let vars: Map<_, _> = self.keys.iter().map(|key| (key.clone(), Value::Null)).collect();
        let wish = json!({ "vars": vars, "reason": self.reason });
        change(cx, (&client, &name), &format!("Unsetting {} on {name}", names(self.keys.iter())), &wish)
    }
}

/// Show which config vars changed when, in which release, and by whom
///
/// Names only: no value is kept for this.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform config:history
  $ platform config:history DATABASE_URL -a my-app")]
pub(crate) struct History {
    /// Only what became of this config var
    key: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl History {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let history = client.get(&["apps", &name, "config-changes"])?;
        cx.show_list(&history, |out, releases: Vec<Release>| {
            let mut rows = Vec::new();
            for mut release in releases {
                if let Some(key) = &self.key {
                    release.config_changes.retain(|change| change.name == *key);
                }
                if !release.config_changes.is_empty() {
                    rows.push(vec![
                        format!("v{}", release.version).into(),
                        releases::changed(&release.config_changes).join(", ").into(),
                        release.user.email.into(),
                        output::ago(&release.created_at, context::now()).into(),
                        release.reason.unwrap_or_default().into(),
                    ]);
                }
            }
            out.table(&["Release", "Config vars", "Who", "When", "Why"], rows, "Nothing of that was ever changed.")
        })
    }
}

/// Makes the change and waits until the release with it is current.
fn change(cx: &Context, (client, app): (&Client, &str), what: &str, wish: &Value) -> Result<()> {
    let (changed, version) = cx.out.step(what, || {
        let mut changed: ConfigChanged = client::typed(&client.post(&["apps", app, "config-changes"], wish)?)?;
        let version = match changed.release.take() {
            Some(release) => Some(releases::finished(client, app, release)?.0.version),
            None => None,
        };
        Ok((changed, version))
    })?;
    match version {
        Some(version) => cx.out.note(&format!("v{version} is the current release, with this change.")),
        None => cx.out.note("Nothing changed: it was so already. No release was made."),
    }
    cx.done(&changed.config_vars)
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

/// The whole content, which must be text.
fn read(path: &str) -> Result<String> {
    let content = if path == "-" { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) };
    content.map_err(|error| CliError::failed(format!("Cannot read a value from {path}")).because(&error))
}

/// Config vars as JSON or as lines like those of a .env file.
fn many(path: &str) -> Result<Map<String, Value>> {
    let text = read(path)?;
    if text.trim_start().starts_with('{') {
        // What serde says may quote a value.
        let wrong = |_| CliError::failed(format!("What {path} holds is not a JSON object of strings"));
        let vars: BTreeMap<String, String> = serde_json::from_str(&text).map_err(wrong)?;
        return Ok(vars.into_iter().map(|(key, value)| (key, value.into())).collect());
    }
    let vars = web::dotenv::parse(&text)
        .map_err(|why| CliError::failed(format!("Cannot read the config vars in {path}: {why}")))?;
    Ok(vars.into_iter().map(|var| (var.name, var.value.into())).collect())
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
        let echoed = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s {}", output::quoted(value))])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(echoed.stdout).unwrap(), value);
    }
}
