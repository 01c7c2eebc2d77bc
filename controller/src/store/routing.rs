//! What people want of how routers treat the requests to their apps.

use model::{AppId, RoutePolicy};
use serde_json::json;

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError};
use crate::policy::{self, Changes, Texts};

impl Store {
    /// What is set of an app's policy: names and texts.
    pub async fn routing_settings(&self, app: AppId) -> Result<Texts, StoreError> {
        let sql = "SELECT policy FROM routing_policies WHERE app_id = $1";
        let text: Option<String> = sqlx::query_scalar(sql).bind(app.to_string()).fetch_optional(&self.pool).await?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default())
    }

    /// Sets some of an app's policy, by name, and forgets others.
    pub async fn set_routing_settings(&self, app: AppId, changes: &Changes, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        // Locks the app: changes that arrive at once add up.
        let sql = "UPDATE apps SET last_version = last_version WHERE id = $1";
        if sqlx::query(sql).bind(app.to_string()).execute(&mut *tx).await?.rows_affected() == 0 {
            return Err(StoreError::Missing("App"));
        }
        let sql = "SELECT policy FROM routing_policies WHERE app_id = $1";
        let text: Option<String> = sqlx::query_scalar(sql).bind(app.to_string()).fetch_optional(&mut *tx).await?;
        let before: Texts = text.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default();
        let all = policy::changed(&before, changes);
        if all == before {
            return Ok(());
        }
        let sql = "INSERT INTO routing_policies (app_id, policy, updated_at) VALUES ($1, $2, $3) \
             ON CONFLICT (app_id) DO UPDATE SET policy = excluded.policy, updated_at = excluded.updated_at";
        let now = tx.now();
        sqlx::query(sql).bind(app.to_string()).bind(serde_json::to_string(&all)?).bind(now).execute(&mut *tx).await?;
        // An event tells nobody what follows from a password.
        let policy = RoutePolicy::from_texts(&all);
        let told: Texts = all.keys().map(|name| (name.clone(), policy.shown(name))).collect();
        let (resource, action, data) = (Resource::App, Action::Update, json!({ "routing_policy": told }));
        tx.record(NewEvent { app: Some(app), resource, id: app.to_string(), action, data });
        tx.commit().await
    }
}
