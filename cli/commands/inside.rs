//! `ps:exec` and its kin: looking into dynos that run.

use std::io::{self, IsTerminal};

use clap::Args;
use serde_json::json;

use super::run::{app_at_the_end, environment, shell_line};
use crate::attach;
use crate::client::{self, Dyno};
use crate::context::{AppArg, Context};
use crate::error::{CliError, Result};

/// What whoever says nothing gets: the best shell there is.
const SHELL: &str = "exec $(command -v bash || command -v sh)";

/// Open a terminal, or run a command, in a dyno that runs
///
/// It has the dyno's files, its network, its user, and its share of memory and CPU, and ends with the dyno at the latest. This
/// program ends with the exit status of the command. `-a APP` may also stand at the very end.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:exec
  $ platform ps:exec --dyno worker.2 -a my-app
  $ platform ps:exec -- ps aux
  $ platform ps:exec 'cat /proc/1/limits' | sort")]
pub(crate) struct Exec {
    /// The dyno
    #[arg(short, long, default_value = "web.1")]
    dyno: String,
    #[command(flatten)]
    how: How,
    /// The command and its arguments; a single argument may be a whole shell line
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Run a command in a dyno that runs
///
/// As `ps:exec`, with the dyno first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform run:inside web.1 bash
  $ platform run:inside worker.2 -a my-app -- ls -l /tmp")]
pub(crate) struct RunInside {
    /// The dyno
    dyno: String,
    #[command(flatten)]
    how: How,
    /// The command and its arguments; a single argument may be a whole shell line
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// How it is joined.
#[derive(Debug, Args)]
struct How {
    /// Environment variable for this command alone
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Treat input and output as plain data even on a terminal
    #[arg(long)]
    no_tty: bool,
    #[command(flatten)]
    app: AppArg,
}

impl Exec {
    /// Returns the exit status of the command.
    pub(crate) fn run(self, cx: &Context) -> Result<u8> {
        exec(cx, &self.dyno, self.how, self.command)
    }
}

impl RunInside {
    /// Returns the exit status of the command.
    pub(crate) fn run(self, cx: &Context) -> Result<u8> {
        exec(cx, &self.dyno, self.how, self.command)
    }
}

fn exec(cx: &Context, dyno: &str, mut how: How, mut command: Vec<String>) -> Result<u8> {
    if let Some(app) = app_at_the_end(&command)
        && how.app.name_if_missing(app)
    {
        command.truncate(command.len() - 2);
    }
    let tty = !how.no_tty && io::stdin().is_terminal() && io::stdout().is_terminal();
    let line = if command.is_empty() { SHELL.to_owned() } else { shell_line(&command) };
    let mut content = json!({ "command": line, "env": environment(&how.env, tty)?, "attach_protocol": "websocket" });
    if !tty {
        content["force_no_tty"] = true.into();
    }
    let (client, name) = cx.app(&how.app)?;
    let started: Dyno = client::typed(&client.post(&["apps", &name, "dynos", dyno], &content)?)?;
    let address = started.attach_url.ok_or_else(|| CliError::failed("The platform offers no connection to it"))?;
    attach::attach(&address, tty)
}
