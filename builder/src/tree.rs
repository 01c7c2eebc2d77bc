//! Trees of files on the host that become layers: their canonical tar stream, their digest, and what an overlay did to them.
//!
//! Whatever a build left may be hostile. Nothing here follows a symbolic link, and no process of the build is left that could
//! change a tree while it is read.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use model::Digest;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};
use walkdir::WalkDir;

/// 1980-01-01T00:00:01Z, the time of everything in an image (Platform spec, "exporter").
pub(crate) const EPOCH: u64 = 315_532_801;

/// Begins the name of what says that a lower layer's file is hidden (OCI image spec, "Whiteouts").
const WHITEOUT: &str = ".wh.";

/// Writes the layer in `tree`, which starts at the container's root, as an uncompressed tar: sorted by path, owners and modes as
/// they are on disk, one time for all, no extended attributes. Sockets, pipes and devices are left out, but for overlayfs's signs of
/// what is hidden, which become OCI's. The same tree always gives the same bytes, and their SHA-256 is the layer's diffID.
pub fn write_tar(tree: &Path, writer: impl Write) -> io::Result<()> {
    write_entries(tree, writer, &|path, _| Ok(Box::new(File::open(path)?)))
}

/// How many bytes [`write_tar`] writes, without reading the files.
pub(crate) fn tar_size(tree: &Path) -> io::Result<u64> {
    let mut count = Count(0);
    write_entries(tree, &mut count, &|_, bytes| Ok(Box::new(io::repeat(0).take(bytes))))?;
    Ok(count.0)
}

struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the content of a file of this many bytes.
type Open<'a> = &'a dyn Fn(&Path, u64) -> io::Result<Box<dyn Read>>;

fn write_entries(tree: &Path, writer: impl Write, open: Open<'_>) -> io::Result<()> {
    let mut builder = tar::Builder::new(writer);
    for entry in WalkDir::new(tree).min_depth(1).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path();
        let name = path.strip_prefix(tree).map_err(io::Error::other)?;
        let metadata = entry.metadata()?;
        let mut header = header(&metadata);
        if metadata.is_file() {
            builder.append_data(&mut header, name, open(path, metadata.len())?)?;
        } else if metadata.is_dir() {
            builder.append_data(&mut header, name, io::empty())?;
        } else if metadata.is_symlink() {
            builder.append_link(&mut header, name, fs::read_link(path)?)?;
        } else if is_whiteout(&metadata) {
            let mut hidden = OsString::from(WHITEOUT);
            hidden.push(entry.file_name());
            header.set_mode(0);
            builder.append_data(&mut header, name.with_file_name(hidden), io::empty())?;
        }
    }
    builder.finish()
}

fn header(metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => EntryType::Directory,
        kind if kind.is_symlink() => EntryType::Symlink,
        _ => EntryType::Regular,
    };
    header.set_entry_type(kind);
    header.set_size(if metadata.is_file() { metadata.len() } else { 0 });
    header.set_mode(if metadata.is_symlink() { 0o777 } else { metadata.mode() & 0o7777 });
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(EPOCH);
    header
}

/// The diffID of the layer in `tree`.
pub fn diff_id(tree: &Path) -> io::Result<Digest> {
    Ok(digest(tree)?.0)
}

/// The diffID of the layer in `tree`, and how many bytes its tar has.
pub(crate) fn digest(tree: &Path) -> io::Result<(Digest, u64)> {
    let mut hash = Hash { sha: Sha256::new(), bytes: 0 };
    write_tar(tree, &mut hash)?;
    Ok((Digest::from_sha256(hash.sha.finalize().into()), hash.bytes))
}

struct Hash {
    sha: Sha256,
    bytes: u64,
}

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sha.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives everything in `dir`, and itself, to `uid`.
pub(crate) fn chown(dir: &Path, uid: u32) -> io::Result<()> {
    for entry in WalkDir::new(dir) {
        lchown(entry?.path(), Some(uid), Some(uid))?;
    }
    Ok(())
}

/// Makes a directory of this mode, whatever the process's umask.
pub(crate) fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

/// Makes the directories between `tree` and `path`, the latter not included: root's, readable for all.
pub(crate) fn make_parents(tree: &Path, path: &Path) -> io::Result<()> {
    make_dir(tree, 0o755)?;
    let below = path.strip_prefix(tree).map_err(io::Error::other)?.parent().unwrap_or(Path::new(""));
    let mut dir = tree.to_owned();
    for part in below {
        dir.push(part);
        make_dir(&dir, 0o755)?;
    }
    Ok(())
}

/// What a build did to one layer directory of an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// There is no such directory any more, or never was.
    Gone,
    /// The lower directory shows unchanged.
    Untouched,
    /// Everything in it is new.
    Fresh,
    /// Some of the lower directory still shows through.
    Merged,
}

/// Compares a layer's directory in the overlay's upper with its lower directory, if it was restored.
pub(crate) fn change(lower: Option<&Path>, upper: &Path) -> io::Result<Change> {
    let metadata = match fs::symlink_metadata(upper) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(if lower.is_some() { Change::Untouched } else { Change::Gone });
        }
        metadata => metadata?,
    };
    if is_whiteout(&metadata) {
        return Ok(Change::Gone);
    }
    if !metadata.is_dir() {
        return Err(io::Error::other(format!("{} is not a directory", upper.display())));
    }
    match lower {
        Some(lower) if is_same(lower, upper, false)? => Ok(Change::Untouched),
        Some(_) if !is_opaque(upper)? => Ok(Change::Merged),
        _ => Ok(Change::Fresh),
    }
}

/// [`change`] below a directory of the overlay that the build may have replaced too: then nothing of `lower` shows any more, and
/// the lower directory that still counts is none.
pub(crate) fn change_below(
    parent: &Path,
    lower: Option<PathBuf>,
    upper: &Path,
) -> io::Result<(Option<PathBuf>, Change)> {
    let lower = match fs::symlink_metadata(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => lower,
        Ok(metadata) if metadata.is_dir() => {
            if is_opaque(parent)? {
                None
            } else {
                lower
            }
        }
        Ok(metadata) if is_whiteout(&metadata) => return Ok((None, Change::Gone)),
        Ok(_) => return Err(io::Error::other(format!("{} is not a directory", parent.display()))),
        Err(error) => return Err(error),
    };
    let change = change(lower.as_deref(), upper)?;
    Ok((lower, change))
}

/// Bytes of all files of a tree.
pub(crate) fn size(tree: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in WalkDir::new(tree) {
        let metadata = entry?.metadata()?;
        bytes += if metadata.is_file() { metadata.len() } else { 0 };
    }
    Ok(bytes)
}

/// Whether the overlay shows the same with `upper` as without it. It copies a directory up for a mere touch, and buildpacks write
/// files anew as they were: neither makes another layer. `alone`: nothing of `lower` shows below a directory that was made anew.
fn is_same(lower: &Path, upper: &Path, alone: bool) -> io::Result<bool> {
    let Ok(before) = fs::symlink_metadata(lower) else { return Ok(false) };
    let now = fs::symlink_metadata(upper)?;
    let kinds = (before.file_type() == now.file_type(), before.mode() == now.mode());
    if kinds != (true, true) || (before.uid(), before.gid()) != (now.uid(), now.gid()) {
        return Ok(false);
    }
    if now.is_symlink() {
        return Ok(fs::read_link(lower)? == fs::read_link(upper)?);
    }
    if now.is_file() {
        return Ok(before.len() == now.len() && same_bytes(lower, upper)?);
    }
    // A whiteout is a device, and there is no other in a layer.
    if !now.is_dir() {
        return Ok(false);
    }
    let alone = alone || is_opaque(upper)?;
    let mut count = 0;
    for entry in upper.read_dir()? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        if !is_same(&lower.join(name), &path, alone)? {
            return Ok(false);
        }
        count += 1;
    }
    Ok(!alone || lower.read_dir()?.count() == count)
}

fn same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let mut files = [BufReader::new(File::open(one)?), BufReader::new(File::open(other)?)];
    loop {
        let [one, other] = &mut files;
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let length = left.len().min(right.len());
        if left[..length] != right[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(left.len() == right.len());
        }
        one.consume(length);
        other.consume(length);
    }
}

/// Assembles at `target` what the overlay showed of a merged directory: what is new is moved out of `upper`, what is old is
/// hard-linked from `lower`, whose files never change.
pub(crate) fn merge(lower: &Path, upper: &Path, target: &Path) -> io::Result<()> {
    make_dir_like(target, &fs::symlink_metadata(upper)?)?;
    let mut seen: BTreeSet<OsString> = BTreeSet::new();
    for entry in upper.read_dir()? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        let metadata = fs::symlink_metadata(&path)?;
        let below = lower.join(&name);
        if metadata.is_dir() && !is_opaque(&path)? && fs::symlink_metadata(&below).is_ok_and(|below| below.is_dir()) {
            merge(&below, &path, &target.join(&name))?;
        } else if !is_whiteout(&metadata) {
            fs::rename(&path, target.join(&name))?;
        }
        seen.insert(name);
    }
    for entry in lower.read_dir()? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        if !seen.contains(&name) {
            link(&path, &target.join(&name))?;
        }
    }
    Ok(())
}

fn link(source: &Path, target: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(source)?;
    if !metadata.is_dir() {
        return fs::hard_link(source, target);
    }
    make_dir_like(target, &metadata)?;
    for entry in source.read_dir()? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        link(&path, &target.join(name))?;
    }
    Ok(())
}

/// Makes a directory with the owner and the mode of another.
pub(crate) fn make_dir_like(dir: &Path, metadata: &Metadata) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    lchown(dir, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

/// How overlayfs says "deleted" (kernel documentation, "whiteouts and opaque directories").
fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(dir: &Path) -> io::Result<bool> {
    Ok(xattr::get(dir, "trusted.overlay.opaque")?.is_some_and(|value| value == b"y"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Overlay, listing};

    fn write(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn the_same_tree_has_the_same_digest_whenever_it_was_made() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, names) in [(&a, ["x", "y/z"]), (&b, ["y/z", "x"])] {
            for name in names {
                write(&dir.path().join("app").join(name), name);
            }
            std::os::unix::fs::symlink("x", dir.path().join("app/link")).unwrap();
        }
        assert_eq!(digest(a.path()).unwrap(), digest(b.path()).unwrap());
        let _socket = std::os::unix::net::UnixListener::bind(b.path().join("socket")).unwrap();
        assert_eq!(digest(a.path()).unwrap(), digest(b.path()).unwrap(), "a socket is no part of a layer");
        fs::set_permissions(b.path().join("app/x"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(digest(a.path()).unwrap(), digest(b.path()).unwrap());
    }

    #[test]
    fn a_tar_has_long_names_links_and_one_time() {
        let dir = tempfile::tempdir().unwrap();
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
        write(&dir.path().join(&long), "content");
        std::os::unix::fs::symlink("t".repeat(150), dir.path().join("link")).unwrap();
        let mut bytes = Vec::new();
        write_tar(dir.path(), &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<(String, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path().unwrap().display().to_string(), entry.header().mtime().unwrap()))
            .collect();
        assert_eq!(entries, [("d".repeat(120), EPOCH), (long, EPOCH), ("link".into(), EPOCH)]);
    }

    #[test]
    fn merging_gives_what_the_overlay_showed() {
        let mut overlay = Overlay::new(&|lower| {
            for name in
                ["keep", "change", "drop", "dir/keep", "dir/drop", "replaced/old", "becomes-file/x", "sub/deep/keep"]
            {
                write(&lower.join(name), &format!("old {name}"));
            }
            std::os::unix::fs::symlink("keep", lower.join("link")).unwrap();
        });
        let mounted = overlay.mounted.clone();
        write(&mounted.join("change"), "new");
        write(&mounted.join("fresh/a/b"), "new");
        fs::remove_file(mounted.join("drop")).unwrap();
        fs::remove_file(mounted.join("dir/drop")).unwrap();
        fs::remove_dir_all(mounted.join("replaced")).unwrap();
        write(&mounted.join("replaced/new"), "new");
        fs::remove_dir_all(mounted.join("becomes-file")).unwrap();
        write(&mounted.join("becomes-file"), "new");
        let expected = listing(&mounted);
        overlay.unmount();
        assert_eq!(change(Some(&overlay.lower), &overlay.upper).unwrap(), Change::Merged);
        let before = listing(&overlay.lower);
        let target = overlay.dir.path().join("target");
        merge(&overlay.lower, &overlay.upper, &target).unwrap();
        assert_eq!(listing(&target), expected);
        assert_eq!(listing(&overlay.lower), before, "the old layer is as it was");
        let inode = |path: &Path| fs::symlink_metadata(path).unwrap().ino();
        assert_eq!(
            inode(&target.join("sub/deep/keep")),
            inode(&overlay.lower.join("sub/deep/keep")),
            "shared, not copied"
        );
    }

    #[test]
    fn touching_directories_changes_nothing_and_replacing_changes_all() {
        let lower: fn(&Path) = |lower| write(&lower.join("dir/file"), "x");
        let mut overlay = Overlay::new(&lower);
        let probe = overlay.mounted.join("dir/probe");
        write(&probe, "x");
        fs::remove_file(&probe).unwrap();
        overlay.unmount();
        assert_eq!(change(Some(&overlay.lower), &overlay.upper).unwrap(), Change::Untouched);
        assert_eq!(change(Some(&overlay.lower), &overlay.upper.join("missing")).unwrap(), Change::Untouched);
        assert_eq!(change(None, &overlay.upper.join("missing")).unwrap(), Change::Gone);

        let mut overlay = Overlay::new(&lower);
        fs::remove_dir_all(overlay.mounted.join("dir")).unwrap();
        overlay.unmount();
        assert_eq!(change(Some(&overlay.lower.join("dir")), &overlay.upper.join("dir")).unwrap(), Change::Gone);

        let mut overlay = Overlay::new(&lower);
        fs::remove_dir_all(overlay.mounted.join("dir")).unwrap();
        write(&overlay.mounted.join("dir/new"), "x");
        overlay.unmount();
        assert_eq!(change(Some(&overlay.lower.join("dir")), &overlay.upper.join("dir")).unwrap(), Change::Fresh);
    }

    #[test]
    fn writing_the_same_again_changes_nothing() {
        type Act = fn(&Path);
        let lower: Act = |lower| {
            write(&lower.join("env/NAME"), "value");
            write(&lower.join("env/OTHER"), "value");
            std::os::unix::fs::symlink("env", lower.join("link")).unwrap();
        };
        // What is done to the mounted layer, and whether it is another one then.
        let cases: [(Act, Change); 6] = [
            (|dir| write(&dir.join("env/NAME"), "value"), Change::Untouched),
            (|dir| write(&dir.join("env/NAME"), "eulav"), Change::Merged),
            (
                |dir| fs::set_permissions(dir.join("env/NAME"), fs::Permissions::from_mode(0o600)).unwrap(),
                Change::Merged,
            ),
            (
                |dir| {
                    fs::remove_dir_all(dir.join("env")).unwrap();
                    write(&dir.join("env/NAME"), "value");
                    write(&dir.join("env/OTHER"), "value");
                },
                Change::Untouched,
            ),
            (
                |dir| {
                    fs::remove_dir_all(dir.join("env")).unwrap();
                    write(&dir.join("env/NAME"), "value");
                },
                Change::Merged,
            ),
            (
                |dir| {
                    fs::remove_file(dir.join("link")).unwrap();
                    std::os::unix::fs::symlink("other", dir.join("link")).unwrap();
                },
                Change::Merged,
            ),
        ];
        for (number, (act, expected)) in cases.into_iter().enumerate() {
            let mut overlay = Overlay::new(&lower);
            act(&overlay.mounted);
            overlay.unmount();
            assert_eq!(change(Some(&overlay.lower), &overlay.upper).unwrap(), expected, "case {number}");
        }
    }
}
