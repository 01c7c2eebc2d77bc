//! `teams`, `members` and their kin.

use clap::Args;
use serde_json::json;

use crate::client::{Member, Team};
use crate::commands::users;
use crate::context::{self, Context};
use crate::error::Result;
use crate::output;

/// List your teams
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform teams")]
pub(crate) struct List {}

impl List {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let teams = cx.client()?.list(&["teams"])?;
        cx.show_list(&teams, |out, teams: Vec<Team>| {
            let row = |team: Team| vec![team.name.clone().into(), team.highest().into()];
            let none = "You are in no team. Make one with `platform teams:create`.";
            out.table(&["Team", "Your role"], teams.into_iter().map(row).collect(), none)
        })
    }
}

/// Make a team, with you as its admin
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform teams:create my-team")]
pub(crate) struct Create {
    /// Name of the team: lowercase letters, digits and dashes
    name: String,
}

impl Create {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let content = json!({ "name": self.name });
        let made = cx.out.step(&format!("Creating the team {}", self.name), || client.post(&["teams"], &content))?;
        cx.done(&made)
    }
}

/// Give a team another name
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform teams:rename my-team our-team")]
pub(crate) struct Rename {
    /// Name of the team
    team: String,
    /// Its new name
    name: String,
}

impl Rename {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let content = json!({ "name": self.name });
        let rename = || client.patch(&["teams", &self.team], &content);
        let value = cx.out.step(&format!("Renaming {} to {}", self.team, self.name), rename)?;
        cx.done(&value)
    }
}

/// End a team that owns no app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform teams:destroy my-team --confirm my-team")]
pub(crate) struct Destroy {
    /// Name of the team
    team: String,
    /// The name of the team once more, to go on without being asked
    #[arg(long, short, value_name = "TEAM")]
    confirm: Option<String>,
}

impl Destroy {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let what = format!("This ends the team {} for all its members.", self.team);
        let command = format!("platform teams:destroy {0} --confirm {0}", self.team);
        context::confirm(&self.team, self.confirm, (&what, &command))?;
        let destroy = || client.delete(&["teams", &self.team]);
        let value = cx.out.step(&format!("Ending the team {}", self.team), destroy)?;
        cx.done(&value)
    }
}

/// List who is in a team
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform members -t my-team")]
pub(crate) struct Members {
    /// Name of the team
    #[arg(long, short, env = "PLATFORM_TEAM", hide_env = true)]
    team: String,
}

impl Members {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let members = cx.client()?.list(&["teams", &self.team, "members"])?;
        cx.show_list(&members, |out, members: Vec<Member>| {
            let row = |member: Member| {
                let codes = if member.two_factor_authentication { "on" } else { "off" };
                let since = output::ago(&member.created_at, context::now());
                vec![member.email.clone().into(), member.highest().into(), codes.into(), since.into()]
            };
            out.table(&["User", "Role", "Two-factor", "Member"], members.into_iter().map(row).collect(), "Nobody.")
        })
    }
}

/// Take users into a team, or give members another role
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform members:add ada@example.com -t my-team
  $ platform members:add grace@example.com -t my-team --role admin")]
pub(crate) struct Add {
    /// Addresses of users of this platform
    #[arg(required = true, value_name = "EMAIL")]
    emails: Vec<String>,
    /// Name of the team
    #[arg(long, short, env = "PLATFORM_TEAM", hide_env = true)]
    team: String,
    /// What they may do with the team's apps: view, deploy, operate, manage or admin
    #[arg(long, short, default_value = "operate")]
    role: String,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let mut all = Vec::new();
        for email in &self.emails {
            let content = json!({ "email": email, "role": self.role });
            let put = || client.post(&["teams", &self.team, "members"], &content);
            all.push(cx.out.step(&format!("Making {email} {} in {}", self.role, self.team), put)?);
        }
        cx.done(&all.into())
    }
}

/// Take users out of a team
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform members:remove ada@example.com -t my-team")]
pub(crate) struct Remove {
    /// Addresses of members
    #[arg(required = true, value_name = "EMAIL")]
    emails: Vec<String>,
    /// Name of the team
    #[arg(long, short, env = "PLATFORM_TEAM", hide_env = true)]
    team: String,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let mut all = Vec::new();
        for email in &self.emails {
            let remove = || client.delete(&["teams", &self.team, "members", email]);
            all.push(cx.out.step(&format!("Removing {email} from {}", self.team), remove)?);
        }
        cx.done(&all.into())
    }
}

/// Invite somebody to a team, who need not be a user yet
///
/// Prints a link, which is good for seven days and once: pass it on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform members:invite grace@example.com -t my-team --role deploy")]
pub(crate) struct Invite {
    /// Their address
    email: String,
    /// Name of the team
    #[arg(long, short, env = "PLATFORM_TEAM", hide_env = true)]
    team: String,
    /// What they may do with the team's apps: view, deploy, operate, manage or admin
    #[arg(long, short, default_value = "operate")]
    role: String,
}

impl Invite {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let content = json!({ "email": self.email, "role": self.role });
        let made = cx.client()?.put(&["teams", &self.team, "invitations"], &content)?;
        users::show_link(cx, &made)
    }
}
