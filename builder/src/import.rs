//! Images that were made elsewhere: their layers laid over each other, owned by the app, as one layer of the store.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use model::{Digest, Foreign, Image, ImageConfig, Layer, Process, ProcessType};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::errors::BuildError;
use crate::flatten::{Flat, Owner};
use crate::launcher_layer::LAUNCHER;
use crate::metadata::BUILD_LABEL;
use crate::oci::{Layout, Settings};
use crate::stack::Stack;
use crate::unpack::UnpackError;
use crate::workspace::Workspace;
use crate::{BuildRequest, Builder, Built, Phases, Reference, blocking, disk, image, launcher_layer, tree};

/// `PATH` of an image that says none, as Docker has it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SHELL: &str = "/bin/sh";
/// The port that web processes must listen on, as images write ports.
const PORT: &str = "5000/tcp";
/// Label with what the platform runs in the image: it is another one if that changes.
const PROCESSES_LABEL: &str = "platform.processes";

/// Where an image is.
#[derive(Debug, Clone)]
pub enum ImageSource {
    /// In a registry, by this name.
    Registry(String),
    /// In an OCI layout, on the layer store's file system. The import takes the folder over and removes it.
    Layout(PathBuf),
}

/// One image to run as an app.
#[derive(Debug, Clone)]
pub struct ForeignImage {
    /// What people call it.
    pub name: String,
    /// Where it is.
    pub place: ImageSource,
    /// Command lines of process types, beside or in place of what the image runs by itself.
    pub processes: BTreeMap<ProcessType, String>,
}

type Request = BuildRequest<ForeignImage>;

/// What an image says of itself, and where its files are now.
struct Imported {
    layer: Digest,
    config: ImageConfig,
    foreign: Foreign,
}

/// The label of buildpacks' images, as far as it matters.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Launchable {
    processes: Vec<Launch>,
}

#[derive(Deserialize)]
struct Launch {
    #[serde(rename = "type")]
    process_type: ProcessType,
}

impl Builder {
    /// Makes an image runnable that was made elsewhere.
    pub(crate) async fn import(
        &self,
        request: Request,
        (phases, output): (&mut Phases, &mpsc::Sender<String>),
    ) -> Result<Built, BuildError> {
        let stack = self.begin()?;
        let workspace = Workspace::make(self, request.build)?;
        let manifest = tokio::select! {
            manifest = tokio::time::timeout(self.limits.time, self.bring(&request, &workspace)) => {
                manifest.map_err(|_| BuildError::TimeLimit { limit: self.limits.time })??
            }
            outgrown = disk::outgrown(self, &workspace) => return Err(outgrown),
        };
        phases.end("fetch");
        let layout = workspace.app();
        let built = self.take_over((request, stack, workspace), (manifest, layout), output).await?;
        phases.end("import");
        Ok(built)
    }

    /// Makes the image in a layout this platform's own. `manifest` is what names it where it came from, if not its own.
    pub(crate) async fn take_over(
        &self,
        (request, stack, workspace): (Request, Stack, Workspace),
        (manifest, layout): (Option<Digest>, PathBuf),
        output: &mpsc::Sender<String>,
    ) -> Result<Built, BuildError> {
        let (builder, sender) = (self.clone(), output.clone());
        let made = blocking(move || {
            let mut say = |line: String| drop(sender.blocking_send(line));
            let same = manifest.as_ref().and_then(|manifest| builder.same(&request, manifest));
            let imported = match same {
                Some(same) => same,
                None => builder.unpack(&request, (manifest, &layout), &workspace, &mut say)?,
            };
            if request
                .previous
                .as_ref()
                .is_some_and(|previous| previous.layers.iter().any(|it| it.diff_id == imported.layer))
            {
                say(format!("-----> The image {} is that of the last release", request.source.name));
            }
            builder.finish(&request, &stack, imported, &workspace)
        });
        let (image, size_bytes) = made.await?;
        let names = image.processes.iter().map(|process| process.process_type.as_str()).collect::<Vec<_>>().join(", ");
        let _ = output.send(format!("       Process types: {names}")).await;
        Ok(Built { image, buildpacks: Vec::new(), size_bytes, phases: Vec::new() })
    }

    /// Brings the layout into the workspace, unless the image is that of the last release. Says what names it where it is.
    async fn bring(&self, request: &Request, workspace: &Workspace) -> Result<Option<Digest>, BuildError> {
        let name = match &request.source.place {
            ImageSource::Layout(folder) => return workspace.take(folder).map(|()| None),
            ImageSource::Registry(name) => Reference::Image(name.clone()),
        };
        let failed = |problem| BuildError::Image { name: request.source.name.clone(), problem };
        let revision = request.fetch.revision(&name).await.map_err(failed)?;
        let digest = revision.parse().map_err(|_| failed(format!("{revision:?} is no digest")))?;
        if self.same(request, &digest).is_none() {
            let folder = workspace.app();
            fs::create_dir(&folder).map_err(|source| BuildError::Io {
                action: "make",
                path: folder.clone(),
                source,
            })?;
            request.fetch.fetch(&name, &revision, &folder).await.map_err(failed)?;
        }
        Ok(Some(digest))
    }

    /// The image of the last release, if it is this one.
    fn same(&self, request: &Request, manifest: &Digest) -> Option<Imported> {
        let previous = request.previous.as_ref()?;
        let foreign = previous.foreign.as_ref().filter(|foreign| foreign.manifest == *manifest)?;
        let layer = previous.layers.first().map(|layer| layer.diff_id.clone())?;
        let foreign = Foreign { name: request.source.name.clone(), ..foreign.clone() };
        self.layers.contains(&layer).then(|| Imported { layer, config: previous.config.clone(), foreign })
    }

    /// Lays the layers over each other, and puts the result into the store.
    fn unpack(
        &self,
        request: &Request,
        (manifest, layout): (Option<Digest>, &Path),
        workspace: &Workspace,
        say: &mut dyn FnMut(String),
    ) -> Result<Imported, BuildError> {
        let name = &request.source.name;
        let failed = |error: UnpackError| BuildError::Image { name: name.clone(), problem: error.to_string() };
        let layout = Layout::read(layout).map_err(failed)?;
        if let Some(same) = self.same(request, &layout.manifest) {
            return Ok(same);
        }
        if !layout.is_ours() {
            let problem = format!("it is for {}, and this machine is {}", layout.architecture, crate::architecture());
            return Err(BuildError::Image { name: name.clone(), problem });
        }
        let (count, s) = (layout.layers.len(), if layout.layers.len() == 1 { "" } else { "s" });
        say(format!("-----> Importing the image {name}: {count} layer{s}"));
        remarks(&layout.settings).into_iter().for_each(&mut *say);
        let tree = workspace.trees().join("image");
        let owner = Owner::Everything(request.uid);
        let mut flat = Flat::make(&tree, owner, self.limits.disk_bytes).map_err(|error| failed(error.into()))?;
        for layer in &layout.layers {
            flat.add(&layout.blob(layer).map_err(failed)?).map_err(failed)?;
        }
        let shell = shell(&|program| flat.has_program(program));
        let manifest = manifest.unwrap_or(layout.manifest);
        let foreign = Foreign { name: name.clone(), manifest, shell };
        Ok(Imported { layer: self.store(&tree)?, config: config(layout.settings), foreign })
    }

    /// Puts a tree into the store, and says which layer it is.
    pub(crate) fn store(&self, tree: &Path) -> Result<Digest, BuildError> {
        let trouble = |source| BuildError::Io { action: "read", path: tree.to_owned(), source };
        let layer = tree::diff_id(tree).map_err(trouble)?;
        let staging = fs::File::open(self.layers.staging()).map_err(trouble)?;
        nix::unistd::syncfs(staging.as_fd()).map_err(|errno| trouble(errno.into()))?;
        self.layers.insert(&layer, tree)?;
        self.layers.sync()?;
        Ok(layer)
    }

    /// The image that the platform runs, and how large it is.
    fn finish(
        &self,
        request: &Request,
        stack: &Stack,
        imported: Imported,
        workspace: &Workspace,
    ) -> Result<(Image, u64), BuildError> {
        let Imported { layer, mut config, foreign } = imported;
        let processes = processes(&config, &foreign, &request.source.processes);
        if processes.is_empty() {
            let problem = "it has neither ENTRYPOINT nor CMD, so there is nothing to run".to_owned();
            return Err(BuildError::Image { name: request.source.name.clone(), problem });
        }
        // Serialising lists of strings into memory cannot fail.
        config.labels.insert(PROCESSES_LABEL.to_owned(), serde_json::to_string(&processes).unwrap_or_default());
        let path = self.layers.path(&layer);
        let size = tree::size(&path).map_err(|source| BuildError::Io { action: "measure", path, source })?;
        let first = launcher_layer::ensure_first(self, stack, &workspace.trees().join("first"))?;
        let layers = vec![
            Layer { diff_id: layer, created_by: format!("Image {}", request.source.name) },
            Layer { diff_id: first, created_by: "First process".to_owned() },
        ];
        let digest = image::digest(&layers, &config, &stack.arch);
        Ok((Image { digest, layers, config, processes, foreign: Some(foreign) }, size))
    }
}

/// What the platform does otherwise than whoever made the image may think.
fn remarks(settings: &Settings) -> Vec<String> {
    let mut remarks = Vec::new();
    let user = settings.user.split(':').next().unwrap_or_default();
    if !["", "0", "root"].contains(&user) {
        remarks.push(format!("USER {user} has no effect: it runs as the app's own user, who owns every file of it"));
    }
    if !settings.exposed_ports.is_empty() && !settings.exposed_ports.contains_key(PORT) {
        let ports = settings.exposed_ports.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        remarks.push(format!("EXPOSE {ports} has no effect: web must listen on the port in $PORT, which is 5000"));
    }
    if !settings.volumes.is_empty() {
        let volumes = settings.volumes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        remarks.push(format!("VOLUME {volumes} has no effect: what is written there goes with the dyno"));
    }
    remarks.into_iter().map(|remark| format!("       {remark}")).collect()
}

/// What runs command lines in an image.
fn shell(has_program: &dyn Fn(&str) -> bool) -> Vec<String> {
    let words: &[&str] = if has_program(LAUNCHER) {
        &[LAUNCHER]
    } else if has_program(SHELL) {
        &[SHELL, "-c"]
    } else {
        &[]
    };
    words.iter().map(|&word| word.to_owned()).collect()
}

fn config(settings: Settings) -> ImageConfig {
    let split = |line: String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut env: BTreeMap<String, String> = settings.env.into_iter().filter_map(split).collect();
    env.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    let working_dir = if settings.working_dir.starts_with('/') { settings.working_dir } else { "/".to_owned() };
    let Settings { entrypoint, cmd, labels, .. } = settings;
    ImageConfig { env, entrypoint, cmd, working_dir, labels }
}

/// What the image runs by itself as `web`, what its buildpacks name, and what the app wants.
fn processes(config: &ImageConfig, foreign: &Foreign, wanted: &BTreeMap<ProcessType, String>) -> Vec<Process> {
    let mut processes: BTreeMap<ProcessType, Process> = BTreeMap::new();
    let mut add = |process_type: ProcessType, command: Vec<String>, args: Vec<String>| {
        processes.insert(process_type.clone(), Process { process_type, command, args });
    };
    if let Ok(web) = "web".parse()
        && !(config.entrypoint.is_empty() && config.cmd.is_empty())
    {
        add(web, config.entrypoint.clone(), own_args(config, foreign));
    }
    let label = config.labels.get(BUILD_LABEL).filter(|_| foreign.shell.first().is_some_and(|it| it == LAUNCHER));
    let launchable: Launchable = label.and_then(|label| serde_json::from_str(label).ok()).unwrap_or_default();
    for Launch { process_type } in launchable.processes {
        let program = format!("/cnb/process/{process_type}");
        add(process_type, vec![program], Vec::new());
    }
    for (process_type, line) in wanted {
        // As with Docker, a command takes the place of CMD and not that of ENTRYPOINT.
        add(process_type.clone(), config.entrypoint.clone(), foreign.line(line));
    }
    processes.into_values().collect()
}

/// CMD; without ENTRYPOINT a shell puts variables in, as on Heroku, where `$PORT` is often in it.
fn own_args(config: &ImageConfig, foreign: &Foreign) -> Vec<String> {
    let is_shell = |word: &String| word.rsplit('/').next().is_some_and(|name| ["sh", "bash"].contains(&name));
    let has_variables = config.cmd.iter().any(|word| word.contains('$')) && !config.cmd.first().is_some_and(is_shell);
    if !has_variables || !config.entrypoint.is_empty() || foreign.shell.is_empty() {
        return config.cmd.clone();
    }
    let quoted = |word: &String| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('`', "\\`"));
    foreign.line(&format!("exec {}", config.cmd.iter().map(quoted).collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn foreign(shell: &[&str]) -> Foreign {
        Foreign { name: "x".to_owned(), manifest: Digest::from_sha256([0; 32]), shell: words(shell) }
    }

    /// What process types run, one a line.
    fn run(config: &ImageConfig, shell: &[&str], wanted: &[(&str, &str)]) -> String {
        let wanted = wanted.iter().map(|(name, line)| (name.parse().unwrap(), (*line).to_owned())).collect();
        let show = |process: Process| format!("{} {:?} {:?}\n", process.process_type, process.command, process.args);
        processes(config, &foreign(shell), &wanted).into_iter().map(show).collect()
    }

    #[test]
    fn web_is_entrypoint_and_cmd_and_others_take_the_place_of_cmd() {
        let config =
            ImageConfig { entrypoint: words(&["/entry"]), cmd: words(&["serve", "$PORT"]), ..ImageConfig::default() };
        insta::assert_snapshot!(run(&config, &["/bin/sh", "-c"], &[("worker", "work | tee log")]), @r#"
        web ["/entry"] ["serve", "$PORT"]
        worker ["/entry"] ["/bin/sh", "-c", "work | tee log"]
        "#);
        let config = ImageConfig { cmd: words(&["serve", "a b", "-p", "$PORT"]), ..ImageConfig::default() };
        insta::assert_snapshot!(run(&config, &["/bin/sh", "-c"], &[]), @r#"web [] ["/bin/sh", "-c", "exec \"serve\" \"a b\" \"-p\" \"$PORT\""]"#);
        insta::assert_snapshot!(run(&config, &[], &[("web", "serve it")]), @r#"web [] ["serve", "it"]"#);
        assert_eq!(run(&ImageConfig::default(), &[], &[]), "");
    }

    #[test]
    fn an_image_of_buildpacks_has_their_process_types() {
        let label = r#"{"buildpacks": [], "processes": [{"type": "worker", "command": ["x"], "direct": true}]}"#;
        let config = ImageConfig {
            entrypoint: words(&["/cnb/process/web"]),
            labels: [(BUILD_LABEL.to_owned(), label.to_owned())].into(),
            ..ImageConfig::default()
        };
        insta::assert_snapshot!(run(&config, &[LAUNCHER], &[]), @r#"
        web ["/cnb/process/web"] []
        worker ["/cnb/process/worker"] []
        "#);
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let settings = serde_json::from_str(
            r#"{"User": "app:app", "ExposedPorts": {"8080/tcp": {}}, "Volumes": {"/data": {}}, "Cmd": null}"#,
        );
        insta::assert_snapshot!(remarks(&settings.unwrap()).join("\n"), @r"
        USER app has no effect: it runs as the app's own user, who owns every file of it
        EXPOSE 8080/tcp has no effect: web must listen on the port in $PORT, which is 5000
        VOLUME /data has no effect: what is written there goes with the dyno
        ");
        let settings = serde_json::from_str(r#"{"User": "0:0", "ExposedPorts": {"5000/tcp": {}, "9/tcp": {}}}"#);
        assert_eq!(remarks(&settings.unwrap()), [] as [String; 0]);
    }
}
