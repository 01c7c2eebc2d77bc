//! Which package manager an app uses, by Heroku's rules: exactly one of four files says so.

use std::path::Path;

use crate::error::PackError;

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    Pip,
    Poetry,
    Uv,
    Pipenv,
}

/// The file that lists what is installed, and whose it is.
const LOCKS: [(&str, Manager); 4] = [
    ("requirements.txt", Manager::Pip),
    ("poetry.lock", Manager::Poetry),
    ("uv.lock", Manager::Uv),
    ("Pipfile.lock", Manager::Pipenv),
];

/// Files that list dependencies in a form from which nothing can be installed yet, and what makes the file that can.
const OTHERS: [(&str, &str); 6] = [
    ("Pipfile", "pipenv lock"),
    ("pdm.lock", "pdm export --prod -o requirements.txt"),
    ("environment.yml", "pip freeze > requirements.txt"),
    ("pyproject.toml", "uv lock` (or `poetry lock"),
    ("setup.py", "echo . > requirements.txt"),
    ("setup.cfg", "echo . > requirements.txt"),
];

/// Names that people mean requirements.txt by.
const MISSPELT: [&str; 11] = [
    "requirement.txt",
    "Requirements.txt",
    "requirements.text",
    "requirements.txt.txt",
    "requirements.pip",
    "requirements.in",
    "requirments.txt",
    "requirememts.txt",
    "requirements-txt",
    "Requirement.txt",
    "requirements",
];

/// Without any of the above, these make an app one of Python's, if nothing says how else it starts.
const PROGRAMS: [&str; 6] = ["app.py", "main.py", "server.py", "__init__.py", ".python-version", "runtime.txt"];

/// With one of these, a few Python files do not make the app one of Python's.
const ELSEWHERE: [&str; 8] =
    ["Procfile", "package.json", "go.mod", "Gemfile", "composer.json", "Cargo.toml", "index.html", "static.json"];

impl Manager {
    /// The file that lists what it installs.
    pub(super) fn lock(self) -> &'static str {
        LOCKS.iter().find(|(_, manager)| *manager == self).map_or("", |(name, _)| name)
    }

    /// The program's name, which is its package's too.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Pip => "pip",
            Self::Poetry => "poetry",
            Self::Uv => "uv",
            Self::Pipenv => "pipenv",
        }
    }

    /// The one that `app` uses, or what is wrong and how to mend it.
    pub(super) fn choose(app: &Path) -> Result<Self, PackError> {
        let is_there = |name: &str| app.join(name).is_file();
        let found: Vec<_> = LOCKS.into_iter().filter(|(name, _)| is_there(name)).collect();
        if let [(_, manager)] = found.as_slice() {
            return Ok(*manager);
        }
        if !found.is_empty() {
            return Err(PackError::PythonManagers { files: found.into_iter().map(|(name, _)| name).collect() });
        }
        if let Some(written) = MISSPELT.into_iter().find(|name| is_there(name)) {
            return Err(PackError::PythonMisspelt { written });
        }
        match OTHERS.into_iter().find(|(name, _)| is_there(name)) {
            Some((declared, remedy)) => Err(PackError::PythonNotLocked { declared, remedy }),
            None => Err(PackError::PythonNoDependencies),
        }
    }
}

/// Whether `app` is one of Python's; if not, what was looked for.
pub(super) fn detect(app: &Path) -> Result<(), String> {
    let is_there = |name: &&str| app.join(name).is_file();
    let lists: Vec<&str> = LOCKS
        .iter()
        .map(|(name, _)| *name)
        .chain(OTHERS.iter().map(|(name, _)| *name))
        .filter(|name| *name != "environment.yml" && *name != "setup.cfg")
        .chain(["manage.py"])
        .collect();
    let is_python = lists.iter().any(is_there)
        || (MISSPELT.iter().chain(&PROGRAMS).any(is_there) && !ELSEWHERE.iter().any(is_there));
    if is_python { Ok(()) } else { Err(format!("Python: none of {} at the top of the app", lists.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(files: &[&str]) -> tempfile::TempDir {
        let app = tempfile::tempdir().unwrap();
        for name in files {
            std::fs::write(app.path().join(name), "").unwrap();
        }
        app
    }

    #[test]
    fn apps_are_known_by_what_lists_their_dependencies_and_else_by_their_programs() {
        for (files, expected) in [
            (vec!["requirements.txt"], true),
            (vec!["uv.lock", "package.json"], true),
            (vec!["Pipfile"], true),
            (vec!["pdm.lock"], true),
            (vec!["manage.py"], true),
            (vec!["app.py"], true),
            (vec!["requirement.txt"], true),
            (vec!["app.py", "Procfile"], false),
            (vec!["main.py", "package.json"], false),
            (vec!["index.html"], false),
        ] {
            assert_eq!(detect(app(&files).path()).is_ok(), expected, "{files:?}");
        }
        assert!(detect(app(&[]).path()).unwrap_err().contains("requirements.txt, poetry.lock, uv.lock, Pipfile.lock"));
    }

    #[test]
    fn exactly_one_file_says_who_installs() {
        for (files, expected) in [
            (vec!["requirements.txt", "pyproject.toml"], Manager::Pip),
            (vec!["poetry.lock", "pyproject.toml"], Manager::Poetry),
            (vec!["uv.lock", "pyproject.toml"], Manager::Uv),
            (vec!["Pipfile", "Pipfile.lock", "setup.py"], Manager::Pipenv),
        ] {
            assert_eq!(Manager::choose(app(&files).path()).unwrap(), expected, "{files:?}");
        }
    }

    #[test]
    fn what_is_missing_is_told_with_its_remedy() {
        let said = |files: &[&str]| Manager::choose(app(files).path()).unwrap_err().to_string();
        assert!(said(&["requirements.txt", "uv.lock"]).contains("requirements.txt, uv.lock"));
        assert!(said(&["requirement.txt"]).contains("git mv requirement.txt requirements.txt"));
        assert!(said(&["Pipfile"]).contains("pipenv lock"));
        assert!(said(&["pyproject.toml"]).contains("uv lock"));
        assert!(said(&["app.py"]).starts_with("There is no list of dependencies"));
    }
}
