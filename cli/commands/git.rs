//! `git:remote` and `git:credentials`.

use std::io;

use clap::{Args, ValueEnum};
use serde_json::json;
use url::Url;

use crate::client::{self, App};
use crate::context::{self, Context};
use crate::credentials::{self, Credentials};
use crate::error::{CliError, Result};
use crate::git;

/// Add the git remote of an app to this repository
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform git:remote -a my-app
  $ platform git:remote -a my-app-staging -r staging
  $ platform git:remote -a my-app --ssh
  $ git push platform main")]
pub(crate) struct Remote {
    /// App that the remote is for
    #[arg(short, long, env = "PLATFORM_APP", hide_env = true)]
    app: String,
    /// Name of the remote
    #[arg(short = 'r', long = "remote", default_value = git::REMOTE)]
    name: String,
    /// Push over SSH, with a key that `platform keys:add` made known, and not with a token
    #[arg(long)]
    ssh: bool,
}

impl Remote {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let app: App = client::typed(&client.get(&["apps", &self.app])?)?;
        let address = git::address(client.base(), &app.name);
        if !git::in_repository() {
            return Err(CliError::usage("This is not a git repository")
                .hint("Make one with `git init`, or go to the app's folder."));
        }
        let address = match app.ssh_url {
            _ if !self.ssh => address,
            Some(address) => address,
            None => {
                return Err(CliError::failed("This platform takes no pushes over SSH").hint(
                    "Its operator turns them on with the setting `ssh_listen`. Without --ssh, git uses your token.",
                ));
            }
        };
        git::set_remote(&self.name, &address)?;
        let value = json!({ "remote": self.name, "url": address });
        cx.show(&value, |out| out.line(format!("The git remote {} is {address}", self.name)))
    }
}

/// Answer git's question for a password (gitcredentials(7)); `login` tells git to ask here
#[derive(Debug, Args)]
pub(crate) struct CredentialHelper {
    /// What git wants; only `get` is answered
    operation: Operation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    Get,
    Store,
    Erase,
}

impl CredentialHelper {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        if self.operation != Operation::Get {
            return Ok(());
        }
        let question = io::read_to_string(io::stdin())
            .map_err(|error| CliError::failed("Cannot read git's question from standard input").because(&error))?;
        let Some(asked) = asked_for(&question) else { return Ok(()) };
        if let Some(token) = token_for(cx, &asked)? {
            cx.out.line(format!("username=platform\npassword={token}"))?;
        }
        // Anything else is not our host: git goes on to the next helper, or asks.
        Ok(())
    }
}

fn asked_for(question: &str) -> Option<Url> {
    let attribute = |name| question.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    Url::parse(&format!("{}://{}", attribute("protocol")?, attribute("host")?)).ok()
}

fn token_for(cx: &Context, asked: &Url) -> Result<Option<String>> {
    if let Some(token) = context::token_from_environment()
        && cx.api()?.origin() == asked.origin()
    {
        return Ok(Some(token));
    }
    let credentials = Credentials::load()?;
    let is_asked = |api: &str| Url::parse(api).is_ok_and(|api| api.origin() == asked.origin());
    Ok(credentials
        .logins
        .iter()
        .find(|(api, login)| is_asked(api) || login.https.as_deref().is_some_and(is_asked))
        .map(|(_, login): (_, &credentials::Login)| login.token.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_question_names_a_platform() {
        let asked = asked_for("protocol=http\nhost=localhost:8080\nwwwauth[]=Basic realm=\"platform\"\n").unwrap();
        assert_eq!(credentials::key(&asked), "http://localhost:8080");
        assert!(asked_for("path=x\n").is_none());
    }
}
