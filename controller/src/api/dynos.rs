use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::auth::Access;
use super::error::ApiError;
use super::fields::Fields;
use super::range::{Page, Range};
use crate::dynos::{Dyno, RunRequest};
use crate::store::App;
use crate::{Controller, Error};

/// `GET /apps/{app}/dynos`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page, ApiError> {
    let dynos = controller.dynos(&access.app).await?;
    Ok(range.page(dynos.iter().map(|dyno| wire(&access.app, dyno, None)).collect(), "name"))
}

/// `GET /apps/{app}/dynos/{dyno}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Json<Value>, ApiError> {
    let wanted = path.get("dyno").map(String::as_str).unwrap_or_default();
    let is_wanted = |dyno: &Dyno| dyno.name.to_string() == wanted || id(dyno) == wanted;
    let dyno = controller.dynos(&access.app).await?.into_iter().find(is_wanted);
    Ok(Json(wire(&access.app, &dyno.ok_or(Error::NotFound("dyno"))?, None)))
}

/// `POST /apps/{app}/dynos`: `run`.
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let request = RunRequest {
        command: fields.required_text("command")?,
        size: fields.text("size")?,
        env: fields.texts("env")?,
        attach: fields.flag("attach")?.unwrap_or_default(),
        no_tty: fields.flag("force_no_tty")?.unwrap_or_default(),
    };
    let started = controller.run(&access.app, &access.session.user, request).await?;
    Ok((StatusCode::CREATED, Json(wire(&access.app, &started.dyno, started.attach_url.as_deref()))))
}

/// `DELETE /apps/{app}/dynos`: restarts all of them.
pub(super) async fn restart_all(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    controller.restart_dynos(&access.app, &access.session.user, None).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

/// `DELETE /apps/{app}/dynos/{dyno}` and `DELETE /apps/{app}/formations/{dyno}`: restarts one dyno, or a process type's.
pub(super) async fn restart(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let which = path.get("dyno").map(String::as_str);
    controller.restart_dynos(&access.app, &access.session.user, which).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

/// The API wants a UUID where engines have ids of their own; the same one every time.
fn id(dyno: &Dyno) -> String {
    let hash = Sha256::digest(dyno.id.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

fn wire(app: &App, dyno: &Dyno, attach_url: Option<&str>) -> Value {
    json!({
        "app": { "id": app.id, "name": app.name },
        "attach_url": attach_url,
        "command": dyno.command,
        "created_at": dyno.since.to_rfc3339(),
        "id": id(dyno),
        "name": dyno.name,
        "release": { "id": dyno.release.id, "version": dyno.release.version },
        "size": dyno.size,
        "state": dyno.state,
        "type": dyno.name.process_type,
        "updated_at": dyno.since.to_rfc3339(),
    })
}
