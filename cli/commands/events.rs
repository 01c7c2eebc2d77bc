//! `events`: what was changed, by whom, from where.

use std::thread;
use std::time::Duration;

use clap::Args;
use model::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{self, Client};
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

/// Which events are shown.
#[derive(Debug, Args)]
pub(crate) struct Filters {
    /// Only those of one user, by e-mail address
    #[arg(long, value_name = "EMAIL")]
    actor: Option<String>,
    /// Only those of one kind of thing: app, release, domain, lock …
    #[arg(long, value_name = "KIND")]
    resource: Option<String>,
    /// Only those that did this: create, update or destroy
    #[arg(long)]
    action: Option<String>,
    /// Only those from this time on: 2026-11-21T16:00:00Z, 2026-11-21, or so long ago: 90m, 12h, 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    /// Only those before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,
    /// How many
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    num: u32,
    /// Go on showing events as they come
    #[arg(short, long, visible_alias = "follow", conflicts_with = "until")]
    tail: bool,
}

impl Filters {
    fn query(&self) -> Vec<(&str, &str)> {
        let all = [
            ("actor", &self.actor),
            ("resource", &self.resource),
            ("action", &self.action),
            ("since", &self.since),
            ("until", &self.until),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

/// Show what was changed, by whom and from where, newest first
///
/// Of an app, or with --all of everything that you may see. With --tail, goes on showing events as they happen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform events -a my-app
  $ platform events -a my-app --resource release --since 7d
  $ platform events --all -n 50
  $ platform events --tail --json | jq -r .resource")]
pub(crate) struct List {
    /// Of all apps, and of users
    #[arg(short = 'A', long, conflicts_with = "app")]
    all: bool,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        if self.all {
            return show(cx, &cx.client()?, &["events"], (&self.filters, None));
        }
        let (client, app) = cx.app(&self.app)?;
        show(cx, &client, &["apps", &app, "events"], (&self.filters, None))
    }
}

/// Show what was changed on the whole platform, by whom and from where, newest first
///
/// Operators see everything; others what was done to their apps, and what they did themselves. What was done to an app that is
/// gone is shown too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform audit --since 24h
  $ platform audit --actor ada@example.com --action destroy
  $ platform audit -a old-app -n 100 --json
  $ platform audit --follow")]
pub(crate) struct Audit {
    /// Only those of one app
    #[arg(short, long)]
    app: Option<String>,
    #[command(flatten)]
    filters: Filters,
}

impl Audit {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        show(cx, &cx.client()?, &["events"], (&self.filters, self.app.as_deref()))
    }
}

fn show(cx: &Context, client: &Client, path: &[&str], (filters, app): (&Filters, Option<&str>)) -> Result<()> {
    let mut query = filters.query();
    query.extend(app.map(|app| ("app", app)));
    if filters.tail {
        return tail(cx, client, (path, &query));
    }
    let events = client.newest_by("sequence", (path, &query), filters.num)?;
    cx.show_list(&events, |out, events: Vec<Event>| {
        let row = |event: Event| {
            let what = what(&event);
            let app = event.app.map_or_else(String::new, |app| app.name);
            let who = event.actor.map_or_else(|| "the platform".to_owned(), |actor| actor.email);
            let from = [event.via, event.address].into_iter().flatten().collect::<Vec<_>>().join(" ");
            let when = output::ago(&event.created_at, context::now());
            vec![when.into(), app.into(), what.into(), who.into(), from.into()]
        };
        let header = ["When", "App", "What", "Who", "From"];
        out.table(&header, events.into_iter().map(row).collect(), "Nothing has happened.")
    })
}

/// A time as the API takes it, from one, a date, or so long ago.
fn moment(text: &str) -> std::result::Result<String, String> {
    let ago = text.split_at_checked(text.len().saturating_sub(1)).and_then(|(number, unit)| {
        let seconds = match unit {
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        Some(Duration::from_secs(number.parse::<u32>().ok().map(u64::from)? * seconds))
    });
    let time = match ago {
        Some(ago) => Some(context::now().before(ago)),
        None => Timestamp::parse(text).or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z"))),
    };
    let wrong = || "write it like 2026-11-21T16:00:00Z, 2026-11-21, 90m, 12h or 7d".to_owned();
    time.map(Timestamp::to_rfc3339_millis).ok_or_else(wrong)
}

/// Shows events as they happen, until somebody stops it. The platform ends every stream after a while.
fn tail(cx: &Context, client: &Client, path: (&[&str], &[(&str, &str)])) -> Result<()> {
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
    let named = ["name", "hostname", "description", "email", "url", "message", "period"]
        .into_iter()
        .find_map(|key| event.data[key].as_str());
    let name = named.map_or_else(String::new, |name| format!(" {name}"));
    format!("{} {}{name}", event.action, event.resource)
}
