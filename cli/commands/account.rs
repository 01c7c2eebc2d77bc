//! `account`, `sessions` and their kin: one's own account, and the browsers that are signed in to it.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client;
use crate::commands::auth;
use crate::context::{self, Context};
use crate::credentials::Credentials;
use crate::error::{CliError, Kind, Result};
use crate::output;

/// An account, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Account {
    email: String,
    name: Option<String>,
    operator: bool,
    two_factor_authentication: bool,
    created_at: String,
}

/// A browser that is signed in.
#[derive(Debug, Deserialize)]
struct Session {
    id: String,
    description: String,
    ip_address: Option<String>,
    created_at: String,
    expires_at: String,
}

/// Show your account
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform account
  $ platform account --json")]
pub(crate) struct Show {}

impl Show {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let value = client.get(&["account"])?;
        let left = client.get(&["account", "rate-limits"])?;
        cx.show(&value, |out| {
            let account: Account = client::typed(&value)?;
            let is = if account.operator { "operator of the platform" } else { "user" };
            out.pairs([
                ("E-mail", account.email.into()),
                ("Name", account.name.unwrap_or_default().into()),
                ("Is", is.into()),
                ("Two-factor", if account.two_factor_authentication { "on" } else { "off" }.into()),
                ("Since", output::when(&account.created_at, context::now()).into()),
                ("Requests left", left["remaining"].to_string().into()),
            ])
        })
    }
}

/// Say what you are called
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform account:update --name 'Ada Lovelace'")]
pub(crate) struct Update {
    /// Your name, for people
    #[arg(long, short)]
    name: String,
}

impl Update {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let update = || client.patch(&["account"], &json!({ "name": self.name }));
        cx.done(&cx.out.step("Changing your account", update)?)
    }
}

/// Change your password
///
/// Asks for the present one and for the new one, twice; from a pipe, reads them from two lines of standard input. Browsers that are
/// signed in as you are signed out; tokens stay good.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform account:password
  $ printf '%s\\n%s\\n' \"$OLD\" \"$NEW\" | platform account:password")]
pub(crate) struct Password {}

impl Password {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let (old, new) = auth::ask_new_password()?;
        let content = json!({ "current_password": old, "new_password": new });
        let change = || client.put(&["account", "password"], &content).map_err(wrong_password);
        cx.done(&cx.out.step("Changing your password", change)?)
    }
}

/// Delete your account
///
/// Asks for your password, if you have one; from a pipe, reads it from standard input. Possible once you own no app and are
/// no team's only admin. What you did stays in the audit log, under your address.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform account:delete
  $ echo \"$PASSWORD\" | platform account:delete --confirm ada@example.com")]
pub(crate) struct Delete {
    /// Your address once more, to go on without being asked
    #[arg(long, short, value_name = "EMAIL")]
    confirm: Option<String>,
    /// You have no password
    #[arg(long)]
    no_password: bool,
}

impl Delete {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let account: Account = client::typed(&client.get(&["account"])?)?;
        let email = &account.email;
        let what = format!("This deletes the account {email} and cannot be undone.");
        let command = format!("platform account:delete --confirm {email}");
        context::confirm_named((email, "your address"), self.confirm, (&what, &command))?;
        let password = if self.no_password { Value::Null } else { auth::ask_secret("Your password")?.into() };
        let delete = || client.delete_with(&["account"], &json!({ "password": password })).map_err(wrong_password);
        let gone = cx.out.step(&format!("Deleting {email}"), delete)?;
        // The token went with the account.
        let mut credentials = Credentials::load()?;
        if credentials.remove(client.base()).is_some_and(|login| login.email == *email) {
            credentials.save()?;
        }
        cx.done(&gone)
    }
}

fn wrong_password(error: CliError) -> CliError {
    match error.kind {
        // It is not the token that is no good.
        Kind::Login => error.hint("It is your present password that was not right. Nothing was changed."),
        _ => error,
    }
}

/// List the browsers that are signed in to the console as you
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform sessions")]
pub(crate) struct Sessions {}

impl Sessions {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let sessions = cx.client()?.list(&["oauth", "sessions"])?;
        cx.show_list(&sessions, |out, sessions: Vec<Session>| {
            let row = |one: Session| {
                vec![
                    one.description.into(),
                    one.ip_address.unwrap_or_default().into(),
                    output::ago(&one.created_at, context::now()).into(),
                    output::when(&one.expires_at, context::now()).into(),
                    one.id.into(),
                ]
            };
            let none = "No browser is signed in as you. `platform authorizations` lists tokens.";
            let header = ["Browser", "From", "Signed in", "Until", "Id"];
            out.table(&header, sessions.into_iter().map(row).collect(), none)
        })
    }
}

/// Sign browsers out of the console
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform sessions:destroy 01234567-89ab-cdef-0123-456789abcdef")]
pub(crate) struct EndSessions {
    /// Ids of sessions, as `platform sessions` shows them
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl EndSessions {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let mut all = Vec::new();
        for id in &self.ids {
            all.push(cx.out.step(&format!("Signing out {id}"), || client.delete(&["oauth", "sessions", id]))?);
        }
        cx.done(&all.into())
    }
}
