//! What apps keep on disk, and snapshots of it. Heroku has no word for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body as Bytes;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Access, MayBeHeld};
use super::backups::Content;
use super::describe::{Description, Input};
use super::error::ApiError;
use super::input::{Body, Count, Reference, Text};
use super::output::{Created, Id, List, Named, Time};
use crate::store::{App, DataChoice, Snapshot, Volume};
use crate::volumes::VolumeRequest;
use crate::{Actor, Controller, Error};

/// A volume to make, or one that was kept and that the app is to have.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateVolume {
    /// Id or name of a volume that is kept; what is missing otherwise is as it was there.
    from: Option<Reference>,
    /// Lowercase letters, digits and dashes.
    name: Option<Text>,
    /// Where its dynos see it, as `/data`.
    path: Option<Text>,
    /// How much it holds, rounded up to whole MiB; 1 GiB if missing.
    size_bytes: Option<Count>,
    /// The process type whose dyno mounts it; `web` if missing.
    r#type: Option<Text>,
}

/// What is to become of a volume.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateVolume {
    /// How much it is to hold: as much as now, or more.
    size_bytes: Count,
}

/// What an app keeps on disk, or kept.
#[derive(Serialize, ToSchema)]
#[schema(as = Volume)]
pub(super) struct VolumeAnswer {
    /// Null: no app has it, it is kept.
    app: Option<Named>,
    created_at: Time,
    id: Id,
    /// What its app was called, if it is kept.
    kept_from: Option<String>,
    name: String,
    /// Where its dynos see it.
    path: String,
    /// How much it holds.
    size_bytes: u64,
    /// How many there are.
    snapshots: u64,
    /// The process type whose dyno mounts it.
    r#type: String,
    updated_at: Time,
    /// What it takes of the platform's disk; null if nobody knows just now.
    used_bytes: Option<u64>,
}

/// What was in a volume at a moment.
#[derive(Serialize, ToSchema)]
#[schema(as = VolumeSnapshot)]
pub(super) struct SnapshotAnswer {
    created_at: Time,
    id: Id,
    /// As `s3`.
    name: String,
    number: u64,
    /// Why there is one; null if somebody asked for it.
    reason: Option<String>,
    /// What it takes of the platform's disk.
    used_bytes: u64,
    /// Who made it, by their address then.
    user: String,
    volume: Named,
}

/// What becomes of data when what has it goes.
pub(super) struct Fate {
    pub(super) data: Option<DataChoice>,
    /// Snapshots go as well.
    snapshots: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Fate {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let value = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        let data = value("data").map(|text| text.parse::<DataChoice>());
        let data = data.transpose().map_err(|rule| ApiError::invalid(format!("data: {rule}")))?;
        let snapshots = match value("snapshots").as_deref() {
            None => false,
            Some("delete") => true,
            Some(_) => return Err(ApiError::invalid("snapshots can only be delete")),
        };
        Ok(Self { data, snapshots })
    }
}

impl Input for Fate {
    fn describe(description: &mut Description<'_>) {
        description
            .query("data", "`keep` or `delete`: what becomes of what is on volumes. Needed where there are any.");
        description.query("snapshots", "`delete`: the snapshots of a volume are deleted with it.");
        description.errors(&[422]);
    }
}

/// `GET /apps/{app}/volumes`: by name.
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<VolumeAnswer>, ApiError> {
    let volumes = controller.store.volumes(access.app.id).await.map_err(Error::from)?;
    Ok(List(answers(&controller, Some(&access.app), &volumes).await))
}

/// `POST /apps/{app}/volumes`: makes one, or takes one that was kept, and a release that mounts it.
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    _: MayBeHeld,
    Body(wish): Body<CreateVolume>,
) -> Result<Created<VolumeAnswer>, ApiError> {
    let request = VolumeRequest {
        name: wish.name.map(|it| it.0),
        process_type: wish.r#type.map(|it| it.0),
        path: wish.path.map(|it| it.0),
        size_bytes: wish.size_bytes.map(|it| it.0),
        from: wish.from.map(|it| it.0),
    };
    let volume = controller.create_volume(&access.app, &access.actor, &request).await?;
    Ok(Created(one(&controller, Some(&access.app), &volume).await))
}

/// `GET /apps/{app}/volumes/{volume}`: by its name or id.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, volume)): Path<(String, String)>,
) -> Result<Json<VolumeAnswer>, ApiError> {
    let volume = controller.find_volume(&access.app, &volume).await?;
    Ok(Json(one(&controller, Some(&access.app), &volume).await))
}

/// `PATCH /apps/{app}/volumes/{volume}`: lets it hold more, at once or by a release.
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    _: MayBeHeld,
    Path((_, volume)): Path<(String, String)>,
    Body(wish): Body<UpdateVolume>,
) -> Result<Json<VolumeAnswer>, ApiError> {
    let volume = controller.find_volume(&access.app, &volume).await?;
    let volume = controller.resize_volume((&access.app, &access.actor), &volume, wish.size_bytes.0).await?;
    Ok(Json(one(&controller, Some(&access.app), &volume).await))
}

/// `DELETE /apps/{app}/volumes/{volume}`: takes it away from the app, and says what becomes of its data.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    _: MayBeHeld,
    Path((_, volume)): Path<(String, String)>,
    fate: Fate,
) -> Result<Json<VolumeAnswer>, ApiError> {
    let volume = controller.find_volume(&access.app, &volume).await?;
    let gone = one(&controller, Some(&access.app), &volume).await;
    controller.remove_volume((&access.app, &access.actor), &volume, (fate.data, fate.snapshots)).await?;
    Ok(Json(gone))
}

/// `GET /apps/{app}/volumes/{volume}/content`: all that is in it, as a tar archive.
pub(super) async fn content(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, volume)): Path<(String, String)>,
) -> Result<Content, ApiError> {
    let volume = controller.find_volume(&access.app, &volume).await?;
    let files = controller.disk_files(volume.disk).await?;
    Ok(Content::new(&format!("{}.tar", volume.name), Bytes::from_stream(files)))
}

/// `GET /apps/{app}/volumes/{volume}/snapshots`: the oldest first.
pub(super) async fn snapshots(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, volume)): Path<(String, String)>,
) -> Result<List<SnapshotAnswer>, ApiError> {
    let volume = controller.find_volume(&access.app, &volume).await?;
    let all = controller.store.snapshots(volume.id).await.map_err(Error::from)?;
    Ok(List(all.iter().map(|snapshot| snapshot_answer(&volume, snapshot)).collect()))
}

/// `POST /apps/{app}/volumes/{volume}/snapshots`: keeps what is in it now.
pub(super) async fn create_snapshot(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, volume)): Path<(String, String)>,
) -> Result<Created<SnapshotAnswer>, ApiError> {
    let volume = controller.find_volume(&access.app, &volume).await?;
    let snapshot = controller.take_snapshot((&access.app, &access.actor), &volume).await?;
    Ok(Created(snapshot_answer(&volume, &snapshot)))
}

/// `DELETE /apps/{app}/volumes/{volume}/snapshots/{snapshot}`: by its name, number or id.
pub(super) async fn delete_snapshot(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, volume, snapshot)): Path<(String, String, String)>,
) -> Result<Json<SnapshotAnswer>, ApiError> {
    let volume = controller.find_volume(&access.app, &volume).await?;
    let snapshot = controller.find_snapshot(&volume, &snapshot).await?;
    controller.remove_snapshot((&access.app, &access.actor), &volume, &snapshot).await?;
    Ok(Json(snapshot_answer(&volume, &snapshot)))
}

/// `GET /apps/{app}/volumes/{volume}/snapshots/{snapshot}/content`: all that is in it, as a tar archive.
pub(super) async fn snapshot_content(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, volume, snapshot)): Path<(String, String, String)>,
) -> Result<Content, ApiError> {
    let volume = controller.find_volume(&access.app, &volume).await?;
    let snapshot = controller.find_snapshot(&volume, &snapshot).await?;
    let files = controller.disk_files(snapshot.disk).await?;
    Ok(Content::new(&format!("{}-{}.tar", volume.name, snapshot.name()), Bytes::from_stream(files)))
}

/// `POST /apps/{app}/volumes/{volume}/snapshots/{snapshot}/actions/restore`: puts it in the place of what is in the volume, by a release.
/// What is there until then becomes a snapshot.
pub(super) async fn restore(
    State(controller): State<Arc<Controller>>,
    access: Access,
    _: MayBeHeld,
    Path((_, volume, snapshot)): Path<(String, String, String)>,
) -> Result<Created<VolumeAnswer>, ApiError> {
    let volume = controller.find_volume(&access.app, &volume).await?;
    let snapshot = controller.find_snapshot(&volume, &snapshot).await?;
    let volume = controller.restore_snapshot((&access.app, &access.actor), &volume, &snapshot).await?;
    Ok(Created(one(&controller, Some(&access.app), &volume).await))
}

/// `GET /volumes`: those that are kept for whoever asks, and for teams of which they are an admin.
pub(super) async fn kept(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
) -> Result<List<VolumeAnswer>, ApiError> {
    let volumes = controller.store.kept_volumes(actor.user.id).await.map_err(Error::from)?;
    Ok(List(answers(&controller, None, &volumes).await))
}

/// `DELETE /volumes/{volume}`: deletes one that is kept.
pub(super) async fn delete_kept(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(volume): Path<String>,
    fate: Fate,
) -> Result<Json<VolumeAnswer>, ApiError> {
    let volume = controller.find_kept_volume(&actor, &volume).await?;
    let gone = one(&controller, None, &volume).await;
    controller.remove_kept_volume(&actor, &volume, fate.snapshots).await?;
    Ok(Json(gone))
}

async fn one(controller: &Controller, app: Option<&App>, volume: &Volume) -> VolumeAnswer {
    let used = controller.disks_used().await.get(&volume.disk.to_string()).copied();
    answer(app, volume, used)
}

async fn answers(controller: &Controller, app: Option<&App>, volumes: &[Volume]) -> Vec<VolumeAnswer> {
    let used = if volumes.is_empty() { BTreeMap::new() } else { controller.disks_used().await };
    volumes.iter().map(|volume| answer(app, volume, used.get(&volume.disk.to_string()).copied())).collect()
}

fn answer(app: Option<&App>, volume: &Volume, used_bytes: Option<u64>) -> VolumeAnswer {
    VolumeAnswer {
        app: app.map(Named::from),
        created_at: volume.created_at.into(),
        id: Id::of(&volume.id),
        kept_from: volume.app_name.clone(),
        name: volume.name.to_string(),
        path: volume.path.to_string(),
        size_bytes: volume.size_bytes,
        snapshots: volume.snapshots,
        r#type: volume.process_type.to_string(),
        updated_at: volume.updated_at.into(),
        used_bytes,
    }
}

fn snapshot_answer(volume: &Volume, snapshot: &Snapshot) -> SnapshotAnswer {
    SnapshotAnswer {
        created_at: snapshot.created_at.into(),
        id: Id::of(&snapshot.disk),
        name: snapshot.name(),
        number: snapshot.number,
        reason: snapshot.reason.clone(),
        used_bytes: snapshot.bytes,
        user: snapshot.user.clone(),
        volume: Named::new(&volume.id, &volume.name),
    }
}
