//! What may go: layers that no image and no cache refers to, and what builds of an earlier life left.

use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::time::{Duration, Instant};

use engine::{LayerError, OneOffId};
use model::{AppId, Digest};

use crate::debian::Installed;
use crate::disk::written;
use crate::errors::BuildError;
use crate::extend::Extended;
use crate::metadata::Cache;
use crate::{Builder, blocking};

/// A layer younger than this stays: its image may not be written down yet.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// How much may be removed in one round.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// After so many bytes it is over.
    pub bytes: u64,
    /// After this time it is over.
    pub time: Duration,
}

impl Budget {
    /// All there is.
    pub const ENDLESS: Self = Self { bytes: u64::MAX, time: Duration::MAX };
}

/// What one round removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many layers.
    pub layers: usize,
    /// What they had on the disk.
    pub bytes: u64,
    /// Something is left for the next round.
    pub more: bool,
}

/// A layer that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Which.
    pub layer: Digest,
    /// How long ago it was last inserted.
    pub age: Duration,
    /// What it has on the disk.
    pub bytes: u64,
}

/// What an app's builds keep for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptCache {
    /// Whose.
    pub app: AppId,
    /// How long ago the last build left it.
    pub age: Duration,
}

impl Builder {
    /// Ends builds of an earlier life and removes what they left. To be called once, before the first build.
    pub async fn recover(&self) -> Result<(), BuildError> {
        for OneOffId(id) in self.engine.oneoffs().await? {
            if id.starts_with(Self::ONEOFF_PREFIX) {
                self.engine.kill(&OneOffId(id)).await?;
            }
        }
        let layers = self.layers.clone();
        blocking(move || Ok(layers.clear_staging()?)).await
    }

    /// Every layer that is not in `in_use` (the layers of all images), not part of the stack, and not in any app's
    /// build cache (`cache/<app id>`), the oldest first.
    pub async fn garbage(&self, in_use: BTreeSet<Digest>) -> Result<Vec<Garbage>, BuildError> {
        let builder = self.clone();
        blocking(move || {
            let garbage = builder.unneeded(in_use)?.into_iter();
            let of = |(layer, age): (Digest, Duration)| {
                let bytes = written(&builder.layers.path(&layer));
                Garbage { layer, age, bytes }
            };
            Ok(garbage.map(of).collect())
        })
        .await
    }

    /// Removes of [`Builder::garbage`] as much as the budget allows, but one at least. Whoever is killed meanwhile leaves whole layers,
    /// and the next round goes on with those.
    pub async fn collect_garbage(&self, in_use: BTreeSet<Digest>, budget: Budget) -> Result<Collected, BuildError> {
        let builder = self.clone();
        blocking(move || {
            let (begun, mut collected) = (Instant::now(), Collected::default());
            for (layer, _) in builder.unneeded(in_use)? {
                if collected.layers > 0 && (collected.bytes >= budget.bytes || begun.elapsed() >= budget.time) {
                    collected.more = true;
                    break;
                }
                collected.bytes += written(&builder.layers.path(&layer));
                builder.layers.remove(&layer)?;
                collected.layers += 1;
            }
            Ok(collected)
        })
        .await
    }

    fn unneeded(&self, in_use: BTreeSet<Digest>) -> Result<Vec<(Digest, Duration)>, BuildError> {
        let mut keep = in_use;
        keep.extend((self.stack)()?.into_iter().flat_map(|stack| [stack.build, stack.run]));
        keep.extend(self.cached_layers()?);
        Ok(garbage(self.layers.list()?, &keep))
    }

    /// What each app's builds keep for the next one, the longest unused first. Only what builds made is among it.
    pub async fn caches(&self) -> Result<Vec<KeptCache>, BuildError> {
        let builder = self.clone();
        blocking(move || {
            let entries = builder.cache.read_dir().into_iter().flatten().flatten();
            let of = |entry: DirEntry| {
                let app: AppId = entry.file_name().to_str()?.parse().ok()?;
                let age = builder.cache_file(app).metadata().and_then(|file| file.modified()).ok()?.elapsed();
                Some(KeptCache { app, age: age.unwrap_or_default() })
            };
            let mut caches: Vec<_> = entries.filter_map(of).collect();
            caches.sort_by_key(|cache| std::cmp::Reverse(cache.age));
            Ok(caches)
        })
        .await
    }

    /// Forgets what an app's builds keep for the next one, which then takes as long as a first one. No build of it may run. Layers that only
    /// this needed are garbage from then on.
    pub async fn give_up_cache(&self, app: AppId) -> Result<(), BuildError> {
        let path = self.cache.join(app.to_string());
        blocking(move || match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(BuildError::Io { action: "remove", path, source })
            }
            _ => Ok(()),
        })
        .await
    }

    /// Makes the next build of an app start from nothing, as its first one did. No build of it may run.
    pub async fn purge_cache(&self, app: AppId) -> Result<(), BuildError> {
        let (path, docker) = (self.cache_file(app), self.docker_cache(app));
        let purged = Cache { purged: true, ..Cache::default() };
        blocking(move || {
            match std::fs::remove_dir_all(&docker) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(BuildError::Io { action: "remove", path: docker, source });
                }
                _ => {}
            }
            purged.write(&path).map_err(|source| BuildError::Io { action: "write", path, source })
        })
        .await
    }

    fn cached_layers(&self) -> Result<BTreeSet<Digest>, LayerError> {
        let mut layers = BTreeSet::new();
        let trouble = |source| LayerError { action: "read", path: self.cache.clone(), source };
        if !self.cache.exists() {
            return Ok(layers);
        }
        for app in self.cache.read_dir().map_err(trouble)? {
            let folder = app.map_err(trouble)?.path();
            // Beside the apps' folders there is a note of the launcher's layer, which images refer to.
            if !folder.is_dir() {
                continue;
            }
            let cache = Cache::read(&folder.join("cache.json"));
            layers.extend(cache.sbom);
            layers.extend(cache.packages.iter().flat_map(Installed::layers));
            layers.extend(cache.extended.iter().flat_map(Extended::layers));
            layers.extend(cache.layers.into_values().flatten().map(|(_, layer)| layer.sha));
        }
        Ok(layers)
    }
}

/// Of layers and their ages, those that nobody needs, the oldest first.
fn garbage(mut present: Vec<(Digest, Duration)>, keep: &BTreeSet<Digest>) -> Vec<(Digest, Duration)> {
    present.retain(|(layer, age)| !keep.contains(layer) && *age > GRACE);
    present.sort_by_key(|(_, age)| std::cmp::Reverse(*age));
    present
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn young_and_needed_layers_stay() {
        let [a, b, c] = ["a", "b", "c"].map(|digit| format!("sha256:{}", digit.repeat(64)).parse::<Digest>().unwrap());
        let d: Digest = format!("sha256:{}", "d".repeat(64)).parse().unwrap();
        let present = vec![(a.clone(), GRACE * 2), (b.clone(), GRACE * 2), (c, GRACE / 2), (d.clone(), GRACE * 3)];
        assert_eq!(garbage(present, &BTreeSet::from([a])), [(d, GRACE * 3), (b, GRACE * 2)], "the oldest goes first");
    }
}
