//! Deploys and scale changes while requests are in flight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Response;
use http_body_util::Full;
use model::routes::{Endpoint, RouteMode, WorkloadId};
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::world::{LONG, World, get, instance, mortal, named, until};

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_releases_follow_each_other() {
    follow_each_other(60, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes; its figure is in docs/faults.md"]
async fn no_request_fails_in_ten_minutes_of_a_release_a_second() {
    let answered = follow_each_other(600, Duration::from_secs(1)).await;
    say(&format!("| the instances of an app are replaced once a second, for ten minutes | – | 0 of {answered} |"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes an hour; its figure is in docs/faults.md"]
async fn no_request_fails_in_an_hour_without_controller_and_host_role() {
    let mut world = World::new(Timeouts::default()).await;
    world.serve("shop", &[&release(0).await.0]).await;
    world.kill_publishers();
    let load = Load::new(world.address, Duration::from_millis(100));
    tokio::time::sleep(LONG * 120).await;
    let answered = load.end().await;
    world.publish(&["shop"], &[&named("new").await]).await;
    assert!(get(world.address, "shop", "/").await.ends_with("new"), "it follows whoever comes back");
    say(&format!("| controller and host role are away for an hour | – | 0 of {answered} |"));
}

/// Says something to whoever makes docs/faults.md.
#[expect(clippy::print_stderr, reason = "the figures are what it is for")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Replaces the instances of an app so many times under load, and says how many requests were answered meanwhile. Not one may fail.
async fn follow_each_other(releases: u32, pause: Duration) -> u64 {
    let world = World::new(Timeouts::default()).await;
    let (mut old, mut life) = release(0).await;
    world.instances("shop.v0", &[&old]).await;
    world.name("shop", RouteMode::serve(WorkloadId("shop.v0".to_owned()))).await;
    // Whoever asks for ten minutes need not ask as often as it can.
    let load = Load::new(world.address, pause / 50);
    for version in 1..=releases {
        let (new, new_life) = release(version).await;
        let workload = format!("shop.v{version}");
        world.instances(&workload, &[&new]).await;
        world.name("shop", RouteMode::serve(WorkloadId(workload))).await;
        let gone = world.instances(&format!("shop.v{}", version - 1), &[]).await;
        assert!(
            world.addresses.drained(&old.instance, gone, LONG).await,
            "an instance that is taken away comes to rest"
        );
        life.abort();
        (old, life) = (new, new_life);
        load.go_on().await;
        tokio::time::sleep(pause).await;
    }
    load.end().await
}

/// Clients that ask on and on.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn new(router: SocketAddr, pause: Duration) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |_| tokio::spawn(ask_until(router, pause, Arc::clone(&stop), Arc::clone(&answered)));
        let clients = (0..8).map(client).collect();
        Self { stop, answered, clients }
    }

    /// Waits until some more have their answers.
    async fn go_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        until(async || self.answered.load(Ordering::Relaxed) >= before + 50).await;
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("every request got its answer");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

async fn release(version: u32) -> (Endpoint, JoinHandle<()>) {
    mortal(&format!("i{version}"), |_| async { Response::new(Full::from("done")) }).await
}

/// Sends requests over one connection, and panics unless each is answered well.
async fn ask_until(router: SocketAddr, pause: Duration, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    let mut stream = TcpStream::connect(router).await.expect("a connection");
    let mut method = "GET";
    while !stop.load(Ordering::Relaxed) {
        let request = format!("{method} / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"done") {
            let more = stream.read_buf(&mut answer).await.expect("readable");
            assert_ne!(more, 0, "closed early: {}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        answered.fetch_add(1, Ordering::Relaxed);
        method = if method == "GET" { "POST" } else { "GET" };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_holds_its_instance_until_it_has_its_answer() {
    let world = World::new(Timeouts::default()).await;
    let (begun, finish) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let old = instance("old", {
        let (begun, finish) = (Arc::clone(&begun), Arc::clone(&finish));
        move |request| {
            let (begun, finish) = (Arc::clone(&begun), Arc::clone(&finish));
            async move {
                if request.uri().path() == "/slow" {
                    begun.add_permits(1);
                    let _ = finish.acquire().await;
                }
                Response::new(Full::from("old"))
            }
        }
    })
    .await;
    let new = named("new").await;
    world.serve("shop", &[&old]).await;
    let slow = tokio::spawn({
        let address = world.address;
        async move { get(address, "shop", "/slow").await }
    });
    let _ = begun.acquire().await;

    let gone = world.instances("shop", &[&new]).await;
    assert!(get(world.address, "shop", "/").await.ends_with("new"), "new requests go to the new instance");
    assert!(!world.addresses.drained("old", gone, Duration::ZERO).await, "one request is left on the old one");
    finish.add_permits(1);
    assert!(slow.await.expect("no panic").ends_with("old"));
    assert!(world.addresses.drained("old", gone, LONG).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_stops_lets_requests_in_flight_finish() {
    let mut world = World::new(Timeouts::default()).await;
    let (begun, finish) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let slow = instance("slow", {
        let (begun, finish) = (Arc::clone(&begun), Arc::clone(&finish));
        move |request| {
            let (begun, finish) = (Arc::clone(&begun), Arc::clone(&finish));
            async move {
                if request.uri().path() == "/slow" {
                    begun.add_permits(1);
                    let _ = finish.acquire().await;
                }
                Response::new(Full::from("slow"))
            }
        }
    })
    .await;
    world.serve("shop", &[&slow]).await;
    let address = world.address;
    let request = tokio::spawn(async move { get(address, "shop", "/slow").await });
    let _ = begun.acquire().await;
    let finisher = tokio::spawn(async move {
        // The listeners are closed first, then the router waits for what is in flight.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        finish.add_permits(1);
    });
    world.stop().await;
    finisher.await.expect("no panic");
    assert!(request.await.expect("no panic").ends_with("slow"));
    world.logged(&["path=\"/slow\"", "status=200"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_left_while_it_was_being_connected_to_gets_no_request() {
    let world = World::new(Timeouts::default()).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let old = Endpoint { address: listener.local_addr().expect("an address"), ..named("old").await };
    // Once its queue is full, whoever connects has to wait.
    let mut queue = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(old.address)).await {
        queue.push(stream.expect("a connection"));
    }
    world.serve("shop", &[&old]).await;
    let request = tokio::spawn({
        let address = world.address;
        async move { get(address, "shop", "/").await }
    });
    let port = format!(":{:04X} 02 ", old.address.port());
    until(async || std::fs::read_to_string("/proc/net/tcp").expect("connections").contains(&port)).await;

    world.instances("shop", &[&named("new").await]).await;
    // Somebody else may have its address by now, and takes every connection.
    let stranger = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if stream.read(&mut [0; 1024]).await.is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nstranger").await;
                }
            });
        }
    });
    let answer = request.await.expect("no panic");
    assert!(answer.ends_with("new"), "{answer}");
    stranger.abort();
}
