//! `2fa` and its kin: the code that is asked for after the password.

use clap::Args;
use serde_json::{Value, json};

use crate::client::{self, RecoveryCodes, TwoFactor, TwoFactorSecret};
use crate::commands::auth;
use crate::context::Context;
use crate::error::{CliError, Kind, Result};

/// Show whether a code is asked for after your password
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform 2fa")]
pub(crate) struct Show {}

impl Show {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let value = cx.client()?.get(&["account", "two-factor"])?;
        cx.show(&value, |out| {
            let state: TwoFactor = client::typed(&value)?;
            let left = state.recovery_codes_left.to_string();
            out.pairs([
                ("Two-factor", if state.enabled { "on" } else { "off" }.into()),
                ("Recovery codes", format!("{left} left").into()),
            ])
        })
    }
}

/// Ask for a code after your password from now on
///
/// Shows a secret for an authenticator app, and takes the app's first code. Prints recovery codes, this once: keep them where
/// you would find them without your phone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform 2fa:enable")]
pub(crate) struct Enable {
    /// The app's first code, if the secret was shown before
    #[arg(long)]
    code: Option<String>,
}

impl Enable {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let code = if let Some(code) = self.code {
            code
        } else {
            let begun = client.post(&["account", "two-factor"], &json!({}))?;
            let secret: TwoFactorSecret = client::typed(&begun)?;
            cx.out.note(&format!("Secret: {}\nOr as a link:  {}", secret.secret, secret.url));
            auth::ask_secret("The code that the app shows")?
        };
        let enabled = client.patch(&["account", "two-factor"], &json!({ "code": code }));
        show_codes(cx, &enabled.map_err(wrong_code)?)
    }
}

/// Ask for a code no longer
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform 2fa:disable")]
pub(crate) struct Disable {
    /// A code, so as not to be asked
    #[arg(long)]
    code: Option<String>,
}

impl Disable {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let code = code(self.code)?;
        let value = client.delete_with(&["account", "two-factor"], &json!({ "code": code })).map_err(wrong_code)?;
        cx.show(&value, |out| out.line("Two-factor authentication is off"))
    }
}

/// Make other recovery codes in place of those that are left
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform 2fa:recovery-codes")]
pub(crate) struct Codes {
    /// A code, so as not to be asked
    #[arg(long)]
    code: Option<String>,
}

impl Codes {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let code = code(self.code)?;
        let made = client.post(&["account", "recovery-codes"], &json!({ "code": code }));
        show_codes(cx, &made.map_err(wrong_code)?)
    }
}

fn wrong_code(error: CliError) -> CliError {
    match error.kind {
        // It is not the token that is no good.
        Kind::Login => error.hint("Wait for the next code, and see that the clocks of both machines are right."),
        _ => error,
    }
}

fn code(given: Option<String>) -> Result<String> {
    given.map_or_else(|| auth::ask_secret("Code"), Ok)
}

fn show_codes(cx: &Context, value: &Value) -> Result<()> {
    cx.show(value, |out| {
        out.heading("Recovery codes")?;
        client::typed::<RecoveryCodes>(value)?.recovery_codes.iter().try_for_each(|code| out.line(code))
    })
}
