//! The git receiver: smart HTTP in front of the real `git`, and the hook that turns a push into a deploy.

mod checkout;
pub mod hook;
mod host_key;
mod http;
mod options;
mod remote;
mod service;
mod ssh;

pub(crate) use checkout::{Checkout, checkout, own};
pub use host_key::fingerprint as host_key_fingerprint;
pub use http::routes;
pub(crate) use options::Options;
pub(crate) use remote::{Remote, parse as parse_remote, plain};
pub(crate) use service::prepare;
pub(crate) use ssh::serve as serve_ssh;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use model::AppId;
use tokio::process::Command;

use crate::Settings;

/// Environment of a hook process, set by [`http`] and read by [`hook`].
mod variable {
    pub(super) const PROGRAM: &str = "PLATFORM_PROGRAM";
    pub(super) const SOCKET: &str = "PLATFORM_CONTROL";
    pub(super) const PUSH: &str = "PLATFORM_PUSH";
}

/// An app's bare repository.
pub(crate) fn repository(settings: &Settings, app: AppId) -> PathBuf {
    settings.home.join("git").join(format!("{app}.git"))
}

/// The commit that a branch, by its full name, is at; none if there is no such branch.
pub(crate) async fn tip(repository: &Path, branch: &str) -> io::Result<Option<String>> {
    let mut git = Command::new("git");
    let output =
        git.arg("--git-dir").arg(repository).args(["rev-parse", "--verify", "--quiet", branch]).output().await?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}

/// Moves a branch, by its full name, to a commit, if it still is where it was before.
pub(crate) async fn move_branch(
    repository: &Path,
    (branch, commit): (&str, &str),
    before: Option<&str>,
) -> io::Result<()> {
    let mut git = Command::new("git");
    git.arg("--git-dir").arg(repository).args(["update-ref", branch, commit, before.unwrap_or_default()]);
    let output = git.output().await?;
    if output.status.success() { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim())) }
}

/// Where the hooks of all repositories are.
fn hooks(settings: &Settings) -> PathBuf {
    settings.home.join("git/hooks")
}

/// Writes the hooks, which are this program under another name.
pub(crate) fn install_hooks(settings: &Settings) -> io::Result<()> {
    let folder = hooks(settings);
    std::fs::create_dir_all(&folder)?;
    let hook = folder.join("pre-receive");
    let text = format!("#!/bin/sh\nexec \"${}\" git-hook pre-receive\n", variable::PROGRAM);
    let new = folder.join("pre-receive.new");
    std::fs::write(&new, text)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(new, hook)
}
