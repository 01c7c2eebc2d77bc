//! Sizes of dynos that an operator made.

use model::DynoSize;
use serde_json::json;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, row};

struct SizeRow(DynoSize);

impl<'r> sqlx::FromRow<'r, AnyRow> for SizeRow {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self(DynoSize {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            memory_bytes: row::number(row, "memory_bytes")?,
            dedicated: row::number::<u64>(row, "dedicated")? == 1,
            cpu_millis: row::number(row, "cpu_millis")?,
            cpu_weight: row::number(row, "cpu_weight")?,
            pids: row::number(row, "pids")?,
            disk_bytes: row::number(row, "disk_bytes")?,
            files: row::number(row, "files")?,
            open_files: row::number(row, "open_files")?,
        }))
    }
}

impl Store {
    /// The sizes that an operator made, by name.
    pub async fn own_sizes(&self) -> Result<Vec<DynoSize>, StoreError> {
        let rows: Vec<SizeRow> = sqlx::query_as("SELECT * FROM dyno_sizes ORDER BY name").fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(|SizeRow(size)| size).collect())
    }

    /// Makes a size, or changes the one of its id. Its name never changes.
    pub async fn set_size(&self, size: &DynoSize, action: Action, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        let insert = sqlx::query(
            "INSERT INTO dyno_sizes (id, name, memory_bytes, dedicated, cpu_millis, cpu_weight, pids, disk_bytes, files, \
             open_files, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11) \
             ON CONFLICT (id) DO UPDATE SET memory_bytes = excluded.memory_bytes, dedicated = excluded.dedicated, \
             cpu_millis = excluded.cpu_millis, cpu_weight = excluded.cpu_weight, pids = excluded.pids, \
             disk_bytes = excluded.disk_bytes, files = excluded.files, open_files = excluded.open_files, \
             updated_at = excluded.updated_at",
        )
        .bind(&size.id)
        .bind(&size.name)
        .bind(whole(size.memory_bytes))
        .bind(i64::from(size.dedicated))
        .bind(i64::from(size.cpu_millis))
        .bind(i64::from(size.cpu_weight))
        .bind(i64::from(size.pids))
        .bind(whole(size.disk_bytes))
        .bind(whole(size.files))
        .bind(whole(size.open_files))
        .bind(now);
        insert.execute(&mut *tx).await.map_err(StoreError::taken("Name"))?;
        tx.record(changed(size, action));
        tx.commit().await
    }

    /// Forgets a size, unless a process type has it: then the answer is whose app that is.
    pub async fn delete_size(&self, size: &DynoSize, stamp: &Stamp) -> Result<Option<(String, String)>, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let user = "SELECT a.name, f.process_type FROM formation f JOIN apps a ON a.id = f.app_id \
                    WHERE f.size = $1 ORDER BY a.name LIMIT 1";
        if let Some(row) = sqlx::query(user).bind(&size.name).fetch_optional(&mut *tx).await? {
            return Ok(Some((row.try_get("name")?, row.try_get("process_type")?)));
        }
        sqlx::query("DELETE FROM dyno_sizes WHERE id = $1").bind(&size.id).execute(&mut *tx).await?;
        tx.record(changed(size, Action::Destroy));
        tx.commit().await?;
        Ok(None)
    }
}

fn changed(size: &DynoSize, action: Action) -> NewEvent {
    let data = json!({ "name": size.name, "memory_bytes": size.memory_bytes, "dedicated": size.dedicated,
        "cpu_millis": size.cpu_millis, "cpu_weight": size.cpu_weight, "processes": size.pids,
        "disk_bytes": size.disk_bytes, "files": size.files, "open_files": size.open_files });
    NewEvent { app: None, resource: Resource::DynoSize, id: size.id.clone(), action, data }
}

/// As the database has it. No size has so much.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
