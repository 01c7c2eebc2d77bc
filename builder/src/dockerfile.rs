//! Images from a Dockerfile: buildah makes them, in a container that is root only among users of its own. Its layers are kept for the
//! app's next build.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::{Container, Mount, NESTED_IDS, OneOff, RootFs};
use model::{AppId, BuildId, Digest, Image, ProcessType};
use tokio::sync::mpsc;

use crate::container::{attend, limits};
use crate::debian::PackageName;
use crate::errors::BuildError;
use crate::import::{ImageSource, ImportRequest};
use crate::packages::CA_TARGET;
use crate::patience::Patience;
use crate::stack::Stack;
use crate::workspace::Workspace;
use crate::{Builder, Built, Phases, blocking, debian, tree};

/// The Debian packages that make images. buildah does not start without the program that would make networks for it.
const PACKAGES: [&str; 2] = ["buildah", "netavark"];
/// The first of the ids that containers of such builds use, beyond all apps'.
const FIRST_ID: u32 = 1 << 30;
/// The first id of an app (the controller gives them out).
const FIRST_APP: u32 = 100_000;

/// Builds, and writes the image as an OCI layout. Its arguments are those of the build.
const SCRIPT: &str = "buildah build --isolation chroot --layers --network host --pull=newer --format oci --tag image \"$@\"\n\
                      exec buildah push --quiet localhost/image oci:/out:image";

/// What buildah is told of the world: which images it may take, where names without a registry lead, where layers lie.
const SETTINGS: [(&str, &str); 3] = [
    ("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#),
    ("registries.conf", "unqualified-search-registries = [\"docker.io\"]\n"),
    (
        "storage.conf",
        "[storage]\ndriver = \"overlay\"\nrunroot = \"/var/tmp/run\"\ngraphroot = \"/containers/storage\"\n",
    ),
];

/// One build by a Dockerfile.
#[derive(Debug, Clone)]
pub struct DockerRequest {
    /// Which.
    pub build: BuildId,
    /// Of which app.
    pub app: AppId,
    /// The app's own uid.
    pub uid: u32,
    /// The commit's files, on the layer store's file system. The build takes the folder over and removes it.
    pub source: PathBuf,
    /// The Dockerfile, from the top of these; what it copies is in its folder.
    pub dockerfile: String,
    /// The stage that is wanted; the last one if none.
    pub target: Option<String>,
    /// Values for its `ARG`s.
    pub args: BTreeMap<String, String>,
    /// The image of the app's last good build.
    pub previous: Option<Image>,
    /// Command lines of process types.
    pub processes: BTreeMap<ProcessType, String>,
}

impl Builder {
    /// Builds by a Dockerfile. Output and dropping are as with [`Builder::build`].
    pub async fn build_dockerfile(
        &self,
        request: DockerRequest,
        output: mpsc::Sender<String>,
    ) -> Result<Built, BuildError> {
        let mut phases = Phases::start();
        let _turn = self.queue.enter(&output).await;
        phases.end("queue");
        let (builder, said) = (self.clone(), output.clone());
        // A cancelled build drops this, and `waiting` with it.
        let (patience, _waiting) = Patience::for_at_most(self.limits.time);
        let prepared = blocking(move || {
            let stack = (builder.stack)()?.ok_or(BuildError::NoStack)?;
            builder.check_disk()?;
            let packages: Result<BTreeSet<PackageName>, _> = PACKAGES.iter().map(|name| name.parse()).collect();
            let packages = packages.map_err(BuildError::Dishonest)?;
            let mut say = |line: &str| drop(said.blocking_send(line.to_owned()));
            let tool = debian::layer(&builder, (&stack, &stack.build), &packages, &patience, &mut say)?;
            let workspace = Workspace::make(&builder, request.build)?;
            workspace.take(&request.source)?;
            let nest = Nest::make(&builder, &request, workspace.root())?;
            Ok((request, stack, tool, workspace, nest))
        });
        let (request, stack, tool, workspace, nest) = prepared.await?;
        phases.end("prepare");
        let _ = output.send(format!("-----> Building {}", request.dockerfile)).await;
        let started = Instant::now();
        let exit = attend(self, &workspace, oneoff(self, &request, (&stack, &tool), &nest), &output).await?;
        nest.keep().map_err(|source| BuildError::Io { action: "keep", path: nest.kept.clone(), source })?;
        if !exit.is_success() {
            let is_late = started.elapsed() >= self.limits.time;
            let limit = self.limits.time;
            return Err(if is_late { BuildError::TimeLimit { limit } } else { BuildError::Dockerfile(exit) });
        }
        phases.end("build");
        let import = ImportRequest {
            build: request.build,
            uid: request.uid,
            name: format!("of {}", request.dockerfile),
            source: ImageSource::Layout(nest.out.clone()),
            previous: request.previous,
            processes: request.processes,
        };
        let (image, size_bytes) = self.take_over((import, stack, workspace), (None, nest.out), &output).await?;
        phases.end("import");
        Ok(Built { image, buildpacks: Vec::new(), size_bytes, phases: phases.times })
    }
}

/// What the container mounts, all of it owned by its own users.
struct Nest {
    /// Root in there.
    uid: u32,
    app: PathBuf,
    settings: PathBuf,
    /// buildah's images and layers, while it works.
    storage: PathBuf,
    /// The same between builds.
    kept: PathBuf,
    out: PathBuf,
    scratch: PathBuf,
    home: PathBuf,
}

impl Nest {
    fn make(builder: &Builder, request: &DockerRequest, root: &Path) -> Result<Self, BuildError> {
        let uid = request.uid.checked_sub(FIRST_APP).and_then(|number| number.checked_mul(NESTED_IDS));
        let uid = uid.and_then(|ids| ids.checked_add(FIRST_ID)).filter(|first| first.checked_add(NESTED_IDS).is_some());
        let none_left = || BuildError::Dishonest("the platform has no more ids for builds by Dockerfiles".to_owned());
        let path = |name: &str| root.join(name);
        let nest = Self {
            uid: uid.ok_or_else(none_left)?,
            app: path("app"),
            settings: path("containers"),
            storage: path("storage"),
            kept: builder.docker_cache(request.app),
            out: path("image"),
            scratch: path("scratch"),
            home: path("home"),
        };
        nest.fill().map_err(|source| BuildError::Io { action: "prepare", path: root.to_owned(), source })?;
        Ok(nest)
    }

    fn fill(&self) -> io::Result<()> {
        // While it is in use it is nowhere else: what a crash leaves half-written is gone with the build's folder.
        match fs::rename(&self.kept, &self.storage) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => tree::make_dir(&self.storage, 0o755)?,
            moved => moved?,
        }
        for dir in [&self.settings, &self.out, &self.scratch, &self.home] {
            tree::make_dir(dir, 0o755)?;
        }
        for (name, text) in SETTINGS {
            fs::write(self.settings.join(name), text)?;
        }
        for dir in [&self.app, &self.settings, &self.out, &self.scratch, &self.home] {
            tree::chown(dir, self.uid)?;
        }
        std::os::unix::fs::lchown(&self.storage, Some(self.uid), Some(self.uid))
    }

    /// Puts buildah's layers where the next build finds them.
    fn keep(&self) -> io::Result<()> {
        fs::create_dir_all(self.kept.parent().unwrap_or(Path::new("/")))?;
        fs::rename(&self.storage, &self.kept)
    }

    fn mounts(&self, builder: &Builder) -> Vec<Mount> {
        let own = [
            (&self.app, "/workspace", true),
            (&self.settings, "/etc/containers", true),
            (&self.storage, "/containers", false),
            (&self.out, "/out", false),
            (&self.scratch, "/var/tmp", false),
            (&self.home, "/root", false),
        ];
        let bind = |source: &PathBuf, target: &Path, read_only| Mount::Bind {
            source: source.clone(),
            target: target.to_owned(),
            read_only,
        };
        let own = own.into_iter().map(|(source, target, read_only)| bind(source, Path::new(target), read_only));
        // Its root could not make a place for a file that the build image does not have, and it reads no other of them.
        let authorities = builder.packages.files.iter().filter(|(_, target)| target == Path::new(CA_TARGET));
        own.chain(authorities.map(|(source, target)| bind(source, target, true))).collect()
    }
}

fn oneoff(builder: &Builder, request: &DockerRequest, (stack, tool): (&Stack, &Digest), nest: &Nest) -> OneOff {
    let mut env = builder.packages.env.clone();
    let own = [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root")];
    env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // It would make users of its own otherwise.
    env.insert("_CONTAINERS_USERNS_CONFIGURED".to_owned(), "done".to_owned());
    let file = Path::new("/workspace").join(&request.dockerfile);
    let context = file.parent().unwrap_or(Path::new("/workspace")).display().to_string();
    let first = ["/usr/bin/tini", "-g", "--", "/bin/sh", "-ec", SCRIPT, "build"].map(str::to_owned);
    let args = request.args.iter().map(|(name, value)| format!("--build-arg={name}={value}"));
    let target = request.target.iter().map(|target| format!("--target={target}"));
    let last = [format!("--file={}", file.display()), context];
    OneOff {
        id: Builder::oneoff(request.app, request.build),
        app: request.app,
        container: Container {
            rootfs: RootFs::Layers(vec![stack.build.clone(), tool.clone()]),
            args: first.into_iter().chain(args).chain(target).chain(last).collect(),
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
