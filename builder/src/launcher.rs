//! The CNB launcher: what `/cnb/process/<type>` and `/cnb/lifecycle/launcher` run inside a container (Platform spec, "launcher").
//! It sets the stage and becomes the process: no shell stays in between.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use command_fds::{CommandFdExt, FdMapping};

use crate::env::{Env, layer_dirs};
use crate::formats::{Api, LaunchMetadata, LaunchProcess, escaped};

/// The launcher's exit code when it cannot launch.
const FAILED: u8 = 82;

/// Becomes the process that `argv` asks for; returns only when it cannot.
pub fn main(argv: &[OsString]) -> ExitCode {
    let error = match Launch::prepare(argv, std::env::vars_os()).and_then(Launch::command) {
        Ok(mut command) => {
            let error = command.exec();
            format!("cannot start {}: {error}", command.get_program().display())
        }
        Err(error) => error,
    };
    complain(&error);
    ExitCode::from(FAILED)
}

#[expect(clippy::print_stderr, reason = "this is a process of its own, in an app's container")]
fn complain(error: &str) {
    eprintln!("launcher: {error}");
}

/// What is to run, and in which surroundings.
struct Launch {
    app: PathBuf,
    layers: PathBuf,
    metadata: LaunchMetadata,
    argv0: OsString,
    plan: Plan,
    env: Env,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// A process type of the image, with the caller's arguments.
    Process(LaunchProcess, Vec<OsString>),
    /// A program and its arguments.
    Direct(Vec<OsString>),
    /// A line for the shell, and arguments if it is a single word.
    Shell(Vec<OsString>),
}

impl Launch {
    fn prepare(argv: &[OsString], own: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, String> {
        let own: Vec<(OsString, OsString)> = own.collect();
        let dir = |name: &str, default: &str| {
            own.iter()
                .find(|(key, _)| key == name)
                .map_or_else(|| PathBuf::from(default), |(_, value)| PathBuf::from(value))
        };
        let (app, layers) = (dir("CNB_APP_DIR", "/app"), dir("CNB_LAYERS_DIR", "/layers"));
        let file = layers.join("config/metadata.toml");
        let text = fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let metadata: LaunchMetadata =
            toml::from_str(&text).map_err(|error| format!("{} is damaged: {}", file.display(), error.message()))?;
        let plan = Plan::of(argv, &metadata)?;
        let argv0 = argv.first().cloned().unwrap_or_default();
        Ok(Self { app, layers, metadata, argv0, plan, env: Env::for_launch(own.into_iter()) })
    }

    /// The command, its directory and its environment; runs the `exec.d` programs on the way.
    fn command(mut self) -> Result<Command, String> {
        let process_type = match &self.plan {
            Plan::Process(process, _) => Some(process.process_type.clone()),
            _ => None,
        };
        let process_type = process_type.as_deref();
        let buildpacks = self.buildpack_layers().map_err(|error| format!("cannot read the layers: {error}"))?;
        for layers in &buildpacks {
            self.env
                .add_launch_layers(layers, process_type)
                .map_err(|error| format!("cannot read a layer: {error}"))?;
        }
        let all: Vec<&PathBuf> = buildpacks.iter().flatten().collect();
        for layer in &all {
            for program in executables(layer, "exec.d", process_type) {
                let set = self.exec_d(&program).map_err(|error| format!("{}: {error}", program.display()))?;
                for (name, value) in set {
                    self.env.set(name, value);
                }
            }
        }
        let profiles: Vec<PathBuf> =
            all.iter().flat_map(|layer| executables(layer, "profile.d", process_type)).collect();
        let words = self.words(&profiles);
        let (program, args) = words.split_first().ok_or("the command is empty")?;
        let mut command = Command::new(self.resolve(program));
        command.args(args).env_clear().envs(self.env.iter()).current_dir(self.working_dir());
        Ok(command)
    }

    fn buildpack_layers(&self) -> io::Result<Vec<Vec<PathBuf>>> {
        self.metadata.buildpacks.iter().map(|buildpack| layer_dirs(&self.layers.join(escaped(&buildpack.id)))).collect()
    }

    fn working_dir(&self) -> PathBuf {
        match &self.plan {
            Plan::Process(LaunchProcess { working_dir: Some(dir), .. }, _) => self.app.join(dir),
            _ => self.app.clone(),
        }
    }

    /// Program and arguments. A profile is sourced where a shell runs anyway: in shell processes and in Procfile lines.
    fn words(&self, profiles: &[PathBuf]) -> Vec<OsString> {
        match &self.plan {
            Plan::Direct(words) => words.clone(),
            Plan::Shell(words) => self.shell(words, profiles),
            Plan::Process(process, user_args) => {
                let owned = |words: &[String]| words.iter().map(OsString::from).collect::<Vec<_>>();
                let mut words = owned(&process.command);
                if self.keeps_default_args(process) {
                    words.extend(owned(&process.args));
                    words.extend_from_slice(user_args);
                } else {
                    words.extend(if user_args.is_empty() { owned(&process.args) } else { user_args.clone() });
                }
                match words.as_mut_slice() {
                    _ if !process.direct => self.shell(&words, profiles),
                    [shell, flag, line, ..] if is_bash(shell) && flag == "-c" => {
                        *line = self.with_profiles(&self.app_profiles(), line);
                        words
                    }
                    _ => words,
                }
            }
        }
    }

    /// Before Buildpack API 0.9, a caller's arguments came after the process's own.
    fn keeps_default_args(&self, process: &LaunchProcess) -> bool {
        let by = |id: &str| self.metadata.buildpacks.iter().find(|buildpack| buildpack.id == id);
        by(&process.buildpack_id).is_some_and(|buildpack| buildpack.api < Api::new(0, 9))
    }

    /// `bash` over the profiles and then the command: a script if it stands alone, else words that are expanded one by one.
    fn shell(&self, words: &[OsString], profiles: &[PathBuf]) -> Vec<OsString> {
        let profiles: Vec<PathBuf> = profiles.iter().cloned().chain(self.app_profiles()).collect();
        let script = self.with_profiles(&profiles, OsStr::new("exec bash -c \"$@\""));
        let mut shell: Vec<OsString> = vec!["/bin/bash".into(), "-c".into(), script, self.argv0.clone()];
        if words.len() > 1 {
            let expand = |index| format!("\"$(eval echo \\\"${{{index}}}\\\")\"");
            let expanded: Vec<String> = (0..words.len()).map(expand).collect();
            shell.push(format!("exec {}", expanded.join(" ")).into());
        }
        shell.extend_from_slice(words);
        shell
    }

    /// `script` after sourcing `profiles`, which find themselves in the app's folder and may leave it as Heroku's do.
    fn with_profiles(&self, profiles: &[PathBuf], script: &OsStr) -> OsString {
        let mut text: Vec<u8> = profiles.iter().flat_map(|profile| line("source", profile)).collect();
        let working_dir = self.working_dir();
        if working_dir != self.app {
            text = [line("cd", &self.app), text, line("cd", &working_dir)].concat();
        }
        text.extend_from_slice(script.as_bytes());
        OsString::from_vec(text)
    }

    /// Heroku's `.profile.d/*.sh`, then `.profile`.
    fn app_profiles(&self) -> Vec<PathBuf> {
        let scripts = files_of(&self.app.join(".profile.d"));
        let mut profiles: Vec<PathBuf> =
            scripts.into_iter().filter(|path| path.extension() == Some(OsStr::new("sh"))).collect();
        profiles.extend(Some(self.app.join(".profile")).filter(|path| path.is_file()));
        profiles
    }

    /// Runs one `exec.d` program; it writes the variables it sets to its file descriptor 3 as TOML.
    fn exec_d(&self, program: &Path) -> Result<BTreeMap<String, String>, String> {
        let trouble = |error: io::Error| error.to_string();
        let (mut reader, writer) = io::pipe().map_err(trouble)?;
        let mut command = Command::new(program);
        command.env_clear().envs(self.env.iter()).current_dir(&self.app);
        let mapping = FdMapping { parent_fd: OwnedFd::from(writer), child_fd: 3 };
        command.fd_mappings(vec![mapping]).map_err(|error| error.to_string())?;
        let mut child = command.spawn().map_err(trouble)?;
        // The command holds the pipe's other end: reading would not end before it goes.
        drop(command);
        let mut text = String::new();
        reader.read_to_string(&mut text).map_err(trouble)?;
        let status = child.wait().map_err(trouble)?;
        if !status.success() {
            return Err(format!("failed: {status}"));
        }
        toml::from_str(&text).map_err(|error| format!("wrote variables that are not TOML strings: {}", error.message()))
    }

    /// The program by the final `PATH`, not by the launcher's own.
    fn resolve(&self, program: &OsStr) -> PathBuf {
        if program.as_bytes().contains(&b'/') {
            return PathBuf::from(program);
        }
        let path = self.env.get("PATH").unwrap_or_default();
        let mut candidates = std::env::split_paths(path).map(|dir| dir.join(program));
        candidates
            .find(|candidate| {
                nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok() && candidate.is_file()
            })
            .unwrap_or_else(|| PathBuf::from(program))
    }
}

impl Plan {
    fn of(words: &[OsString], metadata: &LaunchMetadata) -> Result<Self, String> {
        let (name, args) = words.split_first().ok_or("it was started without a name")?;
        let name = Path::new(name).file_name().unwrap_or_default();
        if let Some(process) = metadata.processes.iter().find(|process| name == process.process_type.as_str()) {
            return Ok(Self::Process(process.clone(), args.to_vec()));
        }
        match args {
            [] => {
                let types: Vec<&str> = metadata.processes.iter().map(|process| process.process_type.as_str()).collect();
                let types = if types.is_empty() { "none".to_owned() } else { types.join(", ") };
                Err(format!("a process type or a command is required; process types: {types}"))
            }
            [dashes, words @ ..] if dashes == "--" => Ok(Self::Direct(words.to_vec())),
            words => Ok(Self::Shell(words.to_vec())),
        }
    }
}

fn is_bash(program: &OsStr) -> bool {
    program == "bash" || program == "/bin/bash"
}

/// A line of a shell script: a word and a path.
fn line(word: &str, path: &Path) -> Vec<u8> {
    let quoted = path.as_os_str().as_bytes().split(|byte| *byte == b'\'').collect::<Vec<_>>().join(&b"'\\''"[..]);
    [word.as_bytes(), b" '", quoted.as_slice(), b"'\n"].concat()
}

/// The files of `<layer>/<dir>`, then those of `<layer>/<dir>/<type>`.
fn executables(layer: &Path, dir: &str, process_type: Option<&str>) -> Vec<PathBuf> {
    let dir = layer.join(dir);
    let mut files = files_of(&dir);
    files.extend(process_type.into_iter().flat_map(|process_type| files_of(&dir.join(process_type))));
    files
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let entries = dir.read_dir().into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests;
