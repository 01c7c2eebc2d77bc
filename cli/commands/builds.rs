//! `builds:create` and its kin: builds without git.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{self, Client};
use crate::context::{self, AppArg, Context, ReleaseArg};
use crate::error::{CliError, Result};
use crate::output;

/// How often a build whose output has ended is looked at.
const POLL: Duration = Duration::from_millis(250);

/// A build, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Build {
    id: String,
    status: String,
    output_stream_url: String,
    source_blob: SourceBlob,
    created_at: String,
    user: client::Owner,
}

/// What is built.
#[derive(Debug, Deserialize)]
struct SourceBlob {
    version: Option<String>,
}

/// Where an archive goes.
#[derive(Debug, Deserialize)]
struct Source {
    source_blob: SourceUrls,
}

#[derive(Debug, Deserialize)]
struct SourceUrls {
    get_url: String,
    put_url: String,
}

/// Build and release an app from an archive, or an image, instead of a push
///
/// Without an argument, from the files of the last commit here. An archive may hold an image as an OCI layout, as `docker save` and
/// `podman save --format oci-archive` write it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform builds:create
  $ platform builds:create --source-tar app.tar.gz -a my-app
  $ platform builds:create --source-url https://example.com/app.tar.gz --version v1.2
  $ platform builds:create --image ghcr.io/example/shop:1.2 -a my-app")]
pub(crate) struct Create {
    /// An archive here: tar, plain or gzipped
    #[arg(long, value_name = "FILE", conflicts_with = "source_url")]
    source_tar: Option<String>,
    /// An archive elsewhere, which the platform fetches
    #[arg(long, value_name = "URL")]
    source_url: Option<String>,
    /// An image of a registry, as `docker pull` reads its name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["source_tar", "source_url"])]
    image: Option<String>,
    /// What people call it: a commit, a version
    #[arg(long)]
    version: Option<String>,
    /// Do not wait until it is live
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    app: ReleaseArg,
}

impl Create {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app_to_release(&self.app)?;
        let image = self.image.as_ref().map(|image| format!("docker://{image}"));
        let elsewhere = self.source_url.or(image);
        let is_here = self.source_tar.is_none() && elsewhere.is_none();
        let url = match elsewhere {
            Some(url) => url,
            None => cx.out.step("Uploading the source", || upload(&client, self.source_tar.as_deref()))?,
        };
        // An archive need not be of the commit that is checked out here.
        let version = self.version.or_else(|| is_here.then(head_commit).flatten());
        let content = json!({ "source_blob": { "url": url, "version": version } });
        let made = client.post(&["apps", &name, "builds"], &content)?;
        show(cx, (&client, &name), &made, !self.no_wait)
    }
}

/// Shows a build that was begun, to its end if somebody waits for that.
pub(super) fn show(cx: &Context, (client, app): (&Client, &str), made: &Value, wait: bool) -> Result<()> {
    let build: Build = client::typed(made)?;
    if !wait {
        cx.out.note(&format!("See how it goes: platform builds:output {} -a {app}", build.id));
        return cx.show(made, |out| out.line(&build.id));
    }
    follow(cx, client, &build)?;
    let ended = finished(client, app, &build.id)?;
    match ended["status"].as_str() {
        Some("succeeded") => cx.done(&ended),
        _ => Err(CliError::failed("The build failed; nothing was changed").hint("Its output is above.")),
    }
}

/// Show one build of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform builds:info 01234567-89ab-cdef-0123-456789abcdef -a my-app")]
pub(crate) struct Info {
    /// Its id, as `platform builds` lists it
    build: String,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let value = client.get(&["apps", &name, "builds", &self.build])?;
        cx.show(&value, |out| {
            let build: Build = client::typed(&value)?;
            out.heading(&build.id)?;
            out.pairs([
                ("Status", build.status.into()),
                ("Version", build.source_blob.version.unwrap_or_default().into()),
                ("Who", build.user.email.into()),
                ("When", output::when(&build.created_at, context::now()).into()),
            ])
        })
    }
}

/// Show the output of a build, as it comes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform builds:output 01234567-89ab-cdef-0123-456789abcdef -a my-app")]
pub(crate) struct Output {
    /// Its id, as `platform builds` lists it
    build: String,
    #[command(flatten)]
    app: AppArg,
}

impl Output {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let build: Build = client::typed(&client.get(&["apps", &name, "builds", &self.build])?)?;
        for line in client::lines(client.open(&build.output_stream_url)?).map_while(std::io::Result::ok) {
            cx.show_line(&json!({ "text": line }), line.clone())?;
        }
        Ok(())
    }
}

/// Stop a build that runs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform builds:cancel 01234567-89ab-cdef-0123-456789abcdef -a my-app")]
pub(crate) struct Cancel {
    /// Its id, as `platform builds` lists it
    build: String,
    #[command(flatten)]
    app: AppArg,
}

impl Cancel {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let cancel = || client.delete(&["apps", &name, "builds", &self.build]);
        cx.done(&cx.out.step(&format!("Stopping the build {} of {name}", self.build), cancel)?)
    }
}

/// Forget what builds of an app kept for the next one
///
/// The next build downloads and makes everything again. What runs is not touched.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform builds:cache:purge -a my-app")]
pub(crate) struct CachePurge {
    #[command(flatten)]
    app: AppArg,
}

impl CachePurge {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let purge = || client.delete(&["apps", &name, "build-cache"]);
        cx.done(&cx.out.step(&format!("Purging the build cache of {name}"), purge)?)
    }
}

/// Brings an archive to the platform, and says where it is there.
fn upload(client: &Client, file: Option<&str>) -> Result<String> {
    let source: Source = client::typed(&client.post(&["sources"], &json!({}))?)?;
    let urls = source.source_blob;
    if let Some(path) = file {
        let mut file =
            File::open(path).map_err(|error| CliError::usage(format!("Cannot read {path}")).because(&error))?;
        client.send_to(&urls.put_url, &mut file)?;
        return Ok(urls.get_url);
    }
    let failed = |error: &dyn std::error::Error| {
        CliError::usage("The files of the last commit cannot be packed")
            .because(error)
            .hint("Work in the app's git repository, or name an archive with --source-tar.")
    };
    let mut git = Command::new("git")
        .args(["archive", "--format=tar.gz", "HEAD"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let mut archive = Vec::new();
    if let Some(mut output) = git.stdout.take() {
        output.read_to_end(&mut archive).map_err(|error| failed(&error))?;
    }
    let status = git.wait().map_err(|error| failed(&error))?;
    if !status.success() {
        return Err(failed(&std::io::Error::other(format!("git archive ended with {status}"))));
    }
    client.send_to(&urls.put_url, &mut archive.as_slice())?;
    Ok(urls.get_url)
}

/// Shows what a build prints; a stream that breaks off has ended, and the build's status tells the rest.
fn follow(cx: &Context, client: &Client, build: &Build) -> Result<()> {
    for line in client::lines(client.open(&build.output_stream_url)?).map_while(std::io::Result::ok) {
        cx.out.note(&line);
    }
    Ok(())
}

fn finished(client: &Client, app: &str, build: &str) -> Result<Value> {
    loop {
        let value = client.get(&["apps", app, "builds", build])?;
        if value["status"] != "pending" {
            return Ok(value);
        }
        thread::sleep(POLL);
    }
}

/// The commit that is checked out here, if there is one.
fn head_commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
