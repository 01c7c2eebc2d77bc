//! Programs from the npm registry, by the build image's npm.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::command::Run;
use crate::error::PackError;
use crate::files;

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
    fn what_is_available_is_told_by_major_version() {
        let versions = ["22.9.0", "22.10.1", "22.10.0", "24.0.0-rc.1", "24.1.0"].map(str::to_owned);
        assert_eq!(newest_of_each_major(&versions), "22.10.1, 24.1.0");
    }
}
