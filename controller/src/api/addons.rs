use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use model::Role;
use serde_json::{Value, json};

use super::addon_services::{plan_wire, service_wire};
use super::attachments;
use super::auth::{Access, Need};
use super::describe::{Description, Input};
use super::error::ApiError;
use super::fields::Fields;
use super::range::{Page, Range};
use crate::addons::{AddonRequest, ClientRequest, failure, find_kind};
use crate::store::{Addon, AddonState};
use crate::{Actor, Controller, Error};

/// An add-on that the path names, and who works on it.
pub(super) struct AddonAccess {
    pub(super) actor: Actor,
    pub(super) addon: Addon,
}

impl FromRequestParts<Arc<Controller>> for AddonAccess {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> Result<Self, ApiError> {
        let actor = Actor::from_request_parts(parts, controller).await?;
        let Need(need) = Need::from_request_parts(parts, controller).await?;
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, controller).await;
        let path = path.map_err(|_| Error::NotFound("add-on"))?;
        let app = match path.get("app") {
            Some(app) => Some(controller.find_app(&actor, app, Role::View).await?),
            None => None,
        };
        let reference = path.get("addon").ok_or(Error::NotFound("add-on"))?;
        let addon = controller.find_addon(&actor, (reference, app.as_ref()), need).await?;
        Ok(Self { actor, addon })
    }
}

/// Which parts of an add-on are wanted whole: `Accept-Expansion: addon_service,plan`.
pub(super) struct Expansion {
    service: bool,
    plan: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Expansion {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self {
            service: lists(&parts.headers, "accept-expansion", "addon_service"),
            plan: lists(&parts.headers, "accept-expansion", "plan"),
        })
    }
}

impl Input for AddonAccess {
    fn describe(description: &mut Description<'_>) {
        description.errors(&[401, 403, 404]);
    }
}

impl Input for Expansion {
    fn describe(description: &mut Description<'_>) {
        description.header("Accept-Expansion", "What is wanted whole: `addon_service`, `plan`.");
    }
}

/// Whether a header that is a list has this word in it.
pub(super) fn lists(headers: &HeaderMap, header: &str, word: &str) -> bool {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|listed| listed.trim() == word)
}

/// `GET /addons`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    expansion: Expansion,
    range: Range,
) -> Result<Page<Value>, ApiError> {
    let addons = controller.store.addons_of(actor.user.id).await?;
    Ok(range.page(wires(&controller, &addons, &expansion).await?, "name"))
}

/// `GET /apps/{app}/addons`: those that were made for the app, and those that it uses.
pub(super) async fn list_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
    expansion: Expansion,
    range: Range,
) -> Result<Page<Value>, ApiError> {
    let attachments = controller.store.attachments_of_app(access.app.id).await?;
    let mut addons = controller.store.addons_of(access.actor.user.id).await?;
    addons.retain(|addon| addon.app == access.app.id);
    for attachment in attachments.iter().filter(|attachment| attachment.addon_app != access.app.id) {
        if !addons.iter().any(|addon| addon.id == attachment.addon) {
            addons.extend(controller.store.addon(attachment.addon).await?);
        }
    }
    Ok(range.page(wires(&controller, &addons, &expansion).await?, "name"))
}

/// `POST /apps/{app}/addons`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    expansion: Expansion,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let plan = fields.reference("plan")?.ok_or_else(|| ApiError::invalid("plan is missing"))?;
    let request = AddonRequest {
        plan,
        name: fields.text("name")?,
        attachment: fields.object("attachment")?.text("name")?,
        config: fields.texts("config")?.into_iter().collect(),
    };
    let addon = controller.create_addon(&access.app, &access.actor, request).await?;
    Ok((StatusCode::CREATED, Json(wire(&controller, &addon, &expansion).await?)))
}

/// `GET /addons/{addon}`, `GET /apps/{app}/addons/{addon}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    expansion: Expansion,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(wire(&controller, &access.addon, &expansion).await?))
}

/// `PATCH /apps/{app}/addons/{addon}`: the plan it has is the only one it can have.
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    expansion: Expansion,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    if let Some(plan) = fields.reference("plan")? {
        let (kind, plan) = find_kind(&plan)?;
        if kind.slug() != access.addon.kind || plan.name != access.addon.plan {
            return Err(ApiError::invalid("The plan of an add-on cannot be changed; create another and move the data"));
        }
    }
    Ok(Json(wire(&controller, &access.addon, &expansion).await?))
}

/// `DELETE /apps/{app}/addons/{addon}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let force = fields.flag("force")?.unwrap_or_default();
    let mut gone = wire(&controller, &access.addon, &Expansion { service: false, plan: false }).await?;
    controller.destroy_addon(&access.addon, &access.actor, force).await?;
    gone["state"] = "deprovisioned".into();
    Ok(Json(gone))
}

/// `POST /actions/addons/resolve`: what a name means, in an app or everywhere.
pub(super) async fn resolve(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    expansion: Expansion,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let app = match fields.reference("app")? {
        Some(app) => Some(controller.find_app(&actor, &app, Role::View).await?),
        None => None,
    };
    let reference = fields.required_text("addon")?;
    let found = controller.find_addons(&actor, &reference, app.as_ref()).await?;
    if found.is_empty() {
        return Err(Error::NotFound("add-on").into());
    }
    Ok(Json(wires(&controller, &found, &expansion).await?.into()))
}

/// `GET /addons/{addon}/config`: what an attached app gets.
pub(super) async fn config(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
) -> Result<Json<Value>, ApiError> {
    let attachments = controller.store.attachments_of_addon(access.addon.id).await?;
    let Some(attachment) = attachments.first() else { return Ok(Json(json!([]))) };
    let vars = controller.attachment_vars(attachment, &access.addon).await?;
    Ok(Json(vars.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()))
}

/// `POST /addons/{addon}/actions/restart`; Heroku has no word for it.
pub(super) async fn restart(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    controller.restart_addon(&access.addon, &access.actor).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

/// `POST /addons/{addon}/sessions`: the service's own client. Heroku's is on the user's machine and comes in over the internet.
pub(super) async fn open_session(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let request = ClientRequest {
        args: fields.list("args")?,
        env: fields.texts("env")?,
        no_tty: fields.flag("force_no_tty")?.unwrap_or_default(),
    };
    let url = controller.addon_session(&access.addon, &access.actor, request).await?;
    Ok((StatusCode::CREATED, Json(json!({ "attach_url": url }))))
}

async fn wires(controller: &Controller, addons: &[Addon], expansion: &Expansion) -> Result<Vec<Value>, ApiError> {
    let mut wires = Vec::with_capacity(addons.len());
    for addon in addons {
        wires.push(wire(controller, addon, expansion).await?);
    }
    Ok(wires)
}

async fn wire(controller: &Controller, addon: &Addon, expansion: &Expansion) -> Result<Value, ApiError> {
    let (kind, plan) = find_kind(&format!("{}:{}", addon.kind, addon.plan))?;
    let attachments = controller.store.attachments_of_addon(addon.id).await?;
    let own = attachments.iter().filter(|attachment| attachment.app == addon.app);
    let config_vars: Vec<String> = own.map(attachments::config_var).collect();
    let (full_service, full_plan) = (service_wire(kind), plan_wire(kind, plan));
    let short = |full: &Value| json!({ "id": full["id"], "name": full["name"] });
    let message = match addon.state {
        AddonState::Provisioning => "It is being made. The app restarts once it can be used.".to_owned(),
        AddonState::Provisioned => String::new(),
        AddonState::Failed | AddonState::Removing => failure(addon).to_owned(),
    };
    Ok(json!({
        "actions": [],
        "addon_service": if expansion.service { full_service } else { short(&full_service) },
        "app": { "id": addon.app, "name": addon.app_name },
        "billed_price": full_plan["price"],
        "billing_entity": { "id": addon.app, "name": addon.app_name, "type": "app" },
        "config_vars": config_vars,
        "created_at": addon.created_at.to_rfc3339(),
        "id": addon.id,
        "name": addon.name,
        "plan": if expansion.plan { full_plan } else { short(&full_plan) },
        "provider_id": addon.id,
        "provision_message": message,
        "state": addon.state.to_string(),
        "updated_at": addon.updated_at.to_rfc3339(),
        "web_url": null,
    }))
}
