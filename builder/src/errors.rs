//! All text that a user reads when a build fails: what happened, why, and what to do.

use std::fmt::{self, Display, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::{EngineError, LayerError};
use serde::{Deserialize, Serialize};

use crate::stack::StackError;

/// Why a build failed. `Display` is the whole message for the person who pushed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Detect or build said no.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The kernel killed something in the build container.
    #[error("The build used more than {} of memory and was stopped.\n\nTry to build less at once (fewer parallel jobs, smaller bundles), or ask the operator to raise `build_memory`.", size(*memory_bytes))]
    OutOfMemory {
        /// The limit, in bytes.
        memory_bytes: u64,
    },
    /// The build took too long.
    #[error("The build took longer than {} and was stopped.\n\nIts output above shows what it was doing. If it needs the time, ask the operator to raise `build_time`.", duration(*limit))]
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
    /// The base images were never made, or not by this version of the recipe.
    #[error(
        "The platform has no stack of this version yet, so nothing can be built.\n\nAsk the operator to run `platform stack:update --if-missing`, and push again."
    )]
    NoStack,
    /// The base images cannot be found out about.
    #[error("The platform's stack cannot be used: {0}.\n\nNothing was deployed. Tell the operator.")]
    Stack(#[from] StackError),
    /// Too little disk is left to begin.
    #[error("There is too little disk space to build: {} free, {} needed.\n\nRunning apps are not affected. Ask the operator to make room, or to lower `min_free_disk`, and push again.", size(*free_bytes), size(*needed_bytes))]
    DiskFull {
        /// What is free on the layer store's disk.
        free_bytes: u64,
        /// What must be.
        needed_bytes: u64,
    },
    /// Too much of the disk is used to begin.
    #[error(
        "The disk is nearly full: {percent} % of its {of} is used, and from {limit_percent} % on nothing is built.\n\nRunning apps are not affected. Ask the operator to make room (`platform disk` shows what takes it), or to raise `disk_full`, and push again."
    )]
    DiskNearlyFull {
        /// How much is used.
        percent: u8,
        /// From where on nothing is built.
        limit_percent: u8,
        /// `space` or `files`
        of: &'static str,
    },
    /// The build wrote more than it may.
    #[error("The build wrote more than {} to the disk and was stopped.\n\nTry to write less: leave out what the app does not need, or remove what a step leaves before the next one. Or ask the operator to raise `build_disk`.", size(*limit_bytes))]
    DiskQuota {
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// The container ended and left no outcome.
    #[error(
        "The build stopped unexpectedly: its container {0}.\n\nNothing was deployed. Push again; if it happens again, tell the operator."
    )]
    Vanished(model::Exit),
    /// The repository's `project.toml` is wrong.
    #[error("project.toml cannot be used: {0}.\n\nCorrect it, commit it and push again.")]
    Project(String),
    /// A buildpack that the app or the repository names is none.
    #[error(
        "The buildpack {buildpack} cannot be used: {problem}.\n\nNothing was deployed. Correct it, or choose another one with `platform buildpacks:set`."
    )]
    Buildpack {
        /// What was named.
        buildpack: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A buildpack from elsewhere did not come.
    #[error(
        "The buildpack {buildpack} could not be fetched: {problem}.\n\nNothing was deployed. Check its address, and push again."
    )]
    NotFetched {
        /// What was named.
        buildpack: String,
        /// Why not.
        problem: String,
    },
    /// An image from elsewhere did not come, or is none that can run here.
    #[error("The image {name} cannot be used: {problem}.\n\nNothing was deployed; what ran before still runs.")]
    Image {
        /// What was named.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What the Dockerfile says did not work.
    #[error(
        "The Dockerfile could not be built: buildah {0}.\n\nIts output above says at which step and why. Nothing was deployed; what ran before still runs."
    )]
    Dockerfile(model::Exit),
    /// A Dockerfile of an image extension did not work.
    #[error(
        "The image extensions' Dockerfiles could not be applied: buildah {0}.\n\nIts output above says at which step and why. Nothing was deployed; what ran before still runs."
    )]
    Extension(model::Exit),
    /// A buildpack asked for a layer that is not there.
    #[error(
        "Buildpack {buildpack} wants its layer {layer:?} in the image but neither made it in this build nor in the last one.\n\nThis is a mistake in the buildpack."
    )]
    MissingLayer {
        /// Id of the buildpack.
        buildpack: String,
        /// Name of the layer.
        layer: String,
    },
    /// A process type that the platform cannot name.
    #[error("Process type {name:?} cannot be used: {reason}")]
    ProcessType {
        /// As the buildpack wrote it.
        name: String,
        /// What is allowed.
        reason: model::NameError,
    },
    /// The layers directory holds something that no honest build leaves.
    #[error("The build left its layers in a state that cannot be used: {0}")]
    Dishonest(String),
    /// apt did not install what the plan asks for.
    #[error("{}", packages_refused(packages, output))]
    Packages {
        /// Their names.
        packages: String,
        /// The last lines of apt and what drives it.
        output: String,
    },
    /// The engine could not run the container.
    #[error(
        "The build could not run: {0}.\n\nNothing was deployed. Push again in a moment; if it happens again, tell the operator."
    )]
    Engine(#[from] EngineError),
    /// The layer store failed.
    #[error("{}", not_stored(.0))]
    Store(#[from] LayerError),
    /// A file operation of the platform's own failed.
    #[error("The platform could not {action} {}: {source}.\n\nNothing was deployed. Tell the operator.", path.display())]
    Io {
        /// `read`, `make`, …
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why detect or build failed. Crosses from the build container to the host as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Failure {
    /// No group of the order passed.
    NothingDetected {
        /// What each buildpack looked for.
        reasons: Vec<Reason>,
        /// What is in the app's top folder.
        files: Vec<String>,
        /// Whether a buildpack failed instead of saying no.
        errored: bool,
    },
    /// The order names a buildpack that is not installed.
    UnknownBuildpack {
        /// `id` or `id@version`.
        buildpack: String,
        /// Ids that are installed.
        installed: Vec<String>,
    },
    /// A `bin/build` failed.
    BuildpackFailed {
        /// `id@version`
        buildpack: String,
        /// `failed with exit code 1`
        how: String,
    },
    /// A buildpack wrote what the specification does not allow.
    BuildpackInvalid {
        /// `id@version`
        buildpack: String,
        /// What is wrong.
        problem: String,
    },
    /// A `bin/generate` failed.
    ExtensionFailed {
        /// `id@version`
        extension: String,
        /// `failed with exit code 1`
        how: String,
    },
    /// An image extension wrote what the specification does not allow.
    ExtensionInvalid {
        /// `id@version`
        extension: String,
        /// What is wrong.
        problem: String,
    },
    /// A file of the platform's or a buildpack's cannot be used.
    Unusable {
        /// Which.
        what: String,
        /// Why.
        problem: String,
    },
    /// The lifecycle itself could not go on.
    Io {
        /// `run a buildpack`
        action: String,
        /// What the system said.
        problem: String,
    },
}

/// What one buildpack said in detect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Its id.
    pub buildpack: String,
    /// The last line it printed.
    pub said: String,
}

impl Failure {
    pub(crate) fn unusable(path: &Path, problem: &dyn Display) -> Self {
        Self::Unusable { what: path.display().to_string(), problem: problem.to_string() }
    }

    pub(crate) fn io(action: &str, error: &std::io::Error) -> Self {
        Self::Io { action: action.to_owned(), problem: error.to_string() }
    }

    /// What is wrong, without the words around it.
    pub(crate) fn problem(self) -> String {
        match self {
            Self::Unusable { problem, .. } => problem,
            other => other.to_string(),
        }
    }

    /// The reference lifecycle's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NothingDetected { errored: false, .. } => 20,
            Self::NothingDetected { errored: true, .. } => 21,
            Self::UnknownBuildpack { .. } | Self::Unusable { .. } => 22,
            Self::BuildpackFailed { .. } => 51,
            Self::BuildpackInvalid { .. } | Self::Io { .. } => 52,
            Self::ExtensionFailed { .. } => 91,
            Self::ExtensionInvalid { .. } => 92,
        }
    }
}

impl std::error::Error for Failure {}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingDetected { reasons, files, .. } => f.write_str(&nothing_detected(reasons, files)),
            Self::UnknownBuildpack { buildpack, installed } => write!(
                f,
                "There is no buildpack {buildpack}.\n\nThese are installed:\n\n{}\nSet one of them, or none at all to have it chosen by the app's files.",
                list(installed)
            ),
            Self::BuildpackFailed { buildpack, how } => write!(
                f,
                "Buildpack {buildpack} {how}.\n\nIts output above says why. Nothing was deployed; what ran before still runs."
            ),
            Self::BuildpackInvalid { buildpack, problem } => write!(
                f,
                "Buildpack {buildpack} did what the buildpack specification does not allow: {problem}.\n\nThis is a mistake in the buildpack, not in the app."
            ),
            Self::ExtensionFailed { extension, how } => write!(
                f,
                "Image extension {extension} {how}.\n\nIts output above says why. Nothing was deployed; what ran before still runs."
            ),
            Self::ExtensionInvalid { extension, problem } => write!(
                f,
                "Image extension {extension} did what the specification does not allow: {problem}.\n\nThis is a mistake in the extension, not in the app."
            ),
            Self::Unusable { what, problem } => {
                write!(
                    f,
                    "{what} cannot be used: {problem}.\n\nThis is a mistake in how buildpacks are installed. Tell the operator."
                )
            }
            Self::Io { action, problem } => {
                write!(
                    f,
                    "The build could not {action}: {problem}.\n\nNothing was deployed. Push again; if it happens again, tell the operator."
                )
            }
        }
    }
}

fn nothing_detected(reasons: &[Reason], files: &[String]) -> String {
    let width = reasons.iter().map(|reason| reason.buildpack.len()).max().unwrap_or(0);
    let mut text = "No buildpack can build this app. What each of them said:\n\n".to_owned();
    for Reason { buildpack, said } in reasons {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {buildpack:width$}  {said}");
    }
    let seen = match files {
        [] => "The top folder of the pushed commit is empty.".to_owned(),
        few if few.len() <= 12 => format!("The top folder of the pushed commit contains: {}.", few.join(", ")),
        many => format!(
            "The top folder of the pushed commit contains: {} and {} more.",
            many[..12].join(", "),
            many.len() - 12
        ),
    };
    let _ =
        write!(text, "\n{seen}\n\nAdd and commit the file that your language's buildpack looks for, and push again.");
    text
}

fn not_stored(error: &LayerError) -> String {
    format!("The image could not be stored: {error}: {}.\n\nNothing was deployed. Tell the operator.", error.source)
}

fn packages_refused(packages: &str, output: &str) -> String {
    let is_reason = |line: &&str| {
        line.starts_with("E: ")
            && !["mmdebstrap", "apt-get --yes", "setup failed"].iter().any(|ours| line.contains(ours))
    };
    let mut reasons: Vec<&str> = output.lines().filter(is_reason).collect();
    if reasons.is_empty() {
        reasons = output.lines().collect();
    }
    format!(
        "These Debian packages could not be installed: {packages}.\n\n{}\n\nIf a name is wrong, correct it in the app's Aptfile; https://packages.debian.org/trixie/ lists all names. If packages could not be fetched, push again; if it happens again, tell the operator.",
        list(&reasons.into_iter().map(str::to_owned).collect::<Vec<_>>()).trim_end()
    )
}

fn list(items: &[String]) -> String {
    items.iter().fold(String::new(), |text, item| text + "  " + item + "\n")
}

/// Bytes as people say them.
pub(crate) fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes / MIB {
        0 => format!("{} KiB", bytes / 1024),
        mib if mib < 10 * 1024 => format!("{mib} MiB"),
        mib => format!("{} GiB", mib / 1024),
    }
}

fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds < 120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(buildpack: &str, said: &str) -> Reason {
        Reason { buildpack: buildpack.into(), said: said.into() }
    }

    #[test]
    fn nothing_detected_lists_what_each_looked_for() {
        let failure = Failure::NothingDetected {
            reasons: vec![reason("platform/nodejs", "needs: package.json"), reason("platform/go", "needs: go.mod")],
            files: vec!["README.md".into(), "src/".into()],
            errored: false,
        };
        insta::assert_snapshot!(failure, @r#"
        No buildpack can build this app. What each of them said:

          platform/nodejs  needs: package.json
          platform/go      needs: go.mod

        The top folder of the pushed commit contains: README.md, src/.

        Add and commit the file that your language's buildpack looks for, and push again.
        "#);
    }

    #[test]
    fn failures_say_what_why_and_what_to_do() {
        let failed = Failure::BuildpackFailed {
            buildpack: "platform/nodejs@0.1.0".into(),
            how: "failed with exit code 1".into(),
        };
        insta::assert_snapshot!(failed, @r#"
        Buildpack platform/nodejs@0.1.0 failed with exit code 1.

        Its output above says why. Nothing was deployed; what ran before still runs.
        "#);
        let unknown =
            Failure::UnknownBuildpack { buildpack: "heroku/cobol".into(), installed: vec!["platform/go".into()] };
        insta::assert_snapshot!(unknown, @r#"
        There is no buildpack heroku/cobol.

        These are installed:

          platform/go

        Set one of them, or none at all to have it chosen by the app's files.
        "#);
        let invalid = Failure::BuildpackInvalid {
            buildpack: "a@1.0.0".into(),
            problem: "x.toml: `launch` belongs into the table [types]".into(),
        };
        insta::assert_snapshot!(invalid, @r#"
        Buildpack a@1.0.0 did what the buildpack specification does not allow: x.toml: `launch` belongs into the table [types].

        This is a mistake in the buildpack, not in the app.
        "#);
    }

    #[test]
    fn packages_that_do_not_exist_are_named_with_apts_own_words() {
        let output = "I: downloading packages with apt...\nE: Unable to locate package libfoo9\n\
                      E: apt download failed: E: apt-get --yes install libfoo9 failed\nE: mmdebstrap failed to run";
        insta::assert_snapshot!(BuildError::Packages { packages: "libfoo9, ruby3.3".into(), output: output.into() }, @r#"
        These Debian packages could not be installed: libfoo9, ruby3.3.

          E: Unable to locate package libfoo9

        If a name is wrong, correct it in the app's Aptfile; https://packages.debian.org/trixie/ lists all names. If packages could not be fetched, push again; if it happens again, tell the operator.
        "#);
    }

    #[test]
    fn limits_name_themselves() {
        insta::assert_snapshot!(BuildError::OutOfMemory { memory_bytes: 2 << 30 }, @r#"
        The build used more than 2048 MiB of memory and was stopped.

        Try to build less at once (fewer parallel jobs, smaller bundles), or ask the operator to raise `build_memory`.
        "#);
        insta::assert_snapshot!(BuildError::TimeLimit { limit: Duration::from_secs(1800) }, @r#"
        The build took longer than 30 minutes and was stopped.

        Its output above shows what it was doing. If it needs the time, ask the operator to raise `build_time`.
        "#);
        insta::assert_snapshot!(BuildError::DiskFull { free_bytes: 300 << 20, needed_bytes: 1 << 30 }, @r#"
        There is too little disk space to build: 300 MiB free, 1024 MiB needed.

        Running apps are not affected. Ask the operator to make room, or to lower `min_free_disk`, and push again.
        "#);
    }
}
