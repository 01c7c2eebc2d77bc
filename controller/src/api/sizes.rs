//! The sizes of dynos. Making some of one's own is a word that Heroku does not have.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::catalog::STACK_ID;
use super::error::ApiError;
use super::input::{Body, Count, Flag, Text};
use super::output::{Id, List, Named};
use super::range::{Page, Range};
use crate::sizes::{SizeRequest, Sizes};
use crate::{Actor, Controller, Error};

/// A size to make, or what of one is to become different. What is missing stays as it is, or is that of Standard-1X.
#[derive(Deserialize, ToSchema)]
pub(super) struct SetDynoSize {
    /// Thousandths of a CPU.
    cpu_millis: Option<Count>,
    /// Its part of the CPUs when they are short, against that of others: 100 is usual.
    cpu_weight: Option<Count>,
    /// Whether its memory is kept free for it alone. That of others is a ceiling.
    dedicated: Option<Flag>,
    /// Bytes that a dyno may write to its own disk.
    disk_bytes: Option<Count>,
    /// Files and folders that may be on that disk.
    files: Option<Count>,
    /// Bytes of memory.
    memory_bytes: Option<Count>,
    /// Lowercase letters, digits and hyphens. It never changes.
    name: Option<Text>,
    /// Files and connections that one process may have open.
    open_files: Option<Count>,
    /// Processes and threads.
    processes: Option<Count>,
}

/// A size of dyno.
#[derive(Serialize, ToSchema)]
#[schema(as = DynoSize)]
pub(super) struct SizeAnswer {
    architecture: &'static str,
    can_autoscale: bool,
    /// How many CPUs it shares.
    compute: u32,
    cost: Option<u32>,
    /// Thousandths of a CPU that it may use at most.
    cpu_millis: u32,
    /// Its part of the CPUs when they are short, against that of others; 100 is usual.
    cpu_weight: u32,
    /// Whether its memory is kept free for it alone.
    dedicated: bool,
    /// Bytes that a dyno may write to its own disk, which goes with it.
    disk_bytes: u64,
    /// Files and folders that may be on that disk.
    files: u64,
    generation: Named,
    id: Id,
    infrastructure_tier: &'static str,
    /// In GiB.
    memory: f64,
    memory_bytes: u64,
    name: String,
    /// Files and connections that one process may have open.
    open_files: u64,
    precise_dyno_units: u64,
    private_space_only: bool,
    /// Processes and threads that a dyno may have.
    processes: u32,
    product_dyno_tier: String,
}

/// `GET /dyno-sizes`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    _: Actor,
    range: Range,
) -> Result<Page<SizeAnswer>, ApiError> {
    Ok(range.page(controller.sizes().await?.all().iter().map(answer), "memory"))
}

/// `GET /apps/{app}/available-dyno-sizes`: every app can have every one.
pub(super) async fn available(
    State(controller): State<Arc<Controller>>,
    _: Access,
) -> Result<List<SizeAnswer>, ApiError> {
    Ok(List(controller.sizes().await?.all().iter().map(answer).collect()))
}

/// `GET /dyno-sizes/{size}`, by name in any case, or id.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    _: Actor,
    Path(reference): Path<String>,
) -> Result<Json<SizeAnswer>, ApiError> {
    let sizes = controller.sizes().await?;
    let by_id = || sizes.all().iter().find(|size| size.id == reference);
    Ok(Json(answer(sizes.find(&reference).or_else(by_id).ok_or(Error::NotFound("dyno size"))?)))
}

/// `POST /dyno-sizes`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<SetDynoSize>,
) -> Result<Json<SizeAnswer>, ApiError> {
    Ok(Json(answer(&controller.add_size(&actor, &request(wish)).await?)))
}

/// `PATCH /dyno-sizes/{size}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
    Body(wish): Body<SetDynoSize>,
) -> Result<Json<SizeAnswer>, ApiError> {
    Ok(Json(answer(&controller.update_size(&actor, &reference, &request(wish)).await?)))
}

/// `DELETE /dyno-sizes/{size}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
) -> Result<Json<SizeAnswer>, ApiError> {
    Ok(Json(answer(&controller.remove_size(&actor, &reference).await?)))
}

/// A size as other answers refer to it.
pub(super) fn named(sizes: &Sizes, name: &str) -> Named {
    Named::new(sizes.find(name).map(|size| size.id.as_str()).unwrap_or_default(), name)
}

fn request(wish: SetDynoSize) -> SizeRequest {
    let number = |count: Option<Count>| count.map(|Count(count)| count);
    SizeRequest {
        name: wish.name.map(|Text(name)| name),
        memory_bytes: number(wish.memory_bytes),
        dedicated: wish.dedicated.map(|Flag(flag)| flag),
        cpu_millis: number(wish.cpu_millis),
        cpu_weight: number(wish.cpu_weight),
        processes: number(wish.processes),
        disk_bytes: number(wish.disk_bytes),
        files: number(wish.files),
        open_files: number(wish.open_files),
    }
}

fn answer(size: &model::DynoSize) -> SizeAnswer {
    let standard = 512 << 20;
    SizeAnswer {
        architecture: std::env::consts::ARCH,
        can_autoscale: false,
        compute: size.cpu_millis.div_ceil(1000),
        cost: None,
        cpu_millis: size.cpu_millis,
        cpu_weight: size.cpu_weight,
        dedicated: size.dedicated,
        disk_bytes: size.disk_bytes,
        files: size.files,
        generation: Named::new(STACK_ID, "cedar"),
        id: Id::of(&size.id),
        infrastructure_tier: "production",
        // GiB in tenths, as Heroku writes 0.5 and 2.5; f64 holds these exactly enough.
        memory: f64::from(u32::try_from(size.memory_bytes >> 20).unwrap_or(u32::MAX)) / 1024.0,
        memory_bytes: size.memory_bytes,
        name: size.name.clone(),
        open_files: size.open_files,
        precise_dyno_units: size.memory_bytes.div_ceil(standard),
        private_space_only: false,
        processes: size.pids,
        product_dyno_tier: size.name.split('-').next().unwrap_or_default().to_lowercase(),
    }
}
