use model::{Timestamp, TokenId, UserId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, User, row};

/// A token that gives access as one user. The token's text is kept nowhere.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its id, which is also the id of its OAuth authorization.
    pub id: TokenId,
    /// Whose it is.
    pub user: UserId,
    /// What it is for, in the user's words.
    pub description: String,
    /// No longer good from then on.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A token to keep.
#[derive(Debug)]
pub struct NewToken<'a> {
    /// What is known of it.
    pub token: &'a Token,
    /// SHA-256 of its text, in hex.
    pub digest: &'a str,
}

impl<'r> FromRow<'r, AnyRow> for Token {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            user: row::text(row, "user_id")?,
            description: row.try_get("description")?,
            expires_at: row::optional_time(row, "expires_at")?,
            created_at: row::time(row, "created_at")?,
        })
    }
}

const COLUMNS: &str = "id, user_id, description, expires_at, created_at";

impl Store {
    /// Keeps a token.
    pub async fn insert_token(&self, new: NewToken<'_>, stamp: &Stamp) -> Result<(), StoreError> {
        let token = new.token;
        let mut tx = self.begin(stamp).await?;
        sqlx::query(
            "INSERT INTO tokens (id, user_id, digest, description, expires_at, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(token.id.to_string())
        .bind(token.user.to_string())
        .bind(new.digest)
        .bind(&token.description)
        .bind(token.expires_at.map(Timestamp::as_millis))
        .bind(token.created_at.as_millis())
        .execute(&mut *tx)
        .await?;
        tx.record(changed(token, Action::Create));
        tx.commit().await
    }

    /// Whose token has this digest, if it is good at `now`, and the token's id.
    pub async fn user_of_token(&self, digest: &str, now: Timestamp) -> Result<Option<(User, TokenId)>, StoreError> {
        let found = sqlx::query(
            "SELECT u.id, u.email, u.operator, u.last_login_at, u.created_at, u.updated_at, t.id AS token_id \
             FROM tokens t JOIN users u ON u.id = t.user_id \
             WHERE t.digest = $1 AND (t.expires_at IS NULL OR t.expires_at > $2)",
        )
        .bind(digest)
        .bind(now.as_millis())
        .fetch_optional(&self.pool)
        .await?;
        let Some(found) = found else { return Ok(None) };
        Ok(Some((User::from_row(&found)?, row::text(&found, "token_id")?)))
    }

    /// A user's tokens that are good at `now`, the oldest first.
    pub async fn tokens(&self, user: UserId, now: Timestamp) -> Result<Vec<Token>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM tokens WHERE user_id = $1 AND (expires_at IS NULL OR expires_at > $2) \
             ORDER BY created_at, id"
        );
        Ok(sqlx::query_as(&sql).bind(user.to_string()).bind(now.as_millis()).fetch_all(&self.pool).await?)
    }

    /// Forgets a token of this user and returns what it was.
    pub async fn delete_token(&self, user: UserId, token: TokenId, stamp: &Stamp) -> Result<Option<Token>, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = format!("DELETE FROM tokens WHERE id = $1 AND user_id = $2 RETURNING {COLUMNS}");
        let gone = sqlx::query_as(&sql).bind(token.to_string()).bind(user.to_string()).fetch_optional(&mut *tx).await?;
        if let Some(gone) = &gone {
            tx.record(changed(gone, Action::Destroy));
        }
        tx.commit().await?;
        Ok(gone)
    }

    /// Forgets the tokens that are no longer good at `now`.
    pub async fn delete_expired_tokens(&self, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM tokens WHERE expires_at <= $1").bind(now.as_millis()).execute(&self.pool).await?;
        Ok(())
    }
}

fn changed(token: &Token, action: Action) -> NewEvent {
    let data = json!({ "description": token.description });
    NewEvent { app: None, resource: Resource::Authorization, id: token.id.to_string(), action, data }
}
