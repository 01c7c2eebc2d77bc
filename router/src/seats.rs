//! How many connections there may be, of clients and to instances: as many as there are files. Clients get four fifths of them, so that there are
//! some left for their requests. Whoever comes when it is full is told so and has to go; those that are there go on.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Of the process's open files, those for its table, logs and sockets.
const OWN_FILES: usize = 64;
/// And for each worker: what it listens at, and what tells it of the rest.
const OF_WORKER: usize = 32;
/// One part of so many is for connections to instances alone.
const PARTS: usize = 5;
/// A limit of open files that leaves no room at all has room for so many.
const FEWEST: usize = 16;
/// How often it is said that it is full.
const COMPLAINS: Duration = Duration::from_secs(10);
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 38\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
                      Too many connections. Try again soon.\n";

/// Places for connections, of all workers.
#[derive(Debug)]
pub(crate) struct Seats {
    taken: AtomicUsize,
    of_clients: AtomicUsize,
    limit: usize,
    complained: Mutex<Option<Instant>>,
}

/// A connection's place until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    is_client: bool,
}

impl Seats {
    /// As many as this process may have files.
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let limit = files.saturating_sub(OWN_FILES + OF_WORKER * workers).max(FEWEST);
        let (taken, of_clients) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { taken, of_clients, limit, complained: Mutex::default() })
    }

    /// For a client.
    pub(crate) fn for_client(self: &Arc<Self>) -> Option<Seat> {
        let before = self.of_clients.fetch_add(1, Ordering::Relaxed);
        let seat = self.seat(true);
        seat.filter(|_| before < self.limit - self.limit / PARTS)
    }

    /// For a connection to an instance.
    pub(crate) fn for_instance(self: &Arc<Self>) -> Option<Seat> {
        self.seat(false)
    }

    fn seat(self: &Arc<Self>, is_client: bool) -> Option<Seat> {
        // One that is not given is given back.
        let seat = Seat { seats: Arc::clone(self), is_client };
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.limit).then_some(seat)
    }

    /// So many files are used by what listens.
    pub(crate) fn hold(&self, files: usize) {
        self.taken.fetch_add(files, Ordering::Relaxed);
    }

    /// They are free again.
    pub(crate) fn let_go(&self, files: usize) {
        self.taken.fetch_sub(files, Ordering::Relaxed);
    }

    /// Sends a client away. Over TLS it sees the end only.
    pub(crate) fn refuse(&self, stream: TcpStream, is_plain: bool) {
        self.complain(None);
        if is_plain && let Ok(mut stream) = stream.into_std() {
            // Whoever does not get it sees the end.
            let _ = stream.write(FULL);
        }
    }

    /// Says, now and then, that no more clients are let in.
    pub(crate) fn complain(&self, error: Option<&io::Error>) {
        let now = Instant::now();
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|last| now.duration_since(last) >= COMPLAINS) {
            *complained = Some(now);
            tracing::warn!(
                connections.open = self.taken.load(Ordering::Relaxed),
                connections.limit = self.limit,
                error = error.map(tracing::field::display),
                "new connections of clients are refused, those that are open go on; for more raise the hard limit of open files"
            );
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.fetch_sub(1, Ordering::Relaxed);
        if self.is_client {
            self.seats.of_clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
