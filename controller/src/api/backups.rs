//! Backups of add-ons. Heroku has them in an API of its own; these live beside ours, under the same conventions.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio_util::io::ReaderStream;
use utoipa::ToSchema;

use super::addons::AddonAccess;
use super::describe::{Description, Output};
use super::error::ApiError;
use super::output::{Created, Id, Identified, Time};
use super::range::{Page, Range};
use crate::Controller;
use crate::store::Transfer;

const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A backup of an add-on, or a restore.
#[derive(Serialize, ToSchema)]
#[schema(as = Backup)]
pub(super) struct BackupAnswer {
    /// `capture`, `upload` or `restore`.
    action: String,
    addon: Identified,
    /// Its size, once it succeeded.
    bytes: u64,
    created_at: Time,
    /// Why it failed.
    failure: Option<String>,
    finished_at: Option<Time>,
    id: Id,
    /// As `b001`, or `r002` of a restore.
    name: String,
    number: u64,
    /// What a restore takes.
    source: Option<String>,
    state: String,
}

/// A file: a backup, or an image.
pub(super) struct Content(Response);

impl Content {
    /// As the file that a program saves it in.
    pub(super) fn new(file: &str, body: Body) -> Self {
        let headers = [
            (CONTENT_TYPE, BYTES.to_str().unwrap_or_default().to_owned()),
            (CONTENT_DISPOSITION, format!("attachment; filename=\"{file}\"")),
        ];
        Self((headers, body).into_response())
    }
}

impl IntoResponse for Content {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Output for Content {
    fn describe(description: &mut Description<'_>) {
        description.stream("The bytes themselves.", "application/octet-stream");
    }
}

/// `GET /addons/{addon}/backups`: backups and restores.
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    range: Range,
) -> Result<Page<BackupAnswer>, ApiError> {
    let transfers = controller.store.transfers(access.addon.id).await?;
    Ok(range.page(transfers.iter().map(answer), "number"))
}

/// `POST /addons/{addon}/backups`: makes one of what is there or, with a body of `application/octet-stream`, takes that.
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    headers: HeaderMap,
    request: Request,
) -> Result<Created<BackupAnswer>, ApiError> {
    let transfer = if headers.get(CONTENT_TYPE) == Some(&BYTES) {
        controller.upload_backup((&access.addon, &access.actor), request.into_body().into_data_stream()).await?
    } else {
        controller.capture_backup(&access.addon, &access.actor).await?
    };
    Ok(Created(answer(&transfer)))
}

/// `GET /addons/{addon}/backups/{backup}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Json<BackupAnswer>, ApiError> {
    Ok(Json(answer(&find(&controller, &access, &path).await?)))
}

/// `DELETE /addons/{addon}/backups/{backup}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Json<BackupAnswer>, ApiError> {
    let transfer = find(&controller, &access, &path).await?;
    controller.delete_backup(&transfer, &access.actor).await?;
    Ok(Json(answer(&transfer)))
}

/// `GET /addons/{addon}/backups/{backup}/content`: the dump itself.
pub(super) async fn content(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Content, ApiError> {
    let transfer = find(&controller, &access, &path).await?;
    let (file, bytes) = controller.open_backup(&transfer).await?;
    let headers = [
        (CONTENT_TYPE, BYTES.to_str().unwrap_or_default().to_owned()),
        (CONTENT_LENGTH, bytes.to_string()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{}-{}.dump\"", access.addon.name, transfer.name())),
    ];
    Ok(Content((headers, Body::from_stream(ReaderStream::new(file))).into_response()))
}

/// `POST /addons/{addon}/backups/{backup}/actions/restore`
pub(super) async fn restore(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Created<BackupAnswer>, ApiError> {
    let source = find(&controller, &access, &path).await?;
    let transfer = controller.restore_backup((&access.addon, &access.actor), &source).await?;
    Ok(Created(answer(&transfer)))
}

async fn find(
    controller: &Controller,
    access: &AddonAccess,
    path: &BTreeMap<String, String>,
) -> Result<Transfer, ApiError> {
    let name = path.get("backup").map(String::as_str).unwrap_or_default();
    Ok(controller.find_transfer(access.addon.id, name).await?)
}

fn answer(transfer: &Transfer) -> BackupAnswer {
    BackupAnswer {
        action: transfer.action.to_string(),
        addon: Identified::of(&transfer.addon),
        bytes: transfer.bytes,
        created_at: transfer.created_at.into(),
        failure: transfer.failure.clone(),
        finished_at: transfer.finished_at.map(Time::from),
        id: Id::of(&transfer.id),
        name: transfer.name(),
        number: transfer.number,
        source: transfer.source.map(|number| format!("b{number:03}")),
        state: transfer.state.to_string(),
    }
}
