//! What all our buildpacks share: one bridge to libcnb, layers by key.

use std::path::{Path, PathBuf};

use libcnb::build::{BuildContext, BuildResult, BuildResultBuilder};
use libcnb::data::build_plan::BuildPlanBuilder;
use libcnb::data::launch::{LaunchBuilder, Process, ProcessBuilder, ProcessType};
use libcnb::data::layer::LayerName;
use libcnb::detect::{DetectContext, DetectResult, DetectResultBuilder};
use libcnb::generic::{GenericMetadata, GenericPlatform};
use libcnb::layer::{
    CachedLayerDefinition, InvalidMetadataAction, LayerRef, LayerState, RestoredLayerAction, UncachedLayerDefinition,
};
use libcnb::layer_env::{LayerEnv, ModificationBehavior, Scope};
use serde::{Deserialize, Serialize};

use crate::error::PackError;
use crate::output;

/// One language: how to know it, how to build it.
pub(crate) trait Language {
    /// Whether the app in `app` is one of this language; if not, what was looked for, in one line.
    fn detect(&self, app: &Path) -> Result<(), String>;

    /// Builds, and says what can be started.
    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError>;
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
                DetectResultBuilder::pass()
                    .build_plan(BuildPlanBuilder::new().provides(&name).requires(name).build())
                    .build()
            }
            Err(looked_for) => {
                output::not_detected(&looked_for);
                DetectResultBuilder::fail().build()
            }
        }
    }

    fn build(&self, context: BuildContext<Self>) -> libcnb::Result<BuildResult, PackError> {
        let processes = self.0.build(&Build(context)).map_err(libcnb::Error::BuildpackError)?;
        BuildResultBuilder::new().launch(LaunchBuilder::new().processes(processes).build()).build()
    }

    fn on_error(&self, error: libcnb::Error<PackError>) {
        match error {
            libcnb::Error::BuildpackError(error) => output::error(&error.to_string()),
            other => output::error(&other.to_string()),
        }
    }
}

/// One build.
pub(crate) struct Build(BuildContext<Pack>);

/// What a layer is for (Buildpack spec, "Layer Types"). All are cached but those of [`Use::Launch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// In the image only; made anew by every build.
    Launch,
    /// In the image, for buildpacks that follow, and kept for the next build.
    LaunchBuildCache,
    /// In the image, and kept for the next build.
    LaunchCache,
    /// Kept for the next build.
    Cache,
}

/// A layer, and whether what it was asked for is in it already.
pub(crate) struct Layer {
    layer: LayerRef<Pack, (), ()>,
    /// True if the last build made it by the same key.
    pub(crate) is_kept: bool,
}

/// Metadata of every layer of ours. A layer is of use as long as it was made by the same key.
#[derive(Serialize, Deserialize)]
struct LayerMetadata {
    key: String,
}

impl Build {
    /// The app's files.
    pub(crate) fn app(&self) -> &Path {
        &self.0.app_dir
    }

    /// `amd64` or `arm64`.
    pub(crate) fn arch(&self) -> &str {
        &self.0.target.arch
    }

    /// `debian-13`, as a person would call the stack.
    pub(crate) fn stack(&self) -> String {
        format!("{}-{}", self.0.target.distro_name, self.0.target.distro_version)
    }

    /// The layer `name`, emptied unless it was made by `key`. It counts as made only after [`Layer::finish`].
    pub(crate) fn layer(&self, name: &'static str, used: Use, key: &str) -> Result<Layer, PackError> {
        let name: LayerName = name.parse().map_err(|_| PackError::Internal(format!("layer name {name}")))?;
        let layer = match used {
            Use::Launch => self.0.uncached_layer(name, UncachedLayerDefinition { build: false, launch: true }),
            _ => self.0.cached_layer(
                name,
                CachedLayerDefinition {
                    build: used == Use::LaunchBuildCache,
                    launch: matches!(used, Use::LaunchBuildCache | Use::LaunchCache),
                    invalid_metadata_action: &|_| InvalidMetadataAction::<LayerMetadata>::DeleteLayer,
                    restored_layer_action: &|metadata: &LayerMetadata, _| {
                        if metadata.key == key {
                            RestoredLayerAction::KeepLayer
                        } else {
                            RestoredLayerAction::DeleteLayer
                        }
                    },
                },
            ),
        }
        .map_err(|error| PackError::Internal(error.to_string()))?;
        let is_kept = matches!(layer.state, LayerState::Restored { .. });
        Ok(Layer { layer, is_kept })
    }

    /// Folder of a layer that only builds see, for a tool that keeps its cache in good order itself.
    pub(crate) fn kept_cache(&self, name: &'static str, key: &str) -> Result<PathBuf, PackError> {
        let layer = self.layer(name, Use::Cache, key)?;
        if !layer.is_kept {
            layer.finish(key)?;
        }
        Ok(layer.path())
    }
}

impl Layer {
    /// Its folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.layer.path()
    }

    /// The layer is complete: from now on the next build may keep it, if it asks with the same key.
    pub(crate) fn finish(&self, key: &str) -> Result<(), PackError> {
        let metadata = LayerMetadata { key: key.to_owned() };
        self.layer.write_metadata(metadata).map_err(|error| PackError::Internal(error.to_string()))
    }

    /// Sets variables at run time unless a config var, or a buildpack before this one, sets them: config vars always win.
    pub(crate) fn launch_defaults(&self, defaults: &[(&str, &str)]) -> Result<(), PackError> {
        let mut env = LayerEnv::new();
        for (name, value) in defaults {
            env.insert(Scope::Launch, ModificationBehavior::Default, name, value);
        }
        self.layer.write_env(env).map_err(|error| PackError::Internal(error.to_string()))
    }
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
