use model::{Timestamp, UserId};

use super::{Store, StoreError, User};

/// A session of the console to keep.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// SHA-256 of its secret, in hex.
    pub digest: &'a str,
    /// Who is signed in.
    pub user: UserId,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

impl Store {
    /// Keeps a session, and forgets those that have ended by its beginning.
    pub async fn insert_session(&self, new: NewSession<'_>) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE expires_at <= $1")
            .bind(new.created_at.as_millis())
            .execute(&self.pool)
            .await?;
        sqlx::query("INSERT INTO sessions (digest, user_id, expires_at, created_at) VALUES ($1, $2, $3, $4)")
            .bind(new.digest)
            .bind(new.user.to_string())
            .bind(new.expires_at.as_millis())
            .bind(new.created_at.as_millis())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Whose session has this digest, if it goes on at `now`.
    pub async fn user_of_session(&self, digest: &str, now: Timestamp) -> Result<Option<User>, StoreError> {
        let found = sqlx::query_as(
            "SELECT u.id, u.email, u.last_login_at, u.created_at, u.updated_at \
             FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.digest = $1 AND s.expires_at > $2",
        )
        .bind(digest)
        .bind(now.as_millis())
        .fetch_optional(&self.pool)
        .await?;
        Ok(found)
    }

    /// Forgets a session.
    pub async fn delete_session(&self, digest: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE digest = $1").bind(digest).execute(&self.pool).await?;
        Ok(())
    }
}
