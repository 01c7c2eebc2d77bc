//! `apps`, `create`, `info`, `rename`, `open`, `maintenance`, `destroy`.

use std::process::{Command, Stdio};

use clap::Args;
use serde_json::{Value, json};
use url::Url;

use super::volumes::Choice;
use crate::client::{self, App, Client};
use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Result};
use crate::git;
use crate::output;

/// List your apps, or those of a team
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform apps
  $ platform apps --team my-team
  $ platform apps --json | jq -r '.[].name'")]
pub(crate) struct List {
    /// Name of a team
    #[arg(short, long)]
    team: Option<String>,
    /// Only your own, neither those of teams nor those of others
    #[arg(short, long, conflicts_with = "team")]
    personal: bool,
    /// For whoever is used to say so: all are listed anyway
    #[arg(short = 'A', long = "all", hide = true)]
    _all: bool,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let apps = match &self.team {
            Some(team) => client.list(&["teams", team, "apps"])?,
            None => client.list(&["apps"])?,
        };
        let apps = if self.personal { own(&client, &apps)? } else { apps };
        cx.show_list(&apps, |out, apps: Vec<App>| {
            let row = |app: App| {
                let released =
                    app.released_at.map_or_else(|| "never".to_owned(), |time| output::ago(&time, context::now()));
                vec![app.name.into(), app.web_url.unwrap_or_default().into(), released.into()]
            };
            out.table(
                &["Name", "Address", "Released"],
                apps.into_iter().map(row).collect(),
                "You have no apps. Make one with `platform create`.",
            )
        })
    }
}

/// Of the apps that somebody sees, those that they own.
fn own(client: &Client, apps: &Value) -> Result<Value> {
    let me = client.get(&["account"])?["email"].take();
    let apps: Vec<Value> = client::typed(apps)?;
    Ok(apps.into_iter().filter(|app| app["team"].is_null() && app["owner"]["email"] == me).collect())
}

/// Create an app, and the git remote to push it to
///
/// Without a name the platform makes one up. In a git repository that has no remote of that name yet, the remote is added.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform create
  $ platform create my-app
  $ platform create my-app-staging --remote staging
  $ platform create my-app --addons postgres,redis --buildpack platform/nodejs
  $ platform create our-app --team our-team --no-remote
  $ git push platform main")]
pub(crate) struct Create {
    /// Name of the app: lowercase letters, digits and dashes
    name: Option<String>,
    /// Name of the team that is to own it
    #[arg(short, long, env = "PLATFORM_TEAM", hide_env = true)]
    team: Option<String>,
    /// Name of the stack that it is built and run on
    #[arg(short, long)]
    stack: Option<String>,
    /// Add-ons to make for it: service, or service and plan
    #[arg(long, value_delimiter = ',', value_name = "SERVICE[:PLAN]")]
    addons: Vec<String>,
    /// Buildpacks to build it with, in order; without, they are detected
    #[arg(short, long, value_delimiter = ',')]
    buildpack: Vec<String>,
    /// Name of the git remote
    #[arg(short, long, default_value = git::REMOTE)]
    remote: String,
    /// Add no git remote
    #[arg(long, short)]
    no_remote: bool,
}

impl Create {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let content = json!({ "name": self.name, "team": self.team, "stack": self.stack });
        let path: &[&str] = if self.team.is_some() { &["teams", "apps"] } else { &["apps"] };
        let made = cx.out.step("Creating app", || client.post(path, &content))?;
        let app: App = client::typed(&made)?;
        if let Err(error) = self.equip(cx, &client, &app) {
            return Err(error.hint(format!("{0} was made; `platform destroy -a {0}` removes it.", app.name)));
        }
        cx.show(&made, |out| {
            out.pairs([
                ("App", app.name.as_str().into()),
                ("Address", app.web_url.as_deref().unwrap_or_default().into()),
                ("Git", git::address(client.base(), &app.name).into()),
            ])
        })?;
        if !self.no_remote {
            cx.out.note(&add_remote(&self.remote, &app, client.base())?);
        }
        Ok(())
    }
}

impl Create {
    /// Gives a new app what was asked for with it.
    fn equip(&self, cx: &Context, client: &Client, app: &App) -> Result<()> {
        if !self.buildpack.is_empty() {
            let updates: Vec<_> = self.buildpack.iter().map(|buildpack| json!({ "buildpack": buildpack })).collect();
            let path = ["apps", &app.name, "buildpack-installations"];
            let set = || client.put(&path, &json!({ "updates": updates }));
            cx.out.step(&format!("Setting the buildpack to {}", self.buildpack.join(", ")), set)?;
        }
        for plan in &self.addons {
            let content = json!({ "plan": { "name": plan } });
            let create = || client.post(&["apps", &app.name, "addons"], &content);
            cx.out.step(&format!("Creating {plan} on {}", app.name), create)?;
        }
        Ok(())
    }
}

/// Makes the remote, if it can be made, and says what to do next.
fn add_remote(remote: &str, app: &App, api: &Url) -> Result<String> {
    let name = &app.name;
    if !git::in_repository() {
        return Ok(format!(
            "This is not a git repository. In that of the app: `platform git:remote -a {name}`, then `git push {remote} main`."
        ));
    }
    if let Some(address) = git::remote_url(remote) {
        return Ok(format!(
            "The git remote {remote} already points to {address} and stays. For this app: `platform git:remote -a {name} -r NAME`."
        ));
    }
    git::set_remote(remote, &git::address(api, name))?;
    Ok(format!("Added the git remote {remote}. Deploy with `{}`.", git::push_command(remote)))
}

/// Show what is known about an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform info
  $ platform info -a my-app --json")]
pub(crate) struct Info {
    /// Print lines that a shell can read: key='value'
    #[arg(long, short)]
    shell: bool,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let value = client.get(&["apps", &name])?;
        cx.show(&value, |out| {
            let app: App = client::typed(&value)?;
            if self.shell {
                return [
                    ("name", app.name.as_str()),
                    ("owner", app.owner.email.as_str()),
                    ("web_url", app.web_url.as_deref().unwrap_or_default()),
                    ("git_url", git::address(client.base(), &app.name).as_str()),
                    ("stack", app.stack.name.as_str()),
                ]
                .into_iter()
                .try_for_each(|(key, value)| out.line(format!("{key}={}", output::quoted(value))));
            }
            out.heading(&app.name)?;
            let released =
                app.released_at.map_or_else(|| "never".to_owned(), |time| output::when(&time, context::now()));
            out.pairs([
                ("Address", app.web_url.unwrap_or_default().into()),
                ("Git", git::address(client.base(), &app.name).into()),
                ("Owner", app.owner.email.into()),
                ("Stack", app.stack.name.into()),
                ("Maintenance", if app.maintenance { "on" } else { "off" }.into()),
                ("Created", output::when(&app.created_at, context::now()).into()),
                ("Released", released.into()),
            ])
        })
    }
}

/// Rename an app
///
/// Its address changes with its name, at once. The git remote of this repository follows.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform rename my-better-name
  $ platform rename my-better-name -a my-app")]
pub(crate) struct Rename {
    /// The new name
    new_name: String,
    #[command(flatten)]
    app: AppArg,
}

impl Rename {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let before: App = client::typed(&client.get(&["apps", &name])?)?;
        let renamed = cx.out.step(&format!("Renaming {name} to {}", self.new_name), || {
            client.patch(&["apps", &name], &json!({ "name": self.new_name }))
        })?;
        let app: App = client::typed(&renamed)?;
        let addresses = addresses(&client, &app);
        for (old, new) in self::addresses(&client, &before).into_iter().zip(addresses) {
            for remote in git::remotes_to(&old) {
                git::set_remote(&remote, &new)?;
                cx.out.note(&format!("The git remote {remote} is now {new}"));
            }
        }
        cx.show(&renamed, |out| out.line(app.web_url.unwrap_or(app.name)))
    }
}

/// Print the address of an app, and open it in a browser if there is one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform open
  $ platform open /admin -a my-app
  $ curl \"$(platform open -a my-app)\"")]
pub(crate) struct Open {
    /// Path in the app
    path: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Open {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let app: App = client::typed(&client.get(&["apps", &name])?)?;
        let Some(web_url) = app.web_url else {
            return Err(CliError::failed(format!("{name} has no address")));
        };
        let path = self.path.unwrap_or_default();
        let address = format!("{}/{}", web_url.trim_end_matches('/'), path.trim_start_matches('/'));
        cx.show_one("url", &address)?;
        if open_browser(&address) == Some(false) {
            cx.out.note("No browser could be opened here; the address above is the one to visit.");
        }
        Ok(())
    }
}

/// Show whether an app is in maintenance mode
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform maintenance -a my-app")]
pub(crate) struct Maintenance {
    #[command(flatten)]
    app: AppArg,
}

impl Maintenance {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let value = client.get(&["apps", &name])?;
        cx.show(&value, |out| out.line(if client::typed::<App>(&value)?.maintenance { "on" } else { "off" }))
    }
}

/// Answer all requests to an app with the maintenance page
///
/// The app goes on running; only its visitors see the page.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform maintenance:on -a my-app")]
pub(crate) struct MaintenanceOn {
    #[command(flatten)]
    app: AppArg,
}

impl MaintenanceOn {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        set_maintenance(cx, &self.app, true)
    }
}

/// Let requests reach an app again
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform maintenance:off -a my-app")]
pub(crate) struct MaintenanceOff {
    #[command(flatten)]
    app: AppArg,
}

impl MaintenanceOff {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        set_maintenance(cx, &self.app, false)
    }
}

/// Destroy an app with everything it has: releases, config vars, repository, logs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform destroy -a my-app
  $ platform destroy -a my-app --confirm my-app
  $ platform destroy -a my-app --keep-volumes")]
pub(crate) struct Destroy {
    #[command(flatten)]
    app: AppArg,
    /// The app's name again, instead of being asked for it
    #[arg(long, short, value_name = "APP")]
    confirm: Option<String>,
    #[command(flatten)]
    volumes: Choice,
}

impl Destroy {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let app: App = client::typed(&client.get(&["apps", &name])?)?;
        let what = format!("This destroys {} with all its data and cannot be undone.", app.name);
        let command = format!("platform destroy -a {n} --confirm {n}{}", self.volumes.words(), n = app.name);
        context::confirm(&app.name, self.confirm, (&what, &command))?;
        let what = format!("Destroying {} with all its data", app.name);
        cx.done(&cx.out.step(&what, || destroy(&client, &app, self.volumes))?)
    }
}

fn destroy(client: &Client, app: &App, volumes: Choice) -> Result<Value> {
    let gone = client.delete_by((&["apps", &app.name], volumes.query()))?;
    for remote in addresses(client, app).iter().flat_map(|address| git::remotes_to(address)) {
        git::remove_remote(&remote)?;
    }
    Ok(gone)
}

/// Where an app can be pushed to: over HTTP, then over SSH.
fn addresses(client: &Client, app: &App) -> Vec<String> {
    let http = git::address(client.base(), &app.name);
    std::iter::once(http).chain(app.ssh_url.clone()).collect()
}

fn set_maintenance(cx: &Context, app: &AppArg, on: bool) -> Result<()> {
    let (client, name) = cx.app(app)?;
    let what = format!("Switching maintenance mode {} for {name}", if on { "on" } else { "off" });
    cx.done(&cx.out.step(&what, || client.patch(&["apps", &name], &json!({ "maintenance": on })))?)
}

/// Opens a page, where there is a desktop; says whether that succeeded.
pub(crate) fn open_browser(address: &str) -> Option<bool> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ["DISPLAY", "WAYLAND_DISPLAY"].iter().find(|name| is_set(name))?;
    let opened = Command::new("xdg-open").arg(address).stdout(Stdio::null()).stderr(Stdio::null()).status();
    Some(opened.is_ok_and(|status| status.success()))
}
