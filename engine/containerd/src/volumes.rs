//! Folders that outlive the containers that mount them.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

use crate::error::Fault;
use crate::files::{make_private, names, sync_dir};

/// No name of a volume begins like this.
const REMOVED: &str = ".removed-";

/// All volumes of this machine, each a folder in one.
pub(crate) struct Volumes {
    root: PathBuf,
}

impl Volumes {
    /// The volumes in `root`. What an earlier life had begun to remove goes now.
    pub(crate) fn open(root: PathBuf) -> Result<Self, Fault> {
        make_private(&root)?;
        for name in names(&root).into_iter().filter(|name| name.starts_with(REMOVED)) {
            remove_in_background(root.join(name));
        }
        Ok(Self { root })
    }

    /// Where a volume is, whether it exists or not.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a volume if it is missing, and `uid` its owner.
    pub(crate) fn make(&self, name: &str, uid: u32) -> Result<(), Fault> {
        let path = self.path(name);
        make_private(&path)?;
        let owner = fs::metadata(&path).map_err(Fault::on("read", &path))?.uid();
        if owner != uid {
            chown(&path, Some(uid), Some(uid)).map_err(Fault::on("change the owner of", &path))?;
        }
        sync_dir(&self.root)
    }

    /// Takes a volume's name away for good; its contents go in the background, also if this role dies meanwhile. `unique` was
    /// never passed before. One that does not exist is no error.
    pub(crate) fn remove(&self, name: &str, unique: &str) -> Result<(), Fault> {
        let (path, doomed) = (self.path(name), self.root.join(format!("{REMOVED}{unique}")));
        match fs::rename(&path, &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(Fault::on("remove", &path))?,
        }
        sync_dir(&self.root)?;
        remove_in_background(doomed);
        Ok(())
    }
}

fn remove_in_background(path: PathBuf) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(volume.path = %path.display(), error = %error, "a removed volume still takes space");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_volume_is_its_owners_and_goes_as_a_whole() {
        let root = tempfile::tempdir().expect("a folder");
        let volumes = Volumes::open(root.path().join("volumes")).expect("volumes");
        volumes.make("data", 100_007).expect("made");
        fs::write(volumes.path("data").join("file"), "kept").expect("written");
        volumes.make("data", 100_007).expect("made again");
        let meta = fs::metadata(volumes.path("data")).expect("it exists");
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (100_007, 100_007, 0o700));
        assert_eq!(fs::read_to_string(volumes.path("data").join("file")).expect("a file"), "kept");
        volumes.remove("data", "1").expect("removed");
        volumes.remove("data", "2").expect("removing again is no error");
        assert!(!volumes.path("data").exists());
    }
}
