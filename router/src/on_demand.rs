//! Host names that nobody knows, on a platform where an app wants to be asked about them (`domain_ask`): the controller asks, takes in the
//! name that an app says is its own, and gets a certificate. Whoever came by the name is held meanwhile: not for long, and not many at a
//! time. The others are answered as if nobody could be asked, and find the name there when they come again.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use http_body_util::Empty;
use hyper::body::Bytes;
use model::AppId;
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::platform;
use crate::proxy::Worker;
use crate::tls::ACME_TLS;

/// Most clients that are held at one time.
const MOST_HELD: usize = 256;
/// How long a name about which the controller said no is not asked about again from here.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Most names of which that is known; more than that come only from somebody who makes them up.
const MOST_REMEMBERED: usize = 4096;

/// Apps that want to be asked. One control thread writes, every worker reads.
#[derive(Default)]
pub(crate) struct Askers {
    apps: Mutex<BTreeSet<AppId>>,
    any: AtomicBool,
}

impl Askers {
    /// Says whether an app is one of them.
    pub(crate) fn set(&self, app: AppId, asks: bool) {
        if !asks && !self.any() {
            return;
        }
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        if asks {
            apps.insert(app);
        } else {
            apps.remove(&app);
        }
        self.any.store(!apps.is_empty(), Ordering::Relaxed);
    }

    /// Whether there is one.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }
}

/// Asks the controller, for all workers.
pub(crate) struct OnDemand {
    socket: PathBuf,
    patience: Duration,
    held: AtomicUsize,
    refused: Mutex<HashMap<Box<str>, Instant>>,
}

/// What somebody needs.
#[derive(Clone, Copy)]
enum Need {
    Name,
    Certificate,
}

/// A client that waits, until it is dropped.
struct Held<'a>(&'a AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl OnDemand {
    /// By the controller's socket, and for at most so long.
    pub(crate) fn new(socket: PathBuf, patience: Duration) -> Self {
        Self { socket, patience, held: AtomicUsize::new(0), refused: Mutex::default() }
    }

    fn hold(&self) -> Option<Held<'_>> {
        let before = self.held.fetch_add(1, Ordering::AcqRel);
        let held = Held(&self.held);
        (before < MOST_HELD).then_some(held)
    }

    fn is_refused(&self, host: &str) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= MOST_REMEMBERED {
            refused.retain(|_, since| since.elapsed() < REMEMBERED);
        }
        refused.len() >= MOST_REMEMBERED || refused.get(host).is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    fn refuse(&self, host: &str) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(host.into(), Instant::now());
    }

    /// Whether it is there now.
    async fn ask(&self, host: &str, need: Need) -> bool {
        if self.is_refused(host) {
            return false;
        }
        let Some(_held) = self.hold() else { return false };
        let what = match need {
            Need::Name => "names",
            Need::Certificate => "certificates",
        };
        let Ok(request) =
            Request::get(format!("/{what}/{host}")).header("host", "localhost").body(Empty::<Bytes>::new())
        else {
            return false;
        };
        let is_there = match timeout(self.patience, platform::send_to(&self.socket, request)).await {
            Ok(Ok(response)) => response.status().is_success(),
            Ok(Err(error)) => {
                tracing::debug!(error = %error, host, "nobody can be asked about a name");
                false
            }
            Err(_) => false,
        };
        if !is_there {
            self.refuse(host);
        }
        is_there
    }
}

/// Whether a name that the table does not know is there after all.
pub(crate) async fn name(worker: &Worker, host: &str) -> bool {
    may_be_asked_about(worker, host) && worker.shared.on_demand.ask(host, Need::Name).await
}

/// Begins TLS; first, a name without a certificate of its own gets one, if an app wants it.
pub(crate) async fn accept(
    worker: &Worker,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    if !worker.shared.table.askers.any() {
        return acceptor.accept(stream).await;
    }
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let hello = start.client_hello();
    let is_authority = hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ACME_TLS));
    let host = hello.server_name().filter(|_| !is_authority).map(str::to_ascii_lowercase);
    if let Some(host) = host
        && worker.shared.shown.find(&host).is_none()
        && may_be_asked_about(worker, &host)
    {
        worker.shared.on_demand.ask(&host, Need::Certificate).await;
    }
    start.into_stream(acceptor.config().clone()).await
}

/// Whether there is an app that wants to be asked, and this is a name that it may have.
fn may_be_asked_about(worker: &Worker, host: &str) -> bool {
    let is_name = || host.contains('.') && !worker.shared.own_hosts.cover(host);
    worker.shared.table.askers.any() && is_name()
}
