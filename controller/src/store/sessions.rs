use model::{Timestamp, UserId};
use serde_json::json;

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, User};

/// A session of the console to keep.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// SHA-256 of its secret, in hex.
    pub digest: &'a str,
    /// Who is signed in.
    pub user: UserId,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

impl Store {
    /// Keeps a session, and forgets those that have ended by its beginning.
    pub async fn insert_session(&self, new: NewSession<'_>, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query("DELETE FROM sessions WHERE expires_at <= $1").bind(tx.now()).execute(&mut *tx).await?;
        sqlx::query("INSERT INTO sessions (digest, user_id, expires_at, created_at) VALUES ($1, $2, $3, $4)")
            .bind(new.digest)
            .bind(new.user.to_string())
            .bind(new.expires_at.as_millis())
            .bind(tx.now())
            .execute(&mut *tx)
            .await?;
        tx.record(changed(new.user, Action::Create));
        tx.commit().await
    }

    /// Whose session has this digest, if it goes on at `now`.
    pub async fn user_of_session(&self, digest: &str, now: Timestamp) -> Result<Option<User>, StoreError> {
        let found = sqlx::query_as(
            "SELECT u.id, u.email, u.operator, u.last_login_at, u.created_at, u.updated_at \
             FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.digest = $1 AND s.expires_at > $2",
        )
        .bind(digest)
        .bind(now.as_millis())
        .fetch_optional(&self.pool)
        .await?;
        Ok(found)
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
