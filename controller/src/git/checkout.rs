use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use nix::unistd::{Gid, Uid, fchownat};

/// A commit to take out of a repository.
#[derive(Debug)]
pub(crate) struct Checkout<'a> {
    /// The bare repository.
    pub(crate) repository: &'a Path,
    /// The commit, in full.
    pub(crate) commit: &'a str,
    /// Environment under which git finds objects that are still in quarantine (git-receive-pack(1)).
    pub(crate) env: &'a BTreeMap<String, String>,
    /// A folder to make.
    pub(crate) target: &'a Path,
    /// Who shall own the files.
    pub(crate) uid: u32,
}

/// Why a commit cannot be checked out, for the person who pushed it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckoutError {
    /// The files cannot be written.
    #[error("cannot write the files of the commit")]
    Write(#[source] std::io::Error),
    /// In git's words.
    #[error("git cannot read the commit: {0}")]
    Git(String),
    /// Submodules would be empty folders.
    #[error(
        "the commit contains the submodule {0}, which a push does not carry. Copy its files into the repository \
         (git subtree does that), or install it as a package"
    )]
    Submodule(String),
}

/// Writes the files of a commit: no `.git`, links as links, all owned by one user.
pub(crate) fn checkout(what: &Checkout<'_>) -> Result<(), CheckoutError> {
    std::fs::create_dir_all(what.target).map_err(CheckoutError::Write)?;
    let index = what.target.with_extension("index");
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(args).envs(what.env).env("GIT_DIR", what.repository).env("GIT_WORK_TREE", what.target);
        finish(command.env("GIT_INDEX_FILE", &index).output())
    };
    git(&["read-tree", what.commit])?;
    let links = git(&["ls-files", "--stage"])?;
    let result = match links.lines().find_map(|line| line.strip_prefix("160000 ")) {
        Some(line) => Err(CheckoutError::Submodule(line.split('\t').next_back().unwrap_or_default().to_owned())),
        None => git(&["checkout-index", "--all", "--force"]).map(drop),
    };
    let _ = std::fs::remove_file(index);
    result?;
    own(what.target, what.uid).map_err(CheckoutError::Write)
}

fn finish(output: std::io::Result<Output>) -> Result<String, CheckoutError> {
    let output = output.map_err(|error| CheckoutError::Git(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(CheckoutError::Git(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Gives a folder with all that is in it to a user.
pub(crate) fn own(path: &Path, uid: u32) -> std::io::Result<()> {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(nix::fcntl::AT_FDCWD, path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)), flags)?;
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            own(&entry?.path(), uid)?;
        }
    }
    Ok(())
}
