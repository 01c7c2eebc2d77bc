//! Folders that outlive the containers that mount them: mere folders, or disks of a size, which can be copied.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::VolumeStatus;

use crate::disk::{self, Room};
use crate::error::Fault;
use crate::files::{make_private, names, sync_dir};

/// No name of a volume begins like these: what is on its way out, disks, and what is half made.
const REMOVED: &str = ".removed-";
const IMAGE: &str = ".image-";
const NEW: &str = ".new-";

/// All volumes of this machine, each a folder in one. What has a size is a disk that is mounted there, from its first use on.
#[derive(Clone)]
pub(crate) struct Volumes {
    root: PathBuf,
    /// Held while something is made, copied or replaced.
    turn: Arc<Mutex<()>>,
}

impl Volumes {
    /// The volumes in `root`. What an earlier life had begun to remove goes now, and what it held up goes on.
    pub(crate) fn open(root: PathBuf) -> Result<Self, Fault> {
        make_private(&root)?;
        for name in names(&root) {
            let path = root.join(&name);
            if name.starts_with(REMOVED) {
                remove_in_background(path);
            } else if name.starts_with(NEW) {
                fs::remove_file(&path).map_err(Fault::on("remove", &path))?;
            } else if root.join(format!("{IMAGE}{name}")).exists() {
                disk::thaw(&path);
            }
        }
        Ok(Self { root, turn: Arc::default() })
    }

    /// Where a volume is, whether it exists or not.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn image(&self, name: &str) -> PathBuf {
        self.root.join(format!("{IMAGE}{name}"))
    }

    /// The volumes that exist.
    pub(crate) fn list(&self) -> Vec<VolumeStatus> {
        let visible = names(&self.root).into_iter().filter(|name| !name.starts_with('.'));
        visible.map(|name| VolumeStatus { used: disk::taken(&self.image(&name)), name }).collect()
    }

    /// Makes a volume if it is missing, and `uid` its owner. Blocks.
    pub(crate) fn make(&self, name: &str, uid: u32) -> Result<(), Fault> {
        let _turn = self.take_turn();
        let path = self.path(name);
        make_private(&path)?;
        self.mount(name)?;
        let owner = fs::metadata(&path).map_err(Fault::on("read", &path))?.uid();
        if owner != uid {
            if self.image(name).exists() {
                give_all(&path, uid)?;
            } else {
                chown(&path, Some(uid), Some(uid)).map_err(Fault::on("change the owner of", &path))?;
            }
        }
        sync_dir(&self.root)
    }

    /// Makes a volume of a size if it is missing, and lets one that is smaller grow. False: it can only with [`Volumes::grow_at_rest`].
    /// Blocks.
    pub(crate) fn set_size(&self, name: &str, bytes: u64) -> Result<bool, Fault> {
        let _turn = self.take_turn();
        let image = self.image(name);
        let room = Room { bytes, files: bytes / 8192 };
        let Ok(before) = fs::metadata(&image) else {
            if self.path(name).exists() {
                return Err(Fault::Refused(format!("volume {name} has no size, and gets none")));
            }
            let fresh = self.root.join(format!("{NEW}{name}"));
            // With a journal: a power cut must not cost more than what was not synced.
            let journal = journal(bytes);
            disk::make_ext4(&fresh, (room, journal), &["-J", &format!("size={}", journal >> 20)])?;
            return self.take(&fresh, name).map(|()| true);
        };
        // The journal of one that grows stays as it was made.
        let wanted = room.with_tables() + journal(bytes);
        if wanted < before.len() {
            return Err(Fault::Refused(format!("volume {name} is larger, and cannot shrink")));
        }
        if disk::holds(&image)? >= wanted {
            return Ok(true);
        }
        let path = self.path(name);
        if !disk::is_mounted(&path) {
            return Ok(false);
        }
        // Where the platform runs without CAP_SYS_RESOURCE, as in some containers, the kernel lets no file system grow that is mounted.
        let grown = disk::grow_mounted(&image, &path, wanted);
        if let Err(fault) = &grown {
            tracing::info!(volume = name, error = %fault, "a volume cannot grow while it is in use");
        }
        Ok(grown.is_ok())
    }

    /// Lets a volume that nobody uses grow.
    pub(crate) fn grow_at_rest(&self, name: &str, bytes: u64) -> Result<(), Fault> {
        let _turn = self.take_turn();
        let room = Room { bytes, files: bytes / 8192 };
        disk::grow_unmounted(&self.image(name), &self.path(name), room.with_tables() + journal(bytes))
    }

    /// Copies what a volume is at this moment into a file, for [`Volumes::replace`]. `unique` was never passed before. Blocks.
    pub(crate) fn copy(&self, name: &str, unique: &str) -> Result<PathBuf, Fault> {
        let _turn = self.take_turn();
        let (path, image) = (self.path(name), self.image(name));
        let from = File::open(&image).map_err(|_| Fault::Refused(format!("volume {name} has no size")))?;
        let fresh = self.root.join(format!("{NEW}{unique}"));
        let copy = || {
            let to = File::create_new(&fresh).map_err(Fault::on("make", &fresh))?;
            let copied = disk::copy_sparse(&from, &to).and_then(|()| to.sync_all());
            copied.map_err(Fault::on("write", &fresh))
        };
        let copied = if disk::is_mounted(&path) { disk::at_rest(&path, copy) } else { copy() };
        if copied.is_err() {
            // What is left of it takes space for nothing.
            let _ = fs::remove_file(&fresh);
        }
        copied.map(|()| fresh)
    }

    /// Puts a copy in the place of a volume that nobody uses.
    pub(crate) fn replace(&self, name: &str, copy: &std::path::Path) -> Result<(), Fault> {
        let _turn = self.take_turn();
        disk::unmount(&self.path(name))?;
        self.take(copy, name)
    }

    /// Reads all that is in a volume: a process that writes it as a tar archive to its standard output.
    pub(crate) fn archive(&self, name: &str) -> Result<Child, Fault> {
        let _turn = self.take_turn();
        let path = self.path(name);
        if !path.exists() {
            return Err(Fault::Refused(format!("there is no volume {name}")));
        }
        self.mount(name)?;
        let mut tar = Command::new("tar");
        tar.args(["--create", "--numeric-owner", "--exclude=./lost+found", "--directory"]).arg(&path).arg(".");
        let child = tar.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        child.map_err(Fault::on("run", std::path::Path::new("tar")))
    }

    /// Takes a volume's name away for good; its contents go in the background, also if this role dies meanwhile. `unique` was
    /// never passed before. One that does not exist is no error.
    pub(crate) fn remove(&self, name: &str, unique: &str) -> Result<(), Fault> {
        let _turn = self.take_turn();
        disk::unmount(&self.path(name))?;
        // First what holds the data: a folder without it is an empty volume.
        for (path, kind) in [(self.image(name), "image"), (self.path(name), "folder")] {
            let doomed = self.root.join(format!("{REMOVED}{unique}-{kind}"));
            match fs::rename(&path, &doomed) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => {
                    renamed.map_err(Fault::on("remove", &path))?;
                    sync_dir(&self.root)?;
                    remove_in_background(doomed);
                }
            }
        }
        Ok(())
    }

    /// Takes all disks out of sight: this machine goes down, or the platform does.
    pub(crate) fn unmount_all(&self) -> Result<(), Fault> {
        let _turn = self.take_turn();
        let all = names(&self.root).into_iter().filter(|name| self.image(name).exists());
        all.map(|name| self.path(&name)).try_for_each(|path| disk::unmount(&path))
    }

    /// Mounts a volume that is a disk, if it is not. The caller has its turn.
    fn mount(&self, name: &str) -> Result<(), Fault> {
        let (path, image) = (self.path(name), self.image(name));
        if !image.exists() || disk::is_mounted(&path) {
            return Ok(());
        }
        let file = File::options().read(true).write(true).open(&image).map_err(Fault::on("open", &image))?;
        make_private(&path)?;
        disk::mount_image(&file, &path)
    }

    /// Makes a finished file the disk of a volume. The caller has its turn.
    fn take(&self, fresh: &std::path::Path, name: &str) -> Result<(), Fault> {
        fs::rename(fresh, self.image(name)).map_err(Fault::on("rename", fresh))?;
        make_private(&self.path(name))?;
        sync_dir(&self.root)
    }

    fn take_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes `uid` the owner of all that is in a disk: it may have been another app's. What is at the top comes last, so that whoever is cut
/// short begins again.
fn give_all(path: &std::path::Path, uid: u32) -> Result<(), Fault> {
    let mut program = Command::new("chown");
    program.args(["--recursive", "--no-dereference", &format!("{uid}:{uid}")]).arg(path).stdin(Stdio::null());
    let done = program.output().map_err(Fault::on("run", std::path::Path::new("chown")))?;
    if done.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(Fault::Refused(format!("cannot change the owner of what is in {}: {reason}", path.display())))
}

/// Bytes of the journal of a volume of a size.
fn journal(bytes: u64) -> u64 {
    ((bytes >> 26).clamp(4, 64)) << 20
}

fn remove_in_background(path: PathBuf) {
    tokio::task::spawn_blocking(move || {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed {
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
        assert!(volumes.set_size("data", 1 << 24).is_err() && volumes.copy("data", "3").is_err(), "it has no size");
        volumes.remove("data", "1").expect("removed");
        volumes.remove("data", "2").expect("removing again is no error");
        assert!(!volumes.path("data").exists());
    }

    #[tokio::test]
    async fn a_disk_is_mounted_again_and_can_be_written_after_a_copy_that_was_cut_short() {
        let root = tempfile::tempdir().expect("a folder");
        let open = || Volumes::open(root.path().join("volumes")).expect("volumes");
        let volumes = open();
        volumes.set_size("data", 16 << 20).expect("made");
        volumes.make("data", 100_007).expect("mounted");
        let file = volumes.path("data").join("file");
        fs::write(&file, "kept").expect("written");
        // A life that ends in the middle of a copy.
        disk::freeze_for_tests(&volumes.path("data"));
        let volumes = open();
        fs::write(&file, "kept again").expect("nobody waits for ever");
        volumes.unmount_all().expect("unmounted");
        assert!(!file.exists());
        volumes.make("data", 100_007).expect("mounted again");
        assert_eq!(fs::read_to_string(&file).expect("a file"), "kept again");
        // Another app's: what is in it is that one's, too, and a link leads nowhere else.
        std::os::unix::fs::symlink("/etc/hostname", volumes.path("data").join("link")).expect("linked");
        let host = fs::metadata("/etc/hostname").expect("it is there").uid();
        volumes.make("data", 100_008).expect("given");
        let owner = |name: &str| fs::symlink_metadata(volumes.path("data").join(name)).expect("it is there").uid();
        assert_eq!((owner(""), owner("file"), owner("link")), (100_008, 100_008, 100_008));
        assert_eq!(fs::metadata("/etc/hostname").expect("it is there").uid(), host);
        if !volumes.set_size("data", 48 << 20).expect("asked for") {
            volumes.grow_at_rest("data", 48 << 20).expect("grown");
            volumes.make("data", 100_008).expect("mounted again");
        }
        let space = nix::sys::statvfs::statvfs(&volumes.path("data")).expect("measured");
        assert!(space.blocks() * space.fragment_size() > 40 << 20, "{space:?}");
        assert!(volumes.set_size("data", 48 << 20).expect("the same again"));
        assert!(volumes.set_size("data", 16 << 20).is_err(), "it never shrinks");
        assert_eq!(fs::read_to_string(&file).expect("a file"), "kept again");
        volumes.remove("data", "1").expect("removed");
        assert!(volumes.list().is_empty() && !disk::is_mounted(&volumes.path("data")));
    }
}
