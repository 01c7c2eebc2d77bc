//! `credentials` and its kin: what private registries and git hosts want to know.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::ask_secret;
use crate::client::{self, Named};
use crate::context::{self, Context, ScopeArg};
use crate::error::{CliError, Result};

/// The last word of their paths.
const CREDENTIALS: &str = "credentials";

/// A credential, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Credential {
    app: Option<Named>,
    host: String,
    host_fingerprints: Vec<String>,
    id: String,
    kind: String,
    public_key: Option<String>,
    team: Option<Named>,
    username: String,
}

/// List for which private registries and git hosts there are credentials
///
/// Of an app: its own, those of its team and those of the platform. Of several for one host the first is used. Secrets are shown to
/// nobody.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform credentials -a my-app
  $ platform credentials --team my-team
  $ platform credentials --platform --json")]
pub(crate) struct List {
    #[command(flatten)]
    scope: ScopeArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, path, _) = self.scope.collection(cx, CREDENTIALS)?;
        let all = client.list(&words(&path))?;
        cx.show_list(&all, |out, all: Vec<Credential>| {
            let row = |one: Credential| {
                let whose = context::whose(one.app, one.team);
                let known = one.host_fingerprints.join(", ");
                vec![one.host.into(), one.username.into(), one.kind.into(), whose.into(), known.into()]
            };
            let none = "No credentials. `platform credentials:set HOST` adds those of a registry or a git host.";
            out.table(&["Host", "User", "Kind", "Of", "Host key"], all.into_iter().map(row).collect(), none)
        })
    }
}

/// Tell the platform who it is at a private registry or git host
///
/// For images, base images of Dockerfiles, buildpacks and repositories that are fetched from there, and for images that are pushed
/// there. The password or token is asked for, or read from standard input; it is kept sealed, shown to nobody, and never within
/// reach of a build. Setting it again replaces it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform credentials:set registry.example.com:5000 --user robot -a my-app
  $ echo $TOKEN | platform credentials:set ghcr.io --user ada --team my-team
  $ platform credentials:set git.example.com --ssh-key deploy_key --host-key \"$(ssh-keyscan -t ed25519 git.example.com)\"
  $ platform credentials:set git.example.com --user deploy --platform")]
pub(crate) struct Set {
    /// ghcr.io, docker.io, git.example.com, registry.example.com:5000
    host: String,
    /// Who one is there; `git` for an SSH key
    #[arg(short, long, value_name = "NAME", required_unless_present = "ssh_key")]
    user: Option<String>,
    /// In place of a password, an SSH key: the file of the private half, without a passphrase
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// The key by which the SSH server is known; without it, it is trusted when it is met
    #[arg(long, value_name = "KEY", requires = "ssh_key")]
    host_key: Option<String>,
    #[command(flatten)]
    scope: ScopeArg,
}

impl Set {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, path, whose) = self.scope.collection(cx, CREDENTIALS)?;
        let secret = match &self.ssh_key {
            Some(file) => {
                let failed =
                    |error: std::io::Error| CliError::failed(format!("Cannot read {}", file.display())).because(&error);
                json!({ "private_key": std::fs::read_to_string(file).map_err(failed)? })
            }
            None => json!({ "password": ask_secret("Password or token")? }),
        };
        let mut content = json!({ "host": self.host, "username": self.user, "host_key": self.host_key });
        if let (Value::Object(content), Value::Object(secret)) = (&mut content, secret) {
            content.extend(secret);
        }
        let step = format!("Setting credentials of {} for {}", whose, self.host);
        let made = cx.out.step(&step, || client.put(&words(&path), &content))?;
        cx.show(&made, |out| {
            let made: Credential = client::typed(&made)?;
            let mut pairs = vec![("Host", made.host.into()), ("User", made.username.into())];
            pairs.extend(made.public_key.map(|key| ("Public key", key.into())));
            out.pairs(pairs)
        })
    }
}

/// Forget the credentials of a private registry or git host
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform credentials:remove ghcr.io -a my-app
  $ platform credentials:remove git.example.com --platform")]
pub(crate) struct Remove {
    /// As `platform credentials` shows it
    host: String,
    #[command(flatten)]
    scope: ScopeArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, path, whose) = self.scope.collection(cx, CREDENTIALS)?;
        let all: Vec<Credential> = client::typed(&client.list(&words(&path))?)?;
        let is_meant =
            |one: &&Credential| one.host == self.host && self.scope.is_of(one.app.as_ref(), one.team.as_ref());
        let mut gone = Vec::new();
        for one in all.iter().filter(is_meant) {
            let path: Vec<_> = words(&path).into_iter().chain([one.id.as_str()]).collect();
            let step = format!("Removing the {} of {whose} for {}", one.kind, one.host);
            gone.push(cx.out.step(&step, || client.delete(&path))?);
        }
        if gone.is_empty() {
            let text = format!("There are no credentials of {whose} for {}", self.host);
            return Err(CliError::usage(text).hint("`platform credentials` lists those that there are, and of whom."));
        }
        cx.done(&gone.into())
    }
}

fn words(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}
