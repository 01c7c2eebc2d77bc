//! What takes the disk: of one app, and of the whole platform.
//!
//! A layer that several apps have is there once, and each of them is charged with its part.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use builder::{Fill, Garbage, KeptCache, written};
use model::{AppId, Digest, DiskId, Timestamp};

use crate::store::App;
use crate::{Controller, Error};

/// Who has which layers is found out anew after so long: all images are read for it.
const USERS_KNOWN: Duration = Duration::from_secs(600);

/// Something that takes room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// `images`, `repository`, …
    pub name: String,
    /// How much.
    pub bytes: u64,
}

/// What an app takes.
#[derive(Debug, Clone)]
pub struct AppDisk {
    /// By what it is.
    pub rooms: Vec<Room>,
    /// Each release that can run, the newest first.
    pub releases: Vec<ReleaseDisk>,
}

/// What the image of a release takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleaseDisk {
    /// Number of the release.
    pub version: u64,
    /// All its layers.
    pub bytes: u64,
    /// Those that no other image of any app has: what would be free without it.
    pub own_bytes: u64,
}

/// What the platform takes, and what is left.
#[derive(Debug, Clone)]
pub struct PlatformDisk {
    /// The disk that it is on.
    pub fill: Fill,
    /// From so many per cent on build caches give way.
    pub high: u8,
    /// From so many per cent on nothing is built.
    pub full: u8,
    /// By what it is.
    pub rooms: Vec<Room>,
}

/// What the next rounds of the collection remove.
#[derive(Debug, Clone)]
pub struct Waste {
    /// Layers that nobody needs, the oldest first.
    pub layers: Vec<Garbage>,
    /// Build caches that give way because the disk is too full, the longest unused first; none while it is not.
    pub caches: Vec<(KeptCache, u64)>,
}

/// How many apps have each layer, and when that was found out.
pub(crate) type LayerUsers = Option<(Timestamp, Arc<HashMap<Digest, u32>>)>;

impl Controller {
    /// What an app takes of the disk.
    pub async fn app_disk(&self, app: &App) -> Result<AppDisk, Error> {
        let images = self.store.images_of(app.id).await?;
        let users = self.layer_users().await?;
        let layers: BTreeSet<Digest> =
            images.iter().flat_map(|(_, image)| &image.layers).map(|layer| layer.diff_id.clone()).collect();
        let sizes = self.layer_sizes(layers.clone()).await?;
        let size = |layer: &Digest| sizes.get(layer).copied().unwrap_or_default();
        let users_of = |layer: &Digest| u64::from(users.get(layer).copied().unwrap_or(1).max(1));
        let share = layers.iter().map(|layer| size(layer) / users_of(layer)).sum();
        let mut images_with: HashMap<&Digest, BTreeSet<&Digest>> = HashMap::new();
        for (_, image) in &images {
            for layer in &image.layers {
                images_with.entry(&layer.diff_id).or_default().insert(&image.digest);
            }
        }
        let release = |(version, image): &(u64, model::Image)| {
            let own =
                |layer: &&Digest| users_of(layer) == 1 && images_with.get(layer).is_some_and(|all| all.len() == 1);
            let layers: BTreeSet<&Digest> = image.layers.iter().map(|layer| &layer.diff_id).collect();
            let bytes = layers.iter().map(|layer| size(layer)).sum();
            let own_bytes = layers.iter().copied().filter(own).map(size).sum();
            ReleaseDisk { version: *version, bytes, own_bytes }
        };
        let releases = images.iter().map(release).collect();
        let mut rooms = vec![Room { name: "images".to_owned(), bytes: share }];
        rooms.extend(measure(self.folders_of(app).await?).await?);
        let dynos = self.engine.stats(&[app.id]).await?.iter().filter_map(|stat| stat.disk_bytes).sum();
        rooms.push(Room { name: "dynos".to_owned(), bytes: dynos });
        rooms.extend(self.disks_of(app).await?);
        Ok(AppDisk { rooms, releases })
    }

    /// What the volumes of an app take, and their snapshots.
    async fn disks_of(&self, app: &App) -> Result<Vec<Room>, Error> {
        let volumes = self.store.volumes(app.id).await?;
        if volumes.is_empty() {
            return Ok(Vec::new());
        }
        let used = self.disks_used().await;
        let bytes = |disk: &DiskId| used.get(&disk.to_string()).copied().unwrap_or_default();
        let mut rooms = Vec::new();
        for volume in volumes {
            rooms.push(Room { name: format!("volume {}", volume.name), bytes: bytes(&volume.disk) });
            let snapshots = self.store.snapshots(volume.id).await?;
            if !snapshots.is_empty() {
                let bytes = snapshots.iter().map(|snapshot| bytes(&snapshot.disk)).sum();
                rooms.push(Room { name: format!("snapshots of volume {}", volume.name), bytes });
            }
        }
        Ok(rooms)
    }

    /// What there is of an app in files, and what that is called.
    async fn folders_of(&self, app: &App) -> Result<Vec<(String, Vec<PathBuf>)>, Error> {
        let (home, id) = (&self.settings.home, app.id.to_string());
        let of = |name: &str, folders: &[&str]| {
            (name.to_owned(), folders.iter().map(|folder| home.join(folder).join(&id)).collect::<Vec<_>>())
        };
        let mut folders = vec![
            ("repository".to_owned(), vec![home.join("git").join(format!("{id}.git"))]),
            ("build cache".to_owned(), vec![self.builder.cache.join(&id)]),
            of("logs", &["logs", "drains"]),
            of("outputs of builds", &["builds", "releases"]),
        ];
        for addon in self.store.addons_of_app(app.id).await? {
            let id = addon.id.to_string();
            folders.push((format!("volume of {}", addon.name), vec![home.join("volumes").join(&id)]));
            folders.push((format!("backups of {}", addon.name), vec![home.join("backups").join(&id)]));
        }
        Ok(folders)
    }

    /// What the platform takes of the disk, and what is left.
    pub async fn platform_disk(&self) -> Result<PlatformDisk, Error> {
        let layers = self.layers().await?;
        let sizes = self.layer_sizes(layers.iter().map(|(layer, _)| layer.clone()).collect()).await?;
        let mut rooms = vec![Room { name: "layers".to_owned(), bytes: sizes.values().sum() }];
        let home = &self.settings.home;
        let folder = |name: &str, folder: PathBuf| (name.to_owned(), vec![folder]);
        let of_home = [
            ("repositories", "git"),
            ("logs", "logs"),
            ("outputs of builds", "builds"),
            ("outputs of release commands", "releases"),
            ("volumes", "volumes"),
            ("backups", "backups"),
            ("dynos", "host/instances"),
        ];
        let mut folders = vec![folder("build caches", self.builder.cache.clone())];
        folders.extend(of_home.map(|(name, path)| folder(name, home.join(path))));
        rooms.extend(measure(folders).await?);
        let (high, full) = (self.settings.disk_high, self.builder.limits.full_disk_percent);
        Ok(PlatformDisk { fill: self.fill()?, high, full, rooms })
    }

    /// How full the platform's disk is.
    pub(crate) fn fill(&self) -> Result<Fill, Error> {
        let path = self.builder.layers.staging();
        Fill::of(&path).map_err(|source| Error::System { action: "measure the disk", source: source.into() })
    }

    /// What the next rounds of the collection remove, if nothing changes.
    pub async fn waste(&self) -> Result<Waste, Error> {
        let failed = |source: builder::BuildError| Error::System { action: "look for layers", source: source.into() };
        let layers = self.builder.garbage(self.layers_in_use().await?).await.map_err(failed)?;
        let too_full = self.fill()?.percent() >= self.settings.disk_high;
        let caches = if too_full { self.builder.caches().await.map_err(failed)? } else { Vec::new() };
        let folders = caches.iter().map(|cache| self.builder.cache.join(cache.app.to_string())).collect();
        let sizes = sizes_of(folders).await?;
        Ok(Waste { layers, caches: caches.into_iter().zip(sizes).collect() })
    }

    /// Lets build caches give way, the longest unused first, while the disk is too full: so many of them at most. Says how many did.
    pub(crate) async fn give_up_caches(&self, most: usize) -> Result<usize, Error> {
        let failed = |source: builder::BuildError| Error::System { action: "remove a cache", source: source.into() };
        if self.fill()?.percent() < self.settings.disk_high {
            return Ok(0);
        }
        let is_free = |app: AppId| !self.live.building.lock().contains_key(&app);
        let caches = self.builder.caches().await.map_err(failed)?;
        let mut count = 0;
        for cache in caches.into_iter().filter(|cache| is_free(cache.app)).take(most) {
            self.builder.give_up_cache(cache.app).await.map_err(failed)?;
            count += 1;
        }
        Ok(count)
    }

    /// The layers that images and add-ons need.
    pub(crate) async fn layers_in_use(&self) -> Result<BTreeSet<Digest>, Error> {
        let of_apps = self.store.layers_of_images().await?;
        let of_addons = self.store.addons().await?.into_iter().filter_map(|addon| addon.layer);
        Ok(of_apps.into_iter().chain(of_addons).collect())
    }

    async fn layers(&self) -> Result<Vec<(Digest, Duration)>, Error> {
        let store = self.builder.layers.clone();
        let listed = tokio::task::spawn_blocking(move || store.list()).await.map_err(io::Error::other);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::System { action: "list layers", source };
        listed.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))
    }

    /// What these layers have on the disk. A layer never changes, so each is measured once.
    async fn layer_sizes(&self, layers: BTreeSet<Digest>) -> Result<HashMap<Digest, u64>, Error> {
        let unknown: Vec<Digest> = {
            let known = self.live.layer_sizes.lock();
            layers.iter().filter(|layer| !known.contains_key(*layer)).cloned().collect()
        };
        let sizes = sizes_of(unknown.iter().map(|layer| self.builder.layers.path(layer)).collect()).await?;
        let mut known = self.live.layer_sizes.lock();
        // One that is not there now may be again.
        known.extend(unknown.into_iter().zip(sizes).filter(|(_, bytes)| *bytes > 0));
        Ok(layers.into_iter().filter_map(|layer| known.get(&layer).map(|bytes| (layer.clone(), *bytes))).collect())
    }

    async fn layer_users(&self) -> Result<Arc<HashMap<Digest, u32>>, Error> {
        let now = self.clock.now();
        let known = self.live.layer_users.lock().clone();
        if let Some((_, users)) = known.filter(|(at, _)| now.since(*at) < USERS_KNOWN) {
            return Ok(users);
        }
        let users = Arc::new(self.store.layer_users().await?);
        *self.live.layer_users.lock() = Some((now, Arc::clone(&users)));
        Ok(users)
    }
}

async fn measure(folders: Vec<(String, Vec<PathBuf>)>) -> Result<Vec<Room>, Error> {
    let measured = tokio::task::spawn_blocking(move || {
        let room =
            |(name, paths): (String, Vec<PathBuf>)| Room { name, bytes: paths.iter().map(|path| written(path)).sum() };
        folders.into_iter().map(room).collect()
    });
    measured.await.map_err(|source| Error::System { action: "measure folders", source: source.into() })
}

async fn sizes_of(paths: Vec<PathBuf>) -> Result<Vec<u64>, Error> {
    let measured = tokio::task::spawn_blocking(move || paths.iter().map(|path: &PathBuf| written(path)).collect());
    measured.await.map_err(|source| Error::System { action: "measure folders", source: source.into() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use model::{Digest, Image, Layer};

    use super::*;
    use crate::store::Outcome;
    use crate::testing::{TestController, image, make_deploy};

    /// A layer with a file of so many KiB, inserted long ago.
    fn layer(test: &TestController, number: u8, kib: usize) -> Layer {
        let diff_id = Digest::from_sha256([number; 32]);
        let path = test.controller.builder.layers.path(&diff_id);
        std::fs::create_dir_all(&path).expect("a folder");
        std::fs::write(path.join("file"), vec![1; kib << 10]).expect("written");
        age(&path);
        Layer { diff_id, created_by: "test".to_owned() }
    }

    fn age(path: &Path) {
        let file = std::fs::File::open(path).expect("it is there");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("set");
    }

    fn of(name: &'static str, layers: &[&Layer]) -> Image {
        Image { layers: layers.iter().map(|layer| (*layer).clone()).collect(), ..image(&["web", name]) }
    }

    async fn deploy(test: &TestController, app: &App, image: &Image) -> u64 {
        let release = make_deploy(&test.controller.store, app, image).await;
        test.finish(&release, Outcome::Succeeded).await;
        release.version
    }

    #[tokio::test]
    async fn shared_layers_are_shared_out_and_own_ones_are_told() {
        let test = TestController::new().await;
        let user = test.user("ada@example.com").await;
        let (one, two) = (test.app(&user, "one").await, test.app(&user, "two").await);
        let (base, first, second) = (layer(&test, 1, 400), layer(&test, 2, 80), layer(&test, 3, 160));
        let versions = [
            deploy(&test, &one, &of("first", &[&base, &first])).await,
            deploy(&test, &one, &of("second", &[&base, &second])).await,
        ];
        deploy(&test, &two, &of("other", &[&base])).await;
        let logs = test.controller.settings.home.join("logs").join(one.id.to_string());
        std::fs::create_dir_all(&logs).expect("a folder");
        std::fs::write(logs.join("1"), vec![1; 40 << 10]).expect("written");
        let disk = test.controller.app_disk(&one).await.expect("measured");
        let bytes = |name: &str| disk.rooms.iter().find(|room| room.name == name).expect("a room").bytes >> 10;
        // Folders have a block or none, as file systems go.
        let about = |kib: u64, expected: u64| (expected..expected + 16).contains(&kib);
        assert!(about(bytes("images"), 200 + 80 + 160), "{:?}", disk.rooms);
        assert!(about(bytes("logs"), 40) && bytes("repository") == 0, "{:?}", disk.rooms);
        let releases: Vec<_> =
            disk.releases.iter().map(|it| (it.version, it.bytes >> 10, it.own_bytes >> 10)).collect();
        assert_eq!((releases[0].0, releases[1].0), (versions[1], versions[0]), "the newest first");
        assert!(about(releases[0].1, 560) && about(releases[0].2, 160), "{releases:?}");
        assert!(about(releases[1].1, 480) && about(releases[1].2, 80), "{releases:?}");
        let all = test.controller.platform_disk().await.expect("measured");
        let layers = all.rooms.iter().find(|room| room.name == "layers").expect("layers").bytes >> 10;
        assert!((640..700).contains(&layers), "each counts once: {layers}");
    }

    #[tokio::test]
    async fn caches_give_way_on_a_full_disk_the_longest_unused_first_and_images_never() {
        let mut test = TestController::new().await;
        let user = test.user("ada@example.com").await;
        let app = test.app(&user, "shop").await;
        let (kept, garbage) = (layer(&test, 1, 8), layer(&test, 2, 8));
        deploy(&test, &app, &of("first", &[&kept])).await;
        let caches: Vec<AppId> = vec![app.id, test.app(&user, "old").await.id];
        for (id, second) in caches.iter().zip([2, 1]) {
            let folder = test.controller.builder.cache.join(id.to_string());
            std::fs::create_dir_all(&folder).expect("a folder");
            let file = std::fs::File::create(folder.join("cache.json")).expect("made");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).expect("set");
        }
        let foreign = test.controller.builder.cache.join("not-ours");
        std::fs::create_dir_all(&foreign).expect("a folder");
        let waste = test.controller.waste().await.expect("looked");
        assert_eq!(waste.layers.iter().map(|it| &it.layer).collect::<Vec<_>>(), [&garbage.diff_id]);
        assert_eq!(waste.caches, [], "there is room");
        assert!(test.controller.builder.layers.contains(&garbage.diff_id), "looking removes nothing");
        test.controller.sweep().await.expect("swept");
        assert!(!test.controller.builder.layers.contains(&garbage.diff_id));

        Arc::get_mut(&mut test.controller).expect("nobody else has it").settings.disk_high = 0;
        let waste = test.controller.waste().await.expect("looked");
        assert_eq!(waste.caches.iter().map(|(cache, _)| cache.app).collect::<Vec<_>>(), [caches[1], caches[0]]);
        assert_eq!(test.controller.give_up_caches(1).await.expect("gave way"), 1);
        let has = |app: &AppId| test.controller.builder.cache.join(app.to_string()).exists();
        assert_eq!((has(&caches[0]), has(&caches[1])), (true, false));
        test.controller.sweep().await.expect("swept");
        assert!(!has(&caches[0]) && foreign.exists());
        assert!(test.controller.builder.layers.contains(&kept.diff_id), "an image that can run stays whatever happens");
    }
}
