//! The container in which buildah works, root only among users of its own, and what it keeps between builds of an app.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::{Container, Mount, NESTED_IDS, OneOff, RootFs};
use model::{AppId, BuildId, Digest, Exit};
use tokio::sync::mpsc;

use super::inside::Task;
use super::steps::Steps;
use super::{access, bases, text};
use crate::container::{attend, limits};
use crate::debian::PackageName;
use crate::errors::{BuildError, size};
use crate::packages::PackageAccess;
use crate::patience::Patience;
use crate::stack::Stack;
use crate::workspace::Workspace;
use crate::{Builder, debian, disk, tree};

/// The Debian packages that make images. buildah does not start without the program that would make networks for it.
const PACKAGES: [&str; 2] = ["buildah", "netavark"];
/// The first of the ids that containers of such builds use, beyond all apps'.
const FIRST_ID: u32 = 1 << 30;
/// The first id of an app (the controller gives them out).
const FIRST_APP: u32 = 100_000;

/// Where the program that drives buildah lies in the container.
const DRIVER: &str = "/driver/dockerfile";
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

/// What buildah keeps between builds: its images and layers. While it works they are in the build's folder, and nowhere else: what a
/// crash leaves half-written is gone with that, and they count as what the build has on the disk.
pub(crate) struct Storage {
    /// While it works.
    pub(crate) at: PathBuf,
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
    pub(crate) fn keep(&mut self, limit_bytes: u64) -> String {
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
pub(crate) struct Nest {
    /// Whose builds these are.
    app: AppId,
    /// Root in there.
    pub(crate) uid: u32,
    /// What Dockerfiles copy from.
    pub(crate) files: PathBuf,
    settings: PathBuf,
    access: PathBuf,
    /// Images that were fetched for it, which are not for everybody.
    pub(super) bases: PathBuf,
    /// Variables that tell programs of what is in `access`.
    env: BTreeMap<String, String>,
    pub(crate) storage: Storage,
    /// Images that are made are written here.
    pub(crate) out: PathBuf,
    scratch: PathBuf,
    home: PathBuf,
}

impl Nest {
    /// In the folder `root`, for files that are to be its own.
    pub(crate) fn make(
        builder: &Builder,
        (app, uid): (AppId, u32),
        root: &Path,
        files: PathBuf,
    ) -> Result<Self, BuildError> {
        let uid = uid.checked_sub(FIRST_APP).and_then(|number| number.checked_mul(NESTED_IDS));
        let uid = uid.and_then(|ids| ids.checked_add(FIRST_ID)).filter(|first| first.checked_add(NESTED_IDS).is_some());
        let none_left = || BuildError::Dishonest("the platform has no more ids for builds by Dockerfiles".to_owned());
        let uid = uid.ok_or_else(none_left)?;
        let made = Self::fill(&builder.packages, (app, builder.docker_cache(app)), (root, files), uid);
        made.map_err(|source| BuildError::Io { action: "prepare", path: root.to_owned(), source })
    }

    fn fill(
        packages: &PackageAccess,
        (app, kept): (AppId, PathBuf),
        (root, files): (&Path, PathBuf),
        uid: u32,
    ) -> io::Result<Self> {
        let path = |name: &str| root.join(name);
        let [settings, access, bases, out, scratch, home] =
            ["containers", "access", "bases", "image", "scratch", "home"].map(path);
        for dir in [&settings, &access, &bases, &out, &scratch, &home] {
            tree::make_dir(dir, 0o755)?;
        }
        let env = access::lay_out(packages, &access)?;
        for (name, text) in SETTINGS {
            fs::write(settings.join(name), text)?;
        }
        for dir in [&files, &settings, &access, &bases, &out, &scratch, &home] {
            tree::chown(dir, uid)?;
        }
        let storage = Storage::take(path("storage"), kept, uid)?;
        Ok(Self { app, uid, files, settings, access, bases, env, storage, out, scratch, home })
    }

    /// Puts a Dockerfile where buildah finds it, with the machine's variables, and says what it is to be told.
    pub(crate) fn dockerfile(&self, name: &str, dockerfile: &str) -> io::Result<Vec<String>> {
        let own = self.arguments();
        fs::write(self.settings.join(name), text::declare(dockerfile, &own))?;
        let values = own.into_iter().filter_map(|name| self.env.get_key_value(name));
        let args = values.map(|(name, value)| format!("--build-arg={name}={value}"));
        Ok(std::iter::once(format!("--file={SETTINGS_PLACE}/{name}")).chain(args).collect())
    }

    /// Variables that steps are told of as arguments. buildah passes proxies by itself, and no cache depends on these.
    fn arguments(&self) -> Vec<&str> {
        self.env.keys().map(String::as_str).filter(|name| !name.to_ascii_lowercase().ends_with("_proxy")).collect()
    }

    fn mounts(&self, builder: &Builder) -> Vec<Mount> {
        [
            (&self.files, "/workspace", true),
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

    /// The container. It sees `more` besides.
    pub(crate) fn oneoff(
        &self,
        builder: &Builder,
        (build, root): (BuildId, Vec<Digest>),
        task: &Task,
        more: Vec<Mount>,
    ) -> OneOff {
        let mut env = self.env.clone();
        // It would make users of its own otherwise.
        let own = [("PATH", PATH), ("HOME", "/root"), ("_CONTAINERS_USERNS_CONFIGURED", "done")];
        env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        // Strings and numbers always can be written into memory.
        let task = serde_json::to_string(task).unwrap_or_default();
        OneOff {
            id: Builder::oneoff(self.app, build),
            app: self.app,
            container: Container {
                rootfs: RootFs::Layers(root),
                args: ["/usr/bin/tini", "-g", "--", DRIVER, &task].map(str::to_owned).to_vec(),
                env,
                working_dir: "/".to_owned(),
                uid: self.uid,
                nested: true,
                limits: limits(builder),
                mounts: self.mounts(builder).into_iter().chain(more).collect(),
            },
            tty: None,
            time_limit: builder.limits.time,
            stop_grace: Duration::ZERO,
            is_build: true,
            log: None,
        }
    }
}

impl Builder {
    /// The layers of a container that has buildah.
    pub(crate) fn nest_root(
        &self,
        stack: &Stack,
        patience: &Patience,
        say: &mut dyn FnMut(&str),
    ) -> Result<Vec<Digest>, BuildError> {
        let packages: Result<BTreeSet<PackageName>, _> = PACKAGES.iter().map(|name| name.parse()).collect();
        let packages = packages.map_err(BuildError::Dishonest)?;
        let tool = debian::layer(self, (stack, &stack.build), &packages, patience, say)?;
        Ok(vec![stack.build.clone(), tool])
    }

    /// Runs the container to its end, and shows what buildah prints in the words of other builds.
    pub(crate) async fn run_nest(
        &self,
        workspace: &Workspace,
        (nest, oneoff): (&mut Nest, OneOff),
        failed: fn(Exit) -> BuildError,
        output: &mpsc::Sender<String>,
    ) -> Result<(), BuildError> {
        let (sender, mut lines) = mpsc::channel::<String>(1);
        let mut steps = Steps::new(nest.storage.is_new, &nest.arguments());
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
            Ok(exit) => Err(failed(exit)),
            Err(error @ (BuildError::DiskQuota { .. } | BuildError::DiskFull { .. })) => {
                // It is a part of what was too much, and the next build would end in the same way.
                nest.storage.is_lost = true;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// What may be kept for the next build, which has the other half for itself.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.limits.disk_bytes / 2
    }
}
