use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::auth::Access;
use super::describe::{Description, Output};
use super::error::ApiError;
use super::input::{Body, Text};
use super::output::{Accepted, Id, Named, Time, UserAnswer};
use super::range::{Page, Range};
use crate::store::{App, Delivery, Event, EventFilter, UserRef, Webhook};
use crate::webhooks::WebhookRequest;
use crate::{Controller, Error};

const SECRET: HeaderName = HeaderName::from_static("heroku-webhook-secret");

/// An address that is to be told of what happens to an app. What is left out stays.
#[derive(Deserialize, ToSchema)]
pub(super) struct SaveWebhook {
    /// The `Authorization` header of every delivery.
    authorization: Option<Text>,
    /// Of what: `api:release`, `api:build` …
    include: Option<Vec<Text>>,
    /// `notify` for one attempt, `sync` to try again until it is delivered.
    level: Option<Text>,
    /// Signs every delivery; the platform makes one if there is none.
    secret: Option<Text>,
    /// Where.
    url: Option<Text>,
}

/// An address that is told of what happens to an app.
#[derive(Serialize, ToSchema)]
#[schema(as = AppWebhook)]
pub(super) struct WebhookAnswer {
    app: Named,
    created_at: Time,
    id: Id,
    include: Vec<String>,
    level: &'static str,
    updated_at: Time,
    url: String,
}

/// A webhook and, in a header, its secret.
pub(super) struct Secretive(StatusCode, WebhookAnswer, String);

/// What a webhook was told, or is to be told.
#[derive(Serialize, ToSchema)]
#[schema(as = AppWebhookDelivery)]
pub(super) struct DeliveryAnswer {
    created_at: Time,
    event: DeliveredEvent,
    id: Id,
    last_attempt: Option<AttemptAnswer>,
    next_attempt_at: Option<Time>,
    num_attempts: u32,
    /// `pending`, `retrying`, `succeeded` or `failed`.
    status: &'static str,
    updated_at: Time,
    webhook: DeliveredWebhook,
}

/// What a delivery tells of.
#[derive(Serialize, ToSchema)]
pub(super) struct DeliveredEvent {
    id: Id,
    /// `api:release` …
    include: String,
}

/// Whom a delivery tells.
#[derive(Serialize, ToSchema)]
pub(super) struct DeliveredWebhook {
    id: Id,
    level: &'static str,
}

/// The last attempt to deliver.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookAttempt)]
pub(super) struct AttemptAnswer {
    /// The status of the answer, if there was one.
    code: Option<u16>,
    created_at: Time,
    /// What was wrong.
    error_class: Option<String>,
    id: Id,
    /// `succeeded` or `failed`.
    status: &'static str,
    updated_at: Time,
}

/// Something that webhooks are told.
#[derive(Serialize, ToSchema)]
#[schema(as = AppWebhookEvent)]
pub(super) struct WebhookEventAnswer {
    created_at: Time,
    id: Id,
    /// `api:release` …
    include: String,
    payload: PayloadAnswer,
    updated_at: Time,
}

/// What of it is told.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookPayload)]
pub(super) struct PayloadAnswer {
    action: &'static str,
    actor: Option<UserAnswer>,
    data: Value,
    previous_data: Value,
    resource: &'static str,
    version: &'static str,
}

impl IntoResponse for Secretive {
    fn into_response(self) -> Response {
        let Self(status, webhook, secret) = self;
        let mut response = (status, Json(webhook)).into_response();
        if let Ok(secret) = HeaderValue::try_from(secret) {
            response.headers_mut().insert(SECRET, secret);
        }
        response
    }
}

impl Output for Secretive {
    fn describe(description: &mut Description<'_>) {
        let schema = description.written::<WebhookAnswer>();
        let header = json!({ "description": "What signs every delivery.", "schema": { "type": "string" } });
        for status in [200, 201] {
            let answer = description.answer(status, "It is so.", &schema);
            answer["headers"] = json!({ "Heroku-Webhook-Secret": header });
        }
    }
}

/// `GET /apps/{app}/webhooks`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<WebhookAnswer>, ApiError> {
    let webhooks = controller.store.webhooks(access.app.id).await?;
    Ok(range.page(webhooks.iter().map(|webhook| answer(&access.app, webhook)), "created_at"))
}

/// `POST /apps/{app}/webhooks`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<SaveWebhook>,
) -> Result<Secretive, ApiError> {
    let (webhook, secret) = controller.create_webhook(&access.app, &access.actor, wish.into()).await?;
    Ok(Secretive(StatusCode::CREATED, answer(&access.app, &webhook), secret))
}

/// `GET /apps/{app}/webhooks/{webhook}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<WebhookAnswer>, ApiError> {
    Ok(Json(answer(&access.app, &controller.find_webhook(&access.app, &id).await?)))
}

/// `PATCH /apps/{app}/webhooks/{webhook}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
    Body(wish): Body<SaveWebhook>,
) -> Result<Secretive, ApiError> {
    let webhook = controller.find_webhook(&access.app, &id).await?;
    let (webhook, secret) = controller.update_webhook(webhook, &access.actor, wish.into()).await?;
    Ok(Secretive(StatusCode::OK, answer(&access.app, &webhook), secret))
}

/// `DELETE /apps/{app}/webhooks/{webhook}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<WebhookAnswer>, ApiError> {
    let webhook = controller.find_webhook(&access.app, &id).await?;
    controller.delete_webhook(&webhook, &access.actor).await?;
    Ok(Json(answer(&access.app, &webhook)))
}

/// `GET /apps/{app}/webhook-deliveries`: those of the last 30 days.
pub(super) async fn deliveries(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<DeliveryAnswer>, ApiError> {
    let webhooks = controller.store.webhooks(access.app.id).await?;
    let mut answers = Vec::new();
    for delivery in controller.deliveries(&access.app).await? {
        answers.push(delivery_answer(&controller, &webhooks, &delivery).await?);
    }
    Ok(range.page(answers, "created_at"))
}

/// `GET /apps/{app}/webhook-deliveries/{delivery}`
pub(super) async fn delivery(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<DeliveryAnswer>, ApiError> {
    let delivery = controller.find_delivery(&access.app, &id).await?;
    let webhooks = controller.store.webhooks(access.app.id).await?;
    Ok(Json(delivery_answer(&controller, &webhooks, &delivery).await?))
}

/// `POST /apps/{app}/webhook-deliveries/{delivery}/actions/redeliver`; Heroku has no word for it.
pub(super) async fn redeliver(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
) -> Result<Accepted, ApiError> {
    let delivery = controller.find_delivery(&access.app, &id).await?;
    controller.redeliver((&access.app, &access.actor), &delivery).await?;
    Ok(Accepted {})
}

/// `GET /apps/{app}/webhook-events`
pub(super) async fn events(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<WebhookEventAnswer>, ApiError> {
    let filter = EventFilter { app: Some(access.app.id), ..EventFilter::default() };
    let part = controller.store.events(&filter, &range.0).await?;
    Ok(range.part(part.map(event_answer)))
}

/// `GET /apps/{app}/webhook-events/{event}`
pub(super) async fn event(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<WebhookEventAnswer>, ApiError> {
    let event = controller.store.event(&id).await?.filter(|event| event.app == Some(access.app.id));
    Ok(Json(event_answer(event.ok_or(Error::NotFound("webhook event"))?)))
}

impl From<SaveWebhook> for WebhookRequest {
    fn from(wish: SaveWebhook) -> Self {
        let text = |text: Option<Text>| text.map(|text| text.0);
        Self {
            url: text(wish.url),
            include: wish.include.map(|include| include.into_iter().map(|word| word.0).collect()),
            level: text(wish.level),
            secret: text(wish.secret),
            authorization: text(wish.authorization),
        }
    }
}

fn answer(app: &App, webhook: &Webhook) -> WebhookAnswer {
    WebhookAnswer {
        app: Named::from(app),
        created_at: webhook.created_at.into(),
        id: Id::of(&webhook.id),
        include: webhook.include.iter().map(|resource| format!("api:{resource}")).collect(),
        level: webhook.level(),
        updated_at: webhook.updated_at.into(),
        url: webhook.url.clone(),
    }
}

async fn delivery_answer(
    controller: &Controller,
    webhooks: &[Webhook],
    delivery: &Delivery,
) -> Result<DeliveryAnswer, ApiError> {
    let webhook = webhooks.iter().find(|webhook| webhook.id == delivery.webhook).ok_or(Error::NotFound("webhook"))?;
    let event = controller.store.event_at(delivery.sequence).await?;
    let event = event.ok_or(Error::NotFound("webhook event"))?;
    let attempt = delivery.attempted_at.map(|at| AttemptAnswer {
        code: delivery.code,
        created_at: at.into(),
        error_class: delivery.error.clone(),
        id: Id::of(&delivery.id),
        status: if delivery.error.is_some() { "failed" } else { "succeeded" },
        updated_at: at.into(),
    });
    Ok(DeliveryAnswer {
        created_at: delivery.created_at.into(),
        event: DeliveredEvent { id: Id::of(&event.id), include: format!("api:{}", event.resource) },
        id: Id::of(&delivery.id),
        last_attempt: attempt,
        next_attempt_at: delivery.next_attempt_at.map(Time::from),
        num_attempts: delivery.attempts,
        status: delivery.state.as_str(),
        updated_at: delivery.updated_at.into(),
        webhook: DeliveredWebhook { id: Id::of(&webhook.id), level: webhook.level() },
    })
}

fn event_answer(event: Event) -> WebhookEventAnswer {
    let user = event.actor.zip(event.actor_email).map(|(id, email)| UserRef { id, email });
    WebhookEventAnswer {
        created_at: event.created_at.into(),
        id: Id::of(&event.id),
        include: format!("api:{}", event.resource),
        payload: PayloadAnswer {
            action: event.action.as_str(),
            actor: user.as_ref().map(UserAnswer::from),
            data: event.data,
            previous_data: json!({}),
            resource: event.resource.as_str(),
            version: "application/vnd.heroku+json; version=3",
        },
        updated_at: event.created_at.into(),
    }
}
