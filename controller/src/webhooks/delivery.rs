//! Telling webhooks what happened.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Method, Request};
use http_body_util::Full;
use model::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::time::timeout;
use url::Url;

use crate::errors::chain;
use crate::store::{
    Attempt, Delivery, DeliveryState, Edge, Event, EventFilter, Slice, StoreError, Webhook, WebhookSecrets,
};
use crate::{Controller, Error};

/// Base64 of the HMAC-SHA256 of the body under the webhook's secret.
const SIGNATURE: HeaderName = HeaderName::from_static("heroku-webhook-hmac-sha256");
/// How long a receiver may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Events that are looked at, and deliveries that are made, at once.
const BATCH: usize = 100;
/// Deliveries that are on their way at once.
const AT_ONCE: u32 = 16;
/// The pause before the second attempt; each one after takes twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);
/// With the pauses, three days.
const ATTEMPTS: u32 = 24;
/// How long the log of deliveries goes back.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// What another controller committed is found after this long at the latest.
const LOOK: Duration = Duration::from_secs(5);

/// Delivers for as long as the process lives.
pub(crate) async fn work(controller: Arc<Controller>) {
    let mut newest = controller.store.newest_event();
    loop {
        let pause = match controller.deliver().await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(error = chain(&error), "Webhooks cannot be told yet");
                LOOK
            }
        };
        tokio::select! {
            _ = newest.changed() => {}
            () = controller.live.deliveries.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Controller {
    /// Makes the deliveries that events ask for and tries all that are due; how long nothing is to do unless something happens.
    pub(crate) async fn deliver(self: &Arc<Self>) -> Result<Duration, Error> {
        let newest = *self.store.newest_event().borrow();
        for webhook in self.store.webhooks_behind(newest).await? {
            self.fan_out(webhook).await?;
        }
        loop {
            let due = self.store.due_deliveries(self.clock.now(), AT_ONCE).await?;
            if due.is_empty() {
                break;
            }
            let attempts = due.into_iter().map(|(delivery, webhook)| {
                let controller = Arc::clone(self);
                tokio::spawn(async move { controller.attempt(&delivery, &webhook).await })
            });
            for attempt in futures::future::join_all(attempts).await {
                attempt.map_err(|source| Error::System { action: "deliver", source: source.into() })??;
            }
        }
        let next = self.store.next_delivery().await?;
        Ok(next.map_or(LOOK, |next| next.since(self.clock.now()).min(LOOK)))
    }

    /// Forgets what was told long ago.
    pub(crate) async fn forget_deliveries(&self) -> Result<(), Error> {
        Ok(self.store.delete_old_deliveries(self.clock.now().before(KEPT)).await?)
    }

    /// Makes the deliveries of one webhook.
    async fn fan_out(&self, mut webhook: Webhook) -> Result<(), StoreError> {
        loop {
            let filter = EventFilter { app: Some(webhook.app), ..EventFilter::default() };
            let first = Some(Edge { value: webhook.sequence.to_string(), exclusive: true });
            // Read before the events: what is committed between the two is found the next time.
            let newest = *self.store.newest_event().borrow();
            let part = self.store.events(&filter, &Slice { first, max: BATCH, ..Slice::default() }).await?;
            let last = part.items.last().map_or(0, |event| event.sequence);
            let reached = if part.next.is_some() { last } else { last.max(newest) };
            let wanted: Vec<Event> =
                part.items.into_iter().filter(|event| webhook.include.contains(&event.resource)).collect();
            self.store.add_deliveries(&webhook, &wanted, reached, self.clock.now()).await?;
            if part.next.is_none() {
                return Ok(());
            }
            webhook.sequence = reached;
        }
    }

    async fn attempt(&self, delivery: &Delivery, webhook: &Webhook) -> Result<(), Error> {
        let sent = timeout(LIMIT, self.send(delivery, webhook)).await;
        let now = self.clock.now();
        let attempt = match sent {
            Ok(Ok(code)) if (200..300).contains(&code) => {
                Attempt { state: DeliveryState::Succeeded, next: None, code: Some(code), error: None }
            }
            Ok(Ok(code)) => failed(delivery, webhook, (Some(code), format!("the receiver answered {code}")), now),
            Ok(Err(reason)) => failed(delivery, webhook, (None, reason), now),
            Err(_) => failed(delivery, webhook, (None, format!("no answer within {} s", LIMIT.as_secs())), now),
        };
        Ok(self.store.note_attempt(delivery.id, &attempt, now).await?)
    }

    /// The status of the receiver's answer, or what was wrong.
    async fn send(&self, delivery: &Delivery, webhook: &Webhook) -> Result<u16, String> {
        let told = async {
            let event = self.store.event_at(delivery.sequence).await?;
            Ok::<_, StoreError>((event, self.store.webhook_secrets(webhook.id).await?))
        };
        let (event, secrets) = told.await.map_err(|error| chain(&error))?;
        let event = event.ok_or("the event is no longer kept")?;
        let url = Url::parse(&webhook.url).map_err(|error| error.to_string())?;
        let body = payload(delivery, webhook, &event, self.clock.now()).to_string();
        let request = sign(body, &secrets).map_err(|error| error.to_string())?;
        let answer = self.outbound.send(&url, request).await.map_err(|error| error.to_string())?;
        Ok(answer.status().as_u16())
    }
}

fn sign(body: String, secrets: &WebhookSecrets) -> Result<Request<Full<Bytes>>, http::Error> {
    // A key of any length is one.
    let signature = Hmac::<Sha256>::new_from_slice(secrets.secret.as_bytes()).map(|mut mac| {
        mac.update(body.as_bytes());
        BASE64.encode(mac.finalize().into_bytes())
    });
    let mut request = Request::builder()
        .method(Method::POST)
        .header(CONTENT_TYPE, "application/json")
        .header(SIGNATURE, signature.unwrap_or_default());
    if let Some(authorization) = &secrets.authorization {
        request = request.header(AUTHORIZATION, HeaderValue::try_from(authorization)?);
    }
    request.body(Full::new(body.into()))
}

/// As Heroku words it.
fn payload(delivery: &Delivery, webhook: &Webhook, event: &Event, now: Timestamp) -> Value {
    let app = json!({ "id": event.app, "name": event.app_name });
    let mut data = event.data.clone();
    data["id"] = json!(event.resource_id);
    data["app"] = app;
    let actor = event.actor.map(|id| json!({ "id": id, "email": event.actor_email }));
    json!({
        "action": event.action.as_str(),
        "actor": actor,
        "created_at": event.created_at.to_rfc3339(),
        "data": data,
        "id": delivery.id,
        "previous_data": {},
        "published_at": now.to_rfc3339(),
        "resource": event.resource.as_str(),
        "sequence": event.sequence,
        "updated_at": event.created_at.to_rfc3339(),
        "version": "application/vnd.heroku+json; version=3",
        "webhook_metadata": {
            "attempt": { "number": delivery.attempts + 1 },
            "delivery": { "id": delivery.id },
            "event": { "id": event.id, "include": format!("api:{}", event.resource) },
            "webhook": { "id": webhook.id },
        },
    })
}

fn failed(delivery: &Delivery, webhook: &Webhook, (code, error): (Option<u16>, String), now: Timestamp) -> Attempt {
    let tried = delivery.attempts + 1;
    let error = Some(error);
    if !webhook.retries || tried >= ATTEMPTS {
        return Attempt { state: DeliveryState::Failed, next: None, code, error };
    }
    let pause = FIRST_PAUSE.saturating_mul(1 << delivery.attempts.min(20)).min(LONGEST_PAUSE);
    Attempt { state: DeliveryState::Retrying, next: Some(now.after(pause)), code, error }
}
