//! A new router process takes the listening sockets of the one that runs: the queues of connections that wait are the same ones, so nobody is
//! refused or forgotten in between. Over a Unix socket each listener comes with one byte that says what it is for, and then the table of this
//! moment, which may be newer than the one on disk. The new process says when it serves, and only then the old one leaves.
//!
//! Either may be killed at any moment. A new one that is gone before it serves leaves the old one as it was; one that finds nobody, or
//! nobody who hands anything over, listens by itself, and fails as ever where an address is taken.

use std::fs::{self, Permissions};
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::AsyncReadExt;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::table::Table;
use crate::{server, snapshot};

/// For a router to hand over the next thing, or to take it. It takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a router that is to take over could not be let in: out of file descriptors, most likely, which passes.
const PAUSE: Duration = Duration::from_millis(100);
/// After the last listener.
const ALL: u8 = b'.';
/// The new process serves.
const SERVING: u8 = b'!';

/// A listener, and the letter that says what it is for.
pub(crate) type Listener = (u8, OwnedFd);

/// What a running router has handed over.
pub(crate) struct Taken {
    from: UnixStream,
    pub(crate) listeners: Vec<(u8, TcpListener)>,
}

impl Taken {
    /// Asks the router at `socket`, if there is one. `take` takes its table.
    pub(crate) fn ask(socket: &Path, take: impl FnOnce(&UnixStream) -> io::Result<()>) -> Option<Self> {
        // Nobody listens at the socket of one that has ended.
        let from = UnixStream::connect(socket).ok()?;
        let received = own(&from).and_then(|()| receive(&from));
        match received.and_then(|listeners| take(&from).map(|()| listeners)) {
            Ok(listeners) => Some(Self { from, listeners }),
            Err(error) => {
                tracing::warn!(error = %error, socket = %socket.display(), "the router that runs hands nothing over; this one listens by itself");
                None
            }
        }
    }

    /// From now on the other one may leave.
    pub(crate) fn serve(mut self) {
        if let Err(error) = self.from.write_all(&[SERVING]) {
            tracing::warn!(error = %error, "the router that ran went away by itself");
        }
    }
}

/// Where a successor finds this process.
pub(crate) struct Offer {
    path: PathBuf,
    socket: UnixListener,
    place: Place,
    listeners: Vec<Listener>,
}

impl Offer {
    /// Takes the place of whoever was at `path` before.
    pub(crate) fn bind(path: &Path, listeners: Vec<Listener>) -> io::Result<Self> {
        let (socket, place) = bind(path)?;
        Ok(Self { path: path.to_owned(), socket, place, listeners })
    }

    /// Hands the listeners and the `table` to whoever comes, and returns once somebody serves with them.
    pub(crate) async fn hand_over(self, table: &Arc<Table>) -> io::Result<()> {
        let Self { path, socket, mut place, mut listeners } = self;
        let mut socket = tokio::net::UnixListener::from_std(socket)?;
        loop {
            let Ok((stream, _)) = socket.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            let result;
            (result, listeners) = hand_over_to(stream, listeners, Arc::clone(table)).await?;
            match result {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(error = %error, "a router that was to take over did not; this one goes on");
                }
            }
            // Whoever did not come to serve may have taken the place already. As long as it is ours, others may wait in its queue.
            if Place::of(&path).ok() != Some(place) {
                let again;
                (again, place) = bind(&path)?;
                socket = tokio::net::UnixListener::from_std(again)?;
            }
        }
    }
}

/// Tells a socket's file from one that another process put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(u64, u64);

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|file| Self(file.dev(), file.ino()))
    }
}

/// Listens at `path`, where nobody finds a socket that is not listened to.
fn bind(path: &Path) -> io::Result<(UnixListener, Place)> {
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let socket = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
    let place = Place::of(&draft)?;
    fs::rename(&draft, path)?;
    socket.set_nonblocking(true)?;
    Ok((socket, place))
}

/// Fails if another user is at the other end: whoever has the sockets reads what visitors send.
fn own(stream: &UnixStream) -> io::Result<()> {
    let uid = getsockopt(stream, sockopt::PeerCredentials)?.uid();
    if uid == geteuid().as_raw() { Ok(()) } else { Err(io::Error::other(format!("the user {uid} is there"))) }
}

/// Gives the listeners and the table, and waits until the other side serves or is gone. For that there is no limit: it might come to serve after
/// this process had given it up, and then both would be there for ever.
async fn hand_over_to(
    stream: tokio::net::UnixStream,
    listeners: Vec<Listener>,
    table: Arc<Table>,
) -> io::Result<(io::Result<()>, Vec<Listener>)> {
    let stream = stream.into_std()?;
    let given = spawn_blocking(move || {
        let given = own(&stream).and_then(|()| give(&stream, &listeners, &table)).map(|()| stream);
        (given, listeners)
    });
    let (given, listeners) = given.await.map_err(io::Error::other)?;
    let answer = async {
        let stream = given?;
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)?.read_u8().await
    };
    let result = match answer.await {
        Ok(SERVING) => Ok(()),
        Ok(_) => Err(io::Error::other("it said something else")),
        Err(error) => Err(error),
    };
    Ok((result, listeners))
}

fn give(mut to: &UnixStream, listeners: &[Listener], table: &Table) -> io::Result<()> {
    to.set_nonblocking(false)?;
    to.set_write_timeout(Some(PATIENCE))?;
    // Those that came since.
    let of_ports = table.ports.listeners()?;
    let of_ports = of_ports.iter().map(|listener| (server::TCP, listener));
    for (letter, listener) in listeners.iter().map(|(letter, listener)| (*letter, listener)).chain(of_ports) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [listener.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(to, &[IoSlice::new(&[letter])], &mut ancillary, SendFlags::NOSIGNAL)?;
    }
    to.write_all(&[ALL])?;
    snapshot::give(table, to)
}

fn receive(from: &UnixStream) -> io::Result<Vec<(u8, TcpListener)>> {
    from.set_read_timeout(Some(PATIENCE))?;
    let mut listeners = Vec::new();
    loop {
        let mut letter = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(from, &mut [IoSliceMut::new(&mut letter)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if letter == [ALL] {
            return Ok(listeners);
        }
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                listeners.extend(descriptors.map(|descriptor| (letter[0], TcpListener::from(descriptor))));
            }
        }
    }
}
