//! Cloud Native Buildpacks: platform and lifecycle in one. Turns a commit's files into an [`Image`].
//!
//! The phases are those of the specification (Platform API 0.13, Buildpack API 0.7 to 0.12), one file each. Analyze, restore and
//! export run here, on the host, over the layer store; detect and build run in one container on the build image, driven by
//! [`lifecycle`], which is this same program under another name. Nothing is packed or unpacked on the way: restored layers are
//! mounted, new ones are moved into the store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Engine, LayerStore, OneOffId};
use model::{AppId, BuildId, Image};
use tokio::sync::mpsc;

pub mod dockerfile;
pub mod launcher;
pub mod lifecycle;
pub mod packages;
pub mod stack;

mod analyze;
mod apt;
mod build;
mod buildpack;
mod catalog;
mod container;
mod debian;
mod detect;
mod disk;
mod downloads;
mod env;
mod errors;
mod export;
mod extend;
mod extension;
mod fetch;
mod flatten;
mod formats;
mod garbage;
mod gather;
mod image;
mod import;
mod launcher_layer;
mod layout;
mod metadata;
mod oci;
mod order;
mod outcome;
mod patience;
mod plan;
mod project;
mod queue;
mod rebase;
mod reference;
mod restore;
mod sbom;
mod slices;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod toolchains;
mod tree;
mod trust_store;
mod unpack;
mod usage;
mod workspace;

pub use catalog::Offered;
pub use debian::{PackageLayers, PackageName};
pub use disk::{Fill, written};
pub use dockerfile::Dockerfile;
pub use errors::{BuildError, Failure, Reason};
pub use fetch::{Fetch, NoFetch};
pub use garbage::{Budget, Collected, Garbage, KeptCache};
pub use image::oci_config;
pub use import::{ForeignImage, ImageSource};
pub use layout::{Documents, documents, write_layout};
pub use patience::Patience;
pub use queue::Queue;
pub use rebase::{RebaseError, rebase};
pub use reference::{Reference, ReferenceError, is_known};
pub use sbom::Sbom;
pub use tree::{diff_id, write_tar};

use downloads::Downloads;
use gather::Names;
use project::Project;
use stack::{Stack, StackError};
use workspace::Workspace;

/// The Platform API that this lifecycle speaks.
const PLATFORM_API: &str = "0.13";

/// What every build of this machine shares. Cloning is cheap.
#[derive(Clone)]
pub struct Builder {
    /// Runs the build containers.
    pub engine: Arc<dyn Engine>,
    /// Where layers live.
    pub layers: LayerStore,
    /// Finds the base images. Asked by every build: the stack may be made, or made anew, while the platform runs.
    pub stack: Arc<dyn Fn() -> Result<Option<Stack>, StackError> + Send + Sync>,
    /// Makes the layers of Debian packages that apps need.
    pub debian: Arc<dyn PackageLayers>,
    /// Folder of buildpacks, `<id with / as _>/<version>/`, and `order.toml`.
    pub buildpacks: PathBuf,
    /// This program, mounted into build containers and put into images as the launcher.
    pub program: PathBuf,
    /// Folder for what builds keep between themselves, one folder an app.
    pub cache: PathBuf,
    /// Whether buildpacks that list only other distributions than the stack's may build.
    pub other_distros: bool,
    /// The machine's package mirrors and CA certificates.
    pub packages: packages::PackageAccess,
    /// Limits of a build.
    pub limits: BuildLimits,
    /// Builds beyond so many wait.
    pub queue: Arc<Queue>,
}

/// Limits of one build.
#[derive(Debug, Clone)]
pub struct BuildLimits {
    /// Memory of the build container, in bytes.
    pub memory_bytes: u64,
    /// Longest time, without waiting for other builds.
    pub time: Duration,
    /// What a build may have on the disk at one time, in bytes.
    pub disk_bytes: u64,
    /// A build is refused when less than this is free on the layer store's disk, in bytes.
    pub free_disk_bytes: u64,
    /// A build is refused when so many per cent of that disk are used, of its bytes or of its files.
    pub full_disk_percent: u8,
}

/// One build.
#[derive(Debug, Clone)]
pub struct BuildRequest<T = Source> {
    /// Which.
    pub build: BuildId,
    /// Of which app.
    pub app: AppId,
    /// The app's own uid: build and app run as it, and files of images from elsewhere become its.
    pub uid: u32,
    /// The image of the app's last good build: parts of it may be reused, and there is nothing to do if it is the same.
    pub previous: Option<Image>,
    /// Fetches what the app names that is elsewhere, with what it may show there.
    pub fetch: Arc<dyn Fetch>,
    /// What the image is made from.
    pub source: T,
}

/// What an image is made from.
#[derive(Debug, Clone)]
pub enum Source {
    /// An app's files, by buildpacks.
    Buildpacks(Buildpacks),
    /// An app's files, by the Dockerfile among them.
    Dockerfile(Dockerfile),
    /// An image that was made elsewhere.
    Image(ForeignImage),
}

/// Files that buildpacks make an image from.
#[derive(Debug, Clone)]
pub struct Buildpacks {
    /// The commit's files, on the layer store's file system. The build takes the folder over and removes it.
    pub files: PathBuf,
    /// Config vars: user-provided environment (Platform spec, "Environment").
    pub env: BTreeMap<String, String>,
    /// Buildpacks to use in this order instead of detecting; empty means what the repository says, or detect.
    pub chosen: Vec<Reference>,
}

impl<T> BuildRequest<T> {
    /// The same build of something else, and what this was of.
    fn swap<U>(self, source: U) -> (BuildRequest<U>, T) {
        let Self { build, app, uid, previous, fetch, source: mine } = self;
        (BuildRequest { build, app, uid, previous, fetch, source }, mine)
    }
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
    /// Time of each phase: `analyze`, `restore`, `container` (its start and end), `detect`, `build`, `export`, and `extend` if image
    /// extensions changed something.
    pub phases: Vec<(&'static str, Duration)>,
}

/// One build under way.
struct Job {
    builder: Builder,
    stack: Stack,
    request: BuildRequest<Buildpacks>,
    workspace: Workspace,
    /// What the build can use.
    installed: Names,
    extensions: Names,
}

impl Builder {
    const ONEOFF_PREFIX: &str = "build-";

    /// Builds. Output lines (of any kind, without newline, colours kept) go to `output`; a closed receiver does not stop the build.
    /// If the returned future is dropped, the container runs on until [`Engine::kill`] of [`Builder::oneoff`] or its time limit.
    pub async fn build(&self, request: BuildRequest, output: mpsc::Sender<String>) -> Result<Built, BuildError> {
        let mut phases = Phases::start();
        let _turn = self.queue.enter(&output).await;
        phases.end("queue");
        let (request, source) = request.swap(());
        let built = match source {
            Source::Buildpacks(files) => {
                self.build_by_buildpacks(request.swap(files).0, (&mut phases, &output)).await?
            }
            Source::Dockerfile(file) => self.build_by_dockerfile(request.swap(file).0, (&mut phases, &output)).await?,
            Source::Image(image) => self.import(request.swap(image).0, (&mut phases, &output)).await?,
        };
        Ok(Built { phases: phases.times, ..built })
    }

    /// What a build of this machine stands on, if it can begin.
    fn begin(&self) -> Result<Stack, BuildError> {
        let stack = (self.stack)()?.ok_or(BuildError::NoStack)?;
        disk::check(&self.layers, &self.limits)?;
        Ok(stack)
    }

    async fn build_by_buildpacks(
        &self,
        request: BuildRequest<Buildpacks>,
        (phases, output): (&mut Phases, &mpsc::Sender<String>),
    ) -> Result<Built, BuildError> {
        let builder = self.clone();
        let (job, analysis) = blocking(move || {
            let stack = builder.begin()?;
            // The labels of an image from elsewhere could name anybody's layers.
            let previous = request.previous.as_ref().filter(|image| image.foreign.is_none());
            let analysis = analyze::analyze(previous, &builder.cache_file(request.app));
            let workspace = Workspace::make(&builder, request.build)?;
            workspace.take(&request.source.files)?;
            let project = Project::read(&workspace.app())?;
            Ok(((builder, stack, request, workspace, project), analysis))
        })
        .await?;
        let job = self.prepare(job).await?;
        phases.end("analyze");

        let restored = restore::plan(&analysis, &|layer| self.layers.contains(layer));
        restored.write(&self.layers, &job.workspace.layers(), job.request.uid).map_err(|source| BuildError::Io {
            action: "restore",
            path: job.workspace.layers(),
            source,
        })?;
        phases.end("restore");

        let remembered = container::Ground::remembered(&job, &analysis.cache);
        let outcome = container::run(&job, &restored, remembered, output).await;
        self.keep_downloads(&job).await;
        let outcome = outcome?;
        self.ready_toolchains(&job);
        phases.end("container");
        phases.move_from("container", [("detect", outcome.detect), ("build", outcome.build)]);
        if !outcome.extend.is_zero() {
            phases.move_from("container", [("extend", outcome.extend)]);
        }

        let buildpacks = outcome.group.iter().map(|member| format!("{}@{}", member.id, member.version)).collect();
        let exported = blocking(move || {
            let exported = export::export(&job, &restored, &outcome, &analysis.cache.sizes)?;
            let cache = job.builder.cache_file(job.request.app);
            exported.cache.write(&cache).map_err(|source| BuildError::Io { action: "write", path: cache, source })?;
            Ok(exported)
        })
        .await?;
        let _ = output.send(exported.summary()).await;
        phases.end("export");
        Ok(Built { image: exported.image, buildpacks, size_bytes: exported.size_bytes, phases: Vec::new() })
    }

    /// Fetches the buildpacks that are elsewhere, and fills the workspace.
    async fn prepare(
        &self,
        (builder, stack, request, workspace, project): (Self, Stack, BuildRequest<Buildpacks>, Workspace, Project),
    ) -> Result<Arc<Job>, BuildError> {
        let fetched = self.fetch_all(&*request.fetch, request.source.chosen.iter().chain(project.references())).await?;
        blocking(move || {
            let gathered = workspace.fill(&builder, &request, (&project, &fetched))?;
            let (installed, extensions) = (gathered.buildpacks, gathered.extensions);
            Ok(Arc::new(Job { builder, stack, request, workspace, installed, extensions }))
        })
        .await
    }

    /// Keeps what the build has downloaded, also if it has failed. Without it later builds are slower, and no worse.
    async fn keep_downloads(&self, job: &Job) {
        let (downloads, layers) = (self.downloads(), job.workspace.layers());
        let kept = tokio::task::spawn_blocking(move || downloads.take(&layers)).await;
        if let Err(error) = kept.unwrap_or_else(|died| Err(std::io::Error::other(died))) {
            tracing::warn!(%error, "cannot keep what a build has downloaded");
        }
    }

    /// What builds of all apps have downloaded.
    fn downloads(&self) -> Downloads {
        Downloads::new(self.cache.join("downloads"))
    }

    /// Refuses to go on when too little of the disk is free.
    pub fn check_disk(&self) -> Result<(), BuildError> {
        disk::check(&self.layers, &self.limits)
    }

    /// The id of the container that runs this build's buildpacks.
    pub fn oneoff(app: AppId, build: BuildId) -> OneOffId {
        let build = build.to_string();
        OneOffId(format!("{}{app}-{}", Self::ONEOFF_PREFIX, &build[..8]))
    }

    fn cache_file(&self, app: AppId) -> PathBuf {
        self.cache.join(app.to_string()).join("cache.json")
    }

    /// What builds by a Dockerfile keep.
    fn docker_cache(&self, app: AppId) -> PathBuf {
        self.cache.join(app.to_string()).join("docker")
    }
}

/// Runs what waits for the disk where it holds up nobody else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(died) => std::panic::resume_unwind(died.into_panic()),
    }
}

/// How long each phase took.
struct Phases {
    since: Instant,
    times: Vec<(&'static str, Duration)>,
}

impl Phases {
    fn start() -> Self {
        Self { since: Instant::now(), times: Vec::new() }
    }

    fn end(&mut self, phase: &'static str) {
        self.times.push((phase, self.since.elapsed()));
        self.since = Instant::now();
    }

    /// Takes `parts` out of the time of `whole`.
    fn move_from<const N: usize>(&mut self, whole: &str, parts: [(&'static str, Duration); N]) {
        let sum = parts.iter().map(|(_, time)| *time).sum();
        for (_, time) in self.times.iter_mut().filter(|(phase, _)| *phase == whole) {
            *time = time.saturating_sub(sum);
        }
        self.times.extend(parts);
    }
}

/// This machine's architecture, by OCI's names.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
