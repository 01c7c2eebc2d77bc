//! Disks of a given size: each is an ext4 file system in a sparse file, mounted through a loop device. So the kernel counts its bytes and
//! its files whatever it lies on, what it gives back is given back below, and it goes as fast as one file does.
//!
//! A mount outlives this role. Whoever removes a disk calls [`unmount`] first, also on what another life of this role left half made; the
//! loop device goes by itself with its last user.

mod loops;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::Limits;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::minor;
use nix::sys::statvfs::statvfs;
use rustix::fs::{SeekFrom, copy_file_range, seek};

use crate::error::Fault;
use crate::files::make_private;

/// What the tables of ext4 take for one file.
const INODE: u64 = 256;
/// Files that every file system has: its root among them.
const OWN_FILES: u64 = 16;
/// How often a loop device is looked at that is about to go.
const LEAVING: u32 = 40;
/// Names those that are being made.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// How much a disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) bytes: u64,
    /// Files and folders.
    pub(crate) files: u64,
}

impl Room {
    /// What a container's writable layer may hold, if anything limits it. `home` is on the disk that limits the rest.
    pub(crate) fn of(limits: &Limits, home: &Path) -> Result<Option<Self>, Fault> {
        Ok(match (limits.disk_bytes, limits.files) {
            (None, None) => None,
            (Some(bytes), files) => Some(Self { bytes, files: files.unwrap_or(bytes / 8192) }),
            (None, Some(files)) => Some(Self { bytes: size_below(home)?, files }),
        })
    }

    /// Bytes of a file that holds as much, with what ext4 takes for itself.
    pub(crate) fn with_tables(self) -> u64 {
        let (block, reserve) = (4096, (self.bytes / 45).min(16 << 20));
        let size = self.bytes + (self.files + OWN_FILES) * INODE + self.bytes / 8192 + reserve + (1 << 20);
        size.div_ceil(block) * block
    }
}

/// Bytes of the disk on which `path` is.
pub(crate) fn size_below(path: &Path) -> Result<u64, Fault> {
    let stats = statvfs(path).map_err(|errno| Fault::on("measure", path)(errno.into()))?;
    #[expect(clippy::useless_conversion, reason = "u64 here, narrower elsewhere")]
    Ok(u64::from(stats.blocks()).saturating_mul(u64::from(stats.fragment_size())))
}

/// Bytes that a sparse file takes below, if it is there.
pub(crate) fn taken(image: &Path) -> Option<u64> {
    fs::metadata(image).ok().map(|image| image.blocks() * 512)
}

/// Empty disks to copy: that takes a fraction of the time in which one is made.
#[derive(Debug, Clone)]
pub(crate) struct Blanks {
    dir: PathBuf,
}

impl Blanks {
    /// Blanks in `dir`. Those of an earlier life are made anew, by the programs of today.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, Fault> {
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Fault::on("remove", &dir)(error)),
            _ => {}
        }
        make_private(&dir)?;
        Ok(Self { dir })
    }

    /// Makes an empty disk in the file `image` and mounts it `at` a folder. Its contents are lost with a power cut. Blocks.
    pub(crate) fn mount_new(&self, image: &Path, at: &Path, room: Room) -> Result<(), Fault> {
        let blank = self.blank(room)?;
        let file = File::options().read(true).write(true).create_new(true).open(image);
        let file = file.map_err(Fault::on("make", image))?;
        copy_sparse(&blank, &file).map_err(Fault::on("write", image))?;
        mount_image(&file, at)
    }

    fn blank(&self, room: Room) -> Result<File, Fault> {
        let path = self.dir.join(format!("{}-{}", room.bytes, room.files));
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map_err(Fault::on("open", &path)),
        }
        let fresh = self.dir.join(format!("new-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        // It is not worth a journal: what lies on it does not outlive a reboot.
        make_ext4(&fresh, (room, 0), &["-O", "^has_journal,^resize_inode"])?;
        let file = File::open(&fresh).map_err(Fault::on("open", &fresh))?;
        fs::rename(&fresh, &path).map_err(Fault::on("rename", &fresh))?;
        Ok(file)
    }
}

/// Makes a file system with `room`, and so many bytes more for what the options ask for, in a new file.
pub(crate) fn make_ext4(image: &Path, (room, more): (Room, u64), options: &[&str]) -> Result<(), Fault> {
    let file = File::create_new(image).and_then(|file| file.set_len(room.with_tables() + more));
    file.map_err(Fault::on("make", image))?;
    let files = (room.files + OWN_FILES).to_string();
    let mut program = Command::new("mkfs.ext4");
    program.args(["-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-e", "remount-ro", "-N", &files]);
    let made = program.args(options).arg(image).stdin(Stdio::null()).output();
    let made =
        made.map_err(|error| Fault::Refused(format!("cannot run mkfs.ext4, of the package e2fsprogs: {error}")))?;
    if made.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&made.stderr).trim().to_owned();
    Err(Fault::Refused(format!("cannot make a file system in {}: {reason}", image.display())))
}

/// Bytes of the file system in a file, as its superblock has them (ext4, `s_blocks_count`).
pub(crate) fn holds(image: &Path) -> Result<u64, Fault> {
    let mut counts = [0; 8];
    let file = File::open(image).map_err(Fault::on("open", image))?;
    let read = file
        .read_exact_at(&mut counts[..4], 1024 + 4)
        .and_then(|()| file.read_exact_at(&mut counts[4..], 1024 + 0x150));
    read.map_err(Fault::on("read", image))?;
    Ok(u64::from_le_bytes(counts).saturating_mul(4096))
}

/// Lets a disk that is mounted `at` a folder hold more: first its file, then the device, then the file system. Whoever is cut short does it
/// again, and what was done is nothing to do any more.
pub(crate) fn grow_mounted(image: &Path, at: &Path, bytes: u64) -> Result<(), Fault> {
    enlarge(image, bytes)?;
    let device = device_of(at)?;
    loops::enlarge(&device).map_err(Fault::on("enlarge", &device))?;
    resize(&device, &[])
}

/// The same for a disk that nobody uses. It is not mounted afterwards.
pub(crate) fn grow_unmounted(image: &Path, at: &Path, bytes: u64) -> Result<(), Fault> {
    // Not as `unmount` does it: whoever still reads it would see it change.
    match umount2(at, MntFlags::empty()) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(errno) => return Err(Fault::on("unmount", at)(errno.into())),
    }
    for _ in 0..LEAVING {
        if !loops::shows(image).map_err(Fault::on("look for loop devices of", image))? {
            enlarge(image, bytes)?;
            // It was unmounted cleanly, so that it need not be checked first.
            return resize(image, &["-f"]);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(Fault::Refused(format!("{} is still in use", image.display())))
}

fn enlarge(image: &Path, bytes: u64) -> Result<(), Fault> {
    let file = File::options().write(true).open(image);
    file.and_then(|file| file.set_len(bytes)).map_err(Fault::on("enlarge", image))
}

/// Makes the file system in a file or device as large as that.
fn resize(place: &Path, options: &[&str]) -> Result<(), Fault> {
    let done = Command::new("resize2fs").args(options).arg(place).stdin(Stdio::null()).output();
    let done =
        done.map_err(|error| Fault::Refused(format!("cannot run resize2fs, of the package e2fsprogs: {error}")))?;
    if done.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(Fault::Refused(format!("cannot enlarge the file system in {}: {reason}", place.display())))
}

/// The loop device of the disk that is mounted `at` a folder.
fn device_of(at: &Path) -> Result<PathBuf, Fault> {
    let number = fs::metadata(at).map_err(Fault::on("read", at))?.dev();
    // A device and a part of it have numbers of their own; what is mounted here is never a part.
    Ok(PathBuf::from(format!("/dev/loop{}", minor(number))))
}

/// Mounts the file system in a file.
pub(crate) fn mount_image(image: &File, at: &Path) -> Result<(), Fault> {
    let no_device = |error: io::Error| {
        Fault::Refused(format!(
            "cannot attach a loop device, which a limited disk needs (kernel module `loop`): {error}"
        ))
    };
    let device = loops::attach(image).map_err(no_device)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // What is deleted is given back below; and no thread of the kernel fills tables that nobody uses.
    let mounted = mount(Some(&device.path), at, Some("ext4"), flags, Some("discard,noinit_itable"));
    mounted.map_err(|errno| Fault::on("mount a disk at", at)(errno.into()))
}

/// Does something while nothing is written to what is mounted `at` a folder, all of which is on the disk then. Blocks.
pub(crate) fn at_rest<T>(at: &Path, action: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let folder = File::open(at).map_err(Fault::on("open", at))?;
    loops::freeze(&folder).map_err(Fault::on("freeze", at))?;
    let result = action();
    loops::thaw(&folder).map_err(Fault::on("thaw", at))?;
    result
}

/// Lets be written again, where an earlier life of this role did not come so far.
pub(crate) fn thaw(at: &Path) {
    // Where nothing is at rest, that is an error that means nothing.
    let _ = File::open(at).and_then(|folder| loops::thaw(&folder));
}

/// Whether something is mounted `at` a folder.
pub(crate) fn is_mounted(at: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut targets = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    targets.any(|target| Path::new(target) == at)
}

/// Takes a disk out of sight. It goes once nobody uses it any more. Where none is mounted, that is no error. Blocks.
pub(crate) fn unmount(at: &Path) -> Result<(), Fault> {
    match umount2(at, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(errno) => Err(Fault::on("unmount", at)(errno.into())),
    }
}

/// Makes `to` the same as `from`, and leaves out what `from` has no blocks for.
pub(crate) fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut end = 0;
    loop {
        let mut at = match seek(from, SeekFrom::Data(end)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        end = seek(from, SeekFrom::Hole(at))?;
        let mut written = at;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX);
            if copy_file_range(from, Some(&mut at), to, Some(&mut written), length)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Holds up whoever writes there, as a life of this role does that ends in the middle of a copy.
#[cfg(test)]
pub(crate) fn freeze_for_tests(at: &Path) {
    loops::freeze(&File::open(at).expect("a folder")).expect("frozen");
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_disk_holds_what_it_promises_and_no_more() {
        let dir = tempfile::tempdir().expect("a folder");
        let blanks = Blanks::open(dir.path().join("blank")).expect("blanks");
        let rooms = [(8 << 20, 100), (1 << 30, 100_000), (64 << 30, 1_000_000)];
        for (number, (bytes, files)) in rooms.into_iter().enumerate() {
            let (image, at) = (dir.path().join(format!("image{number}")), dir.path().join(format!("disk{number}")));
            fs::create_dir(&at).expect("a folder");
            blanks.mount_new(&image, &at, Room { bytes, files }).expect("mounted");
            let stats = statvfs(&at).expect("measured");
            let (free, free_files) = (stats.blocks_available() * stats.fragment_size(), stats.files_available());
            let taken = taken(&image).expect("an image");
            unmount(&at).expect("unmounted");
            assert!(free >= bytes && free <= bytes + bytes / 50 + (2 << 20), "{free} of {bytes} bytes");
            assert!(free_files >= files && free_files <= files + files / 50 + 1024, "{free_files} of {files} files");
            assert!(taken < 2 << 20, "an empty one takes {taken} bytes");
            unmount(&at).expect("unmounting again is no error");
        }
    }
}
