//! `routing`: how routers treat the requests to an app.

use clap::Args;
use serde_json::json;

use super::rollouts;
use crate::context::{AppArg, Context};
use crate::error::Result;

/// Show or set how the router treats the requests to an app
///
/// Balancing, timeouts, limits, redirects and who may ask: docs/routing.md has all settings. What is set counts before what app.json says,
/// and that before the default. It works at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform routing
  $ platform routing https=on canonical_host=www.example.com
  $ platform routing rate_limit=100/1m max_body=10MiB
  $ platform routing allow=203.0.113.0/24 basic_auth=ada:secret
  $ platform routing --unset basic_auth -a my-app")]
pub(crate) struct Routing {
    /// What to set
    #[arg(value_name = "NAME=VALUE")]
    changes: Vec<String>,
    /// What to leave to app.json again
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Routing {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let changes = rollouts::changes(&self.changes, &self.unset, "routing https=on rate_limit=100/1m")?;
        let (client, name) = cx.app(&self.app)?;
        let what = format!("Setting how the router treats the requests to {name}");
        rollouts::settings(cx, &client, (&["apps", &name, "routing-policy"], changes), &what)
    }
}

/// Forget the answers of an app that routers keep
///
/// For an app with cache=on: from now on every page is asked for again. A new release does that by itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform routing:purge
  $ platform routing:purge -a my-app")]
pub(crate) struct Purge {
    #[command(flatten)]
    app: AppArg,
}

impl Purge {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let now = json!({"cache_purged": "now"});
        let path = ["apps", &name, "routing-policy"];
        let settings = cx.out.step(&format!("Forgetting what routers keep of {name}"), || client.patch(&path, &now))?;
        cx.done(&settings)
    }
}
