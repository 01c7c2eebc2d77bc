//! The layer store: every layer is an immutable directory named by its diffID.

use std::path::{Path, PathBuf};
use std::time::Duration;

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
            Err(_) if path.is_dir() => {}
            result => {
                result.map_err(|source| LayerError { action: "rename a new layer to", path: path.clone(), source })?;
            }
        }
        // Also if it was here before: whoever inserts it is about to refer to it.
        self.touch(diff_id)
    }

    /// Makes the layer's age count from now.
    pub fn touch(&self, diff_id: &Digest) -> Result<(), LayerError> {
        let path = self.path(diff_id);
        let touch = || {
            let now = nix::sys::time::TimeSpec::UTIME_NOW;
            nix::sys::stat::futimens(std::fs::File::open(&path)?, &now, &now).map_err(std::io::Error::from)
        };
        touch().map_err(|source| LayerError { action: "touch", path: path.clone(), source })
    }

    /// Makes the names of all layers inserted so far durable.
    pub fn sync(&self) -> Result<(), LayerError> {
        let synced = std::fs::File::open(&self.root).and_then(|root| root.sync_all());
        synced.map_err(|source| LayerError { action: "sync", path: self.root.clone(), source })
    }

    /// Every layer, and how long ago it was last inserted.
    pub fn list(&self) -> Result<Vec<(Digest, Duration)>, LayerError> {
        let trouble = |source| LayerError { action: "list", path: self.root.clone(), source };
        let mut layers = Vec::new();
        for entry in self.root.read_dir().map_err(trouble)? {
            let entry = entry.map_err(trouble)?;
            let name = entry.file_name();
            if let Ok(digest) = format!("sha256:{}", name.to_string_lossy()).parse::<Digest>() {
                let modified = entry.metadata().and_then(|metadata| metadata.modified()).map_err(trouble)?;
                layers.push((digest, modified.elapsed().unwrap_or_default()));
            }
        }
        Ok(layers)
    }

    /// Removes a layer. It loses its name first, so that no half of it can be taken for the whole.
    pub fn remove(&self, diff_id: &Digest) -> Result<(), LayerError> {
        let (path, doomed) = (self.path(diff_id), self.staging().join(format!("removed-{}", diff_id.hex())));
        let removed = std::fs::rename(&path, &doomed).and_then(|()| std::fs::remove_dir_all(&doomed));
        removed.map_err(|source| LayerError { action: "remove", path, source })
    }

    /// Removes everything in [`LayerStore::staging`]: at a start, before anything is staged anew.
    pub fn clear_staging(&self) -> Result<(), LayerError> {
        let trouble = |source| LayerError { action: "clear", path: self.staging(), source };
        for entry in self.staging().read_dir().map_err(trouble)? {
            let path = entry.map_err(trouble)?.path();
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match removed {
                // Whoever is being ended may still clear up behind itself.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.map_err(trouble)?,
            }
        }
        Ok(())
    }
}
