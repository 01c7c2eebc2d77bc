use model::{AppId, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, App, NewEvent, Resource, Stamp, Store, StoreError, row};

/// A switch of an app, as it was set last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureRow {
    /// Which.
    pub name: String,
    /// On or off.
    pub enabled: bool,
    /// Since when.
    pub since: Timestamp,
}

impl<'r> FromRow<'r, AnyRow> for FeatureRow {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            name: row.try_get("name")?,
            enabled: row::flag(row, "enabled")?,
            since: row::time(row, "created_at")?,
        })
    }
}

impl Store {
    /// The switches of an app that somebody set, as they will be in its next release.
    pub async fn features(&self, app: AppId) -> Result<Vec<FeatureRow>, StoreError> {
        let sql = "SELECT name, enabled, created_at FROM app_features f WHERE app_id = $1 \
             AND version = (SELECT MAX(version) FROM app_features WHERE app_id = f.app_id AND name = f.name) \
             ORDER BY name";
        Ok(sqlx::query_as(sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// Whether a switch is on in a release. That never changes.
    pub async fn has_feature(&self, app: AppId, name: &str, version: u64) -> Result<bool, StoreError> {
        let sql = "SELECT enabled FROM app_features WHERE app_id = $1 AND name = $2 AND version <= $3 \
             ORDER BY version DESC LIMIT 1";
        let enabled: Option<i64> = sqlx::query_scalar(sql)
            .bind(app.to_string())
            .bind(name)
            .bind(i64::try_from(version).unwrap_or(i64::MAX))
            .fetch_optional(&self.pool)
            .await?;
        Ok(enabled.is_some_and(|enabled| enabled != 0))
    }

    /// Sets a switch of an app from its next release on.
    pub async fn set_feature(&self, app: &App, name: &str, enabled: bool, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        // No release is made meanwhile.
        let sql = "UPDATE apps SET updated_at = $1 WHERE id = $2 RETURNING last_version";
        let last: Option<i64> =
            sqlx::query_scalar(sql).bind(tx.now()).bind(app.id.to_string()).fetch_optional(&mut *tx).await?;
        let last = last.ok_or(StoreError::Missing("App"))?;
        sqlx::query(
            "INSERT INTO app_features (app_id, name, version, enabled, created_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (app_id, name, version) DO UPDATE SET enabled = $4, created_at = $5",
        )
        .bind(app.id.to_string())
        .bind(name)
        .bind(last + 1)
        .bind(i64::from(enabled))
        .bind(tx.now())
        .execute(&mut *tx)
        .await?;
        let (app, action) = (Some(app.id), Action::Update);
        let data = json!({ "name": name, "enabled": enabled });
        tx.record(NewEvent { app, resource: Resource::Feature, id: name.to_owned(), action, data });
        tx.commit().await
    }
}
