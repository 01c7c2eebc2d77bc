//! Starts and stops a router, and follows the route table for its workers.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::{LocalSet, spawn_local};
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::host::OwnHosts;
use crate::merge::Merger;
use crate::proxy::Shared;
use crate::snapshot::Snapshot;
use crate::table::Table;
use crate::{RouterError, RouterSettings, follow, server};

/// Runs a router until SIGTERM or SIGINT, then until its requests in flight have their answers. It has threads of its own:
/// call it outside of any async runtime.
pub fn serve(settings: RouterSettings) -> Result<(), RouterError> {
    let runtime = runtime()?;
    let listen = |kind| {
        let _context = runtime.enter();
        signal(kind).map_err(RouterError::Thread)
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let router = Router::start(settings)?;
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    router.stop();
    Ok(())
}

/// A router at work.
pub struct Router {
    addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    workers: Vec<JoinHandle<()>>,
    control: JoinHandle<()>,
    log: Arc<AccessLog>,
    log_writer: JoinHandle<()>,
}

impl Router {
    /// Starts one with the last table that was kept. Once this returns it serves.
    pub fn start(settings: RouterSettings) -> Result<Self, RouterError> {
        let table = Arc::new(Table::new());
        let log = Arc::new(AccessLog::new(Arc::clone(&settings.clock)));
        let shared = Arc::new(Shared {
            table: Arc::clone(&table),
            own_hosts: OwnHosts::new(&settings.domain),
            controller_socket: settings.controller_socket.clone(),
            timeouts: settings.timeouts.clone(),
            clock: Arc::clone(&settings.clock),
            log: Arc::clone(&log),
        });
        let (sender, drained) = mpsc::unbounded_channel();
        let merger = Merger::new(table, Snapshot::load(&settings.snapshot), sender);
        let (sites, addresses) = listen(&settings)?;
        let stop = CancellationToken::new();
        let mut workers = Vec::new();
        for (runtime, listeners) in sites {
            let (shared, random, stop) = (Arc::clone(&shared), Arc::clone(&settings.random), stop.clone());
            workers.push(spawn("router-worker", move || {
                server::run(&runtime, listeners, shared, random.as_ref(), &stop);
            })?);
        }
        let log_writer = spawn("router-log", {
            let (log, sink) = (Arc::clone(&log), Arc::clone(&settings.log));
            move || log.write_to(sink.as_ref())
        })?;
        let runtime = runtime()?;
        let control = spawn("router-control", {
            let feeds = Feeds { merger, drained, names: settings.names_socket, addresses: settings.addresses_socket };
            let stop = stop.clone();
            move || feeds.follow(&runtime, &settings.snapshot, &stop)
        })?;
        Ok(Self { addresses, stop, workers, control, log, log_writer })
    }

    /// Where it listens, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts nothing more, lets requests in flight have their answers within [`Timeouts::drain`](crate::Timeouts),
    /// writes what is left of the log, and ends.
    pub fn stop(self) {
        self.stop.cancel();
        for worker in self.workers {
            end(worker);
        }
        end(self.control);
        self.log.close();
        end(self.log_writer);
    }
}

fn end(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the router ended by a panic");
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, RouterError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(RouterError::Thread)
}

fn runtime() -> Result<Runtime, RouterError> {
    Builder::new_current_thread().enable_all().build().map_err(RouterError::Thread)
}

type Site = (Runtime, Vec<TcpListener>);

/// A runtime for each worker with listeners on all addresses, and the addresses with their real ports.
fn listen(settings: &RouterSettings) -> Result<(Vec<Site>, Vec<SocketAddr>), RouterError> {
    let mut addresses = settings.listen.clone();
    let mut sites: Vec<Site> = Vec::new();
    for number in 0..settings.workers.max(1) {
        let runtime = runtime()?;
        let context = runtime.enter();
        let mut listeners = Vec::new();
        for address in &mut addresses {
            let failed = |source: io::Error| RouterError::Listen { address: *address, source };
            let listener = server::listen(*address, number > 0).map_err(failed)?;
            *address = listener.local_addr().map_err(failed)?;
            listeners.push(listener);
        }
        drop(context);
        sites.push((runtime, listeners));
    }
    Ok((sites, addresses))
}

/// What the control thread works with.
struct Feeds {
    merger: Merger,
    drained: mpsc::UnboundedReceiver<String>,
    names: PathBuf,
    addresses: PathBuf,
}

impl Feeds {
    fn follow(self, runtime: &Runtime, snapshot: &Path, stop: &CancellationToken) {
        let merger = Rc::new(RefCell::new(self.merger));
        let changed = Rc::new(Notify::new());
        let (names, addresses, drained) = (self.names, self.addresses, self.drained);
        LocalSet::new().block_on(runtime, async {
            spawn_local({
                let (merger, changed) = (Rc::clone(&merger), Rc::clone(&changed));
                // Nothing is drained by names: the channel has no sender.
                let drained = mpsc::unbounded_channel().1;
                async move {
                    let apply = |update| {
                        merger.borrow_mut().apply_names(update);
                        changed.notify_one();
                    };
                    follow::follow(&names, drained, apply).await;
                }
            });
            spawn_local({
                let (merger, changed) = (Rc::clone(&merger), Rc::clone(&changed));
                async move {
                    let apply = |update| {
                        merger.borrow_mut().apply_addresses(update);
                        changed.notify_one();
                    };
                    follow::follow(&addresses, drained, apply).await;
                }
            });
            tokio::select! {
                () = follow::keep(snapshot, merger, changed) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}
