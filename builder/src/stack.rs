//! The stack: the pair of base images, build and run, made by mmdebstrap from the recipe in `stack/`.
//!
//! Made once for all platforms of a machine, in a cache folder, and linked from there into a platform's layer store. A stack
//! that was interrupted while it was made has no name yet, and is made again. Images of backing services are the run image with
//! some packages more, made in the same way ([`ServiceImage`]).

mod packages;
mod service;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use engine::{LayerError, LayerStore};
use model::Digest;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::apt::SUITE;
use crate::packages::PackageAccess;
use crate::patience::Patience;
pub use service::ServiceImage;

/// The name of the stack that this program makes.
pub const NAME: &str = "debian-13";
const RUN_PACKAGES: &str = include_str!("../../stack/run.packages");
const BUILD_PACKAGES: &str = include_str!("../../stack/build.packages");
const CLEAN: &str = include_str!("../../stack/clean");
const NPM: &str = include_str!("../../stack/npm");
const OVERLAY: &str = include_str!("../../stack/overlay");

/// Documentation and translations: half the files of a Debian system, and nobody reads them.
const LEFT_OUT: [&str; 5] =
    ["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*", "/usr/share/lintian/*"];

/// A stack that is made and ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// `debian-13`
    pub name: String,
    /// Changes with the recipe and with any package of it.
    pub version: String,
    /// Hash of the recipe that made it.
    pub recipe: String,
    /// The build image: one layer, a whole root file system.
    pub build: Digest,
    /// The run image: one layer, a whole root file system.
    pub run: Digest,
    /// `debian` (`ID` of `/etc/os-release`, the specification's distro name).
    pub distro_name: String,
    /// `13`
    pub distro_version: String,
    /// `linux`
    pub os: String,
    /// `amd64` or `arm64`, as the specification and Debian call it.
    pub arch: String,
}

/// Where a stack is made and kept.
#[derive(Debug, Clone)]
pub struct StackSettings {
    /// The platform's state folder; the record is `stacks/debian-13.json` in it.
    pub home: PathBuf,
    /// The layer store that gets both images.
    pub layers: LayerStore,
    /// Folder of made images, which several platforms of one machine share. On the layer store's file system it costs no
    /// space and no time.
    pub cache: PathBuf,
    /// The machine's apt sources and more.
    pub packages: PackageAccess,
    /// The diffID of a tree.
    pub digest: fn(&Path) -> std::io::Result<Digest>,
}

/// When to make a stack anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// If there is none of this recipe.
    IfMissing,
    /// Always, with the newest packages: `platform stack:update`.
    Newest,
}

/// Why there is no stack.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A file or folder of the stack.
    #[error("cannot {action} {path}")]
    File {
        /// `read`, `write`, …
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}, which makes the stack's images; install it with `apt-get install {package}`")]
    Missing {
        /// Its name.
        program: &'static str,
        /// Its Debian package.
        package: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A program failed.
    #[error(
        "{program} could not make the stack's {image} image:\n{output}\nIf packages could not be fetched, check the apt sources of this machine or the setting `packages`."
    )]
    Failed {
        /// Its name.
        program: &'static str,
        /// `build`, `run`, or the name of a backing service.
        image: &'static str,
        /// Its last lines.
        output: String,
    },
    /// Nobody waits for it any more.
    #[error("it took too long")]
    GivenUp,
    /// What goes on from the stack's run image finds none.
    #[error("the stack is not made yet; `platform stack:update` makes it")]
    NoStack,
    /// The layer store.
    #[error(transparent)]
    Layer(#[from] LayerError),
}

/// The stack of this platform, if it is made, by the recipe of this program.
pub fn open(settings: &StackSettings) -> Result<Option<Stack>, StackError> {
    let stack: Option<Stack> = read_record(&record_path(&settings.home))?;
    Ok(stack.filter(|stack| {
        stack.recipe == recipe() && settings.layers.contains(&stack.build) && settings.layers.contains(&stack.run)
    }))
}

/// Makes the stack, or takes it from the cache, and records it as this platform's. It takes a minute or two, and needs root;
/// what goes on is told to `output` line by line. Two at a time wait for each other.
pub fn make(settings: &StackSettings, when: Make, output: &mut dyn FnMut(&str)) -> Result<Stack, StackError> {
    make_folder(&settings.cache)?;
    let _lock = lock(&settings.cache, BUSY, output)?;
    remove_rubbish(&settings.cache)?;
    let place = settings.cache.join(format!("{NAME}-{}", recipe()));
    let cached = read_record(&place.join("stack.json"))?.filter(|_| when == Make::IfMissing);
    let stack = match cached {
        Some(stack) => stack,
        None => make_images(settings, &place, output)?,
    };
    for (image, digest) in [("run", &stack.run), ("build", &stack.build)] {
        import(&settings.layers, &place.join(image), digest)?;
    }
    let record = record_path(&settings.home);
    make_folder(&settings.home.join("stacks"))?;
    write_record(&record, &stack)?;
    Ok(stack)
}

fn record_path(home: &Path) -> PathBuf {
    home.join("stacks").join(format!("{NAME}.json"))
}

/// Short hash of everything that the images are made by.
fn recipe() -> String {
    short_hash(&[RUN_PACKAGES, BUILD_PACKAGES, CLEAN, NPM, SUITE])
}

fn short_hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    hex::encode(&hash.finalize()[..6])
}

fn make_images(settings: &StackSettings, place: &Path, output: &mut dyn FnMut(&str)) -> Result<Stack, StackError> {
    let making = start_making(settings)?;
    let recipe = Recipe { folder: &making, packages: &settings.packages, patience: &Patience::default() };
    recipe.write()?;
    output("Making the run image…");
    recipe.mmdebstrap("run", output)?;
    output("Making the build image…");
    recipe.mmdebstrap("build", output)?;
    output("Naming both by their content…");
    let stack = Stack {
        name: NAME.to_owned(),
        version: recipe.version()?,
        recipe: self::recipe(),
        build: (settings.digest)(&making.join("build")).map_err(failed("read", &making))?,
        run: (settings.digest)(&making.join("run")).map_err(failed("read", &making))?,
        distro_name: "debian".to_owned(),
        distro_version: "13".to_owned(),
        os: "linux".to_owned(),
        arch: crate::architecture().to_owned(),
    };
    write_record(&making.join("stack.json"), &stack)?;
    finish_making(settings, &making, place)?;
    Ok(stack)
}

/// An empty folder of the cache for what has no name yet. The caller holds the lock.
fn start_making(settings: &StackSettings) -> Result<PathBuf, StackError> {
    let making = settings.cache.join(format!("{RUBBISH}{}", std::process::id()));
    make_folder(&making)?;
    Ok(making)
}

/// Gives what was made its name, in place of what had it before.
fn finish_making(settings: &StackSettings, making: &Path, place: &Path) -> Result<(), StackError> {
    if place.exists() {
        let old = settings.cache.join(format!("{RUBBISH}{}-old", std::process::id()));
        std::fs::rename(place, &old).map_err(failed("replace", place))?;
    }
    std::fs::rename(making, place).map_err(failed("write", place))?;
    remove_rubbish(&settings.cache)
}

/// The folder in which both images come to be, and what is told to mmdebstrap.
struct Recipe<'a> {
    folder: &'a Path,
    packages: &'a PackageAccess,
    patience: &'a Patience,
}

impl Recipe<'_> {
    /// Writes the scripts out of this program, so that hooks can run them.
    fn write(&self) -> Result<(), StackError> {
        for (name, script) in [("clean", CLEAN), ("npm", NPM), ("overlay", OVERLAY)] {
            let path = self.folder.join(name);
            std::fs::write(&path, script).map_err(failed("write", &path))?;
        }
        Ok(())
    }

    fn mmdebstrap(&self, image: &'static str, output: &mut dyn FnMut(&str)) -> Result<(), StackError> {
        let mut command = Command::new("mmdebstrap");
        match image {
            "run" => {
                command.arg("--variant=minbase").arg(format!("--include={}", packages(RUN_PACKAGES)));
            }
            _ => self.build_arguments(&mut command),
        }
        self.run(command, image, output)
    }

    /// Runs mmdebstrap with what all images have in common behind what is `image`'s own.
    fn run(&self, mut command: Command, image: &'static str, output: &mut dyn FnMut(&str)) -> Result<(), StackError> {
        command.args(["--mode=root", "--format=directory"]);
        command.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
        // The image counts only once it is whole, and is synced then.
        command.arg("--dpkgopt=force-unsafe-io").arg("--aptopt=APT::Install-Recommends \"false\";");
        command.args(self.packages.apt.options.iter().map(|option| format!("--aptopt={option}")));
        command.arg(format!("--customize-hook={}", self.script("clean")));
        command.arg(SUITE).arg(self.folder.join(image)).args(&self.packages.apt.sources);
        command.envs(self.packages.env.iter().map(|(name, value)| (name, self.inside(value))));
        run(command, image, self.patience, output)
    }

    /// The build image goes on from the run image, so that whatever an app finds at run time is there, the same, at build time.
    fn build_arguments(&self, command: &mut Command) {
        command.arg("--variant=custom").arg(format!("--include={}", packages(BUILD_PACKAGES)));
        command.arg(format!("--setup-hook=cp -a {}/. \"$1\"", quoted(&self.folder.join("run"))));
        for (source, target) in &self.packages.files {
            let inside = PathBuf::from(self.inside(&target.to_string_lossy()));
            let parent = inside.parent().unwrap_or(Path::new("/"));
            command.arg(format!("--customize-hook=mkdir -p \"$1\"{}", quoted(parent)));
            command.arg(format!("--customize-hook=upload {} {}", quoted(source), quoted(&inside)));
        }
        command.arg(format!("--customize-hook={}", self.script("npm")));
    }

    fn script(&self, name: &str) -> String {
        format!("sh {} \"$1\"", quoted(&self.folder.join(name)))
    }

    /// Where a file for builds lies while the image is made: in a place that is cleaned at the end.
    fn inside(&self, value: &str) -> String {
        let is_file = self.packages.files.iter().any(|(_, target)| target.as_os_str() == value);
        if is_file { format!("/tmp/packages{value}") } else { value.to_owned() }
    }

    /// Short hash of the recipe and of every package in the build image, which holds all of the run image.
    fn version(&self) -> Result<String, StackError> {
        let status = self.folder.join("build/var/lib/dpkg/status");
        let text = std::fs::read_to_string(&status).map_err(failed("read", &status))?;
        let mut hash = Sha256::new();
        hash.update(recipe());
        for line in text.lines().filter(|line| line.starts_with("Package:") || line.starts_with("Version:")) {
            hash.update(line);
        }
        Ok(hex::encode(&hash.finalize()[..6]))
    }
}

/// The names in a package list, as mmdebstrap wants them.
fn packages(list: &str) -> String {
    let names: Vec<&str> =
        list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    names.join(",")
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

/// Lines of a failed program that its error shows.
const LAST_LINES: usize = 30;

/// How often somebody who may give up is asked whether they did.
const LOOK: Duration = Duration::from_millis(200);

fn run(
    mut command: Command,
    image: &'static str,
    patience: &Patience,
    output: &mut dyn FnMut(&str),
) -> Result<(), StackError> {
    let program = "mmdebstrap";
    let failed = |output: String| StackError::Failed { program, image, output };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    if patience.is_limited() {
        // What it starts is ended with it.
        command.process_group(0);
    }
    let missing = |source| StackError::Missing { program, package: "mmdebstrap", source };
    let mut child = command.spawn().map_err(missing)?;
    let lines = lines(child.stderr.take());
    let mut last = std::collections::VecDeque::new();
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(line) => {
                output(&line);
                last.push_back(line);
                if last.len() > LAST_LINES {
                    last.pop_front();
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if patience.is_over() {
            end(&mut child).map_err(|error| failed(error.to_string()))?;
            return Err(StackError::GivenUp);
        }
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(Vec::from(last).join("\n"))) }
}

/// What a program prints, read by a thread of its own: none of the program's children can hold up whoever waits for a line.
fn lines(printed: Option<ChildStderr>) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in printed.into_iter().flat_map(|printed| BufReader::new(printed).split(b'\n')) {
            let Ok(line) = line else { return };
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// Ends a program that is the first of its own process group, and all that it started.
fn end(child: &mut Child) -> std::io::Result<()> {
    if let Ok(group) = i32::try_from(child.id()) {
        // One that has ended by itself is no error.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    child.wait().map(drop)
}

/// Begins names of folders that are not whole: what is there when nobody holds the lock was interrupted.
const RUBBISH: &str = "making-";

fn remove_rubbish(cache: &Path) -> Result<(), StackError> {
    for entry in std::fs::read_dir(cache).map_err(failed("read", cache))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(RUBBISH) {
            std::fs::remove_dir_all(entry.path()).map_err(failed("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// Said to those who wait for the cache's lock.
const BUSY: &str = "Another platform of this machine is making the stack; waiting for it…";

/// The lock of a folder; whoever has to wait for it is told that it is `busy`.
fn lock(folder: &Path, busy: &str, output: &mut dyn FnMut(&str)) -> Result<Flock<File>, StackError> {
    let path = folder.join("lock");
    let open = || File::create(&path).map_err(failed("open", &path));
    if let Ok(lock) = Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
        return Ok(lock);
    }
    output(busy);
    Flock::lock(open()?, FlockArg::LockExclusive).map_err(|(_, error)| failed("lock", &path)(error.into()))
}

/// Puts an image of the cache into the layer store: by hard links on one file system, by copies across two.
fn import(layers: &LayerStore, image: &Path, digest: &Digest) -> Result<(), StackError> {
    if layers.contains(digest) {
        return Ok(());
    }
    let staging = layers.staging().join(format!("stack-{}", std::process::id()));
    let copy = |how: &str| -> Result<bool, StackError> {
        if staging.exists() {
            std::fs::remove_dir_all(&staging).map_err(failed("remove", &staging))?;
        }
        let mut command = Command::new("cp");
        command.args(["--archive", how]).arg(image).arg(&staging).stdin(Stdio::null()).stderr(Stdio::null());
        let missing = |source| StackError::Missing { program: "cp", package: "coreutils", source };
        Ok(command.status().map_err(missing)?.success())
    };
    if !copy("--link")? && !copy("--reflink=auto")? {
        let source = std::io::Error::other("cp failed; is the disk full?");
        return Err(failed("copy an image of the stack to", &staging)(source));
    }
    let folder = File::open(layers.staging()).map_err(failed("open", &staging))?;
    nix::unistd::syncfs(&folder).map_err(|error| failed("sync", &staging)(error.into()))?;
    layers.insert(digest, &staging)?;
    Ok(())
}

fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StackError> {
    match std::fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn write_record(path: &Path, record: &impl Serialize) -> Result<(), StackError> {
    let text = serde_json::to_vec_pretty(record).map_err(|error| failed("write", path)(error.into()))?;
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).map_err(failed("write", &fresh))?;
    File::open(&fresh).and_then(|file| file.sync_all()).map_err(failed("sync", &fresh))?;
    std::fs::rename(&fresh, path).map_err(failed("write", path))
}

fn make_folder(path: &Path) -> Result<(), StackError> {
    std::fs::create_dir_all(path).map_err(failed("make", path))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> StackError + use<> {
    let path = path.to_owned();
    move |source| StackError::File { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_list_may_hold_comments() {
        assert_eq!(packages("# why\nbash\n\n  curl\n# x\ntini\n"), "bash,curl,tini");
    }

    #[test]
    fn a_stack_of_another_recipe_or_without_its_layers_is_not_ready() {
        let folder = tempfile::tempdir().unwrap();
        let settings = StackSettings {
            home: folder.path().to_owned(),
            layers: LayerStore::open(&folder.path().join("layers")).unwrap(),
            cache: folder.path().join("cache"),
            packages: PackageAccess::default(),
            digest: |_| Ok(Digest::from_sha256([0; 32])),
        };
        let mut stack = Stack {
            name: NAME.to_owned(),
            version: "1".to_owned(),
            recipe: recipe(),
            build: Digest::from_sha256([1; 32]),
            run: Digest::from_sha256([2; 32]),
            distro_name: "debian".to_owned(),
            distro_version: "13".to_owned(),
            os: "linux".to_owned(),
            arch: crate::architecture().to_owned(),
        };
        make_folder(&folder.path().join("stacks")).unwrap();
        let record = record_path(&settings.home);
        assert_eq!(open(&settings).unwrap(), None, "nothing was ever made");
        write_record(&record, &stack).unwrap();
        assert_eq!(open(&settings).unwrap(), None, "the layers are gone");
        for digest in [&stack.build, &stack.run] {
            make_folder(&settings.layers.path(digest)).unwrap();
        }
        assert_eq!(open(&settings).unwrap(), Some(stack.clone()));
        stack.recipe = "of an older program".to_owned();
        write_record(&record, &stack).unwrap();
        assert_eq!(open(&settings).unwrap(), None);
    }

    #[test]
    fn a_program_that_nobody_waits_for_is_ended_with_all_that_it_started() {
        let (patience, waiting) = Patience::for_at_most(Duration::from_secs(3600));
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 100000 & echo $! >&2; wait"]);
        let (mut sleeper, mut waiting) = (String::new(), Some(waiting));
        let mut output = |line: &str| {
            line.clone_into(&mut sleeper);
            drop(waiting.take());
        };
        let error = run(command, "root", &patience, &mut output).unwrap_err();
        assert!(matches!(error, StackError::GivenUp), "{error}");
        let stat = PathBuf::from(format!("/proc/{sleeper}/stat"));
        let runs = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "));
        let limit = std::time::Instant::now() + Duration::from_secs(60);
        while runs() {
            assert!(std::time::Instant::now() < limit, "it sleeps on");
            std::thread::yield_now();
        }
    }
}
