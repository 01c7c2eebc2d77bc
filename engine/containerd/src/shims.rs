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

/// Whose shims: those that serve one namespace of the containerd that listens on a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) socket: &'a Path,
    pub(crate) namespace: &'a str,
}

/// Finds idle shims, and ends those that were idle for a while.
#[derive(Default)]
pub(crate) struct Idle {
    since: BTreeMap<i32, Instant>,
}

impl Idle {
    /// One look; true if some are idle, which need another look.
    pub(crate) fn sweep(&mut self, owner: Owner<'_>) -> bool {
        let Look { shims, parents } = look(owner);
        let (idle, now) = (&shims - &parents, Instant::now());
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

/// Whether there is any shim, idle or not.
pub(crate) fn exist(owner: Owner<'_>) -> bool {
    !look(owner).shims.is_empty()
}

struct Look {
    shims: BTreeSet<i32>,
    /// All processes with a child. A container's first process is its shim's child, and so is whatever the shim runs.
    parents: BTreeSet<i32>,
}

fn look(owner: Owner<'_>) -> Look {
    let mut found = Look { shims: BTreeSet::new(), parents: BTreeSet::new() };
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        found.parents.extend(fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(parent));
        if fs::read(entry.path().join("cmdline")).is_ok_and(|line| is_shim_of(&line, owner)) {
            found.shims.insert(pid);
        }
    }
    found
}

/// From `/proc/<pid>/stat` (proc(5)): the second field, in parentheses, may hold anything; the fourth is the parent.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a command line is that of a shim of `owner`.
fn is_shim_of(line: &[u8], owner: Owner<'_>) -> bool {
    let words: Vec<_> = line.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    let has = |flag: &str, value: &str| words.windows(2).any(|pair| pair[0] == flag && pair[1] == value);
    words.first().is_some_and(|program| program.contains("containerd-shim"))
        && has("-namespace", owner.namespace)
        && has("-address", &owner.socket.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shims_are_told_apart_by_whom_they_serve() {
        let line = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0platform\0-id\0x\0-address\0/run/platform/containerd.sock\0";
        let ours = Owner { socket: Path::new("/run/platform/containerd.sock"), namespace: "platform" };
        assert!(is_shim_of(line, ours));
        assert!(!is_shim_of(line, Owner { socket: Path::new("/run/containerd/containerd.sock"), ..ours }));
        assert!(!is_shim_of(line, Owner { namespace: "moby", ..ours }));
        let editor = b"vi\0-namespace\0platform\0-address\0/run/platform/containerd.sock\0";
        assert!(!is_shim_of(editor, ours));
        assert_eq!(parent("12 (a) b (c)) S 7 12 12"), Some(7));
    }
}
