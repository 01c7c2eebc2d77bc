//! What a build takes of the machine, as the build container itself can see it: its cgroup is mounted there, in either version.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The kernel keeps the greatest amount only with the page cache in it, which would come to the limit in every larger build.
const LOOK: Duration = Duration::from_millis(100);

/// What a build took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Most memory at one time, without files that the kernel merely keeps, in bytes.
    pub(crate) memory_bytes: u64,
    /// Time on all cores together.
    pub(crate) cpu: Duration,
}

impl Usage {
    /// `Used 1.9 of 2.0 GB of memory and 41 s of CPU`; of a small build `Used 38 MB of 2.0 GB of memory and 0.4 s of CPU`.
    pub(crate) fn describe(self, limit_bytes: u64) -> String {
        let tenths = |bytes: u64, unit: u64| {
            let tenths = bytes.saturating_add(unit / 20).saturating_mul(10) / unit;
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        let (limit, cpu) = (tenths(limit_bytes, GB), self.cpu.as_secs_f64());
        let used = if self.memory_bytes < GB / 10 {
            format!("{} MB", self.memory_bytes.div_ceil(MB))
        } else {
            tenths(self.memory_bytes, GB)
        };
        let cpu = if cpu < 9.95 { format!("{cpu:.1}") } else { format!("{cpu:.0}") };
        format!("       Used {used} of {limit} GB of memory and {cpu} s of CPU")
    }
}

const MB: u64 = 1 << 20;
const GB: u64 = 1 << 30;

/// Watches from the beginning of a build to its end.
pub(crate) struct Watch {
    end: Sender<()>,
    peak: JoinHandle<u64>,
    cgroup: Cgroup,
}

impl Watch {
    /// Begins; none where there is no cgroup to be seen.
    pub(crate) fn start(root: &Path) -> Option<Self> {
        let cgroup = Cgroup::find(root)?;
        let (end, ended) = channel();
        let watched = cgroup.clone();
        let peak = std::thread::spawn(move || peak(&watched, &ended));
        Some(Self { end, peak, cgroup })
    }

    /// What was used from the start of the container until now.
    pub(crate) fn end(self) -> Usage {
        drop(self.end);
        Usage { memory_bytes: self.peak.join().unwrap_or_default(), cpu: self.cgroup.cpu().unwrap_or_default() }
    }
}

fn peak(cgroup: &Cgroup, ended: &Receiver<()>) -> u64 {
    let mut peak = 0;
    loop {
        peak = peak.max(cgroup.memory().unwrap_or_default());
        if ended.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
            return peak;
        }
    }
}

/// The files of the container's cgroup.
#[derive(Debug, Clone)]
enum Cgroup {
    V1 { memory: PathBuf, cpu: PathBuf },
    V2(PathBuf),
}

impl Cgroup {
    fn find(root: &Path) -> Option<Self> {
        let (memory, cpu) = (root.join("memory"), root.join("cpuacct"));
        if root.join("memory.current").exists() {
            Some(Self::V2(root.to_owned()))
        } else {
            memory.join("memory.usage_in_bytes").exists().then_some(Self::V1 { memory, cpu })
        }
    }

    /// Memory that is needed: all but file pages that nobody used lately.
    fn memory(&self) -> Option<u64> {
        let (used, stat, idle) = match self {
            Self::V1 { memory, .. } => {
                (memory.join("memory.usage_in_bytes"), memory.join("memory.stat"), "total_inactive_file")
            }
            Self::V2(dir) => (dir.join("memory.current"), dir.join("memory.stat"), "inactive_file"),
        };
        let used: u64 = fs::read_to_string(used).ok()?.trim().parse().ok()?;
        Some(used.saturating_sub(value(&stat, idle).unwrap_or_default()))
    }

    fn cpu(&self) -> Option<Duration> {
        match self {
            Self::V1 { cpu, .. } => {
                let nanoseconds = fs::read_to_string(cpu.join("cpuacct.usage")).ok()?.trim().parse().ok()?;
                Some(Duration::from_nanos(nanoseconds))
            }
            Self::V2(dir) => value(&dir.join("cpu.stat"), "usage_usec").map(Duration::from_micros),
        }
    }
}

/// The number behind a name in a file of such lines.
fn value(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn both_versions_are_read_without_what_the_kernel_merely_keeps() {
        let one = cgroup(&[
            ("memory/memory.usage_in_bytes", "2147483648\n"),
            ("memory/memory.stat", "inactive_file 5\ntotal_inactive_file 1073741824\n"),
            ("cpuacct/cpuacct.usage", "41200000000\n"),
        ]);
        let two = cgroup(&[
            ("memory.current", "2147483648\n"),
            ("memory.stat", "anon 5\ninactive_file 1073741824\n"),
            ("cpu.stat", "usage_usec 41200000\nuser_usec 1\n"),
        ]);
        for root in [one, two] {
            let usage = Watch::start(root.path()).unwrap().end();
            assert_eq!(usage, Usage { memory_bytes: 1 << 30, cpu: Duration::from_millis(41_200) });
            assert_eq!(usage.describe(2 << 30), "       Used 1.0 of 2.0 GB of memory and 41 s of CPU");
        }
        assert!(Watch::start(tempfile::tempdir().unwrap().path()).is_none());
    }

    #[test]
    fn what_a_small_build_took_is_not_nothing() {
        let usage = Usage { memory_bytes: 37 * MB + 1, cpu: Duration::from_millis(430) };
        assert_eq!(usage.describe(3 * GB / 2), "       Used 38 MB of 1.5 GB of memory and 0.4 s of CPU");
    }
}
