//! git over SSH: connections are passed on to the controller's socket as they are, with one line before them that says who comes
//! (PROXY protocol, version 1). So nothing but the router listens where strangers come by.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::proxy::Shared;
use crate::{SshEntrance, trust};

/// Connections at once, somewhat more than the controller attends to.
const CONNECTIONS: usize = 256;
/// Pause after a port could not be had.
const RETRY: Duration = Duration::from_secs(5);
/// How long a client waits for a controller that was just restarted.
const CONTROLLER_BACK: Duration = Duration::from_secs(10);
/// Pause before a silent controller is asked again, and after a connection could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// The entrance, with the listeners that could be had at once.
pub(crate) struct Door {
    socket: PathBuf,
    listeners: Vec<(SocketAddr, Option<std::net::TcpListener>)>,
}

impl Door {
    /// With the listeners of the router before, where there are any.
    pub(crate) fn open(entrance: SshEntrance, mut inherited: Vec<std::net::TcpListener>) -> Self {
        let listeners = entrance.listen.into_iter().map(|address| {
            let of_before = inherited.iter().position(|one| one.local_addr().is_ok_and(|local| local == address));
            let listener = match of_before {
                Some(index) => Some(inherited.swap_remove(index)),
                None => std::net::TcpListener::bind(address).ok(),
            };
            (address, listener.filter(|listener| listener.set_nonblocking(true).is_ok()))
        });
        Self { socket: entrance.socket, listeners: listeners.collect() }
    }

    /// For the next router.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &std::net::TcpListener> {
        self.listeners.iter().filter_map(|(_, listener)| listener.as_ref())
    }
}

/// Passes connections on until `stop`, then those that are open for as long as `drain`.
pub(crate) fn run(runtime: &Runtime, door: Door, shared: &Arc<Shared>, stop: &CancellationToken) {
    let drain = shared.timeouts.drain;
    let (connections, places) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    let socket: Rc<PathBuf> = Rc::new(door.socket);
    LocalSet::new().block_on(runtime, async {
        for (address, listener) in door.listeners {
            let (connections, places, socket) = (connections.clone(), Arc::clone(&places), Rc::clone(&socket));
            let (shared, stop) = (Arc::clone(shared), stop.clone());
            spawn_local(async move {
                tokio::select! {
                    () = listen((address, listener), (&socket, &shared), &connections, &places) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        stop.cancelled().await;
        connections.close();
        // Whoever is cut off tries again; a push goes on without its client.
        let _ = timeout(drain, connections.wait()).await;
    });
}

/// Takes connections at one address. A port that somebody else has is tried again: requests are served meanwhile.
async fn listen(
    (address, listener): (SocketAddr, Option<std::net::TcpListener>),
    (socket, shared): (&Rc<PathBuf>, &Arc<Shared>),
    connections: &TaskTracker,
    places: &Arc<Semaphore>,
) {
    let mut complained = false;
    let mut begun = listener.and_then(|listener| TcpListener::from_std(listener).ok());
    let listener = loop {
        if let Some(listener) = begun.take() {
            break listener;
        }
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if complained => drop(error),
            Err(error) => {
                tracing::warn!(ssh.address = %address, error = %error, "git over SSH waits for its port (setting ssh_listen)");
                complained = true;
            }
        }
        sleep(RETRY).await;
    };
    loop {
        // Whoever comes when it is full waits in the listener's own queue.
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, from)) => {
                let (socket, shared) = (Rc::clone(socket), Arc::clone(shared));
                spawn_local(connections.track_future(async move {
                    let _place = place;
                    if let Err(error) = pass(client, (from, address), &socket, &shared).await {
                        tracing::debug!(error = %error, "a connection over SSH broke");
                    }
                }));
            }
            // Out of descriptors, most likely: it passes.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn pass(
    mut client: TcpStream,
    (mut from, mut to): (SocketAddr, SocketAddr),
    socket: &Path,
    shared: &Shared,
) -> io::Result<()> {
    if shared.trust.is_balancer(from.ip()) {
        let said = timeout(shared.timeouts.client_idle, trust::introduction(&mut client)).await??;
        (from, to) = said.map_or((from, to), |ends| (ends.client, ends.asked));
    }
    // It only costs speed if it fails.
    let _ = client.set_nodelay(true);
    let mut controller = connect(socket).await?;
    controller.write_all(introduction(from, to).as_bytes()).await?;
    copy_bidirectional(&mut client, &mut controller).await.map(|_| ())
}

async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + CONTROLLER_BACK;
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

/// Who comes, and where to.
fn introduction(from: SocketAddr, to: SocketAddr) -> String {
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_is_said_in_one_line() {
        let address = |text: &str| text.parse().expect("an address");
        let said = introduction(address("192.0.2.7:50000"), address("0.0.0.0:2222"));
        assert_eq!(said, "PROXY TCP4 192.0.2.7 0.0.0.0 50000 2222\r\n");
        let said = introduction(address("[2001:db8::1]:50000"), address("[::]:2222"));
        assert_eq!(said, "PROXY TCP6 2001:db8::1 :: 50000 2222\r\n");
    }
}
