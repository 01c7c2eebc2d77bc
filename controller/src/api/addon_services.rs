//! What add-ons there are to choose from.

use axum::Json;
use axum::extract::Path;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::catalog::SINCE;
use super::error::ApiError;
use super::range::{Page, Range};
use crate::Actor;
use crate::Error;
use crate::addons::{KINDS, Kind, Plan, find_kind};

/// `GET /addon-services`: what can be had without knowing an address.
pub(super) async fn list(_: Actor, range: Range) -> Page<Value> {
    let run_here = KINDS.iter().filter(|kind| kind.server().is_some());
    range.page(run_here.map(|kind| service_wire(*kind)), "name")
}

/// `GET /addon-services/{service}`
pub(super) async fn info(_: Actor, Path(service): Path<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(service_wire(find_service(&service)?)))
}

/// `GET /addon-services/{service}/plans`
pub(super) async fn plans(_: Actor, Path(service): Path<String>) -> Result<Json<Value>, ApiError> {
    let kind = find_service(&service)?;
    Ok(Json(kind.plans().iter().map(|plan| plan_wire(kind, plan)).collect()))
}

/// `GET /addon-services/{service}/plans/{plan}`, by the plan's name with or without that of the service, or its id.
pub(super) async fn plan(_: Actor, Path((service, plan)): Path<(String, String)>) -> Result<Json<Value>, ApiError> {
    let kind = find_service(&service)?;
    find_plan(kind, &plan).map(Json).ok_or_else(|| Error::NotFound("plan").into())
}

/// `GET /plans/{plan}`
pub(super) async fn any_plan(_: Actor, Path(plan): Path<String>) -> Result<Json<Value>, ApiError> {
    let found =
        KINDS.iter().find_map(|kind| find_plan(*kind, &plan).filter(|it| plan.contains(':') || it["id"] == plan));
    found.map(Json).ok_or_else(|| Error::NotFound("plan").into())
}

fn find_service(reference: &str) -> Result<&'static dyn Kind, ApiError> {
    let by_id = KINDS.iter().copied().find(|kind| id(kind.slug()) == reference);
    by_id.map_or_else(
        || find_kind(reference).map(|(kind, _)| kind).map_err(|_| Error::NotFound("add-on service").into()),
        Ok,
    )
}

fn find_plan(kind: &dyn Kind, reference: &str) -> Option<Value> {
    let is_wanted = |plan: &Value, name: &str| {
        let full = plan["name"].as_str().unwrap_or_default();
        [full, name].contains(&reference) || plan["id"] == reference
    };
    kind.plans()
        .iter()
        .map(|plan| (plan_wire(kind, plan), plan.name))
        .find(|(wire, name)| is_wanted(wire, name))
        .map(|it| it.0)
}

pub(super) fn service_wire(kind: &dyn Kind) -> Value {
    json!({
        "cli_plugin_name": null,
        "created_at": SINCE,
        "human_name": kind.human_name(),
        "id": id(kind.slug()),
        "name": kind.slug(),
        "state": "ga",
        "supported_generations": [{ "id": id("cedar"), "name": "cedar" }],
        "supports_multiple_installations": true,
        "supports_sharing": true,
        "updated_at": SINCE,
    })
}

pub(super) fn plan_wire(kind: &dyn Kind, plan: &Plan) -> Value {
    let name = format!("{}:{}", kind.slug(), plan.name);
    let is_default = kind.plans().first().is_some_and(|first| first.name == plan.name);
    json!({
        "addon_service": { "id": id(kind.slug()), "name": kind.slug() },
        "compliance": null,
        "created_at": SINCE,
        "default": is_default,
        "description": plan.description,
        "human_name": plan.name,
        "id": id(&name),
        "installable_inside_private_network": true,
        "installable_outside_private_network": true,
        "name": name,
        "price": { "cents": 0, "contract": false, "metered": false, "unit": "month" },
        "space_default": false,
        "state": "ga",
        "updated_at": SINCE,
        "visible": true,
    })
}

/// The API wants a UUID where names are enough for us; the same one every time.
fn id(name: &str) -> String {
    let hash = Sha256::digest(format!("addon-service/{name}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
