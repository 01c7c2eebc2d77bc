//! The app's dependencies: installed by npm into a layer, linked into the app.

use std::fs;
use std::path::{Path, PathBuf};

use super::manifest::{Lock, Manifest};
use super::{MANIFEST, Node, run_script};
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{Build, Use};

const MODULES: &str = "node_modules";
const NPM_SETTINGS: &str = ".npmrc";

/// Where the dependencies of this build are.
pub(super) enum Installed {
    /// There are none.
    Nothing,
    /// In the app's own `node_modules`.
    InApp,
    /// In a layer that is part of the image, with nothing in it that only builds need.
    InImage,
    /// In a layer that only builds see, with what only they need; made by this key.
    WithDev { modules: PathBuf, key: Key },
}

/// Installs what the app depends on, if it is not there from the last build, and runs the app's own scripts that belong to it.
pub(super) fn install(build: &Build, manifest: &Manifest, node: &Node) -> Result<Installed, PackError> {
    let lock = Lock::find(build.app())?;
    for script in manifest.scripts_before_install() {
        output::heading(&format!("Running {script}"));
        run_script(node, build.app(), script)?;
    }
    if !manifest.has_dependencies() {
        return Ok(Installed::Nothing);
    }
    // Asked for in every build, or one that installs nothing would lose it.
    let cache = build.kept_cache("npm-cache", "npm 1")?;
    if refers_to_own_files(build.app(), manifest, lock)? {
        output::heading("Installing dependencies");
        npm_install(node, build.app(), &Install { lock, with_dev: true, cache })?;
        return Ok(Installed::InApp);
    }
    let scripts = manifest.scripts_after_install();
    let is_script_run = !scripts.is_empty() || !manifest.scripts_of_a_build().is_empty();
    let with_dev = manifest.has_dev_dependencies() && is_script_run;
    let key =
        key(build.app(), manifest, node, lock).with("whether a script needs devDependencies", &[u8::from(with_dev)]);
    let used = if with_dev { Use::Cache } else { Use::LaunchBuildCache };
    let layer = build.layer("node_modules", used, key.clone())?;
    if layer.is_kept {
        output::heading("Using dependencies from the last build (nothing they depend on has changed)");
    } else {
        output::heading("Installing dependencies");
        prepare(build.app(), manifest, lock, &layer.path())?;
        npm_install(node, &layer.path(), &Install { lock, with_dev, cache })?;
        layer.finish()?;
    }
    use_modules(build.app(), &layer.path())?;
    for script in scripts {
        output::heading(&format!("Running {script}"));
        run_script(node, build.app(), script)?;
    }
    Ok(if with_dev { Installed::WithDev { modules: layer.path(), key } } else { Installed::InImage })
}

impl Installed {
    /// Takes out what only builds need, now that all scripts have run.
    pub(super) fn leave_only_production(
        &self,
        build: &Build,
        manifest: &Manifest,
        node: &Node,
    ) -> Result<(), PackError> {
        match self {
            Self::InApp if manifest.has_dev_dependencies() => prune(node, build.app()),
            Self::Nothing | Self::InImage | Self::InApp => Ok(()),
            Self::WithDev { modules, key } => {
                let layer = build.layer("production-node_modules", Use::LaunchCache, key.clone())?;
                if !layer.is_kept {
                    copy(modules, &["--reflink=auto", "--no-target-directory"], &layer.path())?;
                    prune(node, &layer.path())?;
                    layer.finish()?;
                }
                copy_generated(&modules.join(MODULES), &layer.path().join(MODULES))?;
                use_modules(build.app(), &layer.path())
            }
        }
    }
}

/// Whether what is installed is in part the app's own folders (workspaces, `file:`): then it cannot be kept apart from them.
fn refers_to_own_files(app: &Path, manifest: &Manifest, lock: Lock) -> Result<bool, PackError> {
    let locked = match lock {
        Lock::Npm(name) => files::read(app, name)?.unwrap_or_default(),
        Lock::Missing => String::new(),
    };
    Ok([manifest.only_dependencies(), locked].iter().any(|text| text.contains("\"file:") || text.contains("\"link:"))
        || manifest.has_workspaces())
}

fn key(app: &Path, manifest: &Manifest, node: &Node, lock: Lock) -> Key {
    let key = Key::new("npm 1")
        .with("the version of Node.js", node.version.as_bytes())
        .with("the dependencies in package.json", manifest.only_dependencies().as_bytes())
        .with_files(app, [NPM_SETTINGS]);
    match lock {
        Lock::Npm(name) => key.with_files(app, [name]),
        Lock::Missing => key,
    }
}

/// Puts into `folder` what npm needs to install there what it would install in the app, without the app's own scripts.
fn prepare(app: &Path, manifest: &Manifest, lock: Lock, folder: &Path) -> Result<(), PackError> {
    fs::write(folder.join(MANIFEST), manifest.only_dependencies()).map_err(files::failed("write", folder))?;
    let lock = if let Lock::Npm(name) = lock { Some(name) } else { None };
    for name in [Some(NPM_SETTINGS), lock].into_iter().flatten().filter(|name| app.join(name).is_file()) {
        fs::copy(app.join(name), folder.join(name)).map_err(files::failed("copy", &app.join(name)))?;
    }
    Ok(())
}

/// How to install.
struct Install {
    lock: Lock,
    with_dev: bool,
    /// Folder of npm's own cache.
    cache: PathBuf,
}

fn npm_install(node: &Node, folder: &Path, install: &Install) -> Result<(), PackError> {
    let dev = if install.with_dev { "--include=dev" } else { "--omit=dev" };
    let (command, lock_file) = match install.lock {
        Lock::Npm(name) => (vec!["ci"], Some(name)),
        Lock::Missing => {
            output::warning(
                "there is no package-lock.json, so every install may bring other versions. Run `npm install` and commit it.",
            );
            (vec!["install", "--no-package-lock"], None)
        }
    };
    let arguments = [command.clone(), vec![dev, "--no-audit", "--no-fund"]].concat();
    let shown = format!("npm {}", command.join(" "));
    let explain = |status, _: &str| Some(PackError::NodeDependencies { command: shown, status, lock_file });
    node.run(folder, "npm", &arguments).env("npm_config_cache", &install.cache).show_or_fail(explain)
}

fn prune(node: &Node, folder: &Path) -> Result<(), PackError> {
    output::heading("Removing dependencies that only the build needs");
    let arguments = ["prune", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"];
    node.run(folder, "npm", &arguments).show()
}

/// Makes the app use what is installed in `layer`.
fn use_modules(app: &Path, layer: &Path) -> Result<(), PackError> {
    files::link(&layer.join(MODULES), &app.join(MODULES))
}

/// Copies what the app's scripts generated into `node_modules` (a database client, for one): tools that do so keep it in a
/// hidden folder, which npm leaves alone.
fn copy_generated(from: &Path, to: &Path) -> Result<(), PackError> {
    for entry in fs::read_dir(from).map_err(files::failed("read", from))?.flatten() {
        let name = entry.file_name();
        let is_generated =
            name.to_string_lossy().starts_with('.') && name != ".bin" && name != ".cache" && entry.path().is_dir();
        if is_generated {
            files::remove(&to.join(&name))?;
            copy(&entry.path(), &[], to)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, options: &[&str], to: &Path) -> Result<(), PackError> {
    let options = options.iter().map(Path::new);
    let arguments = [Path::new("--archive")].into_iter().chain(options).chain([from, to]);
    Run::new(to, "cp", arguments).quiet_or_fail(|_, _| None)
}
