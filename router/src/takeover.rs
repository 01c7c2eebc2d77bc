//! A new router process takes the listening sockets of the one that runs: the queues of connections that wait are the same ones, so nobody is
//! refused or forgotten in between. Over a Unix socket each listener comes with one byte that says what it is for, and then the table of this
//! moment, which may be newer than the one on disk. The new process says when it serves, and only then the old one leaves.

use std::fs::{self, Permissions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::task::spawn_blocking;

use crate::snapshot::Snapshot;

/// For a router to say the next thing. One that is started says it in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
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
    pub(crate) table: Snapshot,
}

impl Taken {
    /// Asks the router at `socket`, if there is one.
    pub(crate) fn ask(socket: &Path) -> Option<Self> {
        // Nobody listens at the socket of one that has ended.
        let from = UnixStream::connect(socket).ok()?;
        match receive(&from) {
            Ok((listeners, table)) => Some(Self { from, listeners, table }),
            Err(error) => {
                tracing::warn!(error = %error, "the router that runs hands nothing over");
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
    socket: UnixListener,
    listeners: Vec<Listener>,
}

impl Offer {
    /// Takes the place of whoever was at `path` before.
    pub(crate) fn bind(path: &Path, listeners: Vec<Listener>) -> io::Result<Self> {
        let draft = path.with_extension("new");
        let _ = fs::remove_file(&draft);
        let socket = UnixListener::bind(&draft)?;
        fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
        fs::rename(&draft, path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, listeners })
    }

    /// Hands the listeners and the `table` to whoever comes, and returns once somebody serves with them.
    pub(crate) async fn hand_over(self, table: impl Fn() -> Vec<u8>) -> io::Result<()> {
        let socket = tokio::net::UnixListener::from_std(self.socket)?;
        let mut listeners = self.listeners;
        loop {
            let (stream, _) = socket.accept().await?;
            let stream = stream.into_std()?;
            let table = table();
            let given = spawn_blocking(move || {
                let given = give(stream, &listeners, &table);
                (given, listeners)
            });
            let result;
            (result, listeners) = given.await.map_err(io::Error::other)?;
            match result {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(error = %error, "a router that was to take over did not; this one goes on");
                }
            }
        }
    }
}

fn give(mut to: UnixStream, listeners: &[Listener], table: &[u8]) -> io::Result<()> {
    to.set_nonblocking(false)?;
    to.set_write_timeout(Some(PATIENCE))?;
    to.set_read_timeout(Some(PATIENCE))?;
    for (letter, listener) in listeners {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [listener.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&to, &[IoSlice::new(&[*letter])], &mut ancillary, SendFlags::NOSIGNAL)?;
    }
    to.write_all(&[ALL])?;
    to.write_all(&(table.len() as u64).to_be_bytes())?;
    to.write_all(table)?;
    let mut answer = [0];
    to.read_exact(&mut answer)?;
    if answer == [SERVING] { Ok(()) } else { Err(io::Error::other("it said something else")) }
}

fn receive(mut from: &UnixStream) -> io::Result<(Vec<(u8, TcpListener)>, Snapshot)> {
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
            break;
        }
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                listeners.extend(descriptors.map(|descriptor| (letter[0], TcpListener::from(descriptor))));
            }
        }
    }
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let mut table = Vec::new();
    from.take(u64::from_be_bytes(length)).read_to_end(&mut table)?;
    Ok((listeners, Snapshot::of_running(&table)?))
}
