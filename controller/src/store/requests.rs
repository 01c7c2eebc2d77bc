use model::Timestamp;
use sqlx::Row;

use super::{Store, StoreError};

/// What is known of a request that may have been sent before.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is to be answered now, and nobody else does.
    New,
    /// Somebody answers it just now.
    Open,
    /// What was answered.
    Answered {
        /// HTTP's word for it.
        status: u16,
        /// The body.
        body: Vec<u8>,
    },
    /// It was another request.
    Other,
}

impl Store {
    /// Looks a request up, or takes it on until `end`. `id` is who sends it under which key, `digest` what it asks for.
    pub async fn take_request(
        &self,
        (id, digest): (&str, &str),
        now: Timestamp,
        end: Timestamp,
    ) -> Result<Known, StoreError> {
        sqlx::query("DELETE FROM kept_requests WHERE expires_at <= $1")
            .bind(now.as_millis())
            .execute(&self.pool)
            .await?;
        let sql = "INSERT INTO kept_requests (id, digest, expires_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING";
        let taken = sqlx::query(sql).bind(id).bind(digest).bind(end.as_millis()).execute(&self.pool).await?;
        if taken.rows_affected() == 1 {
            return Ok(Known::New);
        }
        let sql = "SELECT digest, status, answer FROM kept_requests WHERE id = $1";
        let Some(row) = sqlx::query(sql).bind(id).fetch_optional(&self.pool).await? else { return Ok(Known::Open) };
        if row.try_get::<String, _>("digest")? != digest {
            return Ok(Known::Other);
        }
        let (status, sealed): (Option<i64>, Option<String>) = (row.try_get("status")?, row.try_get("answer")?);
        let (Some(status), Some(sealed)) = (status.and_then(|status| status.try_into().ok()), sealed) else {
            return Ok(Known::Open);
        };
        Ok(Known::Answered { status, body: self.secrets.unseal(&sealed_row(id), &sealed)? })
    }

    /// Keeps what was answered until `end`.
    pub async fn keep_answer(&self, id: &str, (status, body): (u16, &[u8]), end: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        // What seals something waits here for a rotation of the key, and a rotation for what seals something.
        sqlx::query("UPDATE counters SET value = value").execute(&mut *tx).await?;
        let sealed = self.secrets.seal(&sealed_row(id), body)?;
        sqlx::query("UPDATE kept_requests SET status = $1, answer = $2, expires_at = $3 WHERE id = $4")
            .bind(i64::from(status))
            .bind(sealed)
            .bind(end.as_millis())
            .bind(id)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Forgets a request that can be sent again as if it had never been.
    pub async fn forget_request(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM kept_requests WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(())
    }
}

fn sealed_row(id: &str) -> String {
    format!("kept_requests/{id}/answer")
}
