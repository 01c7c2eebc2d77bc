//! A router that may have few files open.

use std::fs::File;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use http::Response;
use http_body_util::Full;
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::restart::router_command;
use crate::world::{LONG, World, get, instance, named, until};

const FILES: &str = "--nofile=300:300";

/// Requests that the instance holds.
struct Held {
    arrivals: mpsc::UnboundedReceiver<()>,
    go: Arc<Semaphore>,
}

/// A router of its own with few files, whose instance answers `/hold` when there is a permit.
async fn few_files() -> (World, Child, Held) {
    let mut world = World::new(Timeouts::default()).await;
    let (go, (arrived, arrivals)) = (Arc::new(Semaphore::new(0)), mpsc::unbounded_channel());
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
    world.serve("shop", &[&one]).await;
    world.serve("blog", &[&named("one").await]).await;
    world.end_with_table_on_disk(&["shop.localhost", "blog.localhost", "healthy\":[{"]).await;
    let said = File::create(world.folder.path().join("said")).expect("a file");
    let router = router_command(&world, &["prlimit", FILES]).stderr(Stdio::from(said)).spawn().expect("a router");
    until(async || TcpStream::connect(world.address).await.is_ok()).await;
    (world, router, Held { arrivals, go })
}

async fn ask(stream: &mut TcpStream, path: &str) {
    ask_app(stream, "shop", path).await;
}

async fn ask_app(stream: &mut TcpStream, app: &str, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {app}.localhost\r\n\r\n");
    // Whoever is sent away may not be read any more.
    let _ = stream.write_all(request.as_bytes()).await;
}

/// The begin of an answer; empty if the connection ends without one.
async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let whole = async {
        while !answer.ends_with(b"one") && !answer.starts_with(b"HTTP/1.1 503") {
            match stream.read_buf(&mut answer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    };
    timeout(LONG, whole).await.expect("nobody waits for nothing");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whether a client that comes now is sent away at once.
async fn is_refused(router: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(router).await.expect("a connection");
    ask(&mut stream, "/").await;
    let answer = answer(&mut stream).await;
    assert!(answer.is_empty() || answer.contains(" 503 ") || answer.contains(" 200 "), "{answer}");
    !answer.contains(" 200 ")
}

async fn has_room_again(router: SocketAddr) {
    until(async || get(router, "shop", "/").await.ends_with("one")).await;
}

fn said(world: &World) -> String {
    std::fs::read_to_string(world.folder.path().join("said")).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_more_clients_fit_new_ones_are_refused_and_old_ones_go_on() {
    let (world, mut router, _held) = few_files().await;
    let mut held = Vec::new();
    loop {
        let mut stream = TcpStream::connect(world.address).await.expect("a connection");
        ask(&mut stream, "/").await;
        let answer = answer(&mut stream).await;
        if !answer.contains(" 200 ") {
            break;
        }
        held.push(stream);
        assert!(held.len() < 300, "there are not so many files");
    }
    assert!(held.len() > 100, "{} had room", held.len());
    for _ in 0..20 {
        assert!(is_refused(world.address).await);
    }
    let mut told = TcpStream::connect(world.address).await.expect("a connection");
    assert!(answer(&mut told).await.contains("503 Service Unavailable"), "it is told why");
    for stream in &mut held {
        ask(stream, "/").await;
        let answer = answer(stream).await;
        assert!(answer.contains(" 200 "), "{answer}");
    }
    drop(held);
    has_room_again(world.address).await;
    assert!(said(&world).contains("new connections of clients are refused"), "{}", said(&world));
    router.kill().await.expect("SIGKILL");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_more_requests_fit_new_ones_are_refused_and_those_in_flight_have_their_answers() {
    let (world, mut router, mut requests) = few_files().await;
    let mut held = Vec::new();
    // Each takes two files: the client's, and the instance's.
    let refused = loop {
        let mut stream = TcpStream::connect(world.address).await.expect("a connection");
        ask(&mut stream, "/hold").await;
        tokio::select! {
            answer = answer(&mut stream) => break answer,
            arrival = requests.arrivals.recv() => arrival.expect("open"),
        }
        held.push(stream);
        assert!(held.len() < 150, "there are not so many files");
    };
    assert!(refused.is_empty() || refused.contains(" 503 "), "{refused}");
    for _ in 0..20 {
        assert!(is_refused(world.address).await);
    }
    requests.go.add_permits(held.len());
    for stream in &mut held {
        let answer = answer(stream).await;
        assert!(answer.contains(" 200 "), "{answer}");
    }
    drop(held);
    has_room_again(world.address).await;
    assert!(said(&world).contains("raise the hard limit of open files"), "{}", said(&world));
    router.kill().await.expect("SIGKILL");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_more_files_are_free_a_connection_that_rests_makes_room_for_a_request() {
    let (world, mut router, mut requests) = few_files().await;
    let mut clients = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(world.address).await.expect("a connection");
        ask(&mut stream, "/hold").await;
        requests.arrivals.recv().await.expect("it arrives");
        clients.push(stream);
    }
    requests.go.add_permits(60);
    for stream in &mut clients {
        assert!(answer(stream).await.contains(" 200 "));
    }
    // Sixty connections to the one app rest. Clients take what else there is.
    loop {
        let mut stream = TcpStream::connect(world.address).await.expect("a connection");
        ask(&mut stream, "/").await;
        if !answer(&mut stream).await.contains(" 200 ") {
            break;
        }
        clients.push(stream);
        assert!(clients.len() < 300, "there are not so many files");
    }
    for stream in clients.iter_mut().take(5) {
        ask_app(stream, "blog", "/").await;
        let answer = answer(stream).await;
        assert!(answer.contains(" 200 "), "{answer}");
    }
    router.kill().await.expect("SIGKILL");
}
