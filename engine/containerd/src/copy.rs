//! Copying files out of and into an instance, as its own user and without trusting anything in there.
//!
//! The work is done by a thread that has become the instance's user, with no capability left, and that reaches files only from the
//! instance's root directory down: a link leads where it leads inside, the magic ones of `/proc` lead nowhere. What is no file, folder or
//! link is passed over, and nothing that was opened is trusted to be what it was a moment before.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use engine::EngineError;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Stat};
use rustix::fs::{fchmod, fstat, fstatfs, mkdirat, openat, openat2, readlinkat, renameat, statat, symlinkat, unlinkat};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tokio::sync::{mpsc, oneshot};

use crate::host::{Host, Within};
use crate::netns;

/// Pieces of an archive that wait for whoever takes them.
pub(crate) const CHANNEL: usize = 8;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// Folders in folders in folders.
const DEEPEST: usize = 100;
/// Most bytes that are taken into an instance at once.
const LARGEST: u64 = 1 << 30;
/// What a file is called until all of it is there.
const UNFINISHED: &str = ".unfinished-copy";
/// How a path inside is looked up.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::DIRECTORY);

/// Pieces of an archive, the last of which may say why there are no more.
pub(crate) type Pieces = mpsc::Receiver<io::Result<Bytes>>;

/// A file or folder of an instance as a tar archive of it and what is in it. Answers once it was found.
pub(crate) async fn read(host: &Host, instance: &str, path: &str) -> Result<Pieces, EngineError> {
    let (sender, pieces) = mpsc::channel(CHANNEL);
    let (found, answer) = oneshot::channel();
    let wanted = path.to_owned();
    let within = host.within(instance)?;
    as_user(host, instance, &within, move |root| {
        let opened = root.and_then(|root| find(root.as_fd(), Path::new(&wanted)));
        match opened {
            Err(error) => drop(found.send(Err(error))),
            Ok((fd, stat)) => {
                if found.send(Ok(())).is_ok() {
                    let mut archive = tar::Builder::new(Sender(sender.clone()));
                    let name = name_of(&wanted);
                    let written = add(&mut archive, (fd, stat), &name, 0).and_then(|()| archive.into_inner()?.flush());
                    if let Err(error) = written {
                        // Whoever took it may be gone; then nobody needs to know.
                        let _ = sender.blocking_send(Err(error));
                    }
                }
            }
        }
    })?;
    let answer = answer.await.unwrap_or_else(|_| Err(io::Error::other("the thread that read it died")));
    answer.map(|()| pieces).map_err(|error| refused("read", path, &error))
}

/// Unpacks a tar archive into a folder of an instance; or, if there is none, beside where it would be, under its name.
pub(crate) async fn write(host: &Host, instance: &str, path: &str, archive: Pieces) -> Result<(), EngineError> {
    let (done, answer) = oneshot::channel();
    let target = path.to_owned();
    let within = host.within(instance)?;
    as_user(host, instance, &within, move |root| {
        let written = root.and_then(|root| unpack(root.as_fd(), Path::new(&target), archive));
        // Whoever sent it may be gone.
        let _ = done.send(written);
    })?;
    let answer = answer.await.unwrap_or_else(|_| Err(io::Error::other("the thread that wrote it died")));
    answer.map_err(|error| refused("write", path, &error))
}

fn refused(action: &str, path: &str, error: &io::Error) -> EngineError {
    EngineError::Failed(format!("cannot {action} {path}: {error}"))
}

/// Does something in a thread that is the instance's user, given its root directory. It must never serve anything else, so it
/// ends with this.
fn as_user(
    host: &Host,
    instance: &str,
    within: &Within,
    work: impl FnOnce(io::Result<OwnedFd>) + Send + 'static,
) -> Result<(), EngineError> {
    let (namespace, pid, uid) = (host.network.namespace(instance), within.pid, within.container.uid);
    let begin = move || {
        let root = File::open(format!("/proc/{pid}/root")).map(OwnedFd::from);
        // The pid may be another process's by now; that of a process that still is ours was ours a moment before.
        let root = root.and_then(|root| {
            let is_ours = netns::holds(&namespace, pid);
            if is_ours { Ok(root) } else { Err(io::Error::other("it does not run any more")) }
        });
        work(root.and_then(|root| become_user(uid).map(|()| root)));
    };
    let thread = std::thread::Builder::new().name("copy".to_owned()).spawn(begin);
    thread.map(drop).map_err(|error| EngineError::Failed(format!("no thread can be made: {error}")))
}

/// Only for this thread, as Linux has it. With the last uid of root's all its capabilities go.
fn become_user(uid: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    Ok(())
}

/// Opens a file or folder.
fn find(root: BorrowedFd<'_>, path: &Path) -> io::Result<(OwnedFd, Stat)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    // What is no file must not even be opened: that may do something.
    let there = openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE)?;
    check_kind(&fstat(&there)?)?;
    let fd = openat2(root, path, flags, Mode::empty(), INSIDE)?;
    let stat = fstat(&fd)?;
    check_kind(&stat)?;
    if fstatfs(&fd)?.f_type == PROC_SUPER_MAGIC {
        return Err(io::Error::other("what the kernel shows there is no file"));
    }
    Ok((fd, stat))
}

fn check_kind(stat: &Stat) -> io::Result<()> {
    match kind(stat) {
        FileType::RegularFile | FileType::Directory => Ok(()),
        _ => Err(io::Error::other("it is neither a file nor a folder")),
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// What a path is called in an archive.
fn name_of(path: &str) -> PathBuf {
    let last = Path::new(path).components().next_back();
    match last {
        Some(Component::Normal(name)) => PathBuf::from(name),
        _ => PathBuf::from("root"),
    }
}

/// Adds a file, or a folder with all that is in it.
fn add<W: Write>(
    archive: &mut tar::Builder<W>,
    (fd, stat): (OwnedFd, Stat),
    name: &Path,
    depth: usize,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(stat.st_mode & 0o777);
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
    if kind(&stat) == FileType::RegularFile {
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        header.set_size(size);
        // One that shrinks meanwhile is filled up, one that grows is cut off: its size was said already.
        let content = File::from(fd).chain(io::repeat(0)).take(size);
        return archive.append_data(&mut header, name, content);
    }
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    archive.append_data(&mut header, name, io::empty())?;
    if depth >= DEEPEST {
        return Err(io::Error::other(format!("{} lies too deep", name.display())));
    }
    for entry in Dir::read_from(&fd)? {
        let entry = entry?;
        let own = entry.file_name().to_bytes();
        if own == b"." || own == b".." {
            continue;
        }
        let (own, inside) = (OsStr::from_bytes(own), name.join(OsStr::from_bytes(own)));
        add_entry(archive, fd.as_fd(), own, (&inside, depth + 1))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", inside.display())))?;
    }
    Ok(())
}

fn add_entry<W: Write>(
    archive: &mut tar::Builder<W>,
    folder: BorrowedFd<'_>,
    own: &OsStr,
    (name, depth): (&Path, usize),
) -> io::Result<()> {
    let stat = match statat(folder, own, AtFlags::SYMLINK_NOFOLLOW) {
        // It went away meanwhile.
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        stat => stat?,
    };
    let flags = match kind(&stat) {
        FileType::Symlink => {
            let target = readlinkat(folder, own, Vec::new())?;
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            return archive.append_link(&mut header, name, OsStr::from_bytes(target.to_bytes()));
        }
        FileType::RegularFile => READ,
        FileType::Directory => FOLDER,
        _ => return Ok(()),
    };
    let fd = openat(folder, own, flags, Mode::empty())?;
    let stat = fstat(&fd)?;
    // It may have been replaced since.
    if check_kind(&stat).is_err() || fstatfs(&fd)?.f_type == PROC_SUPER_MAGIC {
        return Ok(());
    }
    add(archive, (fd, stat), name, depth)
}

fn unpack(root: BorrowedFd<'_>, path: &Path, pieces: Pieces) -> io::Result<()> {
    let folder = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(root, path, flags, Mode::empty(), INSIDE)
    };
    // A folder takes what comes into itself; anything else gets the name that was asked for.
    let (target, rename) = match folder(path) {
        Ok(target) => (target, None),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(io::ErrorKind::NotFound.into());
            };
            (folder(if parent.as_os_str().is_empty() { Path::new("/") } else { parent })?, Some(name.to_owned()))
        }
        Err(error) => return Err(error.into()),
    };
    let mut archive = tar::Archive::new(Receiver { pieces, rest: Bytes::new(), left: LARGEST });
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let mut parts = Vec::new();
        for part in name.components() {
            match part {
                Component::Normal(part) => parts.push(part.to_owned()),
                Component::CurDir => {}
                _ => return Err(io::Error::other(format!("{} leads out of the archive", name.display()))),
            }
        }
        if let (Some(first), Some(rename)) = (parts.first_mut(), &rename) {
            first.clone_from(rename);
        }
        let Some((last, folders)) = parts.split_last() else { continue };
        put(target.as_fd(), folders, last, &mut entry)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", name.display())))?;
    }
    Ok(())
}

/// Puts one entry of an archive where it belongs, never through a link.
fn put<R: Read>(
    target: BorrowedFd<'_>,
    folders: &[std::ffi::OsString],
    last: &OsStr,
    entry: &mut tar::Entry<'_, R>,
) -> io::Result<()> {
    let mut folder = target.try_clone_to_owned()?;
    for part in folders {
        folder = enter(folder.as_fd(), part)?;
    }
    let mode = Mode::from_raw_mode(entry.header().mode()? & 0o777);
    match entry.header().entry_type() {
        tar::EntryType::Directory => {
            fchmod(enter(folder.as_fd(), last)?, mode)?;
        }
        tar::EntryType::Regular => {
            let _ = unlinkat(&folder, UNFINISHED, AtFlags::empty());
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&folder, UNFINISHED, flags, Mode::RUSR | Mode::WUSR)?);
            let copied = io::copy(entry, &mut file).and_then(|_| Ok(fchmod(&file, mode)?));
            finish(folder.as_fd(), copied, last)?;
        }
        tar::EntryType::Symlink => {
            let link = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
            let _ = unlinkat(&folder, UNFINISHED, AtFlags::empty());
            symlinkat(link.as_ref(), &folder, UNFINISHED)?;
            finish(folder.as_fd(), Ok(()), last)?;
        }
        _ => return Err(io::Error::other("only files, folders and symbolic links can be copied")),
    }
    Ok(())
}

/// Gives what was made its name, in place of what had it, or removes it.
fn finish(folder: BorrowedFd<'_>, made: io::Result<()>, name: &OsStr) -> io::Result<()> {
    let named = made.and_then(|()| Ok(renameat(folder, UNFINISHED, folder, name)?));
    if named.is_err() {
        let _ = unlinkat(folder, UNFINISHED, AtFlags::empty());
    }
    named
}

/// A folder in a folder, made if it is not there.
fn enter(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    match mkdirat(folder, name, Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    openat(folder, name, FOLDER, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP => io::Error::other("something that is no folder is there"),
        error => error.into(),
    })
}

/// Writes into a channel.
struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(piece)));
        sent.map(|()| piece.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads from a channel, and not too much.
struct Receiver {
    pieces: Pieces,
    rest: Bytes,
    left: u64,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.rest.len());
        self.left = self
            .left
            .checked_sub(length as u64)
            .ok_or_else(|| io::Error::other(format!("at most {} MiB can be copied at once", LARGEST >> 20)))?;
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}
