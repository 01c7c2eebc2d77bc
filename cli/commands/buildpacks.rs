//! `buildpacks` and its kin: which buildpacks the next build uses.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{self, BuildpackInstallation, Client};
use crate::context::{AppArg, Context};
use crate::error::{CliError, Result};

/// List the buildpacks that an app chose
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform buildpacks
  $ platform buildpacks -a my-app --json")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        show(cx, &name, &client.get(&["apps", &name, "buildpack-installations"])?)
    }
}

/// Choose the buildpack of an app, or the one at a place among several
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform buildpacks:set platform/nodejs
  $ platform buildpacks:set platform/python --index 2 -a my-app")]
pub(crate) struct Set {
    /// Id or address of a buildpack, or ./ and a folder of the repository
    buildpack: String,
    /// Place to put it, from 1; what is there goes
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    index: Option<u32>,
    #[command(flatten)]
    app: AppArg,
}

impl Set {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        change(cx, &self.app, |buildpacks| {
            let index = place(self.index.unwrap_or(1));
            match buildpacks.get_mut(index) {
                Some(there) => there.clone_from(&self.buildpack),
                None => buildpacks.push(self.buildpack.clone()),
            }
            Ok(())
        })
    }
}

/// Add a buildpack to those of an app, at the end or at a place
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform buildpacks:add platform/python
  $ platform buildpacks:add https://git.example.com/team/buildpack.git#v3
  $ platform buildpacks:add platform/nodejs --index 1 -a my-app")]
pub(crate) struct Add {
    /// Id or address of a buildpack, or ./ and a folder of the repository
    buildpack: String,
    /// Place to put it before, from 1
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    index: Option<u32>,
    #[command(flatten)]
    app: AppArg,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        change(cx, &self.app, |buildpacks| {
            if buildpacks.contains(&self.buildpack) {
                return Err(CliError::failed(format!("{} is chosen already", self.buildpack)));
            }
            let index = self.index.map_or(buildpacks.len(), place).min(buildpacks.len());
            buildpacks.insert(index, self.buildpack.clone());
            Ok(())
        })
    }
}

/// Take a buildpack away from those of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform buildpacks:remove platform/nodejs
  $ platform buildpacks:remove --index 2 -a my-app")]
pub(crate) struct Remove {
    /// Id of a buildpack
    #[arg(required_unless_present = "index", conflicts_with = "index")]
    buildpack: Option<String>,
    /// Its place, from 1
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    index: Option<u32>,
    #[command(flatten)]
    app: AppArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        change(cx, &self.app, |buildpacks| {
            let found = match (&self.buildpack, self.index) {
                (Some(buildpack), _) => buildpacks.iter().position(|other| other == buildpack),
                (None, index) => index.map(place).filter(|index| *index < buildpacks.len()),
            };
            let index = found.ok_or_else(|| {
                CliError::failed("There is no such buildpack").hint("`platform buildpacks` shows what there is.")
            })?;
            buildpacks.remove(index);
            Ok(())
        })
    }
}

/// Let the next build find out which buildpacks an app needs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform buildpacks:clear -a my-app")]
pub(crate) struct Clear {
    #[command(flatten)]
    app: AppArg,
}

impl Clear {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        change(cx, &self.app, |buildpacks| {
            buildpacks.clear();
            Ok(())
        })
    }
}

/// A buildpack of the platform, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Offered {
    id: String,
    version: String,
    name: Option<String>,
    description: Option<String>,
    homepage: Option<String>,
    heroku_name: Option<String>,
}

impl Offered {
    fn is_about(&self, term: &str) -> bool {
        let term = term.to_lowercase();
        let texts = [Some(&self.id), self.name.as_ref(), self.description.as_ref(), self.heroku_name.as_ref()];
        texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&term))
    }
}

/// Look for a buildpack among those of the platform
///
/// An app can name others by their address: see `platform help buildpacks:add`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform buildpacks:search
  $ platform buildpacks:search node")]
pub(crate) struct Search {
    /// Part of its id, its name or what it is for
    term: Option<String>,
}

impl Search {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let mut value = cx.client()?.get(&["buildpacks"])?;
        let term = self.term.unwrap_or_default();
        if let Some(list) = value.as_array_mut() {
            list.retain(|one| client::typed::<Offered>(one).is_ok_and(|offered| offered.is_about(&term)));
        }
        cx.show_list(&value, |out, found: Vec<Offered>| {
            let row = |offered: Offered| {
                vec![
                    offered.id.into(),
                    offered.heroku_name.unwrap_or_default().into(),
                    offered.description.unwrap_or_default().into(),
                ]
            };
            let empty = "No buildpack of the platform is about that. An app can name any other by its address.";
            out.table(&["Buildpack", "Also", "What it builds"], found.into_iter().map(row).collect(), empty)
        })
    }
}

/// Show a buildpack of the platform
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform buildpacks:info heroku/nodejs")]
pub(crate) struct Info {
    /// Its id, or Heroku's name for it
    buildpack: String,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let value = cx.client()?.get(&["buildpacks"])?;
        let is_meant =
            |one: &&Value| one["id"] == self.buildpack.as_str() || one["heroku_name"] == self.buildpack.as_str();
        let found = value.as_array().and_then(|list| list.iter().find(is_meant)).ok_or_else(|| {
            CliError::failed(format!("The platform has no buildpack {}", self.buildpack))
                .hint("`platform buildpacks:search` lists those that it has.")
        })?;
        cx.show(found, |out| {
            let offered: Offered = client::typed(found)?;
            out.heading(&offered.id)?;
            out.pairs([
                ("Name", offered.name.unwrap_or_default().into()),
                ("Version", offered.version.into()),
                ("What it builds", offered.description.unwrap_or_default().into()),
                ("Also", offered.heroku_name.unwrap_or_default().into()),
                ("Homepage", offered.homepage.unwrap_or_default().into()),
            ])
        })
    }
}

/// Puts a changed list in the place of the old one; the API knows only whole lists.
fn change(cx: &Context, app: &AppArg, edit: impl FnOnce(&mut Vec<String>) -> Result<()>) -> Result<()> {
    let (client, name) = cx.app(app)?;
    let mut buildpacks = chosen(&client, &name)?;
    edit(&mut buildpacks)?;
    let updates: Vec<Value> = buildpacks.iter().map(|buildpack| json!({ "buildpack": buildpack })).collect();
    let path = ["apps", &name, "buildpack-installations"];
    let set = || client.put(&path, &json!({ "updates": updates }));
    let value = cx.out.step(&format!("Setting the buildpacks of {name}"), set)?;
    show(cx, &name, &value)?;
    cx.out.note(&format!("They are used from the next build on: `{}`.", crate::git::push_command(crate::git::REMOTE)));
    Ok(())
}

fn chosen(client: &Client, app: &str) -> Result<Vec<String>> {
    let value = client.get(&["apps", app, "buildpack-installations"])?;
    let installations: Vec<BuildpackInstallation> = client::typed(&value)?;
    Ok(installations.into_iter().map(|installation| installation.buildpack.url).collect())
}

fn show(cx: &Context, app: &str, value: &Value) -> Result<()> {
    cx.show_list(value, |out, installations: Vec<BuildpackInstallation>| {
        let row = |installation: BuildpackInstallation| {
            vec![(installation.ordinal + 1).to_string().into(), installation.buildpack.url.into()]
        };
        let empty = format!("{app} chose no buildpacks: each build finds out what it needs.");
        out.table(&["#", "Buildpack"], installations.into_iter().map(row).collect(), &empty)
    })
}

/// Heroku counts from 1.
fn place(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX).saturating_sub(1)
}
