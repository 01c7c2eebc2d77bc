//! Buildpacks from elsewhere: fetched by whoever is given to the builder for that, unpacked with limits, and kept by what they
//! were when they were fetched.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use crate::errors::BuildError;
use crate::reference::Reference;
use crate::{Builder, blocking, unpack};

/// The longest that fetching one buildpack may take.
const FETCH_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How many fetched buildpacks are kept.
const KEPT: usize = 64;

/// The note of a fetched package which says what is in it.
pub(crate) const PACKAGE: &str = "package.json";

/// Name of an archive as it was fetched.
const ARCHIVE: &str = "archive";

/// Where the files of a reference are.
pub(crate) type Fetched = BTreeMap<Reference, PathBuf>;

/// Gets buildpacks from the network: the builder itself knows none. An error is a sentence without a dot at its end.
#[async_trait]
pub trait Fetch: std::fmt::Debug + Send + Sync {
    /// What the reference means at present, such as a commit or a digest; empty if only fetching tells. What not everybody may
    /// see means something else to whoever may not.
    async fn revision(&self, reference: &Reference) -> Result<String, String>;

    /// Whether there is something to show for it that not everybody has.
    async fn has_credentials(&self, reference: &Reference) -> Result<bool, String>;

    /// Fetches into the folder `target`, which is empty: the files of a git repository, an archive as the file `archive`, an image
    /// as an OCI layout.
    async fn fetch(&self, reference: &Reference, revision: &str, target: &Path) -> Result<(), String>;
}

/// Fetches nothing: for builds that only use what there is.
#[derive(Debug)]
pub struct NoFetch;

#[async_trait]
impl Fetch for NoFetch {
    async fn revision(&self, _: &Reference) -> Result<String, String> {
        Err("this platform fetches no buildpacks".to_owned())
    }

    async fn has_credentials(&self, _: &Reference) -> Result<bool, String> {
        Ok(false)
    }

    async fn fetch(&self, _: &Reference, _: &str, _: &Path) -> Result<(), String> {
        Err("this platform fetches no buildpacks".to_owned())
    }
}

impl Builder {
    /// Fetches those of the references that are elsewhere.
    pub(crate) async fn fetch_all(
        &self,
        fetch: &dyn Fetch,
        references: impl Iterator<Item = &Reference>,
    ) -> Result<Fetched, BuildError> {
        let mut fetched = Fetched::new();
        for reference in references {
            let is_here = matches!(reference, Reference::Installed { .. } | Reference::Folder(_));
            if is_here || fetched.contains_key(reference) {
                continue;
            }
            let failed = |problem: String| BuildError::NotFetched { buildpack: reference.to_string(), problem };
            let one = tokio::time::timeout(FETCH_LIMIT, self.fetch_one(fetch, reference)).await;
            let late = || failed(format!("it took longer than {} minutes", FETCH_LIMIT.as_secs() / 60));
            fetched.insert(reference.clone(), one.map_err(|_| late())?.map_err(failed)?);
        }
        Ok(fetched)
    }

    async fn fetch_one(&self, fetch: &dyn Fetch, reference: &Reference) -> Result<PathBuf, String> {
        let revision = fetch.revision(reference).await?;
        let folder = self.cache.join("buildpacks");
        let place = |revision: &str| {
            let key = format!("{reference:?}\n{revision}");
            folder.join(hex::encode(Sha256::digest(key)))
        };
        if !revision.is_empty() && place(&revision).is_dir() {
            return Ok(place(&revision));
        }
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        // Dropped when the build ends before it is there, and removed then.
        let staging = Staging::new(&folder).map_err(|error| error.to_string())?;
        fetch.fetch(reference, &revision, &staging.raw()).await?;
        let (reference, place_for) = (reference.clone(), place(&revision));
        let unpacked = blocking(move || {
            let (files, digest) = files(&reference, &staging)
                .map_err(|problem| BuildError::NotFetched { buildpack: reference.to_string(), problem })?;
            Ok((staging, files, digest))
        });
        let (_staging, files, digest) = unpacked.await.map_err(|error| match error {
            BuildError::NotFetched { problem, .. } => problem,
            other => other.to_string(),
        })?;
        let target = digest.map_or(place_for, |digest| place(&digest));
        match fs::rename(&files, &target) {
            Err(_) if target.is_dir() => {}
            result => result.map_err(|error| error.to_string())?,
        }
        prune(&folder);
        Ok(target)
    }
}

/// The folder with a buildpack's files, and the digest of the archive that they were in.
fn files(reference: &Reference, staging: &Staging) -> Result<(PathBuf, Option<String>), String> {
    let (raw, files) = (staging.raw(), staging.0.join("files"));
    match reference {
        Reference::Archive(url) => {
            let archive = raw.join(ARCHIVE);
            let digest = unpack::digest(&archive).map_err(|error| error.to_string())?;
            if url.split('?').next().is_some_and(|path| path.to_ascii_lowercase().ends_with(".cnb")) {
                let layout = staging.0.join("layout");
                unpack::tar(&archive, &layout).map_err(|error| error.to_string())?;
                unpack::package(&layout, &files).map_err(|error| error.to_string())?;
            } else {
                unpack::tar(&archive, &files).map_err(|error| error.to_string())?;
            }
            Ok((unpack::inner(files), Some(digest)))
        }
        Reference::Image(_) => {
            unpack::package(&raw, &files).map_err(|error| error.to_string())?;
            Ok((files, None))
        }
        _ => Ok((raw, None)),
    }
}

/// A folder for one fetch; removed when dropped.
struct Staging(PathBuf);

impl Staging {
    fn new(shelf: &Path) -> io::Result<Self> {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let staging = Self(shelf.join(format!("new-{number}")));
        // One of an earlier life, of which nobody knows any more.
        let _ = fs::remove_dir_all(&staging.0);
        fs::create_dir_all(staging.raw())?;
        Ok(staging)
    }

    fn raw(&self) -> PathBuf {
        self.0.join("raw")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Forgets the buildpacks that were fetched longest ago. A build that copies one at this very moment fails, and can be repeated.
fn prune(shelf: &Path) {
    let entries = shelf.read_dir().into_iter().flatten().flatten();
    let age = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
    let mut kept: Vec<_> =
        entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with("new-")).filter_map(age).collect();
    kept.sort();
    for (_, path) in kept.iter().take(kept.len().saturating_sub(KEPT)) {
        let _ = fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..KEPT + 2 {
            let path = dir.path().join(format!("{number:03}"));
            fs::create_dir(&path).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
        prune(dir.path());
        assert_eq!(dir.path().read_dir().unwrap().count(), KEPT);
        assert!(!dir.path().join("000").exists() && dir.path().join("002").exists());
    }
}
