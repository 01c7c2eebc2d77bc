//! How releases took each other's place. Heroku has no word for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::output::{Id, List, Named, Time};
use crate::rollout::Failure;
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
    /// `running`: its dyno take the place of others; `routing`: all requests go to it, and routers are waited for; `succeeded`:
    /// it is live, or was; `failed`: it never was.
    state: String,
    /// Whether a router did not say in time that it serves the release.
    unconfirmed: bool,
    /// Of the release.
    version: u64,
}

/// Why a release is not live: one sentence, and what it is known from.
#[derive(Serialize, ToSchema)]
#[schema(as = RolloutFailure)]
struct FailureAnswer {
    /// `crashed`, `not_listening`, `check_failed`, `out_of_memory`, `stalled`, `release_command` or `refused`.
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
    Ok(List(rollouts.iter().map(|rollout| answer(&access.app, rollout)).collect()))
}

/// `GET /apps/{app}/releases/{release}/rollout`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<RolloutAnswer>, ApiError> {
    let rollout = controller.find_rollout(&access.app, &reference).await?;
    Ok(Json(answer(&access.app, &rollout)))
}

fn answer(app: &App, rollout: &RolloutRow) -> RolloutAnswer {
    RolloutAnswer {
        app: Named::from(app),
        created_at: rollout.begun_at.into(),
        ended_at: rollout.ended_at.map(Time::from),
        failure: rollout.failure().map(FailureAnswer::from),
        id: Id::of(&rollout.release),
        live_at: rollout.live_at.map(Time::from),
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
