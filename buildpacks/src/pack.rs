//! What all our buildpacks share: one bridge to libcnb, layers by key.

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};

use libcnb::build::{BuildContext, BuildResult, BuildResultBuilder};
use libcnb::data::build_plan::{BuildPlanBuilder, Require};
use libcnb::data::launch::{LaunchBuilder, Process, ProcessBuilder, ProcessType};
use libcnb::data::layer::LayerName;
use libcnb::detect::{DetectContext, DetectResult, DetectResultBuilder};
use libcnb::generic::{GenericMetadata, GenericPlatform};
use libcnb::layer::{
    CachedLayerDefinition, EmptyLayerCause, InvalidMetadataAction, LayerRef, LayerState, RestoredLayerAction,
    UncachedLayerDefinition,
};
use libcnb::layer_env::{LayerEnv, ModificationBehavior, Scope};
use serde::{Deserialize, Serialize};

use crate::bill::Bill;
use crate::downloads::Downloads;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;

/// Where the platform keeps toolchains that are ready; not there on another platform.
const TOOLCHAINS: &str = "/cnb/toolchains";

/// The toolchains of a language that are ready, a folder for each version.
pub(crate) fn toolchains(language: &str) -> PathBuf {
    Path::new(TOOLCHAINS).join(language)
}

/// One language: how to know it, how to build it.
pub(crate) trait Language {
    /// Whether the app in `app` is one of this language; if not, what was looked for, in one line.
    fn detect(&self, app: &Path) -> Result<(), String>;

    /// Debian packages that the app needs, found out from its files before anything is built. They are there while it is built.
    fn packages(&self, _app: &Path) -> Packages {
        Packages::default()
    }

    /// Builds, and says what can be started.
    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError>;
}

/// Debian packages that the platform installs: metadata of the name `apt` in a build plan.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Packages {
    /// In the image, and there while it is built.
    pub(crate) run: Vec<String>,
    /// There only while the image is built.
    pub(crate) build: Vec<String>,
}

impl Packages {
    /// As a plan asks for them; none for no packages.
    fn require(&self) -> Result<Option<Require>, PackError> {
        if *self == Self::default() {
            return Ok(None);
        }
        let mut require = Require::new("apt");
        require.metadata(self).map_err(|error| PackError::Internal(error.to_string()))?;
        Ok(Some(require))
    }
}

/// A language as libcnb wants it.
pub(crate) struct Pack(pub(crate) &'static dyn Language);

impl libcnb::Buildpack for Pack {
    type Platform = GenericPlatform;
    type Metadata = GenericMetadata;
    type Error = PackError;

    fn detect(&self, context: DetectContext<Self>) -> libcnb::Result<DetectResult, PackError> {
        match self.0.detect(&context.app_dir) {
            Ok(()) => {
                let name = context.buildpack_descriptor.buildpack.id.to_string();
                let mut plan = BuildPlanBuilder::new().provides(&name).requires(name);
                let packages = self.0.packages(&context.app_dir).require().map_err(libcnb::Error::BuildpackError)?;
                if let Some(packages) = packages {
                    plan = plan.requires(packages);
                }
                DetectResultBuilder::pass().build_plan(plan.build()).build()
            }
            Err(looked_for) => {
                output::not_detected(&looked_for);
                DetectResultBuilder::fail().build()
            }
        }
    }

    fn build(&self, context: BuildContext<Self>) -> libcnb::Result<BuildResult, PackError> {
        let build = Build { context, cache: RefCell::default(), bill: RefCell::default() };
        let processes = self.0.build(&build).map_err(libcnb::Error::BuildpackError)?;
        build.tell_cache();
        let result = BuildResultBuilder::new().launch(LaunchBuilder::new().processes(processes).build());
        let bill = build.bill.take();
        if bill.is_empty() { result.build() } else { result.launch_sbom(bill.to_sbom()).build() }
    }

    fn on_error(&self, error: libcnb::Error<PackError>) {
        match error {
            libcnb::Error::BuildpackError(error) => output::error(&error.to_string()),
            other => output::error(&other.to_string()),
        }
    }
}

/// One build.
pub(crate) struct Build {
    context: BuildContext<Pack>,
    /// What became of each cached layer, in words.
    cache: RefCell<Vec<(&'static str, String)>>,
    /// What the image has in it besides what is in layers of ours.
    bill: RefCell<Bill>,
}

/// What a cached layer is for (Buildpack spec, "Layer Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// In the image, for buildpacks that follow, and kept for the next build.
    LaunchBuildCache,
    /// In the image, and kept for the next build.
    LaunchCache,
    /// Kept for the next build.
    Cache,
}

/// A layer, and whether what it was asked for is in it already.
pub(crate) struct Layer {
    place: LayerRef<Pack, (), ()>,
    /// What the layer is made from; none for one that every build makes anew.
    key: Option<Key>,
    /// True if the last build made it by the same key.
    pub(crate) is_kept: bool,
}

/// Metadata of every layer of ours. A layer is of use as long as it was made by the same key.
#[derive(Serialize, Deserialize)]
struct LayerMetadata {
    key: Key,
}

impl Build {
    /// The app's files.
    pub(crate) fn app(&self) -> &Path {
        &self.context.app_dir
    }

    /// `amd64` or `arm64`.
    pub(crate) fn arch(&self) -> &str {
        &self.context.target.arch
    }

    /// What builds have downloaded before.
    pub(crate) fn downloads(&self) -> Downloads {
        Downloads::of(self.all_layers())
    }

    /// Tells the platform of a toolchain that this build has used: it makes it ready for the next app.
    pub(crate) fn uses_toolchain(&self, language: &str, version: &str) -> Result<(), PackError> {
        if !Path::new(TOOLCHAINS).is_dir() {
            return Ok(());
        }
        let told = self.all_layers().join("config/toolchains");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&told);
        file.and_then(|mut file| writeln!(file, "{language} {version}")).map_err(files::failed("write", &told))
    }

    /// Each buildpack has a folder of its own in it.
    fn all_layers(&self) -> &Path {
        self.context.layers_dir.parent().unwrap_or(&self.context.layers_dir)
    }

    /// `debian-13`, as a person would call the stack.
    pub(crate) fn stack(&self) -> String {
        format!("{}-{}", self.context.target.distro_name, self.context.target.distro_version)
    }

    /// The layer `name`, emptied unless it was made by `key`. It counts as made only after [`Layer::finish`]. The user reads
    /// its name, and what in the key has changed.
    pub(crate) fn layer(&self, name: &'static str, used: Use, key: Key) -> Result<Layer, PackError> {
        let change = RefCell::new(None);
        let definition = CachedLayerDefinition {
            build: used == Use::LaunchBuildCache,
            launch: used != Use::Cache,
            invalid_metadata_action: &|_| InvalidMetadataAction::<LayerMetadata>::DeleteLayer,
            restored_layer_action: &|metadata: &LayerMetadata, _| {
                *change.borrow_mut() = key.change_since(&metadata.key);
                if change.borrow().is_none() {
                    RestoredLayerAction::KeepLayer
                } else {
                    RestoredLayerAction::DeleteLayer
                }
            },
        };
        let place = self.context.cached_layer(layer_name(name)?, definition).map_err(internal)?;
        let outcome = match (&place.state, change.take()) {
            (LayerState::Restored { .. }, _) => "cache hit".to_owned(),
            (LayerState::Empty { cause: EmptyLayerCause::NewlyCreated }, _) => "cache miss: not made before".to_owned(),
            (_, Some(change)) => format!("cache miss because {change}"),
            (_, None) => "cache miss because the platform keeps it in another form now".to_owned(),
        };
        let mut told = self.cache.borrow_mut();
        // Asked for again, a layer that this build has made is a hit; the first time says what it cost.
        if !told.iter().any(|(known, _)| *known == name) {
            told.push((name, outcome));
        }
        let is_kept = matches!(place.state, LayerState::Restored { .. });
        Ok(Layer { place, key: Some(key), is_kept })
    }

    /// A layer of the image that every build makes anew.
    pub(crate) fn launch_layer(&self, name: &'static str) -> Result<Layer, PackError> {
        let definition = UncachedLayerDefinition { build: false, launch: true };
        let place = self.context.uncached_layer(layer_name(name)?, definition).map_err(internal)?;
        Ok(Layer { place, key: None, is_kept: false })
    }

    /// Folder of a layer that only builds see, for a tool that keeps its cache in good order itself. `way` changes when the
    /// tool would not understand an older cache.
    pub(crate) fn kept_cache(&self, name: &'static str, way: &str) -> Result<PathBuf, PackError> {
        let layer = self.layer(name, Use::Cache, Key::new(way))?;
        if !layer.is_kept {
            layer.finish()?;
        }
        Ok(layer.path())
    }

    /// A secret that stays the same from build to build, for apps that want one and have none of their own.
    pub(crate) fn kept_secret(&self) -> Result<String, PackError> {
        let layer = self.layer("secret", Use::LaunchCache, Key::new("secret 1"))?;
        let file = layer.path().join("secret");
        if !layer.is_kept {
            std::fs::write(&file, files::random_hex(64)?).map_err(files::failed("write", &file))?;
            layer.finish()?;
        }
        std::fs::read_to_string(&file).map_err(files::failed("read", &file))
    }

    /// Says what is in the image outside of the layers that this build makes: in the app's own folder, or of the stack.
    pub(crate) fn bill(&self, bill: Bill) {
        self.bill.replace_with(|known| std::mem::take(known).with(bill));
    }

    /// Says of each cached layer whether it was of use, and why not.
    fn tell_cache(&self) {
        let told = self.cache.borrow();
        if !told.is_empty() {
            output::heading("Caches");
            for (name, outcome) in told.iter() {
                output::line(&format!("{name}: {outcome}"));
            }
        }
    }
}

impl Layer {
    /// Its folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.place.path()
    }

    /// The layer is complete: from now on the next build may keep it, if it asks with the same key.
    pub(crate) fn finish(&self) -> Result<(), PackError> {
        let Some(key) = self.key.clone() else { return Ok(()) };
        self.place.write_metadata(LayerMetadata { key }).map_err(internal)
    }

    /// Says what is in the layer. One that is kept keeps what was said of it.
    pub(crate) fn bill(&self, bill: &Bill) -> Result<(), PackError> {
        self.place.write_sboms(&[bill.to_sbom()]).map_err(internal)
    }

    /// A program that finds out variables when a process starts (Buildpack spec, "exec.d").
    pub(crate) fn launch_script(&self, name: &str, script: &str) -> Result<(), PackError> {
        files::write_program(&self.path().join("exec.d").join(name), script)
    }

    /// Sets variables at run time unless a config var, or a buildpack before this one, sets them: config vars always win.
    pub(crate) fn launch_defaults(&self, defaults: &[(&str, &str)]) -> Result<(), PackError> {
        let mut env = LayerEnv::new();
        for (name, value) in defaults {
            env.insert(Scope::Launch, ModificationBehavior::Default, name, value);
        }
        self.place.write_env(env).map_err(internal)
    }
}

fn layer_name(name: &str) -> Result<LayerName, PackError> {
    name.parse().map_err(|_| PackError::Internal(format!("layer name {name}")))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn internal(error: libcnb::Error<PackError>) -> PackError {
    PackError::Internal(error.to_string())
}

/// A process type. `name` must be one by the specification's rules.
pub(crate) fn process<'a>(name: &str, command: impl IntoIterator<Item = &'a str>) -> Result<Process, PackError> {
    Ok(ProcessBuilder::new(process_type(name)?, command).build())
}

/// A process type that is a line of shell.
pub(crate) fn shell_process(name: &str, line: &str) -> Result<Process, PackError> {
    Ok(ProcessBuilder::new(process_type(name)?, ["bash", "-c"]).arg(line).build())
}

fn process_type(name: &str) -> Result<ProcessType, PackError> {
    name.parse().map_err(|_| PackError::Internal(format!("process type {name}")))
}
