//! What commands share: which platform, which app, who is asking.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};

use clap::Args;
use model::clock::{Clock, SystemClock, Timestamp};
use serde_json::{Value, json};
use url::Url;

use crate::client::{self, Client, Named};
use crate::credentials::{self, Credentials};
use crate::error::{CliError, Kind, Result};
use crate::git;
use crate::output::Output;
use crate::settings::Settings;

/// The platform that a machine has by itself.
const DEFAULT_API: &str = "http://localhost:8080";

/// Names the app that a command is about.
#[derive(Debug, Args)]
pub(crate) struct AppArg {
    /// App to work on; without it, the one that the git remote names
    #[arg(short, long, env = "PLATFORM_APP", hide_env = true)]
    app: Option<String>,
    /// Git remote that names the app
    #[arg(short, long, default_value = git::REMOTE, hide_default_value = true)]
    remote: String,
}

impl AppArg {
    /// Names the app unless it is named already; true if it took the name.
    pub(crate) fn name_if_missing(&mut self, app: &str) -> bool {
        let missing = self.app.is_none();
        if missing {
            self.app = Some(app.to_owned());
        }
        missing
    }
}

/// Names the app of which a command makes a release.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArg {
    /// Even if the app is locked or frozen; needs the role admin
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    app: AppArg,
}

/// Names the apps that something is for.
#[derive(Debug, Args)]
pub(crate) struct ScopeArg {
    /// Those of a team's apps
    #[arg(long, conflicts_with_all = ["everything", "app"])]
    team: Option<String>,
    /// Those of all apps of the platform
    #[arg(long = "platform", conflicts_with = "app")]
    everything: bool,
    #[command(flatten)]
    app: AppArg,
}

impl ScopeArg {
    /// The client, the path of what is called `name`, and whose it is in words.
    pub(crate) fn collection(&self, cx: &Context, name: &str) -> Result<(Client, Vec<String>, String)> {
        let path = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        if self.everything {
            return Ok((cx.client()?, path(&[name]), "all apps".to_owned()));
        }
        if let Some(team) = &self.team {
            return Ok((cx.client()?, path(&["teams", team, name]), format!("the apps of {team}")));
        }
        let (client, app) = cx.app(&self.app)?;
        Ok((client, path(&["apps", &app, name]), app))
    }

    /// Whether something of this app, of this team, or of all, is just what was named.
    pub(crate) fn is_of(&self, app: Option<&Named>, team: Option<&Named>) -> bool {
        if self.everything {
            app.is_none() && team.is_none()
        } else if self.team.is_some() {
            team.is_some()
        } else {
            app.is_some()
        }
    }
}

/// For which apps something is, in a list.
pub(crate) fn whose(app: Option<Named>, team: Option<Named>) -> String {
    match (app, team) {
        (Some(app), _) => app.name,
        (None, Some(team)) => format!("team {}", team.name),
        (None, None) => "all apps".to_owned(),
    }
}

/// What commands share.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where to print.
    pub(crate) out: Output,
    /// The address named by `--api` or `PLATFORM_API`.
    api: Option<String>,
    /// Print for programs.
    json: bool,
    /// The app that the command is about, once it is known.
    app: RefCell<Option<String>>,
}

impl Context {
    /// A context for commands to the platform at `api`, or to the usual one, that print JSON or words.
    pub(crate) fn new(api: Option<String>, json: bool) -> Self {
        Self { out: Output::detect(), api, json, app: RefCell::default() }
    }

    /// Which platform: the one named, else the one logged in to last, else the one on this machine.
    pub(crate) fn api(&self) -> Result<Url> {
        let named = match &self.api {
            Some(api) => Some(api.clone()),
            None => Credentials::load()?.api,
        };
        named.map_or_else(|| self.local_api(), |api| parse_api(&api))
    }

    /// Which platform, for a command that works on this machine alone: the one named, else the one on this machine.
    pub(crate) fn local_api(&self) -> Result<Url> {
        match &self.api {
            Some(api) => parse_api(api),
            // Settings that this user may not read, or that are wrong, are the operator's matter.
            None => parse_api(&Settings::load().map_or_else(|_| DEFAULT_API.to_owned(), |settings| settings.url())),
        }
    }

    /// A client that speaks for who is logged in.
    pub(crate) fn client(&self) -> Result<Client> {
        let api = self.api()?;
        let token = token(&api)?;
        Ok(Client::new(api, Some(token)))
    }

    /// The client, and the app that a command is about.
    pub(crate) fn app(&self, arg: &AppArg) -> Result<(Client, String)> {
        let client = self.client()?;
        if let Some(name) = &arg.app {
            self.app.replace(Some(name.clone()));
            return Ok((client, name.clone()));
        }
        let Some(address) = git::remote_url(&arg.remote) else {
            return Err(CliError::usage("Which app?").hint(format!(
                "Name it with -a APP or PLATFORM_APP, or work in a git repository that has the remote `{}`:\n`platform git:remote -a APP` adds it.",
                arg.remote
            )));
        };
        match git::app_of(&address) {
            Some((api, app)) if is_same(&api, client.base()) => Ok((client, app)),
            Some((api, app)) => Err(CliError::usage(format!(
                "The git remote `{}` is for {}, but this command would go to {}",
                arg.remote,
                credentials::key(&api),
                credentials::key(client.base())
            ))
            .hint(format!("Say which: --api {}, or -a {app} for the app of that name here.", credentials::key(&api)))),
            None => Err(CliError::usage(format!("The git remote `{}` does not name an app: {address}", arg.remote))
                .hint("Name the app with -a APP, or mend the remote with `platform git:remote -a APP`.")),
        }
    }

    /// The same for a command that makes a release.
    pub(crate) fn app_to_release(&self, arg: &ReleaseArg) -> Result<(Client, String)> {
        let (client, name) = self.app(&arg.app)?;
        Ok((client.insisting(arg.force), name))
    }

    /// Adds to an error what helps: the app that may have been meant by one that is not there.
    pub(crate) fn explain(&self, error: CliError) -> CliError {
        if error.missing.as_deref() != Some("app") {
            return error;
        }
        let meant = || {
            let name = self.app.borrow().clone()?;
            let apps: Vec<Named> = client::typed(&self.client().ok()?.list(&["apps"]).ok()?).ok()?;
            similar(&name, apps.iter().map(|app| app.name.as_str())).map(str::to_owned)
        };
        match meant() {
            Some(name) => error.hint(format!("Did you mean {name}? `platform apps` shows what there is.")),
            None => error,
        }
    }

    /// Prints JSON for programs, or lets `words` print for people.
    pub(crate) fn show(&self, value: &Value, words: impl FnOnce(Output) -> Result<()>) -> Result<()> {
        if self.json { self.out.json(value) } else { words(self.out) }
    }

    /// What became of something that is done: JSON for programs; people have been told already.
    pub(crate) fn done(&self, value: &Value) -> Result<()> {
        self.show(value, |_| Ok(()))
    }

    /// Prints one line, which programs get as the one field `name`.
    pub(crate) fn show_one(&self, name: &str, value: &str) -> Result<()> {
        self.show(&json!({ name: value }), |out| out.line(value))
    }

    /// Prints one line of a stream, which programs get as a line of JSON.
    pub(crate) fn show_line(&self, value: &Value, words: String) -> Result<()> {
        self.out.line(if self.json { value.to_string() } else { words })
    }

    /// [`Context::show`] for a list of resources.
    pub(crate) fn show_list<T: serde::de::DeserializeOwned>(
        &self,
        value: &Value,
        words: impl FnOnce(Output, Vec<T>) -> Result<()>,
    ) -> Result<()> {
        self.show(value, |out| words(out, client::typed(value)?))
    }
}

/// Whether a git remote is for this platform. SSH has a port of its own, so there the host decides.
fn is_same(remote: &Url, api: &Url) -> bool {
    match remote.scheme() {
        "ssh" => remote.host_str() == api.host_str(),
        _ => credentials::key(remote) == credentials::key(api),
    }
}

/// The name that may be meant by `name`: at most every third letter is wrong.
pub(crate) fn similar<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = known.map(|known| (strsim::damerau_levenshtein(name, known), known)).min()?;
    (nearest.0 * 3 <= name.chars().count()).then_some(nearest.1)
}

/// The present moment.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// The token: `PLATFORM_TOKEN`, or that of the login.
pub(crate) fn token(api: &Url) -> Result<String> {
    if let Some(token) = token_from_environment() {
        return Ok(token);
    }
    Credentials::load()?.login(api).map(|login| login.token.clone()).ok_or_else(|| {
        CliError::new(Kind::Login, format!("Nobody is logged in to {}", credentials::key(api)))
            .hint("Log in with `platform login`, or set PLATFORM_TOKEN. The first user is made on the\nplatform's machine: `sudo platform users:create you@example.com --login`.")
    })
}

/// A token passed in by the environment, as in CI.
pub(crate) fn token_from_environment() -> Option<String> {
    std::env::var("PLATFORM_TOKEN").ok().filter(|token| !token.is_empty())
}

/// True if there is a person who can be asked something.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Goes on only if somebody typed the name of the app: now, or as an option of the command. `what` says what will be done,
/// `command` how to say so without being asked.
pub(crate) fn confirm(app: &str, given: Option<String>, told: (&str, &str)) -> Result<()> {
    confirm_named((app, "the name of the app"), given, told)
}

/// The same for something that is called `name`, which is `what_it_is`.
pub(crate) fn confirm_named(
    (name, what_it_is): (&str, &str),
    given: Option<String>,
    (what, command): (&str, &str),
) -> Result<()> {
    let answer = match given {
        Some(answer) => answer,
        None if !can_ask() => {
            return Err(
                CliError::usage(format!("{what} It must be confirmed")).hint(format!("Run it again as: {command}"))
            );
        }
        None => ask(&format!("{what}\nType {name} to go on: "))?,
    };
    if answer == name {
        return Ok(());
    }
    Err(CliError::usage(format!("`{answer}` is not {what_it_is}; nothing was done"))
        .hint(format!("To do it: {command}")))
}

/// Asks somebody who is there whether to go on.
pub(crate) fn agrees(question: &str) -> Result<bool> {
    let answer = ask(&format!("{question} [y/N] "))?;
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn ask(question: &str) -> Result<String> {
    write!(std::io::stderr(), "{question}")?;
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    read.map_err(|error| CliError::failed("Cannot read the terminal").because(&error))?;
    Ok(line.trim().to_owned())
}

fn parse_api(text: &str) -> Result<Url> {
    let wrong = |why: String| {
        CliError::usage(format!("`{text}` is not the address of a platform"))
            .because(&std::io::Error::other(why))
            .hint("It looks like http://localhost:8080 or https://platform.example.com.")
    };
    let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("it must begin with http:// or https:// and a host name".to_owned()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_for_a_platform_over_http_and_ssh() {
        let api = Url::parse("http://localhost:8080").unwrap();
        for (remote, same) in [
            ("http://localhost:8080/", true),
            ("http://localhost:9090/", false),
            ("ssh://localhost:2222/", true),
            ("ssh://example.com:2222/", false),
        ] {
            assert_eq!(is_same(&Url::parse(remote).unwrap(), &api), same, "{remote}");
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_meant() {
        let apps = || ["my-shop", "blog"].into_iter();
        assert_eq!(similar("my-shpo", apps()), Some("my-shop"));
        assert_eq!(similar("something-else", apps()), None);
        assert_eq!(similar("x", std::iter::empty()), None);
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_an_example() {
        for bad in ["localhost:8080", "ftp://example.com", "nonsense"] {
            let report = parse_api(bad).unwrap_err().report(crate::output::Paint::plain());
            assert!(report.contains("It looks like http://localhost:8080"), "{report}");
        }
        assert!(parse_api("http://localhost:8080").is_ok());
    }
}
