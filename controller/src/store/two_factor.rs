use model::{Timestamp, UserId};
use serde_json::json;
use sqlx::Row;

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, row};

/// The second factor of a user.
pub struct Totp {
    /// The secret that the user's phone shares.
    pub secret: Vec<u8>,
    /// Since when it counts; none while the phone has not proved that it has it.
    pub confirmed_at: Option<Timestamp>,
}

fn changed(user: UserId, what: &str) -> NewEvent {
    let data = json!({ "changed": [what] });
    NewEvent { app: None, resource: Resource::Account, id: user.to_string(), action: Action::Update, data }
}

/// What the sealed secret of a user is bound to.
fn totp_row(user: UserId) -> String {
    format!("users/{user}/totp_secret")
}

impl Store {
    /// A user's second factor.
    pub async fn totp(&self, user: UserId) -> Result<Option<Totp>, StoreError> {
        let found = sqlx::query("SELECT totp_secret, totp_confirmed_at FROM users WHERE id = $1")
            .bind(user.to_string())
            .fetch_optional(&self.pool)
            .await?;
        let Some(found) = found else { return Ok(None) };
        let Some(sealed) = found.try_get::<Option<String>, _>("totp_secret")? else { return Ok(None) };
        let secret = self.secrets.unseal(&totp_row(user), &sealed)?;
        Ok(Some(Totp { secret, confirmed_at: row::optional_time(&found, "totp_confirmed_at")? }))
    }

    /// Keeps a second factor that does not count yet; false if one counts already.
    pub async fn begin_totp(&self, user: UserId, secret: &[u8]) -> Result<bool, StoreError> {
        let mut tx = self.pool.begin().await?;
        // A rotation of the key waits for who has this row, and so finds what is sealed here.
        sqlx::query("UPDATE counters SET value = value WHERE name = 'app_uid'").execute(&mut *tx).await?;
        let begun = sqlx::query("UPDATE users SET totp_secret = $1 WHERE id = $2 AND totp_confirmed_at IS NULL")
            .bind(self.secrets.seal(&totp_row(user), secret)?)
            .bind(user.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(begun.rows_affected() == 1)
    }

    /// Lets a second factor count, from the time step of the code that proved it; false if one counts already.
    pub async fn confirm_totp(
        &self,
        user: UserId,
        step: i64,
        codes: &[String],
        stamp: &Stamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        let sql = "UPDATE users SET totp_confirmed_at = $1, totp_step = $2, updated_at = $1 \
             WHERE id = $3 AND totp_confirmed_at IS NULL AND totp_secret IS NOT NULL";
        let confirmed = sqlx::query(sql).bind(now).bind(step).bind(user.to_string()).execute(&mut *tx).await?;
        if confirmed.rows_affected() == 0 {
            return Ok(false);
        }
        put_codes(&mut tx, user, codes).await?;
        tx.record(changed(user, "two_factor_on"));
        tx.commit().await?;
        Ok(true)
    }

    /// Forgets a user's second factor.
    pub async fn end_totp(&self, user: UserId, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        let sql = "UPDATE users SET totp_secret = NULL, totp_confirmed_at = NULL, updated_at = $1 WHERE id = $2";
        sqlx::query(sql).bind(now).bind(user.to_string()).execute(&mut *tx).await?;
        put_codes(&mut tx, user, &[]).await?;
        tx.record(changed(user, "two_factor_off"));
        tx.commit().await
    }

    /// Takes the code of a time step, once; false if that step's or a later one's was taken before.
    pub async fn take_step(&self, user: UserId, step: i64) -> Result<bool, StoreError> {
        let sql = "UPDATE users SET totp_step = $1 WHERE id = $2 AND (totp_step IS NULL OR totp_step < $1)";
        let taken = sqlx::query(sql).bind(step).bind(user.to_string()).execute(&self.pool).await?;
        Ok(taken.rows_affected() == 1)
    }

    /// Other recovery codes from now on, given as hashes.
    pub async fn set_recovery_codes(&self, user: UserId, codes: &[String], stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        put_codes(&mut tx, user, codes).await?;
        tx.record(changed(user, "recovery_codes"));
        tx.commit().await
    }

    /// Takes a recovery code, once; false if it is none.
    pub async fn take_recovery_code(&self, user: UserId, digest: &str, stamp: &Stamp) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let taken = sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1 AND digest = $2")
            .bind(user.to_string())
            .bind(digest)
            .execute(&mut *tx)
            .await?;
        if taken.rows_affected() == 0 {
            return Ok(false);
        }
        tx.record(changed(user, "recovery_code_used"));
        tx.commit().await?;
        Ok(true)
    }

    /// How many recovery codes a user has left.
    pub async fn recovery_codes_left(&self, user: UserId) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM recovery_codes WHERE user_id = $1")
            .bind(user.to_string())
            .fetch_one(&self.pool)
            .await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }
}

async fn put_codes(tx: &mut super::Write<'_>, user: UserId, codes: &[String]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1").bind(user.to_string()).execute(&mut **tx).await?;
    for digest in codes {
        sqlx::query("INSERT INTO recovery_codes (user_id, digest) VALUES ($1, $2)")
            .bind(user.to_string())
            .bind(digest)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}
