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

    #[error(
        "The script `{script}` of package.json failed with {}.\n\nIts output above says why.{}",
        describe(*status),
        if script == "build" { " If it is not meant for deploys, name the one that is `heroku-build`: it runs in its place." } else { "" }
    )]
    NodeScript { script: String, status: ExitStatus },

    // Python
    #[error(
        "Python {requested} is not available: this stack ({stack}) has Python {available}, and `uv python install {requested}` could not get another; its output above says why.\n\n{file} asks for it. Either\n- {} and push again, or\n- let this machine download Python {requested}, or name a mirror of uv's Pythons that it can reach: `platform config:set UV_PYTHON_INSTALL_MIRROR=…`.",
        other_python(file, available)
    )]
    PythonVersion { requested: String, available: String, file: &'static str, stack: String },

    #[error("{file} does not name a Python version: `{content}`.\n\nIt should be nothing but a version: {available}")]
    PythonVersionFile { file: &'static str, content: String, available: String },

    #[error(
        "There is more than one list of dependencies: {}.\n\nEach is another package manager's, and they may disagree. Keep the one of the package manager you use, `git rm` the others, and commit.",
        files.join(", ")
    )]
    PythonManagers { files: Vec<&'static str> },

    #[error(
        "There is no requirements.txt, but there is {written}.\n\npip's list has to be called requirements.txt: `git mv {written} requirements.txt`, and commit."
    )]
    PythonMisspelt { written: &'static str },

    #[error(
        "{declared} names dependencies, but nothing says which versions to install.\n\nRun `{remedy}` on your machine and commit the file that it writes: uv.lock, poetry.lock, Pipfile.lock or requirements.txt."
    )]
    PythonNotLocked { declared: &'static str, remedy: &'static str },

    #[error(
        "There is no list of dependencies.\n\nList them in requirements.txt, one package a line, and commit it. An empty file is fine for an app that needs none."
    )]
    PythonNoDependencies,

    #[error(
        "Python dependencies could not be installed: `{command}` failed with {}.\n\nIts output above says why.{}",
        describe(*status),
        if *program == "pip" { String::new() } else { format!(" If {lock_file} is out of date, run `{program} lock` on your machine and commit it.{}", poetry_mirror(program)) }
    )]
    PythonDependencies { command: String, status: ExitStatus, lock_file: &'static str, program: &'static str },

    #[error(
        "The package {package} could not be compiled for Python {python}.\n\nIts output above says why. Most packages need not be compiled: they have wheels for the versions of Python that were new with them. Either\n- take a newer version of {package} that has one for Python {python}, and push again; or\n- name an older Python in .python-version, if this machine can download it; or\n- list the Debian packages that compiling it needs in an Aptfile."
    )]
    PythonCompile { package: String, python: String },

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

    // Aptfile
    #[error(
        "Line {number} of the Aptfile, `{line}`, cannot be installed: {reason}.\n\nList packages of Debian 13 in it, one a line: libvips42t64"
    )]
    AptfileLine { number: usize, line: String, reason: &'static str },

    // Ruby
    #[error(
        "There is no Gemfile.lock, so every build could bring other gems.\n\nRun `bundle lock --add-platform x86_64-linux` on your machine, `git add Gemfile.lock`, and commit."
    )]
    RubyNoLock,

    #[error(
        "Ruby {requested} is not available: this stack has Ruby {available}.\n\n{file} asks for it. Ask for a version that can be had: write `ruby \"~> {}\"` in the Gemfile, run `bundle update --ruby` on your machine, and commit both files.",
        minor(available)
    )]
    RubyVersion { requested: String, available: String, file: &'static str },

    #[error(
        "The app's gems could not be installed: `bundle install` failed with {}.\n\nIts output above says why.\n- If it lacks a library, name its Debian package in an Aptfile.\n- If rubygems.org cannot be reached from here, name a mirror: `platform config:set BUNDLE_MIRROR__ALL=https://…`; or bring the gems along: `bundle cache --all-platforms`, and commit vendor/cache.",
        describe(*status)
    )]
    RubyGems { status: ExitStatus },

    #[error(
        "The app's assets could not be compiled: `{command}` failed with {}.\n\nIts output above says why; often the app wants a setting that only exists at run time. Set what it needs with `platform config:set`. Or compile them on your machine with the same command, and commit public/assets.",
        describe(*status)
    )]
    RubyAssets { command: String, status: ExitStatus },

    // PHP
    #[error(
        "There is no composer.lock, so every build could bring other packages.\n\nRun `composer update` on your machine, `git add composer.lock`, and commit."
    )]
    PhpNoLock,

    #[error(
        "These PHP extensions are not available: {}.\n\ncomposer.json or composer.lock asks for them (ext-…). Remove what needs them, or replace it: for most there is a package in plain PHP.",
        names.join(", ")
    )]
    PhpExtensions { names: Vec<String> },

    #[error(
        "The stack's PHP is not one that the app can use. In Composer's words:\n\n{reason}\n\nAllow the stack's version in composer.json, for instance with `\"php\": \"^8.2\"`, run `composer update` on your machine, and commit both files."
    )]
    PhpVersion { reason: String },

    #[error(
        "The app's packages could not be installed: `composer install` failed with {}.\n\nIts output above says why. If composer.lock does not fit composer.json, run `composer update --lock` and commit it. If Packagist cannot be reached from here, name a mirror: `platform config:set COMPOSER_MIRROR=https://…`.",
        describe(*status)
    )]
    PhpDependencies { status: ExitStatus },

    #[error("`composer compile` failed with {}.\n\nIts output above says why; composer.json says in `scripts` what it runs.", describe(*status))]
    PhpCompile { status: ExitStatus },

    // Java
    #[error(
        "Java {requested} is not available: this stack has OpenJDK {available}.\n\nsystem.properties asks for it. Either\n- ask for one that can be had: java.runtime.version=21, or\n- name where an archive of a JDK is, with {{version}} and {{arch}} in its address: `platform config:set JDK_MIRROR=https://…/jdk-{{version}}-{{arch}}.tar.gz`."
    )]
    JavaVersion { requested: String, available: String },

    #[error(
        "The JDK could not be downloaded from {url}: it failed with {}.\n\nJDK_MIRROR names that address; correct it with `platform config:set JDK_MIRROR=…`, or ask for a version that the stack has.",
        describe(*status)
    )]
    JavaDownload { url: String, status: ExitStatus },

    #[error(
        "The app was not built: `{command}` failed with {}.\n\nIts output above says why. If it could not reach a repository, name a mirror that can be reached from here with `platform config:set {mirror}=…`.",
        describe(*status)
    )]
    JavaBuild { command: String, status: ExitStatus, mirror: &'static str },

    // Rust
    #[error(
        "Rust {requested} is not available: {url} could not be downloaded; the output above says why.\n\n{file} asks for it. Either\n- correct the version there; releases are listed at https://releases.rs, or\n- name a mirror that can be reached from here: `platform config:set RUSTUP_DIST_SERVER=https://…`."
    )]
    RustVersion { requested: String, file: &'static str, url: String },

    #[error(
        "`{command}` failed: a dependency wants a newer Rust.\n\nThe output above says which. Name a newer Rust in a file rust-toolchain.toml, commit it, and push again:\n\n[toolchain]\nchannel = \"1.90\""
    )]
    RustTooOld { command: String },

    #[error("The app did not compile: `{command}` failed with {}.\n\nIts output above says why.", describe(*status))]
    RustCompile { command: String, status: ExitStatus },

    #[error(
        "There is no program in this workspace, so nothing could be started.\n\nA program is a package with src/main.rs or a [[bin]]. In a workspace, name the packages that a plain `cargo build` should build in `default-members`."
    )]
    RustNoProgram,

    // Elixir
    #[error(
        "Mix could not get what it gets packages with: `mix {tool}` failed with {}.\n\nIts output above says why. If hex.pm cannot be reached from here, name mirrors: `platform config:set HEX_MIRROR=https://… HEX_BUILDS_URL=https://…`; or bring the dependencies along: commit deps/.",
        describe(*status)
    )]
    ElixirTools { tool: &'static str, status: ExitStatus },

    #[error("The app was not built: `{command}` failed with {}.\n\nIts output above says why.", describe(*status))]
    ElixirStep { command: String, status: ExitStatus },

    #[error(
        "`mix release` made no program that could be started.\n\nName one in `releases:` in mix.exs, or say in a Procfile what starts."
    )]
    ElixirNoRelease,

    // .NET
    #[error(
        ".NET is not offered: the stack's Debian has no packages of it.\n\nPublish the app for Linux on your machine (`dotnet publish --self-contained --runtime linux-x64`) and push what comes of it with a Procfile (web: ./MyApp --urls http://0.0.0.0:$PORT), or add a Dockerfile."
    )]
    Dotnet,
    // Deno
    #[error(
        "What the app imports could not be downloaded: Deno failed with {}.\n\nIts output above says why. If deno.lock is out of date, run `deno install` on your machine and commit it.",
        describe(*status)
    )]
    DenoImports { status: ExitStatus },

    #[error("The task `build` of deno.json failed with {}.\n\nIts output above says why.", describe(*status))]
    DenoTask { status: ExitStatus },

    // Static files
    #[error(
        "The folder `{root}`, whose files are to be served, does not exist.\n\n{file} names it; correct it there, or commit the folder."
    )]
    StaticRoot { root: String, file: &'static str },

    #[error(
        "There is nothing to start: package.json has no start script (or one that is only for development), and its build left no index.html in dist/, build/ or out/.\n\nEither\n- say in package.json how the app's server starts: \"scripts\": {{ \"start\": \"node server.js\" }}; or\n- name the folder that the build fills, in static.json: {{ \"root\": \"…\" }}"
    )]
    StaticNotBuilt,

    #[error("static.json: `{key}` may not contain `{character}`: {value}")]
    StaticCharacter { key: &'static str, value: String, character: char },
}

/// Poetry's advice where it found no files: it cannot know of mirrors.
fn poetry_mirror(program: &str) -> &'static str {
    if program == "poetry" {
        " If pypi.org cannot be reached from here, or only a mirror of it, name that: `platform config:set POETRY_PYPI_MIRROR_URL=https://…/simple/`."
    } else {
        ""
    }
}

/// How the app asks for another Python in place of what `file` says.
fn other_python(file: &str, available: &str) -> String {
    match file {
        "runtime.txt" => format!("`git rm runtime.txt`, write {available} into .python-version,"),
        "Pipfile.lock" => {
            format!(
                "say `python_version = \"{available}\"` in the Pipfile, run `pipenv lock` on your machine, commit both files,"
            )
        }
        _ => format!("change {file} to {available}"),
    }
}

/// `3.3` of `3.3.8`.
fn minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
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
        let python_version = |file| PackError::PythonVersion {
            requested: "3.14".to_owned(),
            available: "3.13".to_owned(),
            file,
            stack: "debian-13".to_owned(),
        };
        let python_dependencies = |command: &str, lock_file, program| PackError::PythonDependencies {
            command: command.to_owned(),
            status,
            lock_file,
            program,
        };
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
            PackError::NodeScript { script: "postinstall".to_owned(), status },
            python_version(".python-version"),
            python_version("runtime.txt"),
            python_version("Pipfile.lock"),
            PackError::PythonVersionFile {
                file: ".python-version",
                content: "latest".to_owned(),
                available: "3.13".to_owned(),
            },
            PackError::PythonManagers { files: vec!["requirements.txt", "poetry.lock"] },
            PackError::PythonMisspelt { written: "requirement.txt" },
            PackError::PythonNotLocked { declared: "Pipfile", remedy: "pipenv lock" },
            PackError::PythonNoDependencies,
            python_dependencies("pip install -r requirements.txt", "requirements.txt", "pip"),
            python_dependencies("uv sync --locked", "uv.lock", "uv"),
            python_dependencies("poetry sync", "poetry.lock", "poetry"),
            PackError::PythonCompile { package: "psycopg2-binary".to_owned(), python: "3.13.5".to_owned() },
            PackError::Collectstatic { command: "python manage.py collectstatic --noinput".to_owned(), status },
            PackError::GoVersion { line: "go one".to_owned() },
            PackError::GoNoMain,
            PackError::GoModules { command: "go mod download".to_owned(), status },
            PackError::GoCompile { command: "go build".to_owned(), status },
            PackError::AptfileLine { number: 2, line: "x.deb".to_owned(), reason: "a file cannot be installed" },
            PackError::RubyNoLock,
            PackError::RubyVersion { requested: "2.7.8".to_owned(), available: "3.3.8".to_owned(), file: "Gemfile" },
            PackError::RubyGems { status },
            PackError::RubyAssets { command: "bundle exec rake assets:precompile".to_owned(), status },
            PackError::PhpNoLock,
            PackError::PhpExtensions { names: vec!["swoole".to_owned()] },
            PackError::PhpVersion { reason: "- a/b requires php ^7.4".to_owned() },
            PackError::PhpDependencies { status },
            PackError::PhpCompile { status },
            PackError::JavaVersion { requested: "17".to_owned(), available: "21 and 25".to_owned() },
            PackError::JavaDownload { url: "https://host/jdk-17-amd64.tar.gz".to_owned(), status },
            PackError::JavaBuild { command: "mvn clean install".to_owned(), status, mirror: "MAVEN_SETTINGS_URL" },
            PackError::RustVersion {
                requested: "1.99.0".to_owned(),
                file: "rust-toolchain.toml",
                url: "https://host/dist/rustc-1.99.0.tar.xz".to_owned(),
            },
            PackError::RustTooOld { command: "cargo build --release --locked".to_owned() },
            PackError::RustCompile { command: "cargo build --release --locked".to_owned(), status },
            PackError::RustNoProgram,
            PackError::ElixirTools { tool: "local.hex", status },
            PackError::ElixirStep { command: "mix compile".to_owned(), status },
            PackError::ElixirNoRelease,
            PackError::Dotnet,
            PackError::DenoImports { status },
            PackError::DenoTask { status },
            PackError::StaticRoot { root: "dist".to_owned(), file: "static.json" },
            PackError::StaticNotBuilt,
            PackError::StaticCharacter { key: "routes", value: "/{a}".to_owned(), character: '{' },
        ];
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(all.join("\n\n----\n\n"));
    }
}
