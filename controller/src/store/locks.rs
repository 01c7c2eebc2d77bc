use model::{AppId, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, FromRow, Row};

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, UserRef, row};

/// Nobody makes a release of an app for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Of which app.
    pub app: AppId,
    /// Who locked it.
    pub by: UserRef,
    /// Why, in their words.
    pub message: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
}

impl<'r> FromRow<'r, AnyRow> for Lock {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            app: row::text(row, "app_id")?,
            by: UserRef { id: row::text(row, "user_id")?, email: row::text(row, "email")? },
            message: row.try_get("message")?,
            created_at: row::time(row, "created_at")?,
        })
    }
}

impl Store {
    /// Locks an app, or gives its lock another message. From then on no release of it is made.
    pub async fn set_lock(&self, lock: &Lock, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        // Waits for whoever makes a release at this moment.
        let app = sqlx::query("UPDATE apps SET last_version = last_version WHERE id = $1");
        if app.bind(lock.app.to_string()).execute(&mut *tx).await?.rows_affected() == 0 {
            return Err(StoreError::Missing("App"));
        }
        let is_new = lock_in(&mut tx, lock.app).await?.is_none();
        sqlx::query(
            "INSERT INTO locks (app_id, user_id, message, created_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (app_id) DO UPDATE SET user_id = excluded.user_id, message = excluded.message, \
             created_at = excluded.created_at",
        )
        .bind(lock.app.to_string())
        .bind(lock.by.id.to_string())
        .bind(&lock.message)
        .bind(lock.created_at.as_millis())
        .execute(&mut *tx)
        .await?;
        tx.record(changed(lock, if is_new { Action::Create } else { Action::Update }));
        tx.commit().await
    }

    /// Ends an app's lock.
    pub async fn delete_lock(&self, lock: &Lock, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "DELETE FROM locks WHERE app_id = $1";
        let gone = sqlx::query(sql).bind(lock.app.to_string()).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(lock, Action::Destroy));
        }
        tx.commit().await
    }

    /// The lock of an app; none if it is not locked.
    pub async fn lock(&self, app: AppId) -> Result<Option<Lock>, StoreError> {
        lock_in(&mut *self.pool.acquire().await?, app).await
    }
}

/// The lock of an app in a transaction.
pub(super) async fn lock_in(tx: &mut AnyConnection, app: AppId) -> Result<Option<Lock>, StoreError> {
    let sql = "SELECT l.app_id, l.user_id, u.email, l.message, l.created_at FROM locks l \
               JOIN users u ON u.id = l.user_id WHERE l.app_id = $1";
    Ok(sqlx::query_as(sql).bind(app.to_string()).fetch_optional(tx).await?)
}

fn changed(lock: &Lock, action: Action) -> NewEvent {
    let data = json!({ "message": lock.message });
    NewEvent { app: Some(lock.app), resource: Resource::Lock, id: lock.app.to_string(), action, data }
}
