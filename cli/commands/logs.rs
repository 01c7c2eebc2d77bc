//! `logs`.

use std::hash::{DefaultHasher, Hash, Hasher};

use clap::Args;
use serde_json::json;

use crate::client::{self, LogSession};
use crate::context::{AppArg, Context};
use crate::error::{CliError, Kind, Result};
use crate::output::{Color, Paint};

/// Show the log of an app: its own output, the router's lines and the platform's
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform logs
  $ platform logs --tail
  $ platform logs -n 500 --source app --dyno web.1 -a my-app
  $ platform logs --tail --source heroku | grep code=")]
pub(crate) struct Logs {
    /// Go on showing lines as they come
    #[arg(short, long)]
    tail: bool,
    /// How many lines to begin with
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=1500))]
    num: u32,
    /// Only lines of this dyno, such as web.1, or of this process type
    #[arg(short, long)]
    dyno: Option<String>,
    /// Only lines of this source: `app`, or `heroku` for those of the platform
    #[arg(short, long)]
    source: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Logs {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let mut content = json!({ "lines": self.num, "tail": self.tail });
        if let Some(dyno) = self.dyno {
            content["dyno"] = dyno.into();
        }
        if let Some(source) = self.source {
            content["source"] = source.into();
        }
        let session: LogSession = client::typed(&client.post(&["apps", &name, "log-sessions"], &content)?)?;
        for line in client::lines(client.open(&session.logplex_url)?) {
            let line = line.map_err(|error| broke_off(&error))?;
            cx.out.line(colored(cx.out.paint, &line))?;
        }
        if self.tail {
            return Err(broke_off(&std::io::Error::other("the platform closed it")));
        }
        Ok(())
    }
}

fn broke_off(error: &std::io::Error) -> CliError {
    CliError::new(Kind::Unreachable, "The log stream broke off").because(error).hint("Run the command again to go on.")
}

/// Gives each source its own colour: `2026-11-21T02:39:46.255000+00:00 app[web.1]: text`.
fn colored(paint: Paint, line: &str) -> String {
    const COLORS: [Color; 6] = [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta, Color::Blue, Color::DarkCyan];
    let Some((head, text)) = line.split_once("]: ") else { return line.to_owned() };
    let Some((_, source)) = head.split_once(' ') else { return line.to_owned() };
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    let color = COLORS[usize::try_from(hasher.finish() % 6).unwrap_or(0)];
    format!("{} {text}", paint.color(color, &format!("{head}]:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_a_line_is_as_it_came() {
        for line in ["2026-11-21T02:39:46.255000+00:00 app[web.1]: hello ]: x", "no shape", "a]: b", ""] {
            assert_eq!(colored(Paint::plain(), line), line);
        }
    }
}
