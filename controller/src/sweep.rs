//! What may go: files of apps that are gone, images of releases that are gone, layers of neither.

use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use builder::Budget;
use engine::{OneOffId, WorkloadStatus};
use model::AppId;

use crate::{Controller, Error};

/// Pause between two sweeps, unless an app is removed.
const INTERVAL: Duration = Duration::from_secs(10 * 60);

/// What one round may remove of layers; the rest waits for the next one, so that whoever deploys meanwhile has the disk.
const BUDGET: Budget = Budget { bytes: 4 << 30, time: Duration::from_secs(10) };
/// Pause before that.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(20);
/// Build caches that give way in one round.
const CACHES: usize = 4;

/// What a sweep did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// One-offs, folders, layers and caches that went.
    pub(crate) count: usize,
    /// Something is left for the next round.
    pub(crate) more: bool,
}

/// Of so many builds, and of so many release commands, an app's output is kept.
const OUTPUTS: usize = 200;

/// Sweeps for as long as the process lives.
pub(crate) async fn work(controller: Arc<Controller>) {
    loop {
        let mut more = false;
        match controller.forget_events().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "forgot events that are older than they are kept"),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not forget old events; will try again");
            }
        }
        if let Err(error) = controller.store.delete_expired_tokens(&controller.own_stamp()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "could not forget expired tokens; will try again");
        }
        match controller.sweep().await {
            Ok(swept) => {
                more = swept.more;
                if swept.count > 0 {
                    let count = swept.count;
                    tracing::info!(count, "removed what belonged to apps and images that are gone");
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not remove what apps left; will try again"
                );
            }
        }
        tokio::select! {
            () = controller.live.litter.notified() => {}
            () = tokio::time::sleep(if more { BETWEEN_ROUNDS } else { INTERVAL }) => {}
        }
    }
}

impl Controller {
    /// Removes what belongs to no app, and layers of no image; says how many one-offs, folders and layers went.
    pub(crate) async fn sweep(&self) -> Result<Swept, Error> {
        // What there is first: that of an app that is made meanwhile is not among it.
        let (folders, oneoffs, workloads) =
            (self.folders_of_apps(), self.engine.oneoffs().await?, self.engine.list().await?);
        let apps = self.store.owners().await?;
        let is_orphan = |oneoff: &&OneOffId| app_of(oneoff).is_some_and(|app| !apps.contains(&app));
        let mut ended = 0;
        for oneoff in oneoffs.iter().filter(is_orphan) {
            self.engine.kill(oneoff).await?;
            self.engine.forget(oneoff).await?;
            ended += 1;
        }
        let orphans: Vec<_> = folders.into_iter().filter(|(app, _)| !apps.contains(app)).map(|it| it.1).collect();
        let count = orphans.len();
        let removed = tokio::task::spawn_blocking(move || orphans.iter().try_for_each(std::fs::remove_dir_all));
        removed.await.map_err(io::Error::other).flatten().map_err(|source| Error::System {
            action: "remove the files of an app that is gone",
            source: source.into(),
        })?;
        let (disks, disks_left) = self.sweep_disks().await?;
        let count = count + disks;
        if ended > 0 || workloads.iter().any(|workload| !apps.contains(&workload.app)) {
            // Their processes still run on layers that no image needs. The next sweep comes soon enough.
            return Ok(Swept { count: count + ended, more: disks_left });
        }
        self.forget_deliveries().await?;
        let outputs = self.outputs_of_apps();
        let removed = tokio::task::spawn_blocking(move || outputs.iter().try_for_each(|folder| keep_newest(folder)));
        removed
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|source| Error::System { action: "remove the outputs of old builds", source: source.into() })?;
        let sources = self.sweep_sources().await?;
        self.give_up_images(&workloads).await?;
        self.store.prune_images().await?;
        let layers =
            self.builder.collect_garbage(self.layers_in_use().await?, BUDGET).await.map_err(|source| {
                Error::System { action: "remove layers that no image needs", source: source.into() }
            })?;
        // Images are never among what gives way: only what a build would make again, and only when nothing else is left to go.
        let caches = if layers.more { 0 } else { self.give_up_caches(CACHES).await? };
        if caches > 0 {
            tracing::warn!(count = caches, "build caches gave way, since the disk is nearly full");
        }
        let more = layers.more || caches > 0 || disks_left;
        Ok(Swept { count: count + sources + layers.layers + caches, more })
    }

    /// Gives up images of apps that have more than are kept. Only those that were released since the last time can have, but for
    /// the first time of a controller.
    async fn give_up_images(&self, running: &[WorkloadStatus]) -> Result<(), Error> {
        let (kept, now) = (self.settings.kept_images.get(), self.clock.now());
        let last = *self.live.images_given_up.lock();
        let apps = match last {
            Some(last) => self.store.apps_released_since(last).await?,
            None => self.store.apps_with_more_builds(kept).await?,
        };
        let mut given_up = 0;
        for app in apps {
            let own = running.iter().filter(|workload| workload.app == app);
            let versions = own.map(|workload| workload.release).collect();
            given_up += self.store.give_up_images(app, (kept, &versions), &self.own_stamp()).await?;
        }
        if given_up > 0 {
            tracing::info!(count = given_up, "gave up images of old releases");
        }
        *self.live.images_given_up.lock() = Some(now);
        Ok(())
    }

    /// The folders in which the outputs of builds and of release commands are, one file each.
    fn outputs_of_apps(&self) -> Vec<PathBuf> {
        let roots = ["builds", "releases"].map(|name| self.settings.home.join(name));
        let entries = roots.iter().filter_map(|root| root.read_dir().ok()).flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Every folder that is named after the id of an app or an add-on. Whatever is kept of one in files is in these.
    fn folders_of_apps(&self) -> Vec<(AppId, PathBuf)> {
        let home = &self.settings.home;
        let roots = ["git", "logs", "builds", "releases", "backups", "drains"].map(|name| home.join(name));
        let entries = roots.iter().chain([&self.builder.cache]).filter_map(|root| root.read_dir().ok()).flatten();
        let app = |entry: &DirEntry| entry.file_name().to_str()?.split('.').next()?.parse().ok();
        entries.flatten().filter_map(|entry| Some((app(&entry)?, entry.path()))).collect()
    }
}

/// Removes the oldest files of a folder that has too many.
fn keep_newest(folder: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    files.sort();
    files.iter().rev().skip(OUTPUTS).try_for_each(|(_, path)| std::fs::remove_file(path))
}

/// Whose a one-off is: its id is `<kind>-<app id>-…`.
fn app_of(OneOffId(id): &OneOffId) -> Option<AppId> {
    let (_, rest) = id.split_once('-')?;
    rest.get(..36)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::Error;
    use crate::releases::RollbackWish;
    use crate::store::Outcome;
    use crate::testing::TestController;

    #[tokio::test]
    async fn files_go_with_their_app_and_no_others() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let user = test.user("ada@example.com").await;
        let (gone, kept) = (test.app(&user, "gone").await, test.app(&user, "kept").await);
        let folders = |app: model::AppId| {
            let home = &controller.settings.home;
            let names = ["git/ID.git", "logs/ID", "builds/ID", "releases/ID", "cache/ID"];
            names.map(|name| home.join(name.replace("ID", &app.to_string())))
        };
        for folder in folders(gone.id).iter().chain(&folders(kept.id)) {
            std::fs::create_dir_all(folder.join("inside")).expect("a folder");
        }
        std::fs::create_dir_all(controller.settings.home.join("git/hooks")).expect("a folder");
        controller.delete_app(&gone, &test.actor(&user), None).await.expect("deleted");
        assert_eq!(controller.sweep().await.expect("swept").count, 5);
        assert!(folders(gone.id).iter().all(|folder| !folder.exists()));
        assert!(folders(kept.id).iter().all(|folder| folder.exists()));
        assert!(controller.settings.home.join("git/hooks").exists());
        assert_eq!(controller.sweep().await.expect("swept").count, 0);
    }

    #[tokio::test]
    async fn the_outputs_of_few_builds_are_kept() {
        let test = TestController::new().await;
        let user = test.user("ada@example.com").await;
        let app = test.app(&user, "built").await;
        let folder = test.controller.settings.home.join("builds").join(app.id.to_string());
        std::fs::create_dir_all(&folder).expect("a folder");
        for number in 0..super::OUTPUTS + 2 {
            let file = std::fs::File::create(folder.join(format!("{number}.log"))).expect("made");
            let minute = u64::try_from(number).expect("small") * 60;
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(minute)).expect("set");
        }
        test.controller.sweep().await.expect("swept");
        let there = |number: usize| folder.join(format!("{number}.log")).exists();
        assert_eq!([there(0), there(1), there(2), there(super::OUTPUTS + 1)], [false, false, true, true]);
    }

    #[tokio::test]
    async fn an_app_keeps_its_newest_images_and_nobody_goes_back_to_others() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let user = test.user("ada@example.com").await;
        let (app, actor) = (test.app(&user, "deployed").await, test.actor(&user));
        let types = |name: &'static str| ["web", name];
        for name in ["v2", "v3", "v4", "v5", "v6"] {
            test.deploy(&app, &types(name)).await;
        }
        controller.sweep().await.expect("swept");
        let removed = async || -> Vec<u64> {
            let releases = controller.store.releases(app.id).await.expect("readable");
            releases
                .iter()
                .filter(|release| release.image_removed_at.is_some())
                .map(|release| release.version)
                .collect()
        };
        assert_eq!(removed().await, [2, 3], "three are kept");
        let back_to = async |version| {
            let release = controller.store.release_by_version(app.id, version).await.expect("readable").expect("there");
            controller.rollback((&app, &actor), &release, &RollbackWish::default()).await
        };
        let Err(Error::Invalid(refusal)) = back_to(2).await else { panic!("not refused") };
        assert!(refusal.contains("its image was removed. An app keeps its newest 3") && refusal.contains("1a2b3c4d"));
        let seventh = back_to(4).await.expect("its image is there").release;
        test.finish(&seventh, Outcome::Succeeded).await;
        test.clock.advance(Duration::from_secs(1));
        test.deploy(&app, &types("v3")).await;
        assert_eq!(removed().await, [2], "what is deployed again is there again");
        controller.sweep().await.expect("swept");
        assert_eq!(removed().await, [2, 5], "v3, v4 and v6 are the newest");
        let kept = controller.store.give_up_images(app.id, (0, &[6].into()), &controller.own_stamp()).await;
        assert_eq!((kept.expect("given up"), removed().await), (1, vec![2, 4, 5, 7]), "v6 runs, v8 is current");
    }
}
