//! `pipelines` and its kin.

use clap::Args;
use serde_json::{Value, json};

use crate::client::{self, Client, Coupling, Pipeline};
use crate::context::{AppArg, Context};
use crate::error::Result;

/// List your pipelines
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pipelines")]
pub(crate) struct List {}

impl List {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let pipelines = cx.client()?.list(&["pipelines"])?;
        cx.show_list(&pipelines, |out, pipelines: Vec<Pipeline>| {
            let row = |pipeline: Pipeline| vec![pipeline.name.into(), pipeline.owner.kind.into()];
            let none = "You have no pipelines. Make one with `platform pipelines:create`.";
            out.table(&["Pipeline", "Owned by a"], pipelines.into_iter().map(row).collect(), none)
        })
    }
}

/// Make a pipeline, with an app as its first stage
///
/// A pipeline says which apps are the stages of one product: test, review, development, staging and production.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pipelines:create shop -a shop-staging --stage staging
  $ platform pipelines:create shop -a shop --stage production --team my-team")]
pub(crate) struct Create {
    /// Name of the pipeline; without it, that of the app
    name: Option<String>,
    /// The stage that the app is
    #[arg(long, short, default_value = "production")]
    stage: String,
    /// The team that owns the pipeline; without it, you do
    #[arg(long, short)]
    team: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Create {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, app) = cx.app(&self.app)?;
        let name = self.name.as_ref().unwrap_or(&app);
        let owner = self.team.map(|team| json!({ "id": team, "type": "team" }));
        let content = json!({ "name": name, "owner": owner });
        let made = cx.out.step(&format!("Creating the pipeline {name}"), || client.post(&["pipelines"], &content))?;
        couple(cx, &client, (&app, name, &self.stage))?;
        cx.done(&made)
    }
}

/// Make an app a stage of a pipeline
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pipelines:add shop -a shop --stage production")]
pub(crate) struct Add {
    /// Name of the pipeline
    pipeline: String,
    /// test, review, development, staging or production
    #[arg(long, short)]
    stage: String,
    #[command(flatten)]
    app: AppArg,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, app) = cx.app(&self.app)?;
        cx.done(&couple(cx, &client, (&app, &self.pipeline, &self.stage))?)
    }
}

/// Make an app another stage of its pipeline
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pipelines:update -a shop-next --stage staging")]
pub(crate) struct Update {
    /// test, review, development, staging or production
    #[arg(long, short)]
    stage: String,
    #[command(flatten)]
    app: AppArg,
}

impl Update {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, app) = cx.app(&self.app)?;
        let coupling = coupling(&client, &app)?;
        let content = json!({ "stage": self.stage });
        let update = || client.patch(&["pipeline-couplings", &coupling.id], &content);
        cx.done(&cx.out.step(&format!("Making {app} {} of {}", self.stage, coupling.pipeline.name), update)?)
    }
}

/// Take an app out of its pipeline
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pipelines:remove -a shop-next")]
pub(crate) struct Remove {
    #[command(flatten)]
    app: AppArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, app) = cx.app(&self.app)?;
        let coupling = coupling(&client, &app)?;
        let remove = || client.delete(&["pipeline-couplings", &coupling.id]);
        cx.done(&cx.out.step(&format!("Taking {app} out of {}", coupling.pipeline.name), remove)?)
    }
}

/// List the stages of a pipeline
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pipelines:info shop")]
pub(crate) struct Info {
    /// Name of the pipeline
    pipeline: String,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let couplings = client.list(&["pipelines", &self.pipeline, "pipeline-couplings"])?;
        cx.show_list(&couplings, |out, mut couplings: Vec<Coupling>| {
            couplings.sort_by_key(|coupling| STAGES.iter().position(|stage| *stage == coupling.stage));
            let row = |coupling: Coupling| vec![coupling.app.name.into(), coupling.stage.into()];
            out.table(&["App", "Stage"], couplings.into_iter().map(row).collect(), "No apps.")
        })
    }
}

/// Give a pipeline another name
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pipelines:rename shop web-shop")]
pub(crate) struct Rename {
    /// Name of the pipeline
    pipeline: String,
    /// Its new name
    name: String,
}

impl Rename {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let content = json!({ "name": self.name });
        let rename = || client.patch(&["pipelines", &self.pipeline], &content);
        cx.done(&cx.out.step(&format!("Renaming {} to {}", self.pipeline, self.name), rename)?)
    }
}

/// End a pipeline; its apps go on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform pipelines:destroy shop")]
pub(crate) struct Destroy {
    /// Name of the pipeline
    pipeline: String,
}

impl Destroy {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let destroy = || client.delete(&["pipelines", &self.pipeline]);
        cx.done(&cx.out.step(&format!("Ending the pipeline {}", self.pipeline), destroy)?)
    }
}

/// The stages, in the order in which a change goes through them.
const STAGES: [&str; 5] = ["test", "review", "development", "staging", "production"];

fn couple(cx: &Context, client: &Client, (app, pipeline, stage): (&str, &str, &str)) -> Result<Value> {
    let content = json!({ "app": app, "pipeline": pipeline, "stage": stage });
    let add = || client.post(&["pipeline-couplings"], &content);
    cx.out.step(&format!("Adding {app} to {pipeline} as {stage}"), add)
}

fn coupling(client: &Client, app: &str) -> Result<Coupling> {
    client::typed(&client.get(&["apps", app, "pipeline-couplings"])?)
}
