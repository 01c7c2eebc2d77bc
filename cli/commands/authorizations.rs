//! `authorizations` and its kin: tokens for programs.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::client::{self, Authorization, Named};
use crate::context::{self, Context};
use crate::error::Result;
use crate::output;

/// A token, as far as it is printed.
#[derive(Debug, Deserialize)]
struct KnownAuthorization {
    id: String,
    description: String,
    scope: Vec<String>,
    /// The one app that it is good for.
    app: Option<Named>,
    /// The most that it may do there.
    role: Option<String>,
    expires_at: Option<String>,
    created_at: String,
    last_used_at: Option<String>,
}

/// List your tokens, but not the tokens themselves
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform authorizations")]
pub(crate) struct List {}

impl List {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let tokens = cx.client()?.list(&["oauth", "authorizations"])?;
        cx.show_list(&tokens, |out, tokens: Vec<KnownAuthorization>| {
            let row = |one: KnownAuthorization| {
                let (good_for, used) = (one.good_for(), one.used());
                vec![one.description.into(), one.id.into(), good_for.into(), used.into()]
            };
            out.table(&["Description", "Id", "Good for", "Used"], tokens.into_iter().map(row).collect(), "No tokens.")
        })
    }
}

impl KnownAuthorization {
    fn good_for(&self) -> String {
        match (&self.app, &self.role) {
            (Some(app), Some(role)) => format!("{role} on {}", app.name),
            _ => self.scope.join(", "),
        }
    }

    fn used(&self) -> String {
        self.last_used_at.as_ref().map_or_else(|| "never".to_owned(), |time| output::ago(time, context::now()))
    }
}

/// Make a token for a program
///
/// Prints it, this once. With --only it is a deploy token: good for one app, and for no more of it than a role.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform authorizations:create --description CI --only my-app
  $ platform authorizations:create --scope read,read-protected --expires-in 3600")]
pub(crate) struct Create {
    /// What it is for
    #[arg(long, short, default_value = "")]
    description: String,
    /// What it is good for: global, identity, read, write, read-protected, write-protected
    #[arg(long, short, value_delimiter = ',', default_value = "global")]
    scope: Vec<String>,
    /// The one app that it is good for
    #[arg(long, value_name = "APP")]
    only: Option<String>,
    /// The most that it may do with that app: view, deploy, operate, manage or admin
    #[arg(long, requires = "only")]
    role: Option<String>,
    /// Seconds until it is no longer good
    #[arg(long, short, value_name = "SECONDS")]
    expires_in: Option<u64>,
    /// For whoever is used to say so: it prints the token alone anyway
    #[arg(long = "short", short = 'S', hide = true)]
    _short: bool,
}

impl Create {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let content = json!({
            "description": self.description, "scope": self.scope, "app": self.only, "role": self.role,
            "expires_in": self.expires_in,
        });
        let made = cx.client()?.post(&["oauth", "authorizations"], &content)?;
        cx.show(&made, |out| out.line(client::typed::<Authorization>(&made)?.access_token.token))
    }
}

/// Show what is known of a token
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform authorizations:info 01234567-89ab-cdef-0123-456789abcdef
  $ platform authorizations:info ~")]
pub(crate) struct Info {
    /// Id of the token; `~` is the one that you use
    id: String,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let value = cx.client()?.get(&["oauth", "authorizations", &self.id])?;
        cx.show(&value, |out| {
            let one: KnownAuthorization = client::typed(&value)?;
            let expires = one.expires_at.as_ref();
            let expires = expires.map_or_else(|| "never".to_owned(), |time| output::when(time, context::now()));
            out.pairs([
                ("Description", one.description.as_str().into()),
                ("Id", one.id.as_str().into()),
                ("Good for", one.good_for().into()),
                ("Made", output::when(&one.created_at, context::now()).into()),
                ("Expires", expires.into()),
                ("Used", one.used().into()),
            ])
        })
    }
}

/// Say what a token is for
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform authorizations:update 01234567-89ab-cdef-0123-456789abcdef --description CI")]
pub(crate) struct Update {
    /// Id of the token
    id: String,
    /// What it is for
    #[arg(long, short)]
    description: String,
}

impl Update {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let content = json!({ "description": self.description });
        let update = || client.patch(&["oauth", "authorizations", &self.id], &content);
        cx.done(&cx.out.step(&format!("Changing {}", self.id), update)?)
    }
}

/// Make the same token anew; the old one is no longer good
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform authorizations:rotate 01234567-89ab-cdef-0123-456789abcdef")]
pub(crate) struct Rotate {
    /// Id of the token
    id: String,
}

impl Rotate {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let path = ["oauth", "authorizations", &self.id, "actions", "regenerate-tokens"];
        let made = cx.client()?.post(&path, &json!({}))?;
        cx.show(&made, |out| out.line(client::typed::<Authorization>(&made)?.access_token.token))
    }
}

/// Revoke tokens
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform authorizations:revoke 01234567-89ab-cdef-0123-456789abcdef")]
pub(crate) struct Revoke {
    /// Ids of tokens
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl Revoke {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let mut all = Vec::new();
        for id in &self.ids {
            let revoke = || client.delete(&["oauth", "authorizations", id]);
            all.push(cx.out.step(&format!("Revoking {id}"), revoke)?);
        }
        cx.done(&all.into())
    }
}
