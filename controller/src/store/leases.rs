//! Who does what only one controller may do at a time.

use model::Timestamp;
use sqlx::AnyConnection;

use super::{Store, StoreError};

/// A duty that one controller has until it expires. Each taking has an epoch of its own, larger than any before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which duty: `rollout`, `addons`, …
    pub duty: String,
    /// Which controller.
    pub holder: String,
    /// Its number.
    pub epoch: i64,
}

impl Store {
    /// Takes a duty until some moment; none if another controller has it by now. Whoever has it already takes it anew: what its
    /// earlier life still tries to write is refused from then on.
    pub async fn take_lease(
        &self,
        (duty, holder): (&str, &str),
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        let epoch: Option<i64> = sqlx::query_scalar(
            "INSERT INTO leases (duty, holder, epoch, expires_at) VALUES ($1, $2, 1, $3) \
             ON CONFLICT (duty) DO UPDATE \
             SET holder = excluded.holder, epoch = leases.epoch + 1, expires_at = excluded.expires_at \
             WHERE leases.holder = excluded.holder OR leases.expires_at <= $4 RETURNING epoch",
        )
        .bind(duty)
        .bind(holder)
        .bind(until.as_millis())
        .bind(now.as_millis())
        .fetch_optional(&self.pool)
        .await?;
        Ok(epoch.map(|epoch| Lease { duty: duty.to_owned(), holder: holder.to_owned(), epoch }))
    }

    /// Keeps a duty until some moment; false if it was taken by another, or anew.
    pub async fn renew_lease(&self, lease: &Lease, until: Timestamp) -> Result<bool, StoreError> {
        let kept = sqlx::query("UPDATE leases SET expires_at = $1 WHERE duty = $2 AND holder = $3 AND epoch = $4")
            .bind(until.as_millis())
            .bind(&lease.duty)
            .bind(&lease.holder)
            .bind(lease.epoch)
            .execute(&self.pool)
            .await?;
        Ok(kept.rows_affected() == 1)
    }

    /// From now on, what the platform does by itself is refused with [`StoreError::Fenced`] once one of these duties was taken by
    /// another controller.
    pub fn hold(&self, leases: Vec<Lease>) {
        // A process takes its duties once.
        let _ = self.duties.set(leases);
    }

    /// Who has a duty, or had it last.
    pub async fn lease_holder(&self, duty: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT holder FROM leases WHERE duty = $1";
        Ok(sqlx::query_scalar(sql).bind(duty).fetch_optional(&self.pool).await?)
    }
}

impl Lease {
    /// Refuses to go on with a transaction if the duty was taken by another; nobody takes it before the transaction ends.
    pub(super) async fn check(&self, tx: &mut AnyConnection) -> Result<(), StoreError> {
        let held = sqlx::query("UPDATE leases SET epoch = epoch WHERE duty = $1 AND holder = $2 AND epoch = $3")
            .bind(&self.duty)
            .bind(&self.holder)
            .bind(self.epoch)
            .execute(tx)
            .await?;
        if held.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Fenced(self.duty.clone())) }
    }
}
