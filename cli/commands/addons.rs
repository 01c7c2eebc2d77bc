//! `addons` and its kin: backing services and the apps that use them.

use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::releases;
use crate::client::{self, Addon, AddonAttachment, AddonPlan, AddonService, Client};
use crate::context::{self, AppArg, Context, ReleaseArg};
use crate::error::{CliError, Result};
use crate::output::{self, Field, Mood};

/// Time between two looks at something that is under way.
pub(super) const POLL: Duration = Duration::from_millis(250);

/// List the add-ons of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform addons
  $ platform addons -a my-app --json
  $ platform addons --all")]
pub(crate) struct List {
    /// Those of all your apps
    #[arg(long, short = 'A')]
    all: bool,
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (addons, attachments) = if self.all {
            let client = cx.client()?;
            (client.list(&["addons"])?, client.list(&["addon-attachments"])?)
        } else {
            let (client, name) = cx.app(&self.app)?;
            (client.list(&["apps", &name, "addons"])?, client.list(&["apps", &name, "addon-attachments"])?)
        };
        let attachments: Vec<AddonAttachment> = client::typed(&attachments)?;
        cx.show_list(&addons, |out, addons: Vec<Addon>| {
            let row = |addon: Addon| {
                let uses = attachments.iter().filter(|attachment| attachment.addon.name == addon.name);
                let uses: Vec<_> = uses.map(|it| format!("{} ({})", it.name, it.app.name)).collect();
                let state = state(&addon.state);
                vec![addon.name.into(), addon.plan.name.into(), state, addon.app.name.into(), uses.join(", ").into()]
            };
            out.table(
                &["Add-on", "Plan", "State", "App", "Attached as"],
                addons.into_iter().map(row).collect(),
                "No add-ons. Make one with `platform addons:create postgres`.",
            )
        })
    }
}

/// List what add-ons there are to choose from
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform addons:services")]
pub(crate) struct Services {}

impl Services {
    #[expect(clippy::unused_self, reason = "is run like its siblings")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let services = cx.client()?.list(&["addon-services"])?;
        cx.show_list(&services, |out, services: Vec<AddonService>| {
            let row = |service: AddonService| vec![service.name.into(), service.human_name.into()];
            out.table(&["Service", "What"], services.into_iter().map(row).collect(), "No services.")
        })
    }
}

/// List the plans of an add-on service
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform addons:plans postgres")]
pub(crate) struct Plans {
    /// Name of the service, as `platform addons:services` lists it
    service: String,
}

impl Plans {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let plans = cx.client()?.list(&["addon-services", &self.service, "plans"])?;
        cx.show_list(&plans, |out, plans: Vec<AddonPlan>| {
            let row = |plan: AddonPlan| {
                let default = if plan.default { "default" } else { "" };
                vec![plan.name.into(), plan.description.into(), default.into()]
            };
            out.table(&["Plan", "What", ""], plans.into_iter().map(row).collect(), "No plans.")
        })
    }
}

/// Make an add-on for an app
///
/// Its address and password come to the app as a config var in a new release, onto which the app restarts. The first add-on
/// of a service takes longer: its image is made.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform addons:create postgres
  $ platform addons:create postgres:standard --as REPORTS -a my-app
  $ platform addons:create redis --name my-cache --no-wait")]
pub(crate) struct Create {
    /// Service, or service and plan
    #[arg(value_name = "SERVICE[:PLAN]")]
    plan: String,
    /// Name of the add-on; without one the platform makes one up
    #[arg(long)]
    name: Option<String>,
    /// Name under which the app uses it: `DATABASE` makes `DATABASE_URL`
    #[arg(long = "as", value_name = "NAME")]
    attachment: Option<String>,
    /// Do not wait until it can be used
    #[arg(long)]
    no_wait: bool,
    /// For whoever is used to say so: it waits anyway
    #[arg(long = "wait", hide = true, conflicts_with = "no_wait")]
    _wait: bool,
    #[command(flatten)]
    app: ReleaseArg,
}

impl Create {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, app) = cx.app_to_release(&self.app)?;
        let content =
            json!({ "plan": { "name": self.plan }, "name": self.name, "attachment": { "name": self.attachment } });
        let create = || client.post(&["apps", &app, "addons"], &content);
        let made = cx.out.step(&format!("Creating {} on {app}", self.plan), create)?;
        let addon: Addon = client::typed(&made)?;
        if self.no_wait {
            cx.out.note(&format!("See how far it is with `platform addons:info {}`.", addon.name));
            return cx.show(&made, |out| out.line(&addon.name));
        }
        let made = cx.out.step(&format!("Waiting until {} is up", addon.name), || ready(&client, &addon.name))?;
        cx.out.step(&format!("Restarting {app} with {}", addon.config_vars.join(", ")), || {
            told(&client, &app, &addon.config_vars)
        })?;
        cx.show(&made, |out| out.line(&addon.name))
    }
}

/// Show what is known about an add-on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform addons:info DATABASE
  $ platform addons:info postgres-quiet-harbor-41730 --json")]
pub(crate) struct Info {
    /// Name of the add-on, or under which the app uses it
    addon: String,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, value) = resolve(cx, &self.app, &self.addon)?;
        let addon: Addon = client::typed(&value)?;
        let attachments = client.list(&["addons", &addon.name, "addon-attachments"])?;
        cx.show(&value, |out| {
            out.heading(&addon.name)?;
            let uses: Vec<AddonAttachment> = client::typed(&attachments)?;
            let uses: Vec<_> = uses.iter().map(|it| format!("{} ({})", it.name, it.app.name)).collect();
            let failure = addon.provision_message.as_ref().filter(|text| !text.is_empty());
            let known = [
                ("Plan", addon.plan.name.into()),
                ("State", addon.state.into()),
                ("App", addon.app.name.into()),
                ("Attached as", uses.join(", ").into()),
                ("Created", output::when(&addon.created_at, context::now()).into()),
            ];
            out.pairs(known.into_iter().chain(failure.map(|text| ("Note", Field::from(text)))))
        })
    }
}

/// Let an app use an add-on of another app, or a service outside of the platform
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform addons:attach postgres-quiet-harbor-41730 -a my-other-app
  $ platform addons:attach my-cache --as SESSIONS -a my-other-app
  $ platform addons:attach --url mysql://user:password@db.example.com/shop --as SHOP")]
pub(crate) struct Attach {
    /// Name of the add-on
    #[arg(required_unless_present = "url", conflicts_with = "url")]
    addon: Option<String>,
    /// Address of a service outside of the platform
    #[arg(long)]
    url: Option<String>,
    /// Name under which the app uses it: `DATABASE` makes `DATABASE_URL`
    #[arg(long = "as", value_name = "NAME", required_unless_present = "addon")]
    attachment: Option<String>,
    #[command(flatten)]
    app: ReleaseArg,
}

impl Attach {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, app) = cx.app_to_release(&self.app)?;
        let attach = || match (&self.addon, &self.url) {
            (Some(addon), _) => {
                let content = json!({ "addon": addon, "app": app, "name": self.attachment });
                let made = client.post(&["addon-attachments"], &content)?;
                let attachment: AddonAttachment = client::typed(&made)?;
                Ok((made, vec![format!("{}_URL", attachment.name)]))
            }
            (None, url) => {
                let name = json!({ "name": self.attachment });
                let content = json!({ "plan": "external", "config": { "url": url }, "attachment": name });
                let made = client.post(&["apps", &app, "addons"], &content)?;
                let addon: Addon = client::typed(&made)?;
                Ok((made, addon.config_vars))
            }
        };
        let what = self.addon.as_deref().unwrap_or("the service");
        let (made, vars) = cx.out.step(&format!("Attaching {what} to {app}"), attach)?;
        let restarting = format!("Restarting {app} with {}", vars.join(", "));
        cx.out.step(&restarting, || told(&client, &app, &vars))?;
        cx.done(&made)
    }
}

/// Take an add-on away from an app; the add-on and its data stay
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform addons:detach SHOP_DB -a my-other-app")]
pub(crate) struct Detach {
    /// Name under which the app uses it
    attachment: String,
    #[command(flatten)]
    app: ReleaseArg,
}

impl Detach {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, app) = cx.app_to_release(&self.app)?;
        let found = client.get(&["apps", &app, "addon-attachments", &self.attachment])?;
        let attachment: AddonAttachment = client::typed(&found)?;
        let what = format!("Detaching {} ({}) from {app}", attachment.name, attachment.addon.name);
        let gone = cx.out.step(&what, || {
            let gone = client.delete(&["addon-attachments", &attachment.id])?;
            newest(&client, &app)?;
            Ok(gone)
        })?;
        cx.done(&gone)
    }
}

/// Give an add-on another plan
///
/// Its server is started again with the memory and the CPU of the plan; its data stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform addons:upgrade DATABASE postgres:standard -a my-app")]
pub(crate) struct Upgrade {
    /// Name of the add-on, or under which the app uses it
    addon: String,
    /// Service and plan, as `platform addons:plans` lists them
    #[arg(value_name = "SERVICE:PLAN")]
    plan: String,
    #[command(flatten)]
    app: AppArg,
}

impl Upgrade {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, value) = resolve(cx, &self.app, &self.addon)?;
        let addon: Addon = client::typed(&value)?;
        let path = ["apps", &addon.app.name, "addons", &addon.name];
        let change = || client.patch(&path, &json!({ "plan": { "name": self.plan } }));
        cx.done(&cx.out.step(&format!("Changing {} to {}", addon.name, self.plan), change)?)
    }
}

/// Wait until an add-on can be used
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform addons:wait
  $ platform addons:wait DATABASE -a my-app")]
pub(crate) struct Wait {
    /// Name of the add-on, or under which the app uses it; without it, all of the app
    addon: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Wait {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, addons) = if let Some(addon) = &self.addon {
            let (client, value) = resolve(cx, &self.app, addon)?;
            (client, vec![client::typed::<Addon>(&value)?])
        } else {
            let (client, name) = cx.app(&self.app)?;
            let addons = client::typed(&client.list(&["apps", &name, "addons"])?)?;
            (client, addons)
        };
        let mut all = Vec::new();
        for addon in addons.iter().map(|addon| &addon.name) {
            all.push(cx.out.step(&format!("Waiting until {addon} is up"), || ready(&client, addon))?);
        }
        cx.done(&all.into())
    }
}

/// Restart an add-on's server; its clients connect again, its data stays
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform addons:restart DATABASE -a my-app")]
pub(crate) struct Restart {
    /// Name of the add-on, or under which the app uses it
    addon: String,
    #[command(flatten)]
    app: AppArg,
}

impl Restart {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, value) = resolve(cx, &self.app, &self.addon)?;
        let addon: Addon = client::typed(&value)?;
        let restart = || client.post(&["addons", &addon.name, "actions", "restart"], &json!({}));
        cx.done(&cx.out.step(&format!("Restarting {}", addon.name), restart)?)
    }
}

/// Destroy an add-on with all its data and its backups
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform addons:destroy postgres-quiet-harbor-41730
  $ platform addons:destroy DATABASE -a my-app --confirm my-app")]
pub(crate) struct Destroy {
    /// Name of the add-on, or under which the app uses it
    addon: String,
    /// The name of the app that it was made for again, instead of being asked for it
    #[arg(long, short, value_name = "APP")]
    confirm: Option<String>,
    /// Also if other apps use it, and even if the app is locked or frozen
    #[arg(long, short)]
    force: bool,
    /// For whoever is used to say so: it waits anyway
    #[arg(long = "wait", hide = true)]
    _wait: bool,
    #[command(flatten)]
    app: AppArg,
}

impl Destroy {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, value) = resolve(cx, &self.app, &self.addon)?;
        let client = client.insisting(self.force);
        let addon: Addon = client::typed(&value)?;
        let app = &addon.app.name;
        let what = format!("This destroys {} of {app} with all its data and cannot be undone.", addon.name);
        let command = format!("platform addons:destroy {} -a {app} --confirm {app}", addon.name);
        context::confirm(app, self.confirm, (&what, &command))?;
        let path = ["apps", app, "addons", &addon.name];
        let destroy = || client.delete_with(&path, &json!({ "force": self.force }));
        cx.done(&cx.out.step(&format!("Destroying {} on {app}", addon.name), destroy)?)
    }
}

/// The add-on that `reference` means, in the app if there is one.
fn resolve(cx: &Context, app: &AppArg, reference: &str) -> Result<(Client, Value)> {
    let mut content = json!({ "addon": reference });
    // The name of an add-on is enough; an app is needed for what the app calls it.
    let client = match cx.app(app) {
        Ok((client, app)) => {
            content["app"] = app.into();
            client
        }
        Err(_) => cx.client()?,
    };
    let mut found: Vec<Value> = client::typed(&client.post(&["actions", "addons", "resolve"], &content)?)?;
    let names: Vec<_> = found.iter().filter_map(|addon| addon["name"].as_str().map(str::to_owned)).collect();
    match (found.pop(), found.is_empty()) {
        (Some(addon), true) => Ok((client, addon)),
        _ => Err(CliError::usage(format!("`{reference}` means more than one add-on"))
            .hint(format!("Name one of them: {}", names.join(", ")))),
    }
}

/// Waits until an add-on can be used.
fn ready(client: &Client, name: &str) -> Result<Value> {
    loop {
        let value = client.get(&["addons", name])?;
        let addon: Addon = client::typed(&value)?;
        match addon.state.as_str() {
            "provisioned" => return Ok(value),
            "provisioning" => thread::sleep(POLL),
            _ => {
                let reason = std::io::Error::other(addon.provision_message.unwrap_or_default());
                return Err(CliError::failed(format!("{name} did not come up")).because(&reason).hint(format!(
                    "Take it away with `platform addons:destroy {name} --confirm {}`, and tell the operator why.",
                    addon.app.name
                )));
            }
        }
    }
}

/// Waits until a release that has these config vars is current.
fn told(client: &Client, app: &str, vars: &[String]) -> Result<()> {
    loop {
        let config = client.get(&["apps", app, "config-vars"])?;
        if vars.iter().all(|var| config[var].is_string()) {
            return newest(client, app);
        }
        thread::sleep(POLL);
    }
}

/// Waits until the newest release is current.
fn newest(client: &Client, app: &str) -> Result<()> {
    let mut releases: Vec<Value> = client::typed(&client.newest(&["apps", app, "releases"], 1)?)?;
    releases.pop().map_or(Ok(()), |release| releases::finished(client, app, release).map(drop))
}

fn state(state: &str) -> Field {
    let mood = match state {
        "provisioned" => Mood::Good,
        "provisioning" => Mood::Busy,
        _ => Mood::Bad,
    };
    Field::from(state).mood(mood)
}
