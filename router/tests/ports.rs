//! A machine that has no port left for one more connection to an instance: in a network namespace of its own, where ports are few.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use http::Response;
use http_body_util::Full;
use router::{RouterSettings, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::world::{LONG, World, instance, named, read_head, settings};

/// Set where the test runs in its namespace.
const INSIDE: &str = "TEST_WITH_FEW_PORTS";
const TEST: &str = "ports::without_a_free_port_requests_are_refused_at_once_and_no_instance_is_to_blame";

#[test]
fn without_a_free_port_requests_are_refused_at_once_and_no_instance_is_to_blame() {
    if std::env::var_os(INSIDE).is_some() {
        tokio::runtime::Runtime::new().expect("a runtime").block_on(with_few_ports());
        return;
    }
    let mut command = Command::new("unshare");
    if std::fs::metadata("/proc/self").expect("proc").uid() != 0 {
        command.arg("--map-root-user");
    }
    command.arg("--net").arg(std::env::current_exe().expect("this program"));
    let output = command.args(["--exact", TEST, "--nocapture"]).env(INSIDE, "1").output().expect("unshare");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    say(said.lines().find(|line| line.starts_with("| ")).expect("a row"));
}

/// Says something to whoever makes docs/faults.md.
#[expect(clippy::print_stderr, reason = "the figures are what it is for")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// How many requests were answered, and how many of them by an error.
static ANSWERED: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// A client whose port is none of the few.
struct Visitor(TcpStream);

impl Visitor {
    async fn new(router: SocketAddr) -> Self {
        static PORT: AtomicU16 = AtomicU16::new(10_000);
        let socket = TcpSocket::new_v4().expect("a socket");
        let port = PORT.fetch_add(1, Ordering::Relaxed);
        socket.bind((Ipv4Addr::LOCALHOST, port).into()).expect("a free port");
        Self(socket.connect(router).await.expect("a connection"))
    }

    async fn ask(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.expect("sent");
    }

    async fn answer(&mut self) -> String {
        let head = timeout(LONG, read_head(&mut self.0)).await.expect("it does not hang");
        let length = head.to_ascii_lowercase();
        let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        self.0.read_exact(&mut body).await.expect("a body");
        ANSWERED.fetch_add(1, Ordering::Relaxed);
        LOST.fetch_add(u64::from(!head.starts_with("HTTP/1.1 200")), Ordering::Relaxed);
        head + &String::from_utf8_lossy(&body)
    }

    async fn get(&mut self, path: &str) -> String {
        self.ask(path).await;
        self.answer().await
    }
}

async fn get(router: SocketAddr) -> String {
    Visitor::new(router).await.get("/").await
}

fn expect_refused(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("H99"), "{answer}");
    assert!(answer.contains("Too many connections"), "{answer}");
}

async fn with_few_ports() {
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip").success());
    // Whoever hangs here, or blames the instance, does so for longer than the test waits.
    let (connect, boot, settle, quarantine) = (LONG * 2, LONG * 2, LONG * 2, LONG * 2);
    let timeouts = Timeouts { connect, boot, settle, quarantine, ..Timeouts::default() };
    let folder = tempfile::tempdir().expect("a folder");
    // One worker, so that it is known who has the connections that rest.
    let settings = RouterSettings { timeouts, workers: 1, ..settings(folder.path()) };
    let world = World::with(folder, settings).await;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let go = Arc::new(Semaphore::new(0));
    let one = instance("one", {
        let go = Arc::clone(&go);
        move |request| {
            let (go, arrived) = (Arc::clone(&go), arrived.clone());
            async move {
                if request.uri().path() == "/hold" {
                    let _ = arrived.send(());
                    go.acquire().await.expect("open").forget();
                }
                Response::new(Full::from("one"))
            }
        }
    })
    .await;
    let two = named("two").await;
    world.serve("shop", &[&one]).await;
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40007").expect("a range of ports");

    let mut held = Vec::new();
    let refused = loop {
        let mut visitor = Visitor::new(world.address).await;
        visitor.ask("/hold").await;
        tokio::select! {
            arrival = arrivals.recv() => arrival.expect("open"),
            answer = visitor.answer() => break answer,
        }
        held.push(visitor);
    };
    assert!((1..=8).contains(&held.len()), "{} connections", held.len());
    expect_refused(&refused);
    world.logged(&["at=error code=H99 desc=\"Platform error: no port or file is free", "dyno=web.1"]).await;
    for _ in 0..20 {
        expect_refused(&get(world.address).await);
    }

    // A connection that is there is used again, and only by one at a time.
    go.add_permits(1);
    assert!(held[0].answer().await.ends_with("one"));
    for _ in 0..5 {
        assert!(held[0].get("/").await.ends_with("one"));
    }
    held[0].ask("/hold").await;
    arrivals.recv().await.expect("open");
    expect_refused(&get(world.address).await);

    // To another instance there are ports.
    world.instances("shop", &[&one, &two]).await;
    for _ in 0..5 {
        assert!(get(world.address).await.ends_with("two"));
    }
    world.instances("shop", &[&one]).await;
    expect_refused(&get(world.address).await);

    let begun = Instant::now();
    go.add_permits(held.len());
    for visitor in &mut held {
        assert!(visitor.answer().await.ends_with("one"));
    }
    let answer = get(world.address).await;
    let right = begun.elapsed().as_secs_f64();
    for _ in 0..20 {
        assert!(get(world.address).await.ends_with("one"));
    }
    assert!(answer.ends_with("one"), "nobody blames the instance: {answer}");
    let (lost, all) = (LOST.load(Ordering::Relaxed), ANSWERED.load(Ordering::Relaxed));
    say(&format!("| no port is left for connections to a dyno | {right:.1} s | {lost} of {all} |"));
}
