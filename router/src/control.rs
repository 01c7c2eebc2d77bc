//! Starts and stops a router, and follows the route table for its workers.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
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
    raise_file_limit();
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
    let workers = match settings.workers {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        workers => workers,
    };
    let mut sites = vec![site(&settings.listen, false)?];
    let addresses: io::Result<Vec<_>> = sites[0].1.iter().map(TcpListener::local_addr).collect();
    let addresses = addresses.map_err(RouterError::Thread)?;
    for _ in 1..workers {
        sites.push(site(&addresses, true)?);
    }
    Ok((sites, addresses))
}

fn site(addresses: &[SocketAddr], beside_others: bool) -> Result<Site, RouterError> {
    let runtime = runtime()?;
    let context = runtime.enter();
    let mut listeners = Vec::new();
    for address in addresses {
        match server::listen(*address, beside_others) {
            Ok(listener) => listeners.push(listener),
            Err(error) if has_no_ipv6(*address, &error) && addresses.iter().any(SocketAddr::is_ipv4) => {
                tracing::info!(address = %address, error = %error, "this machine has no IPv6 to listen on");
            }
            Err(source) => return Err(RouterError::Listen { address: *address, source }),
        }
    }
    drop(context);
    Ok((runtime, listeners))
}

fn has_no_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let absent = [Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT].map(|errno| Some(errno as i32));
    address.ip() == Ipv6Addr::LOCALHOST && absent.contains(&error.raw_os_error())
}

/// Every request takes two file descriptors, and the usual soft limit of 1024 is meant for programs that use select(2).
fn raise_file_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(error = %error, "cannot raise the limit of open files");
    }
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
