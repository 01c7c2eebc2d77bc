//! `links` and its kin: which apps reach which others.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::client::Named;
use crate::context::{AppArg, Context};
use crate::error::Result;

/// A link, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Link {
    name: String,
    target: Named,
    url: String,
}

/// List the apps that an app reaches
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform links -a my-app")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let links = client.list(&["apps", &name, "links"])?;
        cx.show_list(&links, |out, links: Vec<Link>| {
            let row = |link: Link| vec![link.target.name.into(), format!("{}_URL", link.name).into(), link.url.into()];
            out.table(
                &["App", "Config var", "URL"],
                links.into_iter().map(row).collect(),
                &format!("{name} reaches no other app. `platform links:add OTHER` lets it."),
            )
        })
    }
}

/// Let an app reach another one
///
/// Without a link no app reaches another one. A config var of its name says where it is: requests go through the router, so that they
/// are balanced, wake it, and none is lost when it is deployed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform links:add stock-api -a my-app
  $ platform links:add stock-api --as stock")]
pub(crate) struct Add {
    /// The app to reach
    other: String,
    /// Name of the config var, without _URL
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let content = json!({ "app": self.other, "name": self.name });
        let what = format!("Linking {name} to {}", self.other);
        cx.done(&cx.out.step(&what, || client.post(&["apps", &name, "links"], &content))?)
    }
}

/// Let an app no longer reach another one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform links:remove stock-api -a my-app")]
pub(crate) struct Remove {
    /// The other app
    other: String,
    #[command(flatten)]
    app: AppArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let what = format!("Ending the link of {name} to {}", self.other);
        cx.done(&cx.out.step(&what, || client.delete(&["apps", &name, "links", &self.other]))?)
    }
}
