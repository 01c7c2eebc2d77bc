//! Every text that a user reads when a buildpack gives up: what happened, and what to do.

use std::process::ExitStatus;

/// Why a build stops.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    #[error("Cannot {action} {path}: {source}")]
    File { action: &'static str, path: String, source: std::io::Error },

    #[error("{file} is not text in UTF-8.\n\nSave it as UTF-8 and commit it again.")]
    NotText { file: String },

    #[error("{file} cannot be understood:\n\n{reason}")]
    Malformed { file: &'static str, reason: String },

    #[error("`{command}` cannot be started: {source}")]
    Start { command: String, source: std::io::Error },

    #[error("`{command}` failed with {}.", describe(*status))]
    Command { command: String, status: ExitStatus },

    #[error("The buildpack made a mistake of its own ({0}).\n\nThis is a bug of the platform; please report it.")]
    Internal(String),

    // Procfile
    #[error(
        "Line {number} of the Procfile, `{line}`, cannot be understood: {reason}.\n\nA line looks like this: web: node server.js"
    )]
    ProcfileLine { number: usize, line: String, reason: &'static str },

    #[error(
        "The Procfile declares nothing.\n\nSay in it how to start the app, one line a process type: web: node server.js\nOr remove it, if the app's language knows how to start it."
    )]
    ProcfileEmpty,

    // Node.js
    #[error(
        "There is more than one lock file: {}.\n\nThey may disagree about versions. Keep the one of the package manager you use, `git rm` the others, and commit.",
        files.join(", ")
    )]
    LockFiles { files: Vec<&'static str> },

    #[error(
        "package.json says that this app uses {declared}, and {lock_file} is a lock file of {locked}'s.\n\nEither\n- run `{declared} install` on your machine, `git rm {lock_file}`, and commit the lock file of {declared}; or\n- remove what names {declared} (packageManager, engines.{declared}, yarnPath), if {locked} it is."
    )]
    NodeManagers { declared: &'static str, locked: &'static str, lock_file: &'static str },

    #[error(
        "`packageManager` in package.json is `{written}`, which is no package manager that the platform knows.\n\nIt should be npm, yarn, pnpm or bun with a version: \"packageManager\": \"pnpm@10.2.0\"."
    )]
    NodePackageManager { written: String },

    #[error(
        "There is no version of {what} that fits `{requested}`.\n\n{file} asks for it. Ask for a version that can be had, and push again: {available}"
    )]
    NoSuchVersion { what: &'static str, requested: String, file: &'static str, available: String },

    #[error(
        "Dependencies could not be installed: `{command}` failed with {}.\n\nIts output above says why.{}",
        describe(*status),
        lock_file.map(|name| format!(" If package.json and {name} disagree, run `{program} install` on your machine and commit {name}.")).unwrap_or_default()
    )]
    NodeDependencies { command: String, status: ExitStatus, program: &'static str, lock_file: Option<&'static str> },

    #[error("The script `{script}` of package.json failed with {}.\n\nIts output above says why.", describe(*status))]
    NodeScript { script: String, status: ExitStatus },

    // Python
    #[error(
        "Python {requested} is not available: this stack ({stack}) has Python {available}, and `uv python install {requested}` could not get another; its output above says why.\n\n{file} asks for it. Either\n- change {file} to {available} and push again, or\n- let this machine download Python {requested}, or name a mirror of uv's Pythons that it can reach: `platform config:set UV_PYTHON_INSTALL_MIRROR=…`."
    )]
    PythonVersion { requested: String, available: String, file: &'static str, stack: String },

    #[error("{file} does not name a Python version: `{content}`.\n\nIt should be nothing but a version: {available}")]
    PythonVersionFile { file: &'static str, content: String, available: String },

    #[error(
        "There is no requirements.txt; dependencies are declared in {declared}, and the Python buildpack installs with pip.\n\nRun `{remedy}` on your machine and commit requirements.txt."
    )]
    PythonRequirements { declared: &'static str, remedy: &'static str },

    #[error(
        "There is no list of dependencies.\n\nList them in requirements.txt, one package a line, and commit it. An empty file is fine for an app that needs none."
    )]
    PythonNoDependencies,

    #[error("Python dependencies could not be installed: `{command}` failed with {}.\n\nIts output above says why.", describe(*status))]
    PythonDependencies { command: String, status: ExitStatus },

    #[error(
        "Django's static files could not be collected: `{command}` failed with {}.\n\nIts output above says why; often it is a setting that only exists at run time. Set what it needs with `platform config:set`, or, if the app needs no collectstatic, `platform config:set DISABLE_COLLECTSTATIC=1`.",
        describe(*status)
    )]
    Collectstatic { command: String, status: ExitStatus },

    // Go
    #[error("go.mod names no usable Go version: `{line}`.\n\nIt should look like this: go 1.24")]
    GoVersion { line: String },

    #[error(
        "There is no main package in this module, so nothing could be started.\n\nA program is a folder with `package main`; name others than ./... with a comment in go.mod: // +heroku install ./cmd/..."
    )]
    GoNoMain,

    #[error(
        "The app's modules could not be downloaded: `{command}` failed with {}.\n\nIts output above says why. If the module proxy cannot be reached from this machine, either\n- name one that can: set GOPROXY where the platform is started, or `platform config:set GOPROXY=…` for this app; or\n- bring the modules along: run `go mod vendor` on your machine and commit vendor/.",
        describe(*status)
    )]
    GoModules { command: String, status: ExitStatus },

    #[error("The app did not compile: `{command}` failed with {}.\n\nIts output above says why.", describe(*status))]
    GoCompile { command: String, status: ExitStatus },

    // Static files
    #[error(
        "The folder `{root}`, whose files are to be served, does not exist.\n\n{file} names it; correct it there, or commit the folder."
    )]
    StaticRoot { root: String, file: &'static str },

    #[error("static.json: `{key}` may not contain `{character}`: {value}")]
    StaticCharacter { key: &'static str, value: String, character: char },
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "signal 9 (SIGKILL); the build may have run out of memory".to_owned(),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_texts() {
        let status = ExitStatus::from_raw(0x0100);
        let command = "npm ci".to_owned();
        let errors = [
            PackError::NotText { file: "Procfile".to_owned() },
            PackError::Malformed { file: "package.json", reason: "expected `,` at line 3 column 5".to_owned() },
            PackError::Command { command: command.clone(), status: ExitStatus::from_raw(9) },
            PackError::ProcfileLine { number: 2, line: "web".to_owned(), reason: "there is no colon after the name" },
            PackError::ProcfileEmpty,
            PackError::LockFiles { files: vec!["package-lock.json", "yarn.lock"] },
            PackError::NodeManagers { declared: "pnpm", locked: "npm", lock_file: "package-lock.json" },
            PackError::NodePackageManager { written: "ied@1".to_owned() },
            PackError::NoSuchVersion {
                what: "Node.js",
                requested: "99.x".to_owned(),
                file: "package.json (engines.node)",
                available: "22.23.3, 24.21.0, 26.10.0".to_owned(),
            },
            PackError::NodeDependencies {
                command: command.clone(),
                status,
                program: "npm",
                lock_file: Some("package-lock.json"),
            },
            PackError::NodeDependencies { command, status, program: "npm", lock_file: None },
            PackError::NodeScript { script: "build".to_owned(), status },
            PackError::PythonVersion {
                requested: "3.14".to_owned(),
                available: "3.13".to_owned(),
                file: ".python-version",
                stack: "debian-13".to_owned(),
            },
            PackError::PythonVersionFile {
                file: ".python-version",
                content: "latest".to_owned(),
                available: "3.13".to_owned(),
            },
            PackError::PythonRequirements { declared: "Pipfile", remedy: "pipenv requirements > requirements.txt" },
            PackError::PythonNoDependencies,
            PackError::PythonDependencies { command: "pip install -r requirements.txt".to_owned(), status },
            PackError::Collectstatic { command: "python manage.py collectstatic --noinput".to_owned(), status },
            PackError::GoVersion { line: "go one".to_owned() },
            PackError::GoNoMain,
            PackError::GoModules { command: "go mod download".to_owned(), status },
            PackError::GoCompile { command: "go build".to_owned(), status },
            PackError::StaticRoot { root: "dist".to_owned(), file: "static.json" },
            PackError::StaticCharacter { key: "routes", value: "/{a}".to_owned(), character: '{' },
        ];
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(all.join("\n\n----\n\n"));
    }
}
