//! Node.js: apps with a package.json.
//!
//! Node.js itself, and the app's dependencies, are layers that are made anew only when what they were made from changes. The
//! dependencies are installed into their layer from the lock file alone, and `node_modules` in the app is a link to it, so a
//! build after a change of the source installs nothing.

use std::path::{Path, PathBuf};

use libcnb::data::launch::Process;

use crate::command::Run;
use crate::concurrency;
use crate::error::PackError;
use crate::files;
use crate::output;
use crate::pack::{self, Build, Language};

mod dependencies;
mod manifest;
mod runtime;

use manifest::Manifest;

pub(crate) struct NodeJs;

const MANIFEST: &str = "package.json";
/// Programs that dependencies bring.
const PROGRAMS: &str = "node_modules/.bin";

impl Language for NodeJs {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join(MANIFEST).is_file() {
            Ok(())
        } else {
            Err("Node.js: no package.json at the top of the app".to_owned())
        }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let manifest = Manifest::read(build.app())?;
        let node = runtime::install(build, &manifest)?;
        set_launch_environment(build)?;
        let installed = dependencies::install(build, &manifest, &node)?;
        for script in manifest.scripts_of_a_build() {
            output::heading(&format!("Running {script}"));
            run_script(&node, build.app(), script)?;
        }
        installed.leave_only_production(build, &manifest, &node)?;
        web_process(build.app(), &manifest)
    }
}

/// Node.js in the build: where it is, and how programs find it.
struct Node {
    /// Folder with `bin`.
    root: PathBuf,
    /// Folder with `include`, for native extensions.
    headers: PathBuf,
    /// `24.1.0`
    version: String,
}

impl Node {
    /// A program that finds this Node.js, the app's installed programs, and the headers. What the user set wins.
    fn run(&self, folder: &Path, program: &str, arguments: &[&str]) -> Run {
        let mut run = Run::new(folder, program, arguments)
            .path(&self.root.join("bin"))
            .path(&folder.join(PROGRAMS))
            .env("npm_config_nodedir", &self.headers)
            .env("npm_config_update_notifier", "false");
        for (name, value) in [("NODE_ENV", "production"), ("NPM_CONFIG_LOGLEVEL", "error")] {
            if std::env::var_os(name).is_none() {
                run = run.env(name, value);
            }
        }
        run
    }
}

fn run_script(node: &Node, app: &Path, script: &str) -> Result<(), PackError> {
    let explain = |status, _: &str| Some(PackError::NodeScript { script: script.to_owned(), status });
    node.run(app, "npm", &["run", script]).show_or_fail(explain)
}

/// What every process of the app finds: Heroku's variables, and the installed programs on the PATH.
fn set_launch_environment(build: &Build) -> Result<(), PackError> {
    let layer = build.launch_layer("env")?;
    // A layer's `bin` is on the PATH (Buildpack spec, "Layer Paths").
    files::link(&build.app().join(PROGRAMS), &layer.path().join("bin"))?;
    layer.launch_script("web-concurrency", &concurrency::for_node())?;
    layer.launch_defaults(&[
        ("NODE_ENV", "production"),
        ("NPM_CONFIG_LOGLEVEL", "error"),
        ("NPM_CONFIG_UPDATE_NOTIFIER", "false"),
    ])
}

/// What Heroku starts when there is no Procfile, if there is anything.
fn web_process(app: &Path, manifest: &Manifest) -> Result<Vec<Process>, PackError> {
    if manifest.scripts.contains_key("start") {
        return Ok(vec![pack::process("web", ["npm", "start"])?]);
    }
    let program = ["server.js", "index.js"].into_iter().find(|name| app.join(name).is_file());
    program.map(|name| pack::process("web", ["node", name])).transpose().map(|process| process.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_process_is_the_start_script_or_a_server() {
        let app = tempfile::tempdir().unwrap();
        let web = |text: &str| {
            let processes = web_process(app.path(), &Manifest::parse(text).unwrap()).unwrap();
            processes.first().map(|process| process.command.join(" "))
        };
        assert_eq!(web("{}"), None);
        std::fs::write(app.path().join("index.js"), "").unwrap();
        assert_eq!(web("{}").unwrap(), "node index.js");
        std::fs::write(app.path().join("server.js"), "").unwrap();
        assert_eq!(web("{}").unwrap(), "node server.js");
        assert_eq!(web(r#"{"scripts": {"start": "next start"}}"#).unwrap(), "npm start");
    }
}
