//! Programs from the npm registry, by the build image's npm.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::command::Run;
use crate::downloads::Downloads;
use crate::error::PackError;
use crate::files;
use crate::output;

/// A version of a program that somebody asks for.
pub(crate) struct Wanted<'a> {
    /// Its name, as a person says it.
    pub(crate) what: &'static str,
    /// As npm writes ranges.
    pub(crate) range: &'a str,
    /// Where it is asked for.
    pub(crate) file: &'static str,
}

/// Installs `package` into `<folder>/node_modules`, with none of its scripts.
pub(crate) fn install(folder: &Path, package: &str, wanted: &Wanted) -> Result<(), PackError> {
    // A package of its own, or npm would look for one in the folders above.
    fs::write(folder.join("package.json"), "{}").map_err(files::failed("write", folder))?;
    let requested = format!("{package}@{}", wanted.range);
    let options = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    let arguments = options.into_iter().chain([requested.as_str()]);
    Run::new(folder, "npm", arguments).quiet_or_fail(|_, output| no_such_version(output, package, wanted))
}

/// Where npm writes what it has found.
const LOCK: &str = "package-lock.json";

/// A version that the registry has, as npm writes it into a lock file.
#[derive(Debug, Deserialize)]
struct Found {
    version: String,
    #[serde(default)]
    integrity: String,
}

#[derive(Deserialize)]
struct Lock {
    packages: BTreeMap<String, Value>,
}

/// Unpacks those files of `package` whose paths fit one of `patterns`, as tar matches them, into `folder`, without the folder that
/// the package has around them. For programs that depend on nothing: npm's own way of unpacking takes many times as long. What is
/// in `ready`, a folder for each version, is unpacked already. Returns the version.
pub(crate) fn unpack(
    (folder, downloads, ready): (&Path, &Downloads, Option<&Path>),
    package: &str,
    wanted: &Wanted,
    patterns: &[&str],
) -> Result<String, PackError> {
    let work = folder.join(".registry");
    fs::create_dir_all(&work).map_err(files::failed("make", &work))?;
    let found = resolve(&work, package, wanted)?;
    if let Some(ready) = ready.map(|versions| versions.join(&found.version)).filter(|ready| ready.is_dir()) {
        output::line(&format!("{} {} is ready on this machine.", wanted.what, found.version));
        files::copy_folder(&ready, folder)?;
        files::remove(&work)?;
        return Ok(found.version);
    }
    let archive = match downloads.find(&found.integrity) {
        Some(kept) => {
            output::line(&format!("{} {} was downloaded before.", wanted.what, found.version));
            kept
        }
        None => download(&work, &format!("{package}@{}", found.version), (&found.integrity, downloads))?,
    };
    let options = ["--extract", "--gzip", "--strip-components=1", "--wildcards", "--no-same-owner", "--file"];
    let arguments = options.map(Path::new).into_iter().chain([&*archive, Path::new("--directory"), folder]);
    Run::new(folder, "tar", arguments.chain(patterns.iter().map(Path::new))).quiet_or_fail(|_, _| None)?;
    files::remove(&work)?;
    Ok(found.version)
}

/// The version that npm would install.
fn resolve(work: &Path, package: &str, wanted: &Wanted) -> Result<Found, PackError> {
    fs::write(work.join("package.json"), "{}").map_err(files::failed("write", work))?;
    let requested = format!("{package}@{}", wanted.range);
    let options = ["install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    Run::new(work, "npm", options.into_iter().chain([requested.as_str()]))
        .quiet_or_fail(|_, output| no_such_version(output, package, wanted))?;
    let text = fs::read_to_string(work.join(LOCK)).map_err(files::failed("read", work))?;
    found(&text, package).ok_or_else(|| PackError::Internal(format!("npm did not lock {requested}")))
}

/// What a lock file says of a package that nothing else in it depends on.
fn found(lock: &str, package: &str) -> Option<Found> {
    let mut lock: Lock = serde_json::from_str(lock).ok()?;
    serde_json::from_value(lock.packages.remove(&format!("node_modules/{package}"))?).ok()
}

/// The archive of a package, of which npm has seen that it is what the registry says.
fn download(work: &Path, version: &str, (integrity, downloads): (&str, &Downloads)) -> Result<PathBuf, PackError> {
    let options = ["pack", "--ignore-scripts", "--loglevel=error", version];
    Run::new(work, "npm", options).quiet_or_fail(|_, _| None)?;
    let name = files::names(work).into_iter().find(|name| files::is_a(name, "tgz"));
    let archive = work.join(name.ok_or_else(|| PackError::Internal(format!("npm did not fetch {version}")))?);
    downloads.offer(integrity, &archive)?;
    Ok(archive)
}

/// What npm's complaint about a version means, with what can be had instead.
fn no_such_version(output: &str, package: &str, wanted: &Wanted) -> Option<PackError> {
    let is_unknown = ["ETARGET", "EINVALIDTAGNAME"].iter().any(|code| output.contains(code));
    is_unknown.then(|| PackError::NoSuchVersion {
        what: wanted.what,
        requested: wanted.range.to_owned(),
        file: wanted.file,
        available: available(package).unwrap_or_else(|| "the registry did not say which".to_owned()),
    })
}

/// The newest version of each major version of an npm package.
fn available(package: &str) -> Option<String> {
    let list = Run::new(Path::new("/"), "npm", ["view", package, "versions", "--json"]).read().ok()?;
    Some(newest_of_each_major(&serde_json::from_str::<Vec<String>>(&list).ok()?))
}

fn newest_of_each_major(versions: &[String]) -> String {
    let mut newest = BTreeMap::new();
    for version in versions {
        let numbers: Result<Vec<u64>, _> = version.split('.').map(str::parse).collect();
        // Anything but three numbers is a prerelease.
        if let Ok([major, minor, patch]) = numbers.as_deref() {
            let known = newest.entry(*major).or_insert((*minor, *patch));
            *known = (*known).max((*minor, *patch));
        }
    }
    let names: Vec<String> =
        newest.into_iter().map(|(major, (minor, patch))| format!("{major}.{minor}.{patch}")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_npm_has_found_is_in_its_lock_file() {
        let lock = r#"{"packages": {"": {"dependencies": {"@scope/a": "1"}},
            "node_modules/@scope/a": {"version": "1.2.3", "integrity": "sha512-YQ=="}, "node_modules/b": {"version": "2.0.0"}}}"#;
        let found = |package| found(lock, package).map(|found| (found.version, found.integrity));
        assert_eq!(found("@scope/a"), Some(("1.2.3".to_owned(), "sha512-YQ==".to_owned())));
        assert_eq!(found("b"), Some(("2.0.0".to_owned(), String::new())), "old registries have no hash");
        assert_eq!(found("c"), None);
    }

    #[test]
    fn what_is_available_is_told_by_major_version() {
        let versions = ["22.9.0", "22.10.1", "22.10.0", "24.0.0-rc.1", "24.1.0"].map(str::to_owned);
        assert_eq!(newest_of_each_major(&versions), "22.10.1, 24.1.0");
    }
}
