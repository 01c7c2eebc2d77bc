use model::{SourceId, Timestamp, UserId};
use sqlx::FromRow;
use sqlx::any::AnyRow;

use super::{Store, StoreError, row};

/// An archive that a client sends, or may send, to build from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its id, and the name of its file.
    pub id: SourceId,
    /// Who asked for it.
    pub user: UserId,
    /// When it goes.
    pub expires_at: Timestamp,
    /// When it was asked for.
    pub created_at: Timestamp,
}

/// What a secret lets its holder do with a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceUse {
    /// Send it.
    Put,
    /// Read it.
    Get,
}

impl<'r> FromRow<'r, AnyRow> for Source {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            user: row::text(row, "user_id")?,
            expires_at: row::time(row, "expires_at")?,
            created_at: row::time(row, "created_at")?,
        })
    }
}

impl Store {
    /// Notes a source and the digests of what opens it.
    pub async fn insert_source(&self, source: &Source, put: &str, get: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO sources (id, user_id, put_digest, get_digest, expires_at, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(source.id.to_string())
        .bind(source.user.to_string())
        .bind(put)
        .bind(get)
        .bind(source.expires_at.as_millis())
        .bind(source.created_at.as_millis())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The source that the secret of this digest opens, unless it has expired.
    pub async fn source(&self, usage: SourceUse, digest: &str, now: Timestamp) -> Result<Option<Source>, StoreError> {
        let column = match usage {
            SourceUse::Put => "put_digest",
            SourceUse::Get => "get_digest",
        };
        let sql =
            format!("SELECT id, user_id, expires_at, created_at FROM sources WHERE {column} = $1 AND expires_at > $2");
        Ok(sqlx::query_as(&sql).bind(digest).bind(now.as_millis()).fetch_optional(&self.pool).await?)
    }

    /// How many sources of a user have not expired.
    pub async fn count_sources(&self, user: UserId, now: Timestamp) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM sources WHERE user_id = $1 AND expires_at > $2";
        Ok(sqlx::query_scalar(sql).bind(user.to_string()).bind(now.as_millis()).fetch_one(&self.pool).await?)
    }

    /// Forgets the sources that have expired, and tells which are left.
    pub async fn expire_sources(&self, now: Timestamp) -> Result<Vec<SourceId>, StoreError> {
        sqlx::query("DELETE FROM sources WHERE expires_at <= $1").bind(now.as_millis()).execute(&self.pool).await?;
        let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM sources").fetch_all(&self.pool).await?;
        ids.iter().map(|id| id.parse().map_err(|_| StoreError::Missing("Source"))).collect()
    }
}
