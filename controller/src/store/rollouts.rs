use std::collections::BTreeMap;
use std::time::Duration;

use model::{AppId, ReleaseId, RolloutPolicy, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::events::Write;
use super::standing::among;
use super::words::words;
use super::{Action, NewEvent, Release, Resource, Stamp, Status, Store, StoreError, row};
use crate::policy;

words! {
    /// How far a rollout is.
    RolloutState, "That is no state of a rollout":
    /// Its release command is not over yet.
    Preparing "preparing";
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
    /// The number of the release that was live when it began.
    pub replaces: Option<u64>,
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

/// A rollout that begins.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// By which policy.
    pub policy: RolloutPolicy,
    /// With its release command, or with its instances.
    pub state: RolloutState,
    /// What was counted before, as JSON.
    pub traffic: String,
}

/// What is known of a rollout when it has ended one way or the other.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// A router did not say in time that it serves the release.
    pub unconfirmed: bool,
    /// Why it failed, as JSON.
    pub failure: Option<String>,
    /// What its requests came to, as JSON.
    pub traffic: Option<String>,
}

impl<'r> FromRow<'r, AnyRow> for RolloutRow {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let policy: BTreeMap<String, String> = row::json(row, "policy")?;
        let returned_by: Option<i64> = row.try_get("returned_by")?;
        let replaces: Option<i64> = row.try_get("replaces")?;
        Ok(Self {
            release: row::text(row, "release_id")?,
            app: row::text(row, "app_id")?,
            version: row::number(row, "version")?,
            replaces: replaces.and_then(|version| version.try_into().ok()),
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

const COLUMNS: &str = "release_id, app_id, version, replaces, policy, state, step, reached_at, aborted, unconfirmed, traffic, failure, \
     returned_by, begun_at, live_at, ended_at";

impl Store {
    /// Notes that the rollout of a release begins by this policy, with its release command if it has one. One that began before stays
    /// as it is.
    pub async fn begin_rollout(&self, release: &Release, begun: &Beginning, now: Timestamp) -> Result<(), StoreError> {
        // What took an app back is not left again by itself: there would be no end to it.
        let sql = "SELECT release_id FROM rollouts WHERE app_id = $1 AND returned_by = $2";
        let version = i64::try_from(release.version).unwrap_or(i64::MAX);
        let is_return = sqlx::query(sql).bind(release.app.to_string()).bind(version).fetch_optional(&self.pool).await?;
        let watch = if is_return.is_some() { Duration::ZERO } else { begun.policy.watch };
        let policy = RolloutPolicy { watch, ..begun.policy.clone() };
        let sql = "INSERT INTO rollouts (release_id, app_id, version, replaces, policy, state, step, aborted, unconfirmed, \
             traffic, begun_at) VALUES ($1, $2, $3, (SELECT r.version FROM apps a JOIN releases r ON r.id = a.current_release_id \
             WHERE a.id = $2 AND r.image IS NOT NULL), $4, $5, 0, 0, 0, $6, $7) ON CONFLICT (release_id) DO NOTHING";
        sqlx::query(sql)
            .bind(release.id.to_string())
            .bind(release.app.to_string())
            .bind(version)
            .bind(serde_json::to_string(&policy.to_texts())?)
            .bind(begun.state.as_str())
            .bind(&begun.traffic)
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

    /// The rollouts of releases that are not live yet, of some apps or of all.
    pub async fn rollouts_on_their_way(&self, apps: Option<&[AppId]>) -> Result<Vec<RolloutRow>, StoreError> {
        self.rollouts_in("'preparing', 'running', 'routing', 'returning'", apps).await
    }

    /// The rollouts of releases that are live and still looked after, of some apps or of all.
    pub async fn rollouts_looked_after(&self, apps: Option<&[AppId]>) -> Result<Vec<RolloutRow>, StoreError> {
        self.rollouts_in("'watching', 'leaving'", apps).await
    }

    async fn rollouts_in(&self, states: &str, apps: Option<&[AppId]>) -> Result<Vec<RolloutRow>, StoreError> {
        let among = among("app_id", apps);
        self.read(&format!(
            "SELECT {COLUMNS} FROM rollouts WHERE state IN ({states}) AND {among} ORDER BY app_id, version"
        ))
        .await
    }

    /// The release command of a release is over: its instances may be started.
    pub async fn start_rollout(&self, release: ReleaseId) -> Result<(), StoreError> {
        let sql = "UPDATE rollouts SET state = 'running' WHERE release_id = $1 AND state = 'preparing'";
        sqlx::query(sql).bind(release.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// A canary's instances have their part of the requests since `now`; false if it is not at this step any more.
    pub async fn reach_step(&self, release: ReleaseId, step: usize, now: Timestamp) -> Result<bool, StoreError> {
        let sql = "UPDATE rollouts SET reached_at = $1 \
             WHERE release_id = $2 AND step = $3 AND state = 'running' AND reached_at IS NULL";
        let query = sqlx::query(sql).bind(now.as_millis()).bind(release.to_string());
        Ok(query.bind(number(step)).execute(&self.pool).await?.rows_affected() > 0)
    }

    /// A canary goes on to the step after this one; false if it is not at this one any more.
    pub async fn leave_step(&self, release: ReleaseId, step: usize) -> Result<bool, StoreError> {
        let sql = "UPDATE rollouts SET step = step + 1, reached_at = NULL \
             WHERE release_id = $1 AND step = $2 AND state = 'running' AND reached_at IS NOT NULL";
        let query = sqlx::query(sql).bind(release.to_string()).bind(number(step));
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Somebody ends a rollout that is under way; false if it is not any more.
    pub async fn abort_rollout(&self, release: ReleaseId) -> Result<bool, StoreError> {
        let sql = "UPDATE rollouts SET aborted = 1 WHERE release_id = $1 AND state = 'running' AND aborted = 0";
        Ok(sqlx::query(sql).bind(release.to_string()).execute(&self.pool).await?.rows_affected() > 0)
    }

    /// A release failed for this reason, as JSON: what it took the place of comes back before that is said.
    pub async fn withdraw_rollout(&self, release: ReleaseId, failure: &str) -> Result<(), StoreError> {
        let sql = "UPDATE rollouts SET state = 'returning', failure = $1 \
             WHERE release_id = $2 AND state IN ('running', 'routing')";
        sqlx::query(sql).bind(failure).bind(release.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// Notes what the requests of a rollout came to, as JSON.
    pub async fn count_rollout(&self, release: ReleaseId, traffic: &str) -> Result<(), StoreError> {
        let sql = "UPDATE rollouts SET traffic = $1 WHERE release_id = $2";
        sqlx::query(sql).bind(traffic).bind(release.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// Nobody looks after a release any more that is live, or was.
    pub async fn settle_rollout(&self, release: ReleaseId, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE rollouts SET state = 'succeeded', ended_at = $1 \
             WHERE release_id = $2 AND state IN ('watching', 'leaving')";
        sqlx::query(sql).bind(now.as_millis()).bind(release.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// A release that is live failed for this reason, as JSON: the app goes back.
    pub async fn leave_rollout(&self, release: ReleaseId, failure: &str) -> Result<(), StoreError> {
        let sql = "UPDATE rollouts SET state = 'leaving', failure = $1 WHERE release_id = $2 AND state = 'watching'";
        sqlx::query(sql).bind(failure).bind(release.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// The release of this number takes the app back.
    pub async fn return_rollout(&self, release: ReleaseId, by: u64, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE rollouts SET state = 'returned', returned_by = $1, ended_at = $2 WHERE release_id = $3";
        let query = sqlx::query(sql).bind(i64::try_from(by).unwrap_or(i64::MAX)).bind(now.as_millis());
        query.bind(release.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// The number of an app's newest release, whatever became of it.
    pub async fn newest_version(&self, app: AppId) -> Result<u64, StoreError> {
        let sql = "SELECT last_version FROM apps WHERE id = $1";
        let version: Option<i64> = sqlx::query_scalar(sql).bind(app.to_string()).fetch_optional(&self.pool).await?;
        Ok(version.and_then(|version| version.try_into().ok()).unwrap_or_default())
    }

    /// What is set of an app's policy: names and texts.
    pub async fn rollout_settings(&self, app: AppId) -> Result<BTreeMap<String, String>, StoreError> {
        let sql = "SELECT policy FROM rollout_policies WHERE app_id = $1";
        let text: Option<String> = sqlx::query_scalar(sql).bind(app.to_string()).fetch_optional(&self.pool).await?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default())
    }

    /// Sets some of an app's policy, by name, and forgets others. The answer is all that is set then.
    pub async fn set_rollout_settings(
        &self,
        app: AppId,
        changes: &BTreeMap<String, Option<String>>,
        stamp: &Stamp,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        let mut tx = self.begin(stamp).await?;
        // Locks the app: changes that arrive at once add up.
        let sql = "UPDATE apps SET last_version = last_version WHERE id = $1";
        if sqlx::query(sql).bind(app.to_string()).execute(&mut *tx).await?.rows_affected() == 0 {
            return Err(StoreError::Missing("App"));
        }
        let sql = "SELECT policy FROM rollout_policies WHERE app_id = $1";
        let text: Option<String> = sqlx::query_scalar(sql).bind(app.to_string()).fetch_optional(&mut *tx).await?;
        let before: BTreeMap<String, String> =
            text.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default();
        let all = policy::changed(&before, changes);
        if all == before {
            return Ok(all);
        }
        let sql = "INSERT INTO rollout_policies (app_id, policy, updated_at) VALUES ($1, $2, $3) \
             ON CONFLICT (app_id) DO UPDATE SET policy = excluded.policy, updated_at = excluded.updated_at";
        let now = tx.now();
        sqlx::query(sql).bind(app.to_string()).bind(serde_json::to_string(&all)?).bind(now).execute(&mut *tx).await?;
        let data = json!({ "rollout_policy": all });
        let (resource, action) = (Resource::App, Action::Update);
        tx.record(NewEvent { app: Some(app), resource, id: app.to_string(), action, data });
        tx.commit().await?;
        Ok(all)
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
    let (state, live_at, ended_at) = match status {
        Status::Succeeded => (RolloutState::Watching, Some(now), None),
        Status::Failed | Status::Pending => (RolloutState::Failed, None, Some(now)),
    };
    let sql = "UPDATE rollouts SET state = $1, unconfirmed = $2, failure = COALESCE($3, failure), live_at = $4, ended_at = $5, \
         traffic = COALESCE($6, traffic) WHERE release_id = $7";
    sqlx::query(sql)
        .bind(state.as_str())
        .bind(i64::from(ending.unconfirmed))
        .bind(&ending.failure)
        .bind(live_at)
        .bind(ended_at)
        .bind(&ending.traffic)
        .bind(release.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

fn number(step: usize) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}
