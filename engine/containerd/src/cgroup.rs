//! What the kernel counts for a container, in both versions of cgroups.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

    /// How much time of processors the cgroup at `path` used, and how many bytes of memory it has that the kernel could not take back; none
    /// if it is gone.
    pub(crate) fn usage(self, path: &Path) -> Option<(Duration, u64)> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let read =
            |tree: &str, file: &str| std::fs::read_to_string(Path::new(ROOT).join(tree).join(relative).join(file)).ok();
        let (cpu, memory, idle) = match self {
            Self::V1 { .. } => {
                let nanos = read("cpuacct", "cpuacct.usage")?.trim().parse().ok()?;
                let idle = field(&read("memory", "memory.stat")?, "total_inactive_file");
                (Duration::from_nanos(nanos), read("memory", "memory.usage_in_bytes")?, idle)
            }
            Self::V2 => {
                let micros = field(&read("", "cpu.stat")?, "usage_usec")?;
                let idle = field(&read("", "memory.stat")?, "inactive_file");
                (Duration::from_micros(micros), read("", "memory.current")?, idle)
            }
        };
        let memory: u64 = memory.trim().parse().ok()?;
        Some((cpu, memory.saturating_sub(idle.unwrap_or(0))))
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
    field(text, "oom_kill").unwrap_or(0)
}

/// A number of a file of `name number` lines.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok())
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
        assert_eq!(field("anon 4096\nfile 9\ninactive_file 7\n", "inactive_file"), Some(7));
        assert_eq!(field("usage_usec 1200\nuser_usec 1000\n", "usage_usec"), Some(1200));
        assert_eq!(field("total_inactive_file_x 1\n", "total_inactive_file"), None);
    }
}
