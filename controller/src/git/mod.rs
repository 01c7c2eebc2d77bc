//! The git receiver: smart HTTP in front of the real `git`, and the hook that turns a push into a deploy.

mod checkout;
pub mod hook;
mod http;

pub(crate) use checkout::{Checkout, checkout};
pub use http::routes;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use model::AppId;

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
