//! The restore phase: what the buildpacks find of their last build. Contents are not copied: they are the lower directories of the
//! overlay that becomes `/layers`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};

use engine::LayerStore;
use model::Digest;
use toml::Table;

use crate::analyze::Analysis;
use crate::formats::{LayerToml, StoreToml, Types, escaped};
use crate::metadata::{BuildpackLayers, StoredLayer};
use crate::sbom;

/// Identifies a layer: buildpack id and layer name.
pub(crate) type LayerKey = (String, String);

/// What the next build starts from.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Restored {
    /// `<layer>.toml` metadata.
    pub(crate) metadata: BTreeMap<LayerKey, Table>,
    /// Layers whose contents show in `/layers`.
    pub(crate) contents: BTreeMap<LayerKey, Digest>,
    /// Launch layers of the previous image, which a buildpack may reuse without having their contents.
    pub(crate) reusable: BTreeMap<LayerKey, Digest>,
    /// `store.toml` metadata by buildpack id.
    pub(crate) stores: BTreeMap<String, StoreToml>,
    /// Layers with bills of materials, the cache's first.
    pub(crate) sboms: Vec<Digest>,
}

/// Decides what is restored (Buildpack spec, "Layer Types"): layers with `cache` with metadata and contents or not at all, launch
/// layers with metadata only, anything else not. Layers come from the previous image before the cache file, which may be of a build
/// that never was released. After a purge no layer comes, but the buildpacks' stores do (Platform spec, "restorer").
pub(crate) fn plan(analysis: &Analysis, has: &dyn Fn(&Digest) -> bool) -> Restored {
    let with_store = |buildpack: &BuildpackLayers| Some((buildpack.key.clone(), buildpack.store.clone()?));
    let stores = analysis.image.buildpacks.iter().filter_map(with_store).collect();
    let mut restored = Restored { stores, ..Restored::default() };
    if analysis.cache.purged {
        return restored;
    }
    let sboms = analysis.cache.sbom.iter().chain(analysis.image.sbom.as_ref().map(|sbom| &sbom.sha));
    restored.sboms = sboms.filter(|sha| has(sha)).cloned().collect();
    for buildpack in &analysis.image.buildpacks {
        for (name, layer) in &buildpack.layers {
            let key = (buildpack.key.clone(), name.clone());
            if has(&layer.sha) {
                restored.reusable.insert(key.clone(), layer.sha.clone());
                restored.add(key, layer);
            }
        }
    }
    for (id, layers) in &analysis.cache.layers {
        for (name, layer) in layers {
            let key = (id.clone(), name.clone());
            if !restored.reusable.contains_key(&key) && has(&layer.sha) {
                restored.add(key, layer);
            }
        }
    }
    restored
}

impl Restored {
    fn add(&mut self, key: LayerKey, layer: &StoredLayer) {
        match layer.types {
            Types { cache: true, .. } => {
                self.contents.insert(key.clone(), layer.sha.clone());
                self.metadata.insert(key, layer.data.clone());
            }
            Types { launch: true, build: false, .. } => {
                self.metadata.insert(key, layer.data.clone());
            }
            _ => {}
        }
    }

    /// The overlay's lower directories; the order does not matter, as no two have a file in common.
    pub(crate) fn lower(&self, store: &LayerStore) -> Vec<PathBuf> {
        self.contents.values().map(|sha| store.path(sha).join("layers")).collect()
    }

    /// Where the contents of a restored layer lie.
    pub(crate) fn lower_of(&self, store: &LayerStore, (id, name): &LayerKey) -> Option<PathBuf> {
        let sha = self.contents.get(&(id.clone(), name.clone()))?;
        Some(store.path(sha).join("layers").join(escaped(id)).join(name))
    }

    /// Writes metadata and stores into the overlay's upper directory, for the build's `uid` to read and replace.
    pub(crate) fn write(&self, store: &LayerStore, upper: &Path, uid: u32) -> io::Result<()> {
        for ((id, name), metadata) in &self.metadata {
            let toml = LayerToml { types: None, metadata: metadata.clone() };
            write_toml(&dir_of(upper, id, uid)?.join(format!("{name}.toml")), &toml, uid)?;
        }
        for (id, kept) in &self.stores {
            write_toml(&dir_of(upper, id, uid)?.join("store.toml"), kept, uid)?;
        }
        let sboms: Vec<PathBuf> = self.sboms.iter().map(|sha| store.path(sha)).collect();
        sbom::restore(&sboms, self.metadata.keys(), upper, uid)
    }
}

fn dir_of(upper: &Path, id: &str, uid: u32) -> io::Result<PathBuf> {
    let dir = upper.join(escaped(id));
    crate::tree::make_dir(&dir, 0o755)?;
    lchown(&dir, Some(uid), Some(uid))?;
    Ok(dir)
}

fn write_toml<T: serde::Serialize>(path: &Path, value: &T, uid: u32) -> io::Result<()> {
    fs::write(path, toml::to_string(value).map_err(io::Error::other)?)?;
    lchown(path, Some(uid), Some(uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Cache, LifecycleMetadata};

    fn sha(digit: char) -> Digest {
        format!("sha256:{}", digit.to_string().repeat(64)).parse().unwrap()
    }

    fn layer(digit: char, flags: &str) -> StoredLayer {
        let has = |flag: &str| flags.contains(flag);
        let types = Types { launch: has("launch"), build: has("build"), cache: has("cache") };
        StoredLayer { sha: sha(digit), data: Table::new(), types }
    }

    fn restored(image: &[(&str, StoredLayer)], cache: &[(&str, StoredLayer)], missing: Option<char>) -> Restored {
        let layers = |layers: &[(&str, StoredLayer)]| {
            layers.iter().cloned().map(|(name, layer)| (name.to_owned(), layer)).collect()
        };
        let buildpacks =
            vec![BuildpackLayers { key: "a/b".into(), version: "1".into(), layers: layers(image), store: None }];
        let analysis = Analysis {
            image: LifecycleMetadata { buildpacks, ..LifecycleMetadata::default() },
            cache: Cache { layers: BTreeMap::from([("a/b".into(), layers(cache))]), ..Cache::default() },
        };
        plan(&analysis, &|digest| missing.is_none_or(|digit| *digest != sha(digit)))
    }

    fn names<T>(map: &BTreeMap<LayerKey, T>) -> Vec<&str> {
        map.keys().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn flags_decide_what_comes_back() {
        let image = [
            ("both", layer('1', "launch cache")),
            ("launch", layer('2', "launch")),
            ("launch-build", layer('3', "launch build")),
        ];
        let restored =
            restored(&image, &[("cache", layer('4', "cache")), ("build-cache", layer('5', "build cache"))], None);
        assert_eq!(names(&restored.contents), ["both", "build-cache", "cache"]);
        assert_eq!(names(&restored.metadata), ["both", "build-cache", "cache", "launch"]);
        assert_eq!(names(&restored.reusable), ["both", "launch", "launch-build"]);
    }

    #[test]
    fn a_layer_that_is_not_in_the_store_is_not_restored_at_all() {
        let restored = restored(&[("both", layer('1', "launch cache"))], &[], Some('1'));
        assert_eq!(restored, Restored::default());
    }

    #[test]
    fn the_image_wins_over_the_cache_file() {
        let restored = restored(&[("both", layer('1', "launch cache"))], &[("both", layer('2', "launch cache"))], None);
        assert_eq!(restored.contents.values().collect::<Vec<_>>(), [&sha('1')]);
    }
}
