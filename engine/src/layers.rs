//! The layer store: every layer is an immutable directory named by its diffID.

use std::path::{Path, PathBuf};

use model::Digest;

/// Why a layer could not be kept or found.
#[derive(Debug, thiserror::Error)]
#[error("layer store: cannot {action} {path}")]
pub struct LayerError {
    /// `make`, `rename`, …
    pub action: &'static str,
    /// What it was done to.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

/// A directory of layers. Layers are written beside their place, synced, and renamed into it, so that what has a name is whole.
#[derive(Debug, Clone)]
pub struct LayerStore {
    root: PathBuf,
}

impl LayerStore {
    /// A store in `root`, which is made if it is missing.
    pub fn open(root: &Path) -> Result<Self, LayerError> {
        let store = Self { root: root.to_owned() };
        std::fs::create_dir_all(store.staging()).map_err(|source| LayerError {
            action: "make",
            path: store.staging(),
            source,
        })?;
        Ok(store)
    }

    /// Where the layer's content is, whether it exists or not. Its tree starts at the container's root: `<path>/usr/bin/env`.
    pub fn path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join(diff_id.hex())
    }

    /// Whether the layer is here.
    pub fn contains(&self, diff_id: &Digest) -> bool {
        self.path(diff_id).is_dir()
    }

    /// A directory on the store's file system in which new layers are made; its contents are rubbish after a restart.
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Takes over the finished tree at `tree` (on this file system) as the layer `diff_id`. If the layer is here already,
    /// `tree` is left for the caller to remove.
    pub fn insert(&self, diff_id: &Digest, tree: &Path) -> Result<(), LayerError> {
        let path = self.path(diff_id);
        match std::fs::rename(tree, &path) {
            Err(_) if path.is_dir() => Ok(()),
            result => result.map_err(|source| LayerError { action: "rename a new layer to", path, source }),
        }
    }
}
