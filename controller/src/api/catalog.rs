//! What there is to choose from: sizes, one region, one stack.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::error::ApiError;
use super::range::{Page, Range};
use crate::formation::dyno_sizes;
use crate::{Actor, Controller};

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
];

/// When the catalogue was last changed.
pub(super) const SINCE: &str = "2026-11-21T00:00:00Z";

/// `GET /dyno-sizes`
pub(super) async fn dyno_sizes_list(_: Actor, range: Range) -> Page<Value> {
    let wire = |size: &model::DynoSize| {
        let standard = 512 << 20;
        json!({
            "architecture": std::env::consts::ARCH,
            "can_autoscale": false,
            "compute": size.cpu_millis / 1000,
            "cost": null,
            "dedicated": false,
            "generation": { "id": STACK_ID, "name": "cedar" },
            "id": size_id(&size.name),
            "infrastructure_tier": "production",
            // GiB in tenths, as Heroku writes 0.5 and 2.5; f64 holds these exactly enough.
            "memory": f64::from(u32::try_from(size.memory_bytes >> 20).unwrap_or(u32::MAX)) / 1024.0,
            "name": size.name,
            "precise_dyno_units": size.memory_bytes.div_ceil(standard),
            "private_space_only": false,
            "product_dyno_tier": size.name.split('-').next().unwrap_or_default().to_lowercase(),
        })
    };
    range.page(dyno_sizes().iter().map(wire), "memory")
}

/// `GET /regions`
pub(super) async fn regions(_: Actor) -> Json<Value> {
    Json(json!([{
        "country": "here",
        "created_at": SINCE,
        "description": "This machine",
        "id": REGION_ID,
        "locale": "here",
        "name": REGION,
        "private_capable": false,
        // The API's schema knows no other provider's regions, and generated clients insist on it.
        "provider": { "name": "platform", "region": "us-east-1" },
        "updated_at": SINCE,
    }]))
}

/// `GET /stacks`
pub(super) async fn stacks(State(controller): State<Arc<Controller>>, _: Actor) -> Json<Value> {
    Json(json!([{
        "created_at": SINCE,
        "default": true,
        "id": STACK_ID,
        "name": controller.settings.stack,
        "state": "public",
        "updated_at": SINCE,
    }]))
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
    }
}
