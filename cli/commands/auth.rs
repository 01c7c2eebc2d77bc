//! `login`, `logout`, `whoami`, `auth:token`.

use std::io::{self, Write};

use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal;
use serde_json::json;
use url::Url;

use crate::client::{self, Account, Authorization, BrowserLogin, Client, LoginDecision};
use crate::commands::apps::open_browser;
use crate::context::{self, Context};
use crate::credentials::{self, Credentials};
use crate::error::{CliError, Kind, Result};
use crate::git;

/// Log in to a platform
///
/// In your browser, where you may have signed in already, or with e-mail and password here. Keeps a token in
/// ~/.config/platform/credentials.toml, which only you can read. git learns to use the same token for this platform. Later
/// commands go to the platform that you logged in to last.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform login
  $ platform login --interactive
  $ platform login --api https://platform.example.com
  $ platform login --token - < token.txt")]
pub(crate) struct Login {
    /// Use a browser, also if there is no terminal here
    #[arg(long)]
    browser: bool,
    /// Ask for e-mail and password here instead of using a browser
    #[arg(short, long, conflicts_with = "browser")]
    interactive: bool,
    /// Your e-mail address; only the password is asked for then
    #[arg(long, conflicts_with = "browser")]
    email: Option<String>,
    /// A token to use instead; `-` reads it from standard input
    #[arg(long, conflicts_with_all = ["email", "browser", "interactive"])]
    token: Option<String>,
}

impl Login {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let api = cx.api()?;
        let here = self.interactive || self.email.is_some() || !context::can_ask();
        let token = match self.token {
            Some(token) if token == "-" => read_line_from_stdin()?,
            Some(token) => token,
            None if self.browser || !here => token_by_browser(cx, &api)?,
            None => token_by_password(&api, self.email)?,
        };
        let client = Client::new(api.clone(), Some(token.clone()));
        let account: Account = client::typed(&client.get(&["account"]).map_err(|error| match error.kind {
            Kind::Login => error.hint("This platform does not know the token. Nobody was logged in or out."),
            _ => error,
        })?)?;
        keep(cx, &api, credentials::Login { email: account.email.clone(), token, https: None })?;
        let api = credentials::key(&api);
        let value = json!({ "api": api, "email": account.email });
        cx.show(&value, |out| out.line(format!("Logged in to {api} as {}", account.email)))
    }
}

/// Waits until somebody who is signed in to the console lets this program in.
fn token_by_browser(cx: &Context, api: &Url) -> Result<String> {
    // Linux's own name of the machine; a platform is told at most what it can see anyway.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let content = json!({ "description": format!("platform on {}", host.trim()) });
    let asked: BrowserLogin = client::typed(&Client::new(api.clone(), None).post(&["auth"], &content)?)?;
    let address = format!("{}{}", credentials::key(api), asked.browser_url);
    cx.out.note(&format!("Let this program in at\n  {address}\nThe page shows the code {}.", asked.code));
    open_browser(&address);
    let path: Vec<&str> = asked.cli_url.split('/').filter(|part| !part.is_empty()).collect();
    let waiting = Client::new(api.clone(), Some(asked.token));
    let decision: LoginDecision = cx.out.step("Waiting for the browser", || client::typed(&waiting.get(&path)?))?;
    decision.access_token.ok_or_else(|| {
        CliError::new(Kind::Login, decision.error.unwrap_or_default().trim_end_matches('.'))
            .hint("`platform login --interactive` asks for e-mail and password here.")
    })
}

fn token_by_password(api: &Url, email: Option<String>) -> Result<String> {
    let email = match email {
        Some(email) => email,
        None => ask("E-mail")?,
    };
    let password = ask_secret("Password")?;
    let client = || Client::with_password(api.clone(), &email, &password);
    match new_token(&client()) {
        Err(error) if error.kind == Kind::TwoFactor => new_token(&client().with_code(ask_secret("Two-factor code")?)),
        result => result,
    }
}

/// Keeps a login that is known to be good, and tells git about it.
pub(crate) fn keep(cx: &Context, api: &Url, login: credentials::Login) -> Result<()> {
    let mut credentials = Credentials::load()?;
    credentials.add(api, login);
    credentials.save()?;
    if let Err(error) = git::use_our_credentials(api) {
        cx.out.note(
            &error
                .hint("You are logged in, but `git push` will ask for a password: give it your token.")
                .report(cx.out.paint),
        );
    }
    Ok(())
}

/// Log out: forget the token, here and on the platform
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform logout
  $ platform logout --api https://platform.example.com")]
pub(crate) struct Logout {
    /// Forget the token here, but leave it good on the platform
    #[arg(long)]
    local: bool,
}

impl Logout {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let api = cx.api()?;
        let mut credentials = Credentials::load()?;
        let Some(login) = credentials.remove(&api) else {
            return Err(CliError::new(Kind::Login, format!("Nobody is logged in to {}", credentials::key(&api))));
        };
        credentials.save()?;
        git::forget_our_credentials(&api);
        if let Some(https) = login.https.as_deref().and_then(|url| url.parse().ok()) {
            git::forget_our_credentials(&https);
        }
        // The platform may be down, or have forgotten the token already: logged out here all the same.
        if !self.local
            && let Err(error) = Client::new(api.clone(), Some(login.token)).delete(&["oauth", "authorizations", "~"])
        {
            cx.out.note(
                &error.hint("You are logged out here; the platform may still know the token.").report(cx.out.paint),
            );
        }
        let api = credentials::key(&api);
        cx.show(&json!({ "api": api, "email": login.email }), |out| out.line(format!("Logged out of {api}")))
    }
}

/// Show who is logged in
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform whoami
  $ platform whoami --json")]
pub(crate) struct Whoami {}

impl Whoami {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let account = cx.client()?.get(&["account"])?;
        cx.show(&account, |out| out.line(client::typed::<Account>(&account)?.email))
    }
}

/// Print the token of who is logged in, for other programs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ PLATFORM_TOKEN=$(platform auth:token) ./deploy.sh")]
pub(crate) struct Token {}

impl Token {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let token = context::token(&cx.api()?)?;
        cx.show_one("token", &token)?;
        cx.out.note("Whoever has it can do all that you can. `platform logout` makes it worthless.");
        Ok(())
    }
}

fn new_token(client: &Client) -> Result<String> {
    let content = json!({ "description": "platform login", "scope": ["global"] });
    let made = client.post(&["oauth", "authorizations"], &content).map_err(|error| match error.kind {
        Kind::Login => error.hint("Check the e-mail address and the password. Nobody was logged in or out."),
        _ => error,
    })?;
    let authorization: Authorization = client::typed(&made)?;
    Ok(authorization.access_token.token)
}

fn ask(what: &str) -> Result<String> {
    if !context::can_ask() {
        return Err(CliError::usage(format!("{what} is missing and nobody can be asked for it"))
            .hint("Use --browser, or --token with `-` to read the token from standard input."));
    }
    write!(io::stderr(), "{what}: ")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|error| CliError::failed("Cannot read the terminal").because(&error))?;
    Ok(line.trim().to_owned())
}

/// Asks without showing what is typed; from a pipe, reads the next line.
pub(crate) fn ask_secret(what: &str) -> Result<String> {
    if !context::can_ask() {
        return read_line_from_stdin();
    }
    write!(io::stderr(), "{what}: ")?;
    let failed = |error: io::Error| CliError::failed("Cannot read the terminal").because(&error);
    terminal::enable_raw_mode().map_err(failed)?;
    let typed = read_keys();
    let restored = terminal::disable_raw_mode();
    writeln!(io::stderr())?;
    restored.map_err(failed)?;
    typed.map_err(failed)?.ok_or_else(|| CliError::failed("Nothing was changed: the login was interrupted"))
}

/// Asks for the present password and for a new one, twice; from a pipe, reads two lines.
pub(crate) fn ask_new_password() -> Result<(String, String)> {
    let old = ask_secret("Your present password")?;
    let new = ask_secret("The new one")?;
    if context::can_ask() && ask_secret("The new one again")? != new {
        return Err(CliError::usage("The new password was not the same twice; nothing was changed"));
    }
    Ok((old, new))
}

/// What is typed up to Enter; `None` for Ctrl-C and Ctrl-D.
fn read_keys() -> io::Result<Option<String>> {
    let mut typed = String::new();
    loop {
        let Event::Key(key) = event::read()? else { continue };
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            _ if key.kind == KeyEventKind::Release => {}
            KeyCode::Enter => return Ok(Some(typed)),
            KeyCode::Char('c' | 'd') if control => return Ok(None),
            KeyCode::Char('u') if control => typed.clear(),
            KeyCode::Backspace => drop(typed.pop()),
            KeyCode::Char(letter) if !control => typed.push(letter),
            _ => {}
        }
    }
}

fn read_line_from_stdin() -> Result<String> {
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line);
    read.map_err(|error| CliError::failed("Cannot read standard input").because(&error))?;
    match line.trim() {
        "" => {
            Err(CliError::usage("Standard input has no more lines; a token, a password or a code was expected there"))
        }
        line => Ok(line.to_owned()),
    }
}
