//! What `pg:…` and `redis:…` have in common: which database they are about, and its own client joined to this terminal.

use std::io::{self, IsTerminal};

use clap::Args;
use serde_json::{Value, json};

use super::run::terminal_environment;
use crate::attach;
use crate::client::{self, Addon, Client};
use crate::context::{AppArg, Context};
use crate::error::{CliError, Result};

/// Open psql on an app's PostgreSQL database
///
/// It runs beside the server: nothing has to be installed here, and no port is open to the outside. From a pipe it reads SQL.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pg:psql
  $ platform pg:psql -c 'SELECT count(*) FROM visits' -a my-app
  $ platform pg:psql REPORTS < schema.sql")]
pub(crate) struct Psql {
    /// Name of the add-on, or under which the app uses it
    database: Option<String>,
    /// SQL to run instead of opening a prompt
    #[arg(long, short)]
    command: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Psql {
    /// Returns psql's exit status.
    pub(crate) fn run(self, cx: &Context) -> Result<u8> {
        let (client, addon) = POSTGRES.find(cx, &self.app, self.database.as_deref())?;
        let args: Vec<_> = self.command.into_iter().flat_map(|sql| ["-c".to_owned(), sql]).collect();
        open(cx, &client, (&addon, &args))
    }
}

/// Open redis-cli on an app's Redis
///
/// It runs beside the server: nothing has to be installed here, and no port is open to the outside. From a pipe it reads commands.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform redis:cli
  $ platform redis:cli -a my-app -- GET visits")]
pub(crate) struct RedisCli {
    /// Name of the add-on, or under which the app uses it
    #[arg(value_name = "DATABASE")]
    database: Option<String>,
    /// A command to run instead of opening a prompt
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

impl RedisCli {
    /// Returns the exit status of redis-cli.
    pub(crate) fn run(self, cx: &Context) -> Result<u8> {
        let (client, addon) = REDIS.find(cx, &self.app, self.database.as_deref())?;
        open(cx, &client, (&addon, &self.command))
    }
}

/// What one group of commands is about.
pub(super) struct Service {
    slug: &'static str,
    attachment: &'static str,
}

pub(super) const POSTGRES: Service = Service { slug: "postgres", attachment: "DATABASE" };
const REDIS: Service = Service { slug: "redis", attachment: "REDIS" };

impl Service {
    /// The app's add-on that is named or, without a name, the only one of the service or the one under the usual name.
    pub(super) fn find(&self, cx: &Context, app: &AppArg, name: Option<&str>) -> Result<(Client, String)> {
        let (client, app) = cx.app(app)?;
        if let Some(name) = name {
            let content = json!({ "addon": name, "app": app });
            let found: Vec<Addon> = client::typed(&client.post(&["actions", "addons", "resolve"], &content)?)?;
            let name = found.into_iter().next().map_or_else(|| name.to_owned(), |addon| addon.name);
            return Ok((client, name));
        }
        let all: Vec<Value> = client::typed(&client.list(&["apps", &app, "addons"])?)?;
        let usual = format!("{}_URL", self.attachment);
        let is_ours = |addon: &&Value| addon["addon_service"]["name"] == self.slug;
        let is_usual = |addon: &&Value| {
            addon["config_vars"].as_array().is_some_and(|vars| vars.iter().any(|var| *var == usual.as_str()))
        };
        let ours: Vec<_> = all.iter().filter(is_ours).collect();
        let only = if let [only] = ours[..] { Some(only) } else { ours.iter().copied().find(is_usual) };
        let names: Vec<_> = ours.iter().filter_map(|addon| addon["name"].as_str()).collect();
        match only.and_then(|addon| addon["name"].as_str()) {
            Some(name) => Ok((client, name.to_owned())),
            None if names.is_empty() => Err(CliError::failed(format!("{app} has no add-on of {}", self.slug))
                .hint(format!("Make one: platform addons:create {} -a {app}", self.slug))),
            None => Err(CliError::usage(format!("Which add-on? {app} has {}", names.join(", ")))
                .hint("Name one of them behind the command.")),
        }
    }
}

fn open(cx: &Context, client: &Client, (addon, args): (&str, &[String])) -> Result<u8> {
    let tty = io::stdin().is_terminal() && io::stdout().is_terminal();
    let content = json!({ "args": args, "env": terminal_environment(tty), "force_no_tty": !tty });
    let start = || client.post(&["addons", addon, "sessions"], &content);
    let session = if tty { cx.out.step(&format!("Connecting to {addon}"), start)? } else { start()? };
    match session["attach_url"].as_str() {
        Some(address) => attach::attach(address, tty),
        None => Err(CliError::failed("The platform offers no connection to it")),
    }
}
