//! The router alone, as it is in the platform, with a route table that stays as it is: for measurements (`make bench-router`).
//!
//! `router serve` runs one, `router publish` serves the table on the two sockets that a router follows; `router serve --hosts` does both.
//! `router change` says how long it takes from a change of the table to the first request that is served by it.
//! The access log goes to a file, by a queue and a thread of its own as in the platform.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Parser};
use engine::feed::Feed;
use model::clock::{SystemClock, SystemRandom};
use model::routes::{AppRoute, Endpoint, Proof, RouteMode, WorkloadAddresses, WorkloadId};
use model::{AppId, LogSink, LogSource, RoutePolicy, Timestamp};
use router::{Router, RouterSettings, Timeouts, TlsEntrance};

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
    /// Adds one host after another to a table that routers follow.
    Change {
        /// Where the sockets are.
        #[arg(long)]
        folder: PathBuf,
        /// Routers that follow it.
        #[arg(long, default_value_t = 1)]
        routers: usize,
        /// Changes.
        #[arg(long, default_value_t = 200)]
        times: u32,
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
    /// A process by which the instances are proven.
    #[arg(long)]
    proof: Option<u32>,
    /// How requests to the apps are treated, as `platform routing` has it: `cache=on`.
    #[arg(long, value_name = "NAME=VALUE")]
    routing: Vec<String>,
}

impl TableArgs {
    fn policy(&self) -> Result<Option<Box<RoutePolicy>>, Failed> {
        let mut policy = RoutePolicy::default();
        for setting in &self.routing {
            let (name, text) = setting.split_once('=').ok_or("a setting is NAME=VALUE")?;
            policy.set(name, text)?;
        }
        Ok((policy != RoutePolicy::default()).then(|| Box::new(policy)))
    }
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
        Command::Change { folder, routers, times, table } => change(&folder, routers, times, &table),
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
        tcp: None,
        inner: None,
        domain: "platform.test".parse()?,
        names_socket: folder.join("names.sock"),
        addresses_socket: folder.join("addresses.sock"),
        controller_socket: folder.join("controller.sock"),
        on_demand_socket: folder.join("on-demand.sock"),
        snapshot: folder.join("table.json"),
        takeover: None,
        proxy_protocol: Vec::new(),
        trusted_proxies: Vec::new(),
        cache_limit: 64 << 20,
        tracing: None,
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

type Names = Feed<AppId, AppRoute>;
type Addresses = Feed<WorkloadId, WorkloadAddresses>;

/// Serves the table until the end of the process.
fn publish(folder: &Path, table: &TableArgs) -> Result<(), Failed> {
    let (names, addresses) = feeds(table)?;
    serve_feeds(folder, names, addresses)
}

fn serve_feeds(folder: &Path, names: Names, addresses: Addresses) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (at_names, at_addresses) = (folder.join("names.sock"), folder.join("addresses.sock"));
    runtime.block_on(async { tokio::try_join!(names.serve(&at_names), addresses.serve(&at_addresses)) })?;
    Ok(())
}

fn feeds(table: &TableArgs) -> Result<(Names, Addresses), Failed> {
    let proof = table.proof.map(proof).transpose()?.flatten();
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for number in 0..table.hosts {
        let (id, workload) = app(number)?;
        let host = if number == 0 { table.host.clone() } else { format!("h{number}.{}", table.host) };
        names.push((id, AppRoute { policy: table.policy()?, ..route(number, &host, &workload)? }));
        let instance = format!("{:08x}-0000-4000-8000-{number:012}", number.wrapping_mul(2_654_435_769));
        let endpoint = Endpoint { instance, dyno: "web.1".to_owned(), address: table.upstream, proof };
        addresses.push((workload, WorkloadAddresses { healthy: vec![endpoint], ..WorkloadAddresses::default() }));
    }
    Ok((Feed::new(names.into_iter().collect()), Feed::new(addresses.into_iter().collect())))
}

fn app(number: u32) -> Result<(AppId, WorkloadId), Failed> {
    let id: AppId = format!("00000000-0000-4000-8000-{number:012}").parse()?;
    Ok((id, WorkloadId(format!("{id}.v1.web"))))
}

fn route(number: u32, host: &str, workload: &WorkloadId) -> Result<AppRoute, Failed> {
    let (name, mode) = (format!("app-{number}").parse()?, RouteMode::serve(workload.clone()));
    Ok(AppRoute { name, hosts: vec![host.parse()?], places: vec![], mode, policy: None, tcp: vec![] })
}

fn proof(pid: u32) -> io::Result<Option<Proof>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(Proof::new(pid, &stat, std::fs::metadata(format!("/proc/{pid}/ns/net"))?.ino()))
}

/// Prints how long it takes until every router serves a host that is new.
fn change(folder: &Path, routers: usize, times: u32, table: &TableArgs) -> Result<(), Failed> {
    let (names, addresses) = feeds(table)?;
    thread::spawn({
        let (folder, names) = (folder.to_owned(), names.clone());
        move || serve_feeds(&folder, names, addresses).unwrap_or_else(|error| fail(&error))
    });
    let (mut running, mut clients) = (Vec::new(), Vec::new());
    for number in 0..routers {
        let own = folder.join(format!("router-{number}"));
        std::fs::create_dir_all(&own)?;
        let sockets = [folder.join("names.sock"), folder.join("addresses.sock")];
        let [names_socket, addresses_socket] = sockets;
        let own = settings(&own, SocketAddr::from(([127, 0, 0, 1], 0)), None, 1)?;
        let router = Router::start(RouterSettings { names_socket, addresses_socket, ..own })?;
        let client = TcpStream::connect(router.addresses()[0])?;
        client.set_nodelay(true)?;
        clients.push(client);
        running.push(router);
    }
    for client in &mut clients {
        while !is_served(client, &table.host)? {
            thread::sleep(Duration::from_millis(10));
        }
    }
    let (_, workload) = app(0)?;
    let mut took = Vec::new();
    for number in table.hosts..table.hosts + times {
        let host = format!("new{number}.{}", table.host);
        let ((id, _), row) = (app(number)?, route(number, &host, &workload)?);
        // The last change has been forgotten by whoever had a hand in it.
        thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        names.set(&id, Some(row));
        for client in &mut clients {
            while !is_served(client, &host)? {}
        }
        took.push(began.elapsed());
    }
    took.sort();
    let (half, most) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    writeln!(io::stdout(), "{} {}", half.as_micros(), most.as_micros())?;
    running.into_iter().for_each(Router::stop);
    Ok(())
}

/// Whether a request to this host is answered well.
fn is_served(client: &mut TcpStream, host: &str) -> io::Result<bool> {
    client.write_all(format!("GET /1k HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let count = client.read(&mut chunk)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or_default();
        if body.len() >= length {
            return Ok(head.starts_with("http/1.1 200"));
        }
    }
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
        let (mut written, mut time_text, source) = (None, String::new(), source.to_string());
        let mut waiting = self.lock();
        for (_, time, line) in lines {
            if written.replace(time) != Some(time) {
                time_text = time.to_log_time();
            }
            waiting.extend([&time_text, " ", &source, ": ", line, "\n"]);
        }
        drop(waiting);
        self.filled.notify_all();
    }
}
