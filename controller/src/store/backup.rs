//! Copies of the database, made before it is changed by a migration.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use percent_encoding::percent_decode_str;
use sqlx::AnyConnection;
use tokio::process::Command;

use super::migrate::sqlite_file;

/// How many are kept.
const KEPT: usize = 5;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database refused.
    #[error("the database cannot be copied")]
    Database(#[from] sqlx::Error),
    /// There is no room, or no right to write.
    #[error("cannot write to {path}")]
    Write {
        /// The folder of the copies.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// PostgreSQL's own program is not installed.
    #[error("pg_dump is not installed; it is in Debian's package postgresql-client, and must be as new as the server")]
    NoProgram,
    /// It failed.
    #[error("pg_dump failed: {0}")]
    Program(String),
}

/// Writes a copy of a database, which stands at migration `newest`, to the folder `backups`, and removes the oldest copies there.
/// It is on disk when this returns.
pub(super) async fn make(
    url: &str,
    connection: &mut AnyConnection,
    backups: &Path,
    newest: i64,
) -> Result<PathBuf, BackupError> {
    let failed = |source| BackupError::Write { path: backups.to_owned(), source };
    let kind = if sqlite_file(url).is_some() { "db" } else { "dump" };
    let path = backups.join(format!("before-{:04}.{kind}", newest + 1));
    let draft = path.with_extension("draft");
    make_room(backups, &draft).map_err(failed)?;
    if kind == "db" {
        // In a file that nobody else may read, as the database is.
        let sql = "VACUUM INTO $1";
        sqlx::query(sql).bind(draft.to_str().unwrap_or_default()).execute(connection).await?;
    } else {
        dump(url, &draft).await?;
    }
    keep(backups, &draft, &path).map_err(failed)?;
    Ok(path)
}

/// Makes the folder, for root only, and removes what an earlier attempt left.
fn make_room(backups: &Path, draft: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(backups)?;
    match std::fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives a whole copy its name, and removes the oldest.
fn keep(backups: &Path, draft: &Path, path: &Path) -> io::Result<()> {
    File::open(draft)?.sync_all()?;
    std::fs::rename(draft, path)?;
    File::open(backups)?.sync_all()?;
    let is_copy = |path: &PathBuf| matches!(path.extension().and_then(OsStr::to_str), Some("db" | "dump"));
    let all: Result<Vec<_>, io::Error> = backups.read_dir()?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut copies: Vec<_> = all?.into_iter().filter(is_copy).collect();
    // Their names are in the order of the migrations.
    copies.sort_unstable();
    copies.iter().rev().skip(KEPT).try_for_each(std::fs::remove_file)
}

async fn dump(url: &str, to: &Path) -> Result<(), BackupError> {
    let program = pg_dump().ok_or(BackupError::NoProgram)?;
    let parsed = url::Url::parse(url).map_err(|error| BackupError::Program(error.to_string()))?;
    let mut command = Command::new(program);
    // The arguments of a program can be read by everybody on the machine, its environment cannot.
    if let Some(password) = parsed.password() {
        command.env("PGPASSWORD", percent_decode_str(password).decode_utf8_lossy().as_ref());
    }
    let mut open = parsed;
    let _ = open.set_password(None);
    command.arg("--format=custom").arg("--file").arg(to).arg("--dbname").arg(open.as_str());
    let output =
        command.stdin(Stdio::null()).output().await.map_err(|error| BackupError::Program(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(BackupError::Program(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// The newest that there is: an older one refuses a newer server.
fn pg_dump() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let debian = Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let programs = debian.filter(|folder| folder.join("bin/pg_dump").exists());
    let newest = programs.max_by_key(|folder| version(folder)).map(|folder| folder.join("bin/pg_dump"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    newest.or_else(|| std::env::split_paths(&path).map(|folder| folder.join("pg_dump")).find(|path| path.exists()))
}
