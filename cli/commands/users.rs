//! `users:create`: by root on the platform's own machine, so that the first user needs no user. `users` and its kin: what
//! operators do with accounts.

use clap::Args;
use serde_json::json;

use crate::client::{self, Client, Invited, KnownUser, NewUser};
use crate::commands::auth;
use crate::context::{self, Context};
use crate::credentials::{self, Login};
use crate::error::Result;
use crate::output;
use crate::server::Places;

/// Create a user, on the platform's own machine and as root
///
/// Prints a token for the new user, this once: they log in with `platform login --token`. With `--password` they can also
/// log in with their e-mail address and that password.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ sudo platform users:create ada@example.com
  $ sudo platform users:create ada@example.com --login
  $ sudo platform users:create ci@example.com --json | jq -r .token")]
pub(crate) struct Create {
    /// The e-mail address of the new user
    email: String,
    /// Ask for a password for the new user; from a pipe, read it from standard input
    #[arg(long)]
    password: bool,
    /// Log in as the new user, here and now
    #[arg(long)]
    login: bool,
}

impl Create {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let mut content = json!({ "email": self.email });
        if self.password {
            content["password"] = auth::ask_secret("Password of the new user")?.into();
        }
        let made = Client::local(&Places::load()?.control())?.post(&["users"], &content)?;
        let user: NewUser = client::typed(&made)?;
        cx.show(&made, |out| out.pairs([("User", user.email.as_str().into()), ("Token", user.token.as_str().into())]))?;
        if self.login {
            let api = cx.local_api()?;
            cx.out.note(&format!("Logged in to {} as {}", credentials::key(&api), user.email));
            auth::keep(cx, &api, Login { email: user.email, token: user.token, https: None })?;
        }
        Ok(())
    }
}

/// List who has an account, as an operator of the platform
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform users")]
pub(crate) struct List {}

impl List {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let users = cx.client()?.list(&["users"])?;
        cx.show_list(&users, |out, users: Vec<KnownUser>| {
            let row = |user: KnownUser| {
                let state = match (&user.suspended_at, user.operator) {
                    (Some(_), _) => "suspended",
                    (None, true) => "operator",
                    (None, false) => "user",
                };
                let codes = if user.two_factor_authentication { "on" } else { "off" };
                let seen =
                    user.last_login.map_or_else(|| "never".to_owned(), |time| output::ago(&time, context::now()));
                vec![user.email.into(), state.into(), codes.into(), seen.into()]
            };
            out.table(&["User", "Is", "Two-factor", "Login"], users.into_iter().map(row).collect(), "Nobody.")
        })
    }
}

/// Invite somebody to the platform, as an operator of it
///
/// Prints a link, which is good for seven days and once: pass it on. Whoever opens it chooses a password.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform users:invite grace@example.com")]
pub(crate) struct Invite {
    /// Their address
    email: String,
}

impl Invite {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let made = cx.client()?.post(&["invitations"], &json!({ "email": self.email }))?;
        show_link(cx, &made)
    }
}

/// The link of an invitation that was just made.
pub(super) fn show_link(cx: &Context, made: &serde_json::Value) -> Result<()> {
    cx.show(made, |out| out.line(client::typed::<Invited>(made)?.url))?;
    cx.out.note("Pass this link on. It is good for seven days, and once.");
    Ok(())
}

/// Keep a user out, at once, as an operator of the platform
///
/// Their tokens, keys and sessions are good no longer; their apps go on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform users:suspend eve@example.com")]
pub(crate) struct Suspend {
    /// Their address
    email: String,
}

impl Suspend {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        change(cx, &self.email, ("Suspending", &json!({ "suspended": true })))
    }
}

/// Let a suspended user in again, as an operator of the platform
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform users:restore eve@example.com")]
pub(crate) struct Restore {
    /// Their address
    email: String,
}

impl Restore {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        change(cx, &self.email, ("Restoring", &json!({ "suspended": false })))
    }
}

/// Let a user keep the platform too, as one of its operators
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform users:promote grace@example.com")]
pub(crate) struct Promote {
    /// Their address
    email: String,
    /// No longer
    #[arg(long)]
    undo: bool,
}

impl Promote {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let what = if self.undo { "Demoting" } else { "Promoting" };
        change(cx, &self.email, (what, &json!({ "operator": !self.undo })))
    }
}

/// Delete a user's account, as an operator of the platform
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform users:delete eve@example.com --confirm eve@example.com")]
pub(crate) struct Delete {
    /// Their address
    email: String,
    /// The address once more, to go on without being asked
    #[arg(long, short, value_name = "EMAIL")]
    confirm: Option<String>,
}

impl Delete {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let what = format!("This deletes the account of {} and cannot be undone.", self.email);
        let command = format!("platform users:delete {0} --confirm {0}", self.email);
        context::confirm_named((&self.email, "their address"), self.confirm, (&what, &command))?;
        let client = cx.client()?;
        let delete = || client.delete(&["users", &self.email]);
        let value = cx.out.step(&format!("Deleting {}", self.email), delete)?;
        cx.done(&value)
    }
}

fn change(cx: &Context, email: &str, (what, content): (&str, &serde_json::Value)) -> Result<()> {
    let client = cx.client()?;
    let value = cx.out.step(&format!("{what} {email}"), || client.patch(&["users", email], content))?;
    cx.done(&value)
}
