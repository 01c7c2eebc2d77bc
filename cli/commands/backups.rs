//! `pg:backups` and its kin.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use clap::Args;
use serde_json::{Value, json};

use super::addons::POLL;
use super::data::POSTGRES;
use crate::client::{self, Client, Transfer};
use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Result};
use crate::output::{self, Field, Mood};

/// List the backups of a PostgreSQL database, and what was restored
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pg:backups
  $ platform pg:backups REPORTS -a my-app --json")]
pub(crate) struct List {
    /// Name of the add-on, or under which the app uses it
    database: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, addon) = POSTGRES.find(cx, &self.app, self.database.as_deref())?;
        let backups = client.list(&["addons", &addon, "backups"])?;
        cx.show_list(&backups, |out, mut backups: Vec<Transfer>| {
            backups.reverse();
            let row = |transfer: Transfer| {
                let what = match (transfer.action.as_str(), &transfer.source) {
                    ("restore", Some(source)) => format!("restore of {source}"),
                    (action, _) => action.to_owned(),
                };
                let mood = match transfer.state.as_str() {
                    "failed" => Mood::Bad,
                    "running" => Mood::Busy,
                    _ => Mood::Plain,
                };
                let note = transfer.failure.unwrap_or_default().lines().last().unwrap_or_default().to_owned();
                vec![
                    transfer.name.into(),
                    output::ago(&transfer.created_at, context::now()).into(),
                    what.into(),
                    Field::from(transfer.state).mood(mood),
                    output::size(transfer.bytes).into(),
                    note.into(),
                ]
            };
            out.table(
                &["Backup", "When", "What", "State", "Size", ""],
                backups.into_iter().map(row).collect(),
                "No backups. Make one with `platform pg:backups:capture`.",
            )
        })
    }
}

/// Make a backup of a PostgreSQL database, while it is in use
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pg:backups:capture
  $ platform pg:backups:capture REPORTS -a my-app")]
pub(crate) struct Capture {
    /// Name of the add-on, or under which the app uses it
    database: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Capture {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, addon) = POSTGRES.find(cx, &self.app, self.database.as_deref())?;
        let done = cx.out.step(&format!("Backing up {addon}"), || {
            let begun = client.post(&["addons", &addon, "backups"], &json!({}))?;
            over(&client, &addon, &begun)
        })?;
        let transfer: Transfer = client::typed(&done)?;
        cx.show(&done, |out| out.line(format!("{} ({})", transfer.name, output::size(transfer.bytes))))
    }
}

/// Replace the data of a PostgreSQL database by that of a backup
///
/// A backup of the platform, or a file made by `pg_dump --format=custom`. It is first restored beside the live data; only when
/// that succeeded does it take its place, and clients have to connect again. What is damaged changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pg:backups:restore b001
  $ platform pg:backups:restore ./latest.dump REPORTS --confirm my-app")]
pub(crate) struct Restore {
    /// Name of a backup, or a file
    backup: String,
    /// Name of the add-on, or under which the app uses it
    database: Option<String>,
    /// The app's name again, instead of being asked for it
    #[arg(long, short, value_name = "APP")]
    confirm: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Restore {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, addon) = POSTGRES.find(cx, &self.app, self.database.as_deref())?;
        let app = cx.app(&self.app)?.1;
        let what = format!("This replaces all data of {addon} by that of {}.", self.backup);
        let command = format!("platform pg:backups:restore {} {addon} -a {app} --confirm {app}", self.backup);
        context::confirm(&app, self.confirm, (&what, &command))?;
        let backup = if is_backup(&self.backup) {
            self.backup
        } else {
            let path = Path::new(&self.backup);
            cx.out.step(&format!("Sending {}", path.display()), || upload(&client, &addon, path))?
        };
        let done = cx.out.step(&format!("Restoring {backup} into {addon}"), || {
            let begun = client.post(&["addons", &addon, "backups", &backup, "actions", "restore"], &json!({}))?;
            over(&client, &addon, &begun)
        })?;
        cx.done(&done)
    }
}

/// Fetch a backup into a file
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pg:backups:download b001
  $ platform pg:backups:download b001 --output shop.dump -a my-app")]
pub(crate) struct Download {
    /// Name of a backup
    backup: String,
    /// Name of the add-on, or under which the app uses it
    database: Option<String>,
    /// The file
    #[arg(long, short, default_value = "latest.dump")]
    output: PathBuf,
    #[command(flatten)]
    app: AppArg,
}

impl Download {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, addon) = POSTGRES.find(cx, &self.app, self.database.as_deref())?;
        let path = self.output;
        let cannot = |error: io::Error| CliError::failed(format!("Cannot write {}", path.display())).because(&error);
        let bytes = cx.out.step(&format!("Fetching {} of {addon}", self.backup), || {
            let mut content = client.read(&["addons", &addon, "backups", &self.backup, "content"])?;
            // What is there under the file's name is always whole.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let draft = folder.join(format!(".{}.part", self.backup));
            let mut file = File::create(&draft).map_err(cannot)?;
            let bytes = io::copy(&mut content, &mut file).map_err(cannot)?;
            std::fs::rename(&draft, &path).map_err(cannot)?;
            Ok(bytes)
        })?;
        let done = json!({ "file": path, "bytes": bytes });
        cx.show(&done, |out| out.line(format!("{} ({})", path.display(), output::size(bytes))))
    }
}

/// Delete a backup
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pg:backups:delete b001 --confirm my-app")]
pub(crate) struct Delete {
    /// Name of a backup
    backup: String,
    /// Name of the add-on, or under which the app uses it
    database: Option<String>,
    /// The app's name again, instead of being asked for it
    #[arg(long, short, value_name = "APP")]
    confirm: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Delete {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, addon) = POSTGRES.find(cx, &self.app, self.database.as_deref())?;
        let app = cx.app(&self.app)?.1;
        let what = format!("This deletes {} of {addon} and cannot be undone.", self.backup);
        let command = format!("platform pg:backups:delete {} {addon} -a {app} --confirm {app}", self.backup);
        context::confirm(&app, self.confirm, (&what, &command))?;
        let delete = || client.delete(&["addons", &addon, "backups", &self.backup]);
        cx.done(&cx.out.step(&format!("Deleting {} of {addon}", self.backup), delete)?)
    }
}

/// `b001`; anything else is a file.
fn is_backup(text: &str) -> bool {
    text.strip_prefix('b').is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Sends a file; the name of the backup that it becomes.
fn upload(client: &Client, addon: &str, path: &Path) -> Result<String> {
    let cannot = |error: io::Error| CliError::failed(format!("Cannot read {}", path.display())).because(&error);
    let sent = client.upload(&["addons", addon, "backups"], &File::open(path).map_err(cannot)?)?;
    let transfer: Transfer = client::typed(&over(client, addon, &sent)?)?;
    Ok(transfer.name)
}

/// Waits until a backup or a restore is over.
fn over(client: &Client, addon: &str, begun: &Value) -> Result<Value> {
    let mut value = begun.clone();
    loop {
        let transfer: Transfer = client::typed(&value)?;
        match transfer.state.as_str() {
            "succeeded" => return Ok(value),
            "running" => thread::sleep(POLL),
            _ => {
                let reason = io::Error::other(transfer.failure.unwrap_or_default());
                return Err(CliError::failed(format!("{} failed; no data was changed", transfer.name)).because(&reason));
            }
        }
        value = client.get(&["addons", addon, "backups", &transfer.name])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_told_from_a_file() {
        assert!(is_backup("b001") && is_backup("b12"));
        assert!(!is_backup("backup.dump") && !is_backup("b") && !is_backup("./b001"));
    }
}
