//! Apps, and what belongs to one.

use serde::Deserialize;

/// `GET /platform`
#[derive(Debug, Deserialize)]
pub(crate) struct Platform {
    /// Its https entrance.
    pub(crate) https_url: Option<String>,
}

/// `GET /apps/:app`
#[derive(Debug, Deserialize)]
pub(crate) struct App {
    /// Its name.
    pub(crate) name: String,
    /// Where it is pushed to over SSH, if the platform has that.
    #[serde(default)]
    pub(crate) ssh_url: Option<String>,
    /// Where it answers.
    pub(crate) web_url: Option<String>,
    /// Requests get the maintenance page.
    pub(crate) maintenance: bool,
    /// Who made it.
    pub(crate) owner: Owner,
    /// What it is built and run on.
    pub(crate) stack: Named,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// RFC 3339; nothing released yet if missing.
    pub(crate) released_at: Option<String>,
}

/// A user, in other resources.
#[derive(Debug, Deserialize)]
pub(crate) struct Owner {
    /// Their address.
    pub(crate) email: String,
}

/// Anything that is only named.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    /// Its name.
    pub(crate) name: String,
}

/// `GET /apps/:app/dynos`
#[derive(Debug, Deserialize)]
pub(crate) struct Dyno {
    /// `web.1`
    pub(crate) name: String,
    /// `starting`, `up`, `crashed`, …
    pub(crate) state: String,
    /// As the Procfile has it.
    pub(crate) command: String,
    /// `Standard-1X`
    pub(crate) size: String,
    /// RFC 3339: since when it is in this state.
    pub(crate) updated_at: String,
    /// What it runs.
    pub(crate) release: DynoRelease,
    /// Whether routers send it requests; none of what never gets any.
    #[serde(default)]
    pub(crate) routed: Option<bool>,
    /// Where to attach, if asked for.
    pub(crate) attach_url: Option<String>,
    /// How it fares; none of one-offs.
    #[serde(default)]
    pub(crate) health: Option<DynoHealth>,
}

/// How an instance fares.
#[derive(Debug, Deserialize)]
pub(crate) struct DynoHealth {
    /// It is up and passes its readiness checks.
    pub(crate) ready: bool,
    /// In a row.
    pub(crate) crashes: u32,
    /// RFC 3339: when a crashed one is started again.
    pub(crate) retry_at: Option<String>,
    /// It stays down.
    pub(crate) gave_up: bool,
    /// How its last life ended, if it crashed.
    pub(crate) last_exit: Option<DynoExit>,
    /// What fails, or failed at its end.
    pub(crate) failing: Option<DynoCheck>,
}

/// How a process ended.
#[derive(Debug, Deserialize)]
pub(crate) struct DynoExit {
    /// `exited with code 3`
    pub(crate) text: String,
}

/// What a failed check saw.
#[derive(Debug, Deserialize)]
pub(crate) struct DynoCheck {
    /// `connection refused on port 5000`
    pub(crate) result: String,
    /// Whether the instance was stopped for it.
    pub(crate) fatal: bool,
}

/// The release of a dyno.
#[derive(Debug, Deserialize)]
pub(crate) struct DynoRelease {
    /// The N of vN.
    pub(crate) version: u32,
}

/// `GET /apps/:app/formation`
#[derive(Debug, Deserialize)]
pub(crate) struct Formation {
    /// `web`
    #[serde(rename = "type")]
    pub(crate) process_type: String,
    /// How many should run.
    pub(crate) quantity: u32,
    /// `Standard-1X`
    pub(crate) size: String,
    /// As the Procfile has it.
    pub(crate) command: String,
}

/// `GET /apps/:app/builds`
#[derive(Debug, Deserialize)]
pub(crate) struct Build {
    /// Which.
    pub(crate) id: String,
    /// `pending`, `succeeded`, `failed`.
    pub(crate) status: String,
    /// What was built.
    pub(crate) source_blob: SourceBlob,
    /// Who pushed.
    pub(crate) user: Owner,
    /// RFC 3339.
    pub(crate) created_at: String,
}

/// What a build was made of.
#[derive(Debug, Deserialize)]
pub(crate) struct SourceBlob {
    /// The commit.
    pub(crate) version: Option<String>,
}

/// `GET /apps/:app/domains`
#[derive(Debug, Deserialize)]
pub(crate) struct Domain {
    /// The host name, and the path after it.
    pub(crate) hostname: String,
    /// That path, if it has one.
    pub(crate) path: Option<String>,
    /// The app does not see the path.
    #[serde(default)]
    pub(crate) strip: bool,
    /// `heroku` for the app's own name, `custom` for those added.
    pub(crate) kind: String,
    /// What a DNS record should point at.
    pub(crate) cname: Option<String>,
}

/// `POST /apps/:app/log-sessions`
#[derive(Debug, Deserialize)]
pub(crate) struct LogSession {
    /// Where the lines are.
    pub(crate) logplex_url: String,
}

/// `GET /apps/:app/buildpack-installations`
#[derive(Debug, Deserialize)]
pub(crate) struct BuildpackInstallation {
    /// Its place, from 0.
    pub(crate) ordinal: u32,
    /// Which.
    pub(crate) buildpack: Buildpack,
}

/// A buildpack, in other resources.
#[derive(Debug, Deserialize)]
pub(crate) struct Buildpack {
    /// Its id, or where it is.
    pub(crate) url: String,
}

/// `GET /pipelines`
#[derive(Debug, Deserialize)]
pub(crate) struct Pipeline {
    /// Its name.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) owner: PipelineOwner,
}

/// Whose a pipeline is.
#[derive(Debug, Deserialize)]
pub(crate) struct PipelineOwner {
    /// `team` or `user`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// `GET /pipeline-couplings`
#[derive(Debug, Deserialize)]
pub(crate) struct Coupling {
    /// Its id.
    pub(crate) id: String,
    /// Which app.
    pub(crate) app: Named,
    /// Of which pipeline.
    pub(crate) pipeline: Named,
    /// Which stage that is.
    pub(crate) stage: String,
}
