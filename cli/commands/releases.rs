//! `releases`, `releases:info`, `releases:output`, `releases:export`, `builds`.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::disk::AppDisk;
use crate::client::{self, Build, Client, ConfigVarChange, Release, Scaled};
use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Kind, Result};
use crate::output::{self, Field, Mood};

/// How often a release that is under way is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How far back a release is looked for that nobody named.
const SEARCH: u32 = 50;

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
                    what(&release).into(),
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
    /// Print its config vars alone, in lines that a shell can read: KEY='value'
    #[arg(long, short)]
    shell: bool,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let version = version_or_newest(&client, &name, self.release.as_deref())?.to_string();
        let path = ["apps", &name, "releases", &version];
        let value = client.get(&path)?;
        cx.show(&value, |out| {
            let release: Release = client::typed(&value)?;
            let vars: BTreeMap<String, String> =
                client::typed(&client.get(&["apps", &name, "releases", &version, "config-vars"])?)?;
            if self.shell {
                return vars.iter().try_for_each(|(key, value)| out.line(format!("{key}={}", output::quoted(value))));
            }
            out.heading(&format!("{name} v{}", release.version))?;
            // What cannot be measured now keeps nothing else back.
            let disk = client.get(&["apps", &name, "disk"]).and_then(|value| client::typed::<AppDisk>(&value)).ok();
            let size = disk.and_then(|disk| disk.of_release(release.version));
            let known = [
                ("State", Some(state(&release))),
                ("What", Some(release.description.into())),
                ("Why", release.reason.map(Field::from)),
                ("Who", Some(release.user.email.into())),
                ("When", Some(output::when(&release.created_at, context::now()).into())),
                ("Commit", release.slug.map(|slug| slug.commit.into())),
                ("Add-ons", some_list(&release.addon_plan_names)),
                ("Formation", some_list(&formation(release.formation.as_deref().unwrap_or_default()))),
                ("Changed", some_list(&changed(&release.config_changes))),
                ("Image", release.image_removed.then(|| "removed, since the app has newer ones".into())),
                ("Size", size.map(Field::from)),
                ("Failure", release.failure.map(Field::from)),
            ];
            out.pairs(known.into_iter().filter_map(|(name, value)| Some((name, value?))))?;
            out.line("")?;
            out.heading("config vars")?;
            out.pairs(vars.iter().map(|(key, value)| (key, value.into())))
        })
    }
}

/// Print what the release command of a release printed
///
/// While it runs, this goes on with what comes. Without an argument, the newest release that has a release command is taken.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform releases:output
  $ platform releases:output v12 -a my-app")]
pub(crate) struct Output {
    /// The release, such as v12
    release: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Output {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let version = self.release.as_deref().map(version_of).transpose()?;
        let release: Option<Release> = match version {
            Some(version) => Some(client::typed(&client.get(&["apps", &name, "releases", &version.to_string()])?)?),
            None => newest(&client, &name, SEARCH)?.into_iter().find(|release| release.output_stream_url.is_some()),
        };
        let Some((release, url)) =
            release.and_then(|release| release.output_stream_url.clone().map(|url| (release, url)))
        else {
            let which =
                version.map_or_else(|| format!("no release of {name} has"), |version| format!("v{version} has no"));
            return Err(CliError::failed(format!("There is no output: {which} release command"))
                .hint("A process type `release` in the Procfile is run once for each release."));
        };
        // Before the command is started there is nothing to open.
        let stream = loop {
            match client.open(&url) {
                Err(_) if self::get(&client, &name, release.version)?.status == "pending" => thread::sleep(POLL),
                opened => break opened?,
            }
        };
        for line in client::lines(stream) {
            cx.out.line(output::harmless(&line?))?;
        }
        Ok(())
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
pub(super) fn before_current(client: &Client, app: &str) -> Result<Release> {
    let releases = newest(client, app, SEARCH)?;
    let current = releases.iter().find(|release| release.current).map_or(u32::MAX, |release| release.version);
    releases.into_iter().find(|release| release.version < current && release.eligible_for_rollback).ok_or_else(|| {
        CliError::failed(format!("{app} has no earlier release to go back to"))
            .hint(format!("See what there is: platform releases -a {app}"))
    })
}

pub(super) fn newest(client: &Client, app: &str, max: u32) -> Result<Vec<Release>> {
    client::typed(&client.newest(&["apps", app, "releases"], max)?)
}

/// The version that somebody named, or the newest one.
pub(super) fn version_or_newest(client: &Client, app: &str, named: Option<&str>) -> Result<u32> {
    match named {
        Some(release) => version_of(release),
        None => newest(client, app, 1)?.first().map(|release| release.version).ok_or_else(|| no_releases(app)),
    }
}

pub(super) fn no_releases(app: &str) -> CliError {
    CliError::failed(format!("{app} has no releases yet")).hint("The first comes with `git push platform main`.")
}

pub(super) fn version_of(text: &str) -> Result<u32> {
    text.trim_start_matches('v').parse().map_err(|_| {
        CliError::usage(format!("`{text}` is not a release"))
            .hint("Releases are named like v12; `platform releases` lists them.")
    })
}

fn get(client: &Client, app: &str, version: u32) -> Result<Release> {
    client::typed(&client.get(&["apps", app, "releases", &version.to_string()])?)
}

fn some_list(texts: &[String]) -> Option<Field> {
    (!texts.is_empty()).then(|| texts.join(", ").into())
}

fn formation(types: &[Scaled]) -> Vec<String> {
    types.iter().map(|it| format!("{}={}:{}", it.process_type, it.quantity, it.size)).collect()
}

/// `GREETING added`
pub(super) fn changed(changes: &[ConfigVarChange]) -> Vec<String> {
    changes.iter().map(|it| format!("{} {}", it.name, it.change)).collect()
}

/// What it did, and why if somebody said so.
fn what(release: &Release) -> String {
    match &release.reason {
        Some(reason) => format!("{}: {reason}", release.description),
        None => release.description.clone(),
    }
}

fn state(release: &Release) -> Field {
    match release.status.as_str() {
        _ if release.current => Field::from("current").mood(Mood::Good),
        // Nobody can go back to it.
        "succeeded" if release.image_removed => "image removed".into(),
        other => status(other),
    }
}

fn status(status: &str) -> Field {
    match status {
        "failed" => Field::from(status).mood(Mood::Bad),
        "pending" => Field::from(status).mood(Mood::Busy),
        _ => Field::from(status),
    }
}

/// Write the image of a release as a file that other container programs read, or push it to a registry
///
/// The file is an OCI layout in tar form: an `oci-archive` for skopeo and podman. A registry gets the same image, by the same digest:
/// the platform sends what is not there yet, with the credentials that are set for it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform releases:export v12 -o app.tar
  $ platform credentials:set registry.example.com --user robot -a my-app
  $ platform releases:export v12 --to registry.example.com/team/app:v12")]
pub(crate) struct Export {
    /// The release, such as v12; the current one if none
    release: Option<String>,
    /// The file; standard output if none
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// In place of a file: registry, repository and tag
    #[arg(long, value_name = "IMAGE", conflicts_with = "output")]
    to: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

/// An image on its way to a registry.
#[derive(Debug, Deserialize)]
struct Push {
    bytes_present: u64,
    bytes_sent: u64,
    bytes_total: u64,
    failure: Option<String>,
    image: Option<String>,
}

impl Export {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let version = match &self.release {
            Some(release) => version_of(release)?,
            None => current(&client, &name)?,
        };
        if let Some(to) = &self.to {
            return push(cx, &client, (&name, version), to);
        }
        let mut image = client.read(&["apps", &name, "releases", &version.to_string(), "image"])?;
        let cannot = |error: io::Error| CliError::failed("The image cannot be written").because(&error);
        let Some(path) = self.output else {
            if io::stdout().is_terminal() {
                return Err(CliError::usage("An image is not for a terminal")
                    .hint("Name a file with --output, or a registry with --to."));
            }
            return io::copy(&mut image, &mut io::stdout()).map(|_| ()).map_err(cannot);
        };
        let write = || io::copy(&mut image, &mut std::fs::File::create(&path).map_err(cannot)?).map_err(cannot);
        let bytes = cx.out.step(&format!("Fetching the image of v{version} of {name}"), write)?;
        cx.show(&json!({ "file": path, "bytes": bytes }), |out| out.line(path.display().to_string()))
    }
}

/// Has the platform push an image, and shows how far it is.
fn push(cx: &Context, client: &Client, (app, version): (&str, u32), to: &str) -> Result<()> {
    let task = cx.out.task(&format!("Pushing the image of v{version} of {app} to {to}"));
    let pushed = follow_push(client, (app, version), to, &task);
    task.end(pushed.is_ok());
    let (value, push) = pushed?;
    cx.show(&value, |out| {
        let (sent, present) = (output::size(push.bytes_sent), output::size(push.bytes_present));
        out.note(&format!("{sent} sent, {present} were there."));
        out.line(push.image.unwrap_or_default())
    })
}

fn follow_push(client: &Client, (app, version): (&str, u32), to: &str, task: &output::Task) -> Result<(Value, Push)> {
    let version = version.to_string();
    let path = ["apps", app, "releases", &version, "image", "pushes"];
    for line in BufReader::new(client.post_and_follow(&path, &json!({ "to": to }))?).lines() {
        let Ok(value) = line.and_then(|line| Ok(serde_json::from_str::<Value>(&line)?)) else { break };
        let push: Push = client::typed(&value)?;
        if let Some(failure) = &push.failure {
            return Err(CliError::failed(failure.trim_end_matches('.')));
        }
        if push.image.is_some() {
            return Ok((value, push));
        }
        let there = push.bytes_sent + push.bytes_present;
        task.show(&format!("{} of {}", output::size(there), output::size(push.bytes_total)));
    }
    Err(CliError::new(Kind::Unreachable, "The platform's answer broke off before the image was pushed")
        .hint("Push again: what has arrived at the registry is not sent twice."))
}

/// Version of the release that an app runs.
fn current(client: &Client, app: &str) -> Result<u32> {
    let releases: Vec<Release> = client::typed(&client.newest(&["apps", app, "releases"], SEARCH)?)?;
    let found = releases.into_iter().find(|release| release.current);
    let none = || {
        CliError::failed(format!("{app} runs nothing yet"))
            .hint("The first release comes with `git push platform main`.")
    };
    found.map(|release| release.version).ok_or_else(none)
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
