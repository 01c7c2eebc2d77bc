//! The runs of jobs: those that are not over, and the last ones that are.

use model::{AppId, Exit, JobId, JobRunId, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::jobs::{self, lock, places};
use super::words::words;
use super::{Job, NewEvent, Stamp, Store, StoreError, row};

/// So many of a job are kept once they are over, and a few more until they are forgotten together.
const KEPT: u64 = 100;
const FORGOTTEN_AT_ONCE: u64 = 20;
/// So many of a job are listed.
const LISTED: i64 = 200;
/// So many rows are written by one statement.
const ROWS: usize = 50;
/// So many jobs become due in one transaction.
const DUE_AT_ONCE: i64 = 1000;
/// So many runs that wait are looked at in one.
const WAITING: i64 = 2000;

/// One run of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
    /// Its id.
    pub id: JobRunId,
    /// Of which job.
    pub job: JobId,
    /// Of which app.
    pub app: AppId,
    /// 1, 2, 3 … of its job.
    pub number: u64,
    /// When it should have begun.
    pub due_at: Timestamp,
    /// Why there is one.
    pub cause: JobCause,
    /// Who asked for it, by their address then; none if its schedule did.
    pub user: Option<String>,
    /// What it is doing.
    pub state: JobRunState,
    /// Why it is to end before its time, if it is.
    pub stop: Option<String>,
    /// It was told of that it had not begun in time.
    pub late: bool,
    /// The number of the release that it runs; none before it begins.
    pub release: Option<u64>,
    /// What becomes of each part of it.
    pub shards: Vec<Shard>,
    /// Why it failed, did not run, or waits.
    pub failure: Option<String>,
    /// Since when it waits.
    pub queued_at: Timestamp,
    /// When its first process began.
    pub begun_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
}

words! {
    /// What a run of a job is doing.
    JobRunState, "A run is queued, running, succeeded, failed, stopped or skipped":
    /// It waits for its turn.
    Queued "queued";
    /// Something of it has begun.
    Running "running";
    /// All of it did what it should.
    Succeeded "succeeded";
    /// Some of it did not.
    Failed "failed";
    /// It was ended before its time.
    Stopped "stopped";
    /// It never ran and never will.
    Skipped "skipped";
}

words! {
    /// Why there is a run.
    JobCause, "A run is there by schedule, misfire or manual":
    /// It was due.
    Schedule "schedule";
    /// It was due while nobody could start it.
    Misfire "misfire";
    /// Somebody asked for it.
    Manual "manual";
}

/// A part of a run: one process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// What it is doing.
    pub state: ShardState,
    /// How often it failed and is run again.
    #[serde(default)]
    pub tries: u32,
    /// How often its instance died, and it was run again elsewhere.
    #[serde(default)]
    pub deaths: u32,
    /// Which instance it is in, if that is one of the formation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// It does not begin before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// When its last process began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<Timestamp>,
    /// When its last process ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How its last process ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why it is not as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a shard is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardState {
    /// It waits for its turn.
    #[default]
    Waiting,
    /// Its process is being made.
    Starting,
    /// Its process runs.
    Up,
    /// It is over.
    Done,
}

impl Shard {
    /// Whether it has, or is about to have, a process.
    pub fn is_open(&self) -> bool {
        matches!(self.state, ShardState::Starting | ShardState::Up)
    }

    /// The number of its process: none of it has the same one again.
    pub fn attempt(&self) -> u32 {
        self.tries + self.deaths + 1
    }
}

impl<'r> FromRow<'r, AnyRow> for JobRun {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let release: Option<i64> = row.try_get("release_version")?;
        Ok(Self {
            id: row::text(row, "id")?,
            job: row::text(row, "job_id")?,
            app: row::text(row, "app_id")?,
            number: row::number(row, "number")?,
            due_at: row::time(row, "due_at")?,
            cause: row::text(row, "cause")?,
            user: row.try_get("user_email")?,
            state: row::text(row, "state")?,
            stop: row.try_get("stop")?,
            late: row::flag(row, "late")?,
            release: release.and_then(|version| u64::try_from(version).ok()),
            shards: row::json(row, "shards")?,
            failure: row.try_get("failure")?,
            queued_at: row::time(row, "queued_at")?,
            begun_at: row::optional_time(row, "begun_at")?,
            ended_at: row::optional_time(row, "ended_at")?,
        })
    }
}

const SELECT: &str = "SELECT r.id, r.job_id, r.app_id, r.number, r.due_at, r.cause, r.user_email, r.state, r.stop, r.late, \
     r.release_version, r.shards, r.failure, r.queued_at, r.begun_at, r.ended_at \
     FROM job_runs r";

/// What there is to decide about: jobs that have runs or are about to go, and the runs that are not over.
#[derive(Debug, Default)]
pub struct JobWorld {
    /// Jobs.
    pub jobs: Vec<Job>,
    /// Their runs, those first that wait the longest.
    pub runs: Vec<JobRun>,
    /// How many changes there were before.
    pub version: i64,
    /// More runs wait than are here.
    pub is_cut: bool,
}

/// What there is to look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobsAhead {
    /// How many changes there were of jobs and their runs.
    pub(crate) version: i64,
    /// When the next job is due.
    pub(crate) next_due: Option<Timestamp>,
    /// There are apps whose jobs are those of another app.json.
    pub(crate) is_stale: bool,
}

/// What was decided.
#[derive(Debug, Default)]
pub(crate) struct JobChanges {
    /// Jobs that changed.
    pub(crate) jobs: Vec<Job>,
    /// Runs that are new or changed.
    pub(crate) runs: Vec<JobRun>,
    /// Jobs that are gone.
    pub(crate) gone: Vec<JobId>,
    /// What people are told.
    pub(crate) events: Vec<NewEvent>,
}

impl JobChanges {
    /// Whether nothing is to be written down.
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.runs.is_empty() && self.gone.is_empty() && self.events.is_empty()
    }
}

impl Store {
    /// What there is to look at.
    pub(crate) async fn jobs_ahead(&self) -> Result<JobsAhead, StoreError> {
        let sql = "SELECT (SELECT value FROM counters WHERE name = 'jobs') AS version, \
             (SELECT min(next_due) FROM jobs) AS next_due, \
             (SELECT count(*) FROM (SELECT app_id FROM stale_jobs LIMIT 1) AS stale) AS stale";
        let row = sqlx::query(sql).fetch_one(&self.pool).await?;
        Ok(JobsAhead {
            version: row.try_get("version")?,
            next_due: row::optional_time(&row, "next_due")?,
            is_stale: row::flag(&row, "stale")?,
        })
    }

    /// What there is to decide about. Whoever remembers it knows by the number of changes whether it is still so.
    pub(crate) async fn job_world(&self) -> Result<JobWorld, StoreError> {
        // Read first: what is changed meanwhile may be here, and is a change more.
        let version = self.jobs_ahead().await?.version;
        let running = format!("{SELECT} WHERE r.ended_at IS NULL AND r.state = 'running' ORDER BY r.queued_at, r.id");
        let mut runs: Vec<JobRun> = sqlx::query_as(&running).fetch_all(&self.pool).await?;
        let waiting = format!(
            "{SELECT} WHERE r.ended_at IS NULL AND r.state = 'queued' ORDER BY r.queued_at, r.id LIMIT {WAITING}"
        );
        let waiting: Vec<JobRun> = sqlx::query_as(&waiting).fetch_all(&self.pool).await?;
        let is_cut = i64::try_from(waiting.len()).is_ok_and(|count| count == WAITING);
        runs.extend(waiting);
        let select = jobs::SELECT;
        let with_runs = format!(
            "{select} WHERE j.removed = 1 OR j.id IN (SELECT r.job_id FROM job_runs r WHERE r.ended_at IS NULL)"
        );
        let jobs = sqlx::query_as(&with_runs).fetch_all(&self.pool).await?;
        Ok(JobWorld { jobs, runs, version, is_cut })
    }

    /// The jobs that are due at a moment, the first of them if they are many; none if all of these are known.
    pub(crate) async fn due_jobs(
        &self,
        now: Timestamp,
        is_known: impl Fn(&JobId) -> bool + Send,
    ) -> Result<Vec<Job>, StoreError> {
        let due = format!("WHERE j.next_due <= $1 ORDER BY j.next_due, j.id LIMIT {DUE_AT_ONCE}");
        let ids = format!("SELECT j.id FROM jobs j {due}");
        let ids: Vec<String> = sqlx::query_scalar(&ids).bind(now.as_millis()).fetch_all(&self.pool).await?;
        if ids.iter().all(|id| id.parse().is_ok_and(|id| is_known(&id))) {
            return Ok(Vec::new());
        }
        let jobs = format!("{} {due}", jobs::SELECT);
        Ok(sqlx::query_as(&jobs).bind(now.as_millis()).fetch_all(&self.pool).await?)
    }

    /// Writes down what was decided about what was so after so many changes; false, and nothing is written, if somebody else has
    /// changed anything since.
    pub(crate) async fn write_jobs(
        &self,
        stamp: &Stamp,
        changes: JobChanges,
        version: i64,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "UPDATE counters SET value = value + 1 WHERE name = 'jobs' AND value = $1";
        if sqlx::query(sql).bind(version).execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(false);
        }
        jobs::write(&mut tx, &changes.jobs).await?;
        write(&mut tx, &changes.runs).await?;
        for job in changes.jobs.iter().filter(|job| job.last_number.is_multiple_of(FORGOTTEN_AT_ONCE)) {
            let old = "DELETE FROM job_runs WHERE job_id = $1 AND number <= $2 AND ended_at IS NOT NULL";
            let last = i64::try_from(job.last_number.saturating_sub(KEPT)).unwrap_or(0);
            sqlx::query(old).bind(job.id.to_string()).bind(last).execute(&mut *tx).await?;
        }
        for job in &changes.gone {
            sqlx::query("DELETE FROM jobs WHERE id = $1").bind(job.to_string()).execute(&mut *tx).await?;
        }
        for event in changes.events {
            tx.record(event);
        }
        tx.commit().await?;
        Ok(true)
    }

    /// The runs that are not over.
    pub async fn open_job_runs(&self) -> Result<Vec<JobRun>, StoreError> {
        let sql = format!("{SELECT} WHERE r.ended_at IS NULL ORDER BY r.queued_at, r.id");
        Ok(sqlx::query_as(&sql).fetch_all(&self.pool).await?)
    }

    /// The newest runs of a job, the newest first.
    pub async fn job_runs(&self, job: JobId) -> Result<Vec<JobRun>, StoreError> {
        let sql = format!("{SELECT} WHERE r.job_id = $1 ORDER BY r.number DESC LIMIT {LISTED}");
        Ok(sqlx::query_as(&sql).bind(job.to_string()).fetch_all(&self.pool).await?)
    }

    /// The run of a job with this number or id.
    pub async fn job_run(&self, job: JobId, reference: &str) -> Result<Option<JobRun>, StoreError> {
        let sql = format!("{SELECT} WHERE r.job_id = $1 AND (r.id = $2 OR r.number = $3)");
        let number: i64 = reference.parse().unwrap_or_default();
        Ok(sqlx::query_as(&sql).bind(job.to_string()).bind(reference).bind(number).fetch_optional(&self.pool).await?)
    }

    /// Makes a run of a job that somebody asked for, numbers it, and tells of it. `may` is told how many runs of the job are not
    /// over, and how many of those wait.
    pub(crate) async fn add_job_run<E: From<StoreError>>(
        &self,
        run: JobRun,
        event: NewEvent,
        stamp: &Stamp,
        may: impl FnOnce(u64, u64) -> Result<(), E> + Send,
    ) -> Result<JobRun, E> {
        let mut run = run;
        let mut tx = self.begin(stamp).await?;
        lock(&mut tx).await?;
        let sql = "SELECT count(*) AS open, count(*) - count(begun_at) AS waiting FROM job_runs \
             WHERE job_id = $1 AND ended_at IS NULL";
        let open = sqlx::query(sql).bind(run.job.to_string()).fetch_one(&mut *tx).await.map_err(StoreError::from)?;
        let count = |column| row::number(&open, column).map_err(StoreError::from);
        may(count("open")?, count("waiting")?)?;
        let sql = "UPDATE jobs SET last_number = last_number + 1 WHERE id = $1 AND removed = 0 RETURNING last_number";
        let number: Option<i64> = sqlx::query_scalar(sql)
            .bind(run.job.to_string())
            .fetch_optional(&mut *tx)
            .await
            .map_err(StoreError::from)?;
        let number = number.and_then(|number| u64::try_from(number).ok());
        run.number = number.ok_or(StoreError::Missing("Job"))?;
        write(&mut tx, std::slice::from_ref(&run)).await?;
        tx.record(NewEvent { id: run.id.to_string(), ..event });
        tx.commit().await?;
        Ok(run)
    }

    /// Tells a run to end, for a reason; false if it is over already.
    pub(crate) async fn stop_job_run(
        &self,
        run: JobRunId,
        reason: &str,
        (event, stamp): (NewEvent, &Stamp),
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        lock(&mut tx).await?;
        let sql = "UPDATE job_runs SET stop = COALESCE(stop, $1) WHERE id = $2 AND ended_at IS NULL";
        let told = sqlx::query(sql).bind(reason).bind(run.to_string()).execute(&mut *tx).await?;
        if told.rows_affected() == 0 {
            return Ok(false);
        }
        tx.record(event);
        tx.commit().await?;
        Ok(true)
    }
}

/// Writes runs down, new ones and changed ones.
async fn write(tx: &mut super::events::Write<'_>, runs: &[JobRun]) -> Result<(), StoreError> {
    for runs in runs.chunks(ROWS) {
        let sql = format!(
            "INSERT INTO job_runs (id, job_id, app_id, number, due_at, cause, user_email, state, stop, late, release_version, \
             shards, failure, queued_at, begun_at, ended_at) VALUES {} ON CONFLICT (id) DO UPDATE SET \
             state = excluded.state, stop = excluded.stop, late = excluded.late, release_version = excluded.release_version, \
             shards = excluded.shards, failure = excluded.failure, begun_at = excluded.begun_at, ended_at = excluded.ended_at",
            places(runs.len(), 16)
        );
        let mut query = sqlx::query(&sql);
        for run in runs {
            query = query
                .bind(run.id.to_string())
                .bind(run.job.to_string())
                .bind(run.app.to_string())
                .bind(i64::try_from(run.number).unwrap_or(i64::MAX))
                .bind(run.due_at.as_millis())
                .bind(run.cause.as_str())
                .bind(&run.user)
                .bind(run.state.as_str())
                .bind(&run.stop)
                .bind(i64::from(run.late))
                .bind(run.release.map(|version| i64::try_from(version).unwrap_or(i64::MAX)))
                .bind(serde_json::to_string(&run.shards)?)
                .bind(&run.failure)
                .bind(run.queued_at.as_millis())
                .bind(run.begun_at.map(Timestamp::as_millis))
                .bind(run.ended_at.map(Timestamp::as_millis));
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}
