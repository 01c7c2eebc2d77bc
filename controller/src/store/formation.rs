use model::{AppId, FormationId, ProcessType, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, FromRow, Row};

use super::contents::{Formation, ProcessScale};
use super::events::Write;
use super::releases::{Release, pending_restore};
use super::volumes::one_dyno;
use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, row};
use crate::sizes::DEFAULT_SIZE;

/// How many instances of a process type should run, and of which size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormationRow {
    /// Its id.
    pub id: FormationId,
    /// `web`, `worker`, …
    pub process_type: ProcessType,
    /// How many.
    pub quantity: u32,
    /// Canonical name of the dyno size.
    pub size: String,
    /// Number of its app's newest release when it was last scaled; 0 if it never was.
    pub scaled_in: u64,
    /// When the process type was first seen.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// A change of one process type; `None` leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// Which.
    pub process_type: ProcessType,
    /// How many.
    pub quantity: Option<Quantity>,
    /// Canonical name of the dyno size.
    pub size: Option<String>,
}

/// What a new process type begins with; `None` is Heroku's default: one `web`, none of any other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// How many.
    pub quantity: Option<u32>,
    /// Canonical name of the dyno size.
    pub size: Option<String>,
}

/// How many, absolutely or against now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// This many.
    Exactly(u32),
    /// So many more, or fewer.
    By(i32),
}

impl<'r> FromRow<'r, AnyRow> for FormationRow {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            process_type: row::text(row, "process_type")?,
            quantity: row::number(row, "quantity")?,
            size: row.try_get("size")?,
            scaled_in: row::number(row, "scaled_in")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

const SELECT: &str = "SELECT id, process_type, quantity, size, COALESCE(scaled_in, 0) AS scaled_in, created_at, \
     updated_at FROM formation WHERE app_id = $1 ORDER BY process_type";

impl Store {
    /// The formation of an app by process type, types that its current release no longer has included.
    pub async fn formation(&self, app: AppId) -> Result<Vec<FormationRow>, StoreError> {
        Ok(sqlx::query_as(SELECT).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// Gives a process type its place in the formation, unless it has one.
    pub async fn add_process_type(&self, app: AppId, name: &ProcessType, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        self.insert_process_type(&mut tx, app, (name, &Start::default()), now).await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn insert_process_type(
        &self,
        tx: &mut AnyConnection,
        app: AppId,
        (name, start): (&ProcessType, &Start),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let quantity = start.quantity.unwrap_or(u32::from(name.as_str() == "web"));
        sqlx::query(
            "INSERT INTO formation (id, app_id, process_type, quantity, size, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING",
        )
        .bind(FormationId::random(&*self.random).to_string())
        .bind(app.to_string())
        .bind(name.as_str())
        .bind(i64::from(quantity))
        .bind(start.size.as_deref().unwrap_or(DEFAULT_SIZE))
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await?;
        Ok(())
    }

    /// Applies all changes, or none if one of them is of an unknown process type or leaves 0 to `limit`.
    pub async fn scale(&self, app: AppId, changes: &[Scale], limit: u32, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        // Locks the app: relative changes that arrive at once add up.
        let newest: i64 =
            sqlx::query_scalar("UPDATE apps SET last_version = last_version WHERE id = $1 RETURNING last_version")
                .bind(app.to_string())
                .fetch_optional(&mut *tx)
                .await?
                .ok_or(StoreError::Missing("App"))?;
        let rows: Vec<FormationRow> = sqlx::query_as(SELECT).bind(app.to_string()).fetch_all(&mut *tx).await?;
        let mut rows: Vec<_> = rows.into_iter().map(|row| (i64::from(row.quantity), row)).collect();
        for change in changes {
            let (quantity, row) = rows
                .iter_mut()
                .find(|(_, row)| row.process_type == change.process_type)
                .ok_or(StoreError::Missing("Process type"))?;
            let before = row.clone();
            match change.quantity {
                Some(Quantity::Exactly(exactly)) => *quantity = i64::from(exactly),
                Some(Quantity::By(by)) => *quantity += i64::from(by),
                None => {}
            }
            if !(0..=i64::from(limit)).contains(quantity) {
                return Err(StoreError::Quantity { process_type: change.process_type.clone(), quantity: *quantity });
            }
            if let Ok(quantity @ 2..) = u32::try_from(*quantity) {
                one_dyno(&mut tx, app, (&change.process_type, quantity)).await?;
            }
            if let Some(size) = &change.size {
                row.size.clone_from(size);
            }
            let sql = "UPDATE formation SET quantity = $1, size = $2, updated_at = $3, scaled_in = $4 WHERE id = $5";
            sqlx::query(sql)
                .bind(*quantity)
                .bind(&row.size)
                .bind(tx.now())
                .bind(newest)
                .bind(row.id.to_string())
                .execute(&mut *tx)
                .await?;
            row.quantity = u32::try_from(*quantity).unwrap_or(u32::MAX);
            if (row.quantity, &row.size) != (before.quantity, &before.size) {
                let scale = ProcessScale { quantity: row.quantity, size: row.size.clone() };
                tx.record(scaled(app, &before, &scale));
            }
        }
        tx.commit().await
    }
}

impl Release {
    /// How a process type is scaled once this release is current: as the release says if it restores a formation, but for what
    /// was scaled since it was made.
    pub fn scale(&self, row: &FormationRow) -> ProcessScale {
        let own = self.formation.as_ref().filter(|_| self.restores && row.scaled_in < self.version);
        let own = own.and_then(|formation| formation.get(&row.process_type));
        own.cloned().unwrap_or_else(|| row.scale())
    }
}

impl FormationRow {
    /// How it is scaled.
    pub fn scale(&self) -> ProcessScale {
        ProcessScale { quantity: self.quantity, size: self.size.clone() }
    }
}

/// What should run of an app once its newest release is current, and whether a pending release restores that.
pub(super) async fn formation_in(tx: &mut AnyConnection, app: AppId) -> Result<(Formation, bool), StoreError> {
    let rows: Vec<FormationRow> = sqlx::query_as(SELECT).bind(app.to_string()).fetch_all(&mut *tx).await?;
    let pending = pending_restore(tx, app).await?;
    let scale = |row: FormationRow| {
        let scale = pending.as_ref().map_or_else(|| row.scale(), |pending| pending.scale(&row));
        (row.process_type, scale)
    };
    Ok((rows.into_iter().map(scale).collect(), pending.is_some()))
}

/// Scales an app as a release wants it that becomes current.
pub(super) async fn restore_formation(tx: &mut Write<'_>, release: &Release) -> Result<(), StoreError> {
    let rows: Vec<FormationRow> = sqlx::query_as(SELECT).bind(release.app.to_string()).fetch_all(&mut **tx).await?;
    for row in rows {
        let scale = release.scale(&row);
        if scale == row.scale() {
            continue;
        }
        let now = tx.now();
        sqlx::query("UPDATE formation SET quantity = $1, size = $2, updated_at = $3 WHERE id = $4")
            .bind(i64::from(scale.quantity))
            .bind(&scale.size)
            .bind(now)
            .bind(row.id.to_string())
            .execute(&mut **tx)
            .await?;
        tx.record(scaled(release.app, &row, &scale));
    }
    Ok(())
}

pub(super) fn scaled(app: AppId, before: &FormationRow, after: &ProcessScale) -> NewEvent {
    let data = json!({ "type": before.process_type, "quantity": after.quantity, "size": after.size,
        "previous_quantity": before.quantity, "previous_size": before.size });
    let (resource, id) = (Resource::Formation, before.id.to_string());
    NewEvent { app: Some(app), resource, id, action: Action::Update, data }
}
