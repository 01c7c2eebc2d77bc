//! What an app says about itself in files of its repository: `app.json` (Heroku's schema, with `healthchecks` and `cron` as Dokku
//! has them, `rollout` and `routing`) and `heroku.yml`.
//!
//! Pure: text goes in, a [`Manifest`] and [`Problem`]s with line and column come out. Whether a named add-on or size exists is
//! for whoever knows; [`At::error`] lets them complain about the right line.

mod app_json;
mod heroku_yml;
mod json;
mod node;
mod problem;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;

use model::{AttachmentName, ConfigVarName, MountPath, ProcessType, VolumeName, VolumeSize};
use serde::{Deserialize, Serialize};

pub use problem::{At, Problem, Severity, Spot};

/// The file of Heroku's schema.
pub const APP_JSON: &str = "app.json";
/// The file of Heroku's container builds.
pub const HEROKU_YML: &str = "heroku.yml";
/// Most bytes of each file that are read.
pub const MAX_BYTES: usize = 256 * 1024;

/// What both files together say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Name of the stack.
    pub stack: Option<At<String>>,
    /// Buildpacks in order; none means detect.
    pub buildpacks: Vec<At<String>>,
    /// Config vars that the app wants.
    pub env: BTreeMap<ConfigVarName, At<EnvVar>>,
    /// Backing services that the app wants.
    pub addons: Vec<At<Addon>>,
    /// What process types start with.
    pub formation: BTreeMap<ProcessType, At<Scale>>,
    /// Runs once, after the first release.
    pub postdeploy: Option<At<Script>>,
    /// When instances count as started, ready and alive.
    pub healthchecks: BTreeMap<ProcessType, Vec<HealthCheck>>,
    /// When what ended by itself is started again.
    pub restart: Restarts,
    /// What should run at certain times.
    pub cron: Vec<At<CronJob>>,
    /// How its releases replace each other: settings of a [`model::RolloutPolicy`], each of which can be set.
    pub rollout: BTreeMap<String, String>,
    /// How many of each process type there are when nobody says so: settings of a [`model::ScalingPolicy`].
    pub scaling: BTreeMap<ProcessType, BTreeMap<String, String>>,
    /// How routers treat the requests to it: settings of a [`model::RoutePolicy`], each of which can be set.
    pub routing: BTreeMap<String, String>,
    /// What the app keeps on disk.
    pub volumes: BTreeMap<VolumeName, At<VolumeWish>>,
    /// Process types of `heroku.yml`, for an app without Procfile.
    pub processes: BTreeMap<ProcessType, String>,
    /// The Dockerfile that it is built from; none means by buildpacks.
    pub docker: Option<Docker>,
}

/// A Dockerfile to build an app from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Docker {
    /// Its path from the top of the repository. The folder that it is in is what it can copy from.
    pub dockerfile: String,
    /// The stage of it that runs; the last one if none.
    pub target: Option<String>,
    /// Values of its `ARG`s.
    pub args: BTreeMap<String, String>,
}

/// A config var that the app wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvVar {
    /// What it is for.
    pub description: Option<String>,
    /// Its default.
    pub value: Option<String>,
    /// The app cannot do without it.
    pub required: bool,
    /// Without a default, a secret is made up.
    pub generated: bool,
}

/// A backing service that the app wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addon {
    /// `postgres` or `postgres:mini`
    pub plan: String,
    /// The name under which the app uses it.
    pub attachment: Option<AttachmentName>,
    /// What its kind wants to know.
    pub options: BTreeMap<String, String>,
}

impl Addon {
    /// The plan without its size: `postgres`.
    pub fn service(&self) -> &str {
        self.plan.split(':').next().unwrap_or_default()
    }
}

/// What a process type starts with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scale {
    /// How many.
    pub quantity: Option<u32>,
    /// Name of a dyno size, in any case.
    pub size: Option<String>,
}

/// What the app keeps on disk, and whose dyno mounts it where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeWish {
    /// Whose.
    pub process_type: ProcessType,
    /// Where.
    pub path: MountPath,
    /// How much it holds.
    pub size: VolumeSize,
}

/// A command, and what it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// For a shell.
    pub command: String,
    /// Name of a dyno size, in any case.
    pub size: Option<String>,
}

/// A check of one process type's instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What it decides.
    pub kind: CheckKind,
    /// What people call it.
    pub name: Option<String>,
    /// What it looks at.
    pub probe: CheckProbe,
    /// Failures in a row that count.
    pub attempts: u32,
    /// Seconds that one attempt may take.
    pub timeout: u32,
    /// Seconds between attempts.
    pub wait: u32,
    /// Seconds before the first attempt.
    pub initial_delay: u32,
}

/// What a check decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// Whether a new instance has started.
    Startup,
    /// Whether it takes requests.
    Readiness,
    /// Whether it should be replaced.
    Liveness,
}

/// What a check looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckProbe {
    /// `GET` of this path is answered with 2xx or 3xx.
    Path(String),
    /// This program and its arguments end with 0 inside the instance.
    Command(Vec<String>),
    /// It has been up for so many seconds.
    Uptime(u32),
    /// It listens on its port.
    Listening,
}

/// When what ended by itself is started again, as far as an app has its own mind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// So many crashes in a row are followed by a restart at once.
    pub at_once: Option<u32>,
    /// Seconds before the restart after the next one; each later pause is twice as long.
    pub pause: Option<u32>,
    /// Seconds of the longest pause.
    pub longest_pause: Option<u32>,
    /// After so many restarts in a row it stays down; 0 is never.
    pub limit: Option<u32>,
}

/// A command to run at certain times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronJob {
    /// What it is called; without one, like its command.
    #[serde(default)]
    pub name: Option<String>,
    /// Settings of a [`model::JobSpec`], each of which can be set.
    #[serde(flatten)]
    pub settings: BTreeMap<String, String>,
}

/// The files of an app, as far as it has them.
#[derive(Debug, Default, Clone, Copy)]
pub struct Files<'a> {
    /// `app.json`
    pub app_json: Option<&'a [u8]>,
    /// `heroku.yml`
    pub heroku_yml: Option<&'a [u8]>,
}

/// Reads the files. What has a problem is left out of the manifest; with an error among the problems it should not be used. Where
/// both files say something, `app.json` counts.
pub fn read(files: Files<'_>) -> (Manifest, Vec<Problem>) {
    let (mut manifest, mut problems) = (Manifest::default(), Vec::new());
    if let Some(bytes) = files.app_json {
        app_json::read(bytes, &mut manifest, &mut problems);
    }
    if let Some(bytes) = files.heroku_yml {
        heroku_yml::read(bytes, &mut manifest, &mut problems);
    }
    problems.sort_by_key(|problem| (problem.file, problem.spot));
    (manifest, problems)
}
