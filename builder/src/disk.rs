//! Care for the disk: nothing begins on one that is nearly full, and a build that fills it is ended before it is.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use engine::LayerStore;
use nix::sys::statvfs::statvfs;
use walkdir::WalkDir;

use crate::errors::BuildError;
use crate::workspace::Workspace;
use crate::{BuildLimits, Builder, blocking};

/// How often the disk is looked at while a build runs: on the fastest, a few gigabytes are written meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// How full a disk is, in bytes and in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// All of it, but for what is root's alone.
    pub bytes: u64,
    /// What is left.
    pub free_bytes: u64,
    /// How many files and folders there can be; 0 where that has no limit.
    pub files: u64,
    /// How many more.
    pub free_files: u64,
}

impl Fill {
    /// Of the disk on which `path` is.
    #[expect(clippy::useless_conversion, reason = "u64 here, narrower elsewhere")]
    pub fn of(path: &Path) -> io::Result<Self> {
        let stats = statvfs(path).map_err(io::Error::from)?;
        let block = u64::from(stats.fragment_size());
        let used = u64::from(stats.blocks()).saturating_sub(u64::from(stats.blocks_free()));
        let free = u64::from(stats.blocks_available());
        Ok(Self {
            bytes: used.saturating_add(free).saturating_mul(block),
            free_bytes: free.saturating_mul(block),
            files: u64::from(stats.files()),
            free_files: u64::from(stats.files_available()),
        })
    }

    /// Per cent of its bytes that are used, rounded up.
    pub fn bytes_percent(&self) -> u8 {
        percent(self.bytes, self.free_bytes)
    }

    /// Per cent of its files that are used, rounded up.
    pub fn files_percent(&self) -> u8 {
        percent(self.files, self.free_files)
    }

    /// The larger of both.
    pub fn percent(&self) -> u8 {
        self.bytes_percent().max(self.files_percent())
    }
}

fn percent(all: u64, free: u64) -> u8 {
    let used = u128::from(all.saturating_sub(free)) * 100;
    if all == 0 { 0 } else { u8::try_from(used.div_ceil(u128::from(all))).unwrap_or(100) }
}

/// Refuses a build on a disk that is too full, long before it is full.
pub(crate) fn check(store: &LayerStore, limits: &BuildLimits) -> Result<(), BuildError> {
    let path = store.staging();
    let fill = Fill::of(&path).map_err(|source| BuildError::Io { action: "measure", path, source })?;
    judge_fill(fill, limits)
}

fn judge_fill(fill: Fill, limits: &BuildLimits) -> Result<(), BuildError> {
    let (free_bytes, needed_bytes) = (fill.free_bytes, limits.free_disk_bytes);
    if free_bytes < needed_bytes {
        return Err(BuildError::DiskFull { free_bytes, needed_bytes });
    }
    let of = if fill.bytes_percent() >= fill.files_percent() { "space" } else { "files" };
    let (percent, limit_percent) = (fill.percent(), limits.full_disk_percent);
    if percent >= limit_percent { Err(BuildError::DiskNearlyFull { percent, limit_percent, of }) } else { Ok(()) }
}

/// Ends once the build has written more than it may, or the disk has too little left for everybody else.
pub(crate) async fn outgrown(builder: &Builder, workspace: &Workspace) -> BuildError {
    let mut before = None;
    loop {
        let (store, limits) = (builder.layers.clone(), builder.limits.clone());
        let root = workspace.root().to_owned();
        let looked = blocking(move || {
            let now = free(&store)?;
            Ok((now, judge((before.unwrap_or(now), now), &limits, || written(&root))))
        });
        match looked.await {
            Ok((_, Some(error))) => return error,
            Ok((now, None)) => before = before.or(Some(now)),
            Err(error) => tracing::warn!(%error, "the disk of a build cannot be measured"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a build must end, by what was free before it and is now. What it wrote is counted only if it can be too much.
fn judge((before, now): (u64, u64), limits: &BuildLimits, written: impl FnOnce() -> u64) -> Option<BuildError> {
    // Half of what had to be there: other builds may have been let in on the same disk.
    let least = limits.free_disk_bytes / 2;
    if now < least {
        return Some(BuildError::DiskFull { free_bytes: now, needed_bytes: least });
    }
    let limit_bytes = limits.disk_bytes;
    (before.saturating_sub(now) > limit_bytes && written() > limit_bytes)
        .then_some(BuildError::DiskQuota { limit_bytes })
}

fn free(store: &LayerStore) -> Result<u64, BuildError> {
    let path = store.staging();
    let stats = statvfs(&path).map_err(|errno| BuildError::Io { action: "measure", path, source: errno.into() })?;
    // The types of these differ between C libraries.
    #[expect(clippy::useless_conversion, reason = "u64 here, narrower elsewhere")]
    Ok(u64::from(stats.blocks_available()).saturating_mul(u64::from(stats.fragment_size())))
}

/// Bytes that a tree takes on the disk. What goes away meanwhile takes none.
pub fn written(root: &Path) -> u64 {
    let files =
        WalkDir::new(root).same_file_system(true).into_iter().flatten().filter_map(|entry| entry.metadata().ok());
    files.map(|metadata| metadata.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_full_is_refused_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(dir.path()).unwrap();
        let limits = |free_disk_bytes| BuildLimits {
            memory_bytes: 0,
            time: LOOK,
            disk_bytes: 0,
            free_disk_bytes,
            full_disk_percent: 101,
        };
        check(&store, &limits(1)).unwrap();
        let error = check(&store, &limits(u64::MAX)).unwrap_err();
        assert!(error.to_string().starts_with("There is too little disk space to build"), "{error}");
    }

    #[test]
    fn a_disk_is_too_full_by_its_bytes_or_by_its_files() {
        let limits =
            BuildLimits { memory_bytes: 0, time: LOOK, disk_bytes: 0, free_disk_bytes: 0, full_disk_percent: 92 };
        let judge = |free_bytes, (files, free_files)| {
            judge_fill(Fill { bytes: 1000, free_bytes, files, free_files }, &limits).map_err(|error| error.to_string())
        };
        assert_eq!([judge(90, (1000, 500)), judge(500, (0, 0))], [Ok(()), Ok(())]);
        let refused = judge(85, (1000, 500)).unwrap_err();
        assert!(refused.starts_with("The disk is nearly full: 92 % of its space is used"), "{refused}");
        let refused = judge(500, (1000, 10)).unwrap_err();
        assert!(refused.starts_with("The disk is nearly full: 99 % of its files is used"), "{refused}");
    }

    #[test]
    fn a_build_ends_when_it_wrote_too_much_and_not_when_others_did() {
        let limits =
            BuildLimits { memory_bytes: 0, time: LOOK, disk_bytes: 100, free_disk_bytes: 40, full_disk_percent: 92 };
        let judge = |now, written: u64| judge((1000, now), &limits, || written).map(|error| error.to_string());
        assert_eq!(judge(950, 0), None);
        assert_eq!(judge(800, 90), None, "others wrote it");
        assert!(judge(800, 101).unwrap().starts_with("The build wrote more than"));
        assert!(judge(19, 0).unwrap().starts_with("There is too little disk space"));
    }
}
