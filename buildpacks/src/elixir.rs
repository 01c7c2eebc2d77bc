//! Elixir: apps with a mix.exs, as a release if they declare one. The stack's Debian has Elixir and Erlang.

use std::path::{Path, PathBuf};

use libcnb::data::launch::Process;

use crate::bill::{Bill, Registry};
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{self, Build, Language, Layer, Packages, Use};

pub(crate) struct Elixir;

const MANIFEST: &str = "mix.exs";
const LOCK: &str = "mix.lock";
/// Erlang's parts that a Phoenix app starts or compiles with, beside those that Elixir itself needs.
const ERLANG: [&str; 6] =
    ["erlang-inets", "erlang-os-mon", "erlang-runtime-tools", "erlang-ssl", "erlang-syntax-tools", "erlang-xmerl"];
const ERLANG_BUILD: [&str; 4] = ["erlang-dev", "erlang-eunit", "erlang-parsetools", "erlang-tools"];

impl Language for Elixir {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join(MANIFEST).is_file() { Ok(()) } else { Err("Elixir: no mix.exs at the top of the app".to_owned()) }
    }

    fn packages(&self, _: &Path) -> Packages {
        let run = std::iter::once("elixir").chain(ERLANG).map(str::to_owned);
        Packages { run: run.collect(), build: ERLANG_BUILD.map(str::to_owned).to_vec() }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let project = Project { text: files::read(app, MANIFEST)?.unwrap_or_default() };
        let version = Run::new(Path::new("/"), "elixir", ["--short-version"]).read()?;
        output::heading(&format!("Using Elixir {} (the stack's own)", version.trim()));
        let mix = Mix::new(build, version.trim())?;
        mix.dependencies()?;
        mix.step("Compiling", &["compile"])?;
        if let Some(task) = project.assets_task() {
            mix.step("Compiling assets", &[task])?;
        }
        build.bill(mix.bill()?.with_runtime("elixir", version.trim()));
        let launch = build.launch_layer("runtime")?;
        mix.set_launch_defaults(&launch, &build.kept_secret()?)?;
        if project.has_releases() {
            return release(build, &mix);
        }
        let command = if project.has("phoenix") { "phx.server" } else { "run" };
        let words = if command == "run" { vec!["mix", "run", "--no-halt"] } else { vec!["mix", command] };
        Ok(vec![pack::process("web", words)?])
    }
}

/// mix.exs, as far as it can be understood without running it.
struct Project {
    text: String,
}

impl Project {
    /// Whether it depends on a package.
    fn has(&self, package: &str) -> bool {
        self.text.contains(&format!("{{:{package},"))
    }

    fn has_releases(&self) -> bool {
        self.text.contains("releases:")
    }

    fn assets_task(&self) -> Option<&'static str> {
        if self.text.contains("\"assets.deploy\"") {
            Some("assets.deploy")
        } else {
            self.has("phoenix_html").then_some("phx.digest")
        }
    }
}

/// Mix on the app. Dependencies and what is compiled live in layers, which a process without a release needs too.
struct Mix<'a> {
    app: &'a Path,
    deps: Layer,
    compiled: PathBuf,
    home: PathBuf,
    env: String,
}

impl<'a> Mix<'a> {
    fn new(build: &'a Build, version: &str) -> Result<Self, PackError> {
        let app = build.app();
        let env = std::env::var("MIX_ENV").unwrap_or_else(|_| "prod".to_owned());
        let key = || Key::new("mix 1").with("Elixir version", version.as_bytes()).with("MIX_ENV", env.as_bytes());
        let deps = build.layer("deps", Use::LaunchBuildCache, key().with_files(app, [LOCK]))?;
        let compiled = build.layer("compiled", Use::LaunchBuildCache, key())?;
        let home = build.layer("hex", Use::LaunchBuildCache, key())?;
        for layer in [&compiled, &home].into_iter().filter(|layer| !layer.is_kept) {
            layer.finish()?;
        }
        Ok(Self { app, deps, compiled: compiled.path(), home: home.path(), env })
    }

    fn mix(&self, arguments: &[&str]) -> Run {
        let run = Run::new(self.app, "mix", arguments)
            .env("MIX_ENV", &self.env)
            .env("MIX_HOME", self.home.join("mix"))
            .env("HEX_HOME", self.home.join("hex"))
            .env("MIX_BUILD_PATH", &self.compiled)
            .env("LANG", "C.UTF-8");
        // An app that brings its dependencies along has them in its own folder.
        if self.is_vendored() { run } else { run.env("MIX_DEPS_PATH", self.deps.path()) }
    }

    fn is_vendored(&self) -> bool {
        self.app.join("deps").is_dir()
    }

    fn step(&self, what: &str, arguments: &[&str]) -> Result<(), PackError> {
        let command = format!("mix {}", arguments.join(" "));
        output::heading(&format!("{what}: {command}"));
        self.mix(arguments).show_or_fail(|status, _| Some(PackError::ElixirStep { command, status }))
    }

    /// Gets what mix.lock names, unless the last build did.
    fn dependencies(&self) -> Result<(), PackError> {
        let has_lock = self.app.join(LOCK).is_file();
        if has_lock && !self.is_vendored() {
            for tool in ["local.hex", "local.rebar"] {
                let explain = |status, _: &str| Some(PackError::ElixirTools { tool, status });
                self.mix(&[tool, "--force", "--if-missing"]).show_or_fail(explain)?;
            }
            if !self.deps.is_kept {
                self.step("Getting dependencies", &["deps.get", "--only", &self.env])?;
            }
        }
        if has_lock {
            self.step("Compiling dependencies", &["deps.compile"])?;
        }
        if !self.deps.is_kept {
            self.deps.finish()?;
        }
        Ok(())
    }

    /// What is in the folder of dependencies of what mix.lock names: `"jason": {:hex, :jason, "1.4.4", …},`
    fn bill(&self) -> Result<Bill, PackError> {
        let folder = if self.is_vendored() { self.app.join("deps") } else { self.deps.path() };
        let lock = files::read(self.app, LOCK)?.unwrap_or_default();
        let packages = lock.lines().filter_map(locked).filter(|(name, _)| folder.join(name).is_dir());
        Ok(Bill::of(Registry::Hex, packages))
    }

    /// What a process without a release needs to find everything again, and one with it does not mind.
    fn set_launch_defaults(&self, layer: &Layer, secret: &str) -> Result<(), PackError> {
        let folders = [self.compiled.clone(), self.home.join("mix"), self.deps.path()];
        let [compiled, home, deps] = folders.each_ref().map(|path| path.to_string_lossy());
        let mut variables = vec![
            ("MIX_ENV", self.env.as_str()),
            ("MIX_BUILD_PATH", &compiled),
            ("MIX_HOME", &home),
            ("PHX_SERVER", "true"),
            ("LANG", "C.UTF-8"),
            ("SECRET_KEY_BASE", secret),
        ];
        if !self.is_vendored() {
            variables.push(("MIX_DEPS_PATH", &deps));
        }
        layer.launch_defaults(&variables)
    }
}

/// The package of a line of mix.lock, if it is from Hex, and its version.
fn locked(line: &str) -> Option<(String, String)> {
    let (_, package) = line.split_once("{:hex, :")?;
    let mut parts = package.split(", ");
    let (name, version) = (parts.next()?, parts.next()?);
    Some((name.trim_matches('"').to_owned(), version.trim_matches('"').to_owned()))
}

/// `mix release`, as a layer.
fn release(build: &Build, mix: &Mix) -> Result<Vec<Process>, PackError> {
    let layer = build.launch_layer("release")?;
    let path = layer.path();
    mix.step("Making a release", &["release", "--overwrite", "--path", &path.to_string_lossy()])?;
    let programs = files::names(&path.join("bin"));
    let is_program = |name: &&String| !files::is_a(name, "bat") && !["migrate", "server"].contains(&name.as_str());
    let Some(name) = programs.iter().find(is_program) else { return Err(PackError::ElixirNoRelease) };
    Ok(vec![pack::process("web", [path.join("bin").join(name).to_string_lossy().as_ref(), "start"])?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mix_exs_says_is_understood() {
        let project = |text: &str| Project { text: text.to_owned() };
        let phoenix =
            project("deps: [{:phoenix, \"~> 1.7\"}, {:phoenix_html, \"~> 4\"}], \"assets.deploy\": [\"esbuild\"]");
        assert!(phoenix.has("phoenix") && !phoenix.has("ecto") && !phoenix.has_releases());
        assert_eq!(phoenix.assets_task(), Some("assets.deploy"));
        assert_eq!(project("{:phoenix_html, \"1\"}").assets_task(), Some("phx.digest"));
        assert!(project("releases: [demo: []]").has_releases());
    }

    #[test]
    fn packages_of_hex_are_read_from_the_lock() {
        let line = r#"  "jason": {:hex, :jason, "1.4.4", "b9", [:mix], [{:decimal, "~> 1.0"}], "hexpm", "c5"},"#;
        assert_eq!(locked(line), Some(("jason".to_owned(), "1.4.4".to_owned())));
        assert_eq!(locked(r#"  "own": {:git, "https://host/own.git", "ab", []},"#), None);
        assert_eq!(locked("%{"), None);
    }

    #[test]
    fn elixir_apps_are_known_by_mix_exs() {
        let app = tempfile::tempdir().unwrap();
        assert!(Elixir.detect(app.path()).unwrap_err().contains("mix.exs"));
        std::fs::write(app.path().join(MANIFEST), "").unwrap();
        assert_eq!(Elixir.detect(app.path()), Ok(()));
        assert!(Elixir.packages(app.path()).run.contains(&"elixir".to_owned()));
    }
}
