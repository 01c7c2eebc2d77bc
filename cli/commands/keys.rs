//! `keys` and its kin: SSH keys for `git push`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::client::Key;
use crate::context::{self, Context};
use crate::error::{CliError, Result};
use crate::output;

/// The public keys that are looked for, the best kind first.
const USUAL: [&str; 3] = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"];

/// List your SSH keys
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform keys
  $ platform keys --json")]
pub(crate) struct List {
    /// Print whole keys
    #[arg(long, short)]
    long: bool,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let keys = cx.client()?.list(&["account", "keys"])?;
        cx.show_list(&keys, |out, keys: Vec<Key>| {
            if self.long {
                return keys.iter().try_for_each(|key| out.line(&key.line));
            }
            let row = |key: Key| {
                let used =
                    key.last_used_at.map_or_else(|| "never".to_owned(), |time| output::ago(&time, context::now()));
                vec![key.comment.into(), key.fingerprint.into(), used.into()]
            };
            let none = "You have no SSH keys. Add one with `platform keys:add`.";
            out.table(&["Comment", "Fingerprint", "Used"], keys.into_iter().map(row).collect(), none)
        })
    }
}

/// Add an SSH key, to push without a token
///
/// Without a file it takes `~/.ssh/id_ed25519.pub`, `id_ecdsa.pub` or `id_rsa.pub`, the first that is there. Then
/// `platform git:remote --ssh` makes git use it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform keys:add
  $ platform keys:add ~/.ssh/work.pub")]
pub(crate) struct Add {
    /// File of the public key
    file: Option<PathBuf>,
    /// Never ask
    #[arg(long, short)]
    yes: bool,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let file = match self.file {
            Some(file) => file,
            None => usual_key()?,
        };
        let line = std::fs::read_to_string(&file)
            .map_err(|error| CliError::failed(format!("Cannot read {}", file.display())).because(&error))?;
        if line.contains("PRIVATE KEY") {
            return Err(CliError::usage(format!("{} is a private key", file.display()))
                .hint(format!("The public one is in {}.pub.", file.display())));
        }
        let client = cx.client()?;
        let content = json!({ "public_key": line.trim() });
        let add = || client.post(&["account", "keys"], &content);
        let value = cx.out.step(&format!("Adding {}", file.display()), add)?;
        cx.done(&value)
    }
}

/// Remove SSH keys
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform keys:remove ada@laptop")]
pub(crate) struct Remove {
    /// Comments, fingerprints or ids of keys
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let mut all = Vec::new();
        for key in &self.keys {
            let remove = || client.delete(&["account", "keys", key]);
            all.push(cx.out.step(&format!("Removing {key}"), remove)?);
        }
        cx.done(&all.into())
    }
}

/// Remove all your SSH keys
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform keys:clear")]
pub(crate) struct Clear {}

impl Clear {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let keys: Vec<Key> = crate::client::typed(&client.list(&["account", "keys"])?)?;
        let mut all = Vec::new();
        for key in keys {
            let remove = || client.delete(&["account", "keys", &key.id]);
            all.push(cx.out.step(&format!("Removing {}", key.fingerprint), remove)?);
        }
        cx.done(&all.into())
    }
}

fn usual_key() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let folder = Path::new(&home).join(".ssh");
    USUAL.iter().map(|name| folder.join(name)).find(|file| file.exists()).ok_or_else(|| {
        CliError::usage(format!("No public key was found in {}", folder.display()))
            .hint("Make one with `ssh-keygen -t ed25519`, or name its file: `platform keys:add FILE`.")
    })
}
