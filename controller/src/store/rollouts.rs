use std::collections::BTreeMap;

use model::{AppId, ReleaseId, RolloutPolicy, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::events::Write;
use super::words::words;
use super::{Release, Status, Store, StoreError, row};

words! {
    /// How far a rollout is.
    RolloutState, "That is no state of a rollout":
    /// Its instances are started, and take the place of those before them.
    Running "running";
    /// All requests go to it; whether every router says so is waited for.
    Routing "routing";
    /// It failed, and what it took the place of comes back.
    Returning "returning";
    /// It is live; what would have failed it before takes the app back.
    Watching "watching";
    /// It was live and failed; the app is being taken back.
    Leaving "leaving";
    /// It is live, or was.
    Succeeded "succeeded";
    /// It never was.
    Failed "failed";
    /// It was live, failed, and the app was taken back.
    Returned "returned";
}

/// How a release took the place of the one before it, or did not.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutRow {
    /// Which release.
    pub release: ReleaseId,
    /// Of which app.
    pub app: AppId,
    /// The release's number.
    pub version: u64,
    /// The policy, as it was when it began.
    pub policy: RolloutPolicy,
    /// How far it is.
    pub state: RolloutState,
    /// Of a canary: which of its steps.
    pub step: usize,
    /// Since when that step's instances have their part of the requests.
    pub reached_at: Option<Timestamp>,
    /// Somebody ended it.
    pub aborted: bool,
    /// A router did not say in time that it serves the release.
    pub unconfirmed: bool,
    /// What its requests came to, as JSON.
    pub traffic: Option<String>,
    /// Why it failed, as JSON.
    pub failure: Option<String>,
    /// The number of the release that took the app back.
    pub returned_by: Option<u64>,
    /// When its first instance was wanted, or its release command.
    pub begun_at: Timestamp,
    /// When it was live.
    pub live_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
}

/// What is known of a rollout when it has ended one way or the other.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// A router did not say in time that it serves the release.
    pub unconfirmed: bool,
    /// Why it failed, as JSON.
    pub failure: Option<String>,
}

impl<'r> FromRow<'r, AnyRow> for RolloutRow {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let policy: BTreeMap<String, String> = row::json(row, "policy")?;
        let returned_by: Option<i64> = row.try_get("returned_by")?;
        Ok(Self {
            release: row::text(row, "release_id")?,
            app: row::text(row, "app_id")?,
            version: row::number(row, "version")?,
            policy: RolloutPolicy::from_texts(&policy),
            state: row::text(row, "state")?,
            step: row::number(row, "step")?,
            reached_at: row::optional_time(row, "reached_at")?,
            aborted: row::flag(row, "aborted")?,
            unconfirmed: row::flag(row, "unconfirmed")?,
            traffic: row.try_get("traffic")?,
            failure: row.try_get("failure")?,
            returned_by: returned_by.and_then(|version| version.try_into().ok()),
            begun_at: row::time(row, "begun_at")?,
            live_at: row::optional_time(row, "live_at")?,
            ended_at: row::optional_time(row, "ended_at")?,
        })
    }
}

const COLUMNS: &str = "release_id, app_id, version, policy, state, step, reached_at, aborted, unconfirmed, traffic, failure, \
     returned_by, begun_at, live_at, ended_at";

impl Store {
    /// Notes that the rollout of a release begins by this policy. One that began before stays as it is.
    pub async fn begin_rollout(
        &self,
        release: &Release,
        policy: &RolloutPolicy,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO rollouts (release_id, app_id, version, policy, state, step, aborted, unconfirmed, begun_at) \
             VALUES ($1, $2, $3, $4, 'running', 0, 0, 0, $5) ON CONFLICT (release_id) DO NOTHING";
        sqlx::query(sql)
            .bind(release.id.to_string())
            .bind(release.app.to_string())
            .bind(i64::try_from(release.version).unwrap_or(i64::MAX))
            .bind(serde_json::to_string(&policy.to_texts())?)
            .bind(now.as_millis())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The rollout of a release; none if it has not begun, or is older than the platform's memory of them.
    pub async fn rollout(&self, release: ReleaseId) -> Result<Option<RolloutRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM rollouts WHERE release_id = $1");
        Ok(sqlx::query_as(&sql).bind(release.to_string()).fetch_optional(&self.pool).await?)
    }

    /// The newest rollouts of an app, the newest first.
    pub async fn rollouts(&self, app: AppId, count: u32) -> Result<Vec<RolloutRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM rollouts WHERE app_id = $1 ORDER BY version DESC LIMIT $2");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).bind(i64::from(count)).fetch_all(&self.pool).await?)
    }

    /// The rollouts of all apps that are not over.
    pub async fn active_rollouts(&self) -> Result<Vec<RolloutRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM rollouts \
             WHERE state IN ('running', 'routing', 'returning', 'watching', 'leaving') ORDER BY app_id, version"
        );
        Ok(sqlx::query_as(&sql).fetch_all(&self.pool).await?)
    }

    /// From now on all requests go to a release that is under way; false if it is not any more.
    pub async fn route_rollout(&self, release: ReleaseId) -> Result<bool, StoreError> {
        let sql = "UPDATE rollouts SET state = 'routing' WHERE release_id = $1 AND state IN ('running', 'routing')";
        let changed = sqlx::query(sql).bind(release.to_string()).execute(&self.pool).await?;
        Ok(changed.rows_affected() > 0)
    }
}

/// Ends the rollout of a release with what becomes of it.
pub(super) async fn end_rollout(
    tx: &mut Write<'_>,
    release: ReleaseId,
    (status, ending): (Status, &Ending),
) -> Result<(), StoreError> {
    let now = tx.now();
    let (state, live_at) = match status {
        Status::Succeeded => (RolloutState::Succeeded, Some(now)),
        Status::Failed | Status::Pending => (RolloutState::Failed, None),
    };
    let sql = "UPDATE rollouts SET state = $1, unconfirmed = $2, failure = $3, live_at = $4, ended_at = $5 WHERE release_id = $6";
    sqlx::query(sql)
        .bind(state.as_str())
        .bind(i64::from(ending.unconfirmed))
        .bind(&ending.failure)
        .bind(live_at)
        .bind(now)
        .bind(release.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}
