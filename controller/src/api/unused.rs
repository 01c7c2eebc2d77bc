//! Right answers about things that do not exist here yet: empty lists, and "not found" where a client expects that.

use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::output::List;
use crate::Actor;

/// What does not exist has no attributes.
#[derive(Serialize, ToSchema)]
pub(super) struct Unused {}

/// Nothing of this kind exists.
pub(super) async fn list(_: Actor) -> List<Unused> {
    List(Vec::new())
}

/// `GET /apps/{app}/pipeline-couplings`: the app is in no pipeline.
pub(super) async fn no_pipeline(_: Access) -> ApiError {
    ApiError::not_found("pipeline_coupling", "Couldn't find that pipeline coupling.")
}
