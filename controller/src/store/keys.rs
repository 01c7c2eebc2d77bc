use model::{KeyId, Timestamp, UserId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::users::{ACTIVE, USER};
use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, User, row};

/// A public key that lets its owner in over SSH.
#[derive(Debug, Clone)]
pub struct SshKey {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub user: UserId,
    /// `SHA256:…`, as OpenSSH prints it.
    pub fingerprint: String,
    /// Algorithm and base64.
    pub public_key: String,
    /// What its owner calls it.
    pub comment: String,
    /// When somebody last came in with it.
    pub last_used_at: Option<Timestamp>,
    /// When it was added.
    pub created_at: Timestamp,
}

impl<'r> FromRow<'r, AnyRow> for SshKey {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            user: row::text(row, "user_id")?,
            fingerprint: row.try_get("fingerprint")?,
            public_key: row.try_get("public_key")?,
            comment: row.try_get("comment")?,
            last_used_at: row::optional_time(row, "last_used_at")?,
            created_at: row::time(row, "created_at")?,
        })
    }
}

const COLUMNS: &str = "id, user_id, fingerprint, public_key, comment, last_used_at, created_at";

impl SshKey {
    fn event(&self, action: Action) -> NewEvent {
        let data = json!({ "fingerprint": self.fingerprint, "comment": self.comment });
        NewEvent { app: None, resource: Resource::Key, id: self.id.to_string(), action, data }
    }
}

impl Store {
    /// Keeps a key that nobody else has.
    pub async fn insert_key(&self, key: &SshKey, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query(
            "INSERT INTO ssh_keys (id, user_id, fingerprint, public_key, comment, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(key.id.to_string())
        .bind(key.user.to_string())
        .bind(&key.fingerprint)
        .bind(&key.public_key)
        .bind(&key.comment)
        .bind(key.created_at.as_millis())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::taken("Key"))?;
        tx.record(key.event(Action::Create));
        tx.commit().await
    }

    /// A user's keys, the oldest first.
    pub async fn keys(&self, user: UserId) -> Result<Vec<SshKey>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM ssh_keys WHERE user_id = $1 ORDER BY created_at, id");
        Ok(sqlx::query_as(&sql).bind(user.to_string()).fetch_all(&self.pool).await?)
    }

    /// Forgets a key of this user and returns what it was.
    pub async fn delete_key(&self, user: UserId, id: KeyId, stamp: &Stamp) -> Result<Option<SshKey>, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = format!("DELETE FROM ssh_keys WHERE id = $1 AND user_id = $2 RETURNING {COLUMNS}");
        let gone: Option<SshKey> =
            sqlx::query_as(&sql).bind(id.to_string()).bind(user.to_string()).fetch_optional(&mut *tx).await?;
        if let Some(key) = &gone {
            tx.record(key.event(Action::Destroy));
        }
        tx.commit().await?;
        Ok(gone)
    }

    /// Whose key has this fingerprint, and the key's id; none for those who may not come in.
    pub async fn user_of_key(&self, fingerprint: &str) -> Result<Option<(User, KeyId)>, StoreError> {
        let sql = format!(
            "SELECT {USER}, k.id AS key_id FROM ssh_keys k JOIN users u ON u.id = k.user_id \
             WHERE k.fingerprint = $1 AND {ACTIVE}"
        );
        let found = sqlx::query(&sql).bind(fingerprint).fetch_optional(&self.pool).await?;
        let Some(found) = found else { return Ok(None) };
        Ok(Some((User::from_row(&found)?, row::text(&found, "key_id")?)))
    }

    /// Notes that somebody came in with a key.
    pub async fn note_key_use(&self, id: KeyId, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE ssh_keys SET last_used_at = $1 WHERE id = $2")
            .bind(now.as_millis())
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
