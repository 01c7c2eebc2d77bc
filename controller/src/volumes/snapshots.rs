//! What was in volumes at some moments: copies, made while dynos write, and put back by a release of their own.

use std::sync::Arc;

use engine::Archive;
use model::DiskId;

use super::disks::full;
use crate::store::{App, Snapshot, Volume, VolumeChange};
use crate::{Actor, Controller, Error};

/// Most snapshots of a volume.
const MOST: u64 = 50;

impl Controller {
    /// The snapshot of a volume that `reference` means: `s3`, its number or its id.
    pub async fn find_snapshot(&self, volume: &Volume, reference: &str) -> Result<Snapshot, Error> {
        let number = reference.trim_start_matches('s').parse::<u64>();
        let is_meant =
            |snapshot: &Snapshot| number.as_ref() == Ok(&snapshot.number) || snapshot.disk.to_string() == reference;
        let all = self.store.snapshots(volume.id).await?;
        all.into_iter().find(is_meant).ok_or(Error::NotFound("snapshot"))
    }

    /// Keeps what is in a volume now. Dynos go on; who writes in the moment of the copy waits for it.
    pub async fn take_snapshot(
        self: &Arc<Self>,
        (app, actor): (&App, &Actor),
        volume: &Volume,
    ) -> Result<Snapshot, Error> {
        if volume.snapshots >= MOST {
            return Err(Error::Invalid(format!("{} has {MOST} snapshots, and none can have more", volume.name)));
        }
        let (disk, bytes) = self.copy_disk(volume, volume.disk, volume.size_bytes).await?;
        let user = actor.user.email.as_str();
        let noted = self.store.insert_snapshot(volume, (disk, bytes), user, &self.stamp(actor)).await;
        if noted.is_err() {
            self.give_up_disk(disk).await;
        }
        noted?;
        let snapshot = self.find_snapshot(volume, &disk.to_string()).await?;
        self.note(app, actor, &format!("Take snapshot {} of volume {}", snapshot.name(), volume.name));
        Ok(snapshot)
    }

    /// Puts what a snapshot has in the place of what is in its volume, by a release that mounts the copy. What is there until then becomes
    /// a snapshot as well, so that nothing is lost by it.
    pub async fn restore_snapshot(
        self: &Arc<Self>,
        (app, actor): (&App, &Actor),
        volume: &Volume,
        snapshot: &Snapshot,
    ) -> Result<Volume, Error> {
        self.check_held(app, actor).await?;
        if volume.snapshots >= MOST {
            let message =
                format!("{} has {MOST} snapshots; remove one, since what is there now becomes one", volume.name);
            return Err(Error::Invalid(message));
        }
        let (disk, _) = self.copy_disk(volume, snapshot.disk, volume.size_bytes).await?;
        let bytes = self.disks_used().await.get(&volume.disk.to_string()).copied().unwrap_or_default();
        let (name, user) = (snapshot.name(), actor.user.email.as_str());
        let reason = format!("before {name} was restored");
        let change = VolumeChange::Replace { volume, disk, before: (bytes, &reason, user) };
        let words = format!("Restore volume {} from {name}", volume.name);
        let made = self.release_volumes((app, actor), &words, change).await;
        if made.is_err() {
            self.give_up_disk(disk).await;
        }
        made?;
        self.find_volume(app, &volume.id.to_string()).await
    }

    /// Removes a snapshot.
    pub async fn remove_snapshot(
        &self,
        (app, actor): (&App, &Actor),
        volume: &Volume,
        snapshot: &Snapshot,
    ) -> Result<(), Error> {
        self.store.delete_snapshot(volume, snapshot, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Remove snapshot {} of volume {}", snapshot.name(), volume.name));
        self.live.litter.notify_one();
        Ok(())
    }

    /// All that is in a volume, or in a snapshot of one, as a tar archive.
    pub async fn disk_files(&self, disk: DiskId) -> Result<Archive, Error> {
        Ok(self.engine.volume_files(&disk.to_string()).await?)
    }

    /// Copies a disk, for a volume of so many bytes; which one it is, and what it takes. Goes on when whoever asked for it is gone, so that
    /// it is known what became of it.
    async fn copy_disk(self: &Arc<Self>, volume: &Volume, from: DiskId, size: u64) -> Result<(DiskId, u64), Error> {
        let takes = self.disks_used().await.get(&from.to_string()).copied().unwrap_or_default();
        self.admit_volume(&volume.name, takes).await?;
        let disk = DiskId::random(&*self.random);
        self.store.begin_disk(disk, self.clock.now()).await?;
        let controller = Arc::clone(self);
        let copying = tokio::spawn(async move {
            let (from, to) = (from.to_string(), disk.to_string());
            let copied = match controller.engine.copy_volume(&from, &to).await {
                // It may be from a time when the volume held less.
                Ok(()) => controller.engine.make_volume(&to, size).await,
                Err(error) => Err(error),
            };
            if copied.is_err() {
                controller.give_up_disk(disk).await;
            }
            copied.map_err(full)
        });
        let ended = copying.await;
        ended.map_err(|source| Error::System { action: "copy a volume", source: source.into() })??;
        let bytes = self.disks_used().await.get(&disk.to_string()).copied().unwrap_or_default();
        Ok((disk, bytes))
    }
}
