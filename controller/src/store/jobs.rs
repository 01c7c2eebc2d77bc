//! What apps want to have run at certain times. What becomes of it is in `job_runs.rs`.

use std::collections::BTreeMap;

use model::{AppId, JobId, JobSpec, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, FromRow, Row};

use super::events::Write;
use super::{NewEvent, Stamp, Store, StoreError, row};

/// A job of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Of which app.
    pub app: AppId,
    /// What it is called; no two of an app share it.
    pub name: String,
    /// What the app.json of the current release says of it, if that has such a job.
    pub declared: Option<BTreeMap<String, String>>,
    /// What somebody set of it.
    pub set: BTreeMap<String, String>,
    /// Somebody made it: it stays when app.json has no such job.
    pub made: bool,
    /// It is gone once nothing of it runs.
    pub removed: bool,
    /// When it is due next.
    pub next_due: Option<Timestamp>,
    /// The number of its newest run.
    pub last_number: u64,
    /// What went wrong last, and when, unless a run succeeded since.
    pub alert: Option<(String, Timestamp)>,
    /// The number of the release that its app has now.
    pub current: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

impl Job {
    /// All that is said of it. What is set counts before what app.json says.
    pub fn spec(&self) -> JobSpec {
        JobSpec::from_texts(&crate::policy::merged(&self.declared.clone().unwrap_or_default(), &self.set))
    }
}

impl<'r> FromRow<'r, AnyRow> for Job {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let alert: Option<String> = row.try_get("alert")?;
        Ok(Self {
            id: row::text(row, "id")?,
            app: row::text(row, "app_id")?,
            name: row.try_get("name")?,
            declared: row::optional_json(row, "declared")?,
            set: row::json(row, "settings")?,
            made: row::flag(row, "made")?,
            removed: row::flag(row, "removed")?,
            next_due: row::optional_time(row, "next_due")?,
            last_number: row::number(row, "last_number")?,
            alert: alert.zip(row::optional_time(row, "alert_at")?),
            current: row::number(row, "current_version")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

pub(super) const SELECT: &str = "SELECT j.id, j.app_id, j.name, j.declared, j.settings, j.made, j.removed, j.next_due, \
     j.last_number, j.alert, j.alert_at, j.created_at, j.updated_at, \
     COALESCE((SELECT c.version FROM apps a JOIN releases c ON c.id = a.current_release_id WHERE a.id = j.app_id), 0) \
     AS current_version FROM jobs j";

/// So many rows are written by one statement.
const ROWS: usize = 50;

/// From now on nobody else changes a job or a run of one, until the transaction ends; and who remembers what there was reads it again.
pub(super) async fn lock(tx: &mut AnyConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE counters SET value = value + 1 WHERE name = 'jobs'").execute(tx).await?;
    Ok(())
}

impl Store {
    /// Changes the jobs of an app: what is there, those that are about to go among them, to what should be. Nobody else changes any
    /// meanwhile.
    pub(crate) async fn change_jobs<T, E: From<StoreError>>(
        &self,
        app: AppId,
        stamp: &Stamp,
        change: impl FnOnce(Vec<Job>) -> Result<(Vec<Job>, Vec<NewEvent>, T), E> + Send,
    ) -> Result<T, E> {
        let mut tx = self.begin(stamp).await?;
        lock(&mut tx).await?;
        let sql = format!("{SELECT} WHERE j.app_id = $1 ORDER BY j.name");
        let there = sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&mut *tx).await.map_err(StoreError::from)?;
        let (changed, events, result) = change(there)?;
        write(&mut tx, &changed).await?;
        for job in changed.iter().filter(|job| job.removed) {
            let sql = "UPDATE job_runs SET stop = 'the job was removed' WHERE job_id = $1 AND ended_at IS NULL AND stop IS NULL";
            sqlx::query(sql).bind(job.id.to_string()).execute(&mut *tx).await.map_err(StoreError::from)?;
        }
        let gone = "DELETE FROM stale_jobs WHERE app_id = $1";
        sqlx::query(gone).bind(app.to_string()).execute(&mut *tx).await.map_err(StoreError::from)?;
        for event in events {
            tx.record(event);
        }
        tx.commit().await?;
        Ok(result)
    }

    /// The jobs of an app by name.
    pub async fn jobs(&self, app: AppId) -> Result<Vec<Job>, StoreError> {
        let sql = format!("{SELECT} WHERE j.app_id = $1 AND j.removed = 0 ORDER BY j.name");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// The job of an app with this name or id.
    pub async fn job(&self, app: AppId, reference: &str) -> Result<Option<Job>, StoreError> {
        let sql = format!("{SELECT} WHERE j.app_id = $1 AND j.removed = 0 AND (j.name = $2 OR j.id = $2)");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).bind(reference).fetch_optional(&self.pool).await?)
    }

    /// Apps of which another release is current than the one whose app.json their jobs are of.
    pub async fn stale_jobs(&self) -> Result<Vec<AppId>, StoreError> {
        let apps: Vec<String> =
            sqlx::query_scalar("SELECT app_id FROM stale_jobs LIMIT 1000").fetch_all(&self.pool).await?;
        Ok(apps.iter().filter_map(|app| app.parse().ok()).collect())
    }
}

/// From now on the jobs of the app of a release are not those of its app.json.
pub(super) async fn outdate(tx: &mut AnyConnection, release: model::ReleaseId) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO stale_jobs (app_id) SELECT app_id FROM releases WHERE id = $1 ON CONFLICT (app_id) DO NOTHING";
    sqlx::query(sql).bind(release.to_string()).execute(tx).await?;
    Ok(())
}

/// Writes jobs down, new ones and changed ones.
pub(super) async fn write(tx: &mut Write<'_>, jobs: &[Job]) -> Result<(), StoreError> {
    for jobs in jobs.chunks(ROWS) {
        let sql = format!(
            "INSERT INTO jobs (id, app_id, name, declared, settings, made, removed, next_due, last_number, alert, alert_at, \
             created_at, updated_at) VALUES {} ON CONFLICT (id) DO UPDATE SET declared = excluded.declared, \
             settings = excluded.settings, made = excluded.made, removed = excluded.removed, next_due = excluded.next_due, \
             last_number = excluded.last_number, alert = excluded.alert, alert_at = excluded.alert_at, \
             updated_at = excluded.updated_at",
            places(jobs.len(), 13)
        );
        let mut query = sqlx::query(&sql);
        for job in jobs {
            query = query
                .bind(job.id.to_string())
                .bind(job.app.to_string())
                .bind(&job.name)
                .bind(job.declared.as_ref().map(serde_json::to_string).transpose()?)
                .bind(serde_json::to_string(&job.set)?)
                .bind(i64::from(job.made))
                .bind(i64::from(job.removed))
                .bind(job.next_due.map(Timestamp::as_millis))
                .bind(i64::try_from(job.last_number).unwrap_or(i64::MAX))
                .bind(job.alert.as_ref().map(|(text, _)| text.clone()))
                .bind(job.alert.as_ref().map(|(_, at)| at.as_millis()))
                .bind(job.created_at.as_millis())
                .bind(job.updated_at.as_millis());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// `($1, $2), ($3, $4)`: the places of so many rows of so many values.
pub(super) fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let places: Vec<_> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", places.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}
