//! Python: apps with a requirements.txt.
//!
//! Dependencies live in a virtual environment that is a layer, made anew only when what they are named by changes.

use std::path::Path;

use libcnb::data::launch::Process;

use crate::command::Run;
use crate::concurrency;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{Build, Language, Layer, Use};

mod requirements;
mod version;

use version::Interpreter;

pub(crate) struct Python;

const REQUIREMENTS: &str = "requirements.txt";

/// Any of these makes an app a Python app.
const SIGNS: [&str; 8] =
    [REQUIREMENTS, "pyproject.toml", "uv.lock", "poetry.lock", "Pipfile", "Pipfile.lock", "setup.py", "manage.py"];

/// Other ways to declare dependencies, and how to get a requirements.txt from each.
const OTHERS: [(&str, &str); 6] = [
    ("uv.lock", "uv export --no-dev --no-emit-project -o requirements.txt"),
    ("poetry.lock", "poetry export -o requirements.txt"),
    ("Pipfile.lock", "pipenv requirements > requirements.txt"),
    ("Pipfile", "pipenv requirements > requirements.txt"),
    ("pyproject.toml", "pip-compile -o requirements.txt pyproject.toml"),
    ("setup.py", "pip-compile -o requirements.txt setup.py"),
];

impl Language for Python {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if SIGNS.iter().any(|name| app.join(name).is_file()) {
            Ok(())
        } else {
            Err(format!("Python: none of {} at the top of the app", SIGNS.join(", ")))
        }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let python = version::choose(build)?;
        run_hook(app, "pre_compile")?;
        if !app.join(REQUIREMENTS).is_file() {
            return Err(no_requirements(app));
        }
        let environment = install(build, &python)?;
        set_launch_defaults(&environment)?;
        build.launch_layer("env")?.launch_script("web-concurrency", &concurrency::for_python())?;
        collect_static(app, &environment)?;
        run_hook(app, "post_compile")?;
        if !app.join("Procfile").is_file() {
            // As on Heroku, there is no guess at how a Python app starts.
            output::warning(
                "there is no Procfile, so nothing starts. Say in it what does: web: gunicorn app:app --bind 0.0.0.0:$PORT",
            );
        }
        Ok(Vec::new())
    }
}

fn no_requirements(app: &Path) -> PackError {
    match OTHERS.into_iter().find(|(name, _)| app.join(name).is_file()) {
        Some((declared, remedy)) => PackError::PythonRequirements { declared, remedy },
        None => PackError::PythonNoDependencies,
    }
}

/// The virtual environment with everything in requirements.txt.
fn install(build: &Build, python: &Interpreter) -> Result<Layer, PackError> {
    let app = build.app();
    let key = key(app, &python.version, &build.stack())?;
    // Asked for in every build, or one that installs nothing would lose it.
    let cache = build.kept_cache("pip-cache", "pip 1")?;
    let layer = build.layer("venv", Use::LaunchBuildCache, key)?;
    if layer.is_kept {
        output::heading("Using dependencies from the last build (nothing they depend on has changed)");
        return Ok(layer);
    }
    output::heading("Installing dependencies with pip");
    let venv = layer.path();
    // The stack's pip installs into it; one of its own would take longer to set up than most apps' dependencies.
    let arguments = [Path::new("-m"), Path::new("venv"), Path::new("--without-pip"), &venv];
    Run::new(app, &python.program.to_string_lossy(), arguments).quiet_or_fail(|_, _| None)?;
    let python = venv.join("bin/python");
    let pip = ["-m", "pip", "--disable-pip-version-check", "--no-input", "--python"].map(Path::new).into_iter();
    let rest = ["install", "--progress-bar", "off", "--requirement", REQUIREMENTS].map(Path::new);
    let explain = |status, _: &str| {
        Some(PackError::PythonDependencies { command: format!("pip install -r {REQUIREMENTS}"), status })
    };
    Run::new(app, "python3", pip.chain([python.as_path()]).chain(rest))
        .env("PIP_CACHE_DIR", cache)
        .show_or_fail(explain)?;
    layer.finish()?;
    Ok(layer)
}

/// Changes with all that decides what is installed: the files that requirements.txt names included, and the whole app if
/// something of it is itself installed.
fn key(app: &Path, version: &str, stack: &str) -> Result<Key, PackError> {
    let found = requirements::read(app, REQUIREMENTS)?;
    let key = Key::new("pip 1").with("the Python version", version.as_bytes()).with("the stack", stack.as_bytes());
    let key = key.with_files(app, found.files.iter().map(String::as_str));
    if found.is_local { key.with_tree("the app, which is itself installed,", app) } else { Ok(key) }
}

fn set_launch_defaults(environment: &Layer) -> Result<(), PackError> {
    let venv = environment.path();
    environment.launch_defaults(&[
        ("VIRTUAL_ENV", &venv.to_string_lossy()),
        ("PYTHONUNBUFFERED", "1"),
        ("PYTHONPATH", "/app"),
        ("PYTHONHASHSEED", "random"),
        ("LANG", "C.UTF-8"),
    ])
}

/// Django's static files, as Heroku collects them: if the app is a Django app that knows how.
fn collect_static(app: &Path, environment: &Layer) -> Result<(), PackError> {
    let is_off = std::env::var("DISABLE_COLLECTSTATIC").is_ok_and(|value| !value.is_empty() && value != "0");
    let has_django = std::fs::read_dir(environment.path().join("lib"))
        .is_ok_and(|folders| folders.flatten().any(|folder| folder.path().join("site-packages/django").is_dir()));
    let manage = app.join("manage.py");
    if is_off || !has_django || !manage.is_file() {
        return Ok(());
    }
    let django = |arguments: &[&str]| {
        let run = Run::new(app, "python", ["manage.py"].iter().chain(arguments));
        run.path(&environment.path().join("bin")).env("PYTHONUNBUFFERED", "1")
    };
    let text = files::read(app, "manage.py")?.unwrap_or_default();
    if !text.contains("django") {
        return Ok(());
    }
    output::heading("Collecting static files: python manage.py collectstatic --noinput");
    let command = "python manage.py collectstatic --noinput".to_owned();
    let mut is_unknown = false;
    let explain = |status, said: &str| {
        is_unknown =
            said.contains("Unknown command: 'collectstatic'") || said.contains("Unknown command: \"collectstatic\"");
        Some(PackError::Collectstatic { command, status })
    };
    let collected = django(&["collectstatic", "--noinput"]).show_or_fail(explain);
    if is_unknown {
        output::line("The app does not use django.contrib.staticfiles, so there are none.");
        return Ok(());
    }
    collected
}

/// `bin/pre_compile` and `bin/post_compile`: the app's own steps, in Heroku's words.
fn run_hook(app: &Path, name: &str) -> Result<(), PackError> {
    let hook = Path::new("bin").join(name);
    if !app.join(&hook).is_file() {
        return Ok(());
    }
    output::heading(&format!("Running bin/{name}"));
    Run::new(app, "bash", [&hook]).show()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_apps_are_known_by_what_lists_their_dependencies() {
        let app = tempfile::tempdir().unwrap();
        let looked_for = Python.detect(app.path()).unwrap_err();
        assert!(looked_for.contains("requirements.txt") && looked_for.contains("pyproject.toml"), "{looked_for}");
        std::fs::write(app.path().join("uv.lock"), "").unwrap();
        assert_eq!(Python.detect(app.path()), Ok(()));
        let error = no_requirements(app.path()).to_string();
        assert!(error.contains("uv export"), "{error}");
    }

    #[test]
    fn the_key_changes_with_requirements_and_with_the_app_only_if_that_is_installed_too() {
        let app = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(app.path().join(name), text).unwrap();
        let key = || key(app.path(), "3.13", "debian-13").unwrap();
        write("requirements.txt", "-r base.txt\n");
        write("base.txt", "flask==3.1.0\n");
        write("app.py", "1");
        let first = key();
        write("app.py", "2");
        assert_eq!(key(), first);
        write("base.txt", "flask==3.1.1\n");
        assert_ne!(key(), first);
        write("requirements.txt", "-e .\n");
        let local = key();
        write("app.py", "3");
        assert_ne!(key(), local);
    }
}
