//! Cloud Native Buildpacks: platform and lifecycle in one. Turns a commit's files into an [`Image`].
//!
//! The phases are those of the specification (Platform API 0.13, Buildpack API 0.7 to 0.12), one file each. Analyze, restore and
//! export run here, on the host, over the layer store; detect and build run in one container on the build image, driven by
//! [`lifecycle`], which is this same program under another name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::{Engine, LayerStore, OneOffId};
use model::{AppId, BuildId, Image};
use tokio::sync::mpsc;

pub mod launcher;
pub mod lifecycle;
pub mod packages;
pub mod stack;

mod apt;
mod errors;

pub use errors::BuildError;

/// What every build of this machine shares.
pub struct Builder {
    /// Runs the build containers.
    pub engine: Arc<dyn Engine>,
    /// Where layers live.
    pub layers: LayerStore,
    /// The base images.
    pub stack: stack::Stack,
    /// Folder of buildpacks, `<id with / as _>/<version>/`, and `order.toml`.
    pub buildpacks: PathBuf,
    /// This program, mounted into build containers and put into images as the launcher.
    pub program: PathBuf,
    /// Folder for what builds keep between themselves, one folder an app.
    pub cache: PathBuf,
    /// The machine's package mirrors and CA certificates.
    pub packages: packages::PackageAccess,
    /// Limits of a build.
    pub limits: BuildLimits,
}

/// Limits of one build.
#[derive(Debug, Clone)]
pub struct BuildLimits {
    /// Memory of the build container, in bytes.
    pub memory_bytes: u64,
    /// Longest time.
    pub time: Duration,
    /// A build is refused when less than this is free on the layer store's disk, in bytes.
    pub free_disk_bytes: u64,
}

/// One build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Which.
    pub build: BuildId,
    /// Of which app.
    pub app: AppId,
    /// The app's own uid: build and app run as it.
    pub uid: u32,
    /// The commit's files. The build takes the folder over and removes it.
    pub source: PathBuf,
    /// The image of the app's last good build: its launch layers may be reused.
    pub previous: Option<Image>,
    /// Config vars: user-provided environment (Platform spec, "Environment").
    pub env: BTreeMap<String, String>,
    /// Buildpack ids to use in this order instead of detecting; empty means detect.
    pub buildpacks: Vec<String>,
}

/// A finished build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image; every layer of it is in the store.
    pub image: Image,
    /// `id@version` of each buildpack that took part.
    pub buildpacks: Vec<String>,
    /// Bytes of all layers that this app adds to the run image.
    pub size_bytes: u64,
    /// Time of each phase: `analyze`, `detect`, `restore`, `build`, `export`.
    pub phases: Vec<(&'static str, Duration)>,
}

impl Builder {
    /// Builds. Output lines (of any kind, without newline, colours kept) go to `output`; a closed receiver does not stop the build.
    #[expect(clippy::unused_async, reason = "placeholder")]
    pub async fn build(&self, request: BuildRequest, output: mpsc::Sender<String>) -> Result<Built, BuildError> {
        let _ = (request, output);
        Err(BuildError::Placeholder)
    }

    /// The id of the container that runs this build's buildpacks.
    pub fn oneoff(build: BuildId) -> OneOffId {
        OneOffId(format!("build-{build}"))
    }
}
