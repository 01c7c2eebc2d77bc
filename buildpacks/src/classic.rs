//! Classic buildpacks of Heroku (Dev Center, "Buildpack API"): `bin/detect`, `bin/compile` and `bin/release` of a folder, run as
//! a Cloud Native Buildpack.
//!
//! They compile in place, in `/app`, and what they leave there is the app. Their cache is a layer; what their `export` sets is the
//! environment of a layer that only later buildpacks see; their default process types come before those of a Procfile.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libcnb::build::{BuildContext, BuildResult, BuildResultBuilder};
use libcnb::data::launch::LaunchBuilder;
use libcnb::data::layer::LayerName;
use libcnb::detect::{DetectContext, DetectResult, DetectResultBuilder};
use libcnb::generic::{GenericMetadata, GenericPlatform};
use libcnb::layer::{CachedLayerDefinition, InvalidMetadataAction, RestoredLayerAction, UncachedLayerDefinition};
use libcnb::layer_env::{LayerEnv, ModificationBehavior, Scope};
use saphyr_parser::{Event, Parser};

use crate::error::PackError;
use crate::{output, pack};

/// The folder of the classic buildpack, in that of the one around it.
pub(crate) const FOLDER: &str = "classic";

/// What `STACK` says: buildpacks choose binaries by it.
const STACK: &str = "heroku-24";

/// What every shell sets anew.
const SHELL_OWN: [&str; 4] = ["PWD", "OLDPWD", "SHLVL", "_"];

/// A classic buildpack.
pub(crate) struct Classic;

impl libcnb::Buildpack for Classic {
    type Platform = GenericPlatform;
    type Metadata = GenericMetadata;
    type Error = PackError;

    fn detect(&self, context: DetectContext<Self>) -> libcnb::Result<DetectResult, PackError> {
        let program = Program { folder: context.buildpack_dir.join(FOLDER), app: &context.app_dir };
        let said = program.output("detect").map_err(libcnb::Error::BuildpackError)?;
        if said.status.success() {
            return DetectResultBuilder::pass().build();
        }
        let lines = [said.stdout, said.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let why =
            lines.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("its bin/detect does not say why");
        output::not_detected(why);
        DetectResultBuilder::fail().build()
    }

    fn build(&self, context: BuildContext<Self>) -> libcnb::Result<BuildResult, PackError> {
        let program = Program { folder: context.buildpack_dir.join(FOLDER), app: &context.app_dir };
        let cache = cache(&context)?;
        let compile = program.run("compile", &[&cache, &std::path::absolute(platform_env()).unwrap_or_default()]);
        compile.map_err(libcnb::Error::BuildpackError)?;
        keep_environment(&context, "export", &Scope::Build, &program.exported()?, &ModificationBehavior::Override)?;
        let release = program.release().map_err(libcnb::Error::BuildpackError)?;
        keep_environment(&context, "release", &Scope::Launch, &release.config_vars, &ModificationBehavior::Default)?;
        let processes = release.default_process_types.iter().map(|(name, line)| {
            let line = String::from_utf8_lossy(line.as_bytes());
            pack::shell_process(&name.to_string_lossy(), &line)
        });
        let processes: Vec<_> = processes.collect::<Result<_, _>>().map_err(libcnb::Error::BuildpackError)?;
        BuildResultBuilder::new().launch(LaunchBuilder::new().processes(processes).build()).build()
    }

    fn on_error(&self, error: libcnb::Error<PackError>) {
        match error {
            libcnb::Error::BuildpackError(error) => output::error(&error.to_string()),
            other => output::error(&other.to_string()),
        }
    }
}

/// The config vars, one file each: what Heroku calls `ENV_DIR`.
fn platform_env() -> PathBuf {
    PathBuf::from(std::env::var_os("CNB_PLATFORM_DIR").unwrap_or_else(|| "/platform".into())).join("env")
}

type Variables = BTreeMap<OsString, OsString>;

/// What `bin/release` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Release {
    default_process_types: Variables,
    config_vars: Variables,
}

/// The programs of a classic buildpack.
struct Program<'a> {
    folder: PathBuf,
    app: &'a Path,
}

impl Program<'_> {
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join("bin").join(name));
        // Some find their own files by the folder that they are started in.
        command.arg(self.app).current_dir(&self.folder).stdin(Stdio::null()).env("STACK", STACK);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"CNB_")) {
            command.env_remove(name);
        }
        command
    }

    fn output(&self, name: &str) -> Result<Output, PackError> {
        let command = &mut self.command(name);
        command.output().map_err(|source| PackError::Start { command: format!("bin/{name}"), source })
    }

    /// Its output goes to the user as it is: it has Heroku's form already.
    fn run(&self, name: &str, arguments: &[&Path]) -> Result<(), PackError> {
        let status = self.command(name).args(arguments).status();
        let status = status.map_err(|source| PackError::Start { command: format!("bin/{name}"), source })?;
        if status.success() { Ok(()) } else { Err(PackError::Command { command: format!("bin/{name}"), status }) }
    }

    /// The variables that the buildpack's `export` sets, for buildpacks after it.
    fn exported(&self) -> libcnb::Result<Variables, PackError> {
        let export = self.folder.join("export");
        if !export.is_file() {
            return Ok(Variables::new());
        }
        let variables = |script: &str| {
            let mut command = Command::new("bash");
            command.args(["-c", script, "bash"]).arg(&export).current_dir(self.app).stdin(Stdio::null());
            let failed = |source| PackError::Start { command: "export".to_owned(), source };
            command.stderr(Stdio::inherit()).output().map(|output| parse_env(&output.stdout)).map_err(failed)
        };
        let before = variables("env -0").map_err(libcnb::Error::BuildpackError)?;
        let mut after = variables("source \"$1\" >&2; env -0").map_err(libcnb::Error::BuildpackError)?;
        after.retain(|name, value| before.get(name) != Some(value) && !SHELL_OWN.iter().any(|own| name == own));
        Ok(after)
    }

    fn release(&self) -> Result<Release, PackError> {
        if !self.folder.join("bin/release").is_file() {
            return Ok(Release::default());
        }
        let said = self.output("release")?;
        if !said.status.success() {
            return Err(PackError::Command { command: "bin/release".to_owned(), status: said.status });
        }
        Ok(read_release(&String::from_utf8_lossy(&said.stdout)))
    }
}

/// `NAME=value` entries with a zero after each, as `env -0` prints them.
fn parse_env(bytes: &[u8]) -> Variables {
    let entries = bytes.split(|byte| *byte == 0).filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        Some((OsString::from_vec(entry[..at].to_vec()), OsString::from_vec(entry[at + 1..].to_vec())))
    });
    entries.collect()
}

/// The two maps that matter of the YAML that `bin/release` prints. What is no YAML says nothing, as on Heroku.
fn read_release(text: &str) -> Release {
    let (mut release, mut path, mut key) = (Release::default(), Vec::<String>::new(), None::<String>);
    for event in Parser::new_from_str(text) {
        match event {
            Ok((Event::MappingStart(..) | Event::SequenceStart(..), _)) => path.push(key.take().unwrap_or_default()),
            Ok((Event::MappingEnd | Event::SequenceEnd, _)) => drop(path.pop()),
            Ok((Event::Scalar(value, ..), _)) => match key.take() {
                None => key = Some(value.into_owned()),
                Some(name) => {
                    let target = match path.as_slice() {
                        [_, section] if section == "default_process_types" => &mut release.default_process_types,
                        [_, section] if section == "config_vars" => &mut release.config_vars,
                        _ => continue,
                    };
                    target.insert(name.into(), value.into_owned().into());
                }
            },
            Ok(_) => {}
            Err(_) => break,
        }
    }
    release
}

fn layer_name(name: &str) -> libcnb::Result<LayerName, PackError> {
    name.parse().map_err(|_| libcnb::Error::BuildpackError(PackError::Internal(format!("layer name {name}"))))
}

/// `CACHE_DIR`: what the last build left there.
fn cache(context: &BuildContext<Classic>) -> libcnb::Result<PathBuf, PackError> {
    let definition = CachedLayerDefinition {
        build: false,
        launch: false,
        invalid_metadata_action: &|_| InvalidMetadataAction::<GenericMetadata>::DeleteLayer,
        restored_layer_action: &|_: &GenericMetadata, _| RestoredLayerAction::KeepLayer,
    };
    Ok(context.cached_layer(layer_name("cache")?, definition)?.path())
}

/// A layer that sets variables, if there are any.
fn keep_environment(
    context: &BuildContext<Classic>,
    layer: &str,
    scope: &Scope,
    variables: &Variables,
    how: &ModificationBehavior,
) -> libcnb::Result<(), PackError> {
    if variables.is_empty() {
        return Ok(());
    }
    let definition = UncachedLayerDefinition { build: *scope == Scope::Build, launch: *scope == Scope::Launch };
    let layer = context.uncached_layer(layer_name(layer)?, definition)?;
    let mut env = LayerEnv::new();
    for (name, value) in variables {
        env.insert(scope.clone(), how.clone(), OsStr::new(name), value);
    }
    layer.write_env(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn a_release_is_read_whatever_else_it_says() {
        let cases = [
            ("---\naddons: []\ndefault_process_types:\n  web: npm start\n", vec![("web", "npm start")], vec![]),
            ("addons:\n- a\n- b: c\nconfig_vars:\n  A: '1'\ndefault_process_types: {}\n", vec![], vec![("A", "1")]),
            ("default_process_types: {web: a, worker: 'b: c'}", vec![("web", "a"), ("worker", "b: c")], vec![]),
            ("", vec![], vec![]),
            ("--- {}", vec![], vec![]),
            ("\t no: [yaml", vec![], vec![]),
        ];
        for (text, processes, vars) in cases {
            let expected = Release { default_process_types: variables(&processes), config_vars: variables(&vars) };
            assert_eq!(read_release(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_export_sets_is_told_from_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program { folder: folder.path().to_owned(), app: folder.path() };
        assert_eq!(program.exported().unwrap(), Variables::new());
        let script = "echo noise\nexport A=$'two\\nlines' PATH=\"/mine:$PATH\"\nB=unexported\ncd /\n";
        std::fs::write(folder.path().join("export"), script).unwrap();
        let path = format!("/mine:{}", std::env::var("PATH").unwrap());
        assert_eq!(program.exported().unwrap(), variables(&[("A", "two\nlines"), ("PATH", &path)]));
    }
}
