//! The router alone, as it is in the platform, with a route table that stays as it is: for measurements (`make bench-router`).
//!
//! `router serve` runs one, `router publish` serves the table on the two sockets that a router follows; `router serve --hosts` does both.
//! The access log goes to a file, by a queue and a thread of its own as in the platform.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use clap::{Args, Parser};
use engine::feed::Feed;
use model::clock::{SystemClock, SystemRandom};
use model::routes::{AppRoute, Endpoint, Proof, RouteMode, WorkloadAddresses, WorkloadId};
use model::{AppId, LogSink, LogSource, Timestamp};
use router::{RouterSettings, Timeouts, TlsEntrance};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failed = Box<dyn std::error::Error>;

/// Runs a router with a table that stays as it is.
#[derive(Parser)]
enum Command {
    /// Routes, and publishes its own table if there are hosts.
    Serve {
        /// Where it takes requests.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Where it takes requests over TLS.
        #[arg(long, requires = "certificate")]
        tls_listen: Option<SocketAddr>,
        /// PEM files of its key and its certificates.
        #[arg(long)]
        certificate: Vec<PathBuf>,
        /// Threads that serve requests.
        #[arg(long, default_value_t = 1)]
        workers: usize,
        /// Where its sockets, its log and its table are.
        #[arg(long)]
        folder: PathBuf,
        #[command(flatten)]
        table: TableArgs,
    },
    /// Publishes a table.
    Publish {
        /// Where the sockets are.
        #[arg(long)]
        folder: PathBuf,
        #[command(flatten)]
        table: TableArgs,
    },
}

#[derive(Args)]
struct TableArgs {
    /// Hosts of apps of their own, each with one instance.
    #[arg(long, default_value_t = 0)]
    hosts: u32,
    /// Address of all the instances.
    #[arg(long, env = "UPSTREAM", default_value = "127.0.0.1:18000")]
    upstream: SocketAddr,
    /// Name of the first host. The next ones are `h1.` and so on before it.
    #[arg(long, env = "BENCH_HOST", default_value = "bench.test")]
    host: String,
}

fn main() -> Result<(), Failed> {
    match Command::parse() {
        Command::Serve { listen, tls_listen, certificate, workers, folder, table } => {
            let began = Instant::now();
            let tls = tls_listen.map(|listen| entrance(&folder, listen, &certificate)).transpose()?;
            if table.hosts > 0 {
                let folder = folder.clone();
                thread::spawn(move || publish(&folder, &table).unwrap_or_else(|error| fail(&error)));
            }
            let settings = settings(&folder, listen, tls, workers)?;
            writeln!(io::stderr(), "settings after {} ms", began.elapsed().as_millis())?;
            Ok(router::serve(settings)?)
        }
        Command::Publish { folder, table } => publish(&folder, &table),
    }
}

fn fail(error: &Failed) {
    let _ = writeln!(io::stderr(), "{error}");
    std::process::exit(1);
}

fn settings(
    folder: &Path,
    listen: SocketAddr,
    tls: Option<TlsEntrance>,
    workers: usize,
) -> Result<RouterSettings, Failed> {
    Ok(RouterSettings {
        listen: vec![listen],
        tls,
        ssh: None,
        inner: None,
        domain: "platform.test".parse()?,
        names_socket: folder.join("names.sock"),
        addresses_socket: folder.join("addresses.sock"),
        controller_socket: folder.join("controller.sock"),
        snapshot: folder.join("table.json"),
        takeover: None,
        proxy_protocol: Vec::new(),
        trusted_proxies: Vec::new(),
        certificates_socket: folder.join("certificates.sock"),
        certificates: folder.join("certificates"),
        workers,
        timeouts: Timeouts::default(),
        log: LogFile::open(&folder.join("access.log"))?,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    })
}

fn entrance(folder: &Path, listen: SocketAddr, certificate: &[PathBuf]) -> io::Result<TlsEntrance> {
    let file = folder.join("certificate.pem");
    let parts: io::Result<Vec<_>> = certificate.iter().map(std::fs::read).collect();
    std::fs::write(&file, parts?.concat())?;
    Ok(TlsEntrance { listen: vec![listen], certificate: file, tickets: folder.join("tickets.json") })
}

/// Serves the table until the end of the process.
fn publish(folder: &Path, table: &TableArgs) -> Result<(), Failed> {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for number in 0..table.hosts {
        let id: AppId = format!("00000000-0000-4000-8000-{number:012}").parse()?;
        let workload = WorkloadId(format!("{id}.v1.web"));
        let host = if number == 0 { table.host.clone() } else { format!("h{number}.{}", table.host) };
        let mode = RouteMode::serve(workload.clone());
        names.push((
            id,
            AppRoute { name: format!("app-{number}").parse()?, hosts: vec![host.parse()?], mode, policy: None },
        ));
        let endpoint = Endpoint {
            instance: format!("i{number}"),
            dyno: "web.1".to_owned(),
            address: table.upstream,
            proof: None::<Proof>,
        };
        addresses.push((workload, WorkloadAddresses { healthy: vec![endpoint], ..WorkloadAddresses::default() }));
    }
    let names: Feed<AppId, AppRoute> = Feed::new(names.into_iter().collect());
    let addresses: Feed<WorkloadId, WorkloadAddresses> = Feed::new(addresses.into_iter().collect());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (at_names, at_addresses) = (folder.join("names.sock"), folder.join("addresses.sock"));
    runtime.block_on(async { tokio::try_join!(names.serve(&at_names), addresses.serve(&at_addresses)) })?;
    Ok(())
}

/// Lines on their way into a file, which nobody waits for.
struct LogFile {
    waiting: Mutex<String>,
    filled: Condvar,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Arc<Self>> {
        let mut file = File::create(path)?;
        let log = Arc::new(Self { waiting: Mutex::default(), filled: Condvar::new() });
        let shared = Arc::clone(&log);
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || {
            loop {
                let mut waiting = shared.lock();
                while waiting.is_empty() {
                    waiting = shared.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
                let lines = std::mem::take(&mut *waiting);
                drop(waiting);
                if let Err(error) = file.write_all(lines.as_bytes()) {
                    fail(&error.into());
                }
            }
        })?;
        Ok(log)
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSink for LogFile {
    fn write(&self, app: AppId, time: Timestamp, source: &LogSource, line: &str) {
        self.write_all(source, &mut std::iter::once((app, time, line)));
    }

    fn write_all(&self, source: &LogSource, lines: &mut dyn Iterator<Item = (AppId, Timestamp, &str)>) {
        let (mut written, mut time_text) = (None, String::new());
        let mut waiting = self.lock();
        for (_, time, line) in lines {
            if written.replace(time) != Some(time) {
                time_text = time.to_log_time();
            }
            // Writing to a String cannot fail.
            let _ = writeln!(waiting, "{time_text} {source}: {line}");
        }
        drop(waiting);
        self.filled.notify_all();
    }
}
