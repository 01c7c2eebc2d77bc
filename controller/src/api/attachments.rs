use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use model::Role;
use serde_json::{Value, json};

use super::addons::{AddonAccess, lists};
use super::auth::{Access, Need};
use super::describe::{Description, Input};
use super::error::ApiError;
use super::fields::Fields;
use super::range::{Page, Range};
use crate::store::{App, Attachment};
use crate::{Actor, Controller, Error};

/// An attachment that the path names, by its id or, of an app, its name.
pub(super) struct AttachmentAccess {
    actor: Actor,
    attachment: Attachment,
}

impl FromRequestParts<Arc<Controller>> for AttachmentAccess {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> Result<Self, ApiError> {
        let actor = Actor::from_request_parts(parts, controller).await?;
        let Need(need) = Need::from_request_parts(parts, controller).await?;
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, controller).await;
        let path = path.map_err(|_| Error::NotFound("add-on attachment"))?;
        let app = match path.get("app") {
            Some(app) => Some(controller.find_app(&actor, app, need).await?),
            None => None,
        };
        let reference = path.get("attachment").map(String::as_str).unwrap_or_default();
        let attachment = find(controller, &actor, (reference, app.as_ref())).await?;
        if app.is_none() {
            controller.find_app(&actor, &attachment.app.to_string(), need).await?;
        }
        Ok(Self { actor, attachment })
    }
}

/// What is wanted beside the usual: `Accept-Inclusion: addon:plan,config_vars`.
pub(super) struct Inclusion {
    plan: bool,
    config_vars: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Inclusion {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let has = |word: &str| has(&parts.headers, word);
        Ok(Self { plan: has("addon:plan"), config_vars: has("config_vars") })
    }
}

impl Input for AttachmentAccess {
    fn describe(description: &mut Description<'_>) {
        description.errors(&[401, 403, 404]);
    }
}

impl Input for Inclusion {
    fn describe(description: &mut Description<'_>) {
        description.header("Accept-Inclusion", "What is wanted beside the usual: `addon:plan`, `config_vars`.");
    }
}

fn has(headers: &HeaderMap, word: &str) -> bool {
    lists(headers, "accept-inclusion", word)
}

/// `GET /addon-attachments`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    inclusion: Inclusion,
    range: Range,
) -> Result<Page<Value>, ApiError> {
    let all = controller.store.attachments_of(actor.user.id).await?;
    page(&controller, &all, (&inclusion, &range)).await
}

/// `GET /apps/{app}/addon-attachments`
pub(super) async fn list_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
    inclusion: Inclusion,
    range: Range,
) -> Result<Page<Value>, ApiError> {
    let all = controller.store.attachments_of_app(access.app.id).await?;
    page(&controller, &all, (&inclusion, &range)).await
}

/// `GET /addons/{addon}/addon-attachments`
pub(super) async fn list_of_addon(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    inclusion: Inclusion,
    range: Range,
) -> Result<Page<Value>, ApiError> {
    let all = controller.store.attachments_of_addon(access.addon.id).await?;
    page(&controller, &all, (&inclusion, &range)).await
}

/// `POST /addon-attachments`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let missing = |name: &str| ApiError::invalid(format!("{name} is missing"));
    let app = fields.reference("app")?.ok_or_else(|| missing("app"))?;
    let app = controller.find_app(&actor, &app, Role::Operate).await?;
    let addon = fields.reference("addon")?.ok_or_else(|| missing("addon"))?;
    let addon = controller.find_addon(&actor, (&addon, Some(&app)), Role::Operate).await?;
    let name = fields.text("name")?;
    let made = controller.attach_addon(&addon, (&app, &actor), name.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(short_wire(&made))))
}

/// `GET /addon-attachments/{attachment}`, `GET /apps/{app}/addon-attachments/{attachment}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: AttachmentAccess,
    inclusion: Inclusion,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(wire(&controller, &access.attachment, &inclusion).await?))
}

/// `DELETE /addon-attachments/{attachment}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: AttachmentAccess,
) -> Result<Json<Value>, ApiError> {
    controller.detach_addon(&access.attachment, &access.actor).await?;
    Ok(Json(short_wire(&access.attachment)))
}

/// `POST /actions/addon-attachments/resolve`
pub(super) async fn resolve(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    inclusion: Inclusion,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let app = match fields.reference("app")? {
        Some(app) => Some(controller.find_app(&actor, &app, Role::View).await?),
        None => None,
    };
    let reference = fields.required_text("addon_attachment")?;
    let attachment = find(&controller, &actor, (&reference, app.as_ref())).await?;
    Ok(Json(json!([wire(&controller, &attachment, &inclusion).await?])))
}

/// The first config var of an attachment.
pub(super) fn config_var(attachment: &Attachment) -> String {
    format!("{}_URL", attachment.name)
}

/// By id; of an app also by name, with or without `_URL`, and by the add-on's name.
async fn find(
    controller: &Controller,
    actor: &Actor,
    (reference, app): (&str, Option<&App>),
) -> Result<Attachment, ApiError> {
    let mut all = controller.store.attachments_of(actor.user.id).await?;
    all.retain(|attachment| app.is_none_or(|app| attachment.app == app.id));
    let is_wanted = |attachment: &&Attachment| {
        let is_named = attachment.name.as_str() == reference || config_var(attachment) == reference;
        let is_of = attachment.addon_name.as_str() == reference || attachment.addon.to_string() == reference;
        attachment.id.to_string() == reference || (app.is_some() && (is_named || is_of))
    };
    Ok(all.iter().find(is_wanted).cloned().ok_or(Error::NotFound("add-on attachment"))?)
}

async fn page(
    controller: &Controller,
    attachments: &[Attachment],
    (inclusion, range): (&Inclusion, &Range),
) -> Result<Page<Value>, ApiError> {
    let mut wires = Vec::with_capacity(attachments.len());
    for attachment in attachments {
        wires.push(wire(controller, attachment, inclusion).await?);
    }
    Ok(range.page(wires, "name"))
}

async fn wire(controller: &Controller, attachment: &Attachment, inclusion: &Inclusion) -> Result<Value, ApiError> {
    let mut wire = short_wire(attachment);
    if inclusion.config_vars {
        wire["config_vars"] = json!([config_var(attachment)]);
    }
    if inclusion.plan
        && let Some(addon) = controller.store.addon(attachment.addon).await?
    {
        wire["addon"]["plan"] = json!({ "name": format!("{}:{}", addon.kind, addon.plan) });
    }
    Ok(wire)
}

fn short_wire(attachment: &Attachment) -> Value {
    json!({
        "addon": {
            "app": { "id": attachment.addon_app, "name": attachment.addon_app_name },
            "id": attachment.addon,
            "name": attachment.addon_name,
        },
        "app": { "id": attachment.app, "name": attachment.app_name },
        "created_at": attachment.created_at.to_rfc3339(),
        "id": attachment.id,
        "log_input_url": null,
        "name": attachment.name,
        "namespace": null,
        "updated_at": attachment.created_at.to_rfc3339(),
        "web_url": null,
    })
}
