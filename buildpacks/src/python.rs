//! Python: apps that list what they depend on, for pip, poetry, uv or pipenv.
//!
//! Dependencies live in a virtual environment that is a layer, made anew only when what they are named by changes.

use std::path::Path;

use libcnb::data::launch::Process;

use crate::command::Run;
use crate::error::PackError;
use crate::output;
use crate::pack::{self, Build, Language, Layer};
use crate::{concurrency, files};

mod install;
mod manager;
mod requirements;
mod start;
mod version;

use manager::Manager;

pub(crate) struct Python;

impl Language for Python {
    fn detect(&self, app: &Path) -> Result<(), String> {
        manager::detect(app)
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let python = version::choose(build)?;
        // It may make the list.
        run_hook(app, "pre_compile", None)?;
        let manager = Manager::choose(app)?;
        let environment = install::install(build, &python, manager)?;
        set_launch_defaults(&environment)?;
        build.launch_layer("env")?.launch_script("web-concurrency", &concurrency::for_python())?;
        collect_static(app, &environment)?;
        run_hook(app, "post_compile", Some(&environment))?;
        default_processes(app, &environment)
    }
}

/// Heroku does not guess how a Python app starts. railpack does, so a Procfile is only missed where there is doubt.
fn default_processes(app: &Path, environment: &Layer) -> Result<Vec<Process>, PackError> {
    if app.join("Procfile").is_file() {
        return Ok(Vec::new());
    }
    let is_installed = |package: &str| is_installed(environment, package);
    match start::guess(app, is_installed)? {
        Some(guess) if is_installed(guess.server) => {
            output::heading(&format!("There is no Procfile; web is: {}", guess.line));
            return Ok(vec![pack::shell_process("web", &guess.line)?]);
        }
        Some(guess) => output::warning(&format!(
            "there is no Procfile, so nothing starts. Add {} to the app's dependencies, and web will be: {}",
            guess.server, guess.line
        )),
        None => output::warning(
            "there is no Procfile, so nothing starts. Say in it what does, for instance: web: gunicorn app:app --bind 0.0.0.0:$PORT",
        ),
    }
    Ok(Vec::new())
}

fn is_installed(environment: &Layer, package: &str) -> bool {
    std::fs::read_dir(environment.path().join("lib"))
        .is_ok_and(|folders| folders.flatten().any(|folder| folder.path().join("site-packages").join(package).is_dir()))
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
    if is_off || !is_installed(environment, "django") || !app.join("manage.py").is_file() {
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
fn run_hook(app: &Path, name: &str, environment: Option<&Layer>) -> Result<(), PackError> {
    let hook = Path::new("bin").join(name);
    if !app.join(&hook).is_file() {
        return Ok(());
    }
    output::heading(&format!("Running bin/{name}"));
    let mut run = Run::new(app, "bash", [&hook]);
    if let Some(environment) = environment {
        run = run.path(&environment.path().join("bin")).env("VIRTUAL_ENV", environment.path());
    }
    run.show()
}
