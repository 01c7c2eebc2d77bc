//! The extend phase: Dockerfiles of image extensions, applied to the images that an app is built and run on. buildah does it, where
//! it builds apps' own Dockerfiles; what a Dockerfile adds becomes one layer over the image, which is kept until the image or the
//! Dockerfiles change.
//!
//! What is to be applied was written by buildpacks' and the app's own code: it is treated so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{LayerStore, Mount};
use model::{Digest, Layer};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::debian::Installed;
use crate::dockerfile::{Given, Making, Nest, REBASABLE, Step as Application, Task};
use crate::errors::{BuildError, Failure};
use crate::extension::rules::{self, Checked};
use crate::extension::{self, Generated, Step, Target};
use crate::flatten::{Flat, Owner};
use crate::formats::escaped;
use crate::metadata::Cache;
use crate::oci::Layout;
use crate::patience::Patience;
use crate::stack::Stack;
use crate::unpack::UnpackError;
use crate::{Builder, Job, blocking, launcher_layer, layout, tree};

/// The user that Dockerfiles know as the image's own. What they make its becomes the app's. Debian gives it to nobody.
const USER: u32 = 60_000;
/// Where the app's files are for those that copy from them.
const APP: &str = "/app";
/// Longest note of buildah's driver.
const LONGEST_NOTE: u64 = 128;

/// What is no part of an extended image: every container gets these of its own, the app's and buildpacks' layers replace them
/// (Image Extension spec, "Dockerfile Requirements"), or tools wrote them on the way, another time each time.
const LEFT_OUT: [&str; 27] = [
    "dev",
    "proc",
    "sys",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "app",
    "layers",
    "platform",
    "workspace",
    "cnb",
    "var/cache/apt",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/passwords.dat",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig",
    "var/lib/apt/lists",
    "var/lib/apt/extended_states-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/log/alternatives.log",
    "var/log/apt",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
];

/// What programs of Debian are loaded by: an image without it cannot start the launcher.
fn loader() -> &'static str {
    match crate::architecture() {
        "arm64" => "/lib/ld-linux-aarch64.so.1",
        _ => "/lib64/ld-linux-x86-64.so.2",
    }
}

/// What image extensions made of the images that an app is built and run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extended {
    /// See [`Generated`].
    key: Option<String>,
    /// The layers of the images as they were before.
    bases: Bases,
    pub(crate) build: Option<Extension>,
    pub(crate) run: Option<Extension>,
}

/// The layers of the images that extensions begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Bases {
    build: Vec<Digest>,
    run: Vec<Digest>,
}

/// What was made of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extension {
    /// Over the image, or in its place.
    pub(crate) layer: Digest,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// The image that takes the place of ours.
    pub(crate) instead: Option<String>,
    /// The first process of containers, if ours is not in the image.
    first: Option<Digest>,
    /// Whether another image of ours may take the place of the one below.
    pub(crate) is_rebasable: bool,
    /// Ids of the extensions.
    by: Vec<String>,
}

impl Bases {
    fn of(stack: &Stack, packages: Option<&Installed>) -> Self {
        let over = |base: &Digest, more: Option<&Digest>| std::iter::once(base).chain(more).cloned().collect();
        Self {
            build: over(&stack.build, packages.map(|packages| &packages.build)),
            run: over(&stack.run, packages.and_then(|packages| packages.run.as_ref())),
        }
    }

    fn get(&self, target: Target) -> &[Digest] {
        match target {
            Target::Build => &self.build,
            Target::Run => &self.run,
        }
    }
}

impl Extended {
    /// What the app's last build had, if it still is what it was: the next one starts with it.
    pub(crate) fn remembered(
        (builder, stack): (&Builder, &Stack),
        packages: Option<&Installed>,
        cache: &Cache,
    ) -> Option<Self> {
        let last = cache.extended.clone()?;
        let is_same = last.key.is_some() && last.bases == Bases::of(stack, packages);
        let is_here = last.layers().all(|layer| builder.layers.contains(&layer));
        (is_same && is_here).then_some(last)
    }

    /// The value of [`extension::VARIABLE`].
    pub(crate) fn variable(extended: Option<&Self>, is_settled: bool) -> String {
        let key = extended.and_then(|extended| extended.key.clone()).unwrap_or_default();
        if is_settled { extension::JUST_NOW.to_owned() } else { key }
    }

    /// The layers, for those who ask what is in use.
    pub(crate) fn layers(&self) -> impl Iterator<Item = Digest> {
        let both = self.build.iter().chain(&self.run);
        both.flat_map(|made| std::iter::once(&made.layer).chain(&made.first).cloned()).collect::<Vec<_>>().into_iter()
    }
}

/// The layers of an app's image below the app's own.
pub(crate) fn run_layers(stack: &Stack, packages: Option<&Installed>, extended: Option<&Extended>) -> Vec<Layer> {
    let run = extended.and_then(|extended| extended.run.as_ref());
    if let Some((run, name)) = run.and_then(|run| Some((run, run.instead.as_ref()?))) {
        let image = Layer { diff_id: run.layer.clone(), created_by: format!("Run image {name}") };
        let first = run.first.clone().map(|diff_id| Layer { diff_id, created_by: "First process".to_owned() });
        return std::iter::once(image).chain(first).collect();
    }
    let mut layers = vec![Layer { diff_id: stack.run.clone(), created_by: format!("Run image {}", stack.name) }];
    if let Some((packages, run)) = packages.and_then(|packages| Some((packages, packages.run.clone()?))) {
        layers.push(Layer { diff_id: run, created_by: packages.created_by() });
    }
    layers.extend(run.map(|run| Layer {
        diff_id: run.layer.clone(),
        created_by: format!("Image extensions: {}", run.by.join(", ")),
    }));
    layers
}

/// Applies what extensions generated, unless `before` is that already; none if they generated nothing.
pub(crate) async fn extend(
    job: &Arc<Job>,
    before: Option<Extended>,
    (generated, packages): (Generated, Option<&Installed>),
    output: &mpsc::Sender<String>,
) -> Result<Option<Extended>, BuildError> {
    if generated.steps.is_empty() {
        return Ok(None);
    }
    let bases = Bases::of(&job.stack, packages);
    if let Some(same) = before.filter(|it| it.key.is_some() && it.key == generated.key && it.bases == bases) {
        return Ok(Some(same));
    }
    let plans = [Target::Build, Target::Run].map(|target| Plan::of(job, target, (&generated, &bases)));
    let mut wanted = Vec::new();
    for plan in plans {
        let plan = plan?;
        for line in &plan.remarks {
            let _ = output.send(line.clone()).await;
        }
        wanted.extend((!plan.steps.is_empty()).then_some(plan));
    }
    if let (Some(packages), Some(plan)) = (packages, wanted.iter().find(|plan| plan.instead.is_some())) {
        plan.refuse_packages(packages)?;
    }
    let (preparing, said) = (Arc::clone(job), output.clone());
    // A cancelled build drops this, and `waiting` with it.
    let (patience, _waiting) = Patience::for_at_most(job.builder.limits.time);
    let prepared = blocking(move || {
        let mut say = |line: &str| drop(said.blocking_send(line.to_owned()));
        let root = preparing.builder.nest_root(&preparing.stack, &patience, &mut say)?;
        let (nest, task) = prepare(&preparing, &wanted)?;
        Ok((root, nest, task, wanted))
    });
    let (root, mut nest, task, wanted) = prepared.await?;
    let app = Mount::Bind { source: job.workspace.app(), target: APP.into(), read_only: true };
    let oneoff = nest.oneoff(&job.builder, (job.request.build, root), &task, vec![app]);
    job.builder.run_nest(&job.workspace, (&mut nest, oneoff), BuildError::Extension, output).await?;
    let _ = output.send(nest.storage.keep(job.builder.kept_bytes())).await;
    let job = Arc::clone(job);
    blocking(move || {
        let mut extended = Extended { key: generated.key, bases, build: None, run: None };
        for plan in wanted {
            let made = plan.take(&job, &nest)?;
            match plan.target {
                Target::Build => extended.build = Some(made),
                Target::Run => extended.run = Some(made),
            }
        }
        give_back(&job).map_err(prepare_failed(&job))?;
        Ok(Some(extended))
    })
    .await
}

/// How one image is extended.
struct Plan {
    target: Target,
    steps: Vec<(Step, Checked)>,
    /// The layers that it begins with.
    base: Vec<Digest>,
    /// The image that it begins with in their place.
    instead: Option<String>,
    remarks: Vec<String>,
}

impl Plan {
    /// Of all that was generated, what counts for one image.
    fn of(job: &Job, target: Target, (generated, bases): (&Generated, &Bases)) -> Result<Self, BuildError> {
        let mut plan =
            Self { target, steps: Vec::new(), base: bases.get(target).to_vec(), instead: None, remarks: Vec::new() };
        for step in generated.steps.iter().filter(|step| step.target == target) {
            if !job.extensions.iter().any(|(id, _)| *id == step.extension) {
                return Err(BuildError::Dishonest(format!(
                    "it names an extension {} that is not installed",
                    step.extension
                )));
            }
            let invalid = |problem| invalid(&step.extension, problem);
            let checked = rules::check(target, &step.dockerfile).map_err(invalid)?;
            plan.remarks.extend(checked.warnings.iter().map(|it| format!(" !     Warning: {}: {it}", step.extension)));
            if let Some(image) = &checked.instead {
                // What was to be done with another image before has no effect on this one.
                for (old, _) in plan.steps.drain(..) {
                    let why = format!("{} replaces the image", step.extension);
                    plan.remarks.push(format!(
                        "       The {} of {} has no effect: {why}",
                        target.file(),
                        old.extension
                    ));
                }
                plan.instead = Some(image.clone());
            }
            plan.steps.push((step.clone(), checked));
        }
        if let Some(image) = &plan.instead {
            plan.remarks.push(format!("       The app runs on the image {image} in place of the stack's"));
        }
        if !plan.steps.is_empty() {
            let by = plan.by().join(", ");
            plan.remarks.push(format!("-----> Extending the {} image with {by}", target.name()));
        }
        Ok(plan)
    }

    fn by(&self) -> Vec<String> {
        self.steps.iter().map(|(step, _)| step.extension.clone()).collect()
    }

    /// Debian packages of the app's would lie over an image that is not Debian, or another one.
    fn refuse_packages(&self, packages: &Installed) -> Result<(), BuildError> {
        let image = self.instead.clone().unwrap_or_default();
        let problem = "it replaces the run image, and Debian packages that the app needs can be installed only in the stack's own";
        if packages.run.is_none() {
            return Ok(());
        }
        Err(BuildError::Image { name: image, problem: problem.to_owned() })
    }

    /// Folder of the OCI layout, within [`Nest::out`].
    fn layout(&self, nest: &Nest) -> PathBuf {
        nest.out.join(self.target.name())
    }

    /// What it begins with, written for buildah unless that has it already.
    fn base(&self, nest: &Nest, store: &LayerStore) -> io::Result<Option<Given>> {
        let layout = self.layout(nest);
        if self.instead.is_some() {
            tree::make_dir(&layout, 0o755)?;
            return Ok(None);
        }
        let note_name = format!("base-{}", self.target.name());
        let name = format!("localhost/{note_name}");
        let key = hex::encode(Sha256::digest(self.base.iter().map(Digest::as_str).collect::<Vec<_>>().join(" ")));
        let is_kept = note(&nest.storage.at.join(note_name)).is_some_and(|kept| kept == key);
        if is_kept {
            // buildah writes no layer that is there, and nobody reads these.
            let blobs = layout.join("blobs/sha256");
            tree::make_dir(&blobs, 0o755)?;
            self.base.iter().try_for_each(|layer| fs::write(blobs.join(layer.hex()), ""))?;
        } else {
            layout::write_base(store, &self.base, &format!("{USER}:{USER}"), (&layout, &name))?;
        }
        Ok(Some(Given { name, key, is_kept }))
    }

    /// What buildah is to do.
    fn making(&self, job: &Job, nest: &Nest) -> io::Result<Making> {
        let name = self.target.name();
        let mut steps = Vec::new();
        for (index, (step, checked)) in self.steps.iter().enumerate() {
            let mut args = nest.dockerfile(&format!("{name}-{index}.Dockerfile"), &step.dockerfile)?;
            if checked.is_anew {
                args.push(format!("--build-arg=build_id={}", job.request.build));
            }
            args.extend(step.args.iter().map(|arg| format!("--build-arg={}={}", arg.name, arg.value)));
            args.push(context(step, checked));
            let wants_user = ["user_id", "group_id"].iter().any(|name| step.dockerfile.contains(name));
            let on_base = checked.instead.is_none();
            steps.push(Application {
                args,
                on_base,
                wants_user: wants_user && (on_base || index > 0),
                says_rebasable: checked.says_rebasable,
            });
        }
        let (layout, base) = (format!("/out/{name}"), self.base(nest, &job.builder.layers)?);
        Ok(Making { name: format!("localhost/extended-{name}"), layout, extends: true, given: base, steps })
    }

    /// Makes what buildah wrote a layer of the store.
    fn take(&self, job: &Job, nest: &Nest) -> Result<Extension, BuildError> {
        let name = self.instead.clone().unwrap_or_else(|| format!("of the {}", self.target.file()));
        let failed = |error: UnpackError| BuildError::Image { name: name.clone(), problem: error.to_string() };
        let folder = self.layout(nest);
        let layout = Layout::read(&folder).map_err(failed)?;
        let user = layout.settings.user.split(':').next().unwrap_or_default();
        if self.target == Target::Run && ["0", "root"].contains(&user) && self.steps.iter().any(|(_, it)| it.extends) {
            let problem = "its run.Dockerfile leaves the user root; it must end with `USER ${user_id}:${group_id}`, with both as ARGs";
            let last = self.steps.last().map_or("", |(step, _)| &step.extension);
            return Err(invalid(last, problem.to_owned()).into());
        }
        let is_rebasable = note(&folder.join(REBASABLE)).is_some_and(|text| text == "true");
        let (uid, limit) = (job.request.uid, job.builder.limits.disk_bytes);
        let place = job.workspace.trees().join(format!("extended-{}", self.target.name()));
        let own = if self.instead.is_some() { 0 } else { self.base.len() };
        let mut flat = if self.instead.is_some() {
            Flat::make(&place, Owner::Everything(uid), limit)
        } else {
            let is_base = |(ours, theirs): (&Digest, &str)| ours.as_str() == theirs;
            if layout.layers.len() < own || !self.base.iter().zip(layout.digests()).all(is_base) {
                return Err(BuildError::Dishonest(
                    "an extended image is not made of the one that was given".to_owned(),
                ));
            }
            let below = self.base.iter().map(|layer| job.builder.layers.path(layer)).collect();
            Flat::over(&place, Owner::AsSaid { from: USER, to: uid }, limit, below)
        }
        .map_err(|error| failed(error.into()))?;
        for layer in layout.layers.iter().skip(own) {
            flat.add(&layout.blob(layer).map_err(failed)?).map_err(failed)?;
        }
        if self.instead.is_some() && !flat.has_program(loader()) {
            let problem = format!("it has no {}, by which what the platform puts into images is started", loader());
            return Err(BuildError::Image { name, problem });
        }
        flat.settle(&LEFT_OUT).map_err(|error| failed(error.into()))?;
        let first = self
            .instead
            .as_ref()
            .map(|_| launcher_layer::ensure_own_first(&job.builder, &job.stack, &job.workspace.trees().join("first")));
        let split = |line: &String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Extension {
            layer: job.builder.store(&place)?,
            env: layout.settings.env.iter().filter_map(split).collect(),
            labels: layout.settings.labels,
            instead: self.instead.clone(),
            first: first.transpose()?,
            is_rebasable,
            by: self.by(),
        })
    }
}

fn invalid(extension: &str, problem: String) -> Failure {
    Failure::ExtensionInvalid { extension: extension.to_owned(), problem }
}

fn prepare_failed(job: &Job) -> impl Fn(io::Error) -> BuildError {
    let path = job.workspace.root().to_owned();
    move |source| BuildError::Io { action: "prepare", path: path.clone(), source }
}

/// Where a Dockerfile copies from, in the container.
fn context(step: &Step, checked: &Checked) -> String {
    match &step.context {
        Some(name) => format!("/workspace/{}/{name}", escaped(&step.extension)),
        None if checked.copies => APP.to_owned(),
        None => "/workspace/nothing".to_owned(),
    }
}

/// Everything that buildah needs, and what it is to do.
fn prepare(job: &Job, plans: &[Plan]) -> Result<(Nest, Task), BuildError> {
    let trouble = prepare_failed(job);
    let root = job.workspace.root().join("nest");
    let files = root.join("files");
    tree::make_dir(&files.join("nothing"), 0o755).map_err(&trouble)?;
    let steps = || plans.iter().flat_map(|plan| &plan.steps);
    let folders: BTreeSet<(String, &String)> =
        steps().filter_map(|(step, _)| Some((escaped(&step.extension), step.context.as_ref()?))).collect();
    for (extension, name) in folders {
        let from = plain_folder(&job.workspace.layers(), [Path::new("generated"), extension.as_ref(), name.as_ref()])?;
        let to = files.join(extension);
        tree::make_dir(&to, 0o755).and_then(|()| fs::rename(from, to.join(name))).map_err(&trouble)?;
    }
    let nest = Nest::make(&job.builder, (job.request.app, job.request.uid), &root, files)?;
    if steps().any(|(step, checked)| context(step, checked) == APP) {
        tree::chown(&job.workspace.app(), nest.uid).map_err(&trouble)?;
    }
    let makings = plans.iter().map(|plan| plan.making(job, &nest)).collect::<io::Result<Vec<_>>>();
    let task = Task::of(&job.builder, makings.map_err(&trouble)?);
    tree::chown(&nest.out, nest.uid).map_err(&trouble)?;
    Ok((nest, task))
}

/// The app's files are its own again.
fn give_back(job: &Job) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let app = job.workspace.app();
    if fs::symlink_metadata(&app)?.uid() == job.request.uid { Ok(()) } else { tree::chown(&app, job.request.uid) }
}

/// A folder that code of strangers made, if no link is on the way to it. No process of theirs is left that could change it.
fn plain_folder(root: &Path, parts: [&Path; 3]) -> Result<PathBuf, BuildError> {
    let mut folder = root.to_owned();
    for part in parts {
        let is_plain = part.file_name().is_some_and(|name| name == part.as_os_str());
        folder.push(part);
        if !is_plain || !fs::symlink_metadata(&folder).is_ok_and(|found| found.is_dir()) {
            return Err(BuildError::Dishonest(format!("an image extension's {} is no folder", part.display())));
        }
    }
    Ok(folder)
}

/// A short text that root of the container may have replaced by anything.
fn note(file: &Path) -> Option<String> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(file).ok()?;
    let mut text = String::new();
    file.metadata().ok()?.is_file().then_some(())?;
    file.take(LONGEST_NOTE).read_to_string(&mut text).ok()?;
    Some(text)
}
