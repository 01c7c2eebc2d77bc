//! `repository` and its kin: deploying from a repository elsewhere.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::builds;
use crate::client;
use crate::context::{AppArg, Context, ReleaseArg};
use crate::error::Result;
use crate::output::Output;

/// A linked repository, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Repository {
    url: String,
    branch: String,
    user: client::Owner,
    webhook: Webhook,
}

#[derive(Debug, Deserialize)]
struct Webhook {
    url: String,
    secret: String,
}

impl Repository {
    fn print(&self, out: Output) -> Result<()> {
        out.pairs([
            ("Repository", self.url.as_str().into()),
            ("Branch", self.branch.as_str().into()),
            ("Linked by", self.user.email.as_str().into()),
            ("Webhook", self.webhook.url.as_str().into()),
            ("Secret", self.webhook.secret.as_str().into()),
        ])
    }
}

/// Show the repository that an app is deployed from
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform repository -a my-app")]
pub(crate) struct Info {
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let value = client.get(&["apps", &name, "repository"])?;
        cx.show(&value, |out| client::typed::<Repository>(&value)?.print(out))
    }
}

/// Deploy an app from a branch of a repository elsewhere
///
/// With the webhook that this prints, told to GitHub, GitLab, Gitea or Forgejo (as JSON, for pushes), every push there
/// is deployed. Without it, `platform repository:deploy` does. Linking deploys nothing yet; git push goes on working.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform repository:link https://github.com/example/shop
  $ platform credentials:set git.example.com --user deploy -a shop
  $ platform repository:link https://git.example.com/shop.git --branch release -a shop
  $ platform repository:link git@git.example.com:example/shop.git")]
pub(crate) struct Link {
    /// Where it is, over https or SSH; for a private one see `platform credentials:set`
    url: String,
    /// Which branch is deployed
    #[arg(long, default_value = "main")]
    branch: String,
    #[command(flatten)]
    app: AppArg,
}

impl Link {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let content = json!({ "url": self.url, "branch": self.branch });
        let link = || client.put(&["apps", &name, "repository"], &content);
        let value = cx.out.step(&format!("Fetching {} for {name}", self.branch), link)?;
        cx.show(&value, |out| client::typed::<Repository>(&value)?.print(out))
    }
}

/// Deploy an app by git push only, as before
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform repository:unlink -a my-app")]
pub(crate) struct Unlink {
    #[command(flatten)]
    app: AppArg,
}

impl Unlink {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let unlink = || client.delete(&["apps", &name, "repository"]);
        cx.done(&cx.out.step(&format!("Unlinking the repository of {name}"), unlink)?)
    }
}

/// Fetch the linked repository and deploy what is new there
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform repository:deploy
  $ platform repository:deploy --no-wait -a my-app")]
pub(crate) struct Deploy {
    /// Do not wait until it is live
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    app: ReleaseArg,
}

impl Deploy {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app_to_release(&self.app)?;
        let fetch = || client.post(&["apps", &name, "repository", "deploys"], &json!({}));
        let made = cx.out.step(&format!("Fetching the repository of {name}"), fetch)?;
        builds::show(cx, (&client, &name), &made, !self.no_wait)
    }
}
