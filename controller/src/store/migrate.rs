//! Brings a database up to date: one migration after the other, each in a transaction of its own, so that whoever is killed in
//! between leaves one that the next start goes on with. Before anything is applied to a database that holds something, a
//! copy of it is made.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sqlx::migrate::{Migrate, MigrateError, Migration, Migrator};
use sqlx::{AnyConnection, Connection, Executor};

use super::backup::{self, BackupError};
use super::migrations::Embedded;
use super::{SQLITE_SETTINGS, StoreError, without_password};

/// How to bring a database up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For good, with a copy before.
    Apply,
    /// For good, and without a copy.
    ApplyWithoutBackup,
    /// All of it once, and then back: nothing is changed.
    Try,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// The migrations that were applied, or would be: `0010 store`.
    pub applied: Vec<String>,
    /// The copy that was made before.
    pub backup: Option<PathBuf>,
}

/// Why a database cannot be brought up to date. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// A newer version has been at work on it.
    #[error(
        "the database was brought to migration {newest} by platform {by}, and this is platform {}, which knows only those \
         up to {known}. Install {by} again, or restore the copy that it made before it changed the database (docs/database.md)",
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The last that was applied.
        newest: i64,
        /// The last that this version has.
        known: i64,
        /// Which version applied it.
        by: String,
    },
    /// What was applied is not what this version has under the same number.
    #[error(
        "migration {0} is not the one that was applied to this database: it comes from another build of the platform"
    )]
    Altered(i64),
    /// One did not work. Nothing of it remains.
    #[error("migration {name} failed; the database is as it was before it")]
    Failed {
        /// `0010 store`
        name: String,
        /// What the database said.
        #[source]
        source: MigrateError,
    },
    /// The copy before could not be made, so nothing was changed.
    #[error(
        "no copy of the database could be made, and nothing is changed without one (`platform migrate --no-backup` would)"
    )]
    Backup(#[source] BackupError),
    /// Another process that migrates cannot be waited for.
    #[error("cannot lock {path}")]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Brings the database at `url` up to date. Copies go to the folder `backups`.
pub async fn migrate(url: &str, backups: &Path, mode: Mode) -> Result<Migrated, StoreError> {
    let migrator = Migrator::new(Embedded).await.map_err(|error| open_failed(url, error.into()))?;
    migrate_with(&migrator, url, backups, mode).await
}

/// The same with any migrations.
pub(super) async fn migrate_with(
    migrator: &Migrator,
    url: &str,
    backups: &Path,
    mode: Mode,
) -> Result<Migrated, StoreError> {
    sqlx::any::install_default_drivers();
    super::sqlite::prepare();
    // SQLite has no lock that spans several transactions; PostgreSQL's own ends with the connection.
    let _lock = match sqlite_file(url) {
        Some(file) => Some(lock(file.with_extension("lock")).await?),
        None => None,
    };
    let mut connection = connect(url).await?;
    let result = if mode == Mode::Try {
        attempt(migrator, &mut connection).await
    } else {
        apply(migrator, &mut connection, (url, backups, mode)).await
    };
    // Whatever came of it, the lock goes with the connection.
    let closed = connection.close().await;
    let migrated = result?;
    closed?;
    Ok(migrated)
}

async fn connect(url: &str) -> Result<AnyConnection, StoreError> {
    let mut connection =
        AnyConnection::connect(&super::address(url)).await.map_err(|error| open_failed(url, error.into()))?;
    if sqlite_file(url).is_some() {
        connection.execute(SQLITE_SETTINGS).await?;
    }
    Ok(connection)
}

async fn apply(
    migrator: &Migrator,
    connection: &mut AnyConnection,
    (url, backups, mode): (&str, &Path, Mode),
) -> Result<Migrated, StoreError> {
    // Another controller may be at it; then nothing is left to do.
    connection.lock().await.map_err(|error| open_failed(url, error.into()))?;
    let state = State::read(migrator, connection).await?;
    let mut migrated = Migrated { applied: state.missing.clone(), backup: None };
    if state.missing.is_empty() {
        return Ok(migrated);
    }
    if let Some(newest) = state.newest.filter(|_| mode == Mode::Apply) {
        let copy = backup::make(url, connection, backups, newest).await;
        migrated.backup = Some(copy.map_err(MigrationError::Backup)?);
    }
    apply_missing(migrator, connection, &state).await?;
    let sql = "INSERT INTO facts (name, value) VALUES ('migrated_by', $1) \
               ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    sqlx::query(sql).bind(env!("CARGO_PKG_VERSION")).execute(&mut *connection).await?;
    Ok(migrated)
}

/// Applies what is missing in one transaction that is undone.
async fn attempt(migrator: &Migrator, connection: &mut AnyConnection) -> Result<Migrated, StoreError> {
    let mut tx = connection.begin().await?;
    let state = State::read(migrator, &mut tx).await?;
    let applied = apply_missing(migrator, &mut tx, &state).await;
    tx.rollback().await?;
    applied.map(|()| Migrated { applied: state.missing, backup: None })
}

async fn apply_missing(migrator: &Migrator, connection: &mut AnyConnection, state: &State) -> Result<(), StoreError> {
    for migration in migrator.iter() {
        let name = name(migration);
        if !state.missing.contains(&name) {
            continue;
        }
        tracing::info!(migration = name, "Bringing the database up to date");
        let failed = |source| MigrationError::Failed { name, source };
        connection.apply(migration).await.map_err(failed)?;
    }
    Ok(())
}

/// Where a database stands.
struct State {
    /// The last migration that was applied; none in an empty database.
    newest: Option<i64>,
    missing: Vec<String>,
}

impl State {
    async fn read(migrator: &Migrator, connection: &mut AnyConnection) -> Result<Self, StoreError> {
        let failed = |error: MigrateError| match error {
            MigrateError::Execute(error) => StoreError::Database(error),
            other => open_failed("", other.into()),
        };
        connection.ensure_migrations_table().await.map_err(failed)?;
        let applied = connection.list_applied_migrations().await.map_err(failed)?;
        let newest = applied.last().map(|migration| migration.version);
        let known = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
        for migration in &applied {
            match migrator.iter().find(|ours| ours.version == migration.version) {
                Some(ours) if ours.checksum == migration.checksum => {}
                Some(_) => return Err(MigrationError::Altered(migration.version).into()),
                None => {
                    let (newest, by) = (newest.unwrap_or_default(), migrated_by(connection).await);
                    return Err(MigrationError::Newer { newest, known, by }.into());
                }
            }
        }
        let is_missing = |ours: &&Migration| applied.iter().all(|migration| migration.version != ours.version);
        Ok(Self { newest, missing: migrator.iter().filter(is_missing).map(name).collect() })
    }
}

/// The version that last changed the schema.
async fn migrated_by(connection: &mut AnyConnection) -> String {
    let sql = "SELECT value FROM facts WHERE name = 'migrated_by'";
    let found: Result<String, _> = sqlx::query_scalar(sql).fetch_one(connection).await;
    found.unwrap_or_else(|_| "of an unknown version".to_owned())
}

fn name(migration: &Migration) -> String {
    format!("{:04} {}", migration.version, migration.description)
}

/// The file of an SQLite database.
pub(super) fn sqlite_file(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    Some(PathBuf::from(path.split('?').next().unwrap_or(path)))
}

async fn lock(path: PathBuf) -> Result<File, StoreError> {
    let wait = {
        let path = path.clone();
        move || {
            let file = File::options().create(true).append(true).open(path)?;
            file.lock()?;
            Ok(file)
        }
    };
    let locked = tokio::task::spawn_blocking(wait).await.map_err(io::Error::other).flatten();
    Ok(locked.map_err(|source| MigrationError::Lock { path, source })?)
}

fn open_failed(url: &str, source: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    StoreError::Open { url: without_password(url), source }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use model::clock::SystemRandom;
    use sqlx::migrate::MigrationType;

    use super::*;
    use crate::store::Store;
    use crate::testing::postgres;

    /// The migrations of this version up to a number, and then others.
    async fn migrator(up_to: i64, more: &[(i64, &'static str)]) -> Migrator {
        let ours = Migrator::new(Embedded).await.expect("ours");
        let more = more.iter().map(|(number, sql)| {
            Migration::new(*number, Cow::Borrowed("later"), MigrationType::Simple, Cow::Borrowed(*sql), false)
        });
        let all = ours.iter().filter(|migration| migration.version <= up_to).cloned().chain(more);
        Migrator { migrations: all.collect(), ..Migrator::DEFAULT }
    }

    /// A folder, and the URL of an empty database of each kind.
    async fn databases() -> (tempfile::TempDir, [String; 2]) {
        let folder = tempfile::tempdir().expect("a folder");
        let sqlite = format!("sqlite://{}", folder.path().join("platform.db").display());
        (folder, [sqlite, postgres::database().await])
    }

    async fn open(url: &str, folder: &Path) -> Result<Store, StoreError> {
        Store::open(url, &folder.join("secrets.key"), std::sync::Arc::new(SystemRandom)).await
    }

    async fn count(url: &str, table: &str) -> Option<i64> {
        let mut connection = connect(url).await.expect("a connection");
        sqlx::query_scalar(&format!("SELECT count(*) FROM {table}")).fetch_one(&mut connection).await.ok()
    }

    #[tokio::test]
    async fn a_trial_changes_nothing_and_says_what_would_be() {
        let (folder, urls) = databases().await;
        for url in urls {
            let backups = folder.path().join("backups");
            let tried = migrate(&url, &backups, Mode::Try).await.expect("tried");
            assert_eq!((tried.applied[0].as_str(), tried.backup), ("0001 initial", None));
            assert_eq!(count(&url, "apps").await, None);
            assert_eq!(migrate(&url, &backups, Mode::Apply).await.expect("applied").applied, tried.applied);
            assert_eq!(count(&url, "apps").await, Some(0));
            assert_eq!(migrate(&url, &backups, Mode::Try).await.expect("tried"), Migrated::default());
            assert!(!backups.exists(), "there was nothing to copy");
        }
    }

    #[tokio::test]
    async fn what_is_in_a_database_is_copied_before_it_changes_and_few_copies_are_kept() {
        let (folder, urls) = databases().await;
        for (url, kind) in urls.iter().zip(["db", "dump"]) {
            let backups = folder.path().join(kind);
            let all = i64::MAX - 100;
            migrate(url, &backups, Mode::Apply).await.expect("applied");
            let later: Vec<_> = (1..=7).map(|number| (all + number, "UPDATE counters SET value = value + 1")).collect();
            for number in 1..=later.len() {
                let migrator = migrator(all, &later[..number]).await;
                let done = migrate_with(&migrator, url, &backups, Mode::Apply).await.expect("applied");
                assert!(done.backup.is_some_and(|copy| copy.metadata().is_ok_and(|file| file.len() > 0)));
            }
            let mut copies: Vec<_> = backups.read_dir().expect("a folder").flatten().map(|file| file.path()).collect();
            copies.sort();
            assert_eq!(copies.len(), 5, "{copies:?}");
            if kind == "db" {
                let copy = format!("sqlite://{}", copies[4].display());
                let values = "counters WHERE name = 'app_uid' AND value = 99999 + 6";
                assert_eq!(
                    (count(&copy, values).await, count(url, values).await),
                    (Some(1), Some(0)),
                    "as it was before"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_migration_that_ends_in_the_middle_leaves_nothing_and_the_next_start_goes_on() {
        let (folder, urls) = databases().await;
        for url in urls {
            let broken = "CREATE TABLE half (id TEXT); UPDATE counters SET value = 0; SELECT * FROM nowhere;";
            let migrator = migrator(2, &[(3, broken)]).await;
            let failed = migrate_with(&migrator, &url, folder.path(), Mode::Apply).await.expect_err("broken");
            assert!(
                matches!(&failed, StoreError::Migration(MigrationError::Failed { name, .. }) if name == "0003 later")
            );
            assert_eq!((count(&url, "addons").await, count(&url, "half").await), (Some(0), None));
            assert_eq!(count(&url, "counters WHERE value = 0").await, Some(0));
            open(&url, folder.path()).await.expect("the next version goes on where this one stopped");
        }
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_refused_with_what_to_do() {
        let (folder, urls) = databases().await;
        for url in urls {
            open(&url, folder.path()).await.expect("a store");
            let newer = migrator(i64::MAX, &[(9000, "UPDATE facts SET value = 'x' WHERE name = 'nothing'")]).await;
            migrate_with(&newer, &url, folder.path(), Mode::ApplyWithoutBackup).await.expect("applied");
            let mut connection = connect(&url).await.expect("a connection");
            sqlx::query("UPDATE facts SET value = '9.0.0'").execute(&mut connection).await.expect("written");
            let Err(StoreError::Migration(refused)) = open(&url, folder.path()).await else { panic!("not refused") };
            let text = refused.to_string();
            assert!(
                text.contains("migration 9000 by platform 9.0.0") && text.contains("Install 9.0.0 again"),
                "{text}"
            );
            let other = migrator(9, &[(10, "UPDATE counters SET value = value")]).await;
            let refused = migrate_with(&other, &url, folder.path(), Mode::Apply).await;
            assert!(matches!(refused, Err(StoreError::Migration(MigrationError::Altered(10)))));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_controllers_that_start_at_once_one_migrates_and_all_start() {
        let (folder, urls) = databases().await;
        for url in urls {
            let starts = (0..4).map(|_| open(&url, folder.path()));
            let opened = futures::future::join_all(starts).await;
            assert!(
                opened.iter().all(Result::is_ok),
                "{:?}",
                opened.iter().map(|it| it.as_ref().err()).collect::<Vec<_>>()
            );
        }
    }
}
