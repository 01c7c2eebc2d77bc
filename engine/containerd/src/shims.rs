//! Shims that hold nothing any more. A shim ends with its last container, unless the connection broke while containerd told it to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

/// A shim that is about to make its first container holds nothing either, for a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// Finds idle shims, and ends those that were idle for a while.
#[derive(Default)]
pub(crate) struct Idle {
    since: BTreeMap<i32, Instant>,
}

impl Idle {
    /// One look at the shims of the containerd that listens on `socket`; true if some are idle, which need another look.
    pub(crate) fn sweep(&mut self, socket: &Path) -> bool {
        let (idle, now) = (idle_shims(socket), Instant::now());
        self.since.retain(|pid, _| idle.contains(pid));
        for pid in idle {
            let since = *self.since.entry(pid).or_insert(now);
            if now - since >= PATIENCE {
                tracing::info!(shim.pid = pid, "ending a shim without containers");
                // It may have ended by itself meanwhile.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        !self.since.is_empty()
    }
}

/// A container's first process is its shim's child, and so is whatever the shim does for a container.
fn idle_shims(socket: &Path) -> BTreeSet<i32> {
    let mut shims = BTreeSet::new();
    let mut parents = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        parents.extend(fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(parent));
        if fs::read(entry.path().join("cmdline")).is_ok_and(|line| is_shim_of(&line, socket)) {
            shims.insert(pid);
        }
    }
    shims.difference(&parents).copied().collect()
}

/// From `/proc/<pid>/stat` (proc(5)): the second field, in parentheses, may hold anything; the fourth is the parent.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a command line is that of a shim whose `-address` is `socket`.
fn is_shim_of(line: &[u8], socket: &Path) -> bool {
    let words: Vec<_> = line.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    let is_shim = words.first().is_some_and(|program| program.contains("containerd-shim"));
    is_shim && words.windows(2).any(|pair| pair[0] == "-address" && Path::new(&*pair[1]) == socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shims_are_told_apart_by_their_containerd() {
        let line = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0platform\0-id\0x\0-address\0/run/platform/containerd.sock\0";
        assert!(is_shim_of(line, Path::new("/run/platform/containerd.sock")));
        assert!(!is_shim_of(line, Path::new("/run/containerd/containerd.sock")));
        assert!(!is_shim_of(
            b"vi\0-address\0/run/platform/containerd.sock\0",
            Path::new("/run/platform/containerd.sock")
        ));
        assert_eq!(parent("12 (a) b (c)) S 7 12 12"), Some(7));
    }
}
