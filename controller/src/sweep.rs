//! What may go: files of apps that are gone, images of releases that are gone, layers of neither.

use std::fs::DirEntry;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::OneOffId;
use model::AppId;

use crate::{Controller, Error};

/// Pause between two sweeps, unless an app is removed.
const INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Sweeps for as long as the process lives.
pub(crate) async fn work(controller: Arc<Controller>) {
    loop {
        match controller.forget_events().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "forgot events that are older than they are kept"),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not forget old events; will try again");
            }
        }
        match controller.sweep().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "removed what belonged to apps and images that are gone"),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not remove what apps left; will try again"
                );
            }
        }
        tokio::select! {
            () = controller.live.litter.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

impl Controller {
    /// Removes what belongs to no app, and layers of no image; says how many one-offs, folders and layers went.
    pub(crate) async fn sweep(&self) -> Result<usize, Error> {
        // What there is first: that of an app that is made meanwhile is not among it.
        let (folders, oneoffs, workloads) =
            (self.folders_of_apps(), self.engine.oneoffs().await?, self.engine.list().await?);
        let apps = self.store.owners().await?;
        let is_orphan = |oneoff: &&OneOffId| app_of(oneoff).is_some_and(|app| !apps.contains(&app));
        let mut ended = 0;
        for oneoff in oneoffs.iter().filter(is_orphan) {
            self.engine.kill(oneoff).await?;
            ended += 1;
        }
        let orphans: Vec<_> = folders.into_iter().filter(|(app, _)| !apps.contains(app)).map(|it| it.1).collect();
        let count = orphans.len();
        let removed = tokio::task::spawn_blocking(move || orphans.iter().try_for_each(std::fs::remove_dir_all));
        removed.await.map_err(io::Error::other).flatten().map_err(|source| Error::System {
            action: "remove the files of an app that is gone",
            source: source.into(),
        })?;
        if ended > 0 || workloads.iter().any(|workload| !apps.contains(&workload.app)) {
            // Their processes still run on layers that no image needs. The next sweep comes soon enough.
            return Ok(count + ended);
        }
        let sources = self.sweep_sources().await?;
        let of_apps = self.store.prune_images().await?;
        let of_addons = self.store.addons().await?.into_iter().filter_map(|addon| addon.layer);
        let in_use = of_apps.into_iter().chain(of_addons).collect();
        let layers = self
            .builder
            .collect_garbage(in_use)
            .await
            .map_err(|source| Error::System { action: "remove layers that no image needs", source: source.into() })?;
        Ok(count + sources + layers)
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

/// Whose a one-off is: its id is `<kind>-<app id>-…`.
fn app_of(OneOffId(id): &OneOffId) -> Option<AppId> {
    let (_, rest) = id.split_once('-')?;
    rest.get(..36)?.parse().ok()
}

#[cfg(test)]
mod tests {
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
        controller.delete_app(&gone, &test.actor(&user)).await.expect("deleted");
        assert_eq!(controller.sweep().await.expect("swept"), 5);
        assert!(folders(gone.id).iter().all(|folder| !folder.exists()));
        assert!(folders(kept.id).iter().all(|folder| folder.exists()));
        assert!(controller.settings.home.join("git/hooks").exists());
        assert_eq!(controller.sweep().await.expect("swept"), 0);
    }
}
