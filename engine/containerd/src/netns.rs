//! Network namespaces, each kept alive by a bind mount until it is removed.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use model::routes::Proof;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};

/// Names the network namespace of a process by a file at `path`, and shuts IPv6 off in it, but for its loopback interface: an instance
/// must not reach the host through a link-local address that no rule for IPv4 sees. The process must not have begun.
pub(crate) async fn keep(path: &Path, pid: u32) -> io::Result<()> {
    let path = path.to_owned();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread that changed its namespace must never serve anything else: it ends with its one task.
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || sender.send(keep_here(&path, pid)))?;
    receiver.await.map_err(|_| io::Error::other("the thread that named the namespace died"))?
}

fn keep_here(path: &Path, pid: u32) -> io::Result<()> {
    let of_process = format!("/proc/{pid}/ns/net");
    setns(File::open(&of_process)?, CloneFlags::CLONE_NEWNET)?;
    let no_ipv6 = Path::new("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    if no_ipv6.exists() {
        std::fs::write(no_ipv6, "1")?;
    }
    File::create(path)?;
    mount(Some(of_process.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Whether `path` names a namespace: while one is made or removed, there is a moment when it is an empty file.
pub(crate) fn exists(path: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    device(path).is_some_and(|own| path.parent().and_then(device) != Some(own))
}

/// Removes a namespace. One that does not exist is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether process `pid` lives in the namespace at `path`. This proves that a pid written down in an earlier life is still
/// the same process, as a reused one would live elsewhere.
pub(crate) fn holds(path: &Path, pid: u32) -> bool {
    let inode = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let of_process = inode(Path::new(&format!("/proc/{pid}/ns/net")));
    of_process.is_some() && of_process == inode(path)
}

/// That process `pid` lives and has the address of its network namespace; none if it is gone already.
pub(crate) fn proof(pid: u32) -> Option<Proof> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let netns = std::fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino();
    Proof::new(pid, &stat, netns)
}
