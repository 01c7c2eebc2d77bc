//! The layers of an image from elsewhere, laid over each other into one tree as a container would see them: all of it one user's, or
//! as one layer over another image, with all that this hides of it.
//!
//! Names are looked up as if the tree were the root of the file system, links included: nothing in a layer leads out of it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use engine::NESTED_IDS;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, mknod};
use tar::Entry;

use crate::tree::make_dir;
use crate::unpack::{self, MAX_ENTRIES, UnpackError, is_inside};

/// Begins the name of an entry that takes one of a lower layer away (OCI image spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Takes everything away that lower layers have in the folder.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Whose the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// All are this user's.
    Everything(u32),
    /// Each is whose the archive says, but what is `from`'s there is `to`'s here.
    AsSaid { from: u32, to: u32 },
}

/// A tree in the making.
pub(crate) struct Flat {
    root: File,
    owner: Owner,
    limit_bytes: u64,
    /// Bytes and entries that may still come.
    bytes: u64,
    entries: usize,
    /// Whether nothing lies under the next layer.
    is_base: bool,
    /// What lies under the first one.
    below: Option<Below>,
}

/// The image that a tree is to lie over.
struct Below {
    /// Its layers' trees, the lowest first.
    layers: Vec<PathBuf>,
    /// Paths at which nothing of it shows.
    hidden: BTreeSet<PathBuf>,
}

/// A name in a folder that is open.
struct Place {
    /// Stays open as long as its path is used.
    _folder: File,
    /// By way of the open folder, whatever its path leads through.
    path: PathBuf,
}

impl Flat {
    /// An empty tree in a new folder.
    pub(crate) fn make(root: &Path, owner: Owner, limit_bytes: u64) -> io::Result<Self> {
        make_dir(root, 0o755)?;
        let uid = owner.of(0);
        lchown(root, Some(uid), Some(uid))?;
        let root = File::open(root)?;
        Ok(Self { root, owner, limit_bytes, bytes: limit_bytes, entries: MAX_ENTRIES, is_base: true, below: None })
    }

    /// An empty tree that is to lie over these, the lowest first. [`Flat::settle`] ends it.
    pub(crate) fn over(root: &Path, owner: Owner, limit_bytes: u64, layers: Vec<PathBuf>) -> io::Result<Self> {
        let below = Some(Below { layers, hidden: BTreeSet::new() });
        Ok(Self { is_base: false, below, ..Self::make(root, owner, limit_bytes)? })
    }

    /// Ends a tree: takes out what is at `left_out`, and marks all that the rest hides of what lies below, as overlayfs does, and
    /// nothing else.
    pub(crate) fn settle(self, left_out: &[&str]) -> io::Result<()> {
        for path in left_out.iter().map(Path::new) {
            if let Some(found) = plain(&way(&self.root), path) {
                remove(&found)?;
            }
        }
        let Some(below) = &self.below else { return Ok(()) };
        for path in &below.hidden {
            if !left_out.iter().any(|left| path.starts_with(left)) {
                self.hide(&below.layers, path)?;
            }
        }
        Ok(())
    }

    /// Nothing of `layers` may show at `path` but through what the tree has there: a file hides everything, a folder only what it
    /// has itself.
    fn hide(&self, layers: &[PathBuf], path: &Path) -> io::Result<()> {
        let there = layers.iter().filter_map(|layer| plain(layer, path)).collect::<Vec<_>>();
        // Under what is no folder any more nothing shows anyway.
        let is_folder =
            |path: &Path| fs::symlink_metadata(way(&self.root).join(path)).map_or(true, |found| found.is_dir());
        if there.is_empty() || path.as_os_str().is_empty() || !path.ancestors().skip(1).all(is_folder) {
            return Ok(());
        }
        let Some(place) = self.place(path)? else { return Ok(()) };
        match fs::symlink_metadata(&place.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                mknod(&place.path, SFlag::S_IFCHR, Mode::empty(), 0).map_err(io::Error::from)
            }
            Ok(ours) if ours.is_dir() => {
                let mut names = BTreeSet::new();
                for folder in there.iter().filter(|folder| folder.is_dir()) {
                    for entry in folder.read_dir()? {
                        names.insert(entry?.file_name());
                    }
                }
                names.iter().try_for_each(|name| self.hide(layers, &path.join(name)))
            }
            found => found.map(drop),
        }
    }

    /// What is at this path now hides what is below.
    fn replace(&mut self, path: &Path) {
        if let Some(below) = &mut self.below {
            below.hidden.insert(path.to_owned());
        }
    }

    /// Lays the layer of an archive over what is there.
    pub(crate) fn add(&mut self, archive: &Path) -> Result<(), UnpackError> {
        let limit = self.limit_bytes;
        if !std::mem::take(&mut self.is_base) {
            // Before anything else: what a layer takes away is in lower ones only, wherever in the archive it says so.
            for entry in unpack::open(archive, limit)?.entries()? {
                self.take_away(&relative(&entry?)?)?;
            }
        }
        for entry in unpack::open(archive, limit)?.entries()? {
            let mut entry = entry?;
            let path = relative(&entry)?;
            self.bytes = self.bytes.checked_sub(entry.size()).ok_or(UnpackError::TooLarge(limit))?;
            self.entries = self.entries.checked_sub(1).ok_or(UnpackError::TooMany)?;
            self.write(&mut entry, &path)?;
        }
        Ok(())
    }

    /// The image's file of this path, if it is one that can be run.
    pub(crate) fn has_program(&self, path: &str) -> bool {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let found = openat2(&self.root, path, how).map(File::from).map_err(io::Error::from);
        found.and_then(|file| file.metadata()).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    }

    fn take_away(&mut self, path: &Path) -> io::Result<()> {
        let Some(name) = path.file_name().map(OsStr::as_bytes).filter(|name| name.starts_with(WHITEOUT)) else {
            return Ok(());
        };
        let hidden = &name[WHITEOUT.len()..];
        // Others that begin so are notes of the tools that made the layer, and `.` and `..` nothing that could be taken away.
        let is_name = !hidden.is_empty() && hidden != b"." && hidden != b".." && !hidden.starts_with(WHITEOUT);
        let parent = path.parent().unwrap_or(Path::new(""));
        if is_name {
            self.replace(&parent.join(OsStr::from_bytes(hidden)));
        } else if name == OPAQUE {
            self.replace(parent);
        }
        let folder = match self.open(parent) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            opened => opened?,
        };
        if name == OPAQUE {
            for entry in way(&folder).read_dir()? {
                remove(&way(&folder).join(entry?.file_name()))?;
            }
            return Ok(());
        }
        if is_name { remove(&way(&folder).join(OsStr::from_bytes(hidden))) } else { Ok(()) }
    }

    fn write(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<(), UnpackError> {
        let (kind, mode) = (entry.header().entry_type(), entry.header().mode().unwrap_or(0o644) & 0o1777);
        let is_file = kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse();
        let is_whiteout = path.file_name().is_some_and(|name| name.as_bytes().starts_with(WHITEOUT));
        // Devices and pipes: a container has its own.
        if is_whiteout || !(is_file || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()) {
            return Ok(());
        }
        // The root itself is ours.
        let Some(place) = self.place(path)? else { return Ok(()) };
        let there = fs::symlink_metadata(&place.path).ok();
        if there.is_some_and(|there| !(there.is_dir() && kind.is_dir())) {
            remove(&place.path)?;
            // A file in place of a folder of an earlier layer, or the other way round: what is below goes with it.
            self.replace(path);
        }
        let owners = (entry.header().uid().unwrap_or(0), entry.header().gid().unwrap_or(0));
        let (uid, gid) = (self.owner.of(owners.0), self.owner.of(owners.1));
        if kind.is_dir() {
            make_folder(&place, mode, (uid, gid))?;
        } else if kind.is_symlink() {
            let target = entry.link_name()?.unwrap_or_default();
            symlink(target, &place.path)?;
            lchown(&place.path, Some(uid), Some(gid))?;
        } else if kind.is_hard_link() {
            let target = inside(&entry.link_name()?.unwrap_or_default())?;
            let target = self.place(&target)?.ok_or(UnpackError::Outside(target))?;
            fs::hard_link(&target.path, &place.path)?;
        } else {
            let mut file = File::options().write(true).create_new(true).open(&place.path)?;
            io::copy(entry, &mut file)?;
            lchown(&place.path, Some(uid), Some(gid))?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            // What was compiled from a file remembers its time.
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(entry.header().mtime().unwrap_or(0)))?;
        }
        Ok(())
    }

    /// Where a path is; folders on the way are made. None for the root.
    fn place(&self, path: &Path) -> io::Result<Option<Place>> {
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return Ok(None) };
        let folder = match self.open(parent) {
            Err(Errno::ENOENT) => {
                if let Some(place) = self.place(parent)? {
                    make_folder(&place, 0o755, (self.owner.of(0), self.owner.of(0)))?;
                }
                self.open(parent)?
            }
            opened => opened?,
        };
        Ok(Some(Place { path: way(&folder).join(name), _folder: folder }))
    }

    fn open(&self, folder: &Path) -> Result<File, Errno> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat2(&self.root, folder, OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT)).map(File::from)
    }
}

fn make_folder(place: &Place, mode: u32, (uid, gid): (u32, u32)) -> io::Result<()> {
    match fs::create_dir(&place.path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    lchown(&place.path, Some(uid), Some(gid))?;
    fs::set_permissions(&place.path, fs::Permissions::from_mode(mode))
}

impl Owner {
    /// Whose is what an archive says to be `id`'s. What no container can have said is root's.
    fn of(self, id: u64) -> u32 {
        match self {
            Self::Everything(uid) => uid,
            Self::AsSaid { from, to } if id == u64::from(from) => to,
            Self::AsSaid { .. } => u32::try_from(id).ok().filter(|id| *id < NESTED_IDS).unwrap_or(0),
        }
    }
}

/// What a layer has at this path, if no link is on the way to it.
fn plain(layer: &Path, path: &Path) -> Option<PathBuf> {
    // The tree itself may be known by way of an open folder, which is a link.
    let mut place = layer.join("");
    for part in path {
        if !fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir()) {
            return None;
        }
        place.push(part);
    }
    fs::symlink_metadata(&place).is_ok().then_some(place)
}

/// The path of an entry from the root.
fn relative(entry: &Entry<'_, impl Read>) -> Result<PathBuf, UnpackError> {
    inside(&entry.path()?)
}

fn inside(path: &Path) -> Result<PathBuf, UnpackError> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    if is_inside(relative) { Ok(relative.components().collect()) } else { Err(UnpackError::Outside(path.to_owned())) }
}

/// A path that means an open folder.
fn way(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

/// Removes what has this name; nothing if there is nothing.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Overlay, listing, tar_of};
    use tar::EntryType::{self, Char, Directory, Link, Regular, Symlink};

    /// The tree of these layers, or why there is none.
    fn flat(layers: &[&[(&str, EntryType, &str)]]) -> Result<tempfile::TempDir, String> {
        let dir = tempfile::tempdir().unwrap();
        let mut flat = Flat::make(&dir.path().join("tree"), Owner::Everything(100_009), 1000).unwrap();
        fs::write(dir.path().join("outside"), "of the machine").unwrap();
        for layer in layers {
            fs::write(dir.path().join("layer"), tar_of(layer)).unwrap();
            flat.add(&dir.path().join("layer")).map_err(|error| error.to_string())?;
        }
        assert_eq!(fs::read_to_string(dir.path().join("outside")).unwrap(), "of the machine");
        Ok(dir)
    }

    fn tree(layers: &[&[(&str, EntryType, &str)]]) -> String {
        listing(&flat(layers).unwrap().path().join("tree"))
    }

    #[test]
    fn an_upper_layer_adds_replaces_and_takes_away() {
        let base: &[_] = &[
            ("keep/old", Regular, "1"),
            ("keep/gone", Regular, "1"),
            ("replaced/old", Regular, "1"),
            ("file", Regular, "1"),
            ("becomes-file/x", Regular, "1"),
        ];
        let upper: &[_] = &[
            ("keep/.wh.gone", Regular, ""),
            ("replaced/new", Regular, "2"),
            ("replaced/.wh..wh..opq", Regular, ""),
            ("file", Directory, ""),
            ("file/in", Regular, "2"),
            ("becomes-file", Regular, "2"),
            (".wh.nothing", Regular, ""),
        ];
        insta::assert_snapshot!(tree(&[base, upper]), @"
        becomes-file 2
        file /
        file/in 2
        keep /
        keep/old 1
        replaced /
        replaced/new 2
        ");
    }

    #[test]
    fn what_lies_over_an_image_hides_what_it_took_away_of_it_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        for file in
            ["etc/gone", "etc/kept", "opaque/old", "opaque/both", "opaque/sub/old", "to-file/x", "again/old", "tmp/x"]
        {
            fs::create_dir_all(below.join(file).parent().unwrap()).unwrap();
            fs::write(below.join(file), "below").unwrap();
        }
        let owner = Owner::AsSaid { from: 1000, to: 100_009 };
        let layers = vec![below.clone()];
        let mut flat = Flat::over(&dir.path().join("tree"), owner, 1000, layers).unwrap();
        let first: &[_] = &[
            ("etc/.wh.gone", Regular, ""),
            ("etc/.wh.never", Regular, ""),
            ("etc/new", Regular, "1"),
            ("opaque/.wh..wh..opq", Regular, ""),
            ("opaque/both", Regular, "1"),
            ("opaque/sub", Directory, ""),
            ("opaque/sub/new", Regular, "1"),
            ("to-file", Regular, "1"),
            ("again", Regular, "1"),
            ("made", Regular, "1"),
            ("tmp/.wh.x", Regular, ""),
            ("etc/hosts", Regular, "1"),
        ];
        let second: &[_] = &[
            ("again", Directory, ""),
            ("again/new", Regular, "2"),
            (".wh.made", Regular, ""),
            ("etc/gone", Regular, "2"),
        ];
        for (name, layer) in [("first", first), ("second", second)] {
            fs::write(dir.path().join(name), tar_of(layer)).unwrap();
            flat.add(&dir.path().join(name)).unwrap();
        }
        flat.settle(&["tmp", "etc/hosts"]).unwrap();
        let mut tar = Vec::new();
        crate::write_tar(&dir.path().join("tree"), &mut tar).unwrap();
        let mut names: Vec<String> = Vec::new();
        for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            names.push(entry.unwrap().path().unwrap().display().to_string());
        }
        let expected = [
            "again",
            "again/new",
            "again/.wh.old",
            "etc",
            "etc/gone",
            "etc/new",
            "opaque",
            "opaque/both",
            "opaque/.wh.old",
            "opaque/sub",
            "opaque/sub/new",
            "opaque/sub/.wh.old",
            "to-file",
        ];
        assert_eq!(names, expected);

        let mut overlay = Overlay::over(&[&dir.path().join("tree"), &below]);
        let all = listing(&overlay.mounted);
        overlay.unmount();
        assert_eq!(
            all,
            "again /\nagain/new 2\netc /\netc/gone 2\netc/kept below\netc/new 1\nopaque /\nopaque/both 1\nopaque/sub /\n\
             opaque/sub/new 1\ntmp /\ntmp/x below\nto-file 1\n"
        );
    }

    #[test]
    fn an_image_that_keeps_its_users_has_the_app_among_them() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        for (name, id) in [("root", 0), ("mail", 8), ("app", 1000), ("odd", 100_008)] {
            let mut header = tar::Header::new_gnu();
            header.set_uid(id);
            header.set_gid(id);
            header.set_mode(0o6755);
            header.set_size(0);
            builder.append_data(&mut header, name, std::io::empty()).unwrap();
        }
        fs::write(dir.path().join("a"), builder.into_inner().unwrap()).unwrap();
        let owner = Owner::AsSaid { from: 1000, to: 100_009 };
        let mut flat = Flat::over(&dir.path().join("tree"), owner, 1000, Vec::new()).unwrap();
        flat.add(&dir.path().join("a")).unwrap();
        for (name, id) in [("root", 0), ("mail", 8), ("app", 100_009), ("odd", 0)] {
            let found = fs::metadata(dir.path().join("tree").join(name)).unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (id, id, 0o755), "{name}");
        }
    }

    #[test]
    fn links_lead_through_the_tree_and_never_out_of_it() {
        let base: &[_] = &[
            ("usr/lib/a", Regular, "1"),
            ("lib", Symlink, "/usr/lib"),
            ("up", Symlink, "../../../.."),
            ("etc", Symlink, "/"),
            ("dev/sda", Char, ""),
        ];
        let upper: &[_] = &[
            ("lib/b", Regular, "2"),
            ("hard", Link, "lib/a"),
            ("up/outside", Regular, "2"),
            ("etc/passwd", Regular, "2"),
            ("up/.wh.outside2", Regular, ""),
        ];
        insta::assert_snapshot!(tree(&[base, upper]), @"
        etc -> /
        hard 1
        lib -> /usr/lib
        outside 2
        passwd 2
        up -> ../../../..
        usr /
        usr/lib /
        usr/lib/a 1
        usr/lib/b 2
        ");
    }

    #[test]
    fn what_leads_out_by_name_or_is_too_large_is_refused() {
        let refused = |entry: (&str, EntryType, &str)| flat(&[&[entry]]).unwrap_err();
        assert!(refused(("../outside", Regular, "x")).contains("outside of its folder"));
        assert!(refused(("hard", Link, "../outside")).contains("outside of its folder"));
        assert!(refused(("hard", Link, "/etc/hostname")).contains("cannot be unpacked"), "there is none in the image");
        assert!(refused(("big", Regular, &"x".repeat(1001))).contains("unpacked it has more than"));
    }

    #[test]
    fn everything_is_the_apps_own_and_nothing_is_set_user_id() {
        use std::os::unix::fs::MetadataExt;
        let dir = flat(&[&[("a/b", Regular, "1"), ("a/link", Symlink, "b")]]).unwrap();
        for entry in walkdir::WalkDir::new(dir.path().join("tree")) {
            let metadata = entry.unwrap().path().symlink_metadata().unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (100_009, 100_009));
            assert!(metadata.is_symlink() || metadata.mode() & 0o7777 == 0o755, "the archive says 4755");
        }
    }
}
