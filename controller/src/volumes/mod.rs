//! What apps keep on disk: made for the dynos of a process type, mounted by its releases, removed when somebody says so.
//!
//! A release says which disks its dynos mount, and never changes. So whatever changes that makes a release, and is rolled out as one:
//! the dyno before it stops first, since a disk is for one at a time.

mod declared;
mod disks;
mod snapshots;

use disks::full;
use engine::EngineError;
use model::{DiskId, MountPath, VolumeId, VolumeName, VolumeSize};

use crate::formation::{RELEASE_PHASE, WEB, process_type};
use crate::store::{App, Change, DataChoice, NewRelease, NewVolume, Volume, VolumeChange};
use crate::{Actor, Controller, Error};

/// Most volumes of an app.
const MOST: usize = 20;

/// A volume as somebody asks for it; what is missing is what is usual, or as it was.
#[derive(Debug, Clone, Default)]
pub struct VolumeRequest {
    /// What it is to be called.
    pub name: Option<String>,
    /// Whose dynos are to mount it: `web`.
    pub process_type: Option<String>,
    /// Where.
    pub path: Option<String>,
    /// How much it is to hold.
    pub size_bytes: Option<u64>,
    /// One that is kept, by name or id, which the app is to have.
    pub from: Option<String>,
}

impl Controller {
    /// The volume of an app that `reference`, a name or an id, means.
    pub async fn find_volume(&self, app: &App, reference: &str) -> Result<Volume, Error> {
        let is_meant = |volume: &Volume| volume.name.as_str() == reference || volume.id.to_string() == reference;
        self.store.volumes(app.id).await?.into_iter().find(is_meant).ok_or(Error::NotFound("volume"))
    }

    /// The volume that `reference`, a name or an id, means of those that are kept for somebody.
    pub async fn find_kept_volume(&self, actor: &Actor, reference: &str) -> Result<Volume, Error> {
        let kept = self.store.kept_volumes(actor.user.id).await?;
        if let Some(volume) = kept.iter().find(|volume| volume.id.to_string() == reference) {
            return Ok(volume.clone());
        }
        let mut named: Vec<Volume> = kept.into_iter().filter(|volume| volume.name.as_str() == reference).collect();
        let volume = named.pop().ok_or(Error::NotFound("volume"))?;
        if named.is_empty() {
            return Ok(volume);
        }
        named.push(volume);
        let ids: Vec<_> = named
            .iter()
            .map(|volume| format!("{} of {}", volume.id, volume.app_name.as_deref().unwrap_or_default()))
            .collect();
        Err(Error::Ambiguous(format!("Several kept volumes are called {reference}: {}. Use an id.", ids.join(", "))))
    }

    /// Makes a volume for an app, or gives it one that was kept, and a release that mounts it.
    pub async fn create_volume(&self, app: &App, actor: &Actor, request: &VolumeRequest) -> Result<Volume, Error> {
        self.check_held(app, actor).await?;
        if self.store.volumes(app.id).await?.len() >= MOST {
            return Err(Error::Invalid(format!("{} has {MOST} volumes, and no app can have more", app.name)));
        }
        if let Some(reference) = &request.from {
            let kept = self.find_kept_volume(actor, reference).await?;
            let new = self.wanted(request, Some(&kept))?;
            let words = format!("Adopt volume {}", new.name);
            self.release_volumes((app, actor), &words, VolumeChange::Adopt(&kept, &new)).await?;
            return self.find_volume(app, new.name.as_str()).await;
        }
        let new = self.wanted(request, None)?;
        self.admit_volume(&new.name, new.size_bytes).await?;
        self.make_disk(new.disk, new.size_bytes).await?;
        let words = format!("Add volume {}", new.name);
        let made = self.release_volumes((app, actor), &words, VolumeChange::Add(&new)).await;
        if made.is_err() {
            self.give_up_disk(new.disk).await;
        }
        made?;
        self.find_volume(app, new.name.as_str()).await
    }

    /// Takes a volume away from an app by a release that mounts it no more. Its data is kept or deleted as somebody must say, and if it
    /// has snapshots, that those are deleted as well.
    pub async fn remove_volume(
        &self,
        (app, actor): (&App, &Actor),
        volume: &Volume,
        (choice, with_snapshots): (Option<DataChoice>, bool),
    ) -> Result<(), Error> {
        let Some(choice) = choice else {
            return Err(Error::Invalid(format!(
                "Say what becomes of the data of {}: `platform volumes:destroy` deletes it, `platform volumes:detach` keeps it for \
                 another app (`?data=delete` and `?data=keep` in the API).",
                words(volume)
            )));
        };
        if choice == DataChoice::Delete {
            check_snapshots(volume, with_snapshots)?;
        }
        self.check_held(app, actor).await?;
        let what = match choice {
            DataChoice::Delete => format!("Destroy volume {}", volume.name),
            DataChoice::Keep => format!("Detach volume {}", volume.name),
        };
        self.release_volumes((app, actor), &what, VolumeChange::Remove(volume, choice)).await?;
        self.live.litter.notify_one();
        Ok(())
    }

    /// Removes a volume that is kept, and its snapshots if somebody says so.
    pub async fn remove_kept_volume(&self, actor: &Actor, volume: &Volume, with_snapshots: bool) -> Result<(), Error> {
        check_snapshots(volume, with_snapshots)?;
        self.store.delete_kept_volume(volume, &self.stamp(actor)).await?;
        self.live.litter.notify_one();
        Ok(())
    }

    /// Lets a volume hold more: at once where the file system can grow under its dyno, and otherwise by a release, whose rollout stops that
    /// dyno first.
    pub async fn resize_volume(
        &self,
        (app, actor): (&App, &Actor),
        volume: &Volume,
        bytes: u64,
    ) -> Result<Volume, Error> {
        let size = VolumeSize::of(bytes)?;
        if size.bytes() < volume.size_bytes {
            return Err(Error::Invalid(format!(
                "{} cannot shrink to {size}: what is in it might not fit. Make a smaller one, and copy what you need.",
                words(volume)
            )));
        }
        if size.bytes() > volume.size_bytes {
            self.admit_volume(&volume.name, size.bytes() - volume.size_bytes).await?;
        }
        // Also if it has that size: it may have been noted, and not done.
        self.store.grow_volume(volume, size.bytes(), &self.stamp(actor)).await?;
        let words = format!("Resize volume {} to {size}", volume.name);
        match self.engine.make_volume(&volume.disk.to_string(), size.bytes()).await {
            Ok(()) => self.note(app, actor, &words),
            Err(EngineError::InUse { .. }) => {
                self.check_held(app, actor).await?;
                self.release_volumes((app, actor), &words, VolumeChange::Remount(volume)).await?;
            }
            Err(error) => return Err(full(error)),
        }
        self.find_volume(app, &volume.id.to_string()).await
    }

    /// Refuses to do away with an app that has volumes.
    pub(crate) async fn check_no_volumes(&self, app: &App) -> Result<(), Error> {
        let volumes = self.store.volumes(app.id).await?;
        if volumes.is_empty() {
            return Ok(());
        }
        let all: Vec<_> = volumes.iter().map(words).collect();
        Err(Error::Invalid(format!(
            "{name} has data on volumes: {}. Say what becomes of it: `platform destroy -a {name} --keep-volumes` keeps it for another \
             app, `--delete-volumes` deletes it (`?data=keep` and `?data=delete` in the API).",
            all.join(", "),
            name = app.name,
        )))
    }

    /// Makes the release that a change of an app's volumes is.
    async fn release_volumes(
        &self,
        (app, actor): (&App, &Actor),
        description: &str,
        change: VolumeChange<'_>,
    ) -> Result<(), Error> {
        let change = Change::Volumes(change);
        let new = NewRelease { app: app.id, user: actor.user.id, description, reason: None, change };
        let made = self.store.create_release(new, &self.stamp(actor)).await?;
        let version = made.map(|release| format!(": release v{}", release.version)).unwrap_or_default();
        self.note(app, actor, &format!("{description}{version}"));
        self.changed.app(app.id);
        Ok(())
    }

    /// What somebody asks for, as a whole; what they do not say is as it was of one that is kept.
    fn wanted(&self, request: &VolumeRequest, kept: Option<&Volume>) -> Result<NewVolume, Error> {
        let parsed = |text: &Option<String>| text.as_deref().map(str::parse::<VolumeName>).transpose();
        let name = parsed(&request.name)?.or_else(|| kept.map(|kept| kept.name.clone()));
        let name = name.ok_or_else(|| Error::Invalid("name is missing".to_owned()))?;
        let path = request.path.as_deref().map(str::parse::<MountPath>).transpose()?;
        let path = path.or_else(|| kept.map(|kept| kept.path.clone()));
        let path = path.ok_or_else(|| Error::Invalid("path is missing: where dynos see it, as /data".to_owned()))?;
        let own = kept.map(|kept| kept.process_type.to_string());
        let process_type = process_type(request.process_type.as_deref().or(own.as_deref()).unwrap_or(WEB))?;
        if process_type.as_str() == RELEASE_PHASE {
            return Err(Error::Invalid(
                "The release process has no volumes: it runs before its release does".to_owned(),
            ));
        }
        let size_bytes = match (kept, request.size_bytes) {
            (Some(_), Some(_)) => return Err(Error::Invalid("A volume that was kept has its size".to_owned())),
            (Some(kept), None) => kept.size_bytes,
            (None, Some(bytes)) => VolumeSize::of(bytes)?.bytes(),
            (None, None) => VolumeSize::USUAL.bytes(),
        };
        let (id, disk) = (VolumeId::random(&*self.random), DiskId::random(&*self.random));
        Ok(NewVolume { id, name, process_type, path, size_bytes, disk })
    }
}

/// `data (5GiB, 2 snapshots)`
fn words(volume: &Volume) -> String {
    let size = VolumeSize::of(volume.size_bytes).map(|size| size.to_string()).unwrap_or_default();
    match volume.snapshots {
        0 => format!("{} ({size})", volume.name),
        1 => format!("{} ({size}, 1 snapshot)", volume.name),
        more => format!("{} ({size}, {more} snapshots)", volume.name),
    }
}

fn check_snapshots(volume: &Volume, with_snapshots: bool) -> Result<(), Error> {
    if volume.snapshots == 0 || with_snapshots {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "{} would lose its snapshots, too. Say so with `--delete-snapshots` (`&snapshots=delete` in the API), or keep all of it: \
         `platform volumes:detach`.",
        words(volume)
    )))
}

#[cfg(test)]
mod tests;
