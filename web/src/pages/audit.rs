//! Everything that was changed: on an app, or by oneself and on one's apps.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use controller::Controller;
use controller::store::{Edge, Event, EventFilter, Slice};
use model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::show as show_page;
use crate::error::PageError;
use crate::session::{AppVisit, Visit};
use crate::view::{Head, Inside, Moment};

/// Events on one page.
const PAGE: usize = 50;
/// What of an event's data is its name, by the first that there is.
const NAMES: [&str; 6] = ["name", "hostname", "description", "email", "url", "fingerprint"];

/// Which part is wanted.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Which {
    /// The number of an event: those before it.
    before: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Row {
    /// `create domain`
    what: String,
    /// What it is called, and what else is known of the change.
    name: Option<String>,
    details: Vec<String>,
    app: Option<String>,
    who: String,
    /// How they came in, and from where.
    from: String,
    when: Moment,
}

#[derive(Debug, Serialize)]
struct Events {
    rows: Vec<Row>,
    /// The number with which the next page begins.
    older: Option<String>,
    is_first: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct AppAudit {
    page: Inside,
    app: Head,
    events: Events,
    path: String,
}

#[derive(Debug, Serialize)]
pub(super) struct AccountAudit {
    page: Inside,
    tab: &'static str,
    events: Events,
    path: &'static str,
}

/// `GET /console/apps/{app}/audit`
pub(crate) async fn of_app(
    State(controller): State<Arc<Controller>>,
    by: AppVisit,
    Query(which): Query<Which>,
) -> Result<Response, PageError> {
    let filter = EventFilter { app: Some(by.app.id), ..EventFilter::default() };
    let app = Head::load(&controller, &by, "activity").await?;
    let page = AppAudit {
        page: Inside::new(&format!("Audit log of {}", by.app.name), &by.visit),
        path: format!("{}/audit", crate::view::path(&by.app)),
        app,
        events: Events::load(&controller, &filter, &which).await?.of_one_app(),
    };
    show_page(&by.visit, "app_audit.html", &page)
}

/// `GET /console/account/audit`: of the apps that one may look at, and what one did oneself.
pub(crate) async fn of_account(
    State(controller): State<Arc<Controller>>,
    visit: Visit,
    Query(which): Query<Which>,
) -> Result<Response, PageError> {
    // As the API has it: who keeps the platform sees all.
    let user = &visit.actor.user;
    let filter = EventFilter { visible_to: (!user.operator).then_some(user.id), ..EventFilter::default() };
    let page = AccountAudit {
        page: Inside::new("Audit log", &visit),
        tab: "audit",
        events: Events::load(&controller, &filter, &which).await?,
        path: "/console/account/audit",
    };
    show_page(&visit, "account_audit.html", &page)
}

impl Events {
    async fn load(controller: &Controller, filter: &EventFilter, which: &Which) -> Result<Self, PageError> {
        let first = which.before.map(|number| Edge { value: number.to_string(), exclusive: true });
        let slice = Slice { first, max: PAGE, descending: true, ..Slice::default() };
        let part = controller.store.events(filter, &slice).await?;
        let now = controller.clock.now();
        Ok(Self {
            rows: part.items.iter().map(|event| Row::new(event, now)).collect(),
            older: part.next,
            is_first: which.before.is_none(),
        })
    }
}

impl Events {
    /// Without the name of the app, which the page has already.
    fn of_one_app(mut self) -> Self {
        for row in &mut self.rows {
            row.app = None;
        }
        self
    }
}

impl Row {
    fn new(event: &Event, now: Timestamp) -> Self {
        let who = event.actor_email.as_ref().map_or_else(|| "the platform".to_owned(), ToString::to_string);
        let name = NAMES.into_iter().find_map(|key| Some((key, event.data[key].as_str()?)));
        let fields = event.data.as_object().into_iter().flatten();
        let other = fields.filter(|(key, value)| name.is_none_or(|(name, _)| key.as_str() != name) && !value.is_null());
        Self {
            what: format!("{} {}", event.action.as_str(), event.resource.as_str()),
            name: name.map(|(_, name)| name.to_owned()),
            details: other.map(|(key, value)| format!("{key}: {}", words(value))).collect(),
            app: event.app_name.clone(),
            who,
            from: [event.via.as_deref().map(short), event.address.clone()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" · "),
            when: Moment::new(event.created_at, now),
        }
    }
}

/// `token 3b6e7687`: as much of an id as tells it from others.
fn short(via: &str) -> String {
    match via.split_once(' ') {
        Some((what, id)) => format!("{what} {}", id.get(..8).unwrap_or(id)),
        None => via.to_owned(),
    }
}

/// A value as people read it.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(words).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod samples {
    use super::*;
    use crate::view::samples::{HOSTILE, head, inside, moment};

    fn events(older: Option<&str>) -> Events {
        let hostile = || HOSTILE.to_owned();
        let row = |name: Option<String>| Row {
            what: hostile(),
            details: name.iter().cloned().collect(),
            app: name.clone(),
            name,
            who: hostile(),
            from: hostile(),
            when: moment(),
        };
        let rows = if older.is_some() { vec![row(None), row(Some(hostile()))] } else { vec![] };
        Events { rows, older: older.map(str::to_owned), is_first: older.is_none() }
    }

    impl AppAudit {
        pub(in crate::pages) fn samples() -> [Self; 2] {
            [None, Some(HOSTILE)].map(|older| Self {
                page: inside(),
                app: head("activity"),
                events: events(older),
                path: "/console/apps/sample/audit".to_owned(),
            })
        }
    }

    impl AccountAudit {
        pub(in crate::pages) fn samples() -> [Self; 2] {
            [None, Some(HOSTILE)].map(|older| Self {
                page: inside(),
                tab: "audit",
                events: events(older),
                path: "/console/account/audit",
            })
        }
    }
}
