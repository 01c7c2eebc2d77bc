//! The real `git`, started for somebody who may.

use std::io;
use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use model::Role;
use nix::errno::Errno;
use nix::sys::statvfs::{Statvfs, statvfs};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use super::hook::Push;
use super::{hooks, variable};
use crate::actors::Actor;
use crate::grants::Deed;
use crate::store::App;
use crate::{Controller, Error};

/// What git needs at least to take a push in.
const LEAST_BYTES: u64 = 16 << 20;
const LEAST_FILES: u64 = 1000;

/// What a client of git wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// To push.
    ReceivePack,
    /// To fetch.
    UploadPack,
    /// To fetch an archive.
    UploadArchive,
}

impl Service {
    /// From git's own name of it.
    pub(super) fn of(name: &str) -> Option<Self> {
        [Self::ReceivePack, Self::UploadPack, Self::UploadArchive].into_iter().find(|service| service.name() == name)
    }

    /// git's own name of it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ReceivePack => "receive-pack",
            Self::UploadPack => "upload-pack",
            Self::UploadArchive => "upload-archive",
        }
    }

    /// The role on the app that it needs.
    pub(super) const fn need(self) -> Role {
        match self {
            Self::ReceivePack => Role::Deploy,
            Self::UploadPack | Self::UploadArchive => Role::View,
        }
    }
}

/// What a client of git is about to do, as far as the scopes of tokens tell it apart.
pub(super) const fn deed(service: Service) -> Deed {
    match service {
        Service::ReceivePack => Deed::Write,
        Service::UploadPack | Service::UploadArchive => Deed::Read,
    }
}

/// A git that is not swayed by the settings of whoever runs the platform.
pub(super) fn git(controller: &Controller) -> Command {
    let mut command = Command::new("git");
    command
        .args(["-c", "receive.advertisePushOptions=true"])
        .env("HOME", &controller.settings.home)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stderr(Stdio::piped());
    command
}

/// A git that does what was asked for; more options and the path of the app's repository are still to come.
pub(super) async fn serving(controller: &Controller, service: Service, (app, actor): (&App, &Actor)) -> Command {
    let mut command = git(controller);
    if service == Service::ReceivePack {
        let may_insist = controller.check_role(actor, app, Role::Admin).await.is_ok();
        let push = Push { app: app.id, by: actor.by(), may_insist, began: controller.clock.now() };
        let limit = format!("receive.maxInputSize={}", controller.settings.push_limit);
        command
            // Packs stay packs: git names the limit only where it does not unpack.
            .args(["-c", &limit, "-c", "receive.unpackLimit=1", "-c"])
            .arg(format!("core.hooksPath={}", hooks(&controller.settings).display()))
            .env(variable::PROGRAM, &controller.settings.program)
            .env(variable::SOCKET, &controller.settings.control_socket)
            .env(variable::PUSH, push.to_env());
    }
    command.arg(service.name());
    command
}

/// Refuses a push for which there is no room: git would only say that it cannot make a folder. Whether there is enough for a build is
/// asked later.
pub(super) fn check_room(service: Service, home: &Path) -> Result<(), Error> {
    let stats = statvfs(home).ok().filter(|_| service == Service::ReceivePack);
    let is_full = |stats: &Statvfs| {
        // The types of these differ between C libraries.
        #[expect(clippy::useless_conversion, reason = "u64 here, narrower elsewhere")]
        let (blocks, size, files) =
            (u64::from(stats.blocks_available()), u64::from(stats.fragment_size()), u64::from(stats.files_available()));
        // Some file systems make files as they need them, and count none.
        blocks.saturating_mul(size) < LEAST_BYTES || (stats.files() > 0 && files < LEAST_FILES)
    };
    if stats.is_some_and(|stats| is_full(&stats)) { Err(Error::DiskFull(Errno::ENOSPC.into())) } else { Ok(()) }
}

/// Makes an app's repository if it is missing.
pub(crate) async fn prepare(repository: &Path) -> io::Result<()> {
    if repository.join("HEAD").exists() {
        return Ok(());
    }
    let output = Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(repository).output().await?;
    if output.status.success() { Ok(()) } else { Err(io::Error::other(lossy(&output.stderr))) }
}

/// Starts git with its input and output in our hands.
pub(super) fn start(command: &mut Command) -> io::Result<(Child, ChildStdin, ChildStdout)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let missing = || io::Error::other("git has no pipes");
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    Ok((child, stdin, stdout))
}

/// Reads all that git says; what the client is not there to hear is dropped.
pub(super) async fn drain(mut stdout: ChildStdout, client: mpsc::Sender<io::Result<Bytes>>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
        let _ = client.send(Ok(Bytes::copy_from_slice(&buffer[..count]))).await;
    }
}

/// What git said, for people.
pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
