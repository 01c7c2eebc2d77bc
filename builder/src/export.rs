//! The export phase: what the build left becomes layers in the store and an image over them. Unchanged layers are neither copied
//! nor read; new ones are moved into the store and read once, for their digest.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use model::{Digest, Image, ImageConfig, Layer, Process};

use crate::errors::BuildError;
use crate::formats::{GroupMember, LaunchMetadata, LaunchProcess, Slice, StoreToml, escaped};
use crate::launcher_layer::LAUNCHER;
use crate::metadata::{
    BUILD_LABEL, BuildMetadata, BuildpackLayers, BuildpackName, Cache, LIFECYCLE_LABEL, LauncherName, LegacyStack,
    LifecycleMetadata, PROJECT_LABEL, REBASABLE_LABEL, RunImage, Sha, StoredLayer,
};
use crate::outcome::{BuiltLayer, Outcome};
use crate::restore::Restored;
use crate::tree::{self, Change, make_parents};
use crate::{Job, extend, image, launcher_layer, sbom, slices};

/// `PATH` of the run image.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A finished image.
pub(crate) struct Exported {
    pub(crate) image: Image,
    /// What the next build of the app finds in its cache file.
    pub(crate) cache: Cache,
    /// Bytes of the layers above the run image.
    pub(crate) size_bytes: u64,
    /// How many layers are new, and how many were there already.
    pub(crate) new_layers: usize,
    pub(crate) reused_layers: usize,
}

impl Exported {
    /// One line for the person who pushed.
    pub(crate) fn summary(&self) -> String {
        format!("-----> Image stored: {} layers new, {} reused", self.new_layers, self.reused_layers)
    }
}

/// Exports what `outcome` says was built. `sizes` are known sizes of older layers.
pub(crate) fn export(
    job: &Job,
    restored: &Restored,
    outcome: &Outcome,
    sizes: &BTreeMap<Digest, u64>,
) -> Result<Exported, BuildError> {
    check_group(job, outcome)?;
    let mut export = Export { job, layers: Vec::new() };
    for layer in &outcome.layers {
        export.add_built(layer, restored)?;
    }
    export.add_sboms()?;
    export.add_app(&outcome.slices)?;
    let launcher = launcher_layer::ensure(&job.builder, &job.workspace.trees().join("launcher"))?;
    export.layers.push(Pending { what: What::Launcher, source: Source::Stored(launcher) });
    export.add_config(outcome)?;
    let layers = export.store()?;
    finish(job, restored, outcome, &Sized { layers, known: sizes })
}

/// The group comes out of a file that the app's own code may have written: only buildpacks that the build was given can be in it.
fn check_group(job: &Job, outcome: &Outcome) -> Result<(), BuildError> {
    for member in &outcome.group {
        if !job.installed.contains(&(member.id.clone(), member.version.clone())) {
            return Err(BuildError::Dishonest(format!("it names a buildpack {} that is not installed", member.id)));
        }
    }
    for member in &outcome.extensions {
        if !job.extensions.contains(&(member.id.clone(), member.version.clone())) {
            return Err(BuildError::Dishonest(format!("it names an extension {} that is not installed", member.id)));
        }
    }
    for layer in &outcome.layers {
        let is_plain = Path::new(&layer.name).file_name().is_some_and(|name| name == layer.name.as_str());
        if !is_plain || !outcome.group.iter().any(|member| member.id == layer.buildpack) {
            return Err(BuildError::Dishonest(format!("it names a layer {:?} of {:?}", layer.name, layer.buildpack)));
        }
    }
    Ok(())
}

/// What a layer is to the image.
enum What {
    Built(BuiltLayer),
    /// Bills of materials of what the image runs.
    Sbom,
    /// Bills of materials that only the next build and `builds:sbom` want.
    CachedSbom,
    /// What slices left of the app.
    App,
    /// From 1.
    Slice(usize),
    Launcher,
    Config,
}

/// Where a layer's contents are.
enum Source {
    /// In the store.
    Stored(Digest),
    /// In a tree of the workspace, on its way into the store.
    Tree(PathBuf),
}

struct Pending {
    what: What,
    source: Source,
}

/// A layer in the store.
struct Stored {
    what: What,
    digest: Digest,
    /// Bytes of its tar, if it was made just now.
    new_bytes: Option<u64>,
}

struct Export<'a> {
    job: &'a Job,
    layers: Vec<Pending>,
}

impl Export<'_> {
    /// An empty tree for one new layer.
    fn tree(&self) -> PathBuf {
        self.job.workspace.trees().join(self.layers.len().to_string())
    }

    fn add_built(&mut self, layer: &BuiltLayer, restored: &Restored) -> Result<(), BuildError> {
        if !layer.types.launch && !layer.types.cache {
            return Ok(());
        }
        let key = (layer.buildpack.clone(), layer.name.clone());
        let parent = self.job.workspace.layers().join(escaped(&layer.buildpack));
        let upper = parent.join(&layer.name);
        let lower = restored.lower_of(&self.job.builder.layers, &key);
        let trouble =
            |error: io::Error| BuildError::Dishonest(format!("layer {} of {}: {error}", layer.name, layer.buildpack));
        let (lower, change) = tree::change_below(&parent, lower, &upper).map_err(trouble)?;
        let source = match change {
            Change::Untouched => restored.contents.get(&key).cloned().map(Source::Stored),
            Change::Gone if layer.types.cache && layer.types.launch => None,
            Change::Gone if layer.types.cache => return Ok(()),
            Change::Gone => restored.reusable.get(&key).cloned().map(Source::Stored),
            Change::Fresh | Change::Merged => {
                let tree = self.tree();
                let target = tree.join("layers").join(escaped(&layer.buildpack)).join(&layer.name);
                make_parents(&tree, &target).map_err(trouble)?;
                match lower {
                    Some(lower) if change == Change::Merged => tree::merge(&lower, &upper, &target),
                    _ => fs::rename(&upper, &target),
                }
                .map_err(trouble)?;
                Some(Source::Tree(tree))
            }
        };
        let missing = || BuildError::MissingLayer { buildpack: layer.buildpack.clone(), layer: layer.name.clone() };
        self.layers.push(Pending { what: What::Built(layer.clone()), source: source.ok_or_else(missing)? });
        Ok(())
    }

    fn add_sboms(&mut self) -> Result<(), BuildError> {
        let trees = ["sbom", "cached-sbom"].map(|name| self.job.workspace.trees().join(name));
        let trouble = |error: io::Error| BuildError::Dishonest(format!("its bills of materials: {error}"));
        let [image, cache] = &trees;
        let taken = sbom::take(&self.job.workspace.layers(), image, cache).map_err(trouble)?;
        let found = [(What::Sbom, taken.0), (What::CachedSbom, taken.1)].into_iter().zip(trees);
        self.layers.extend(
            found
                .filter(|((_, there), _)| *there)
                .map(|((what, _), tree)| Pending { what, source: Source::Tree(tree) }),
        );
        Ok(())
    }

    /// A layer for each slice, and one for what is left of the app.
    fn add_app(&mut self, slices: &[Slice]) -> Result<(), BuildError> {
        let app = self.job.workspace.app();
        let trouble = |source| BuildError::Io { action: "move", path: app.clone(), source };
        for (index, slice) in slices.iter().enumerate() {
            let tree = self.tree();
            make_parents(&tree, &tree.join("app"))
                .and_then(|()| slices::cut(&app, slice, &tree.join("app")))
                .map_err(trouble)?;
            self.layers.push(Pending { what: What::Slice(index + 1), source: Source::Tree(tree) });
        }
        let tree = self.tree();
        make_parents(&tree, &tree.join("app")).and_then(|()| fs::rename(&app, tree.join("app"))).map_err(trouble)?;
        self.layers.push(Pending { what: What::App, source: Source::Tree(tree) });
        Ok(())
    }

    /// One layer with what the launcher reads, and a link to it for every process type.
    fn add_config(&mut self, outcome: &Outcome) -> Result<(), BuildError> {
        let tree = self.tree();
        let metadata = LaunchMetadata { buildpacks: outcome.group.clone(), processes: outcome.processes.clone() };
        let write = || -> io::Result<()> {
            let (config, processes) = (tree.join("layers/config/metadata.toml"), tree.join("cnb/process"));
            make_parents(&tree, &config)?;
            make_parents(&tree, &processes.join("web"))?;
            fs::write(config, toml::to_string(&metadata).map_err(io::Error::other)?)?;
            for process in &outcome.processes {
                symlink(LAUNCHER, processes.join(&process.process_type))?;
            }
            Ok(())
        };
        write().map_err(|source| BuildError::Io { action: "write", path: tree.clone(), source })?;
        self.layers.push(Pending { what: What::Config, source: Source::Tree(tree) });
        Ok(())
    }

    /// Hashes all trees at once and puts them into the store. What has a name in the store is on the disk: everything is
    /// written out before the first rename.
    fn store(self) -> Result<Vec<Stored>, BuildError> {
        let store = &self.job.builder.layers;
        let staging = store.staging();
        let sync = || nix::unistd::syncfs(fs::File::open(&staging)?.as_fd()).map_err(io::Error::from);
        let (digests, synced) = std::thread::scope(|scope| {
            let threads: Vec<_> = self.layers.iter().map(|layer| scope.spawn(|| hash(&layer.source))).collect();
            let synced = sync();
            (
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread died"))))
                    .collect::<Vec<_>>(),
                synced,
            )
        });
        synced.map_err(|source| BuildError::Io { action: "sync", path: staging.clone(), source })?;
        let mut stored = Vec::new();
        for (pending, result) in self.layers.into_iter().zip(digests) {
            let (digest, bytes) =
                result.map_err(|source| BuildError::Io { action: "read", path: staging.clone(), source })?;
            let new_bytes = if let Source::Tree(tree) = &pending.source {
                store.insert(&digest, tree)?;
                Some(bytes)
            } else {
                None
            };
            stored.push(Stored { what: pending.what, digest, new_bytes });
        }
        store.sync()?;
        Ok(stored)
    }
}

fn hash(source: &Source) -> io::Result<(Digest, u64)> {
    match source {
        Source::Stored(digest) => Ok((digest.clone(), 0)),
        Source::Tree(tree) => tree::digest(tree),
    }
}

/// The layers with what is known of older ones' sizes.
struct Sized<'a> {
    layers: Vec<Stored>,
    known: &'a BTreeMap<Digest, u64>,
}

fn finish(job: &Job, restored: &Restored, outcome: &Outcome, sized: &Sized) -> Result<Exported, BuildError> {
    let mut cache =
        Cache { packages: outcome.packages.clone(), extended: outcome.extended.clone(), ..Cache::default() };
    let mut layers = extend::run_layers(&job.stack, outcome.packages.as_ref(), outcome.extended.as_ref());
    for stored in &sized.layers {
        if let What::Built(built) = &stored.what {
            if built.types.cache {
                let layers = cache.layers.entry(built.buildpack.clone()).or_default();
                layers.insert(built.name.clone(), stored_layer(built, &stored.digest));
            }
            if !built.types.launch {
                continue;
            }
        }
        if matches!(stored.what, What::CachedSbom) {
            cache.sbom = Some(stored.digest.clone());
            continue;
        }
        let bytes = match stored.new_bytes.or_else(|| sized.known.get(&stored.digest).copied()) {
            Some(bytes) => bytes,
            None => tree::size(&job.builder.layers.path(&stored.digest)).map_err(|source| BuildError::Io {
                action: "measure",
                path: job.builder.layers.path(&stored.digest),
                source,
            })?,
        };
        cache.sizes.insert(stored.digest.clone(), bytes);
        layers.push(Layer { diff_id: stored.digest.clone(), created_by: created_by(&stored.what, outcome) });
    }
    let config = config(job, restored, outcome, &sized.layers);
    let processes = outcome.processes.iter().map(process).collect::<Result<_, _>>()?;
    let digest = image::digest(&layers, &config, &job.stack.arch);
    let new_layers = sized.layers.iter().filter(|stored| stored.new_bytes.is_some()).count();
    Ok(Exported {
        image: Image { digest, layers, config, processes, foreign: None },
        size_bytes: cache.sizes.values().sum(),
        cache,
        new_layers,
        reused_layers: sized.layers.len() - new_layers,
    })
}

fn stored_layer(built: &BuiltLayer, digest: &Digest) -> StoredLayer {
    StoredLayer { sha: digest.clone(), data: built.metadata.clone(), types: built.types }
}

fn created_by(what: &What, outcome: &Outcome) -> String {
    match what {
        What::Built(built) => {
            let version =
                outcome.group.iter().find(|member| member.id == built.buildpack).map_or("", |member| &member.version);
            format!("Layer: '{}', Created by buildpack: {}@{version}", built.name, built.buildpack)
        }
        What::Sbom | What::CachedSbom => "Software Bill-of-Materials".to_owned(),
        What::App => "Application Layer".to_owned(),
        What::Slice(number) => format!("Application Slice: {number}"),
        What::Launcher => "Application Launcher".to_owned(),
        What::Config => "Buildpacks Launcher Config and Process Types".to_owned(),
    }
}

fn process(process: &LaunchProcess) -> Result<Process, BuildError> {
    let name = process.process_type.clone();
    let process_type = name.parse().map_err(|reason| BuildError::ProcessType { name, reason })?;
    Ok(Process { process_type, command: process.command.clone(), args: process.args.clone() })
}

fn config(job: &Job, restored: &Restored, outcome: &Outcome, layers: &[Stored]) -> ImageConfig {
    let default = outcome.default_process.as_ref();
    let run = outcome.extended.as_ref().and_then(|extended| extended.run.as_ref());
    let mut env = run.map(|run| run.env.clone()).unwrap_or_default();
    let path = env.get("PATH").map_or(PATH, String::as_str);
    let path = format!("/cnb/process:/cnb/lifecycle:{path}");
    let own = [
        ("PATH", path.as_str()),
        ("CNB_LAYERS_DIR", "/layers"),
        ("CNB_APP_DIR", "/app"),
        ("CNB_PLATFORM_API", crate::PLATFORM_API),
        ("HOME", "/app"),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    ImageConfig {
        env,
        entrypoint: vec![default.map_or(LAUNCHER.to_owned(), |process_type| format!("/cnb/process/{process_type}"))],
        cmd: Vec::new(),
        working_dir: "/app".to_owned(),
        labels: labels(job, restored, outcome, layers),
    }
}

fn labels(job: &Job, restored: &Restored, outcome: &Outcome, layers: &[Stored]) -> BTreeMap<String, String> {
    let run = outcome.extended.as_ref().and_then(|extended| extended.run.as_ref());
    let mut labels = run.map(|run| run.labels.clone()).unwrap_or_default();
    labels.extend(outcome.labels.iter().map(|label| (label.key.clone(), label.value.clone())));
    let name = |member: &GroupMember| BuildpackName {
        id: member.id.clone(),
        version: member.version.clone(),
        homepage: member.homepage.clone(),
    };
    let build = BuildMetadata {
        buildpacks: outcome.group.iter().map(name).collect(),
        extensions: outcome.extensions.iter().map(name).collect(),
        processes: outcome.processes.clone(),
        launcher: LauncherName { version: env!("CARGO_PKG_VERSION").to_owned() },
        buildpack_default_process_type: outcome.default_process.clone(),
    };
    // Serialising these into memory cannot fail: their keys are strings.
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    labels.insert(BUILD_LABEL.to_owned(), json(serde_json::to_string(&build)));
    labels.insert(LIFECYCLE_LABEL.to_owned(), json(serde_json::to_string(&lifecycle(job, restored, outcome, layers))));
    labels.insert(PROJECT_LABEL.to_owned(), "{}".to_owned());
    // Packages over another run image may be other ones.
    let has_packages = outcome.packages.as_ref().is_some_and(|packages| packages.run.is_some());
    let is_rebasable = !has_packages && run.is_none_or(|run| run.is_rebasable);
    labels.insert(REBASABLE_LABEL.to_owned(), is_rebasable.to_string());
    labels.insert("io.buildpacks.stack.id".to_owned(), job.stack.name.clone());
    labels
}

fn lifecycle(job: &Job, restored: &Restored, outcome: &Outcome, layers: &[Stored]) -> LifecycleMetadata {
    let shas = |wanted: fn(&What) -> bool| {
        layers.iter().filter(move |stored| wanted(&stored.what)).map(|stored| Sha { sha: stored.digest.clone() })
    };
    let extended = outcome.extended.as_ref().and_then(|extended| extended.run.as_ref());
    let run_image = match extended.and_then(|run| Some((run, run.instead.clone()?))) {
        Some((run, reference)) => RunImage { top_layer: Some(run.layer.clone()), reference },
        None => RunImage { top_layer: Some(job.stack.run.clone()), reference: job.stack.name.clone() },
    };
    let config = shas(|what| matches!(what, What::Config)).next();
    LifecycleMetadata {
        app: shas(|what| matches!(what, What::App | What::Slice(_))).collect(),
        buildpacks: outcome.group.iter().map(|member| buildpack_layers(member, restored, outcome, layers)).collect(),
        process_types: config.clone(),
        config,
        launcher: shas(|what| matches!(what, What::Launcher)).next(),
        sbom: shas(|what| matches!(what, What::Sbom)).next(),
        stack: LegacyStack { run_image: run_image.clone() },
        run_image,
    }
}

fn buildpack_layers(
    member: &GroupMember,
    restored: &Restored,
    outcome: &Outcome,
    layers: &[Stored],
) -> BuildpackLayers {
    let launch = layers.iter().filter_map(|stored| match &stored.what {
        What::Built(built) if built.types.launch && built.buildpack == member.id => {
            Some((built.name.clone(), stored_layer(built, &stored.digest)))
        }
        _ => None,
    });
    let store = outcome.stores.get(&member.id).map(|metadata| StoreToml { metadata: metadata.clone() });
    BuildpackLayers {
        key: member.id.clone(),
        version: member.version.clone(),
        layers: launch.collect(),
        store: store.or_else(|| restored.stores.get(&member.id).cloned()),
    }
}
