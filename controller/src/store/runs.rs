//! One-off dynos that people start.

use std::time::Duration;

use model::{AppId, DynoName, Exit, ProcessType, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::select::Select;
use super::words::words;
use super::{NewEvent, Stamp, Store, StoreError, row};

/// So many of an app are kept once they have ended.
const KEPT: i64 = 200;

/// A one-off dyno that somebody started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id, which is that of its dyno.
    pub id: String,
    /// Of which app.
    pub app: AppId,
    /// The number of the release that it runs.
    pub release: u64,
    /// `run.1234`
    pub dyno: DynoName,
    /// A shell command line.
    pub command: String,
    /// Canonical name of its size.
    pub size: String,
    /// Whether somebody is at its input and output, with whom it ends.
    pub attached: bool,
    /// Who started it, by their address then; none if the platform did.
    pub user: Option<String>,
    /// What the engine calls it.
    pub engine_id: String,
    /// What it is doing.
    pub state: RunState,
    /// How it ended; none while it runs, and if it never ran.
    pub exit: Option<Exit>,
    /// Why it never ran, or why nobody knows how it ended.
    pub failure: Option<String>,
    /// It is stopped after this long.
    pub time_limit: Duration,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its process began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

words! {
    /// What a run is doing, in Heroku's words.
    RunState, "A run is starting, up or complete":
    /// Its container is being made.
    Starting "starting";
    /// Its process runs.
    Up "up";
    /// It has ended, or never began.
    Complete "complete";
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEnd {
    /// Its process did.
    Exited(Exit),
    /// It never ran, or nobody knows how it ended, for this reason.
    Failed(String),
}

impl<'r> FromRow<'r, AnyRow> for Run {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let process_type: ProcessType = row::text(row, "process_type")?;
        let time_limit: u64 = row::number(row, "time_limit")?;
        Ok(Self {
            id: row.try_get("id")?,
            app: row::text(row, "app_id")?,
            release: row::number(row, "release_version")?,
            dyno: DynoName { process_type, number: row::number(row, "number")? },
            command: row.try_get("command")?,
            size: row.try_get("size")?,
            attached: row::flag(row, "attached")?,
            user: row.try_get("user_email")?,
            engine_id: row.try_get("engine_id")?,
            state: row::text(row, "state")?,
            exit: row::optional_json(row, "exit")?,
            failure: row.try_get("failure")?,
            time_limit: Duration::from_millis(time_limit),
            created_at: row::time(row, "created_at")?,
            started_at: row::optional_time(row, "started_at")?,
            ended_at: row::optional_time(row, "ended_at")?,
        })
    }
}

pub(super) const SELECT: Select = Select {
    columns: "r.id, r.app_id, r.release_version, r.process_type, r.number, r.command, r.size, r.attached, r.user_email, \
         r.engine_id, r.state, r.exit, r.failure, r.time_limit, r.created_at, r.started_at, r.ended_at",
    from: ("runs", "r"),
    joins: "",
};

impl Store {
    /// Notes a run that is about to start, and what people are told of it; false if another one that has not ended has its name.
    pub async fn insert_run(&self, run: &Run, event: Option<NewEvent>, stamp: &Stamp) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let made = sqlx::query(
            "INSERT INTO runs (id, app_id, release_version, process_type, number, command, size, attached, user_email, \
             engine_id, state, time_limit, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
             ON CONFLICT DO NOTHING",
        )
        .bind(&run.id)
        .bind(run.app.to_string())
        .bind(i64::try_from(run.release).unwrap_or(i64::MAX))
        .bind(run.dyno.process_type.as_str())
        .bind(i64::from(run.dyno.number))
        .bind(&run.command)
        .bind(&run.size)
        .bind(i64::from(run.attached))
        .bind(&run.user)
        .bind(&run.engine_id)
        .bind(run.state.as_str())
        .bind(i64::try_from(run.time_limit.as_millis()).unwrap_or(i64::MAX))
        .bind(run.created_at.as_millis())
        .execute(&mut *tx)
        .await?;
        if made.rows_affected() == 0 {
            return Ok(false);
        }
        if let Some(event) = event {
            tx.record(event);
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Notes that the process of a run began.
    pub async fn start_run(&self, engine_id: &str, at: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE runs SET state = 'up', started_at = $1 WHERE engine_id = $2 AND state = 'starting'")
            .bind(at.as_millis())
            .bind(engine_id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes how a run ended, unless that is known already, and forgets the oldest ones of its app.
    pub async fn end_run(&self, engine_id: &str, end: &RunEnd, at: Timestamp) -> Result<(), StoreError> {
        let (exit, failure) = match end {
            RunEnd::Exited(exit) => (Some(serde_json::to_string(exit)?), None),
            RunEnd::Failed(why) => (None, Some(why)),
        };
        let sql = "UPDATE runs SET state = 'complete', exit = $1, failure = $2, ended_at = $3 \
                   WHERE engine_id = $4 AND ended_at IS NULL RETURNING app_id";
        let app: Option<String> = sqlx::query_scalar(sql)
            .bind(exit)
            .bind(failure)
            .bind(at.as_millis())
            .bind(engine_id)
            .fetch_optional(&self.pool)
            .await?;
        let Some(app) = app else { return Ok(()) };
        let oldest = "DELETE FROM runs WHERE app_id = $1 AND ended_at IS NOT NULL AND id NOT IN \
                      (SELECT id FROM runs WHERE app_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2)";
        sqlx::query(oldest).bind(app).bind(KEPT).execute(&self.pool).await?;
        Ok(())
    }

    /// The runs of all apps that have not ended, as far as anybody knows.
    pub async fn open_runs(&self) -> Result<Vec<Run>, StoreError> {
        let sql = format!("{SELECT} WHERE r.ended_at IS NULL ORDER BY r.created_at, r.id");
        Ok(sqlx::query_as(&sql).fetch_all(&self.pool).await?)
    }

    /// Those of one app.
    pub async fn open_runs_of(&self, app: AppId) -> Result<Vec<Run>, StoreError> {
        let sql = format!("{SELECT} WHERE r.ended_at IS NULL AND r.app_id = $1 ORDER BY r.created_at, r.id");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// The newest run of an app with this id or name.
    pub async fn run(&self, app: AppId, reference: &str) -> Result<Option<Run>, StoreError> {
        let name: Option<DynoName> = reference.parse().ok();
        let sql = format!(
            "{SELECT} WHERE r.app_id = $1 AND (r.id = $2 OR (r.process_type = $3 AND r.number = $4)) \
             ORDER BY r.created_at DESC, r.id DESC LIMIT 1"
        );
        Ok(sqlx::query_as(&sql)
            .bind(app.to_string())
            .bind(reference)
            .bind(name.as_ref().map(|name| name.process_type.as_str().to_owned()))
            .bind(name.map(|name| i64::from(name.number)))
            .fetch_optional(&self.pool)
            .await?)
    }
}
