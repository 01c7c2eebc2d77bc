//! What the files of an app say of its volumes: new ones are made by its next release, and what becomes of the others is told.

use std::collections::{BTreeMap, BTreeSet};

use manifest::Manifest;
use model::{DiskId, ProcessType, VolumeId, VolumeSize};

use crate::builds::{Output, Refused};
use crate::scaling::policy_of;
use crate::setup::Kept;
use crate::store::{App, NewVolume, Release, ScalingTexts};
use crate::{Controller, Error};

impl Controller {
    /// The volumes that a manifest names and the app does not have, each with its disk; says what is not as it names them.
    pub(crate) async fn declared_volumes(
        &self,
        app: &App,
        manifest: &Manifest,
        output: &mut Output,
    ) -> Result<Vec<NewVolume>, Refused> {
        let present = self.store.volumes(app.id).await.map_err(Error::from)?;
        let before = self.store.present(app.id).await.map_err(Error::from)?.manifest;
        let named_before = Kept::read(before.as_deref()).unwrap_or_default().volumes;
        for volume in &present {
            let size = VolumeSize::of(volume.size_bytes).map(|size| size.to_string()).unwrap_or_default();
            let (name, process_type, path) = (&volume.name, &volume.process_type, &volume.path);
            match manifest.volumes.get(name).map(|wish| &wish.value) {
                Some(wish)
                    if (&wish.process_type, &wish.path, wish.size.bytes())
                        == (process_type, path, volume.size_bytes) => {}
                Some(_) => {
                    let text = format!(
                        " !     The volume {name} stays as it is: {size} for {process_type} at {path}. app.json says only what a new \
                         one is like; `platform volumes:resize` makes it larger"
                    );
                    output.line(&text).await;
                }
                None if named_before.contains(name) => {
                    let text = format!(
                        " !     app.json no longer names the volume {name} ({size}): it stays, with what is in it. `platform \
                         volumes:destroy {name}` removes it"
                    );
                    output.line(&text).await;
                }
                None => {}
            }
        }
        let mut made: Vec<NewVolume> = Vec::new();
        for (name, wish) in manifest.volumes.iter().filter(|(name, _)| present.iter().all(|it| it.name != **name)) {
            let (id, disk) = (VolumeId::random(&*self.random), DiskId::random(&*self.random));
            let (process_type, path) = (wish.value.process_type.clone(), wish.value.path.clone());
            let new =
                NewVolume { id, name: name.clone(), process_type, path, size_bytes: wish.value.size.bytes(), disk };
            let ready = match self.admit_volume(&new.name, new.size_bytes).await {
                Ok(()) => self.make_disk(new.disk, new.size_bytes).await,
                refused => refused,
            };
            if let Err(error) = ready {
                self.give_up_disks(&made).await;
                return Err(match error {
                    Error::Conflict(message) => Refused::Said(message),
                    error @ Error::DiskFull(_) => Refused::Said(error.to_string()),
                    other => other.into(),
                });
            }
            made.push(new);
        }
        Ok(made)
    }

    /// Nobody will need the disks of these.
    pub(crate) async fn give_up_disks(&self, volumes: &[NewVolume]) {
        for volume in volumes {
            self.give_up_disk(volume.disk).await;
        }
    }

    /// Says what volumes mean for the process types that have them: whose dyno stops before the new one starts, and who does not scale by
    /// itself although its app.json wants it.
    pub(crate) async fn say_what_volumes_mean(&self, release: &Release, output: &mut Output) -> Result<(), Error> {
        if release.volumes.is_empty() {
            return Ok(());
        }
        let was_live = self.store.was_live(release.app).await?;
        let formation = self.store.formation(release.app).await?;
        let (kept, set) = (self.kept_of(release).await?, self.store.scaling_settings(release.app).await?);
        let types: BTreeSet<&ProcessType> = release.volumes.values().map(|volume| &volume.process_type).collect();
        for process_type in types {
            let runs = formation.iter().any(|row| row.process_type == *process_type && row.quantity > 0);
            if was_live && runs {
                let text = format!("       {process_type} has a volume: its dyno stops before the new one starts");
                output.line(&text).await;
            }
            let texts = |of: &BTreeMap<ProcessType, ScalingTexts>| of.get(process_type).cloned().unwrap_or_default();
            if policy_of(&texts(&kept.scaling), &texts(&set)).autoscale.is_some() {
                let text = format!(
                    " !     {process_type} has a volume, which is for one dyno: it does not scale by itself, as app.json wants it"
                );
                output.line(&text).await;
            }
        }
        Ok(())
    }
}
