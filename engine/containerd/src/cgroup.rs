//! What the kernel counts for a container, in both versions of cgroups.

use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::Fault;
use crate::files::names;

const ROOT: &str = "/sys/fs/cgroup";

/// How this machine mounts cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// One tree for each controller.
    V1 {
        /// Whether swap is limited together with memory.
        limits_swap: bool,
    },
    /// One tree.
    V2,
}

impl Version {
    /// As mounted now.
    pub(crate) fn detect() -> Self {
        if Path::new(ROOT).join("cgroup.controllers").exists() {
            return Self::V2;
        }
        Self::V1 { limits_swap: Path::new(ROOT).join("memory/memory.memsw.limit_in_bytes").exists() }
    }

    /// How many processes of the cgroup at `path` (from the hierarchy's root) the kernel killed because it outgrew its memory.
    pub(crate) fn memory_kills(self, path: &Path) -> u64 {
        std::fs::read_to_string(self.memory_events(path)).map_or(0, |text| kills_in(&text))
    }

    /// Whether the cgroup at `path` still is everywhere where it limits something.
    pub(crate) fn is_whole(self, path: &Path) -> bool {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let root = Path::new(ROOT);
        match self {
            Self::V1 { .. } => ["memory", "cpu", "pids"].iter().all(|tree| root.join(tree).join(relative).is_dir()),
            Self::V2 => root.join(relative).is_dir(),
        }
    }

    fn memory_events(self, path: &Path) -> PathBuf {
        let relative = path.strip_prefix("/").unwrap_or(path);
        match self {
            Self::V1 { .. } => Path::new(ROOT).join("memory").join(relative).join("memory.oom_control"),
            Self::V2 => Path::new(ROOT).join(relative).join("memory.events"),
        }
    }

    /// Kills what lives in the cgroup at `path` and removes it. Fails while the dead are still leaving: ask again.
    pub(crate) fn clear(self, path: &Path) -> Result<(), Fault> {
        for dir in self.dirs(path) {
            let members = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            for pid in members.lines().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw) {
                // It may have ended by itself meanwhile.
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        self.remove_empty(path)
    }

    /// Removes the cgroup at `path`, in which nothing lives.
    pub(crate) fn remove_empty(self, path: &Path) -> Result<(), Fault> {
        for dir in self.dirs(path) {
            match std::fs::remove_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Fault::on("remove", &dir)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Names of all cgroups in the one at `path`.
    pub(crate) fn children(self, path: &Path) -> Vec<String> {
        let is_dir = |dir: &Path, name: &String| dir.join(name).is_dir();
        let inside = |dir: PathBuf| names(&dir).into_iter().filter(move |name| is_dir(&dir, name)).collect::<Vec<_>>();
        self.dirs(path).into_iter().flat_map(inside).collect()
    }

    fn dirs(self, path: &Path) -> Vec<PathBuf> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let roots = match self {
            Self::V1 { .. } => {
                std::fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
            }
            Self::V2 => vec![PathBuf::from(ROOT)],
        };
        roots.into_iter().map(|root| root.join(relative)).filter(|dir| dir.is_dir()).collect()
    }
}

fn kills_in(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_versions() {
        let (path, one) = (Path::new("/platform/x"), Version::V1 { limits_swap: true });
        assert_eq!(one.memory_events(path), Path::new("/sys/fs/cgroup/memory/platform/x/memory.oom_control"));
        assert_eq!(Version::V2.memory_events(path), Path::new("/sys/fs/cgroup/platform/x/memory.events"));
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), 1);
        assert_eq!(kills_in("low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(kills_in("low 0\nhigh 0\nmax 9\noom 2\noom_kill 0\n"), 0);
    }
}
