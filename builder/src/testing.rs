//! What several tests need.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use engine::{
    Archive, Capacity, Change, Demand, Ended, Engine, EngineError, Exec, LayerStore, Link, Mount, OneOff, OneOffId,
    RootFs, RunningOneOff, Stat, VolumeStatus, Workload, WorkloadId, WorkloadStatus,
};
use futures::stream::BoxStream;
use model::{AppId, Digest, Egress, Exit};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc, oneshot};
use walkdir::WalkDir;

use crate::debian::{PackageLayers, PackageName};
use crate::formats::escaped;
use crate::lifecycle::{Paths, run};
use crate::outcome::Outcome;
use crate::patience::Patience;
use crate::stack::StackError;

/// A real overlay mount in a temporary directory; unmounted when dropped.
pub(crate) struct Overlay {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) lower: PathBuf,
    pub(crate) upper: PathBuf,
    pub(crate) mounted: PathBuf,
    is_mounted: bool,
}

impl Overlay {
    /// Mounts over a lower directory that `fill` fills.
    pub(crate) fn new(fill: &dyn Fn(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [lower, upper, work, mounted] = ["lower", "upper", "work", "mounted"].map(|name| dir.path().join(name));
        for path in [&lower, &upper, &work, &mounted] {
            fs::create_dir(path).unwrap();
        }
        fill(&lower);
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        mount(Some("overlay"), &mounted, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self { dir, lower, upper, mounted, is_mounted: true }
    }

    /// Mounts these, which stay as they are, the uppermost first.
    pub(crate) fn over(layers: &[&Path]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = dir.path().join("mounted");
        fs::create_dir(&mounted).unwrap();
        let lower: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
        let options = format!("lowerdir={}", lower.join(":"));
        mount(Some("overlay"), &mounted, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self { lower: PathBuf::new(), upper: PathBuf::new(), dir, mounted, is_mounted: true }
    }

    pub(crate) fn unmount(&mut self) {
        if std::mem::take(&mut self.is_mounted) {
            umount2(&self.mounted, MntFlags::MNT_DETACH).unwrap();
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Every path of a tree with its content, one a line.
pub(crate) fn listing(tree: &Path) -> String {
    let mut text = String::new();
    for entry in WalkDir::new(tree).min_depth(1).sort_by_file_name() {
        let entry = entry.unwrap();
        let content = if entry.path_is_symlink() {
            format!("-> {}", fs::read_link(entry.path()).unwrap().display())
        } else if entry.file_type().is_file() {
            fs::read_to_string(entry.path()).unwrap()
        } else {
            "/".to_owned()
        };
        writeln!(text, "{} {content}", entry.path().strip_prefix(tree).unwrap().display()).unwrap();
    }
    text
}

/// Path, kind, and content or target.
pub(crate) type Entries<'a> = &'a [(&'a str, tar::EntryType, &'a str)];

/// A tar file of programs that would all be set-user-id.
pub(crate) fn tar_of(entries: Entries<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        // Past the library's own check of what is written.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        let data = if kind.is_file() { content.as_bytes() } else { &[] };
        header.set_size(data.len() as u64);
        if !kind.is_file() && !content.is_empty() {
            header.set_link_name_literal(content).unwrap();
        }
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Writes a blob of an OCI layout, and returns its digest.
pub(crate) fn put(layout: &Path, bytes: &[u8]) -> String {
    let hex = hex::encode(Sha256::digest(bytes));
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
    format!("sha256:{hex}")
}

/// Packages that are one file each, named by what they lie on.
pub(crate) struct FakePackages {
    pub(crate) layers: LayerStore,
    pub(crate) made: Mutex<BTreeMap<(Digest, BTreeSet<PackageName>), Digest>>,
    /// Told when a package that never comes is begun, and when it is given up.
    pub(crate) forever: Arc<Notify>,
}

impl PackageLayers for FakePackages {
    fn find(&self, base: &Digest, packages: &BTreeSet<PackageName>) -> Result<Option<Digest>, StackError> {
        let made = self.made.lock().unwrap().get(&(base.clone(), packages.clone())).cloned();
        Ok(made.filter(|layer| self.layers.contains(layer)))
    }

    fn make(
        &self,
        base: &Digest,
        packages: &BTreeSet<PackageName>,
        patience: &Patience,
        output: &mut dyn FnMut(&str),
    ) -> Result<Digest, StackError> {
        if packages.iter().any(|package| package.as_str() == "forever") {
            self.forever.notify_one();
            while !patience.is_over() {
                std::thread::yield_now();
            }
            self.forever.notify_one();
            return Err(StackError::GivenUp);
        }
        if packages.iter().any(|package| package.as_str() == "missing") {
            let output = "E: Unable to locate package missing".to_owned();
            return Err(StackError::Failed { program: "apt", image: "root", output });
        }
        output("I: installing packages...");
        let tree = self.layers.staging().join("packages");
        fs::create_dir_all(tree.join("usr/share")).unwrap();
        for package in packages {
            fs::write(tree.join("usr/share").join(package.as_str()), base.hex()).unwrap();
        }
        let status = |package: &PackageName| {
            format!("Package: {package}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n")
        };
        fs::create_dir_all(tree.join("var/lib/dpkg")).unwrap();
        fs::write(tree.join("var/lib/dpkg/status"), packages.iter().map(status).collect::<String>()).unwrap();
        let digest = crate::diff_id(&tree).unwrap();
        self.layers.insert(&digest, &tree).unwrap();
        self.made.lock().unwrap().insert((base.clone(), packages.clone()), digest.clone());
        Ok(digest)
    }
}

/// An engine that runs the lifecycle of a build without a container, over the mounts that the container would have.
pub(crate) struct Uncontained {
    pub(crate) dir: tempfile::TempDir,
    /// What every container so far stood on.
    pub(crate) roots: Mutex<Vec<RootFs>>,
}

impl Uncontained {
    /// Where `target` of the container is, and what has to be unmounted afterwards.
    fn place(&self, id: &str, mount_: &Mount) -> (PathBuf, PathBuf, bool) {
        match mount_ {
            Mount::Bind { source, target, .. } => (target.clone(), source.clone(), false),
            Mount::Overlay { lower, upper, work, target } => {
                let place = self.dir.path().join(id);
                fs::create_dir_all(&place).unwrap();
                let lower: Vec<String> = lower.iter().map(|dir| dir.display().to_string()).collect();
                let options =
                    format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), upper.display(), work.display());
                mount(Some("overlay"), &place, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
                (target.clone(), place, true)
            }
            Mount::Volume { .. } => unreachable!("no build mounts a volume"),
        }
    }

    fn run_lifecycle(&self, oneoff: &OneOff) -> Exit {
        self.roots.lock().unwrap().push(oneoff.container.rootfs.clone());
        let places: Vec<_> = oneoff.container.mounts.iter().map(|mount| self.place(&oneoff.id.0, mount)).collect();
        let at = |target: &str| {
            let place = places.iter().find(|(path, ..)| path == Path::new(target));
            place.map(|(_, place, _)| place.clone().into_os_string()).unwrap_or_default()
        };
        let paths = [
            ("CNB_APP_DIR", at("/app")),
            ("CNB_LAYERS_DIR", at("/layers")),
            ("CNB_PLATFORM_DIR", at("/platform")),
            ("CNB_BUILDPACKS_DIR", at("/cnb/buildpacks")),
            ("CNB_EXTENSIONS_DIR", at("/cnb/extensions")),
            ("CNB_ORDER_PATH", at("/cnb/order.toml")),
        ];
        let env = oneoff.container.env.iter().map(|(name, value)| (name.into(), value.into()));
        let vars = paths.into_iter().map(|(name, value)| (name.into(), value)).chain(env);
        let layers = PathBuf::from(at("/layers"));
        let outcome = crate::lifecycle::run(&crate::lifecycle::Paths::new(vars));
        outcome.write(&layers).unwrap();
        for (_, place, mounted) in places {
            if mounted {
                umount2(&place, MntFlags::MNT_DETACH).unwrap();
            }
        }
        Exit::Code(outcome.failure.map_or(0, |failure| failure.exit_code().into()))
    }
}

#[async_trait]
impl Engine for Uncontained {
    async fn run(&self, oneoff: OneOff) -> Result<RunningOneOff, EngineError> {
        let (exit_sender, exit) = oneshot::channel();
        exit_sender.send(self.run_lifecycle(&oneoff)).unwrap();
        Ok(RunningOneOff { input: mpsc::channel(1).0, output: mpsc::channel(1).1, exit })
    }

    async fn apply(&self, _: Workload) -> Result<(), EngineError> {
        Ok(())
    }

    async fn scale(&self, _: &WorkloadId, _: u32) -> Result<(), EngineError> {
        Ok(())
    }

    async fn set_idle(&self, _: &WorkloadId, _: Option<Duration>) -> Result<(), EngineError> {
        Ok(())
    }

    async fn delete(&self, _: &WorkloadId) -> Result<(), EngineError> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<WorkloadStatus>, EngineError> {
        Ok(Vec::new())
    }

    async fn list_of(&self, _: &[AppId]) -> Result<Vec<WorkloadStatus>, EngineError> {
        Ok(Vec::new())
    }

    async fn stats(&self, _: &[AppId]) -> Result<Vec<Stat>, EngineError> {
        Ok(Vec::new())
    }

    async fn changes(&self) -> Result<BoxStream<'static, Change>, EngineError> {
        Ok(Box::pin(futures::stream::empty()))
    }

    async fn restart(&self, _: &str) -> Result<(), EngineError> {
        Ok(())
    }

    async fn stop(&self, _: &OneOffId) -> Result<(), EngineError> {
        Ok(())
    }

    async fn ended(&self) -> Result<Vec<Ended>, EngineError> {
        Ok(Vec::new())
    }

    async fn forget(&self, _: &OneOffId) -> Result<(), EngineError> {
        Ok(())
    }

    async fn kill(&self, _: &OneOffId) -> Result<(), EngineError> {
        Ok(())
    }

    async fn oneoffs(&self) -> Result<Vec<OneOffId>, EngineError> {
        Ok(Vec::new())
    }

    async fn exec(&self, instance: &str, _: Exec) -> Result<RunningOneOff, EngineError> {
        Err(EngineError::NotRunning(instance.to_owned()))
    }

    async fn connect(&self, instance: &str, _: u16) -> Result<RunningOneOff, EngineError> {
        Err(EngineError::NotRunning(instance.to_owned()))
    }

    async fn files(&self, instance: &str, _: &str) -> Result<Archive, EngineError> {
        Err(EngineError::NotRunning(instance.to_owned()))
    }

    async fn put_files(&self, instance: &str, _: &str, _: Archive) -> Result<(), EngineError> {
        Err(EngineError::NotRunning(instance.to_owned()))
    }

    async fn set_egress(&self, _: AppId, _: Option<Egress>) -> Result<(), EngineError> {
        Ok(())
    }

    async fn egress(&self) -> Result<BTreeMap<AppId, Egress>, EngineError> {
        Ok(BTreeMap::new())
    }

    async fn set_links(&self, _: BTreeSet<Link>) -> Result<(), EngineError> {
        Ok(())
    }

    async fn links(&self) -> Result<BTreeSet<Link>, EngineError> {
        Ok(BTreeSet::new())
    }

    async fn capacity(&self) -> Result<Capacity, EngineError> {
        Ok(Capacity { memory: 1 << 40, disk: 1 << 40, containers: 1 << 10, demand: Demand::default() })
    }

    async fn make_volume(&self, _: &str, _: u64) -> Result<(), EngineError> {
        Ok(())
    }

    async fn volumes(&self) -> Result<Vec<VolumeStatus>, EngineError> {
        Ok(Vec::new())
    }

    async fn copy_volume(&self, _: &str, _: &str) -> Result<(), EngineError> {
        Ok(())
    }

    async fn volume_files(&self, name: &str) -> Result<Archive, EngineError> {
        Err(EngineError::Failed(format!("there is no volume {name}")))
    }

    async fn remove_volume(&self, _: &str) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Writes a buildpack of two shell scripts into a folder of buildpacks: its id, its API, and more of its `buildpack.toml`.
pub(crate) fn write_buildpack(folder: &Path, (id, api, more): (&str, &str, &str), detect: &str, build: &str) {
    let bin = folder.join(escaped(id)).join("1.0.0/bin");
    fs::create_dir_all(&bin).unwrap();
    let toml = format!("api = '{api}'\n[buildpack]\nid = '{id}'\nversion = '1.0.0'\n{more}");
    fs::write(bin.join("../buildpack.toml"), toml).unwrap();
    for (name, script) in [("detect", detect), ("build", build)] {
        write_program(&bin.join(name), script);
    }
}

/// Writes a shell script that can be run. Another process does: a process that another test starts meanwhile would inherit the open file from
/// this one, and what is open for writing cannot be run ("Text file busy").
fn write_program(path: &Path, script: &str) {
    let mut install = Command::new("install");
    let mut child = install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    write!(child.stdin.take().unwrap(), "#!/bin/bash\nset -e\n{script}\n").unwrap();
    assert!(child.wait().unwrap().success());
}

/// The folders of a build, with buildpacks that are shell scripts: what happens in the container, without one.
pub(crate) struct Folders(tempfile::TempDir);

impl Folders {
    pub(crate) fn new(order: &str) -> Self {
        let folders = Self(tempfile::tempdir().unwrap());
        for dir in ["app", "layers", "platform/env", "buildpacks"] {
            fs::create_dir_all(folders.path(dir)).unwrap();
        }
        fs::write(folders.path("order.toml"), order).unwrap();
        folders
    }

    /// With the single buildpack `t/a` of this API.
    pub(crate) fn one(api: &str, detect: &str, build: &str) -> Self {
        Self::new("[[order]]\ngroup = [{id = 't/a'}]").described("t/a", (api, ""), detect, build)
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), content).unwrap();
        self
    }

    pub(crate) fn buildpack(self, id: &str, detect: &str, build: &str) -> Self {
        self.described(id, ("0.10", ""), detect, build)
    }

    /// A buildpack of some API, with more in its `buildpack.toml`.
    pub(crate) fn described(self, id: &str, (api, more): (&str, &str), detect: &str, build: &str) -> Self {
        write_buildpack(&self.path("buildpacks"), (id, api, more), detect, build);
        self
    }

    /// An image extension of two shell scripts, the first of which may be none.
    pub(crate) fn extension(self, id: &str, detect: Option<&str>, generate: Option<&str>) -> Self {
        let folder = self.path("extensions").join(escaped(id)).join("1.0.0");
        fs::create_dir_all(folder.join("bin")).unwrap();
        let toml = format!("api = '0.10'\n[extension]\nid = '{id}'\nversion = '1.0.0'");
        fs::write(folder.join("extension.toml"), toml).unwrap();
        for (name, script) in [("detect", detect), ("generate", generate)] {
            let Some(script) = script else { continue };
            write_program(&folder.join("bin").join(name), script);
        }
        self
    }

    pub(crate) fn run(&self) -> Outcome {
        self.run_extended("")
    }

    /// Where the images are extended by what has this key.
    pub(crate) fn run_extended(&self, key: &str) -> Outcome {
        let vars = [
            ("CNB_APP_DIR", "app"),
            ("CNB_LAYERS_DIR", "layers"),
            ("CNB_PLATFORM_DIR", "platform"),
            ("CNB_BUILDPACKS_DIR", "buildpacks"),
            ("CNB_EXTENSIONS_DIR", "extensions"),
            ("CNB_ORDER_PATH", "order.toml"),
            ("CNB_BUILD_CONFIG_DIR", "build-config"),
        ];
        let vars = vars.into_iter().map(|(name, path)| (name.into(), self.path(path).into_os_string()));
        let fixed = [
            ("PATH", "/usr/bin:/bin"),
            ("CNB_TARGET_OS", "linux"),
            ("CNB_TARGET_DISTRO_NAME", "debian"),
            ("SECRET", "x"),
            (crate::extension::VARIABLE, key),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name.into(), value.into()));
        run(&Paths::new(vars.chain(fixed)))
    }
}
