//! The build container: what is mounted where, and how its end is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::{Container, EngineError, Limits, Lines, Mount, OneOff, RootFs};
use model::Exit;
use tokio::sync::mpsc;

use crate::debian::{self, Installed};
use crate::disk;
use crate::downloads;
use crate::errors::BuildError;
use crate::extend::{self, Extended};
use crate::extension;
use crate::lifecycle::OTHER_DISTROS;
use crate::metadata::Cache;
use crate::outcome::{Missing, Outcome};
use crate::restore::Restored;
use crate::stack::Stack;
use crate::workspace::Workspace;
use crate::{Builder, Job};

/// A build that forks without end hits this before it hurts the machine.
const PIDS: u32 = 4096;
/// Below an app's 100: builds take what running apps leave.
const CPU_WEIGHT: u32 = 20;
/// `HOME` of a build: buildpacks' tools keep their rubbish there, outside the app.
const HOME: &str = "/home/build";

/// What a build stands on beside the stack.
#[derive(Default)]
pub(crate) struct Ground {
    packages: Option<Installed>,
    extended: Option<Extended>,
    /// Whether both are what this very build asked for.
    is_settled: bool,
}

impl Ground {
    /// What the app's last build had, as far as it still is what it was.
    pub(crate) fn remembered(job: &Job, cache: &Cache) -> Self {
        let packages = Installed::remembered(&job.builder, &job.stack, cache);
        let extended = Extended::remembered((&job.builder, &job.stack), packages.as_ref(), cache);
        Self { packages, extended, is_settled: false }
    }
}

/// Runs detect and build in a container of their own, with the packages that the plan asks for and what image extensions make of the
/// images. Both are known after detect: the container starts with those of the last build, and another one takes its place if that
/// was wrong.
pub(crate) async fn run(
    job: &Arc<Job>,
    restored: &Restored,
    mut ground: Ground,
    output: &mpsc::Sender<String>,
) -> Result<Outcome, BuildError> {
    let mut outcome = run_once(job, restored, &ground, output).await?;
    let mut extend = Duration::ZERO;
    if let Some(Missing { packages, generated }) = outcome.missing.take() {
        // It has ended; what is left of it may not have gone yet, and all have one name.
        job.builder.engine.kill(&Builder::oneoff(job.request.app, job.request.build)).await?;
        let packages = debian::install(job, packages, output).await?;
        let started = Instant::now();
        let extended = extend::extend(job, ground.extended, (generated, packages.as_ref()), output).await?;
        if extended.is_some() {
            extend = started.elapsed();
        }
        ground = Ground { packages, extended, is_settled: true };
        job.workspace.forget_outcome()?;
        outcome = run_once(job, restored, &ground, output).await?;
    }
    if outcome.missing.is_some() {
        return Err(BuildError::Dishonest("it asks for other packages each time".to_owned()));
    }
    let Ground { packages, extended, .. } = ground;
    Ok(Outcome { packages, extended, extend, ..outcome })
}

async fn run_once(
    job: &Job,
    restored: &Restored,
    ground: &Ground,
    output: &mpsc::Sender<String>,
) -> Result<Outcome, BuildError> {
    let builder = &job.builder;
    let started = Instant::now();
    let exit = attend(builder, &job.workspace, oneoff(job, restored, ground)?, output).await?;
    let outcome = Outcome::read(&job.workspace.layers());
    if let Ok(Outcome { usage: Some(usage), missing: None, .. }) = &outcome {
        let _ = output.send(usage.describe(builder.limits.memory_bytes)).await;
    }
    match outcome {
        Ok(Outcome { failure: Some(failure), .. }) => Err(failure.into()),
        Ok(outcome) if exit.is_success() => Ok(outcome),
        _ if started.elapsed() >= builder.limits.time => Err(BuildError::TimeLimit { limit: builder.limits.time }),
        _ => Err(BuildError::Vanished(exit)),
    }
}

/// Runs a container of a build to its end, and shows what it prints.
pub(crate) async fn attend(
    builder: &Builder,
    workspace: &Workspace,
    oneoff: OneOff,
    output: &mpsc::Sender<String>,
) -> Result<Exit, BuildError> {
    let id = oneoff.id.clone();
    let mut running = builder.engine.run(oneoff).await?;
    tokio::select! {
        () = follow(&mut running.output, output) => {}
        outgrown = disk::outgrown(builder, workspace) => {
            builder.engine.kill(&id).await?;
            return Err(outgrown);
        }
    }
    let exit =
        running.exit.await.map_err(|_| EngineError::Failed("the engine was lost while the build ran".to_owned()))?;
    if exit == Exit::OutOfMemory {
        return Err(BuildError::OutOfMemory { memory_bytes: builder.limits.memory_bytes });
    }
    Ok(exit)
}

/// Hands on what the container prints, line by line.
async fn follow(printed: &mut mpsc::Receiver<Bytes>, output: &mpsc::Sender<String>) {
    let mut lines = Lines::default();
    while let Some(bytes) = printed.recv().await {
        for line in lines.push(&bytes) {
            // A receiver that went away does not stop the build.
            let _ = output.send(line).await;
        }
    }
    if let Some(line) = lines.rest() {
        let _ = output.send(line).await;
    }
}

fn oneoff(job: &Job, restored: &Restored, ground: &Ground) -> Result<OneOff, BuildError> {
    let Job { builder, stack, request, workspace, .. } = job;
    let extended = ground.extended.as_ref();
    let build = extended.and_then(|extended| extended.build.as_ref());
    let packages = ground.packages.as_ref().map(|packages| &packages.build);
    let rootfs = std::iter::once(&stack.build).chain(packages).chain(build.map(|build| &build.layer)).cloned();
    let mut env = environment(builder, stack);
    for (name, value) in build.iter().flat_map(|build| &build.env) {
        // An image says where its programs are, and not where a build's home is.
        if name == "PATH" || !env.contains_key(name) {
            env.insert(name.clone(), value.clone());
        }
    }
    env.insert(debian::VARIABLE.to_owned(), Installed::variable(ground.packages.as_ref()));
    env.insert(extension::VARIABLE.to_owned(), Extended::variable(extended, ground.is_settled));
    Ok(OneOff {
        id: Builder::oneoff(request.app, request.build),
        app: request.app,
        container: Container {
            rootfs: RootFs::Layers(rootfs.collect()),
            args: ["/usr/bin/tini", "-g", "--", "/cnb/lifecycle/lifecycle"].map(str::to_owned).to_vec(),
            env,
            working_dir: "/app".to_owned(),
            uid: request.uid,
            nested: false,
            limits: limits(builder),
            mounts: mounts(builder, workspace, restored)?,
        },
        tty: None,
        time_limit: builder.limits.time,
        stop_grace: Duration::ZERO,
        is_build: true,
        log: None,
    })
}

/// What a container of a build may take.
pub(crate) fn limits(builder: &Builder) -> Limits {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpu_millis = u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(1000);
    Limits { cpu_weight: CPU_WEIGHT, ..Limits::new(builder.limits.memory_bytes, cpu_millis, PIDS) }
}

pub(crate) fn environment(builder: &Builder, stack: &Stack) -> BTreeMap<String, String> {
    [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", HOME),
        ("CNB_PLATFORM_API", crate::PLATFORM_API),
        ("CNB_STACK_ID", &stack.name),
        ("CNB_TARGET_OS", &stack.os),
        ("CNB_TARGET_ARCH", &stack.arch),
        ("CNB_TARGET_DISTRO_NAME", &stack.distro_name),
        ("CNB_TARGET_DISTRO_VERSION", &stack.distro_version),
    ]
    .into_iter()
    .chain(builder.other_distros.then_some((OTHER_DISTROS, "1")))
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

fn mounts(builder: &Builder, workspace: &Workspace, restored: &Restored) -> Result<Vec<Mount>, BuildError> {
    let cannot_make = |source| BuildError::Io { action: "make", path: builder.cache.clone(), source };
    let downloads = builder.downloads();
    let downloads = downloads.folder().map_err(cannot_make)?;
    let toolchains = builder.toolchains().map_err(cannot_make)?;
    let bind = |source: PathBuf, target: &Path, read_only| Mount::Bind { source, target: target.to_owned(), read_only };
    let mut mounts = vec![
        bind(workspace.app(), Path::new("/app"), false),
        bind(workspace.home(), Path::new(HOME), false),
        bind(workspace.platform(), Path::new("/platform"), true),
        bind(workspace.order(), Path::new("/cnb/order.toml"), true),
        bind(workspace.buildpacks(), Path::new("/cnb/buildpacks"), false),
        bind(downloads.to_owned(), Path::new(downloads::TARGET), true),
        toolchains,
        layers(builder, workspace, restored),
    ];
    if workspace.extensions().exists() {
        mounts.push(bind(workspace.extensions(), Path::new("/cnb/extensions"), false));
    }
    for name in ["platform", "lifecycle", "launcher"] {
        mounts.push(bind(builder.program.clone(), &Path::new("/cnb/lifecycle").join(name), true));
    }
    mounts.extend(builder.packages.files.iter().map(|(source, target)| bind(source.clone(), target, true)));
    Ok(mounts)
}

/// `/layers`: an overlay over what was restored, or, over nothing, the directory itself.
fn layers(builder: &Builder, workspace: &Workspace, restored: &Restored) -> Mount {
    let (lower, target) = (restored.lower(&builder.layers), PathBuf::from("/layers"));
    if lower.is_empty() {
        return Mount::Bind { source: workspace.layers(), target, read_only: false };
    }
    Mount::Overlay { lower, upper: workspace.layers(), work: workspace.overlay_work(), target }
}
