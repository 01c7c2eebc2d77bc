//! `run`: a one-off dyno, with this terminal or without.

use std::io::{self, IsTerminal};

use clap::Args;
use crossterm::terminal;
use serde_json::{Map, Value, json};

use crate::attach;
use crate::client::{self, Dyno};
use crate::context::{AppArg, Context};
use crate::error::{CliError, Result};
use crate::output;

/// Run a command in a new dyno of an app
///
/// The command gets the app's current image and config vars. On a terminal it is interactive; with a pipe, standard input
/// goes to it. This program ends with the exit status of the command. `-a APP` may also stand at the very end.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform run bash
  $ platform run node -e 'console.log(process.env.GREETING)'
  $ platform run -a my-app -- rake db:migrate --trace
  $ platform run 'ls | wc -l'
  $ cat dump.sql | platform run 'psql $DATABASE_URL'
  $ platform run --detached ./nightly-job")]
pub(crate) struct Run {
    #[command(flatten)]
    what: What,
    /// Start it, print its name and leave it running; its output goes to the log
    #[arg(short, long)]
    detached: bool,
    /// Treat input and output as plain data even on a terminal
    #[arg(long)]
    no_tty: bool,
}

/// What to run, and how.
#[derive(Debug, Args)]
struct What {
    /// The command and its arguments; a single argument may be a whole shell line
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Environment variable for this run alone
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Size of the dyno
    #[arg(short, long)]
    size: Option<String>,
    /// Stop it after this long, such as 90s, 15m or 2h; a day at the latest
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    time_limit: Option<u64>,
    /// The first part of its name, in logs and lists
    #[arg(long = "type", value_name = "TYPE", default_value = "run")]
    process_type: String,
    #[command(flatten)]
    app: AppArg,
}

/// Run a command in a new dyno of an app and leave it running
///
/// Its output goes to the log, it needs nobody at its other end, and it outlives restarts of the platform. `platform run:info` shows
/// how it ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform run:detached ./nightly-job
  $ platform run:detached --time-limit 2h -a my-app -- rake reports:build")]
pub(crate) struct Detached {
    #[command(flatten)]
    what: What,
}

impl Detached {
    pub(crate) fn run(self, cx: &Context) -> Result<u8> {
        Run { what: self.what, detached: true, no_tty: true }.run(cx)
    }
}

impl Run {
    /// Returns the exit status of the command.
    pub(crate) fn run(self, cx: &Context) -> Result<u8> {
        let Self { mut what, detached, no_tty } = self;
        if let Some(app) = app_at_the_end(&what.command)
            && what.app.name_if_missing(app)
        {
            what.command.truncate(what.command.len() - 2);
        }
        let tty = !no_tty && !detached && io::stdin().is_terminal() && io::stdout().is_terminal();
        let command = shell_line(&what.command);
        let env = environment(&what.env, tty)?;
        let mut content = json!({ "command": command, "type": what.process_type, "attach": !detached, "env": env });
        if !detached {
            content["attach_protocol"] = "websocket".into();
        }
        if !tty {
            content["force_no_tty"] = true.into();
        }
        if let Some(size) = what.size {
            content["size"] = size.into();
        }
        if let Some(seconds) = what.time_limit {
            content["time_to_live"] = seconds.into();
        }
        let (client, name) = cx.app(&what.app)?;
        let start = || client.post(&["apps", &name, "dynos"], &content);
        if detached {
            let started = start()?;
            let dyno: Dyno = client::typed(&started)?;
            cx.show(&started, |out| out.line(&dyno.name))?;
            let name = format!("{} -a {name}", dyno.name);
            cx.out.note(&format!(
                "It runs `{command}`. Its output: platform logs --tail --dyno {name}. Its end: platform run:info {name}"
            ));
            return Ok(0);
        }
        let started = if tty { cx.out.step(&format!("Starting `{command}` on {name}"), start)? } else { start()? };
        let dyno: Dyno = client::typed(&started)?;
        let Some(address) = dyno.attach_url else {
            return Err(CliError::failed(format!("The platform started {} but offers no connection to it", dyno.name))
                .hint(format!("Its output: platform logs --tail --dyno {} -a {name}", dyno.name)));
        };
        attach::attach(&address, tty)
    }
}

/// What a process gets beside the app's own environment.
pub(super) fn environment(words: &[String], tty: bool) -> Result<Map<String, Value>> {
    let mut env = terminal_environment(tty);
    for text in words {
        let (key, value) =
            text.split_once('=').ok_or_else(|| CliError::usage(format!("`{text}` is not of the form KEY=VALUE")))?;
        env.insert(key.to_owned(), value.into());
    }
    Ok(env)
}

/// `90s`, `15m`, `2h`, or a number of seconds.
fn seconds(text: &str) -> std::result::Result<u64, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let unit = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = unit.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit)).filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| "write it like 90s, 15m or 2h".to_owned())
}

/// What a process on the other side must know of this terminal.
pub(super) fn terminal_environment(tty: bool) -> Map<String, Value> {
    let mut env = Map::new();
    if tty {
        let (columns, lines) = terminal::size().unwrap_or((80, 24));
        env.insert("TERM".into(), std::env::var("TERM").unwrap_or_else(|_| "xterm".into()).into());
        env.insert("COLUMNS".into(), columns.to_string().into());
        env.insert("LINES".into(), lines.to_string().into());
    }
    env
}

/// `bash -a my-app`: everything after the command is the command's, but this is how Heroku's users have always typed it.
pub(super) fn app_at_the_end(words: &[String]) -> Option<&str> {
    match words {
        [_, .., flag, app] if (flag == "-a" || flag == "--app") && app.parse::<model::AppName>().is_ok() => Some(app),
        _ => None,
    }
}

/// One line for the shell in the dyno. A single argument is one already; several are words and stay words.
pub(super) fn shell_line(words: &[String]) -> String {
    match words {
        [line] => line.clone(),
        words => words.iter().map(|it| word(it)).collect::<Vec<_>>().join(" "),
    }
}

fn word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { output::quoted(word) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_may_be_named_at_the_end() {
        let app = |line: &str| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            app_at_the_end(&words).map(str::to_owned)
        };
        assert_eq!(app("bash -a my-app").as_deref(), Some("my-app"));
        assert_eq!(app("ls -a /tmp"), None);
        assert_eq!(app("-a my-app"), None);
    }

    #[test]
    fn a_time_limit_has_a_unit() {
        let read = ["90", "90s", "15m", "2h", "1d"].map(|text| seconds(text).ok());
        assert_eq!(read, [Some(90), Some(90), Some(900), Some(7200), Some(86_400)]);
        for bad in ["", "0", "m", "-1m", "1w", "1.5h", "99999999999999999999s", "9999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_stay_words_and_a_line_stays_a_line() {
        let line = |words: &[&str]| shell_line(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&["ls | wc -l"]), "ls | wc -l");
        assert_eq!(line(&["node", "-e", "it's $x"]), r"node -e 'it'\''s $x'");
        assert_eq!(line(&["rake", "db:migrate", ""]), "rake db:migrate ''");
    }
}
