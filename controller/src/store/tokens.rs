use model::{AppName, Role, Timestamp, TokenId, UserId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::users::{ACTIVE, USER};
use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, User, row};
use crate::grants::{Grant, Scope};

/// A token that gives access as one user. The token's text is kept nowhere.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its id, which is also the id of its OAuth authorization.
    pub id: TokenId,
    /// Whose it is.
    pub user: UserId,
    /// What it is for, in the user's words.
    pub description: String,
    /// How much of what its user may do it lets do.
    pub grant: Grant,
    /// The name of the one app that it is good for, if it is limited to one.
    pub app_name: Option<AppName>,
    /// No longer good from then on.
    pub expires_at: Option<Timestamp>,
    /// When somebody last came in with it, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last described or made anew.
    pub updated_at: Timestamp,
}

/// A token to keep.
#[derive(Debug)]
pub struct NewToken<'a> {
    /// What is known of it.
    pub token: &'a Token,
    /// SHA-256 of its text, in hex.
    pub digest: &'a str,
}

/// Somebody who came in with a token.
#[derive(Debug)]
pub struct Bearer {
    /// Who.
    pub user: User,
    /// With which.
    pub token: TokenId,
    /// How much it lets do.
    pub grant: Grant,
    /// When somebody last came in with it, to the minute.
    pub last_used_at: Option<Timestamp>,
}

impl<'r> FromRow<'r, AnyRow> for Token {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let created_at = row::time(row, "created_at")?;
        Ok(Self {
            id: row::text(row, "id")?,
            user: row::text(row, "user_id")?,
            description: row.try_get("description")?,
            grant: grant(row)?,
            app_name: row::optional_text(row, "app_name")?,
            expires_at: row::optional_time(row, "expires_at")?,
            last_used_at: row::optional_time(row, "last_used_at")?,
            created_at,
            updated_at: row::optional_time(row, "updated_at")?.unwrap_or(created_at),
        })
    }
}

fn grant(row: &AnyRow) -> Result<Grant, sqlx::Error> {
    let scopes: Vec<Scope> = match row.try_get::<Option<String>, _>("scope")? {
        None => vec![Scope::Global],
        Some(words) => words.split(' ').filter_map(|word| word.parse().ok()).collect(),
    };
    let role: Option<Role> = row::optional_text(row, "role")?;
    Ok(Grant { scopes, limit: row::optional_text(row, "app_id")?.zip(role) })
}

const SELECT: &str = "SELECT t.id, t.user_id, t.description, t.scope, t.app_id, t.role, a.name AS app_name, t.expires_at, \
     t.last_used_at, t.created_at, t.updated_at FROM tokens t LEFT JOIN apps a ON a.id = t.app_id";

impl Store {
    /// Keeps a token.
    pub async fn insert_token(&self, new: NewToken<'_>, stamp: &Stamp) -> Result<(), StoreError> {
        let token = new.token;
        let scopes: Vec<String> = token.grant.scopes.iter().map(ToString::to_string).collect();
        let mut tx = self.begin(stamp).await?;
        sqlx::query(
            "INSERT INTO tokens (id, user_id, digest, description, scope, app_id, role, expires_at, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(token.id.to_string())
        .bind(token.user.to_string())
        .bind(new.digest)
        .bind(&token.description)
        .bind(scopes.join(" "))
        .bind(token.grant.limit.map(|(app, _)| app.to_string()))
        .bind(token.grant.limit.map(|(_, role)| role.to_string()))
        .bind(token.expires_at.map(Timestamp::as_millis))
        .bind(token.created_at.as_millis())
        .execute(&mut *tx)
        .await?;
        tx.record(changed(token, Action::Create));
        tx.commit().await
    }

    /// Whose token has this digest, if it is good at `now`.
    pub async fn bearer(&self, digest: &str, now: Timestamp) -> Result<Option<Bearer>, StoreError> {
        let sql = format!(
            "SELECT {USER}, t.id AS token_id, t.scope, t.app_id, t.role, t.last_used_at FROM tokens t \
             JOIN users u ON u.id = t.user_id \
             WHERE t.digest = $1 AND (t.expires_at IS NULL OR t.expires_at > $2) AND {ACTIVE}"
        );
        let found = sqlx::query(&sql).bind(digest).bind(now.as_millis()).fetch_optional(&self.pool).await?;
        let Some(found) = found else { return Ok(None) };
        Ok(Some(Bearer {
            user: User::from_row(&found)?,
            token: row::text(&found, "token_id")?,
            grant: grant(&found)?,
            last_used_at: row::optional_time(&found, "last_used_at")?,
        }))
    }

    /// Notes that somebody came in with a token.
    pub async fn note_token_use(&self, token: TokenId, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE tokens SET last_used_at = $1 WHERE id = $2")
            .bind(now.as_millis())
            .bind(token.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// A user's tokens that are good at `now`, the oldest first.
    pub async fn tokens(&self, user: UserId, now: Timestamp) -> Result<Vec<Token>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE t.user_id = $1 AND (t.expires_at IS NULL OR t.expires_at > $2) ORDER BY t.created_at, t.id"
        );
        Ok(sqlx::query_as(&sql).bind(user.to_string()).bind(now.as_millis()).fetch_all(&self.pool).await?)
    }

    /// Says what a token is for, or gives it another digest, and so another text.
    pub async fn update_token(
        &self,
        token: &Token,
        (description, digest): (Option<&str>, Option<&str>),
        stamp: &Stamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        sqlx::query(
            "UPDATE tokens SET description = COALESCE($1, description), digest = COALESCE($2, digest), updated_at = $3 \
             WHERE id = $4",
        )
        .bind(description)
        .bind(digest)
        .bind(now)
        .bind(token.id.to_string())
        .execute(&mut *tx)
        .await?;
        tx.record(changed(token, Action::Update));
        tx.commit().await
    }

    /// Forgets a token of this user and returns what it was.
    pub async fn delete_token(&self, user: UserId, token: TokenId, stamp: &Stamp) -> Result<Option<Token>, StoreError> {
        let mut tx = self.begin(stamp).await?;
        // The write comes first: it locks the row that is read.
        let locked = sqlx::query("UPDATE tokens SET updated_at = updated_at WHERE id = $1 AND user_id = $2")
            .bind(token.to_string())
            .bind(user.to_string())
            .execute(&mut *tx)
            .await?;
        if locked.rows_affected() == 0 {
            return Ok(None);
        }
        let gone: Token =
            sqlx::query_as(&format!("{SELECT} WHERE t.id = $1")).bind(token.to_string()).fetch_one(&mut *tx).await?;
        sqlx::query("DELETE FROM tokens WHERE id = $1").bind(token.to_string()).execute(&mut *tx).await?;
        tx.record(changed(&gone, Action::Destroy));
        tx.commit().await?;
        Ok(Some(gone))
    }

    /// Forgets the tokens that are no longer good; how many.
    pub async fn delete_expired_tokens(&self, stamp: &Stamp) -> Result<usize, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        // The write comes first: it locks the rows that are read.
        sqlx::query("UPDATE tokens SET updated_at = updated_at WHERE expires_at <= $1")
            .bind(now)
            .execute(&mut *tx)
            .await?;
        let gone: Vec<Token> =
            sqlx::query_as(&format!("{SELECT} WHERE t.expires_at <= $1")).bind(now).fetch_all(&mut *tx).await?;
        sqlx::query("DELETE FROM tokens WHERE expires_at <= $1").bind(now).execute(&mut *tx).await?;
        for token in &gone {
            let mut event = changed(token, Action::Destroy);
            event.data["expired"] = json!(true);
            tx.record(event);
        }
        tx.commit().await?;
        Ok(gone.len())
    }
}

fn changed(token: &Token, action: Action) -> NewEvent {
    let scope: Vec<String> = token.grant.scopes.iter().map(ToString::to_string).collect();
    let data = json!({ "description": token.description, "scope": scope });
    let app = token.grant.limit.map(|(app, _)| app);
    NewEvent { app, resource: Resource::Authorization, id: token.id.to_string(), action, data }
}
