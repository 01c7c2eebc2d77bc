//! The app's dependencies: installed by its package manager into a layer, linked into the app.

use std::fs;
use std::path::{Path, PathBuf};

use super::commands::{self, For};
use super::manager::{Kind, Manager};
use super::manifest::Manifest;
use super::shared_cache::Locked;
use super::{MANIFEST, Node, installed, run_scripts};
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{Build, Use};

const MODULES: &str = "node_modules";
/// What generates code into `node_modules` puts it here.
const GENERATED: &str = ".prisma";

/// An app and the tools that install for it.
pub(super) struct Installer<'a> {
    pub(super) build: &'a Build,
    pub(super) manifest: &'a Manifest,
    pub(super) manager: &'a Manager,
    pub(super) node: &'a Node,
    /// The user wants `devDependencies` in the image.
    pub(super) keeps_dev: bool,
}

/// Where the dependencies of this build are.
pub(super) enum Installed {
    /// There are none.
    Nothing,
    /// In the app's own folders.
    InApp { cache: PathBuf },
    /// In a layer that is part of the image, with nothing in it that does not belong there.
    InImage,
    /// In a layer that only builds see, with what only they need; made by this key.
    WithDev { modules: PathBuf, key: Key, cache: PathBuf },
}

impl Installer<'_> {
    /// Installs what the app depends on, if it is not there from the last build, and runs the app's own scripts that belong to it.
    pub(super) fn install(&self) -> Result<Installed, PackError> {
        let Self { build, manifest, manager, .. } = *self;
        // By npm: others refuse to run scripts of an app that is not installed yet.
        let first = Node { runner: "npm", ..self.node.clone() };
        run_scripts(&first, build.app(), &manifest.scripts_before_install())?;
        if !manifest.has_dependencies() && !is_pnpm_workspace(build.app())? {
            return Ok(Installed::Nothing);
        }
        if manager.lock.is_none() {
            let program = manager.kind.program();
            output::warning(&format!(
                "there is no lock file, so every install may bring other versions. Run `{program} install` and commit the file that it writes."
            ));
        }
        if is_plug_and_play(build.app(), manager)? || self.refers_to_own_files()? {
            return self.install_in_app();
        }
        // Asked for in every build, or one that installs nothing would lose it.
        let cache = build.kept_cache(cache_name(manager.kind), "cache 1")?;
        let scripts = manifest.scripts_after_install();
        let is_script_run = !scripts.is_empty() || !manifest.scripts_of_a_build().is_empty();
        let with_dev = manifest.has_dev_dependencies() && (is_script_run || self.keeps_dev);
        let is_separate = with_dev && !self.keeps_dev;
        let whom = if with_dev { For::Build } else { For::Production };
        let key = self.key()?.with("whether devDependencies are needed", &[u8::from(with_dev)]);
        let used = if is_separate { Use::Cache } else { Use::LaunchBuildCache };
        // No folder above modules may be called node_modules: Node.js would not look into it.
        let layer = build.layer("dependencies", used, key.clone())?;
        if layer.is_kept {
            output::heading("Using dependencies from the last build (nothing they depend on has changed)");
        } else {
            self.prepare(&layer.path())?;
            self.run_install(&layer.path(), whom, &cache)?;
            layer.bill(&installed::bill(&layer.path()))?;
            layer.finish()?;
        }
        self.use_modules(&layer.path())?;
        run_scripts(self.node, build.app(), &scripts)?;
        Ok(if is_separate { Installed::WithDev { modules: layer.path(), key, cache } } else { Installed::InImage })
    }

    /// Takes out what only builds need, now that the scripts of the build have run. A site needs nothing of it: it is files.
    pub(super) fn leave_only_production(&self, installed: &Installed, is_site: bool) -> Result<(), PackError> {
        let app = self.build.app();
        match installed {
            Installed::InApp { cache } => {
                let words = commands::prune(self.manager, app);
                if let Some(words) = words.filter(|_| self.manifest.has_dev_dependencies() && !self.keeps_dev) {
                    self.prune(app, &words, cache)?;
                }
                self.build.bill(installed::bill(app));
                Ok(())
            }
            Installed::Nothing | Installed::InImage => Ok(()),
            Installed::WithDev { .. } if is_site => files::remove(&app.join(MODULES)),
            Installed::WithDev { modules, key, cache } => {
                let layer = self.build.layer("production-dependencies", Use::LaunchCache, key.clone())?;
                if !layer.is_kept {
                    self.install_production(modules, &layer.path(), cache)?;
                    layer.bill(&installed::bill(&layer.path()))?;
                    layer.finish()?;
                }
                copy_generated(&modules.join(MODULES), &layer.path().join(MODULES))?;
                self.warn_of_missing_start(modules, &layer.path());
                self.use_modules(&layer.path())
            }
        }
    }

    /// A start script whose program goes with the `devDependencies` fails in every dyno, and only there.
    fn warn_of_missing_start(&self, with_dev: &Path, production: &Path) {
        let Some(program) =
            self.manifest.script("start").and_then(|line| super::without_settings(line).split_whitespace().next())
        else {
            return;
        };
        let has = |folder: &Path| folder.join(super::PROGRAMS).join(program).exists();
        if has(with_dev) && !has(production) {
            output::warning(&format!(
                "the start script runs `{program}`, which is in devDependencies, and those are not in the image. Start the app with what was built (for instance in a Procfile), or move the package to dependencies."
            ));
        }
    }

    /// npm leaves what is installed where it is and removes the rest; others are quicker with a new folder.
    fn install_production(&self, modules: &Path, folder: &Path, cache: &Path) -> Result<(), PackError> {
        match self.manager.kind {
            Kind::Npm => {
                copy(modules, &["--reflink=auto", "--no-target-directory"], folder)?;
                let words = commands::prune(self.manager, self.build.app()).unwrap_or_default();
                self.prune(folder, &words, cache)
            }
            Kind::Berry if !commands::can_focus(self.build.app()) => {
                output::warning(
                    "this Yarn cannot install without devDependencies, so they stay. Run `yarn plugin import workspace-tools`, or use Yarn 4.",
                );
                copy(modules, &["--reflink=auto", "--no-target-directory"], folder)
            }
            _ => {
                self.prepare(folder)?;
                self.run_install(folder, For::Production, cache)
            }
        }
    }

    /// Where workspaces and Yarn's plug'n'play belong: in the app itself, anew in every build.
    fn install_in_app(&self) -> Result<Installed, PackError> {
        let Self { build, manager, .. } = *self;
        let app = build.app();
        let cache = if is_plug_and_play(app, manager)? {
            // The app runs with the archives themselves.
            let layer = build.layer("yarn-archives", Use::LaunchBuildCache, self.key()?)?;
            if !layer.is_kept {
                let lock = self.manager.lock.map_or(Ok(None), |name| files::read(app, name))?;
                layer.bill(&installed::bill_of_archives(&lock.unwrap_or_default()))?;
                layer.finish()?;
            }
            // One that was committed is used as it is.
            let own = app.join(".yarn/cache");
            if own.is_dir() { own } else { layer.path() }
        } else {
            build.kept_cache(cache_name(manager.kind), "cache 1")?
        };
        // The app's own scripts are run by the package manager here.
        self.run_install(app, For::Build, &cache)?;
        Ok(Installed::InApp { cache })
    }

    fn run_install(&self, folder: &Path, whom: For, cache: &Path) -> Result<(), PackError> {
        let (program, words) = (self.manager.kind.program(), commands::install(self.manager, whom));
        let what = if whom == For::Build { "dependencies" } else { "dependencies of production" };
        output::heading(&format!("Installing {what} with {program}"));
        let shown = format!("{program} {}", words[..words.len().min(2)].join(" "));
        let lock_file = self.manager.lock;
        let explain =
            |status, _: &str| Some(PackError::NodeDependencies { command: shown, status, program, lock_file });
        let run = self.node.run(folder, program, &words);
        let run = commands::with_cache(run, self.manager.kind, cache);
        let Some(lock_file) = lock_file.filter(|_| self.manager.kind == Kind::Npm) else {
            return run.show_or_fail(explain);
        };
        let locked = Locked::of(&files::read(self.build.app(), lock_file)?.unwrap_or_default());
        locked.fill(cache, &self.build.downloads())?;
        run.show_or_fail(explain)?;
        locked.offer(cache, &self.build.downloads())
    }

    fn prune(&self, folder: &Path, words: &[&str], cache: &Path) -> Result<(), PackError> {
        output::heading("Removing dependencies that only the build needs");
        let run = self.node.run(folder, self.manager.kind.program(), words);
        commands::with_cache(run, self.manager.kind, cache).show()
    }

    /// Whether what is installed is in part the app's own folders (workspaces, `file:`): then it cannot be kept apart from them.
    fn refers_to_own_files(&self) -> Result<bool, PackError> {
        let app = self.build.app();
        let locked = match (self.manager.kind, self.manager.lock) {
            (Kind::Npm, Some(name)) => files::read(app, name)?.unwrap_or_default(),
            _ => String::new(),
        };
        let is_own = |text: &String| ["\"file:", "\"link:", "\"portal:"].iter().any(|scheme| text.contains(scheme));
        Ok([self.manifest.only_dependencies(), locked].iter().any(is_own)
            || self.manifest.has_workspaces()
            || is_pnpm_workspace(app)?)
    }

    fn key(&self) -> Result<Key, PackError> {
        let app = self.build.app();
        let key = Key::new("node_modules 1")
            .with("the version of Node.js", self.node.version.as_bytes())
            .with("the package manager", format!("{:?} {:?}", self.manager.kind, self.manager.source).as_bytes())
            .with("dependencies in package.json", self.manifest.only_dependencies().as_bytes())
            .with_files(app, commands::SETTINGS)
            .with_files(app, self.manager.lock);
        let folders = commands::FOLDERS.into_iter().filter(|name| app.join(name).is_dir());
        folders.into_iter().try_fold(key, |key, name| key.with_tree(name, &app.join(name)))
    }

    /// Puts into `folder` what the package manager needs to install there what it would install in the app, without the app's
    /// own scripts.
    fn prepare(&self, folder: &Path) -> Result<(), PackError> {
        let app = self.build.app();
        fs::write(folder.join(MANIFEST), self.manifest.only_dependencies()).map_err(files::failed("write", folder))?;
        for name in commands::SETTINGS.into_iter().chain(self.manager.lock).filter(|name| app.join(name).is_file()) {
            fs::copy(app.join(name), folder.join(name)).map_err(files::failed("copy", &app.join(name)))?;
        }
        for name in commands::FOLDERS.into_iter().filter(|name| app.join(name).is_dir()) {
            let target = folder.join(name);
            fs::create_dir_all(&target).map_err(files::failed("make", &target))?;
            copy(&app.join(name), &["--no-target-directory"], &target)?;
        }
        Ok(())
    }

    /// Makes the app use what is installed in `layer`.
    fn use_modules(&self, layer: &Path) -> Result<(), PackError> {
        files::link(&layer.join(MODULES), &self.build.app().join(MODULES))
    }
}

/// Whether the app has packages of its own; the file may also be there for settings alone.
fn is_pnpm_workspace(app: &Path) -> Result<bool, PackError> {
    let text = files::read(app, "pnpm-workspace.yaml")?.unwrap_or_default();
    Ok(text.lines().any(|line| line.starts_with("packages:")))
}

/// Whether the app's Yarn leaves packages in their archives: it does unless told otherwise.
fn is_plug_and_play(app: &Path, manager: &Manager) -> Result<bool, PackError> {
    if manager.kind != Kind::Berry {
        return Ok(false);
    }
    let settings = files::read(app, ".yarnrc.yml")?.unwrap_or_default();
    let linker = settings.lines().find_map(|line| line.strip_prefix("nodeLinker:"));
    Ok(linker.is_none_or(|linker| linker.trim().trim_matches(['"', '\'']) == "pnp"))
}

fn cache_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Npm => "npm-cache",
        Kind::Yarn | Kind::Berry => "yarn-cache",
        Kind::Pnpm => "pnpm-store",
        Kind::Bun => "bun-cache",
    }
}

/// Copies what the app's scripts generated into `node_modules` (a database client, for one): tools that do so keep it in a
/// hidden folder, which package managers leave alone. pnpm has such folders one level down.
fn copy_generated(from: &Path, to: &Path) -> Result<(), PackError> {
    for entry in fs::read_dir(from).map_err(files::failed("read", from))?.flatten() {
        let name = entry.file_name();
        let managers_own = [".bin", ".cache", ".pnpm", ".store", ".modules"];
        let is_generated = name.to_string_lossy().starts_with('.')
            && !managers_own.iter().any(|own| name == *own)
            && entry.path().is_dir();
        if is_generated {
            files::remove(&to.join(&name))?;
            copy(&entry.path(), &[], to)?;
        }
    }
    let Ok(stored) = fs::read_dir(from.join(".pnpm")) else { return Ok(()) };
    for package in stored.flatten().map(|entry| entry.file_name()) {
        let inside = Path::new(".pnpm").join(package).join(MODULES);
        if from.join(&inside).join(GENERATED).is_dir() && to.join(&inside).is_dir() {
            files::remove(&to.join(&inside).join(GENERATED))?;
            copy(&from.join(&inside).join(GENERATED), &[], &to.join(&inside))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, options: &[&str], to: &Path) -> Result<(), PackError> {
    let options = options.iter().map(Path::new);
    let arguments = [Path::new("--archive")].into_iter().chain(options).chain([from, to]);
    Run::new(to, "cp", arguments).quiet_or_fail(|_, _| None)
}
