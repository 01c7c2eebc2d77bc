//! Images from a Dockerfile: buildah makes them, in a container that is root only among users of its own. Its layers are kept for the
//! app's next build.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::{Container, Mount, NESTED_IDS, OneOff, RootFs};
use model::{Digest, Exit, ProcessType};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use tokio::sync::mpsc;

use crate::container::{attend, limits};
use crate::debian::PackageName;
use crate::errors::{BuildError, size};
use crate::import::{ForeignImage, ImageSource};
use crate::packages::PackageAccess;
use crate::patience::Patience;
use crate::stack::Stack;
use crate::workspace::Workspace;
use crate::{BuildRequest, Builder, Built, Phases, blocking, debian, disk, tree};

mod access;
mod bases;
mod inside;
mod steps;
mod text;

use bases::Base;
use inside::Task;
pub use inside::main;
use steps::Steps;

/// The Debian packages that make images. buildah does not start without the program that would make networks for it.
const PACKAGES: [&str; 2] = ["buildah", "netavark"];
/// The first of the ids that containers of such builds use, beyond all apps'.
const FIRST_ID: u32 = 1 << 30;
/// The first id of an app (the controller gives them out).
const FIRST_APP: u32 = 100_000;

/// A longer Dockerfile is none.
const LONGEST_FILE: u64 = 4 << 20;
/// Where the program that drives buildah lies in the container.
const DRIVER: &str = "/driver/dockerfile";
/// The Dockerfile with the machine's variables, in the folder of settings.
const DOCKERFILE: &str = "Dockerfile";
const SETTINGS_PLACE: &str = "/etc/containers";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What buildah is told of the world: which images it may take, where names without a registry lead, where layers lie.
const SETTINGS: [(&str, &str); 3] = [
    ("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#),
    ("registries.conf", "unqualified-search-registries = [\"docker.io\"]\n"),
    (
        "storage.conf",
        "[storage]\ndriver = \"overlay\"\nrunroot = \"/var/tmp/run\"\ngraphroot = \"/containers/storage\"\n",
    ),
];

/// Files with a Dockerfile that makes an image from them.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// The commit's files, on the layer store's file system. The build takes the folder over and removes it.
    pub files: PathBuf,
    /// The Dockerfile, from the top of these; what it copies is in its folder.
    pub path: String,
    /// The stage that is wanted; the last one if none.
    pub target: Option<String>,
    /// Values for its `ARG`s.
    pub args: BTreeMap<String, String>,
    /// Command lines of process types.
    pub processes: BTreeMap<ProcessType, String>,
}

type Request = BuildRequest<Dockerfile>;

impl Builder {
    pub(crate) async fn build_by_dockerfile(
        &self,
        request: Request,
        (phases, output): (&mut Phases, &mpsc::Sender<String>),
    ) -> Result<Built, BuildError> {
        let (builder, said) = (self.clone(), output.clone());
        // A cancelled build drops this, and `waiting` with it.
        let (patience, _waiting) = Patience::for_at_most(self.limits.time);
        let prepared = blocking(move || {
            let stack = builder.begin()?;
            let packages: Result<BTreeSet<PackageName>, _> = PACKAGES.iter().map(|name| name.parse()).collect();
            let packages = packages.map_err(BuildError::Dishonest)?;
            let mut say = |line: &str| drop(said.blocking_send(line.to_owned()));
            let tool = debian::layer(&builder, (&stack, &stack.build), &packages, &patience, &mut say)?;
            let workspace = Workspace::make(&builder, request.build)?;
            workspace.take(&request.source.files)?;
            let nest = Nest::make(&builder, &request, workspace.root())?;
            Ok((request, stack, tool, workspace, nest))
        });
        // The last of these goes first: what is kept leaves the folder before that is removed.
        let (request, stack, tool, workspace, mut nest) = prepared.await?;
        phases.end("prepare");
        let _ = output.send(format!("-----> Building {}", request.source.path)).await;
        let bases = self.bring_bases(&request, &workspace, &nest, output).await?;
        phases.end("fetch");
        let oneoff = oneoff(self, &request, (&stack, &tool), (&nest, bases));
        // The same build may have asked buildpacks first; what is left of their container may not have gone yet, and both have one name.
        self.engine.kill(&oneoff.id).await?;
        self.run_dockerfile(&workspace, oneoff, &mut nest, output).await?;
        phases.end("build");
        let _ = output.send(nest.storage.keep(self.kept_bytes())).await;
        let layout = nest.out.clone();
        drop(nest);
        let (request, Dockerfile { path, processes, .. }) = request.swap(());
        let place = ImageSource::Layout(layout.clone());
        let (request, ()) = request.swap(ForeignImage { name: format!("of {path}"), place, processes });
        let built = self.take_over((request, stack, workspace), (None, layout), output).await?;
        phases.end("import");
        Ok(built)
    }

    /// Runs the container to its end, and shows what buildah prints in the words of other builds.
    async fn run_dockerfile(
        &self,
        workspace: &Workspace,
        oneoff: OneOff,
        nest: &mut Nest,
        output: &mpsc::Sender<String>,
    ) -> Result<(), BuildError> {
        let (sender, mut lines) = mpsc::channel::<String>(1);
        let mut steps = Steps::new(nest.storage.is_new, &arguments(&nest.env));
        let shown = async {
            while let Some(line) = lines.recv().await {
                for line in steps.translate(&line) {
                    // A receiver that went away does not stop the build.
                    let _ = output.send(line).await;
                }
            }
        };
        let started = Instant::now();
        let attended = async {
            let exit = attend(self, workspace, oneoff, &sender).await;
            drop(sender);
            exit
        };
        match tokio::join!(attended, shown).0 {
            Ok(Exit::Code(0)) => Ok(()),
            Ok(_) if started.elapsed() >= self.limits.time => Err(BuildError::TimeLimit { limit: self.limits.time }),
            Ok(exit) => Err(BuildError::Dockerfile(exit)),
            Err(error @ (BuildError::DiskQuota { .. } | BuildError::DiskFull { .. })) => {
                // It is a part of what was too much, and the next build would end in the same way.
                nest.storage.is_lost = true;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// What may be kept for the next build, which has the other half for itself.
    fn kept_bytes(&self) -> u64 {
        self.limits.disk_bytes / 2
    }
}

/// What buildah keeps between builds: its images and layers. While it works they are in the build's folder, and nowhere else: what a
/// crash leaves half-written is gone with that, and they count as what the build has on the disk.
struct Storage {
    /// While it works.
    at: PathBuf,
    /// Between builds.
    kept: PathBuf,
    /// Whether there was nothing.
    is_new: bool,
    /// Whether there shall be nothing.
    is_lost: bool,
}

impl Storage {
    fn take(at: PathBuf, kept: PathBuf, uid: u32) -> io::Result<Self> {
        match fs::rename(&kept, &at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => tree::make_dir(&at, 0o755)?,
            moved => moved?,
        }
        // buildah makes its folder in it.
        let is_new = fs::read_dir(&at)?.next().is_none();
        let storage = Self { at, kept, is_new, is_lost: false };
        lchown(&storage.at, Some(uid), Some(uid))?;
        Ok(storage)
    }

    /// Says how much stays; nothing if that would be more than `limit_bytes`.
    fn keep(&mut self, limit_bytes: u64) -> String {
        let bytes = disk::written(&self.at);
        self.is_lost = bytes > limit_bytes;
        let (size, limit) = (size(bytes), size(limit_bytes));
        if self.is_lost {
            format!("       Its steps take {size}, and at most {limit} are kept: the next build starts from nothing")
        } else {
            format!("       Kept for the next build: {size}")
        }
    }
}

impl Drop for Storage {
    /// However the build ended: a step that is done is done for the next one as well.
    fn drop(&mut self) {
        if self.is_lost {
            return;
        }
        let kept = fs::create_dir_all(self.kept.parent().unwrap_or(Path::new("/")));
        if let Err(error) = kept.and_then(|()| fs::rename(&self.at, &self.kept)) {
            tracing::warn!(path = %self.kept.display(), %error, "what a build by a Dockerfile made is not kept");
        }
    }
}

/// What the container mounts, all of it owned by its own users.
struct Nest {
    /// Root in there.
    uid: u32,
    app: PathBuf,
    settings: PathBuf,
    access: PathBuf,
    /// Images that were fetched for it, which are not for everybody.
    bases: PathBuf,
    /// Variables that tell programs of what is in `access`.
    env: BTreeMap<String, String>,
    /// The list of what is not copied, if this Dockerfile has one of its own.
    ignored: Option<String>,
    storage: Storage,
    out: PathBuf,
    scratch: PathBuf,
    home: PathBuf,
}

impl Nest {
    fn make(builder: &Builder, request: &Request, root: &Path) -> Result<Self, BuildError> {
        let uid = request.uid.checked_sub(FIRST_APP).and_then(|number| number.checked_mul(NESTED_IDS));
        let uid = uid.and_then(|ids| ids.checked_add(FIRST_ID)).filter(|first| first.checked_add(NESTED_IDS).is_some());
        let none_left = || BuildError::Dishonest("the platform has no more ids for builds by Dockerfiles".to_owned());
        let uid = uid.ok_or_else(none_left)?;
        let kept = builder.docker_cache(request.app);
        let made = Self::fill((&builder.packages, &request.source.path), root, kept, uid);
        made.map_err(|source| BuildError::Io { action: "prepare", path: root.to_owned(), source })
    }

    fn fill((packages, dockerfile): (&PackageAccess, &str), root: &Path, kept: PathBuf, uid: u32) -> io::Result<Self> {
        let path = |name: &str| root.join(name);
        let [app, settings, access, bases, out, scratch, home] =
            ["app", "containers", "access", "bases", "image", "scratch", "home"].map(path);
        for dir in [&settings, &access, &bases, &out, &scratch, &home] {
            tree::make_dir(dir, 0o755)?;
        }
        let env = access::lay_out(packages, &access)?;
        for (name, text) in SETTINGS {
            fs::write(settings.join(name), text)?;
        }
        let text = text::declare(&read(&app, dockerfile)?, &arguments(&env));
        fs::write(settings.join(DOCKERFILE), text)?;
        for dir in [&app, &settings, &access, &bases, &out, &scratch, &home] {
            tree::chown(dir, uid)?;
        }
        let storage = Storage::take(path("storage"), kept, uid)?;
        let own = format!("{dockerfile}.dockerignore");
        let ignored = app.join(&own).is_file().then(|| format!("/workspace/{own}"));
        Ok(Self { uid, app, settings, access, bases, env, ignored, storage, out, scratch, home })
    }

    fn mounts(&self, builder: &Builder) -> Vec<Mount> {
        [
            (&self.app, "/workspace", true),
            (&self.settings, SETTINGS_PLACE, true),
            (&self.access, access::PLACE, true),
            (&self.bases, bases::PLACE, true),
            (&self.storage.at, "/containers", false),
            (&self.out, "/out", false),
            (&self.scratch, "/var/tmp", false),
            (&self.home, "/root", false),
            (&builder.program, DRIVER, true),
        ]
        .map(|(source, target, read_only)| Mount::Bind { source: source.clone(), target: target.into(), read_only })
        .into()
    }
}

fn oneoff(
    builder: &Builder,
    request: &Request,
    (stack, tool): (&Stack, &Digest),
    (nest, bases): (&Nest, Vec<Base>),
) -> OneOff {
    let mut env = nest.env.clone();
    // It would make users of its own otherwise.
    let own = [("PATH", PATH), ("HOME", "/root"), ("_CONTAINERS_USERNS_CONFIGURED", "done")];
    env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let file = Path::new("/workspace").join(&request.source.path);
    let context = file.parent().unwrap_or(Path::new("/workspace")).display().to_string();
    let of_machine = arguments(&nest.env).into_iter().filter_map(|name| nest.env.get_key_value(name));
    // The later one of the same name wins.
    let args = of_machine.chain(&request.source.args).map(|(name, value)| format!("--build-arg={name}={value}"));
    let target = request.source.target.iter().map(|target| format!("--target={target}"));
    let ignored = nest.ignored.iter().map(|file| format!("--ignorefile={file}"));
    let last = [format!("--file={SETTINGS_PLACE}/{DOCKERFILE}"), context];
    let task = Task {
        memory_bytes: builder.limits.memory_bytes,
        kept_bytes: builder.kept_bytes(),
        bases,
        args: args.chain(target).chain(ignored).chain(last).collect(),
    };
    // Strings and numbers always can be written into memory.
    let task = serde_json::to_string(&task).unwrap_or_default();
    OneOff {
        id: Builder::oneoff(request.app, request.build),
        app: request.app,
        container: Container {
            rootfs: RootFs::Layers(vec![stack.build.clone(), tool.clone()]),
            args: ["/usr/bin/tini", "-g", "--", DRIVER, &task].map(str::to_owned).to_vec(),
            env,
            working_dir: "/".to_owned(),
            uid: nest.uid,
            nested: true,
            limits: limits(builder),
            mounts: nest.mounts(builder),
        },
        tty: None,
        time_limit: builder.limits.time,
    }
}

/// Variables that steps are told of as arguments. buildah passes proxies by itself, and no cache depends on these.
fn arguments(env: &BTreeMap<String, String>) -> Vec<&str> {
    env.keys().map(String::as_str).filter(|name| !name.to_ascii_lowercase().ends_with("_proxy")).collect()
}

/// The app's Dockerfile. It may be a link, but to nothing of this machine.
fn read(app: &Path, dockerfile: &str) -> io::Result<String> {
    let folder = fs::File::open(app)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let mut text = String::new();
    fs::File::from(openat2(&folder, dockerfile, how)?).take(LONGEST_FILE).read_to_string(&mut text)?;
    Ok(text)
}
