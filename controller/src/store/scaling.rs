use std::collections::BTreeMap;

use model::{AppId, ProcessType};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, row};

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
        let mut all = before.clone();
        for (name, text) in changes {
            match text {
                Some(text) => drop(all.insert(name.clone(), text.clone())),
                None => drop(all.remove(name)),
            }
        }
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
