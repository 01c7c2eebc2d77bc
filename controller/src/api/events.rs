//! Everything that was changed: who, what, when, from where. As a list, or live as it happens. Heroku has no word for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query, State};
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::http::request::Parts;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use model::{Role, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

use super::auth::Access;
use super::describe::{Description, Input, Output};
use super::error::ApiError;
use super::output::{Id, Named, Time, UserAnswer};
use super::range::{Page, Range};
use crate::store::{Action, Edge, Event, EventFilter, Resource, Slice, UserRef};
use crate::{Actor, Controller, Error};

/// What another controller committed is found after this long at the latest.
const LOOK: Duration = Duration::from_secs(5);
/// A stream ends after this long; whoever comes back, as browsers do, is asked for the token again.
const STREAM: Duration = Duration::from_secs(15 * 60);
/// Events that are read at once.
const BATCH: usize = 100;

/// Something that was changed.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventAnswer {
    /// `create`, `update` or `destroy`.
    action: &'static str,
    /// Who did it; null if the platform did it by itself.
    actor: Option<UserAnswer>,
    /// The IP address that the request came from.
    address: Option<String>,
    /// The app that it belongs to, by the name that it had.
    app: Option<Named>,
    created_at: Time,
    /// What changed. Never a secret: of config vars only the names.
    data: Value,
    id: Id,
    /// The `Request-Id` of the answer that whoever did it got.
    request_id: Option<String>,
    /// What kind of thing was changed: `app`, `release`, `domain` …
    resource: &'static str,
    /// Its id.
    resource_id: String,
    /// Its place among all events: from 1, in the order in which they were committed.
    sequence: u64,
    /// How whoever did it came in: `token <id>`, `session`, `machine` …
    via: Option<String>,
}

/// Which events are wanted.
#[derive(Debug, Default)]
pub(super) struct Wish {
    filter: EventFilter,
    /// The name or the id of an app.
    app: Option<String>,
    /// They are to come live, as they happen.
    live: bool,
    /// Of live ones: the sequence number after which they begin; none is from now on.
    after: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct Words {
    resource: Option<String>,
    actor: Option<String>,
    action: Option<String>,
    app: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

/// A list, or a stream of server-sent events.
pub(super) enum Events {
    Page(Page<EventAnswer>),
    Live(ReceiverStream<Result<Message, Infallible>>),
}

impl<S: Send + Sync> FromRequestParts<S> for Wish {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(words) = Query::<Words>::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::bad_request(format!("The query is not valid: {error}.")))?;
        let unknown = |_| {
            let known: Vec<_> = Resource::ALL.iter().map(|resource| resource.as_str()).collect();
            ApiError::invalid(format!("resource must be one of {}", known.join(", ")))
        };
        let resource = words.resource.as_deref().map(|word| word.parse().map_err(unknown)).transpose()?;
        let action = words.action.as_deref().map(|word| word.parse().map_err(|_| no_action())).transpose()?;
        let filter = EventFilter {
            resource,
            action,
            actor: words.actor.map(|email| email.to_lowercase()),
            since: moment("since", words.since.as_deref())?,
            until: moment("until", words.until.as_deref())?,
            ..EventFilter::default()
        };
        let text =
            |headers: &HeaderMap, name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let live = text(&parts.headers, ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/event-stream"));
        let after = text(&parts.headers, "last-event-id").and_then(|last| last.parse().ok());
        Ok(Self { filter, app: words.app, live, after })
    }
}

fn no_action() -> ApiError {
    let known: Vec<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
    ApiError::invalid(format!("action must be one of {}", known.join(", ")))
}

fn moment(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    let wrong = || ApiError::invalid(format!("{name} must be a time like 2026-11-21T16:00:00Z"));
    text.map(|text| Timestamp::parse(text).ok_or_else(wrong)).transpose()
}

impl Input for Wish {
    fn describe(description: &mut Description<'_>) {
        description.query("resource", "Only those of one kind of thing: `app`, `release` …");
        description.query("actor", "Only those of the user with this e-mail address.");
        description.query("action", "Only those that did this: `create`, `update` or `destroy`.");
        description.query("app", "Of `/events`: only those of the app with this name or id.");
        description.query("since", "Only those from this moment on, as RFC 3339 writes it.");
        description.query("until", "Only those before this moment.");
        description.header("Last-Event-ID", "Of a stream: the sequence number after which it begins.");
        description.errors(&[400, 422]);
    }
}

impl Output for Events {
    fn describe(description: &mut Description<'_>) {
        Page::<EventAnswer>::describe(description);
        let live = json!({ "schema": { "type": "string" } });
        description.responses["200"]["content"]["text/event-stream"] = live;
    }
}

impl IntoResponse for Events {
    fn into_response(self) -> Response {
        match self {
            Self::Page(page) => page.into_response(),
            Self::Live(stream) => Sse::new(stream).keep_alive(KeepAlive::default()).into_response(),
        }
    }
}

/// `GET /events`: of the apps that one may look at, and what one did oneself; for who keeps the platform, all.
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    wish: Wish,
    range: Range,
) -> Result<Events, ApiError> {
    let mut filter = EventFilter { visible_to: (!actor.user.operator).then_some(actor.user.id), ..wish.filter.clone() };
    if let Some(name) = &wish.app {
        match controller.find_app(&actor, name, Role::View).await {
            Ok(app) => filter.app = Some(app.id),
            // What was done to an app that is gone is still known.
            Err(Error::NotFound(_)) => filter.app_name = Some(name.clone()),
            Err(error) => return Err(error.into()),
        }
    }
    answer(controller, filter, wish, range).await
}

/// `GET /apps/{app}/events`
pub(super) async fn list_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
    wish: Wish,
    range: Range,
) -> Result<Events, ApiError> {
    answer(controller, EventFilter { app: Some(access.app.id), ..wish.filter.clone() }, wish, range).await
}

async fn answer(
    controller: Arc<Controller>,
    filter: EventFilter,
    wish: Wish,
    range: Range,
) -> Result<Events, ApiError> {
    if !wish.live {
        let part = controller.store.events(&filter, &range.0).await?;
        return Ok(Events::Page(range.part(part.map(wire))));
    }
    let after = wish.after.unwrap_or_else(|| *controller.store.newest_event().borrow());
    let (sender, messages) = mpsc::channel(16);
    tokio::spawn(async move { follow(&controller, &filter, after, &sender).await });
    Ok(Events::Live(ReceiverStream::new(messages)))
}

/// Sends what is new until the client is gone, or the stream is old.
async fn follow(
    controller: &Controller,
    filter: &EventFilter,
    mut after: u64,
    client: &mpsc::Sender<Result<Message, Infallible>>,
) {
    let mut newest = controller.store.newest_event();
    let end = Instant::now() + STREAM;
    while Instant::now() < end {
        let first = Some(Edge { value: after.to_string(), exclusive: true });
        let part = controller.store.events(filter, &Slice { first, max: BATCH, ..Slice::default() }).await;
        let part = match part {
            Ok(part) => part,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "Events cannot be read");
                return;
            }
        };
        for event in part.items {
            after = event.sequence;
            let message = Message::default().id(after.to_string()).event(event.resource.as_str());
            // What answers are made of can always be written.
            let message = message.json_data(wire(event)).unwrap_or_default();
            if client.send(Ok(message)).await.is_err() {
                return;
            }
        }
        if part.next.is_none() {
            tokio::select! {
                () = client.closed() => return,
                _ = timeout(LOOK, newest.changed()) => {}
            }
        }
    }
}

/// An event on the wire.
pub(super) fn wire(event: Event) -> EventAnswer {
    let user = event.actor.zip(event.actor_email).map(|(id, email)| UserRef { id, email });
    EventAnswer {
        action: event.action.as_str(),
        actor: user.as_ref().map(UserAnswer::from),
        address: event.address,
        app: event.app.map(|app| Named::new(&app, &event.app_name.unwrap_or_default())),
        created_at: event.created_at.into(),
        data: event.data,
        id: Id::of(&event.id),
        request_id: event.request,
        resource: event.resource.as_str(),
        resource_id: event.resource_id,
        sequence: event.sequence,
        via: event.via,
    }
}
