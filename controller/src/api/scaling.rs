//! How process types scale by themselves. Heroku's word for it is on another host.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::formation::find;
use super::input::{Body, Scalar};
use super::output::{List, Time};
use super::rollouts::SettingAnswer;
use crate::store::{self, App};
use crate::{Controller, Error};

/// Settings of a policy, or null to leave them to app.json again.
#[derive(Deserialize, ToSchema)]
#[schema(value_type = BTreeMap<String, Scalar>)]
pub(super) struct UpdateScalingPolicy(BTreeMap<String, Option<Scalar>>);

/// `GET /apps/{app}/formation/{type}/scaling-policy`
pub(super) async fn policy(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<List<SettingAnswer>, ApiError> {
    settings(&controller, &access.app, &reference).await
}

/// `PATCH /apps/{app}/formation/{type}/scaling-policy`: from now on.
pub(super) async fn set_policy(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
    Body(wish): Body<UpdateScalingPolicy>,
) -> Result<List<SettingAnswer>, ApiError> {
    let process = find(&controller, &access.app, &reference).await?;
    let changes = wish.0.into_iter().map(|(name, value)| (name, value.map(|it| it.0))).collect();
    controller.set_scaling_policy((&access.app, &access.actor), &process.row.process_type, &changes).await?;
    settings(&controller, &access.app, &reference).await
}

/// A change of a formation that the platform made by itself.
#[derive(Serialize, ToSchema)]
pub(super) struct ScalingDecision {
    created_at: Time,
    /// How many dynos there were.
    from: u32,
    /// `p95`, `rps`, `cpu` or `memory`
    metric: String,
    /// One sentence, with the numbers behind it.
    reason: String,
    /// What is to be kept to: milliseconds, requests a second on each dyno, or per cent.
    target: u64,
    /// How many dynos there are.
    to: u32,
    /// What was measured; null if the change was not for that.
    value: Option<String>,
}

/// `GET /apps/{app}/formation/{type}/scaling-decisions`: the newest ones, the newest first.
pub(super) async fn decisions(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<List<ScalingDecision>, ApiError> {
    let process = find(&controller, &access.app, &reference).await?;
    let decisions = controller.store.scaling_decisions(access.app.id, &process.row.process_type).await;
    let answer = |store::ScalingDecision { at, scaling }| ScalingDecision {
        created_at: at.into(),
        from: scaling.from,
        metric: scaling.metric,
        reason: scaling.reason,
        target: scaling.target,
        to: scaling.to,
        value: scaling.value,
    };
    Ok(List(decisions.map_err(Error::from)?.into_iter().map(answer).collect()))
}

async fn settings(controller: &Controller, app: &App, reference: &str) -> Result<List<SettingAnswer>, ApiError> {
    let process = find(controller, app, reference).await?;
    let settings = controller.scaling_policy(app, &process.row.process_type).await?.into_iter();
    Ok(List(settings.map(SettingAnswer::from).collect()))
}
