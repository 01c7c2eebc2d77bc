//! Toolchains that are made ready for the builds of all apps: a language is unpacked, and what it compiles first in every app, its own
//! standard library, compiled, once for a machine and not once for an app.
//!
//! A build that used a toolchain says so. One that nobody made ready yet is made ready then, beside everything else and after it: in
//! a container that no app's code ever was in, by this same program, so that what builds find is what the language's registry has and nothing
//! that an app put there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use engine::{Container, Mount, OneOff, OneOffId, RootFs};
use model::BuildId;
use model::clock::SystemRandom;
use nix::fcntl::OFlag;
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use tokio::sync::{Mutex, mpsc};

use crate::container::{attend, environment, limits};
use crate::errors::BuildError;
use crate::tree::{chown, make_dir};
use crate::workspace::Workspace;
use crate::{Builder, Job, blocking, downloads};

/// Where builds find them, `<language>/<version>` each.
const TARGET: &str = "/cnb/toolchains";
/// Where a build names those that it used, below `<layers>`: a line each, a language and a version.
const USED: &str = "config/toolchains";
/// Languages whose buildpack can make a toolchain ready.
const LANGUAGES: [&str; 2] = ["go", "node"];
/// Nobody's on this machine: apps have ids from 100,000 on (the controller gives them out).
const UID: u32 = 99_999;
/// So many are kept. Beyond them, what was used longest ago goes.
const KEPT: usize = 6;

/// One is made at a time: nobody waits for it, and builds need the machine.
static MAKING: Mutex<()> = Mutex::const_new(());

/// A toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    language: &'static str,
    /// `1.24.3`
    version: String,
}

impl Name {
    /// What a build says that it used: `go 1.24.3`. The app's own code may have written it.
    fn parse(text: &str) -> Option<Self> {
        let (language, version) = text.trim_end().split_once(' ')?;
        let language = LANGUAGES.into_iter().find(|known| *known == language)?;
        let is_number = |part: &str| (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_version = (2..=3).contains(&version.split('.').count()) && version.split('.').all(is_number);
        is_version.then(|| Self { language, version: version.to_owned() })
    }

    /// Below the folder of all.
    fn path(&self) -> PathBuf {
        Path::new(self.language).join(&self.version)
    }

    /// What the build in these layers says.
    fn used(layers: &Path) -> Vec<Self> {
        let is_folder = fs::symlink_metadata(layers.join("config")).is_ok_and(|metadata| metadata.is_dir());
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(layers.join(USED));
        let mut text = String::new();
        let read = file.ok().filter(|_| is_folder).map(|file| file.take(256).read_to_string(&mut text));
        if matches!(read, Some(Ok(_))) { text.lines().filter_map(Self::parse).collect() } else { Vec::new() }
    }
}

impl Builder {
    /// The mount in which builds find toolchains.
    pub(crate) fn toolchains(&self) -> io::Result<Mount> {
        let source = self.toolchains_folder();
        make_dir(&source, 0o755)?;
        Ok(Mount::Bind { source, target: PathBuf::from(TARGET), read_only: true })
    }

    fn toolchains_folder(&self) -> PathBuf {
        self.cache.join("toolchains")
    }

    /// After a build: makes ready, in the background, the toolchains that it used, so that the next app finds them.
    pub(crate) fn ready_toolchains(&self, job: &Arc<Job>) {
        let mut missing = Vec::new();
        for name in Name::used(&job.workspace.layers()) {
            let place = self.toolchains_folder().join(name.path());
            match File::open(&place) {
                // What is used stays.
                Ok(folder) => {
                    if let Err(error) = futimens(&folder, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW) {
                        tracing::warn!(path = %place.display(), %error, "cannot note that a toolchain was used");
                    }
                }
                Err(_) => missing.push((name, place)),
            }
        }
        if missing.is_empty() {
            return;
        }
        let job = Arc::clone(job);
        tokio::spawn(async move {
            for (name, place) in missing {
                let (language, version) = (name.language, &name.version);
                match job.make_toolchain(&name, place).await {
                    Ok(()) => tracing::info!(language, version, "made a toolchain ready"),
                    Err(error) => tracing::warn!(
                        language,
                        version,
                        error = &error as &dyn std::error::Error,
                        "cannot make a toolchain ready; builds with it are slower"
                    ),
                }
            }
        });
    }
}

impl Job {
    async fn make_toolchain(&self, name: &Name, place: PathBuf) -> Result<(), BuildError> {
        let all = self.builder.toolchains_folder();
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| BuildError::Io { action, path, source }
        };
        let _turn = MAKING.lock().await;
        if place.exists() {
            return Ok(());
        }
        let workspace = Workspace::make(&self.builder, BuildId::random(&SystemRandom))?;
        let folder = workspace.root().join("toolchain");
        make_dir(&folder, 0o755).and_then(|()| chown(&folder, UID)).map_err(io("make", &folder))?;
        let (output, mut lines) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                tracing::debug!(line, "making a toolchain ready");
            }
        });
        let kept = self.builder.downloads();
        let downloads = kept.folder().map_err(io("make", &self.builder.cache))?;
        let oneoff = self.oneoff_of(name, (&folder, downloads));
        let exit = attend(&self.builder, &workspace, oneoff, &output).await?;
        if !exit.is_success() {
            return Err(BuildError::Vanished(exit));
        }
        blocking(move || {
            chown(&folder, 0).map_err(io("own", &folder))?;
            let disk = File::open(&folder).map_err(io("open", &folder))?;
            // After a power cut it must not be there with half of its files empty.
            nix::unistd::syncfs(&disk).map_err(|errno| io("sync", &folder)(errno.into()))?;
            make_dir(place.parent().unwrap_or(&all), 0o755).map_err(io("make", &place))?;
            fs::rename(&folder, &place).map_err(io("make", &place))?;
            prune(&all).map_err(io("read", &all))
        })
        .await
    }

    fn oneoff_of(&self, name: &Name, (folder, downloads): (&Path, &Path)) -> OneOff {
        let Self { builder, stack, request, .. } = self;
        let mut env = environment(builder, stack);
        env.extend(builder.packages.env.clone());
        env.insert("HOME".to_owned(), "/tmp".to_owned());
        // Paths are in what compilers leave: it is made where it will be found.
        let target = Path::new(TARGET).join(name.path());
        let args = ["/usr/bin/tini", "-g", "--", "/cnb/lifecycle/toolchain", name.language, &name.version];
        let bind = |source: &Path, target: &Path, read_only| Mount::Bind {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only,
        };
        let mut mounts = vec![
            bind(folder, &target, false),
            bind(&builder.program, Path::new("/cnb/lifecycle/toolchain"), true),
            bind(downloads, Path::new(downloads::TARGET), true),
        ];
        mounts.extend(builder.packages.files.iter().map(|(source, target)| bind(source, target, true)));
        OneOff {
            id: OneOffId(format!("{}{}-toolchain", Builder::ONEOFF_PREFIX, request.app)),
            app: request.app,
            container: Container {
                rootfs: RootFs::Layers(vec![stack.build.clone()]),
                args: args.map(str::to_owned).to_vec(),
                env,
                working_dir: "/tmp".to_owned(),
                uid: UID,
                nested: false,
                limits: limits(builder),
                mounts,
            },
            tty: None,
            time_limit: builder.limits.time,
            stop_grace: Duration::ZERO,
            is_build: true,
            log: None,
        }
    }
}

/// Removes those that were used longest ago, beyond what is kept.
fn prune(all: &Path) -> io::Result<()> {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for language in LANGUAGES.map(|language| all.join(language)).iter().filter(|path| path.is_dir()) {
        for version in language.read_dir()? {
            let version = version?;
            found.push((version.metadata()?.modified()?, version.path()));
        }
    }
    found.sort_by(|one, other| other.cmp(one));
    found.iter().skip(KEPT).try_for_each(|(_, path)| fs::remove_dir_all(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_version_of_a_known_language_names_a_toolchain() {
        let go = |version: &str| Some(Name { language: "go", version: version.to_owned() });
        assert_eq!(Name::parse("go 1.24.3\n"), go("1.24.3"));
        assert_eq!(Name::parse("go 1.24"), go("1.24"));
        for text in [
            "",
            "go",
            "go 1",
            "go 1.2.3.4",
            "go ../../etc",
            "go 1.24.3/../..",
            "go 1..3",
            "go 1.24.33333",
            "c 1.2.3",
            "go 1.24.3 x",
        ] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_build_says_is_read_from_a_plain_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let layers = folder.path().join("layers");
        fs::create_dir_all(layers.join("config")).unwrap();
        assert_eq!(Name::used(&layers), []);
        fs::write(layers.join(USED), "go 1.24.3\nnothing\nnode 24.1.0\n").unwrap();
        let versions: Vec<String> = Name::used(&layers).into_iter().map(|name| name.version).collect();
        assert_eq!(versions, ["1.24.3", "24.1.0"]);
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(layers.join("config"), &elsewhere).unwrap();
        symlink(&elsewhere, layers.join("config")).unwrap();
        assert_eq!(Name::used(&layers), []);
        fs::remove_file(layers.join("config")).unwrap();
        fs::create_dir(layers.join("config")).unwrap();
        symlink(elsewhere.join("toolchains"), layers.join(USED)).unwrap();
        assert_eq!(Name::used(&layers), []);
    }

    #[test]
    fn beyond_the_limit_those_go_that_nobody_used_for_longest() {
        let all = tempfile::tempdir().unwrap();
        let place = |number: usize| all.path().join(format!("go/1.{number}.0"));
        for number in 0..=KEPT {
            fs::create_dir_all(place(number)).unwrap();
            let age = Duration::from_secs(if number == 3 { 1000 } else { number as u64 });
            File::open(place(number))
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(2000) - age)
                .unwrap();
        }
        prune(all.path()).unwrap();
        assert!(!place(3).exists());
        assert_eq!(all.path().join("go").read_dir().unwrap().count(), KEPT);
    }
}
