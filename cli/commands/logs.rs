//! `logs`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::client::{self, Client, LogSession};
use crate::context::{AppArg, Context};
use crate::error::{Kind, Result};
use crate::output::{Color, Paint};

/// Most lines that the API gives at once.
const MAX_LINES: u32 = 1500;
/// Pause before asking a platform again that did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Show the log of an app: its own output, the router's lines and the platform's
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform logs
  $ platform logs --tail
  $ platform logs -n 500 --source app --dyno web.1 -a my-app
  $ platform logs --tail --source heroku | grep code=
  $ platform logs --addon DATABASE
  $ platform logs --json | jq -r .text")]
pub(crate) struct Logs {
    /// Go on showing lines as they come
    #[arg(short, long)]
    tail: bool,
    /// How many lines to begin with
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_LINES)))]
    num: u32,
    /// Only lines of this dyno, such as web.1, or of this process type; several, with commas
    #[arg(short, long, visible_alias = "dyno-name")]
    dyno: Option<String>,
    /// Only lines of this process type
    #[arg(short, long, conflicts_with = "dyno")]
    process_type: Option<String>,
    /// Only lines of this source: `app`, or `heroku` for those of the platform
    #[arg(short, long)]
    source: Option<String>,
    /// Colours, also where this is no terminal
    #[arg(long)]
    force_colors: bool,
    /// What the server of this add-on says instead; its name, or under which the app uses it
    #[arg(long)]
    addon: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Logs {
    /// What some dynos of an app said.
    pub(super) fn of(dynos: String, (tail, num): (bool, u32), app: AppArg) -> Self {
        let (process_type, source, addon) = (None, None, None);
        Self { tail, num, dyno: Some(dynos), process_type, source, force_colors: false, addon, app }
    }

    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let paint = if self.force_colors { Paint::forced() } else { cx.out.paint };
        let mut content = json!({ "lines": self.num, "tail": self.tail });
        if let Some(dyno) = self.dyno.or(self.process_type) {
            content["dyno"] = dyno.into();
        }
        if let Some(source) = self.source {
            content["source"] = source.into();
        }
        let mut path = vec!["apps", name.as_str()];
        path.extend(self.addon.as_deref().into_iter().flat_map(|addon| ["addons", addon]));
        path.push("log-sessions");
        let mut last = show((cx, paint), &client, &client.post(&path, &content)?, "")?;
        if !self.tail {
            return Ok(());
        }
        loop {
            cx.out.note("The log stream broke off; connecting again.");
            // Far enough back to miss nothing; what was shown already is left out.
            content["lines"] = MAX_LINES.into();
            last = show((cx, paint), &client, &again(&client, &path, &content)?, &last)?;
        }
    }
}

/// Shows the lines of a session that are later than `seen`, until it ends; returns the time of the last one.
fn show((cx, paint): (&Context, Paint), client: &Client, session: &Value, seen: &str) -> Result<String> {
    let session: LogSession = client::typed(session)?;
    let mut last = seen.to_owned();
    // A stream that breaks in the middle has ended: the caller knows whether it should have.
    for line in client::lines(client.open(&session.logplex_url)?).map_while(std::io::Result::ok) {
        let time = line.split(' ').next().unwrap_or_default();
        if time > seen {
            last.replace_range(.., time);
            cx.show_line(&parts(&line), colored(paint, &line))?;
        }
    }
    Ok(last)
}

/// A new session, as soon as the platform answers again.
fn again(client: &Client, path: &[&str], content: &Value) -> Result<Value> {
    loop {
        thread::sleep(RETRY);
        match client.post(path, content) {
            Err(error) if error.kind == Kind::Unreachable => {}
            result => return result,
        }
    }
}

/// A line for programs: `{"time": …, "source": "app", "dyno": "web.1", "text": …}`.
fn parts(line: &str) -> Value {
    let shape = || {
        let (head, text) = line.split_once("]: ")?;
        let (time, source) = head.split_once(' ')?;
        let (source, dyno) = source.split_once('[')?;
        Some(json!({ "time": time, "source": source, "dyno": dyno, "text": text }))
    };
    shape().unwrap_or_else(|| json!({ "text": line }))
}

/// Gives each source its own colour: `2026-11-21T02:39:46.255000+00:00 app[web.1]: text`.
fn colored(paint: Paint, line: &str) -> String {
    const COLORS: [Color; 6] =
        [Color::DarkCyan, Color::DarkYellow, Color::DarkGreen, Color::DarkMagenta, Color::DarkBlue, Color::DarkRed];
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
    fn programs_get_a_line_in_parts() {
        assert_eq!(
            parts("2026-11-21T02:39:46.255000+00:00 app[web.1]: a]: b"),
            json!({ "time": "2026-11-21T02:39:46.255000+00:00", "source": "app", "dyno": "web.1", "text": "a]: b" })
        );
        assert_eq!(parts("no shape"), json!({ "text": "no shape" }));
    }

    #[test]
    fn without_colours_a_line_is_as_it_came() {
        for line in ["2026-11-21T02:39:46.255000+00:00 app[web.1]: hello ]: x", "no shape", "a]: b", ""] {
            assert_eq!(colored(Paint::plain(), line), line);
        }
    }
}
