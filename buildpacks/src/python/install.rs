//! The app's dependencies, in a virtual environment that is a layer.

use std::path::{Path, PathBuf};

use super::manager::Manager;
use super::requirements;
use super::version::Interpreter;
use crate::bill::{Bill, Registry};
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{Build, Layer, Use};

const LAYER: &str = "venv";
/// A mirror of pypi.org for Poetry.
const MIRROR: &str = "POETRY_PYPI_MIRROR_URL";

/// The virtual environment with everything that the app's list names.
pub(super) fn install(build: &Build, python: &Interpreter, manager: Manager) -> Result<Layer, PackError> {
    // Asked for in every build, or one that installs nothing would lose them.
    let cache = build.kept_cache(cache_name(manager), "cache 1")?;
    let tool = tool(build, manager)?;
    let layer =
        build.layer(LAYER, Use::LaunchBuildCache, key(build.app(), manager, &python.version, &build.stack())?)?;
    if layer.is_kept {
        output::heading("Using dependencies from the last build (nothing they depend on has changed)");
        return Ok(layer);
    }
    output::heading(&format!("Installing dependencies with {}", manager.program()));
    let venv = layer.path();
    // The stack's pip installs into it; one of its own would take longer to set up than most apps' dependencies.
    make_environment(build.app(), &python.program, &venv)?;
    let run = match &tool {
        None => pip(build.app(), &venv, &["install", "--progress-bar", "off", "--requirement", Manager::Pip.lock()]),
        Some(tool) => {
            let no_root = (manager == Manager::Poetry && !has_package(build.app())?).then_some("--no-root");
            Run::new(build.app(), &tool.to_string_lossy(), words(manager).iter().copied().chain(no_root))
        }
    };
    let shown = match manager {
        Manager::Pip => format!("pip install -r {}", Manager::Pip.lock()),
        _ => format!("{} {}", manager.program(), words(manager).join(" ")),
    };
    let explain = |status, said: &str| {
        let (lock_file, program) = (manager.lock(), manager.program());
        let failed = PackError::PythonDependencies { command: shown, status, lock_file, program };
        let compile = |package| PackError::PythonCompile { package, python: python.version.clone() };
        Some(not_compiled(said).map_or(failed, compile))
    };
    with_environment(run, manager, &venv, &python.program, &cache).show_or_fail(explain)?;
    layer.bill(&bill(&venv).with_runtime("python", &python.version))?;
    layer.finish()?;
    Ok(layer)
}

/// What is installed, by the names of the folders in which every installer keeps its record (Python's "Recording installed projects").
fn bill(venv: &Path) -> Bill {
    let lib = venv.join("lib");
    let folders =
        files::names(&lib).into_iter().flat_map(|python| files::names(&lib.join(python).join("site-packages")));
    let record = |folder: String| {
        let (name, version) = folder.strip_suffix(".dist-info")?.rsplit_once('-')?;
        Some((name.to_lowercase().replace(['_', '.'], "-"), version.to_owned()))
    };
    Bill::of(Registry::Pypi, folders.filter_map(record))
}

/// The package that could not be compiled, as pip and uv say it.
fn not_compiled(said: &str) -> Option<String> {
    let signs = ["Failed building wheel for ", "Failed to build `", "Unable to build wheel for "];
    let package = signs.iter().find_map(|sign| Some(said.split_once(sign)?.1))?;
    let name = package.split(|character: char| !(character.is_alphanumeric() || "-_.[]".contains(character))).next()?;
    let name = name.split("==").next()?.trim_end_matches('.');
    (!name.is_empty()).then(|| name.to_owned())
}

/// What installs all that the app needs to run, and fails if the lock file is not up to date.
fn words(manager: Manager) -> &'static [&'static str] {
    match manager {
        Manager::Pip => &[],
        Manager::Poetry => &["sync", "--only", "main", "--no-interaction"],
        Manager::Uv => &["sync", "--locked", "--no-default-groups", "--no-progress"],
        Manager::Pipenv => &["install", "--deploy"],
    }
}

/// Whether the app is itself a package: Poetry, asked to install one that is none, gives up.
fn has_package(app: &Path) -> Result<bool, PackError> {
    const FILE: &str = "pyproject.toml";
    let text = files::read(app, FILE)?.unwrap_or_default();
    let project: toml::Value =
        toml::from_str(&text).map_err(|error| PackError::Malformed { file: FILE, reason: error.to_string() })?;
    let poetry = project.get("tool").and_then(|tool| tool.get("poetry"));
    let of = |table: Option<&toml::Value>| Some(table?.get("name")?.as_str()?.replace(['-', '.'], "_"));
    let Some(name) = of(project.get("project")).or_else(|| of(poetry)) else { return Ok(false) };
    let is_named = poetry.is_some_and(|poetry| poetry.get("packages").is_some());
    Ok(is_named
        || [name.clone(), format!("src/{name}"), format!("{name}.py")].iter().any(|path| app.join(path).exists()))
}

fn with_environment(run: Run, manager: Manager, venv: &Path, python: &Path, cache: &Path) -> Run {
    let run = run.path(&venv.join("bin")).env("VIRTUAL_ENV", venv);
    match manager {
        Manager::Pip => run.env("PIP_CACHE_DIR", cache),
        Manager::Poetry => run.env("POETRY_VIRTUALENVS_CREATE", "false").env("POETRY_CACHE_DIR", cache),
        Manager::Uv => run
            .env("UV_PROJECT_ENVIRONMENT", venv)
            .env("UV_CACHE_DIR", cache)
            .env("UV_PYTHON", python)
            .env("UV_PYTHON_DOWNLOADS", "never")
            .env("UV_COMPILE_BYTECODE", "1")
            // The cache is another layer, so links into it would be copies all the same.
            .env("UV_LINK_MODE", "copy"),
        Manager::Pipenv => run
            .env("PIPENV_VERBOSITY", "-1")
            .env("PIPENV_NOSPIN", "1")
            .env("PIPENV_CACHE_DIR", cache)
            .env("PIP_CACHE_DIR", cache),
    }
}

/// The program of a package manager that the stack does not have.
fn tool(build: &Build, manager: Manager) -> Result<Option<PathBuf>, PackError> {
    if manager == Manager::Pip { Ok(None) } else { installed(build, manager.program()).map(Some) }
}

/// A program from the Python package index, in a layer of its own.
pub(super) fn installed(build: &Build, program: &'static str) -> Result<PathBuf, PackError> {
    let packages: Vec<&str> = std::iter::once(program).chain(plugin(program)).collect();
    let key = Key::new("tool 1").with("the stack", build.stack().as_bytes());
    let key = if packages.len() > 1 { key.with("the mirror", packages.join(" ").as_bytes()) } else { key };
    let layer = build.layer(program, Use::Cache, key)?;
    if !layer.is_kept {
        output::heading(&format!("Installing {}", packages.join(" and ")));
        make_environment(build.app(), Path::new("python3"), &layer.path())?;
        let words = ["install", "--quiet"].into_iter().chain(packages).collect::<Vec<_>>();
        pip(build.app(), &layer.path(), &words).quiet_or_fail(|_, _| None)?;
        layer.finish()?;
    }
    Ok(layer.path().join("bin").join(program))
}

/// Poetry asks pypi.org for files in a way that no mirror knows; with this, which reads that variable, in the way that all do.
fn plugin(program: &str) -> Option<&'static str> {
    let has_mirror = std::env::var(MIRROR).is_ok_and(|mirror| !mirror.is_empty());
    (program == Manager::Poetry.program() && has_mirror).then_some("poetry-plugin-pypi-mirror")
}

fn make_environment(app: &Path, python: &Path, folder: &Path) -> Result<(), PackError> {
    let arguments = [Path::new("-m"), Path::new("venv"), Path::new("--without-pip"), folder];
    Run::new(app, &python.to_string_lossy(), arguments).quiet_or_fail(|_, _| None)
}

/// The stack's pip, on a virtual environment.
fn pip(app: &Path, venv: &Path, arguments: &[&str]) -> Run {
    let start = ["-m", "pip", "--disable-pip-version-check", "--no-input", "--python"].map(Path::new).into_iter();
    let python = venv.join("bin/python");
    // By its full name: the virtual environment's python3 comes first on the PATH.
    Run::new(app, "/usr/bin/python3", start.chain([python.as_path()]).chain(arguments.iter().map(Path::new)))
}

fn cache_name(manager: Manager) -> &'static str {
    match manager {
        Manager::Pip => "pip-cache",
        Manager::Poetry => "poetry-cache",
        Manager::Uv => "uv-cache",
        Manager::Pipenv => "pipenv-cache",
    }
}

/// Changes with all that decides what is installed: the files that requirements.txt names included, and the whole app if
/// something of it is itself installed.
fn key(app: &Path, manager: Manager, version: &str, stack: &str) -> Result<Key, PackError> {
    let key = Key::new(&format!("{} 1", manager.program()))
        .with("the Python version", version.as_bytes())
        .with("the stack", stack.as_bytes());
    let (key, is_local) = if manager == Manager::Pip {
        let found = requirements::read(app, manager.lock())?;
        (key.with_files(app, found.files.iter().map(String::as_str)), found.is_local)
    } else {
        let lock = files::read(app, manager.lock())?.unwrap_or_default();
        // What is installed as a link (`editable`) does not change with the app.
        let signs = ["directory = \"", "type = \"directory\"", "path = \"."];
        let key = key.with_files(app, [manager.lock(), "pyproject.toml", "uv.toml", "poetry.toml"]);
        (key, signs.iter().any(|sign| lock.contains(sign)))
    };
    if is_local { key.with_tree("the app, which is itself installed,", app) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_changes_with_requirements_and_with_the_app_only_if_that_is_installed_too() {
        let app = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(app.path().join(name), text).unwrap();
        let key = |manager| key(app.path(), manager, "3.13", "debian-13").unwrap();
        write("requirements.txt", "-r base.txt\n");
        write("base.txt", "flask==3.1.0\n");
        write("app.py", "1");
        let first = key(Manager::Pip);
        write("app.py", "2");
        assert_eq!(key(Manager::Pip), first);
        write("base.txt", "flask==3.1.1\n");
        assert_eq!(key(Manager::Pip).change_since(&first).unwrap(), "base.txt changed");
        write("requirements.txt", "-e .\n");
        let local = key(Manager::Pip);
        write("app.py", "3");
        assert_ne!(key(Manager::Pip), local);
    }

    #[test]
    fn what_is_installed_is_told_by_its_records() {
        let venv = tempfile::tempdir().unwrap();
        for folder in ["Flask_Login-0.6.3.dist-info", "zope.interface-7.2.dist-info", "flask_login", "x.egg-link"] {
            std::fs::create_dir_all(venv.path().join("lib/python3.13/site-packages").join(folder)).unwrap();
        }
        let expected = [("flask-login", "0.6.3"), ("zope-interface", "7.2")];
        let expected = expected.map(|(name, version)| (name.to_owned(), version.to_owned()));
        assert_eq!(bill(venv.path()), Bill::of(Registry::Pypi, expected));
    }

    #[test]
    fn what_could_not_be_compiled_is_named() {
        for (said, expected) in [
            (
                "x\n  ERROR: Failed building wheel for psycopg2-binary\nFailed to build psycopg2-binary",
                Some("psycopg2-binary"),
            ),
            ("  × Failed to build `httptools==0.6.1`\n", Some("httptools")),
            ("error: No solution found", None),
        ] {
            assert_eq!(not_compiled(said).as_deref(), expected);
        }
    }

    #[test]
    fn an_app_is_a_package_if_there_is_a_module_of_its_name() {
        let app = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(app.path().join(name), text).unwrap();
        write("pyproject.toml", "[tool.poetry]\nname = \"my-app\"\n");
        assert!(!has_package(app.path()).unwrap());
        write("my_app.py", "");
        assert!(has_package(app.path()).unwrap());
        write("pyproject.toml", "[project]\nname = \"other\"\n[tool.poetry]\npackages = []\n");
        assert!(has_package(app.path()).unwrap());
        write("pyproject.toml", "[project");
        assert!(matches!(has_package(app.path()), Err(PackError::Malformed { .. })));
    }

    #[test]
    fn the_key_of_a_lock_file_changes_with_it() {
        let app = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(app.path().join(name), text).unwrap();
        let key = || key(app.path(), Manager::Uv, "3.13", "debian-13").unwrap();
        write("uv.lock", "source = { editable = \".\" }\n");
        write("app.py", "1");
        let first = key();
        write("app.py", "2");
        assert_eq!(key(), first);
        write("uv.lock", "source = { directory = \"lib\" }\n");
        let local = key();
        assert_eq!(
            local.change_since(&first).unwrap(),
            "the app, which is itself installed, is new and uv.lock changed"
        );
        write("app.py", "3");
        assert_ne!(key(), local);
    }
}
