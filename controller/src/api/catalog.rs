//! What there is to choose from: one region, one stack.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::output::{Id, Time};
use super::range::{Page, Range};
use crate::{Actor, Controller, Error};

/// The one region: this machine.
pub(super) const REGION: &str = "local";
pub(super) const REGION_ID: &str = "0306fec1-1285-4882-9850-07884c6b182c";
pub(super) const STACK_ID: &str = "0b1b5c49-1609-4233-89b4-19e94d1ecaf2";

/// When the catalogue was last changed.
pub(super) const SINCE: &str = "2026-11-21T00:00:00Z";

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
