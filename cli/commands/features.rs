//! `features` and its kin: what an app can have switched on.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client;
use crate::context::{AppArg, Context};
use crate::error::Result;
use crate::output::{Field, Mood};

/// A feature, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Feature {
    name: String,
    description: String,
    enabled: bool,
}

/// List what can be switched on for an app, and what is
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform features
  $ platform features -a my-app --json")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let features = client.list(&["apps", &name, "features"])?;
        cx.show_list(&features, |out, features: Vec<Feature>| {
            let row = |feature: Feature| vec![feature.name.into(), state(feature.enabled), feature.description.into()];
            out.table(&["Feature", "", "What"], features.into_iter().map(row).collect(), "There are no features.")
        })
    }
}

/// Show one feature of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform features:info runtime-dyno-metadata -a my-app")]
pub(crate) struct Info {
    /// Its name, as `platform features` lists it
    feature: String,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let value = client.get(&["apps", &name, "features", &self.feature])?;
        cx.show(&value, |out| {
            let feature: Feature = client::typed(&value)?;
            out.heading(&feature.name)?;
            out.pairs([("State", state(feature.enabled)), ("What", feature.description.into())])
        })
    }
}

/// Switch a feature of an app on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform features:enable runtime-dyno-metadata -a my-app")]
pub(crate) struct Enable {
    /// Its name, as `platform features` lists it
    feature: String,
    #[command(flatten)]
    app: AppArg,
}

impl Enable {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        cx.done(&switch(cx, &self.app, &self.feature, true)?)
    }
}

/// Switch a feature of an app off
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform features:disable runtime-dyno-metadata -a my-app")]
pub(crate) struct Disable {
    /// Its name, as `platform features` lists it
    feature: String,
    #[command(flatten)]
    app: AppArg,
}

impl Disable {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        cx.done(&switch(cx, &self.app, &self.feature, false)?)
    }
}

fn switch(cx: &Context, app: &AppArg, feature: &str, enabled: bool) -> Result<Value> {
    let (client, name) = cx.app(app)?;
    let what = format!("Switching {feature} {} for {name}", if enabled { "on" } else { "off" });
    let path = ["apps", &name, "features", feature];
    cx.out.step(&what, || client.patch(&path, &json!({ "enabled": enabled })))
}

fn state(enabled: bool) -> Field {
    if enabled { Field::from("on").mood(Mood::Good) } else { Field::from("off") }
}
