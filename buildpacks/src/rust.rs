//! Rust: apps with a Cargo.toml, compiled to one program for each binary of the workspace.

use std::path::{Path, PathBuf};

use libcnb::data::launch::Process;

use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::output;
use crate::pack::{self, Build, Language, Packages};

mod lock;
mod toolchain;
mod workspace;

use toolchain::Wanted;
use workspace::Workspace;

pub(crate) struct Rust;

const MANIFEST: &str = "Cargo.toml";
const LOCK: &str = "Cargo.lock";

/// Crates that need more than the stack has, with Debian packages for the image and for the build.
const LIBRARIES: [(&str, Option<&str>, &str); 6] = [
    ("libsqlite3-sys", Some("libsqlite3-0"), "libsqlite3-dev"),
    ("mysqlclient-sys", Some("libmariadb3"), "libmariadb-dev"),
    ("curl-sys", Some("libcurl4t64"), "libcurl4-openssl-dev"),
    ("cmake", None, "cmake"),
    ("prost-build", None, "protobuf-compiler"),
    ("clang-sys", None, "libclang-dev"),
];

impl Language for Rust {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join(MANIFEST).is_file() { Ok(()) } else { Err("Rust: no Cargo.toml at the top of the app".to_owned()) }
    }

    fn packages(&self, app: &Path) -> Packages {
        // What cannot be read stops the build, with a message, not its detection.
        let lock = files::read(app, LOCK).ok().flatten().unwrap_or_default();
        let has = |name: &str| lock.lines().any(|line| line == format!("name = \"{name}\""));
        let mut packages = Wanted::read(app).map(|wanted| wanted.packages()).unwrap_or_default();
        for (_, run, build) in LIBRARIES.iter().filter(|(name, ..)| has(name)) {
            packages.run.extend(run.map(str::to_owned));
            packages.build.push((*build).to_owned());
        }
        packages
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let cargo = Cargo::new(build, &Wanted::read(app)?)?;
        let workspace = cargo.workspace()?;
        if workspace.programs.is_empty() {
            return Err(PackError::RustNoProgram);
        }
        cargo.compile()?;
        let programs = build.launch_layer("programs")?;
        let lock = files::read(app, LOCK)?.unwrap_or_default();
        programs.bill(&lock::bill(&lock).unwrap_or_default())?;
        let bin = programs.path().join("bin");
        std::fs::create_dir_all(&bin).map_err(files::failed("make", &bin))?;
        for program in &workspace.programs {
            let (from, to) = (cargo.target.join("release").join(program), bin.join(program));
            if from.is_file() {
                std::fs::copy(&from, &to).map_err(files::failed("copy", &from))?;
            }
        }
        files::offer_programs(&bin, app, "target/release")?;
        build.launch_layer("runtime")?.launch_defaults(&[("ROCKET_ADDRESS", "0.0.0.0")])?;
        let made = |program: &&String| bin.join(program).is_file();
        processes(&workspace.programs.iter().filter(made).cloned().collect::<Vec<_>>(), workspace.default.as_deref())
    }
}

/// Cargo on the app, with what it downloads and compiles kept for the next build.
struct Cargo<'a> {
    app: &'a Path,
    /// Folder of programs of a toolchain that is not the stack's.
    bin: Option<PathBuf>,
    home: PathBuf,
    target: PathBuf,
}

impl<'a> Cargo<'a> {
    fn new(build: &'a Build, wanted: &Wanted) -> Result<Self, PackError> {
        let bin = toolchain::install(build, wanted)?;
        let home = build.kept_cache("cargo", "cargo 1")?;
        let target = build.kept_cache("target", "cargo 1")?;
        Ok(Self { app: build.app(), bin, home, target })
    }

    fn run(&self, arguments: &[String]) -> Run {
        let run = Run::new(self.app, "cargo", arguments)
            .env("CARGO_HOME", &self.home)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_TERM_PROGRESS_WHEN", "never")
            .env("CARGO_INCREMENTAL", "0");
        match &self.bin {
            Some(bin) => run.path(bin),
            None => run,
        }
    }

    /// Exact versions if the app names them.
    fn locked(&self) -> Vec<String> {
        if self.app.join(LOCK).is_file() { vec!["--locked".to_owned()] } else { Vec::new() }
    }

    fn workspace(&self) -> Result<Workspace, PackError> {
        let arguments = ["metadata", "--format-version", "1", "--no-deps"].map(str::to_owned);
        Workspace::parse(&self.run(&[&arguments[..], &self.locked()].concat()).read()?)
    }

    fn compile(&self) -> Result<(), PackError> {
        let mut arguments = vec!["build".to_owned(), "--release".to_owned()];
        if self.locked().is_empty() {
            output::warning(
                "there is no Cargo.lock, so every build may bring other versions. Run `cargo generate-lockfile` and commit it.",
            );
        }
        arguments.extend(self.locked());
        let flags = std::env::var("RUST_CARGO_BUILD_FLAGS").unwrap_or_default();
        arguments.extend(flags.split_whitespace().filter(|flag| *flag != "--release").map(str::to_owned));
        let command = format!("cargo {}", arguments.join(" "));
        output::heading(&format!("Compiling with {command}"));
        self.run(&arguments).show_or_fail(|status, said| Some(explain(command, status, said)))
    }
}

fn explain(command: String, status: std::process::ExitStatus, said: &str) -> PackError {
    let is_about_version =
        |line: &&str| line.contains("requires rustc ") || line.contains("is not supported by the following package");
    if said.lines().any(|line| is_about_version(&line)) {
        return PackError::RustTooOld { command };
    }
    PackError::RustCompile { command, status }
}

/// A process type for each program, and `web` for the one that is the app's own choice or its only one.
fn processes(programs: &[String], default: Option<&str>) -> Result<Vec<Process>, PackError> {
    let mut found = Vec::new();
    for program in programs {
        let name: String = program.to_ascii_lowercase().chars().map(|c| if c == '_' { '-' } else { c }).collect();
        found.push(pack::process(name.trim_matches('-'), [program.as_str()])?);
    }
    let first = default.or_else(|| programs.first().map(String::as_str));
    if let Some(first) = first.filter(|_| !programs.iter().any(|program| program == "web")) {
        found.push(pack::process("web", [first])?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_bring_the_libraries_that_they_link_to() {
        let app = tempfile::tempdir().unwrap();
        assert!(Rust.detect(app.path()).unwrap_err().contains("Cargo.toml"));
        std::fs::write(app.path().join(MANIFEST), "[package]\nname = 'x'").unwrap();
        std::fs::write(
            app.path().join(LOCK),
            "[[package]]\nname = \"libsqlite3-sys\"\n[[package]]\nname = \"cmake\"\n",
        )
        .unwrap();
        assert_eq!(Rust.detect(app.path()), Ok(()));
        let packages = Rust.packages(app.path());
        assert_eq!(packages.run, ["libsqlite3-0"]);
        assert_eq!(packages.build, ["cargo", "libsqlite3-dev", "cmake"]);
    }

    #[test]
    fn programs_are_processes_and_one_is_web() {
        let of = |programs: &[&str], default| -> Vec<String> {
            let programs: Vec<String> = programs.iter().map(|program| (*program).to_owned()).collect();
            let found = processes(&programs, default).unwrap();
            found.into_iter().map(|process| format!("{}: {}", process.r#type, process.command.join(" "))).collect()
        };
        assert_eq!(of(&["my_app"], None), ["my-app: my_app", "web: my_app"]);
        assert_eq!(of(&["clock", "server"], Some("server"))[2], "web: server");
        assert_eq!(of(&["clock", "web"], None), ["clock: clock", "web: web"]);
    }

    #[test]
    fn a_compiler_that_is_too_old_is_told_apart_from_a_mistake() {
        use std::os::unix::process::ExitStatusExt;
        let status = std::process::ExitStatus::from_raw(0x6500);
        let said = "error: rustc 1.85.0 is not supported by the following package:\n  x@1.0 requires rustc 1.90\n";
        assert!(explain("cargo build".into(), status, said).to_string().contains("rust-toolchain"));
        assert!(matches!(explain("cargo build".into(), status, "error[E0308]"), PackError::RustCompile { .. }));
    }
}
