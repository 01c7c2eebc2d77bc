//! A router at work, with real publishers, real instances on loopback, and clients that speak bytes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::details::Details;
use engine::feed::Feed;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::clock::{SystemClock, SystemRandom};
use model::routes::{AppRoute, Endpoint, Proof, RouteMode, WorkloadAddresses, WorkloadId};
use model::{AppId, LogSink, LogSource, RoutePolicy, Timestamp};
use router::{Router, RouterSettings, Timeouts};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};

/// Longer than anything here takes; only a broken router waits for so long.
pub(crate) const LONG: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Lines(Mutex<Vec<String>>);

impl LogSink for Lines {
    fn write(&self, _: AppId, _: Timestamp, source: &LogSource, line: &str) {
        self.0.lock().expect("no panic").push(format!("{source}: {line}"));
    }
}

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) names: Feed<AppId, AppRoute>,
    pub(crate) addresses: Feed<WorkloadId, WorkloadAddresses>,
    /// What the publisher of names is told of requests.
    pub(crate) details: Details,
    pub(crate) address: SocketAddr,
    pub(crate) tls_address: Option<SocketAddr>,
    pub(crate) log: Arc<Lines>,
    router: Option<Router>,
    /// A runtime of their own, so that they can die like a process.
    publishers: Option<Runtime>,
}

impl World {
    pub(crate) async fn new(timeouts: Timeouts) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = RouterSettings { timeouts, ..settings(folder.path()) };
        Self::with(folder, settings).await
    }

    /// With these settings, which keep everything in `folder`.
    pub(crate) async fn with(folder: TempDir, settings: RouterSettings) -> Self {
        let log = Arc::new(Lines::default());
        let settings = RouterSettings { log: Arc::<Lines>::clone(&log), ..settings };
        let router = Router::start(settings).expect("a router");
        let address = router.addresses()[0];
        let tls_address = router.tls_addresses().first().copied();
        let (names, addresses) = (Feed::new(BTreeMap::new()), Feed::new(BTreeMap::new()));
        let mut world = Self {
            folder,
            names,
            addresses,
            details: Details::default(),
            address,
            tls_address,
            log,
            router: Some(router),
            publishers: None,
        };
        world.publish(&[], &[]).await;
        world
    }

    /// Starts both publishers with these rows, and returns once the router follows them.
    pub(crate) async fn publish(&mut self, apps: &[&str], instances: &[&Endpoint]) {
        let names = apps.iter().map(|app| (app_id(app), app_row(app, RouteMode::serve(WorkloadId((*app).to_owned())))));
        // What has no instance has no row.
        let running = apps.iter().filter(|_| !instances.is_empty());
        let addresses = running.map(|app| (WorkloadId((*app).to_owned()), healthy(instances)));
        self.details = Details::default();
        self.names = Feed::new(names.collect()).with_details(&self.details);
        self.addresses = Feed::new(addresses.collect());
        let publishers = Runtime::new().expect("a runtime");
        let (names, at_names) = (self.names.clone(), self.folder.path().join("names.sock"));
        publishers.spawn(async move { names.serve(&at_names).await });
        let (addresses, at_addresses) = (self.addresses.clone(), self.folder.path().join("addresses.sock"));
        publishers.spawn(async move { addresses.serve(&at_addresses).await });
        self.publishers = Some(publishers);
        // Until the router follows, there is nobody whose acknowledgement the publishers could wait for.
        until(async || {
            let nobody_or_all =
                (self.names.served(u64::MAX, Duration::ZERO), self.addresses.served(u64::MAX, Duration::ZERO));
            !nobody_or_all.0.await && !nobody_or_all.1.await
        })
        .await;
        assert!(self.names.served(self.names.version(), LONG).await);
        assert!(self.addresses.served(self.addresses.version(), LONG).await);
    }

    /// Ends both publishers as SIGKILL does: their sockets stay and lead nowhere.
    pub(crate) fn kill_publishers(&mut self) {
        if let Some(publishers) = self.publishers.take() {
            publishers.shutdown_background();
        }
    }

    /// Ends the router and both publishers, once the table `mentions` all these on disk.
    pub(crate) async fn end_with_table_on_disk(&mut self, mentions: &[&str]) {
        let table = self.folder.path().join("table.json");
        until(async || {
            let text = std::fs::read_to_string(&table).unwrap_or_default();
            mentions.iter().all(|part| text.contains(part))
        })
        .await;
        self.kill_publishers();
        self.stop().await;
    }

    /// Starts a router with what another one left on disk.
    pub(crate) fn start_router(&mut self, timeouts: Timeouts) {
        let log = Arc::<Lines>::clone(&self.log);
        let router = Router::start(RouterSettings { timeouts, log, ..settings(self.folder.path()) });
        let router = router.expect("a router");
        self.address = router.addresses()[0];
        self.router = Some(router);
    }

    /// Waits until another router has taken over.
    pub(crate) async fn replaced(&self) {
        self.router.as_ref().expect("a router").replaced().await;
    }

    /// Ends the router, which another one has replaced.
    pub(crate) async fn leave(&mut self) {
        self.replaced().await;
        self.stop().await;
    }

    /// Ends the router, which this one has replaced.
    pub(crate) async fn succeeded_by(&mut self, next: Router) {
        self.leave().await;
        self.router = Some(next);
    }

    /// Stops the router, as SIGTERM does.
    pub(crate) async fn stop(&mut self) {
        if let Some(router) = self.router.take() {
            tokio::task::spawn_blocking(move || router.stop()).await.expect("stopped");
        }
    }

    /// Makes `<app>.localhost` an app in `mode`, and returns once that is served.
    pub(crate) async fn name(&self, app: &str, mode: RouteMode) {
        let version = self.names.set(&app_id(app), Some(app_row(app, mode)));
        assert!(self.names.served(version, LONG).await);
    }

    /// Makes `<app>.localhost` an app whose workload has the same name, and treats its requests by these settings.
    pub(crate) async fn rule(&self, app: &str, settings: &[(&str, &str)]) {
        self.rule_in(app, RouteMode::serve(WorkloadId(app.to_owned())), settings).await;
    }

    /// The same in `mode`.
    pub(crate) async fn rule_in(&self, app: &str, mode: RouteMode, settings: &[(&str, &str)]) {
        let mut policy = RoutePolicy::default();
        for (name, text) in settings {
            policy.set(name, text).expect(name);
        }
        let row = AppRoute { policy: Some(Box::new(policy)), ..app_row(app, mode) };
        let version = self.names.set(&app_id(app), Some(row));
        assert!(self.names.served(version, LONG).await);
    }

    /// Makes `<app>.localhost` an app whose workload has the same name, with these healthy instances.
    pub(crate) async fn serve(&self, app: &str, instances: &[&Endpoint]) {
        self.instances(app, instances).await;
        self.route(app).await;
    }

    /// Makes `<app>.localhost` an app whose workload has the same name.
    pub(crate) async fn route(&self, app: &str) {
        self.name(app, RouteMode::serve(WorkloadId(app.to_owned()))).await;
    }

    /// Sets the healthy instances of a workload, and returns the version once it is served.
    pub(crate) async fn instances(&self, workload: &str, instances: &[&Endpoint]) -> u64 {
        self.workload(workload, healthy(instances)).await
    }

    pub(crate) async fn workload(&self, workload: &str, row: WorkloadAddresses) -> u64 {
        let version = self.addresses.set(&WorkloadId(workload.to_owned()), Some(row));
        assert!(self.addresses.served(version, LONG).await);
        version
    }

    /// Waits for a line of the access log that has all `parts`.
    pub(crate) async fn logged(&self, parts: &[&str]) {
        let found = || {
            let lines = self.log.0.lock().expect("no panic");
            lines.iter().any(|line| parts.iter().all(|part| line.contains(part)))
        };
        for _ in 0..1000 {
            if found() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no line with {parts:?} in {:#?}", self.log.0.lock().expect("no panic"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_publishers();
    }
}

/// Of a router that keeps everything in `folder`, listens on a free port, and shows its log to nobody.
pub(crate) fn settings(folder: &Path) -> RouterSettings {
    RouterSettings {
        listen: vec![([127, 0, 0, 1], 0).into()],
        tls: None,
        ssh: None,
        tcp: None,
        inner: None,
        domain: "localhost".parse().expect("a host name"),
        names_socket: folder.join("names.sock"),
        addresses_socket: folder.join("addresses.sock"),
        controller_socket: folder.join("controller.sock"),
        on_demand_socket: folder.join("on-demand.sock"),
        snapshot: folder.join("table.json"),
        certificates_socket: folder.join("certificates.sock"),
        certificates: folder.join("certificates"),
        takeover: None,
        proxy_protocol: Vec::new(),
        trusted_proxies: Vec::new(),
        cache_limit: 64 << 20,
        tracing: None,
        workers: 2,
        timeouts: Timeouts::default(),
        log: Arc::new(Lines::default()),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    }
}

pub(crate) fn app_row(app: &str, mode: RouteMode) -> AppRoute {
    let hosts = vec![format!("{app}.localhost").parse().expect("a host name")];
    AppRoute { name: app.parse().expect("a name"), hosts, places: vec![], mode, policy: None, tcp: vec![] }
}

fn healthy(instances: &[&Endpoint]) -> WorkloadAddresses {
    let healthy = instances.iter().map(|endpoint| (*endpoint).clone()).collect();
    WorkloadAddresses { healthy, drain: LONG, ..WorkloadAddresses::default() }
}

/// The same app has the same id.
pub(crate) fn app_id(app: &str) -> AppId {
    let number = app.bytes().fold(1_u64, |sum, byte| sum * 31 % 999_983 + u64::from(byte));
    format!("00000000-0000-4000-8000-{number:012}").parse().expect("an id")
}

/// Tries until `done`; a router that never gets there fails the test.
pub(crate) async fn until(done: impl AsyncFn() -> bool) {
    let tries = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, tries).await.expect("it comes true");
}

/// What comes back for `bytes`, until the router closes the connection.
pub(crate) async fn send(router: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(router).await.expect("a connection");
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it ends").expect("readable");
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) async fn get(router: SocketAddr, app: &str, path: &str) -> String {
    send(router, format!("GET {path} HTTP/1.1\r\nHost: {app}.localhost\r\nConnection: close\r\n\r\n").as_bytes()).await
}

/// An instance that answers with `answer`; who asked is among the request's extensions.
pub(crate) async fn instance<F>(
    name: &str,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> Endpoint
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    mortal(name, answer).await.0
}

/// An instance that dies with all its connections when the task is aborted.
pub(crate) async fn mortal<F>(
    name: &str,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> (Endpoint, JoinHandle<()>)
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let (listener, endpoint) = listen(name).await;
    let life = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, peer)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |mut request| {
                request.extensions_mut().insert(peer);
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (endpoint, life)
}

/// An instance that says its name.
pub(crate) async fn named(name: &'static str) -> Endpoint {
    instance(name, move |_| async move { Response::new(Full::from(name)) }).await
}

/// An instance that tells what it was asked: request line, headers, body.
pub(crate) async fn mirror(name: &str) -> Endpoint {
    instance(name, |request| async move {
        let (parts, body) = request.into_parts();
        let mut text = format!("{} {} {:?}\n", parts.method, parts.uri, parts.version);
        for (name, value) in &parts.headers {
            let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let _ = write!(text, "\n{}", String::from_utf8_lossy(&body));
        Response::new(Full::from(text))
    })
    .await
}

/// Reads up to the empty line after a head.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// An instance that reads the head of a request and then does `then` with the connection.
pub(crate) async fn raw<F>(name: &str, then: impl Fn(TcpStream) -> F + Send + 'static) -> Endpoint
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, endpoint) = listen(name).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            tokio::spawn(then(stream));
        }
    });
    endpoint
}

/// An address at which nobody listens, nor will: its port is held as long as the tests run.
pub(crate) fn nobody(name: &str) -> Endpoint {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = socket.local_addr().expect("an address");
    let _held = socket.into_raw_fd();
    endpoint(name, address)
}

pub(crate) async fn listen(name: &str) -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, endpoint(name, address))
}

fn endpoint(name: &str, address: SocketAddr) -> Endpoint {
    let proof = Some(proof_of(std::process::id()));
    Endpoint { instance: name.to_owned(), dyno: "web.1".to_owned(), address, proof }
}

/// That a process lives.
pub(crate) fn proof_of(pid: u32) -> Proof {
    let netns = std::fs::metadata(format!("/proc/{pid}/ns/net")).expect("a namespace").ino();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    Proof::new(pid, &stat, netns).expect("a proof")
}
