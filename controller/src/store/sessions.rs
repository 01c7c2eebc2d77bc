use model::{SessionId, Timestamp, UserId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::users::{ACTIVE, USER};
use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, User, row};

/// A session of the console to keep.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// SHA-256 of its secret, in hex.
    pub digest: &'a str,
    /// Who is signed in.
    pub user: UserId,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// Names it where its secret must not be.
    pub id: SessionId,
    /// The browser, in its own words.
    pub agent: Option<&'a str>,
}

/// A session of the console that goes on.
#[derive(Debug, Clone)]
pub struct KnownSession {
    /// Its id.
    pub id: SessionId,
    /// Where it was begun: an IP address.
    pub address: Option<String>,
    /// The browser, in its own words.
    pub agent: Option<String>,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// When it was begun.
    pub created_at: Timestamp,
}

impl<'r> FromRow<'r, AnyRow> for KnownSession {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            address: row.try_get("address")?,
            agent: row.try_get("agent")?,
            expires_at: row::time(row, "expires_at")?,
            created_at: row::time(row, "created_at")?,
        })
    }
}

const COLUMNS: &str = "id, address, agent, expires_at, created_at";

impl Store {
    /// Keeps a session, and forgets those that have ended by its beginning.
    pub async fn insert_session(&self, new: NewSession<'_>, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query("DELETE FROM sessions WHERE expires_at <= $1").bind(tx.now()).execute(&mut *tx).await?;
        let address = stamp.by.as_ref().and_then(|by| by.origin.address);
        sqlx::query(
            "INSERT INTO sessions (digest, user_id, expires_at, created_at, id, address, agent) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(new.digest)
        .bind(new.user.to_string())
        .bind(new.expires_at.as_millis())
        .bind(tx.now())
        .bind(new.id.to_string())
        .bind(address.map(|address| address.to_string()))
        .bind(new.agent)
        .execute(&mut *tx)
        .await?;
        tx.record(changed(new.user, Action::Create));
        tx.commit().await
    }

    /// Whose session has this digest, if it goes on at `now`.
    pub async fn user_of_session(
        &self,
        digest: &str,
        now: Timestamp,
    ) -> Result<Option<(User, Option<SessionId>)>, StoreError> {
        let sql = format!(
            "SELECT {USER}, s.id AS session_id FROM sessions s JOIN users u ON u.id = s.user_id \
             WHERE s.digest = $1 AND s.expires_at > $2 AND {ACTIVE}"
        );
        let found = sqlx::query(&sql).bind(digest).bind(now.as_millis()).fetch_optional(&self.pool).await?;
        let Some(found) = found else { return Ok(None) };
        Ok(Some((User::from_row(&found)?, row::optional_text(&found, "session_id")?)))
    }

    /// A user's sessions that go on at `now`, the oldest first.
    pub async fn sessions(&self, user: UserId, now: Timestamp) -> Result<Vec<KnownSession>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM sessions WHERE user_id = $1 AND expires_at > $2 AND id IS NOT NULL ORDER BY created_at, id"
        );
        Ok(sqlx::query_as(&sql).bind(user.to_string()).bind(now.as_millis()).fetch_all(&self.pool).await?)
    }

    /// Ends one of a user's sessions and returns what it was.
    pub async fn end_session(
        &self,
        user: UserId,
        id: SessionId,
        stamp: &Stamp,
    ) -> Result<Option<KnownSession>, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = format!("DELETE FROM sessions WHERE id = $1 AND user_id = $2 RETURNING {COLUMNS}");
        let gone = sqlx::query_as(&sql).bind(id.to_string()).bind(user.to_string()).fetch_optional(&mut *tx).await?;
        if gone.is_some() {
            tx.record(changed(user, Action::Destroy));
        }
        tx.commit().await?;
        Ok(gone)
    }

    /// Forgets a session.
    pub async fn delete_session(&self, user: UserId, digest: &str, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let gone = sqlx::query("DELETE FROM sessions WHERE digest = $1").bind(digest).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(user, Action::Destroy));
        }
        tx.commit().await
    }
}

/// A session is named by whose it is: its own digest is nobody's business.
fn changed(user: UserId, action: Action) -> NewEvent {
    NewEvent { app: None, resource: Resource::Session, id: user.to_string(), action, data: json!({}) }
}
