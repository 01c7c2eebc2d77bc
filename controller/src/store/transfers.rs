use std::fmt;
use std::str::FromStr;

use model::{AddonId, AppId, NameError, Timestamp, TransferId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, FromRow, Row};

use super::{Action, Addon, NewEvent, Resource, Stamp, Store, StoreError, row};

/// A backup of an add-on's data, or a restore of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Its id.
    pub id: TransferId,
    /// Of which add-on.
    pub addon: AddonId,
    /// From 1, without gaps but for what was deleted.
    pub number: u64,
    /// What it does.
    pub action: TransferAction,
    /// The number of the backup that a restore takes.
    pub source: Option<u64>,
    /// What became of it.
    pub state: TransferState,
    /// Why it failed, for people.
    pub failure: Option<String>,
    /// Size of the backup, once it succeeded.
    pub bytes: u64,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// What a transfer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferAction {
    /// Makes a backup of what is there.
    Capture,
    /// Takes a backup that a user sends.
    Upload,
    /// Replaces what is there by a backup.
    Restore,
}

/// What became of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferState {
    /// It runs.
    Running,
    /// It is done.
    Succeeded,
    /// It changed nothing.
    Failed,
}

impl FromStr for TransferAction {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "capture" => Ok(Self::Capture),
            "upload" => Ok(Self::Upload),
            "restore" => Ok(Self::Restore),
            _ => Err(NameError("A transfer is a capture, an upload or a restore".to_owned())),
        }
    }
}

impl fmt::Display for TransferAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Capture => "capture",
            Self::Upload => "upload",
            Self::Restore => "restore",
        })
    }
}

impl FromStr for TransferState {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "running" => Ok(Self::Running),
            "succeeded" => Ok(Self::Succeeded),
            "failed" => Ok(Self::Failed),
            _ => Err(NameError("A transfer is running, succeeded or failed".to_owned())),
        }
    }
}

impl fmt::Display for TransferState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        })
    }
}

impl<'r> FromRow<'r, AnyRow> for Transfer {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let source: Option<i64> = row.try_get("source")?;
        Ok(Self {
            id: row::text(row, "id")?,
            addon: row::text(row, "addon_id")?,
            number: row::number(row, "number")?,
            action: row::text(row, "action")?,
            source: source.and_then(|number| u64::try_from(number).ok()),
            state: row::text(row, "state")?,
            failure: row.try_get("failure")?,
            bytes: row::number(row, "bytes")?,
            created_at: row::time(row, "created_at")?,
            finished_at: row::optional_time(row, "finished_at")?,
        })
    }
}

const COLUMNS: &str = "id, addon_id, number, action, source, state, failure, bytes, created_at, finished_at";

impl Store {
    /// Notes a transfer that is about to begin. One at a time: none if another of this add-on runs.
    pub async fn insert_transfer(
        &self,
        addon: &Addon,
        action: TransferAction,
        source: Option<u64>,
        stamp: &Stamp,
    ) -> Result<Option<Transfer>, StoreError> {
        let mut tx = self.begin(stamp).await?;
        // Takes the lock that the numbers depend on.
        sqlx::query("UPDATE addons SET updated_at = $1 WHERE id = $2")
            .bind(tx.now())
            .bind(addon.id.to_string())
            .execute(&mut *tx)
            .await?;
        let sql = "SELECT count(*) FROM addon_transfers WHERE addon_id = $1 AND state = 'running'";
        let running: i64 = sqlx::query_scalar(sql).bind(addon.id.to_string()).fetch_one(&mut *tx).await?;
        if running > 0 {
            return Ok(None);
        }
        let sql = "SELECT COALESCE(MAX(number), 0) FROM addon_transfers WHERE addon_id = $1";
        let newest: i64 = sqlx::query_scalar(sql).bind(addon.id.to_string()).fetch_one(&mut *tx).await?;
        let sql = format!(
            "INSERT INTO addon_transfers (id, addon_id, number, action, source, state, bytes, created_at) \
             VALUES ($1, $2, $3, $4, $5, 'running', 0, $6) RETURNING {COLUMNS}"
        );
        let made = sqlx::query_as(&sql)
            .bind(TransferId::random(&*self.random).to_string())
            .bind(addon.id.to_string())
            .bind(newest + 1)
            .bind(action.to_string())
            .bind(source.and_then(|number| i64::try_from(number).ok()))
            .bind(tx.now())
            .fetch_one(&mut *tx)
            .await?;
        tx.record(changed(Some(addon.app), &made, Action::Create, made.state));
        tx.commit().await?;
        Ok(Some(made))
    }

    /// Ends a running transfer, with the size of what it made or the reason why it failed.
    pub async fn finish_transfer(
        &self,
        transfer: &Transfer,
        outcome: Result<u64, String>,
        stamp: &Stamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let (state, bytes, failure) = match outcome {
            Ok(bytes) => (TransferState::Succeeded, bytes, None),
            Err(reason) => (TransferState::Failed, 0, Some(reason)),
        };
        let ended = sqlx::query(
            "UPDATE addon_transfers SET state = $1, bytes = $2, failure = $3, finished_at = $4 \
             WHERE id = $5 AND state = 'running'",
        )
        .bind(state.to_string())
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .bind(failure)
        .bind(tx.now())
        .bind(transfer.id.to_string())
        .execute(&mut *tx)
        .await?;
        if ended.rows_affected() > 0 {
            let app = app_of(&mut tx, transfer.addon).await?;
            tx.record(changed(app, transfer, Action::Update, state));
        }
        tx.commit().await
    }

    /// The transfers of an add-on, the oldest first.
    pub async fn transfers(&self, addon: AddonId) -> Result<Vec<Transfer>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM addon_transfers WHERE addon_id = $1 ORDER BY number");
        Ok(sqlx::query_as(&sql).bind(addon.to_string()).fetch_all(&self.pool).await?)
    }

    /// The transfers of all add-ons that are not over.
    pub async fn running_transfers(&self) -> Result<Vec<Transfer>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM addon_transfers WHERE state = 'running' ORDER BY created_at, id");
        Ok(sqlx::query_as(&sql).fetch_all(&self.pool).await?)
    }

    /// Forgets a transfer.
    pub async fn delete_transfer(&self, transfer: &Transfer, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let app = app_of(&mut tx, transfer.addon).await?;
        let sql = "DELETE FROM addon_transfers WHERE id = $1";
        let gone = sqlx::query(sql).bind(transfer.id.to_string()).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(app, transfer, Action::Destroy, transfer.state));
        }
        tx.commit().await
    }
}

async fn app_of(tx: &mut AnyConnection, addon: AddonId) -> Result<Option<AppId>, StoreError> {
    let sql = "SELECT app_id FROM addons WHERE id = $1";
    let id: Option<String> = sqlx::query_scalar(sql).bind(addon.to_string()).fetch_optional(tx).await?;
    Ok(id.and_then(|id| id.parse().ok()))
}

fn changed(app: Option<AppId>, transfer: &Transfer, action: Action, state: TransferState) -> NewEvent {
    let (what, number, addon) = (transfer.action.to_string(), transfer.number, transfer.addon);
    let data = json!({ "addon": addon, "action": what, "number": number, "state": state.to_string() });
    NewEvent { app, resource: Resource::Backup, id: transfer.id.to_string(), action, data }
}
