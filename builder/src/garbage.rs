//! What may go: layers that no image and no cache refers to, and what builds of an earlier life left.

use std::collections::BTreeSet;
use std::time::Duration;

use engine::{LayerError, OneOffId};
use model::{AppId, Digest};

use crate::debian::Installed;
use crate::errors::BuildError;
use crate::extend::Extended;
use crate::metadata::Cache;
use crate::{Builder, blocking};

/// A layer younger than this stays: its image may not be written down yet.
const GRACE: Duration = Duration::from_secs(60 * 60);

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

    /// Removes every layer that is not in `in_use` (the layers of all images), not part of the stack, and not in any app's
    /// build cache (`cache/<app id>`). Returns how many went.
    pub async fn collect_garbage(&self, in_use: BTreeSet<Digest>) -> Result<usize, BuildError> {
        let builder = self.clone();
        blocking(move || {
            let mut keep = in_use;
            keep.extend((builder.stack)()?.into_iter().flat_map(|stack| [stack.build, stack.run]));
            keep.extend(builder.cached_layers()?);
            let garbage = garbage(builder.layers.list()?, &keep);
            for layer in &garbage {
                builder.layers.remove(layer)?;
            }
            Ok(garbage.len())
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

/// Of layers and their ages, those that nobody needs.
fn garbage(present: Vec<(Digest, Duration)>, keep: &BTreeSet<Digest>) -> Vec<Digest> {
    let unneeded = |(layer, age): &(Digest, Duration)| !keep.contains(layer) && *age > GRACE;
    present.into_iter().filter(unneeded).map(|(layer, _)| layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn young_and_needed_layers_stay() {
        let [a, b, c] = ["a", "b", "c"].map(|digit| format!("sha256:{}", digit.repeat(64)).parse::<Digest>().unwrap());
        let present = vec![(a.clone(), GRACE * 2), (b.clone(), GRACE * 2), (c, GRACE / 2)];
        assert_eq!(garbage(present, &BTreeSet::from([a])), [b]);
    }
}
