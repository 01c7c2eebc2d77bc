use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::auth::Access;
use super::catalog::size_id;
use super::error::ApiError;
use super::fields::Fields;
use super::range::{Page, Range};
use crate::formation::{ProcessFormation, ScaleRequest};
use crate::store::App;
use crate::{Controller, Error};

/// `GET /apps/{app}/formation`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page, ApiError> {
    let formation = controller.formation(&access.app).await?;
    Ok(range.page(formation.iter().map(|process| wire(&access.app, process)).collect(), "type"))
}

/// `GET /apps/{app}/formation/{type}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let process = find(&controller, &access.app, &reference).await?;
    Ok(Json(wire(&access.app, &process)))
}

/// `PATCH /apps/{app}/formation`: all of `updates` or none.
pub(super) async fn batch_update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let updates = fields.objects("updates")?;
    let requests: Vec<_> =
        updates.iter().map(|update| request(update.required_text("type")?, update)).collect::<Result<_, ApiError>>()?;
    let changed = controller.scale(&access.app, &access.session.user, &requests).await?;
    Ok(Json(changed.iter().map(|process| wire(&access.app, process)).collect()))
}

/// `PATCH /apps/{app}/formation/{type}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let process = find(&controller, &access.app, &reference).await?;
    let request = request(process.row.process_type.to_string(), &fields)?;
    let changed = controller.scale(&access.app, &access.session.user, &[request]).await?;
    let changed = changed.first().ok_or(Error::NotFound("process type"))?;
    Ok(Json(wire(&access.app, changed)))
}

fn request(process_type: String, fields: &Fields) -> Result<ScaleRequest, ApiError> {
    let size = fields.reference("dyno_size")?;
    let size = if size.is_some() { size } else { fields.reference("size")? };
    Ok(ScaleRequest { process_type, quantity: fields.text("quantity")?, size })
}

async fn find(controller: &Controller, app: &App, reference: &str) -> Result<ProcessFormation, Error> {
    let named = |process: &ProcessFormation| {
        process.row.process_type.as_str() == reference || process.row.id.to_string() == reference
    };
    controller.formation(app).await?.into_iter().find(named).ok_or(Error::NotFound("process type"))
}

fn wire(app: &App, process: &ProcessFormation) -> Value {
    let row = &process.row;
    json!({
        "app": { "id": app.id, "name": app.name },
        "command": process.command,
        "created_at": row.created_at.to_rfc3339(),
        "dyno_size": { "id": size_id(&row.size), "name": row.size },
        "id": row.id,
        "quantity": row.quantity,
        "size": row.size,
        "type": row.process_type,
        "updated_at": row.updated_at.to_rfc3339(),
    })
}
