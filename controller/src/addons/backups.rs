//! Backups: dumps of an add-on's data in files of the platform, made, taken in, given out and restored as streams.
//!
//! A file has its name only once it is whole and on the disk. The service's own programs write and read it directly.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::{Lines, Mount};
use futures::{Stream, StreamExt};
use model::{AddonId, Exit};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::kind::{Backup, Server};
use super::server::{Client, server_of};
use crate::errors::chain;
use crate::store::{Addon, AddonState, Transfer, TransferAction, TransferState};
use crate::{Actor, Controller, Error};

/// The longest that a backup or a restore may take.
const TIME_LIMIT: Duration = Duration::from_secs(12 * 60 * 60);
/// Lines of a failed program that its transfer keeps.
const LINES: usize = 20;
/// After so many bytes of an upload the disk is looked at again.
const DISK_STEP: usize = 64 << 20;
/// Where a container sees the add-on's backups.
const TARGET: &str = "/backups";

impl Transfer {
    /// `b001`, or `r002` for a restore.
    pub fn name(&self) -> String {
        let letter = if self.action == TransferAction::Restore { 'r' } else { 'b' };
        format!("{letter}{:03}", self.number)
    }

    /// Whether it is a backup that is there.
    pub fn is_backup(&self) -> bool {
        self.action != TransferAction::Restore && self.state == TransferState::Succeeded
    }
}

impl Controller {
    /// Begins a backup of an add-on and returns at once.
    pub async fn capture_backup(self: &Arc<Self>, addon: &Addon, actor: &Actor) -> Result<Transfer, Error> {
        let (server, backup) = backup_of(addon)?;
        let transfer = self.begin_transfer((addon, actor), TransferAction::Capture, None).await?;
        let (controller, addon, begun) = (Arc::clone(self), addon.clone(), transfer.clone());
        tokio::spawn(async move {
            let outcome = controller.capture(&addon, &begun, (&server, backup)).await;
            controller.end_transfer(&begun, outcome).await;
        });
        Ok(transfer)
    }

    /// Takes a backup from outside, as it comes. Whether it is one shows when it is restored.
    pub async fn upload_backup<B, E>(
        &self,
        (addon, actor): (&Addon, &Actor),
        content: impl Stream<Item = Result<B, E>> + Unpin,
    ) -> Result<Transfer, Error>
    where
        B: AsRef<[u8]>,
        E: std::error::Error,
    {
        backup_of(addon)?;
        let transfer = self.begin_transfer((addon, actor), TransferAction::Upload, None).await?;
        let outcome = self.receive(addon, &transfer, content).await;
        self.end_transfer(&transfer, outcome).await;
        self.find_transfer(addon.id, &transfer.name()).await
    }

    /// Begins to replace an add-on's data by that of a backup and returns at once. What is no good is refused before the data is
    /// touched.
    pub async fn restore_backup(
        self: &Arc<Self>,
        (addon, actor): (&Addon, &Actor),
        source: &Transfer,
    ) -> Result<Transfer, Error> {
        let (server, backup) = backup_of(addon)?;
        if !source.is_backup() {
            return Err(Error::Invalid(format!("{} is {}: it cannot be restored", source.name(), source.state)));
        }
        let transfer = self.begin_transfer((addon, actor), TransferAction::Restore, Some(source)).await?;
        let (controller, addon, begun, source) = (Arc::clone(self), addon.clone(), transfer.clone(), source.clone());
        tokio::spawn(async move {
            let args = [format!("{TARGET}/{}", file_name(&source)), begun.number.to_string()];
            let outcome = controller.dump_program(&addon, &server, (backup.restore, &args)).await;
            controller.end_transfer(&begun, outcome.map(|()| source.bytes)).await;
        });
        Ok(transfer)
    }

    /// The backup or restore of an add-on of this name, with or without its letter and zeros.
    pub async fn find_transfer(&self, addon: AddonId, name: &str) -> Result<Transfer, Error> {
        let number = name.trim_start_matches(['b', 'r']).parse::<u64>();
        let transfers = self.store.transfers(addon).await?;
        let found = transfers.into_iter().find(|transfer| number.as_ref() == Ok(&transfer.number));
        found.ok_or(Error::NotFound("backup"))
    }

    /// The file of a backup, and its size.
    pub async fn open_backup(&self, transfer: &Transfer) -> Result<(File, u64), Error> {
        if !transfer.is_backup() {
            return Err(Error::Invalid(format!("{} is {}: it has no file", transfer.name(), transfer.state)));
        }
        let opened = async {
            let file = File::open(self.backups(transfer.addon).join(file_name(transfer))).await?;
            let bytes = file.metadata().await?.len();
            Ok((file, bytes))
        };
        opened.await.map_err(failed("open a backup"))
    }

    /// Removes a backup that is over, with its file.
    pub async fn delete_backup(&self, transfer: &Transfer, actor: &Actor) -> Result<(), Error> {
        if transfer.state == TransferState::Running {
            return Err(Error::Conflict(format!("{} is still running", transfer.name())));
        }
        remove(&self.backups(transfer.addon).join(file_name(transfer))).await.map_err(failed("remove a backup"))?;
        Ok(self.store.delete_transfer(transfer, &self.stamp(actor)).await?)
    }

    async fn begin_transfer(
        &self,
        (addon, actor): (&Addon, &Actor),
        action: TransferAction,
        source: Option<&Transfer>,
    ) -> Result<Transfer, Error> {
        if addon.state != AddonState::Provisioned {
            return Err(Error::Conflict(format!("{} is not up yet. Try again in a moment.", addon.name)));
        }
        self.live.ready().await?;
        if action != TransferAction::Restore {
            self.check_disk()?;
        }
        let source = source.map(|source| source.number);
        let transfer = self.store.insert_transfer(addon, action, source, &self.stamp(actor)).await?;
        let busy = "A backup or a restore of this add-on is running. Try again once it is over.";
        transfer.ok_or_else(|| Error::Conflict(busy.to_owned()))
    }

    async fn end_transfer(&self, transfer: &Transfer, outcome: Result<u64, Error>) {
        let outcome = outcome.map_err(|error| chain(&error));
        if let Err(reason) = &outcome {
            tracing::info!(addon.id = %transfer.addon, transfer = transfer.name(), reason, "A backup or a restore failed");
        }
        if let Err(error) = self.store.finish_transfer(transfer, outcome, &self.own_stamp()).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "The end of a backup or a restore cannot be noted"
            );
        }
    }

    async fn capture(
        &self,
        addon: &Addon,
        transfer: &Transfer,
        (server, backup): (&Server, Backup),
    ) -> Result<u64, Error> {
        let draft = draft_name(transfer);
        let folder = self.make_folder(addon).await.map_err(failed("keep backups"))?;
        let args = [format!("{TARGET}/{draft}")];
        let result = self.dump_program(addon, server, (backup.capture, &args)).await;
        keep(&folder, transfer, result).await
    }

    async fn receive<B: AsRef<[u8]>, E: std::error::Error>(
        &self,
        addon: &Addon,
        transfer: &Transfer,
        mut content: impl Stream<Item = Result<B, E>> + Unpin,
    ) -> Result<u64, Error> {
        let folder = self.make_folder(addon).await.map_err(failed("keep backups"))?;
        let receive = async {
            let mut file = File::create(folder.join(draft_name(transfer))).await?;
            let mut unchecked = 0;
            while let Some(bytes) = content.next().await {
                let bytes = bytes.map_err(|error| io::Error::other(error.to_string()))?;
                file.write_all(bytes.as_ref()).await?;
                unchecked += bytes.as_ref().len();
                if unchecked > DISK_STEP {
                    unchecked = 0;
                    self.check_disk().map_err(io::Error::other)?;
                }
            }
            file.flush().await?;
            // The container that restores it is not root.
            let path = folder.join(draft_name(transfer));
            std::os::unix::fs::chown(path, Some(addon.uid), Some(addon.uid))
        };
        let result = receive.await.map_err(failed("take the backup in"));
        keep(&folder, transfer, result).await
    }

    /// Runs one of a kind's scripts beside its server, with the add-on's backups in sight.
    async fn dump_program(
        &self,
        addon: &Addon,
        server: &Server,
        (script, args): (&str, &[String]),
    ) -> Result<(), Error> {
        let source = self.backups(addon.id);
        let shell = ["/bin/sh", "-euc", script, "sh"].map(str::to_owned);
        let client = Client {
            args: shell.into_iter().chain(args.iter().cloned()).collect(),
            env: BTreeMap::new(),
            mounts: vec![Mount::Bind { source, target: PathBuf::from(TARGET), read_only: false }],
            time_limit: TIME_LIMIT,
        };
        let oneoff = self.addon_client(addon, server, client).await?;
        let mut running = self.engine.run(oneoff).await?;
        let mut lines = Lines::default();
        let mut last = std::collections::VecDeque::new();
        while let Some(bytes) = running.output.recv().await {
            last.extend(lines.push(&bytes));
            last.drain(..last.len().saturating_sub(LINES));
        }
        last.extend(lines.rest());
        match running.exit.await.unwrap_or(Exit::Lost) {
            exit if exit.is_success() => Ok(()),
            exit => {
                let said = Vec::from(last).join("\n");
                Err(Error::Conflict(if said.is_empty() { format!("The program {exit}.") } else { said }))
            }
        }
    }

    fn check_disk(&self) -> Result<(), Error> {
        self.builder.check_disk().map_err(|error| match error {
            builder::BuildError::DiskFull { .. } | builder::BuildError::DiskNearlyFull { .. } => Error::Conflict(
                "There is too little disk space for a backup. Nothing was changed; ask the operator to make room."
                    .to_owned(),
            ),
            source => Error::System { action: "measure the disk", source: source.into() },
        })
    }

    /// Where an add-on's backups are.
    fn backups(&self, addon: AddonId) -> PathBuf {
        self.settings.home.join("backups").join(addon.to_string())
    }

    async fn make_folder(&self, addon: &Addon) -> io::Result<PathBuf> {
        let folder = self.backups(addon.id);
        tokio::fs::create_dir_all(&folder).await?;
        std::os::unix::fs::chown(&folder, Some(addon.uid), Some(addon.uid))?;
        tokio::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).await?;
        Ok(folder)
    }
}

/// Ends what an earlier controller left half done; the programs themselves have been ended before.
pub(crate) async fn recover(controller: &Controller) -> Result<(), Error> {
    for transfer in controller.store.running_transfers().await? {
        let draft = controller.backups(transfer.addon).join(draft_name(&transfer));
        remove(&draft).await.map_err(failed("remove half a backup"))?;
        let reason = Err("The platform restarted meanwhile. Start it again.".to_owned());
        controller.store.finish_transfer(&transfer, reason, &controller.own_stamp()).await?;
    }
    Ok(())
}

/// Gives a whole draft its name, once it is on the disk, or removes half of one; answers with its size.
async fn keep(folder: &Path, transfer: &Transfer, made: Result<(), Error>) -> Result<u64, Error> {
    let draft = folder.join(draft_name(transfer));
    let named = async {
        made?;
        let finish = async {
            let file = File::open(&draft).await?;
            file.sync_all().await?;
            tokio::fs::rename(&draft, folder.join(file_name(transfer))).await?;
            File::open(folder).await?.sync_all().await?;
            Ok(file.metadata().await?.len())
        };
        finish.await.map_err(failed("keep the backup"))
    };
    let result = named.await;
    if result.is_err() {
        // What stays of it is overwritten by nobody and goes with the add-on.
        let _ = remove(&draft).await;
    }
    result
}

fn backup_of(addon: &Addon) -> Result<(Server, Backup), Error> {
    let server = server_of(addon)?;
    let refusal = || Error::Invalid(format!("There are no backups of {}", addon.kind));
    let backup = server.backup.ok_or_else(refusal)?;
    Ok((server, backup))
}

fn file_name(transfer: &Transfer) -> String {
    format!("{}.dump", transfer.name())
}

fn draft_name(transfer: &Transfer) -> String {
    format!("{}.dump.new", transfer.name())
}

async fn remove(path: &Path) -> io::Result<()> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { action, source: source.into() }
}
