//! Node.js: apps with a package.json.
//!
//! Node.js itself, the package manager, and the app's dependencies are layers that are made anew only when what they were made
//! from changes. The dependencies are installed into their layer from the lock file alone, and `node_modules` in the app is a
//! link to it, so a build after a change of the source installs nothing.

use std::path::{Path, PathBuf};

use libcnb::data::launch::Process;

use crate::command::Run;
use crate::error::PackError;
use crate::output;
use crate::pack::{self, Build, Language};
use crate::{concurrency, files, memory, project};

mod commands;
mod dependencies;
mod installed;
mod manager;
mod manifest;
pub(crate) mod registry;
mod runtime;
mod shared_cache;
mod tools;
mod version;

use dependencies::Installer;
use manager::{Kind, Manager};
use manifest::Manifest;
pub(crate) use runtime::make_ready;

pub(crate) struct NodeJs;

const MANIFEST: &str = "package.json";
/// Programs that dependencies bring.
const PROGRAMS: &str = "node_modules/.bin";
/// Most megabytes of heap that a build is given, as on Heroku.
const HEAP: u64 = 2560;

/// With one of these the app is of another language, and Node.js only helps to build it.
const OWNERS: [&str; 17] = [
    "Gemfile",
    "composer.json",
    "requirements.txt",
    "pyproject.toml",
    "uv.lock",
    "poetry.lock",
    "Pipfile",
    "setup.py",
    "manage.py",
    "go.mod",
    "mix.exs",
    "Cargo.toml",
    "pom.xml",
    "build.gradle",
    "build.gradle.kts",
    "deno.json",
    "deno.jsonc",
];

/// Beginnings of start scripts that are servers for development.
const DEVELOPMENT: [&str; 10] = [
    "react-scripts start",
    "vite",
    "ng serve",
    "vue-cli-service serve",
    "parcel",
    "webpack serve",
    "webpack-dev-server",
    "gatsby develop",
    "astro dev",
    "craco start",
];

impl Language for NodeJs {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join(MANIFEST).is_file() {
            Ok(())
        } else {
            Err("Node.js: no package.json at the top of the app".to_owned())
        }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let manifest = Manifest::read(app)?;
        let manager = Manager::choose(app, &manifest)?;
        let node = runtime::install(build, &manifest, &manager)?;
        let is_helper = OWNERS.iter().any(|name| app.join(name).is_file());
        set_launch_environment(build, is_helper)?;
        let keeps_dev = commands::keeps_dev(manager.kind, |name| std::env::var(name).ok())
            || project::switch(app, &["com", "heroku", "buildpacks", "nodejs", "actions", "prune_dev_dependencies"])?
                == Some(false);
        let installer = Installer { build, manifest: &manifest, manager: &manager, node: &node, keeps_dev };
        let dependencies = installer.install()?;
        run_scripts(&node, app, &manifest.scripts_of_a_build())?;
        installer.leave_only_production(&dependencies, is_only_files(app))?;
        run_scripts(&node, app, &manifest.scripts_at_the_end())?;
        if is_helper {
            return Ok(Vec::new());
        }
        let processes = web_process(app, &manifest, manager.kind)?;
        let is_started_otherwise = app.join("Procfile").is_file() || app.join("static.json").is_file();
        if processes.is_empty() && !is_started_otherwise && !builds_a_site(app) {
            output::warning(
                "nothing says how the app starts: package.json has no start script, and there is no server.js or index.js. Add one: \"scripts\": { \"start\": \"node app.js\" }",
            );
        }
        Ok(processes)
    }
}

/// Node.js in the build: where it is, and how programs find it.
#[derive(Debug, Clone)]
struct Node {
    /// Folder with `bin`.
    root: PathBuf,
    /// Folder with `include`, for native extensions.
    headers: PathBuf,
    /// `24.1.0`
    version: String,
    /// Folder with the program of a package manager that is not npm.
    manager: Option<PathBuf>,
    /// What runs scripts of package.json.
    runner: &'static str,
}

impl Node {
    /// A program that finds this Node.js, the app's installed programs, and the headers. What the user set wins.
    fn run(&self, folder: &Path, program: &str, arguments: &[&str]) -> Run {
        let mut run = Run::new(folder, program, arguments).path(&self.root.join("bin"));
        if let Some(manager) = &self.manager {
            run = run.path(manager);
        }
        run = run
            .path(&folder.join(PROGRAMS))
            .env("npm_config_nodedir", &self.headers)
            .env("npm_config_update_notifier", "false");
        let heap = memory::megabytes().map_or(HEAP, |all| HEAP.min(all * 3 / 4));
        for (name, value) in [
            ("NODE_ENV", "production"),
            ("NPM_CONFIG_LOGLEVEL", "error"),
            ("NODE_OPTIONS", &format!("--max_old_space_size={heap}")),
        ] {
            if std::env::var_os(name).is_none() {
                run = run.env(name, value);
            }
        }
        run
    }
}

/// Runs scripts of package.json.
fn run_scripts(node: &Node, app: &Path, scripts: &[&str]) -> Result<(), PackError> {
    for script in scripts {
        output::heading(&format!("Running {script}"));
        let explain = |status, _: &str| Some(PackError::NodeScript { script: (*script).to_owned(), status });
        node.run(app, node.runner, &["run", script]).show_or_fail(explain)?;
    }
    Ok(())
}

/// Whether `app` has a package.json.
pub(crate) fn is_node(app: &Path) -> bool {
    app.join(MANIFEST).is_file()
}

/// Whether `app` is built into files and has no server of its own: one that only serves while somebody writes the app is none.
pub(crate) fn builds_a_site(app: &Path) -> bool {
    let Ok(manifest) = Manifest::read(app) else { return false };
    let has_server = ["Procfile", "server.js", "index.js"].iter().any(|name| app.join(name).is_file());
    let starts = manifest.script("start").is_some_and(|line| {
        let command = without_settings(line);
        !DEVELOPMENT.iter().any(|known| command.starts_with(known))
    });
    let is_other = OWNERS.iter().any(|name| app.join(name).is_file());
    !manifest.scripts_of_a_build().is_empty() && !has_server && !starts && !is_other
}

/// Whether nothing of what is installed can be asked for: a site whose root is the folder that the build filled, and not one that
/// its settings name.
fn is_only_files(app: &Path) -> bool {
    builds_a_site(app) && !["static.json", "Staticfile"].iter().any(|name| app.join(name).is_file())
}

/// The command of a script, without the variables that it is given: `react-scripts start` of `cross-env PORT=4100 react-scripts start`.
fn without_settings(line: &str) -> &str {
    let mut rest = line.trim_start();
    loop {
        let (word, others) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let is_setting = word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        });
        if others.is_empty() || !(is_setting || ["cross-env", "env", "npx"].contains(&word)) {
            return rest;
        }
        rest = others.trim_start();
    }
}

/// What every process of the app finds: Heroku's variables, and the installed programs on the PATH.
fn set_launch_environment(build: &Build, is_helper: bool) -> Result<(), PackError> {
    let layer = build.launch_layer("env")?;
    // A layer's `bin` is on the PATH (Buildpack spec, "Layer Paths").
    files::link(&build.app().join(PROGRAMS), &layer.path().join("bin"))?;
    // Nothing can take a variable back: Puma, where Heroku's Ruby says nothing of it, would start as many processes.
    if !is_helper {
        layer.launch_script("web-concurrency", &concurrency::for_node())?;
    }
    layer.launch_defaults(&[
        ("NODE_ENV", "production"),
        ("NPM_CONFIG_LOGLEVEL", "error"),
        ("NPM_CONFIG_UPDATE_NOTIFIER", "false"),
    ])
}

/// What Heroku starts when there is no Procfile, if there is anything.
fn web_process(app: &Path, manifest: &Manifest, kind: Kind) -> Result<Vec<Process>, PackError> {
    let is_there = |names: &[&'static str]| names.iter().copied().find(|name| app.join(name).is_file());
    let words = if manifest.script("start").is_some() {
        let program = kind.program();
        Some(if kind == Kind::Bun { vec![program, "run", "start"] } else { vec![program, "start"] })
    } else if let Some(name) = is_there(&["server.js", "index.js"]) {
        Some(vec![if kind == Kind::Bun { "bun" } else { "node" }, name])
    } else {
        is_there(&["server.ts", "index.ts"]).filter(|_| kind == Kind::Bun).map(|name| vec!["bun", name])
    };
    words.map(|words| pack::process("web", words)).transpose().map(|process| process.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_known_by_its_command() {
        for (line, expected) in [
            ("react-scripts start", "react-scripts start"),
            ("cross-env PORT=4100 react-scripts start", "react-scripts start"),
            ("A=1 B_2=x npx  vite --host", "vite --host"),
            ("node --import=x server.js", "node --import=x server.js"),
            ("env", "env"),
            ("", ""),
        ] {
            assert_eq!(without_settings(line), expected);
        }
    }

    #[test]
    fn the_default_process_is_the_start_script_or_a_server() {
        let app = tempfile::tempdir().unwrap();
        let web = |text: &str, kind| {
            let processes = web_process(app.path(), &Manifest::parse(text).unwrap(), kind).unwrap();
            processes.first().map(|process| process.command.join(" "))
        };
        assert_eq!(web("{}", Kind::Npm), None);
        std::fs::write(app.path().join("index.ts"), "").unwrap();
        assert_eq!(web("{}", Kind::Npm), None);
        assert_eq!(web("{}", Kind::Bun).unwrap(), "bun index.ts");
        std::fs::write(app.path().join("index.js"), "").unwrap();
        assert_eq!(web("{}", Kind::Pnpm).unwrap(), "node index.js");
        std::fs::write(app.path().join("server.js"), "").unwrap();
        assert_eq!(web("{}", Kind::Npm).unwrap(), "node server.js");
        let start = r#"{"scripts": {"start": "next start"}}"#;
        for (kind, expected) in [
            (Kind::Npm, "npm start"),
            (Kind::Yarn, "yarn start"),
            (Kind::Berry, "yarn start"),
            (Kind::Pnpm, "pnpm start"),
            (Kind::Bun, "bun run start"),
        ] {
            assert_eq!(web(start, kind).unwrap(), expected);
        }
    }
}
