//! What the engine has for volumes and their snapshots.

use std::collections::BTreeMap;

use engine::EngineError;
use model::{DiskId, ProcessType, VolumeName};

use crate::errors::chain;
use crate::store::Release;
use crate::{Controller, Error};

impl Controller {
    /// What disks take, by what the engine calls them. Empty if it does not say.
    pub(crate) async fn disks_used(&self) -> BTreeMap<String, u64> {
        let all = self.engine.volumes().await.unwrap_or_default();
        all.into_iter().filter_map(|volume| Some((volume.name, volume.used?))).collect()
    }

    /// Makes a disk. It must become somebody's, or be given up; if this process dies before, it is removed.
    pub(super) async fn make_disk(&self, disk: DiskId, bytes: u64) -> Result<(), Error> {
        self.store.begin_disk(disk, self.clock.now()).await?;
        let made = self.engine.make_volume(&disk.to_string(), bytes).await;
        if made.is_err() {
            self.give_up_disk(disk).await;
        }
        made.map_err(full)
    }

    /// Nobody will need a disk that was begun.
    pub(super) async fn give_up_disk(&self, disk: DiskId) {
        if let Err(error) = self.store.doom_disk(disk, self.clock.now()).await {
            tracing::warn!(error = chain(&error), "a disk that nobody needs is removed only tomorrow");
        }
        self.live.litter.notify_one();
    }

    /// Sees to it that the disks are there that dynos of a process type mount, as large as they are to be.
    pub(crate) async fn make_disks(&self, release: &Release, process_type: &ProcessType) -> Result<(), Error> {
        if release.mounts(process_type).next().is_none() {
            return Ok(());
        }
        // One that is no volume's any more, since another was restored or it was removed, stays as it is.
        for volume in self.store.volumes(release.app).await? {
            if release.mounts(process_type).any(|mounted| mounted.disk == volume.disk) {
                match self.engine.make_volume(&volume.disk.to_string(), volume.size_bytes).await {
                    // It grows the next time.
                    Ok(()) | Err(EngineError::InUse { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Removes disks that nobody needs; how many went, and whether some could not go yet.
    pub(crate) async fn sweep_disks(&self) -> Result<(usize, bool), Error> {
        let (disks, mut more) = self.store.useless_disks(self.clock.now()).await?;
        let mut gone = 0;
        for disk in disks {
            match self.engine.remove_volume(&disk.to_string()).await {
                Ok(()) => {
                    self.store.forget_disk(disk).await?;
                    gone += 1;
                }
                // The last dyno with it has not stopped.
                Err(EngineError::InUse { .. }) => more = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok((gone, more))
    }

    /// Refuses so many bytes more of volumes than there is room for.
    pub(super) async fn admit_volume(&self, name: &VolumeName, bytes: u64) -> Result<(), Error> {
        let mut promised = self.live.promised.lock().await;
        let room = self.room_beside(None, &mut promised).await?;
        room.map_or(Ok(()), |room| room.admit_volume(&format!("volume {name}"), bytes).map_err(Error::Conflict))
    }
}

/// A full disk is no fault of the engine.
pub(super) fn full(error: EngineError) -> Error {
    match error {
        EngineError::Exhausted(_) => Error::DiskFull(error.into()),
        other => other.into(),
    }
}
