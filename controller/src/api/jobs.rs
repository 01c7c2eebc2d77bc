//! Scheduled jobs. Heroku has no word for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Scalar, Text};
use super::output::{Accepted, Created, Id, List, Named, Time};
use crate::jobs::JobSetting;
use crate::store::{App, Job, JobRun, Shard, ShardState};
use crate::{Controller, Error};

/// A command that an app wants to have run at certain times.
#[derive(Serialize, ToSchema)]
#[schema(as = Job)]
pub(super) struct JobAnswer {
    /// What went wrong last; null since a run succeeded.
    alert: Option<Alert>,
    app: Named,
    created_at: Time,
    id: Id,
    /// The number of its newest run; 0 before the first one.
    last_run: u64,
    name: String,
    /// When it is due next; null if it is suspended, or only runs when somebody asks for it.
    next_due: Option<Time>,
    /// All of its settings.
    settings: Vec<SettingAnswer>,
    updated_at: Time,
}

/// Something that went wrong with a job.
#[derive(Serialize, ToSchema)]
#[schema(as = JobAlert)]
struct Alert {
    at: Time,
    message: String,
}

/// One setting of a job.
#[derive(Serialize, ToSchema)]
#[schema(as = JobSetting)]
struct SettingAnswer {
    /// `timeout`
    name: &'static str,
    /// `app`: somebody set it; `app.json`; `default`.
    source: &'static str,
    /// `15m`
    value: String,
}

/// A job to make: its name, and settings of it.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateJob {
    name: Text,
    /// Settings by name; `command` must be among them, and without a `schedule` it only runs when somebody asks for it.
    settings: Option<Settings>,
}

/// Settings of a job by name, or null to leave them to app.json, or to what is usual.
#[derive(Deserialize, ToSchema)]
#[schema(value_type = BTreeMap<String, Scalar>)]
pub(super) struct Settings(BTreeMap<String, Option<Scalar>>);

/// What to change of a job.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateJob {
    settings: Option<Settings>,
}

/// A run of a job.
#[derive(Serialize, ToSchema)]
#[schema(as = JobRun)]
pub(super) struct RunAnswer {
    begun_at: Option<Time>,
    /// `schedule`: it was due; `misfire`: it was while nobody could start it; `manual`: somebody asked for it.
    cause: String,
    due_at: Time,
    ended_at: Option<Time>,
    /// Why it failed, did not run, or waits.
    failure: Option<String>,
    id: Id,
    job: Named,
    /// So many milliseconds after it was due it began; null before it does.
    lag_ms: Option<u64>,
    /// 1, 2, 3 … of its job.
    number: u64,
    /// The number of the release that it runs; null before it begins.
    release_version: Option<u64>,
    shards: Vec<ShardAnswer>,
    /// `queued`, `running`, `succeeded`, `failed`, `stopped`, or `skipped`: it never ran.
    state: String,
    /// Who asked for it, by their address then; null if its schedule did.
    user: Option<String>,
}

/// A part of a run: one process.
#[derive(Serialize, ToSchema)]
#[schema(as = JobShard)]
struct ShardAnswer {
    /// Which process of it this is: 1, and one more after each failure or death.
    attempt: u32,
    begun_at: Option<Time>,
    /// How often its instance died, and it was run again elsewhere.
    deaths: u32,
    /// What it is called in the log.
    dyno: String,
    ended_at: Option<Time>,
    /// Of its last process, as a shell would give it; 255 if it is lost.
    exit_status: Option<i32>,
    /// Which instance of the formation it is in; null if it has a container of its own, or is in none.
    instance: Option<String>,
    /// From 0.
    number: u32,
    /// Why it failed.
    reason: Option<String>,
    /// `waiting`, `starting`, `up` or `done`.
    state: &'static str,
}

/// `GET /apps/{app}/jobs`: by name.
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<JobAnswer>, ApiError> {
    let jobs = controller.store.jobs(access.app.id).await.map_err(Error::from)?;
    Ok(List(jobs.iter().map(|job| answer(&access.app, job)).collect()))
}

/// `POST /apps/{app}/jobs`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<CreateJob>,
) -> Result<Created<JobAnswer>, ApiError> {
    let settings = texts(wish.settings);
    let job = controller.add_job(&access.app, &access.actor, (&wish.name.0, settings)).await?;
    Ok(Created(answer(&access.app, &job)))
}

/// `GET /apps/{app}/jobs/{job}`: by its name or id.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, job)): Path<(String, String)>,
) -> Result<Json<JobAnswer>, ApiError> {
    let job = controller.find_job(&access.app, &job).await?;
    Ok(Json(answer(&access.app, &job)))
}

/// `PATCH /apps/{app}/jobs/{job}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, job)): Path<(String, String)>,
    Body(wish): Body<UpdateJob>,
) -> Result<Json<JobAnswer>, ApiError> {
    let job = controller.find_job(&access.app, &job).await?;
    let job = controller.update_job((&access.app, &job), &access.actor, texts(wish.settings)).await?;
    Ok(Json(answer(&access.app, &job)))
}

/// `DELETE /apps/{app}/jobs/{job}`: what runs of it is stopped.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, job)): Path<(String, String)>,
) -> Result<Json<JobAnswer>, ApiError> {
    let job = controller.find_job(&access.app, &job).await?;
    let job = controller.remove_job((&access.app, &job), &access.actor).await?;
    Ok(Json(answer(&access.app, &job)))
}

/// `GET /apps/{app}/jobs/{job}/runs`: the newest ones, the newest first.
pub(super) async fn runs(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, job)): Path<(String, String)>,
) -> Result<List<RunAnswer>, ApiError> {
    let job = controller.find_job(&access.app, &job).await?;
    let runs = controller.store.job_runs(job.id).await.map_err(Error::from)?;
    Ok(List(runs.iter().map(|run| run_answer(&job, run)).collect()))
}

/// `POST /apps/{app}/jobs/{job}/runs`: runs it now.
pub(super) async fn run(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, job)): Path<(String, String)>,
) -> Result<Created<RunAnswer>, ApiError> {
    let job = controller.find_job(&access.app, &job).await?;
    let run = controller.run_job((&access.app, &job), &access.actor).await?;
    Ok(Created(run_answer(&job, &run)))
}

/// `GET /apps/{app}/jobs/{job}/runs/{run}`: by its number or id.
pub(super) async fn run_info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, job, run)): Path<(String, String, String)>,
) -> Result<Json<RunAnswer>, ApiError> {
    let job = controller.find_job(&access.app, &job).await?;
    let run = controller.find_job_run(&job, &run).await?;
    Ok(Json(run_answer(&job, &run)))
}

/// `POST /apps/{app}/jobs/{job}/runs/{run}/actions/stop`: SIGTERM, and SIGKILL once its time for that is over.
pub(super) async fn stop_run(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, job, run)): Path<(String, String, String)>,
) -> Result<Accepted, ApiError> {
    let job = controller.find_job(&access.app, &job).await?;
    let run = controller.find_job_run(&job, &run).await?;
    controller.stop_job_run(&access.app, &access.actor, (&job, &run)).await?;
    Ok(Accepted {})
}

fn texts(settings: Option<Settings>) -> BTreeMap<String, Option<String>> {
    let settings = settings.map(|settings| settings.0).unwrap_or_default();
    settings.into_iter().map(|(name, text)| (name, text.map(|text| text.0))).collect()
}

fn answer(app: &App, job: &Job) -> JobAnswer {
    let setting = |JobSetting { name, value, source }| SettingAnswer { name, source, value };
    JobAnswer {
        alert: job.alert.as_ref().map(|(message, at)| Alert { at: (*at).into(), message: message.clone() }),
        app: Named::from(app),
        created_at: job.created_at.into(),
        id: Id::of(&job.id),
        last_run: job.last_number,
        name: job.name.clone(),
        next_due: job.next_due.map(Time::from),
        settings: job.settings().into_iter().map(setting).collect(),
        updated_at: job.updated_at.into(),
    }
}

fn run_answer(job: &Job, run: &JobRun) -> RunAnswer {
    let shard = |(index, shard): (usize, &Shard)| ShardAnswer {
        attempt: shard.attempt(),
        begun_at: shard.begun_at.map(Time::from),
        deaths: shard.deaths,
        dyno: run.dyno(&job.name, index),
        ended_at: shard.ended_at.map(Time::from),
        exit_status: shard.exit.map(model::Exit::shell_status),
        instance: shard.instance.clone(),
        number: u32::try_from(index).unwrap_or(u32::MAX),
        reason: shard.reason.clone(),
        state: match shard.state {
            ShardState::Waiting => "waiting",
            ShardState::Starting => "starting",
            ShardState::Up => "up",
            ShardState::Done => "done",
        },
    };
    RunAnswer {
        begun_at: run.begun_at.map(Time::from),
        cause: run.cause.to_string(),
        due_at: run.due_at.into(),
        ended_at: run.ended_at.map(Time::from),
        failure: run.failure.clone(),
        id: Id::of(&run.id),
        job: Named::new(&job.id, &job.name),
        lag_ms: run.lag().map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        number: run.number,
        release_version: run.release,
        shards: run.shards.iter().enumerate().map(shard).collect(),
        state: run.state.to_string(),
        user: run.user.clone(),
    }
}
