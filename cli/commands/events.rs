//! `events`: what was changed, by whom, from where.

use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::client;
use crate::context::{self, AppArg, Context};
use crate::error::{Kind, Result};
use crate::output;

/// Pause before a stream that ended is opened again.
const RETRY: Duration = Duration::from_secs(1);

/// An event, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Event {
    action: String,
    actor: Option<Actor>,
    address: Option<String>,
    app: Option<client::Named>,
    created_at: String,
    data: Value,
    resource: String,
    via: Option<String>,
}

/// Who did something.
#[derive(Debug, Deserialize)]
struct Actor {
    email: String,
}

/// Show what was changed, by whom and from where, newest first
///
/// Of an app, or with --all of everything that you may see. With --tail, goes on showing events as they happen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform events -a my-app
  $ platform events --all -n 50
  $ platform events --tail --json | jq -r .resource")]
pub(crate) struct List {
    /// Of all apps, and of users
    #[arg(short = 'A', long)]
    all: bool,
    /// How many
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    num: u32,
    /// Go on showing events as they come
    #[arg(short, long)]
    tail: bool,
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, app) = if self.all {
            (cx.client()?, None)
        } else {
            let (client, app) = cx.app(&self.app)?;
            (client, Some(app))
        };
        let path: Vec<&str> = match &app {
            Some(app) => vec!["apps", app, "events"],
            None => vec!["events"],
        };
        if self.tail {
            return tail(cx, &client, &path);
        }
        let events = client.newest_by("sequence", &path, self.num)?;
        cx.show_list(&events, |out, events: Vec<Event>| {
            let row = |event: Event| {
                let what = what(&event);
                let app = event.app.map_or_else(String::new, |app| app.name);
                let who = event.actor.map_or_else(|| "the platform".to_owned(), |actor| actor.email);
                let from = [event.via, event.address].into_iter().flatten().collect::<Vec<_>>().join(" ");
                vec![
                    output::ago(&event.created_at, context::now()).into(),
                    app.into(),
                    what.into(),
                    who.into(),
                    from.into(),
                ]
            };
            out.table(
                &["When", "App", "What", "Who", "From"],
                events.into_iter().map(row).collect(),
                "Nothing has happened.",
            )
        })
    }
}

/// Shows events as they happen, until somebody stops it. The platform ends every stream after a while.
fn tail(cx: &Context, client: &client::Client, path: &[&str]) -> Result<()> {
    let mut last: Option<String> = None;
    loop {
        match client.events(path, last.as_deref()) {
            Ok(stream) => {
                for line in client::lines(stream).map_while(std::io::Result::ok) {
                    if let Some(id) = line.strip_prefix("id:") {
                        last = Some(id.trim().to_owned());
                    }
                    let Some(data) = line.strip_prefix("data:") else { continue };
                    let Ok(value) = serde_json::from_str::<Value>(data.trim()) else { continue };
                    cx.show_line(&value, one_line(&client::typed(&value)?))?;
                }
            }
            Err(error) if error.kind == Kind::Unreachable && last.is_some() => {}
            Err(error) => return Err(error),
        }
        thread::sleep(RETRY);
    }
}

fn one_line(event: &Event) -> String {
    let app = event.app.as_ref().map_or_else(String::new, |app| format!("{} ", app.name));
    let who = event.actor.as_ref().map_or("the platform", |actor| &actor.email);
    format!("{} {app}{} by {who}", event.created_at, what(event))
}

/// `create domain www.example.com`.
fn what(event: &Event) -> String {
    let named =
        ["name", "hostname", "description", "email", "url"].into_iter().find_map(|key| event.data[key].as_str());
    let name = named.map_or_else(String::new, |name| format!(" {name}"));
    format!("{} {}{name}", event.action, event.resource)
}
