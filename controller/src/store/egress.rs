//! What apps may reach outside.

use std::collections::BTreeMap;

use model::{AppId, Egress};
use serde_json::json;
use sqlx::Row;

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, row};

impl Store {
    /// Sets an app's policy, or gives it up.
    pub async fn set_egress(&self, app: AppId, policy: Option<&Egress>, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "UPDATE apps SET last_version = last_version WHERE id = $1";
        if sqlx::query(sql).bind(app.to_string()).execute(&mut *tx).await?.rows_affected() == 0 {
            return Err(StoreError::Missing("App"));
        }
        let now = tx.now();
        let changed = if let Some(policy) = policy {
            let sql = "INSERT INTO egress_policies (app_id, policy, updated_at) VALUES ($1, $2, $3) \
                     ON CONFLICT (app_id) DO UPDATE SET policy = excluded.policy, updated_at = excluded.updated_at \
                     WHERE egress_policies.policy <> excluded.policy";
            let query = sqlx::query(sql).bind(app.to_string()).bind(serde_json::to_string(policy)?).bind(now);
            query.execute(&mut *tx).await?
        } else {
            let sql = "DELETE FROM egress_policies WHERE app_id = $1";
            sqlx::query(sql).bind(app.to_string()).execute(&mut *tx).await?
        };
        if changed.rows_affected() > 0 {
            let (resource, action, data) = (Resource::App, Action::Update, json!({ "egress": policy }));
            tx.record(NewEvent { app: Some(app), resource, id: app.to_string(), action, data });
        }
        tx.commit().await
    }

    /// An app's policy, if it has one.
    pub async fn egress(&self, app: AppId) -> Result<Option<Egress>, StoreError> {
        let sql = "SELECT policy FROM egress_policies WHERE app_id = $1";
        let text: Option<String> = sqlx::query_scalar(sql).bind(app.to_string()).fetch_optional(&self.pool).await?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// The policies of all apps that have one.
    pub async fn egress_policies(&self) -> Result<BTreeMap<AppId, Egress>, StoreError> {
        let rows = sqlx::query("SELECT app_id, policy FROM egress_policies").fetch_all(&self.pool).await?;
        let policy = |row: &sqlx::any::AnyRow| {
            let text: String = row.try_get("policy")?;
            Ok((row::text(row, "app_id")?, serde_json::from_str(&text)?))
        };
        rows.iter().map(policy).collect()
    }
}
