//! `users:invitations`, `members:invitations` and their kin: who was invited and has not come yet.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Account;
use crate::context::{self, Context};
use crate::error::Result;
use crate::output;

/// An invitation, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Invitation {
    id: String,
    created_at: String,
    expires_at: String,
    invited_by: Account,
    user: Account,
}

/// List who was invited to the platform and has not come yet, as an operator of it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform users:invitations")]
pub(crate) struct List {}

impl List {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        show(cx, &cx.client()?.list(&["invitations"])?)
    }
}

/// Take invitations to the platform back, as an operator of it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform users:invitations:revoke 01234567-89ab-cdef-0123-456789abcdef")]
pub(crate) struct Revoke {
    /// Ids of invitations, as `platform users:invitations` shows them
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl Revoke {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        revoke(cx, &["invitations"], &self.ids)
    }
}

/// List who was invited to a team and has not come yet
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform members:invitations -t my-team")]
pub(crate) struct OfTeam {
    /// Name of the team
    #[arg(long, short, env = "PLATFORM_TEAM", hide_env = true)]
    team: String,
}

impl OfTeam {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        show(cx, &cx.client()?.list(&["teams", &self.team, "invitations"])?)
    }
}

/// Take invitations to a team back
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform members:invitations:revoke 01234567-89ab-cdef-0123-456789abcdef -t my-team")]
pub(crate) struct RevokeOfTeam {
    /// Ids of invitations, as `platform members:invitations` shows them
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Name of the team
    #[arg(long, short, env = "PLATFORM_TEAM", hide_env = true)]
    team: String,
}

impl RevokeOfTeam {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        revoke(cx, &["teams", &self.team, "invitations"], &self.ids)
    }
}

fn show(cx: &Context, invitations: &Value) -> Result<()> {
    cx.show_list(invitations, |out, invitations: Vec<Invitation>| {
        let row = |one: Invitation| {
            vec![
                one.user.email.into(),
                one.invited_by.email.into(),
                output::ago(&one.created_at, context::now()).into(),
                output::when(&one.expires_at, context::now()).into(),
                one.id.into(),
            ]
        };
        let header = ["User", "Invited by", "When", "Until", "Id"];
        out.table(&header, invitations.into_iter().map(row).collect(), "Nobody is invited.")
    })
}

fn revoke(cx: &Context, path: &[&str], ids: &[String]) -> Result<()> {
    let client = cx.client()?;
    let mut all = Vec::new();
    for id in ids {
        let path = [path, &[id.as_str()]].concat();
        all.push(cx.out.step(&format!("Revoking {id}"), || client.delete(&path))?);
    }
    cx.done(&all.into())
}
