use std::collections::BTreeMap;

use model::{AppId, FormationId, ProcessType, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::contents::ProcessScale;
use super::events::Write;
use super::formation::scaled;
use super::{Action, FormationRow, NewEvent, Resource, Stamp, Store, StoreError, row};
use crate::policy;

/// Settings of a [`model::ScalingPolicy`]: names and texts.
pub type ScalingTexts = BTreeMap<String, String>;

/// What is set of one process type.
#[derive(Debug, Clone)]
pub(super) struct ScalingRow {
    pub(super) process_type: ProcessType,
    pub(super) policy: ScalingTexts,
}

impl ScalingRow {
    pub(super) fn into_pair(self) -> (ProcessType, ScalingTexts) {
        (self.process_type, self.policy)
    }
}

impl<'r> FromRow<'r, AnyRow> for ScalingRow {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self { process_type: row::text(row, "process_type")?, policy: row::json(row, "policy")? })
    }
}

impl Store {
    /// What is set of how an app's process types scale by themselves.
    pub async fn scaling_settings(&self, app: AppId) -> Result<BTreeMap<ProcessType, ScalingTexts>, StoreError> {
        let sql = "SELECT process_type, policy FROM scaling_policies WHERE app_id = $1";
        let rows: Vec<ScalingRow> = sqlx::query_as(sql).bind(app.to_string()).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(ScalingRow::into_pair).collect())
    }

    /// Sets some of how a process type scales by itself, by name, and forgets others.
    pub async fn set_scaling_settings(
        &self,
        (app, process_type): (AppId, &ProcessType),
        changes: &BTreeMap<String, Option<String>>,
        stamp: &Stamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        // Locks the app: changes that arrive at once add up.
        let sql = "UPDATE apps SET last_version = last_version WHERE id = $1";
        if sqlx::query(sql).bind(app.to_string()).execute(&mut *tx).await?.rows_affected() == 0 {
            return Err(StoreError::Missing("App"));
        }
        let sql = "SELECT policy FROM scaling_policies WHERE app_id = $1 AND process_type = $2";
        let row = sqlx::query(sql).bind(app.to_string()).bind(process_type.as_str()).fetch_optional(&mut *tx).await?;
        let text: Option<String> = row.map(|row| row.try_get("policy")).transpose()?;
        let before: ScalingTexts = text.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default();
        let all = policy::changed(&before, changes);
        if all == before {
            return Ok(());
        }
        let sql = "INSERT INTO scaling_policies (app_id, process_type, policy, updated_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (app_id, process_type) DO UPDATE SET policy = excluded.policy, updated_at = excluded.updated_at";
        let now = tx.now();
        let query = sqlx::query(sql).bind(app.to_string()).bind(process_type.as_str());
        query.bind(serde_json::to_string(&all)?).bind(now).execute(&mut *tx).await?;
        let data = json!({ "scaling_policy": all, "type": process_type });
        let (resource, action) = (Resource::App, Action::Update);
        tx.record(NewEvent { app: Some(app), resource, id: app.to_string(), action, data });
        tx.commit().await
    }
}

/// A change of a formation that the platform made by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct NewScaling {
    /// How many there were.
    pub from: u32,
    /// How many there are.
    pub to: u32,
    /// `p95`, `rps`, `cpu` or `memory`
    pub metric: String,
    /// What was measured, in the metric's unit; none if it is not for that.
    pub value: Option<String>,
    /// What is to be kept to.
    pub target: u64,
    /// One sentence with all of it.
    pub reason: String,
}

/// The same, as it is remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingDecision {
    /// When.
    pub at: Timestamp,
    /// What was decided.
    pub scaling: NewScaling,
}

impl<'r> FromRow<'r, AnyRow> for ScalingDecision {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let scaling = NewScaling {
            from: row::number(row, "quantity_before")?,
            to: row::number(row, "quantity_after")?,
            metric: row.try_get("metric")?,
            value: row.try_get("value")?,
            target: row::number(row, "target")?,
            reason: row.try_get("reason")?,
        };
        Ok(Self { at: row::time(row, "decided_at")?, scaling })
    }
}

/// So many decisions about a process type are remembered.
const REMEMBERED: i64 = 100;

impl Store {
    /// Apps of which something is set that may ask for scaling by itself.
    pub async fn apps_set_to_scale(&self) -> Result<Vec<AppId>, StoreError> {
        let rows = sqlx::query("SELECT app_id FROM scaling_policies WHERE policy LIKE '%\"metric\"%'");
        let rows = rows.fetch_all(&self.pool).await?;
        Ok(rows.iter().map(|row| row::text(row, "app_id")).collect::<Result<_, _>>()?)
    }

    /// Apps whose current release came with an `app.json` that may ask for scaling by itself.
    pub async fn apps_that_ask_to_scale(&self) -> Result<Vec<AppId>, StoreError> {
        let sql = "SELECT a.id FROM apps a JOIN releases r ON r.id = a.current_release_id \
             LEFT JOIN images i ON i.digest = r.image WHERE COALESCE(r.manifest, i.manifest) LIKE '%\"metric\"%'";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(|row| row::text(row, "id")).collect::<Result<_, _>>()?)
    }

    /// Scales a process type as the platform decided by itself; false if somebody scaled it meanwhile. What a release restores is
    /// not overruled by it: that counts what people scaled.
    pub async fn scale_by_itself(
        &self,
        app: AppId,
        row: &FormationRow,
        scaling: &NewScaling,
        stamp: &Stamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        let sql = "UPDATE formation SET quantity = $1, updated_at = $2 WHERE id = $3 AND quantity = $4";
        let query = sqlx::query(sql).bind(i64::from(scaling.to)).bind(now).bind(row.id.to_string());
        if query.bind(i64::from(scaling.from)).execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(false);
        }
        remember(&mut tx, (app, &row.process_type), (&FormationId::random(&*self.random), scaling)).await?;
        let before = ProcessScale { quantity: scaling.from, size: row.size.clone() };
        let after = ProcessScale { quantity: scaling.to, ..before };
        tx.record(scaled(app, row, &after));
        tx.commit().await?;
        Ok(true)
    }

    /// Remembers a decision that changed nothing.
    pub async fn note_scaling(
        &self,
        app: AppId,
        row: &FormationRow,
        scaling: &NewScaling,
        stamp: &Stamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        remember(&mut tx, (app, &row.process_type), (&FormationId::random(&*self.random), scaling)).await?;
        tx.commit().await
    }

    /// What the platform decided about a process type by itself, the newest first.
    pub async fn scaling_decisions(
        &self,
        app: AppId,
        process_type: &ProcessType,
    ) -> Result<Vec<ScalingDecision>, StoreError> {
        let sql = "SELECT decided_at, quantity_before, quantity_after, metric, value, target, reason FROM scalings \
             WHERE app_id = $1 AND process_type = $2 ORDER BY decided_at DESC, id";
        let query = sqlx::query_as(sql).bind(app.to_string()).bind(process_type.as_str());
        Ok(query.fetch_all(&self.pool).await?)
    }
}

/// Remembers a decision about a process type, and forgets old ones.
async fn remember(
    tx: &mut Write<'_>,
    (app, process_type): (AppId, &ProcessType),
    (id, scaling): (&FormationId, &NewScaling),
) -> Result<(), StoreError> {
    let sql = "INSERT INTO scalings (id, app_id, process_type, decided_at, quantity_before, quantity_after, metric, value, \
         target, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    sqlx::query(sql)
        .bind(id.to_string())
        .bind(app.to_string())
        .bind(process_type.as_str())
        .bind(tx.now())
        .bind(i64::from(scaling.from))
        .bind(i64::from(scaling.to))
        .bind(&scaling.metric)
        .bind(&scaling.value)
        .bind(i64::try_from(scaling.target).unwrap_or(i64::MAX))
        .bind(&scaling.reason)
        .execute(&mut **tx)
        .await?;
    let sql = "DELETE FROM scalings WHERE app_id = $1 AND process_type = $2 AND id NOT IN (SELECT id FROM scalings \
         WHERE app_id = $1 AND process_type = $2 ORDER BY decided_at DESC, id LIMIT $3)";
    let query = sqlx::query(sql).bind(app.to_string()).bind(process_type.as_str());
    query.bind(REMEMBERED).execute(&mut **tx).await?;
    Ok(())
}
