//! Backups and restores of an app's databases, as `heroku pg:backups` reads them. They are those of `backups.rs`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use model::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::output::{Id, List, Time};
use crate::store::{Addon, App, Transfer, TransferAction, TransferState};
use crate::{Controller, Error};

/// A backup, or a restore of one.
#[derive(Serialize, ToSchema)]
#[schema(as = Transfer)]
pub(super) struct TransferAnswer {
    canceled_at: Option<Time>,
    created_at: Time,
    finished_at: Option<Time>,
    from_name: String,
    /// `pg_dump` for a backup, `gof3r` for a restore: where the data comes from.
    from_type: &'static str,
    from_url: Option<String>,
    logs: Vec<TransferLine>,
    num: u64,
    processed_bytes: u64,
    source_bytes: u64,
    started_at: Time,
    succeeded: bool,
    to_name: String,
    /// `gof3r` for a backup, `pg_restore` for a restore: where the data goes.
    to_type: &'static str,
    /// A backup's file, for whoever has a token.
    to_url: Option<String>,
    updated_at: Time,
    uuid: Id,
    warnings: u32,
}

/// What was said meanwhile.
#[derive(Serialize, ToSchema)]
pub(super) struct TransferLine {
    created_at: Time,
    level: &'static str,
    message: String,
}

/// A URL that gives a backup to whoever has it.
#[derive(Serialize, ToSchema)]
pub(super) struct PublicUrl {
    expires_at: Time,
    url: String,
}

/// `GET /client/v11/apps/{app}/transfers`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<TransferAnswer>, ApiError> {
    let all = all(&controller, &access.app).await?;
    Ok(List(all.iter().map(|(addon, transfer)| answer(&controller, addon, transfer)).collect()))
}

/// `GET /client/v11/apps/{app}/transfers/{transfer}`, by number or id.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<TransferAnswer>, ApiError> {
    let (addon, transfer) = find(&controller, &access.app, &reference).await?;
    Ok(Json(answer(&controller, &addon, &transfer)))
}

/// `DELETE /client/v11/apps/{app}/transfers/{transfer}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<TransferAnswer>, ApiError> {
    let (addon, transfer) = find(&controller, &access.app, &reference).await?;
    controller.delete_backup(&transfer, &access.actor).await?;
    Ok(Json(answer(&controller, &addon, &transfer)))
}

/// `POST /client/v11/apps/{app}/transfers/{transfer}/actions/public-url`
pub(super) async fn public_url(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<PublicUrl>, ApiError> {
    let (_, transfer) = find(&controller, &access.app, &reference).await?;
    let (url, expires_at) = controller.link_backup(&transfer)?;
    Ok(Json(PublicUrl { expires_at: expires_at.into(), url }))
}

/// Those of all databases that were made for an app.
async fn all(controller: &Controller, app: &App) -> Result<Vec<(Addon, Transfer)>, ApiError> {
    let mut all = Vec::new();
    for addon in controller.store.addons().await?.into_iter().filter(|addon| addon.app == app.id) {
        for transfer in controller.store.transfers(addon.id).await? {
            all.push((addon.clone(), transfer));
        }
    }
    Ok(all)
}

/// Each database counts its own, so that a number may mean more than one.
async fn find(controller: &Controller, app: &App, reference: &str) -> Result<(Addon, Transfer), ApiError> {
    let is_meant = |transfer: &Transfer| {
        transfer.number.to_string() == reference || transfer.id.to_string() == reference || transfer.name() == reference
    };
    let mut found = all(controller, app).await?;
    found.retain(|(_, transfer)| is_meant(transfer));
    match (found.pop(), found.pop()) {
        (None, _) => Err(Error::NotFound("transfer").into()),
        (Some(found), None) => Ok(found),
        (Some((one, _)), Some((other, _))) => Err(ApiError::invalid(format!(
            "{} and {} both have a backup {reference}. Say which: `platform pg:backups --help`",
            other.name, one.name
        ))),
    }
}

pub(super) fn answer(controller: &Controller, addon: &Addon, transfer: &Transfer) -> TransferAnswer {
    let is_restore = transfer.action == TransferAction::Restore;
    let backup = |number: u64| format!("b{number:03}");
    let name = addon.name.to_string();
    let (from_name, to_name) = match transfer.action {
        TransferAction::Capture => (name, backup(transfer.number)),
        TransferAction::Upload => ("an upload".to_owned(), backup(transfer.number)),
        TransferAction::Restore => (transfer.source.map(backup).unwrap_or_default(), name),
    };
    let url = |number: u64| {
        format!("{}/addons/{}/backups/{}/content", controller.settings.api_url(), addon.id, backup(number))
    };
    let ended: Timestamp = transfer.finished_at.unwrap_or(transfer.created_at);
    let line = |message: &String| TransferLine { created_at: ended.into(), level: "error", message: message.clone() };
    TransferAnswer {
        canceled_at: None,
        created_at: transfer.created_at.into(),
        finished_at: transfer.finished_at.map(Time::from),
        from_name,
        from_type: if is_restore { "gof3r" } else { "pg_dump" },
        from_url: transfer.source.filter(|_| is_restore).map(url),
        logs: transfer.failure.iter().map(line).collect(),
        num: transfer.number,
        processed_bytes: transfer.bytes,
        source_bytes: transfer.bytes,
        started_at: transfer.created_at.into(),
        succeeded: transfer.state == TransferState::Succeeded,
        to_name,
        to_type: if is_restore { "pg_restore" } else { "gof3r" },
        to_url: (!is_restore).then(|| url(transfer.number)),
        updated_at: ended.into(),
        uuid: Id::of(&transfer.id),
        warnings: 0,
    }
}
