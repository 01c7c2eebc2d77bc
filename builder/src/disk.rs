//! Care for the disk: nothing begins on one that is nearly full, and a build that fills it is ended before it is.

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

/// Refuses a build that would fill the layer store's disk.
pub(crate) fn check(store: &LayerStore, needed_bytes: u64) -> Result<(), BuildError> {
    let free_bytes = free(store)?;
    if free_bytes < needed_bytes { Err(BuildError::DiskFull { free_bytes, needed_bytes }) } else { Ok(()) }
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
pub(crate) fn written(root: &Path) -> u64 {
    let files = WalkDir::new(root).into_iter().flatten().filter_map(|entry| entry.metadata().ok());
    files.map(|metadata| metadata.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_full_is_refused_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(dir.path()).unwrap();
        check(&store, 1).unwrap();
        let error = check(&store, u64::MAX).unwrap_err();
        assert!(error.to_string().starts_with("There is too little disk space to build"), "{error}");
    }

    #[test]
    fn a_build_ends_when_it_wrote_too_much_and_not_when_others_did() {
        let limits = BuildLimits { memory_bytes: 0, time: LOOK, disk_bytes: 100, free_disk_bytes: 40 };
        let judge = |now, written: u64| judge((1000, now), &limits, || written).map(|error| error.to_string());
        assert_eq!(judge(950, 0), None);
        assert_eq!(judge(800, 90), None, "others wrote it");
        assert!(judge(800, 101).unwrap().starts_with("The build wrote more than"));
        assert!(judge(19, 0).unwrap().starts_with("There is too little disk space"));
    }
}
