//! What there is to choose from: sizes, one region, one stack.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::output::{Id, Named, Time};
use super::range::{Page, Range};
use crate::formation::dyno_sizes;
use crate::{Actor, Controller, Error};

/// The one region: this machine.
pub(super) const REGION: &str = "local";
pub(super) const REGION_ID: &str = "0306fec1-1285-4882-9850-07884c6b182c";
pub(super) const STACK_ID: &str = "0b1b5c49-1609-4233-89b4-19e94d1ecaf2";

const SIZE_IDS: &[(&str, &str)] = &[
    ("Eco", "954e2a36-c163-48e8-a8dc-5202c79d297b"),
    ("Basic", "18a397eb-58c7-40bc-bd93-857da3ba5376"),
    ("Standard-1X", "6b087435-2f10-4395-bcc0-76e82feb411f"),
    ("Standard-2X", "519aa6d3-4a03-4acd-9745-41c9a8053297"),
    ("Performance-M", "43896360-c0ce-4eed-a1ae-34758c86f654"),
    ("Performance-L", "860f1d35-b936-40f1-bf01-7d0a3b509421"),
    ("Performance-L-RAM", "0c4ab7d2-2b3d-4f0f-8a55-6a0b8a2f3c71"),
    ("Performance-XL", "5b1d7c1e-93f6-4c0a-9d0e-7e2f4b8a6d12"),
    ("Performance-2XL", "e7a3f5b4-4d28-4b96-8c31-1f9d0c7e5a83"),
];

/// When the catalogue was last changed.
pub(super) const SINCE: &str = "2026-11-21T00:00:00Z";

/// A size of dyno.
#[derive(Serialize, ToSchema)]
pub(super) struct DynoSize {
    architecture: &'static str,
    can_autoscale: bool,
    /// How many CPUs it shares.
    compute: u32,
    cost: Option<u32>,
    /// Its part of the CPUs when they are short, against that of others; 100 is usual.
    cpu_weight: u32,
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
    name: String,
    /// Files and connections that one process may have open.
    open_files: u64,
    precise_dyno_units: u64,
    private_space_only: bool,
    /// Processes and threads that a dyno may have.
    processes: u32,
    product_dyno_tier: String,
}

/// Where apps run.
#[derive(Serialize, ToSchema)]
pub(super) struct Region {
    country: &'static str,
    #[schema(value_type = Time)]
    created_at: &'static str,
    description: &'static str,
    id: Id,
    locale: &'static str,
    name: &'static str,
    private_capable: bool,
    provider: Provider,
    #[schema(value_type = Time)]
    updated_at: &'static str,
}

/// Whose machines those are.
#[derive(Serialize, ToSchema)]
pub(super) struct Provider {
    name: &'static str,
    region: &'static str,
}

/// What apps are built and run on.
#[derive(Serialize, ToSchema)]
pub(super) struct Stack {
    #[schema(value_type = Time)]
    created_at: &'static str,
    default: bool,
    id: Id,
    name: String,
    state: &'static str,
    #[schema(value_type = Time)]
    updated_at: &'static str,
}

/// `GET /dyno-sizes`
pub(super) async fn dyno_sizes_list(_: Actor, range: Range) -> Page<DynoSize> {
    range.page(dyno_sizes().iter().map(size_answer), "memory")
}

/// `GET /dyno-sizes/{size}`, by name in any case, or id.
pub(super) async fn dyno_size(_: Actor, Path(reference): Path<String>) -> Result<Json<DynoSize>, ApiError> {
    let is_meant = |size: &&model::DynoSize| {
        size.name.eq_ignore_ascii_case(&reference) || size_id(&size.name) == Some(reference.as_str())
    };
    Ok(Json(size_answer(dyno_sizes().iter().find(is_meant).ok_or(Error::NotFound("dyno size"))?)))
}

/// `GET /regions`
pub(super) async fn regions(_: Actor, range: Range) -> Page<Region> {
    range.page([own_region()], "name")
}

/// `GET /regions/{region}`, by name or id.
pub(super) async fn region(_: Actor, Path(reference): Path<String>) -> Result<Json<Region>, ApiError> {
    check_region(&reference).map_err(|_| Error::NotFound("region"))?;
    Ok(Json(own_region()))
}

/// `GET /stacks`
pub(super) async fn stacks(State(controller): State<Arc<Controller>>, _: Actor, range: Range) -> Page<Stack> {
    range.page([own_stack(&controller)], "name")
}

/// `GET /stacks/{stack}`, by name or id.
pub(super) async fn stack(
    State(controller): State<Arc<Controller>>,
    _: Actor,
    Path(reference): Path<String>,
) -> Result<Json<Stack>, ApiError> {
    if reference != STACK_ID && reference != controller.settings.stack {
        return Err(Error::NotFound("stack").into());
    }
    Ok(Json(own_stack(&controller)))
}

fn size_answer(size: &model::DynoSize) -> DynoSize {
    let standard = 512 << 20;
    DynoSize {
        architecture: std::env::consts::ARCH,
        can_autoscale: false,
        compute: size.cpu_millis / 1000,
        cost: None,
        cpu_weight: size.cpu_weight,
        dedicated: false,
        disk_bytes: size.disk_bytes,
        files: size.files,
        generation: Named::new(STACK_ID, "cedar"),
        id: Id::of(size_id(&size.name).unwrap_or_default()),
        infrastructure_tier: "production",
        // GiB in tenths, as Heroku writes 0.5 and 2.5; f64 holds these exactly enough.
        memory: f64::from(u32::try_from(size.memory_bytes >> 20).unwrap_or(u32::MAX)) / 1024.0,
        open_files: size.open_files,
        precise_dyno_units: size.memory_bytes.div_ceil(standard),
        private_space_only: false,
        processes: size.pids,
        product_dyno_tier: size.name.split('-').next().unwrap_or_default().to_lowercase(),
        name: size.name.clone(),
    }
}

fn own_region() -> Region {
    Region {
        country: "here",
        created_at: SINCE,
        description: "This machine",
        id: Id::of(REGION_ID),
        locale: "here",
        name: REGION,
        private_capable: false,
        // The API's schema knows no other provider's regions, and generated clients insist on it.
        provider: Provider { name: "platform", region: "us-east-1" },
        updated_at: SINCE,
    }
}

fn own_stack(controller: &Controller) -> Stack {
    Stack {
        created_at: SINCE,
        default: true,
        id: Id::of(STACK_ID),
        name: controller.settings.stack.clone(),
        state: "public",
        updated_at: SINCE,
    }
}

/// Heroku's common regions mean the one that there is, since clients send them unasked.
pub(super) fn check_region(region: &str) -> Result<(), ApiError> {
    if [REGION, REGION_ID, "us", "eu"].contains(&region) {
        return Ok(());
    }
    Err(ApiError::invalid(format!("region {region:?} does not exist; available is {REGION}")))
}

/// The id of a dyno size of this canonical name.
pub(super) fn size_id(name: &str) -> Option<&'static str> {
    SIZE_IDS.iter().find(|(known, _)| *known == name).map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_an_id() {
        for size in dyno_sizes() {
            assert!(size_id(&size.name).is_some(), "{}", size.name);
        }
        let ids: std::collections::BTreeSet<_> = SIZE_IDS.iter().map(|(_, id)| id).collect();
        assert_eq!(ids.len(), dyno_sizes().len(), "none is another's");
    }
}
