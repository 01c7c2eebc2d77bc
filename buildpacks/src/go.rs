//! Go: modules, compiled to one program for each main package.

use std::path::{Path, PathBuf};

use libcnb::data::launch::Process;

use crate::bill::{Bill, Registry};
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::output;
use crate::pack::{self, Build, Language};

mod toolchain;

pub(crate) use toolchain::make_ready;
use toolchain::{Toolchain, Wanted};

pub(crate) struct Go;

impl Language for Go {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if SIGNS.iter().any(|name| app.join(name).is_file()) {
            Ok(())
        } else {
            Err("Go: neither a go.mod nor a go.work at the top of the app".to_owned())
        }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let module = module(app)?;
        let version = std::env::var("GOVERSION").ok();
        let toolchain = toolchain::install(build, &Wanted::by(&module, version.as_deref())?)?;
        let compiler = Compiler::new(build, toolchain)?;
        compiler.hook("bin/go-pre-compile")?;
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
        programs.bill(&bill(&compiler.go(&["version", "-m", &bin.to_string_lossy()]).read()?))?;
        compiler.hook("bin/go-post-compile")?;
        files::offer_programs(&bin, app, "bin")?;
        processes(&packages.iter().map(|package| program_name(package)).collect::<Vec<_>>())
    }
}

/// What makes an app a Go app.
const SIGNS: [&str; 2] = ["go.mod", "go.work"];

/// The text of go.mod, or of go.work where several modules are one app.
fn module(app: &Path) -> Result<String, PackError> {
    let texts: Vec<_> = SIGNS.iter().map(|name| files::read(app, name)).collect::<Result<_, _>>()?;
    Ok(texts.into_iter().flatten().collect::<Vec<_>>().join("\n"))
}

/// The folders that go.work names in its `use` lines.
fn used_folders(work: &str) -> Vec<String> {
    let mut folders = Vec::new();
    let mut is_in_list = false;
    for line in work.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
        match line.strip_prefix("use") {
            _ if is_in_list && line == ")" => is_in_list = false,
            _ if is_in_list && !line.is_empty() => folders.push(line.to_owned()),
            Some(rest) if rest.trim() == "(" => is_in_list = true,
            Some(rest) if rest.starts_with(' ') => folders.push(rest.trim().to_owned()),
            _ => {}
        }
    }
    folders
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
    fn new(build: &'a Build, toolchain: Toolchain) -> Result<Self, PackError> {
        let cache = build.kept_cache("go-cache", "go 1")?;
        if let Some(compiled) = toolchain.compiled {
            files::copy_folder(&compiled, &cache.join("compiled"))?;
        }
        let is_vendored = build.app().join("vendor/modules.txt").is_file();
        let modules = if is_vendored { Modules::Vendored } else { Modules::Downloaded };
        Ok(Self { app: build.app(), root: toolchain.root, cache, modules })
    }

    fn go(&self, arguments: &[&str]) -> Run {
        // Go takes the last of two flags that contradict each other: the app's own win.
        let vendored = if self.modules == Modules::Vendored { "-mod=vendor" } else { "" };
        let flags = format!("{vendored} {} -modcacherw", std::env::var("GOFLAGS").unwrap_or_default());
        self.with_environment(Run::new(self.app, "go", arguments), flags.trim())
    }

    /// The app's own step, with the go command at hand.
    fn hook(&self, script: &str) -> Result<(), PackError> {
        if !self.app.join(script).is_file() {
            return Ok(());
        }
        output::heading(&format!("Running {script}"));
        self.with_environment(Run::new(self.app, "bash", [script]), &std::env::var("GOFLAGS").unwrap_or_default())
            .show()
    }

    fn with_environment(&self, run: Run, flags: &str) -> Run {
        let credentials = credentials(std::env::vars());
        let mut run = run.env("GIT_CONFIG_COUNT", credentials.len().to_string());
        for (index, (key, value)) in credentials.iter().enumerate() {
            run = run.env(&format!("GIT_CONFIG_KEY_{index}"), key).env(&format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        run.path(&self.root.join("bin"))
            .env("GOROOT", &self.root)
            .env("GOPATH", self.cache.join("path"))
            .env("GOMODCACHE", self.cache.join("modules"))
            .env("GOCACHE", self.cache.join("compiled"))
            // No other toolchain than the one that was chosen; a cache that can be removed like any folder.
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", flags)
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

    /// Import paths of what is to be compiled: what `GO_INSTALL_PACKAGE_SPEC` or a comment in go.mod names, or else every main
    /// package.
    fn main_packages(&self, module: &str) -> Result<Vec<String>, PackError> {
        let set = std::env::var("GO_INSTALL_PACKAGE_SPEC").ok();
        let written = || module.lines().find_map(|line| line.trim().strip_prefix("// +heroku install"));
        let everything: Vec<String> = match used_folders(&files::read(self.app, "go.work")?.unwrap_or_default()) {
            folders if folders.is_empty() => vec!["./...".to_owned()],
            folders => folders.iter().map(|folder| format!("{}/...", folder.trim_end_matches('/'))).collect(),
        };
        let named = set.as_deref().or_else(written);
        let patterns: Vec<&str> = match named {
            Some(named) => named.split_whitespace().collect(),
            None => everything.iter().map(String::as_str).collect(),
        };
        let format = "{{if eq .Name \"main\"}}{{.ImportPath}}{{end}}";
        let arguments = [vec!["list", "-tags", "heroku", "-f", format], patterns].concat();
        let list = self.go(&arguments).read()?;
        Ok(list.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    fn compile(&self, bin: &Path, packages: &[String]) -> Result<(), PackError> {
        // With a slash at the end it is a folder, also for a single package.
        let target = format!("{}/", bin.display());
        let mut arguments = vec!["build", "-tags", "heroku", "-buildvcs=false", "-o", &target];
        let symbol = linker_symbol();
        if let Some(symbol) = &symbol {
            arguments.extend(["-ldflags", symbol]);
        }
        arguments.extend(packages.iter().map(String::as_str));
        let explain = |status, _: &str| Some(PackError::GoCompile { command: "go build".to_owned(), status });
        self.go(&arguments).show_or_fail(explain)
    }
}

/// The modules that are in programs, as `go version -m` lists them: a module, or what it was replaced by in the line after it.
fn bill(listed: &str) -> Bill {
    let mut modules: Vec<(String, String)> = Vec::new();
    for line in listed.lines() {
        match line.split('\t').collect::<Vec<_>>().as_slice() {
            ["", "dep", module, version, ..] => modules.push(((*module).to_owned(), (*version).to_owned())),
            ["", "=>", module, version, ..] => {
                modules.pop();
                modules.push(((*module).to_owned(), (*version).to_owned()));
            }
            [program] => {
                let version = program.rsplit_once(": go").map(|(_, version)| version.to_owned());
                modules.extend(version.map(|version| ("stdlib".to_owned(), version)));
            }
            _ => {}
        }
    }
    // A folder of the app's own has no version.
    Bill::of(Registry::Golang, modules.into_iter().filter(|(_, version)| !["", "(devel)"].contains(&version.as_str())))
}

/// Heroku's way to put a value of the build into a variable of the program.
fn linker_symbol() -> Option<String> {
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some(format!("-X {}={}", value("GO_LINKER_SYMBOL")?, value("GO_LINKER_VALUE")?))
}

/// Settings of git's that let it into private repositories: `GO_GIT_CRED__HTTPS__GITHUB__COM=token` or `=user:token`.
fn credentials(variables: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let setting = |(name, value): (String, String)| {
        let (protocol, host) = name.strip_prefix("GO_GIT_CRED__")?.split_once("__")?;
        let (protocol, host) = (protocol.to_lowercase(), host.replace("__", ".").to_lowercase());
        let login = if value.contains(':') { value } else { format!("{value}:x-oauth-basic") };
        Some((format!("url.{protocol}://{login}@{host}/.insteadOf"), format!("{protocol}://{host}/")))
    };
    variables.filter_map(setting).collect()
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
    fn apps_are_modules_or_workspaces() {
        let app = tempfile::tempdir().unwrap();
        assert!(Go.detect(app.path()).unwrap_err().contains("go.work"));
        std::fs::write(
            app.path().join("go.work"),
            "go 1.24\n\nuse ./api // the API\nuse (\n\t./web/\n\n\t./worker\n)\n",
        )
        .unwrap();
        assert_eq!(Go.detect(app.path()), Ok(()));
        assert_eq!(used_folders(&module(app.path()).unwrap()), ["./api", "./web/", "./worker"]);
    }

    #[test]
    fn programs_are_billed_by_the_modules_in_them() {
        let listed = "/bin/api: go1.24.3\n\tpath\texample.com/api\n\tmod\texample.com/api\t(devel)\t\n\
                      \tdep\tgithub.com/a/b\tv1.2.0\th1:x=\n\tdep\tgithub.com/c/d\tv1.0.0\n\t=>\tgithub.com/fork/d\tv1.0.1\th1:y=\n\
                      \tdep\texample.com/own\tv0.0.0\n\t=>\t./own\t(devel)\t\n\tbuild\t-compiler=gc\n";
        let expected = [("stdlib", "1.24.3"), ("github.com/a/b", "v1.2.0"), ("github.com/fork/d", "v1.0.1")];
        let expected = expected.map(|(name, version)| (name.to_owned(), version.to_owned()));
        assert_eq!(bill(listed), Bill::of(Registry::Golang, expected));
    }

    #[test]
    fn credentials_become_settings_of_git() {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let variables = [
            set("GO_GIT_CRED__HTTPS__GITHUB__COM", "t0ken"),
            set("PATH", "/bin"),
            set("GO_GIT_CRED__HTTPS__HOST", "me:pw"),
        ];
        let expected = [
            set("url.https://t0ken:x-oauth-basic@github.com/.insteadOf", "https://github.com/"),
            set("url.https://me:pw@host/.insteadOf", "https://host/"),
        ];
        assert_eq!(credentials(variables.into_iter()), expected);
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
