use model::{Freeze, FreezeId, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, App, AppScope, NewEvent, Resource, Stamp, Store, StoreError, UserRef, row};

/// A time in which nobody makes a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreezeWindow {
    /// Its id.
    pub id: FreezeId,
    /// Of which apps.
    pub scope: AppScope,
    /// When.
    pub period: Freeze,
    /// Why, in the words of who made it.
    pub reason: Option<String>,
    /// Who made it.
    pub by: UserRef,
    /// When it was made.
    pub created_at: Timestamp,
}

impl<'r> FromRow<'r, AnyRow> for FreezeWindow {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            scope: AppScope::of_row(row)?,
            period: row::text(row, "period")?,
            reason: row.try_get("reason")?,
            by: UserRef { id: row::text(row, "user_id")?, email: row::text(row, "email")? },
            created_at: row::time(row, "created_at")?,
        })
    }
}

const SELECT: &str = "SELECT f.id, f.app_id, f.team_id, t.name AS team_name, f.period, f.reason, f.user_id, u.email, \
     f.created_at FROM freeze_windows f JOIN users u ON u.id = f.user_id LEFT JOIN teams t ON t.id = f.team_id";

impl Store {
    /// Adds a freeze window.
    pub async fn insert_freeze(&self, window: &FreezeWindow, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query(
            "INSERT INTO freeze_windows (id, app_id, team_id, period, reason, user_id, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(window.id.to_string())
        .bind(window.scope.app().map(|app| app.to_string()))
        .bind(window.scope.team().map(|team| team.to_string()))
        .bind(window.period.to_string())
        .bind(&window.reason)
        .bind(window.by.id.to_string())
        .bind(window.created_at.as_millis())
        .execute(&mut *tx)
        .await?;
        tx.record(changed(window, Action::Create));
        tx.commit().await
    }

    /// Ends a freeze window.
    pub async fn delete_freeze(&self, window: &FreezeWindow, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "DELETE FROM freeze_windows WHERE id = $1";
        let gone = sqlx::query(sql).bind(window.id.to_string()).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(window, Action::Destroy));
        }
        tx.commit().await
    }

    /// The freeze windows of one scope, the oldest first.
    pub async fn freezes(&self, scope: &AppScope) -> Result<Vec<FreezeWindow>, StoreError> {
        let (condition, id) = scope.condition("f");
        let sql = format!("{SELECT} WHERE {condition} ORDER BY f.created_at, f.id");
        Ok(sqlx::query_as(&sql).bind(id).fetch_all(&self.pool).await?)
    }

    /// All freeze windows that an app has to mind: its own, its team's and the platform's, the oldest first.
    pub async fn freezes_over(&self, app: &App) -> Result<Vec<FreezeWindow>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE f.app_id = $1 OR f.team_id = $2 OR (f.app_id IS NULL AND f.team_id IS NULL) \
             ORDER BY f.created_at, f.id"
        );
        let team = app.team.as_ref().map(|team| team.id.to_string());
        Ok(sqlx::query_as(&sql).bind(app.id.to_string()).bind(team).fetch_all(&self.pool).await?)
    }
}

fn changed(window: &FreezeWindow, action: Action) -> NewEvent {
    let data =
        json!({ "period": window.period.to_string(), "reason": window.reason, "team": window.scope.team_name() });
    let (resource, id) = (Resource::FreezeWindow, window.id.to_string());
    NewEvent { app: window.scope.app(), resource, id, action, data }
}
