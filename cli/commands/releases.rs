//! `releases`, `releases:info`, `rollback`, `builds`.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::client::{self, Build, Client, Release};
use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Result};
use crate::output::{self, Field, Mood};

/// How often a release that is under way is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How far back a release to roll back to is looked for.
const ROLLBACK_SEARCH: u32 = 50;

/// List the releases of an app, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform releases
  $ platform releases -n 100 -a my-app
  $ platform releases --json | jq '.[0].version'")]
pub(crate) struct List {
    /// How many to list
    #[arg(short, long, default_value_t = 15)]
    num: u32,
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let releases = client.newest(&["apps", &name, "releases"], self.num)?;
        cx.show_list(&releases, |out, releases: Vec<Release>| {
            let row = |release: Release| {
                let created = output::ago(&release.created_at, context::now());
                let state = state(&release);
                vec![
                    format!("v{}", release.version).into(),
                    state,
                    release.description.into(),
                    release.user.email.into(),
                    created.into(),
                ]
            };
            out.table(
                &["Release", "State", "What", "Who", "When"],
                releases.into_iter().map(row).collect(),
                &format!("{name} has no releases yet. The first comes with `git push platform main`."),
            )
        })
    }
}

/// Show one release of an app: what it did, and the config vars it had
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform releases:info
  $ platform releases:info v12 -a my-app")]
pub(crate) struct Info {
    /// The release, such as v12; the newest if missing
    release: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let version = match &self.release {
            Some(release) => version_of(release)?,
            None => {
                newest(&client, &name, 1)?.first().map(|release| release.version).ok_or_else(|| no_releases(&name))?
            }
        };
        let version = version.to_string();
        let path = ["apps", &name, "releases", &version];
        let value = client.get(&path)?;
        cx.show(&value, |out| {
            let release: Release = client::typed(&value)?;
            let vars: BTreeMap<String, String> =
                client::typed(&client.get(&["apps", &name, "releases", &version, "config-vars"])?)?;
            out.heading(&format!("{name} v{}", release.version))?;
            let failure = release.failure.as_ref().map(|failure| ("Failure", Field::from(failure)));
            let known = [
                ("State", state(&release)),
                ("What", release.description.into()),
                ("Who", release.user.email.into()),
                ("When", output::when(&release.created_at, context::now()).into()),
            ];
            out.pairs(known.into_iter().chain(failure))?;
            out.line("")?;
            out.heading("config vars")?;
            out.pairs(vars.iter().map(|(key, value)| (key, value.into())))
        })
    }
}

/// Go back to an earlier release
///
/// Makes a new release with the image and the config vars of the old one. Without an argument, the one before the
/// current one is taken.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform rollback
  $ platform rollback v12 -a my-app")]
pub(crate) struct Rollback {
    /// The release to go back to, such as v12
    release: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Rollback {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let old = match &self.release {
            Some(release) => {
                client::typed(&client.get(&["apps", &name, "releases", &version_of(release)?.to_string()])?)?
            }
            None => before_current(&client, &name)?,
        };
        let (made, value) = cx.out.step(&format!("Rolling {name} back to v{}", old.version), || {
            let made = client.post(&["apps", &name, "releases"], &json!({ "release": old.id }))?;
            finished(&client, &name, made)
        })?;
        cx.show(&value, |out| out.line(format!("v{} is what v{} was: {}", made.version, old.version, old.description)))
    }
}

/// List the builds of an app, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform builds
  $ platform builds -a my-app --json")]
pub(crate) struct Builds {
    #[command(flatten)]
    app: AppArg,
}

impl Builds {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let builds = client.list(&["apps", &name, "builds"])?;
        cx.show_list(&builds, |out, mut builds: Vec<Build>| {
            builds.sort_by(|a, b| b.created_at.cmp(&a.created_at));
            let row = |build: Build| {
                let commit: String = build.source_blob.version.unwrap_or_default().chars().take(8).collect();
                let created = output::ago(&build.created_at, context::now());
                vec![build.id.into(), status(&build.status), commit.into(), build.user.email.into(), created.into()]
            };
            out.table(
                &["Build", "State", "Commit", "Who", "When"],
                builds.into_iter().map(row).collect(),
                &format!("{name} has no builds yet. The first comes with `git push platform main`."),
            )
        })
    }
}

/// Waits for a release that is under way, and gives it as people and as programs read it.
pub(super) fn finished(client: &Client, app: &str, mut value: Value) -> Result<(Release, Value)> {
    let mut release: Release = client::typed(&value)?;
    while release.status == "pending" {
        thread::sleep(POLL);
        value = client.get(&["apps", app, "releases", &release.version.to_string()])?;
        release = client::typed(&value)?;
    }
    if release.status == "succeeded" {
        return Ok((release, value));
    }
    let failure = std::io::Error::other(release.failure.unwrap_or_else(|| format!("it is {}", release.status)));
    Err(CliError::failed(format!("Release v{} did not come up; what ran before still runs", release.version))
        .because(&failure)
        .hint(format!("See what it said: platform logs -n 100 -a {app}")))
}

/// The newest release older than the current one that can be gone back to.
fn before_current(client: &Client, app: &str) -> Result<Release> {
    let releases = newest(client, app, ROLLBACK_SEARCH)?;
    let current = releases.iter().find(|release| release.current).map_or(u32::MAX, |release| release.version);
    releases.into_iter().find(|release| release.version < current && release.eligible_for_rollback).ok_or_else(|| {
        CliError::failed(format!("{app} has no earlier release to go back to"))
            .hint(format!("See what there is: platform releases -a {app}"))
    })
}

fn newest(client: &Client, app: &str, max: u32) -> Result<Vec<Release>> {
    client::typed(&client.newest(&["apps", app, "releases"], max)?)
}

fn no_releases(app: &str) -> CliError {
    CliError::failed(format!("{app} has no releases yet")).hint("The first comes with `git push platform main`.")
}

fn version_of(text: &str) -> Result<u32> {
    text.trim_start_matches('v').parse().map_err(|_| {
        CliError::usage(format!("`{text}` is not a release"))
            .hint("Releases are named like v12; `platform releases` lists them.")
    })
}

fn state(release: &Release) -> Field {
    if release.current { Field::from("current").mood(Mood::Good) } else { status(&release.status) }
}

fn status(status: &str) -> Field {
    match status {
        "failed" => Field::from(status).mood(Mood::Bad),
        "pending" => Field::from(status).mood(Mood::Busy),
        _ => Field::from(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_named_with_and_without_v() {
        assert_eq!(version_of("v12").unwrap(), 12);
        assert_eq!(version_of("12").unwrap(), 12);
        assert!(version_of("latest").is_err());
    }
}
