//! Deno: apps with a deno.json.
//!
//! Deno comes from the npm registry. What the app imports is in a layer that the running app reads too.

use std::path::{Path, PathBuf};

use libcnb::data::launch::Process;

use crate::bill::{Bill, Registry};
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::nodejs::registry::{self, Wanted};
use crate::output;
use crate::pack::{self, Build, Language, Layer, Use};

pub(crate) struct Deno;

/// Any of these makes an app one of Deno's.
const SETTINGS: [&str; 2] = ["deno.json", "deno.jsonc"];
const LOCK: &str = "deno.lock";
/// Files that name a version.
const VERSIONS: [&str; 2] = [".deno-version", ".dvmrc"];
/// Folder of the imports' layer.
const CACHE: &str = "cache";
const DEFAULT: &str = "2.x";
/// What decides what is downloaded, beside the app's own imports.
const IMPORTS: [&str; 6] = ["deno.json", "deno.jsonc", LOCK, "import_map.json", "package.json", ".npmrc"];
/// Where `Deno.serve` listens if the app names no port, or one that the dyno does not have.
const ADDRESS: &str = r#"#!/bin/sh
[ -z "${PORT:-}" ] || [ -n "${DENO_SERVE_ADDRESS:-}" ] || printf 'DENO_SERVE_ADDRESS = "tcp:0.0.0.0:%s"\n' "$PORT" >&3
"#;
/// How lines begin that Deno writes of every single package, hundreds of them.
const NOISE: [&str; 2] = ["Download ", "Initialize "];
/// Programs that start an app without a start task, as railpack looks for them.
const PROGRAMS: [&str; 9] =
    ["main.ts", "main.js", "main.mjs", "main.mts", "server.ts", "index.ts", "app.ts", "src/main.ts", "src/index.ts"];

impl Language for Deno {
    fn detect(&self, app: &Path) -> Result<(), String> {
        let is_there = |name: &str| app.join(name).is_file();
        let is_locked = is_there(LOCK) && !is_there("package.json");
        if SETTINGS.iter().any(|name| is_there(name)) || is_locked || procfile_runs_deno(app) {
            Ok(())
        } else {
            Err(format!("Deno: none of {}, {LOCK} at the top of the app", SETTINGS.join(", ")))
        }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let runtime = Runtime::install(build)?;
        let tasks = runtime.tasks(app)?;
        let program = PROGRAMS.into_iter().find(|name| app.join(name).is_file());
        runtime.download(app, program)?;
        runtime.imports.bill(&bill(&files::read(app, LOCK)?.unwrap_or_default()))?;
        if tasks.iter().any(|task| task == "build") {
            output::heading("Running the task build");
            let explain = |status, _: &str| Some(PackError::DenoTask { status });
            runtime.run(app, &["task", "build"]).show_or_fail(explain)?;
        }
        if tasks.iter().any(|task| task == "start") {
            return Ok(vec![pack::process("web", ["deno", "task", "start"])?]);
        }
        let web = program.map(|name| pack::process("web", ["deno", "run", "--allow-all", name]));
        if web.is_none() && !app.join("Procfile").is_file() {
            output::warning(
                "nothing says how the app starts. Add a task: \"tasks\": { \"start\": \"deno run --allow-net main.ts\" }",
            );
        }
        web.transpose().map(|process| process.into_iter().collect())
    }
}

/// An app may have no settings at all, and say in its Procfile what runs it.
fn procfile_runs_deno(app: &Path) -> bool {
    let procfile = std::fs::read_to_string(app.join("Procfile")).unwrap_or_default();
    procfile.lines().filter_map(|line| line.split_once(':')).any(|(_, command)| command.trim().starts_with("deno "))
}

/// Deno in the build.
struct Runtime {
    bin: PathBuf,
    /// Where it keeps what apps import.
    imports: Layer,
    is_locked: bool,
}

impl Runtime {
    fn install(build: &Build) -> Result<Self, PackError> {
        let app = build.app();
        let (range, file) = asked(app)?;
        let key = Key::new("deno 2")
            .with("the wanted version", range.as_bytes())
            .with("the architecture", build.arch().as_bytes());
        let layer = build.layer("deno", Use::LaunchBuildCache, key)?;
        if !layer.is_kept {
            output::heading(&format!("Installing Deno {range}"));
            let package = if build.arch() == "arm64" { "@deno/linux-arm64-glibc" } else { "@deno/linux-x64-glibc" };
            let wanted = Wanted { what: "Deno", range: &range, file: file.unwrap_or("the buildpack") };
            let bin = layer.path().join("bin");
            std::fs::create_dir_all(&bin).map_err(files::failed("make", &bin))?;
            let version = registry::unpack((&bin, &build.downloads(), None), package, &wanted, &["*/deno"])?;
            layer.bill(&Bill::default().with_runtime("deno", &version))?;
            layer.finish()?;
        }
        let cached = if layer.is_kept { ", cached" } else { "" };
        output::heading(&format!(
            "Using Deno {range} ({}{cached})",
            file.unwrap_or("nothing asks for another: the default")
        ));
        let key = Key::new("imports 2").with("the version of Deno", range.as_bytes()).with_files(app, IMPORTS);
        let imports = build.layer("imports", Use::LaunchBuildCache, key)?;
        if !imports.is_kept {
            let cache = imports.path().join(CACHE);
            imports.launch_defaults(&[("DENO_DIR", &cache.to_string_lossy()), ("DENO_NO_UPDATE_CHECK", "1")])?;
            imports.launch_script("serve-address", ADDRESS)?;
            imports.finish()?;
        }
        Ok(Self { bin: layer.path().join("bin"), imports, is_locked: app.join(LOCK).is_file() })
    }

    fn run(&self, app: &Path, arguments: &[&str]) -> Run {
        Run::new(app, "deno", arguments)
            .path(&self.bin)
            .env("DENO_DIR", self.imports.path().join(CACHE))
            .env("DENO_NO_UPDATE_CHECK", "1")
            .env("NO_COLOR", "1")
    }

    /// Downloads what the settings and `program` import, if it is not there from the last build.
    fn download(&self, app: &Path, program: Option<&str>) -> Result<(), PackError> {
        output::heading("Installing what the app imports");
        let has_settings = SETTINGS.iter().chain(["package.json"].iter()).any(|name| app.join(name).is_file());
        let words = ["install", if self.is_locked { "--frozen" } else { "--quiet" }];
        let explain = |status, _: &str| Some(PackError::DenoImports { status });
        if has_settings {
            self.run(app, &words).without(&NOISE).show_or_fail(explain)?;
        }
        match program {
            Some(program) => self.run(app, &["cache", program]).without(&NOISE).show_or_fail(explain),
            None => Ok(()),
        }
    }

    /// The names of the app's tasks. Settings may have comments in them, which Deno's own language reads.
    fn tasks(&self, app: &Path) -> Result<Vec<String>, PackError> {
        let Some(name) = SETTINGS.into_iter().find(|name| app.join(name).is_file()) else { return Ok(Vec::new()) };
        let script = format!(
            "const text = Deno.readTextFileSync('{name}'); console.log(JSON.stringify(Object.keys(eval('(' + text + ')').tasks ?? {{}})))"
        );
        let list = self.run(app, &["eval", "--no-config", "--no-lock", &script]).read()?;
        serde_json::from_str(&list).map_err(|error| PackError::Malformed { file: name, reason: error.to_string() })
    }
}

/// What deno.lock names, which Deno has written by now if the app has none: `"npm": {"chalk@5.3.0_peer@1.0.0": …}`.
fn bill(lock: &str) -> Bill {
    let lock: serde_json::Value = serde_json::from_str(lock).unwrap_or_default();
    let of = |registry, key: &str| {
        // Before version 4 the lists were one level down.
        let list = [&lock[key], &lock["packages"][key]].into_iter().find_map(serde_json::Value::as_object);
        let package = |name: &String| {
            let at = name.get(1..)?.find('@')? + 1;
            let version = name[at + 1..].split('_').next().unwrap_or_default();
            Some((name[..at].to_owned(), version.to_owned()))
        };
        Bill::of(registry, list.into_iter().flat_map(|list| list.keys()).filter_map(package))
    };
    of(Registry::Npm, "npm").with(of(Registry::Jsr, "jsr"))
}

/// A version range, and the file that names it.
fn asked(app: &Path) -> Result<(String, Option<&'static str>), PackError> {
    for file in VERSIONS {
        let text = files::read(app, file)?.unwrap_or_default();
        let version = text.trim().trim_start_matches('v');
        if !version.is_empty() {
            return Ok((version.to_owned(), Some(file)));
        }
    }
    let manifest = files::read(app, "package.json")?.unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap_or_default();
    let engine = manifest["engines"]["deno"].as_str().map(str::to_owned);
    Ok(engine.map_or_else(|| (DEFAULT.to_owned(), None), |range| (range, Some("package.json (engines.deno)"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deno_apps_are_known_by_their_settings_or_their_procfile() {
        for (files, expected) in [
            (vec![("deno.json", "{}")], true),
            (vec![("deno.jsonc", "")], true),
            (vec![("deno.lock", "")], true),
            (vec![("deno.lock", ""), ("package.json", "{}")], false),
            (vec![("Procfile", "web: deno run main.ts\n")], true),
            (vec![("Procfile", "web: node main.js\n")], false),
            (vec![("main.ts", "")], false),
        ] {
            let app = tempfile::tempdir().unwrap();
            for (name, text) in &files {
                std::fs::write(app.path().join(name), text).unwrap();
            }
            assert_eq!(Deno.detect(app.path()).is_ok(), expected, "{files:?}");
        }
    }

    #[test]
    fn a_server_listens_on_the_dynos_port_unless_the_user_says_where() {
        let told = |variables: &[(&str, &str)]| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", &ADDRESS.replace(" >&3", "")]).env_clear().envs(variables.iter().copied());
            let output = command.output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(told(&[("PORT", "5000")]), "DENO_SERVE_ADDRESS = \"tcp:0.0.0.0:5000\"\n");
        assert_eq!(told(&[("PORT", "5000"), ("DENO_SERVE_ADDRESS", "tcp:0.0.0.0:1")]), "");
        assert_eq!(told(&[]), "");
    }

    #[test]
    fn imports_are_billed_by_every_version_of_the_lock_file() {
        let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let npm = |name, version| Bill::of(Registry::Npm, [pair(name, version)]);
        let lock =
            r#"{"version":"5","jsr":{"@std/path@1.0.8":{}},"npm":{"chalk@5.3.0":{},"@a/b@1.0.0_react@18.2.0":{}}}"#;
        let expected = npm("chalk", "5.3.0").with(npm("@a/b", "1.0.0"));
        assert_eq!(bill(lock), expected.with(Bill::of(Registry::Jsr, [pair("@std/path", "1.0.8")])));
        assert_eq!(bill(r#"{"version":"3","packages":{"npm":{"chalk@5.3.0":{}}}}"#), npm("chalk", "5.3.0"));
        assert_eq!(bill(r#"{"npm":{"":{},"x":{}}}"#), Bill::default());
        assert_eq!(bill(""), Bill::default());
    }

    #[test]
    fn the_first_file_that_names_a_version_counts() {
        let app = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(app.path().join(name), text).unwrap();
        assert_eq!(asked(app.path()).unwrap(), ("2.x".to_owned(), None));
        write("package.json", r#"{"engines": {"deno": "^1.40"}}"#);
        assert_eq!(asked(app.path()).unwrap(), ("^1.40".to_owned(), Some("package.json (engines.deno)")));
        write(".dvmrc", "v2.1.0\n");
        assert_eq!(asked(app.path()).unwrap(), ("2.1.0".to_owned(), Some(".dvmrc")));
    }
}
