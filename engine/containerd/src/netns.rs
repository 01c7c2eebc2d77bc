//! Network namespaces, each kept alive by a bind mount until it is removed.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use model::routes::Proof;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// Makes a network namespace that is named by a file at `path`, with its loopback interface up and IPv6 on nothing else: an
/// instance must not reach the host through a link-local address that no rule for IPv4 sees.
pub(crate) async fn create(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread that changed its namespace must never serve anything else: it ends with its one task.
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || sender.send(create_here(&path)))?;
    receiver.await.map_err(|_| io::Error::other("the thread that made the namespace died"))?
}

fn create_here(path: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let no_ipv6 = Path::new("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    if no_ipv6.exists() {
        std::fs::write(no_ipv6, "1")?;
    }
    loopback_up()?;
    std::fs::File::create(path)?;
    mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
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

/// `ip link set lo up` for this thread's namespace: one `RTM_NEWLINK` message (rtnetlink(7)).
fn loopback_up() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const LOOPBACK: i32 = 1;
    const IFF_UP: u32 = 1;
    let mut message = Vec::with_capacity(32);
    message.extend_from_slice(&32_u32.to_ne_bytes()); // length
    message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
    message.extend_from_slice(&[0; 8]); // sequence number, port
    message.extend_from_slice(&[0; 4]); // family, padding, device type
    message.extend_from_slice(&LOOPBACK.to_ne_bytes());
    message.extend_from_slice(&IFF_UP.to_ne_bytes()); // flags
    message.extend_from_slice(&IFF_UP.to_ne_bytes()); // which flags to change

    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(netlink.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 128];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // The answer is a header of 16 bytes and the negated error number, 0 for success.
    let code = answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}
