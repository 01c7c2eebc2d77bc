use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::auth::Access;
use super::error::ApiError;
use super::fields::Fields;
use super::range::{Page, Range};
use crate::domains::AppDomain;
use crate::store::App;
use crate::{Controller, Error, Settings};

/// `GET /apps/{app}/domains`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page, ApiError> {
    let mut items = Vec::new();
    for domain in controller.domains(&access.app).await? {
        items.push(wire(&controller.settings, &access.app, &domain)?);
    }
    Ok(range.page(items, "hostname"))
}

/// `POST /apps/{app}/domains`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let hostname = fields.required_text("hostname")?;
    let domain = controller.add_domain(&access.app, &access.session.user, &hostname).await?;
    Ok((StatusCode::CREATED, Json(wire(&controller.settings, &access.app, &domain)?)))
}

/// `GET /apps/{app}/domains/{domain}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let domain = controller.find_domain(&access.app, &reference).await?;
    Ok(Json(wire(&controller.settings, &access.app, &domain)?))
}

/// `DELETE /apps/{app}/domains/{domain}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let domain = controller.find_domain(&access.app, &reference).await?;
    controller.remove_domain(&access.app, &access.session.user, &domain).await?;
    Ok(Json(wire(&controller.settings, &access.app, &domain)?))
}

fn wire(settings: &Settings, app: &App, domain: &AppDomain) -> Result<Value, Error> {
    // A custom name works once its owner makes it an alias of the default one.
    let target = settings.default_host(&app.name).map_err(|rule| Error::Invalid(rule.to_string()))?;
    Ok(json!({
        "acm_status": null,
        "acm_status_reason": null,
        "app": { "id": app.id, "name": app.name },
        "cname": domain.custom.then_some(target),
        "created_at": domain.created_at.to_rfc3339(),
        "hostname": domain.hostname,
        "id": domain.id,
        "kind": if domain.custom { "custom" } else { "heroku" },
        "sni_endpoint": null,
        "status": "none",
        "updated_at": domain.updated_at.to_rfc3339(),
    }))
}
