use model::{AppId, DrainId, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, row};

/// Where an app's log is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Drain {
    /// Its id.
    pub id: DrainId,
    /// Of which app.
    pub app: AppId,
    /// Where to; may hold a password.
    pub url: String,
    /// Tells the receiver whose log it is: `d.<uuid>`.
    pub token: String,
    /// When it was added.
    pub created_at: Timestamp,
}

impl std::fmt::Debug for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drain").field("id", &self.id).field("app", &self.app).finish_non_exhaustive()
    }
}

/// A row with its URL still sealed.
struct Sealed(Drain);

impl<'r> FromRow<'r, AnyRow> for Sealed {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self(Drain {
            id: row::text(row, "id")?,
            app: row::text(row, "app_id")?,
            url: row.try_get("url")?,
            token: row.try_get("token")?,
            created_at: row::time(row, "created_at")?,
        }))
    }
}

const SELECT: &str = "SELECT id, app_id, url, token, created_at FROM log_drains";

impl Store {
    /// Adds a drain.
    pub async fn insert_drain(&self, drain: &Drain, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query(
            "INSERT INTO log_drains (id, app_id, url, token, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)",
        )
        .bind(drain.id.to_string())
        .bind(drain.app.to_string())
        .bind(self.secrets.seal(&url_row(drain.id), drain.url.as_bytes())?)
        .bind(&drain.token)
        .bind(drain.created_at.as_millis())
        .execute(&mut *tx)
        .await?;
        tx.record(changed(drain, Action::Create));
        tx.commit().await
    }

    /// An app's drains, the oldest first.
    pub async fn drains(&self, app: AppId) -> Result<Vec<Drain>, StoreError> {
        let sql = format!("{SELECT} WHERE app_id = $1 ORDER BY created_at, id");
        let rows = sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?;
        self.open_drains(rows)
    }

    /// The drains of all apps.
    pub async fn all_drains(&self) -> Result<Vec<Drain>, StoreError> {
        let rows = sqlx::query_as(&format!("{SELECT} ORDER BY created_at, id")).fetch_all(&self.pool).await?;
        self.open_drains(rows)
    }

    /// Takes a drain away from its app.
    pub async fn delete_drain(&self, drain: &Drain, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "DELETE FROM log_drains WHERE id = $1";
        let gone = sqlx::query(sql).bind(drain.id.to_string()).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(drain, Action::Destroy));
        }
        tx.commit().await
    }

    fn open_drains(&self, rows: Vec<Sealed>) -> Result<Vec<Drain>, StoreError> {
        let open = |Sealed(drain): Sealed| {
            let url = self.secrets.unseal(&url_row(drain.id), &drain.url)?;
            Ok(Drain { url: String::from_utf8_lossy(&url).into_owned(), ..drain })
        };
        rows.into_iter().map(open).collect()
    }
}

/// The URL may hold a password, and stays out of it.
fn changed(drain: &Drain, action: Action) -> NewEvent {
    let data = json!({ "token": drain.token });
    NewEvent { app: Some(drain.app), resource: Resource::LogDrain, id: drain.id.to_string(), action, data }
}

/// What the sealed URL of a drain is bound to.
fn url_row(drain: DrainId) -> String {
    format!("log_drains/{drain}/url")
}
