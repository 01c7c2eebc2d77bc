//! The build phase: each buildpack of the group in turn. Runs inside the build container.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::buildpack::{Buildpack, Kind};
use crate::env::Env;
use crate::errors::Failure;
use crate::formats::{
    Api, BuildPlan, BuildToml, Command as CommandToml, LaunchProcess, LaunchToml, LayerToml, ProcessToml, Require,
    StoreToml, escaped,
};
use crate::lifecycle::{Paths, read_if_there};
use crate::outcome::{BuiltLayer, Outcome};
use crate::plan::Resolution;
use crate::sbom;

/// Names in a layers directory that are files of the buildpack, not layers.
const RESERVED: [&str; 3] = ["build", "launch", "store"];

/// Runs every buildpack of `group` and collects what they made into `outcome`. `met` are names that image extensions provide.
pub(crate) fn build(
    paths: &Paths,
    group: &[&Buildpack],
    (resolution, mut met): (&Resolution, BTreeSet<String>),
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let mut env = paths.base_env();
    let mut processes = Processes::default();
    for buildpack in group {
        let plan = plan_for(&buildpack.plan_id(), resolution, &met);
        let failed = |how| Failure::BuildpackFailed { buildpack: buildpack.name(), how };
        run(paths, buildpack, &plan, &env)?.map_err(failed)?;
        let results = Results::read(paths, buildpack)?;
        for layer in results.layers.iter().filter(|layer| layer.types.build) {
            let dir = paths.layers_of(buildpack.id()).join(&layer.name);
            env.add_build_layer(&dir).map_err(|error| Failure::io("read a layer's environment", &error))?;
        }
        met.extend(results.met(buildpack, &plan)?);
        processes.add(buildpack, results.launch.processes)?;
        sbom::collect(paths, buildpack, &results.layers)?;
        outcome.layers.extend(results.layers);
        outcome.labels.extend(results.launch.labels);
        outcome.slices.extend(results.launch.slices);
        if let Some(store) = results.store {
            outcome.stores.insert(buildpack.id().to_owned(), store.metadata);
        }
    }
    outcome.processes = processes.by_type.into_values().collect();
    outcome.default_process = processes.default;
    Ok(())
}

/// All requires of what `id` provides, but for names that an earlier buildpack met.
pub(crate) fn plan_for(id: &str, resolution: &Resolution, met: &BTreeSet<String>) -> BuildPlan {
    let provided = resolution.entries.iter().filter(|entry| entry.providers.iter().any(|provider| provider == id));
    let requires = provided.flat_map(|entry| &entry.requires).filter(|require| !met.contains(&require.name));
    BuildPlan { entries: requires.cloned().collect::<Vec<Require>>() }
}

/// Runs `bin/build` of a buildpack or `bin/generate` of an extension. The inner error says how it failed.
pub(crate) fn run(
    paths: &Paths,
    buildpack: &Buildpack,
    plan: &BuildPlan,
    env: &Env,
) -> Result<Result<(), String>, Failure> {
    let trouble = |error: io::Error| Failure::io("run a buildpack", &error);
    let id = buildpack.id();
    let (program, output, variable) = match buildpack.kind {
        Kind::Buildpack => ("build", paths.layers_of(id), "CNB_LAYERS_DIR"),
        Kind::Extension => ("generate", paths.generated_by(id), "CNB_OUTPUT_DIR"),
    };
    fs::create_dir_all(&output).map_err(trouble)?;
    let scratch = paths.scratch(&format!("{program}-{}", escaped(id))).map_err(trouble)?;
    let plan_path = scratch.join("plan.toml");
    let text = toml::to_string(plan).map_err(|error| Failure::unusable(&plan_path, &error))?;
    fs::write(&plan_path, text).map_err(trouble)?;
    let mut env = paths.buildpack_env(buildpack, env).map_err(trouble)?;
    if buildpack.api() >= Api::new(0, 8) {
        env.set(variable, &output);
        env.set("CNB_BP_PLAN_PATH", &plan_path);
    }
    let mut command = Command::new(buildpack.dir.join("bin").join(program));
    command.arg(&output).arg(&paths.platform).arg(&plan_path);
    command.current_dir(&paths.app).env_clear().envs(env.iter()).stdin(Stdio::null());
    Ok(match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(how_it_ended(status)),
        Err(error) => Err(format!("could not be started: {error}")),
    })
}

fn how_it_ended(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}

/// What one buildpack left in its layers directory.
struct Results {
    layers: Vec<BuiltLayer>,
    launch: LaunchToml,
    build: BuildToml,
    store: Option<StoreToml>,
}

impl Results {
    fn read(paths: &Paths, buildpack: &Buildpack) -> Result<Self, Failure> {
        let dir = paths.layers_of(buildpack.id());
        Ok(Self {
            layers: read_layers(&dir, buildpack)?,
            launch: read_toml(&dir.join("launch.toml"), buildpack)?.unwrap_or_default(),
            build: read_toml(&dir.join("build.toml"), buildpack)?.unwrap_or_default(),
            store: read_toml(&dir.join("store.toml"), buildpack)?,
        })
    }

    /// Names of the plan that this buildpack met: all but those it lists as unmet.
    fn met(&self, buildpack: &Buildpack, plan: &BuildPlan) -> Result<Vec<String>, Failure> {
        let planned: BTreeSet<&str> = plan.entries.iter().map(|entry| entry.name.as_str()).collect();
        let unmet: BTreeSet<&str> = self.build.unmet.iter().map(|unmet| unmet.name.as_str()).collect();
        if let Some(stranger) = unmet.difference(&planned).next() {
            return Err(invalid(buildpack, format!("build.toml calls {stranger:?} unmet, which is not in its plan")));
        }
        Ok(planned.difference(&unmet).map(|name| (*name).to_owned()).collect())
    }
}

fn invalid(buildpack: &Buildpack, problem: String) -> Failure {
    Failure::BuildpackInvalid { buildpack: buildpack.name(), problem }
}

/// Every `<layer>.toml` with at least one flag. One without takes no part: its directory is put aside and goes with the container.
fn read_layers(dir: &Path, buildpack: &Buildpack) -> Result<Vec<BuiltLayer>, Failure> {
    let trouble = |error: io::Error| Failure::io("read a buildpack's layers", &error);
    let mut layers = Vec::new();
    for entry in dir.read_dir().map_err(trouble)? {
        let file = entry.map_err(trouble)?.file_name();
        let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".toml")) else { continue };
        if RESERVED.contains(&name) {
            continue;
        }
        let text = fs::read_to_string(dir.join(&file)).map_err(trouble)?;
        let toml = LayerToml::parse(&text).map_err(|problem| invalid(buildpack, format!("{name}.toml: {problem}")))?;
        let types = toml.types.unwrap_or_default();
        if types.is_none() {
            put_aside(dir, name).map_err(trouble)?;
        } else {
            let (buildpack, name) = (buildpack.id().to_owned(), name.to_owned());
            layers.push(BuiltLayer { buildpack, name, types, metadata: toml.metadata });
        }
    }
    layers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(layers)
}

/// Takes the layer `name`, which is for nothing, out of the way of the buildpacks that follow (Buildpack spec, "Layer Types").
fn put_aside(dir: &Path, name: &str) -> io::Result<()> {
    let layer = dir.join(name);
    match fs::rename(&layer, dir.join(format!("{name}.ignore"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // An overlay does not rename what lies below it.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => fs::remove_dir_all(&layer),
        renamed => renamed,
    }
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &Path, buildpack: &Buildpack) -> Result<Option<T>, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = read_if_there(path).map_err(|error| invalid(buildpack, format!("{name}: {error}")))?;
    let parse = |text: String| {
        toml::from_str(&text).map_err(|error| invalid(buildpack, format!("{name}: {}", error.message())))
    };
    text.map(parse).transpose()
}

/// Process types, merged over the group: the last definition of a type wins whole, and so does the last default.
#[derive(Default)]
struct Processes {
    by_type: BTreeMap<String, LaunchProcess>,
    default: Option<String>,
}

impl Processes {
    fn add(&mut self, buildpack: &Buildpack, processes: Vec<ProcessToml>) -> Result<(), Failure> {
        if processes.iter().filter(|process| process.default).count() > 1 {
            return Err(invalid(buildpack, "launch.toml: more than one process is the default".to_owned()));
        }
        for process in processes.into_iter().filter(|process| buildpack.is_for_us(process.exec_env)) {
            let default = process.default;
            let process = launch_process(buildpack, process)?;
            if default {
                self.default = Some(process.process_type.clone());
            } else if self.default.as_ref() == Some(&process.process_type) {
                self.default = None;
            }
            self.by_type.insert(process.process_type.clone(), process);
        }
        Ok(())
    }
}

fn launch_process(buildpack: &Buildpack, process: ProcessToml) -> Result<LaunchProcess, Failure> {
    let refuse =
        |problem: &str| invalid(buildpack, format!("launch.toml: process {:?} {problem}", process.process_type));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if process.process_type.is_empty() || !process.process_type.chars().all(allowed) {
        return Err(refuse("has a type that is not letters, digits, dots, underscores and dashes"));
    }
    let (command, direct) = match (process.command.clone(), buildpack.api() >= Api::new(0, 9)) {
        (CommandToml::Words(_), true) if process.direct.is_some() => {
            return Err(refuse("has the key `direct`, gone since API 0.9"));
        }
        (CommandToml::Words(words), true) if words.is_empty() => return Err(refuse("has an empty command")),
        (CommandToml::Words(words), true) => (words, true),
        (CommandToml::Line(line), false) => (vec![line], process.direct.unwrap_or(false)),
        (CommandToml::Line(_), true) => return Err(refuse("has a string as its command; since API 0.9 it is a list")),
        (CommandToml::Words(_), false) => {
            return Err(refuse("has a list as its command; before API 0.9 it is a string"));
        }
    };
    let working_dir = process.working_dir.clone().filter(|_| buildpack.api() >= Api::new(0, 8));
    Ok(LaunchProcess {
        // Heroku's and Kubernetes' names have neither capitals nor underscores, and one app must have the same name everywhere.
        process_type: process.process_type.to_ascii_lowercase().replace(['_', '.'], "-"),
        command,
        args: process.args,
        direct,
        buildpack_id: buildpack.id().to_owned(),
        working_dir,
    })
}
