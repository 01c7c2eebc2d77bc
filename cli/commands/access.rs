//! `access` and its kin: who may work on an app, and who owns it.

use clap::Args;
use serde_json::json;

use crate::client::{self, AppTransfer, Collaborator};
use crate::context::{AppArg, Context};
use crate::error::Result;
use crate::output;

/// Where an answer has the link for whom it invites.
const WARNING: &str = "x-heroku-warning";

fn warn(cx: &Context, warning: Option<String>) {
    if let Some(warning) = warning {
        cx.out.note(&warning);
    }
}

/// List who may work on an app, and as what
///
/// Each role may do all that the ones before it may: `view` looks at it; `deploy` pushes, rolls back and sees config vars;
/// `operate` changes config vars, domains, add-ons and dynos; `manage` decides who works on it; `admin` renames, transfers
/// and destroys it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform access
  $ platform access -a my-app --json")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let collaborators = client.list(&["apps", &name, "collaborators"])?;
        cx.show_list(&collaborators, |out, collaborators: Vec<Collaborator>| {
            let row = |one: Collaborator| {
                let role = match one.role.as_deref() {
                    Some("owner") => "owner".to_owned(),
                    Some(_) => one.highest(),
                    None => format!("{} (invited)", one.highest()),
                };
                vec![one.user.email.into(), role.into()]
            };
            out.table(&["User", "Role"], collaborators.into_iter().map(row).collect(), "No collaborators.")
        })
    }
}

/// Let people work on an app
///
/// Who is no user of the platform yet is invited: the command prints a link to pass on, which is good for seven days and
/// once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform access:add ada@example.com -a my-app
  $ platform access:add ci@example.com --role deploy")]
pub(crate) struct Add {
    /// Addresses of people
    #[arg(required = true, value_name = "EMAIL")]
    emails: Vec<String>,
    /// view, deploy, operate, manage or admin
    #[arg(long, alias = "permissions", short_alias = 'p', default_value = "operate")]
    role: String,
    #[command(flatten)]
    app: AppArg,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let mut all = Vec::new();
        for email in &self.emails {
            let content = json!({ "user": email, "permissions": words(&self.role) });
            let add = || client.send_for(("POST", WARNING), &["apps", &name, "collaborators"], &content);
            let (made, warning) = cx.out.step(&format!("Adding {email} to {name} as {}", self.role), add)?;
            warn(cx, warning);
            all.push(made);
        }
        cx.done(&all.into())
    }
}

/// Give a collaborator of an app another role
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform access:update ada@example.com --role manage -a my-app")]
pub(crate) struct Update {
    /// Address of a collaborator
    email: String,
    /// view, deploy, operate, manage or admin
    #[arg(long, alias = "permissions", short_alias = 'p')]
    role: String,
    #[command(flatten)]
    app: AppArg,
}

impl Update {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let content = json!({ "permissions": words(&self.role) });
        let path = ["apps", &name, "collaborators", &self.email];
        let update = || client.send_for(("PATCH", WARNING), &path, &content);
        let (value, warning) = cx.out.step(&format!("Making {} {} on {name}", self.email, self.role), update)?;
        warn(cx, warning);
        cx.done(&value)
    }
}

/// End users' work on an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform access:remove ada@example.com -a my-app")]
pub(crate) struct Remove {
    /// Addresses of collaborators
    #[arg(required = true, value_name = "EMAIL")]
    emails: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let mut all = Vec::new();
        for email in &self.emails {
            let remove = || client.delete(&["apps", &name, "collaborators", email]);
            all.push(cx.out.step(&format!("Removing {email} from {name}"), remove)?);
        }
        cx.done(&all.into())
    }
}

/// Work on an app no longer
///
/// What you may do with it by your teams stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform leave -a not-my-app")]
pub(crate) struct Leave {
    #[command(flatten)]
    app: AppArg,
}

impl Leave {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let mine = client::typed::<client::Account>(&client.get(&["account"])?)?.email;
        let leave = || client.delete(&["apps", &name, "collaborators", &mine]);
        cx.done(&cx.out.step(&format!("Leaving {name}"), leave)?)
    }
}

/// Give an app to a team of yours, or offer it to another user
///
/// Your own team has it at once. A user has to take it: `platform apps:transfer:accept`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform apps:transfer my-team -a my-app
  $ platform apps:transfer grace@example.com -a my-app")]
pub(crate) struct TransferApp {
    /// Name of a team, or address of a user
    recipient: String,
    #[command(flatten)]
    app: AppArg,
}

impl TransferApp {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let to = &self.recipient;
        let mine = client::typed::<client::Account>(&client.get(&["account"])?)?.email;
        if to.contains('@') && *to != mine {
            let content = json!({ "app": name, "recipient": to });
            let offer = || client.post(&["account", "app-transfers"], &content);
            let value = cx.out.step(&format!("Offering {name} to {to}"), offer)?;
            cx.out.note(&format!("{to} takes it with `platform apps:transfer:accept {name}`."));
            return cx.done(&value);
        }
        let content = json!({ "owner": to });
        let value =
            cx.out.step(&format!("Giving {name} to {to}"), || client.patch(&["teams", "apps", &name], &content))?;
        cx.done(&value)
    }
}

/// List the apps that you offered or were offered
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform apps:transfers")]
pub(crate) struct Transfers {}

impl Transfers {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let transfers = cx.client()?.list(&["account", "app-transfers"])?;
        cx.show_list(&transfers, |out, transfers: Vec<AppTransfer>| {
            let row = |one: AppTransfer| {
                let when = output::ago(&one.created_at, crate::context::now());
                vec![
                    one.app.name.into(),
                    one.owner.email.into(),
                    one.recipient.email.into(),
                    one.state.into(),
                    when.into(),
                ]
            };
            let header = ["App", "From", "To", "State", "Offered"];
            out.table(&header, transfers.into_iter().map(row).collect(), "No app was offered.")
        })
    }
}

/// Take an app that was offered to you
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform apps:transfer:accept my-app")]
pub(crate) struct Accept {
    /// Name of the app
    app: String,
}

impl Accept {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        answer(cx, &self.app, ("Taking over", "accepted"))
    }
}

/// Decline an app that was offered to you
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform apps:transfer:decline my-app")]
pub(crate) struct Decline {
    /// Name of the app
    app: String,
}

impl Decline {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        answer(cx, &self.app, ("Declining", "declined"))
    }
}

/// Take back the offer of an app of yours
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform apps:transfer:cancel my-app")]
pub(crate) struct Cancel {
    /// Name of the app
    app: String,
}

impl Cancel {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let cancel = || client.delete(&["account", "app-transfers", &self.app]);
        cx.done(&cx.out.step(&format!("Taking back the offer of {}", self.app), cancel)?)
    }
}

fn answer(cx: &Context, app: &str, (what, state): (&str, &str)) -> Result<()> {
    let client = cx.client()?;
    let send = || client.patch(&["account", "app-transfers", app], &json!({ "state": state }));
    let value = cx.out.step(&format!("{what} {app}"), send)?;
    cx.done(&value)
}

/// Heroku's flag takes several permissions with commas; the highest counts.
fn words(role: &str) -> Vec<&str> {
    role.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}
