//! What takes the disk. Heroku has no word for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::output::{Accepted, Named};
use crate::Controller;
use crate::disk::{ReleaseDisk, Room};

/// Something that takes room.
#[derive(Serialize, ToSchema)]
#[schema(as = DiskRoom)]
struct RoomAnswer {
    /// `images`, `repository`, `build cache`, …
    name: String,
    bytes: u64,
}

/// What the image of a release takes.
#[derive(Serialize, ToSchema)]
struct ReleaseRoom {
    version: u64,
    /// All its layers.
    bytes: u64,
    /// Those that no other image has: what would be free without it.
    own_bytes: u64,
}

/// What an app takes of the disk.
#[derive(Serialize, ToSchema)]
pub(super) struct AppDisk {
    app: Named,
    /// All together; a layer that several apps have is charged to each of them in equal parts.
    bytes: u64,
    rooms: Vec<RoomAnswer>,
    /// Those whose image is there, the newest first.
    releases: Vec<ReleaseRoom>,
}

/// What the platform takes of its disk, and what is left.
#[derive(Serialize, ToSchema)]
pub(super) struct PlatformDisk {
    /// Of the disk, but for what is root's alone.
    bytes: u64,
    free_bytes: u64,
    /// Files and folders that there can be on the disk; 0 if nothing limits that.
    files: u64,
    free_files: u64,
    /// How full it is, by its bytes or by its files.
    percent: u8,
    /// From so many per cent on build caches give way.
    high_percent: u8,
    /// From so many per cent on nothing is built.
    full_percent: u8,
    rooms: Vec<RoomAnswer>,
}

/// Something that the next rounds of the collection remove.
#[derive(Serialize, ToSchema)]
struct WasteItem {
    /// `layer`, which nothing refers to, or `cache`, which gives way because the disk is nearly full.
    kind: &'static str,
    /// The layer's digest, or the app's id.
    name: String,
    age_seconds: u64,
    bytes: u64,
}

/// What the next rounds of the collection remove, if nothing changes.
#[derive(Serialize, ToSchema)]
pub(super) struct Waste {
    bytes: u64,
    items: Vec<WasteItem>,
}

impl From<Room> for RoomAnswer {
    fn from(Room { name, bytes }: Room) -> Self {
        Self { name, bytes }
    }
}

/// `GET /apps/{app}/disk`
pub(super) async fn of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<AppDisk>, ApiError> {
    let disk = controller.app_disk(&access.app).await?;
    let release = |ReleaseDisk { version, bytes, own_bytes }| ReleaseRoom { version, bytes, own_bytes };
    Ok(Json(AppDisk {
        app: Named::from(&access.app),
        bytes: disk.rooms.iter().map(|room| room.bytes).sum(),
        rooms: disk.rooms.into_iter().map(RoomAnswer::from).collect(),
        releases: disk.releases.into_iter().map(release).collect(),
    }))
}

/// `GET /disk`
pub(super) async fn of_platform(State(controller): State<Arc<Controller>>) -> Result<Json<PlatformDisk>, ApiError> {
    let disk = controller.platform_disk().await?;
    Ok(Json(PlatformDisk {
        bytes: disk.fill.bytes,
        free_bytes: disk.fill.free_bytes,
        files: disk.fill.files,
        free_files: disk.fill.free_files,
        percent: disk.fill.percent(),
        high_percent: disk.high,
        full_percent: disk.full,
        rooms: disk.rooms.into_iter().map(RoomAnswer::from).collect(),
    }))
}

/// `GET /disk/waste`
pub(super) async fn waste(State(controller): State<Arc<Controller>>) -> Result<Json<Waste>, ApiError> {
    let waste = controller.waste().await?;
    let layer = |layer: builder::Garbage| WasteItem {
        kind: "layer",
        name: layer.layer.to_string(),
        age_seconds: layer.age.as_secs(),
        bytes: layer.bytes,
    };
    let cache = |(cache, bytes): (builder::KeptCache, u64)| WasteItem {
        kind: "cache",
        name: cache.app.to_string(),
        age_seconds: cache.age.as_secs(),
        bytes,
    };
    let items: Vec<WasteItem> =
        waste.layers.into_iter().map(layer).chain(waste.caches.into_iter().map(cache)).collect();
    Ok(Json(Waste { bytes: items.iter().map(|item| item.bytes).sum(), items }))
}

/// `POST /disk/actions/collect`: a round begins now.
pub(super) async fn collect(State(controller): State<Arc<Controller>>) -> Result<Accepted, ApiError> {
    controller.live.litter.notify_one();
    Ok(Accepted {})
}
