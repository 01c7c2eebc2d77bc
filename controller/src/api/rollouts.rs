//! How releases took each other's place. Heroku has no word for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Scalar};
use super::output::{Id, List, Named, Time};
use crate::rollout::{Failure, Tally};
use crate::rollouts::PolicySetting;
use crate::store::{App, RolloutRow};
use crate::{Controller, Error};

/// How many rollouts of an app are listed.
const LISTED: u32 = 50;

/// How a release took the place of the one before it, or did not.
#[derive(Serialize, ToSchema)]
#[schema(as = Rollout)]
pub(super) struct RolloutAnswer {
    app: Named,
    created_at: Time,
    /// When it was over; null while it is not.
    ended_at: Option<Time>,
    /// Why it failed; null if it did not.
    failure: Option<FailureAnswer>,
    /// The release's.
    id: Id,
    /// When it was live; null if it never was.
    live_at: Option<Time>,
    /// How many requests to the app got no answer of it meanwhile, or not all of it.
    lost: u64,
    /// Per cent of the requests and the dynos that a canary waits with; null if it does not wait.
    percent: Option<u8>,
    /// The policy, as it was when it began.
    policy: Policy,
    /// When a canary's step had its part of the requests; null if it has not yet, or is none.
    reached_at: Option<Time>,
    /// How many requests the app got meanwhile: from its beginning until nothing of the release before it runs any more.
    requests: u64,
    /// The number of the release that took the app back; null if none did.
    returned_by: Option<u64>,
    /// `preparing`: its release command runs; `running`: its dynos take the place of others; `routing`: all requests go to it, and
    /// routers are waited for; `returning`: it failed, and what it took the place of comes back; `watching`: it is live,
    /// and what would have failed it takes the app back; `leaving`: that happened; `succeeded`: it is live, or was; `failed`: it
    /// never was; `returned`: it was, and the app was taken back.
    state: String,
    /// Whether a router did not say in time that it serves the release.
    unconfirmed: bool,
    /// Of the release.
    version: u64,
}

/// Every setting of a policy, by name.
#[derive(Serialize, ToSchema)]
#[schema(as = RolloutPolicy)]
struct Policy(BTreeMap<String, String>);

/// One setting of a policy.
#[derive(Serialize, ToSchema)]
#[schema(as = PolicySetting)]
pub(super) struct SettingAnswer {
    /// `max_surge`
    name: &'static str,
    /// `app`: it was set for the app; `app.json`: its newest code says so; `default`.
    source: &'static str,
    /// `25%`
    value: String,
}

/// Settings of a policy, or null to leave them to app.json again.
#[derive(Deserialize, ToSchema)]
#[schema(value_type = BTreeMap<String, Scalar>)]
pub(super) struct UpdatePolicy(BTreeMap<String, Option<Scalar>>);

/// Why a release is not live: one sentence, and what it is known from.
#[derive(Serialize, ToSchema)]
#[schema(as = RolloutFailure)]
struct FailureAnswer {
    /// `crashed`, `not_listening`, `check_failed`, `out_of_memory`, `stalled`, `errors`, `release_command`, `refused` or
    /// `aborted`.
    cause: String,
    /// What happened.
    message: String,
    evidence: Evidence,
}

/// What the cause of a failure is known from.
#[derive(Serialize, ToSchema)]
#[schema(as = RolloutEvidence)]
struct Evidence {
    /// The check that failed; null if it is only whether it listens.
    check: Option<String>,
    /// The dyno that it happened to: `web.1`.
    dyno: Option<String>,
    /// What its process returned.
    exit_code: Option<i32>,
    /// What follows from the rest, in sentences.
    hints: Vec<String>,
    /// Where something listened.
    listening: Vec<String>,
    /// Its last lines, 50 at most.
    log: Vec<String>,
    /// How much memory it may have, in bytes, if it outgrew that.
    memory_limit: Option<u64>,
    /// What the last probe was answered.
    probe: Option<String>,
    /// Milliseconds after the start of its process, when that was.
    probed_after_ms: Option<u64>,
    /// The signal that ended it.
    signal: Option<i32>,
    /// The next larger size, if it outgrew its own.
    try_size: Option<String>,
}

/// `GET /apps/{app}/rollouts`: the newest ones, the newest first.
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<RolloutAnswer>, ApiError> {
    let rollouts = controller.store.rollouts(access.app.id, LISTED).await.map_err(Error::from)?;
    Ok(List(rollouts.iter().map(|rollout| answer(&access.app, (rollout, rollout.traffic().sum()))).collect()))
}

/// `GET /apps/{app}/releases/{release}/rollout`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<RolloutAnswer>, ApiError> {
    let rollout = controller.find_rollout(&access.app, &reference).await?;
    let tally = controller.rollout_traffic(&rollout).await?;
    Ok(Json(answer(&access.app, (&rollout, tally))))
}

/// `POST /apps/{app}/releases/{release}/rollout/actions/continue`
pub(super) async fn go_on(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<RolloutAnswer>, ApiError> {
    let rollout = controller.continue_rollout(&access.app, &access.actor, &reference).await?;
    let tally = controller.rollout_traffic(&rollout).await?;
    Ok(Json(answer(&access.app, (&rollout, tally))))
}

/// `POST /apps/{app}/releases/{release}/rollout/actions/abort`
pub(super) async fn abort(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<RolloutAnswer>, ApiError> {
    let rollout = controller.abort_rollout(&access.app, &access.actor, &reference).await?;
    let tally = controller.rollout_traffic(&rollout).await?;
    Ok(Json(answer(&access.app, (&rollout, tally))))
}

/// `GET /apps/{app}/rollout-policy`
pub(super) async fn policy(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<SettingAnswer>, ApiError> {
    settings(&controller, &access.app).await
}

/// `PATCH /apps/{app}/rollout-policy`: from the next release on.
pub(super) async fn set_policy(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<UpdatePolicy>,
) -> Result<List<SettingAnswer>, ApiError> {
    let changes = wish.0.into_iter().map(|(name, value)| (name, value.map(|it| it.0))).collect();
    controller.set_rollout_policy(&access.app, &access.actor, &changes).await?;
    settings(&controller, &access.app).await
}

async fn settings(controller: &Controller, app: &App) -> Result<List<SettingAnswer>, ApiError> {
    let settings = controller.rollout_policy(app).await?.into_iter();
    Ok(List(settings.map(SettingAnswer::from).collect()))
}

impl From<PolicySetting> for SettingAnswer {
    fn from(PolicySetting { name, value, source }: PolicySetting) -> Self {
        Self { name, source, value }
    }
}

fn answer(app: &App, (rollout, tally): (&RolloutRow, Tally)) -> RolloutAnswer {
    RolloutAnswer {
        app: Named::from(app),
        created_at: rollout.begun_at.into(),
        ended_at: rollout.ended_at.map(Time::from),
        failure: rollout.failure().map(FailureAnswer::from),
        id: Id::of(&rollout.release),
        live_at: rollout.live_at.map(Time::from),
        lost: tally.lost,
        percent: rollout.percent(),
        policy: Policy(rollout.policy.to_texts()),
        requests: tally.requests,
        returned_by: rollout.returned_by,
        reached_at: rollout.reached_at.map(Time::from),
        state: rollout.state.to_string(),
        unconfirmed: rollout.unconfirmed,
        version: rollout.version,
    }
}

impl From<Failure> for FailureAnswer {
    fn from(failure: Failure) -> Self {
        let Failure { cause, sentence, dyno, exit_code, signal, memory_limit, try_size, probe, .. } = failure;
        let Failure { check, probed_after_ms, listening, log, hints, .. } = failure;
        let evidence = Evidence {
            check,
            dyno,
            exit_code,
            hints,
            listening,
            log,
            memory_limit,
            probe,
            probed_after_ms,
            signal,
            try_size,
        };
        Self { cause, message: sentence, evidence }
    }
}
