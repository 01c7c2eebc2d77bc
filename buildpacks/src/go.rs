//! Go: modules, compiled to one program for each main package.

use std::path::{Path, PathBuf};

use libcnb::data::launch::Process;

use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::output;
use crate::pack::{self, Build, Language};

mod toolchain;

use toolchain::Wanted;

pub(crate) struct Go;

impl Language for Go {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join("go.mod").is_file() { Ok(()) } else { Err("Go: no go.mod at the top of the app".to_owned()) }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let module = files::read(build.app(), "go.mod")?.unwrap_or_default();
        let toolchain = toolchain::install(build, &Wanted::by(&module)?)?;
        let compiler = Compiler::new(build, toolchain)?;
        compiler.download(&module)?;
        let programs = build.launch_layer("programs")?;
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
        Ok(Self { app: build.app(), root, cache: build.kept_cache("go-cache", "go 1")?, modules })
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
    fn download(&self, module: &str) -> Result<(), PackError> {
        if self.modules == Modules::Vendored {
            output::heading("Using the modules in vendor/");
            return Ok(());
        }
        if !module.lines().any(|line| line.trim_start().starts_with("require")) {
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
