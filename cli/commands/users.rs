//! `users:create`: by root on the platform's own machine, so that the first user needs no user.

use clap::Args;
use serde_json::json;

use crate::client::{self, Client, NewUser};
use crate::commands::auth;
use crate::context::Context;
use crate::credentials::{self, Login};
use crate::error::Result;
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
            auth::keep(cx, &api, Login { email: user.email, token: user.token })?;
        }
        Ok(())
    }
}
