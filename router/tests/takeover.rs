//! A router that takes the place of another one while requests come.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use router::{Router, RouterSettings, SshEntrance, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tungstenite::Message;

use crate::restart::start;
use crate::streams::{close_code, echoed, web_socket};
use crate::world::{LONG, World, get, named, read_head, settings, until};

/// A world whose router lets others take over.
async fn world(timeouts: Timeouts) -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let takeover = Some(folder.path().join("takeover.sock"));
    let settings = RouterSettings { takeover, timeouts, ..settings(folder.path()) };
    World::with(folder, settings).await
}

async fn successor(world: &World, workers: usize) -> Router {
    let takeover = Some(world.folder.path().join("takeover.sock"));
    let listen = vec![world.address];
    let settings = RouterSettings { listen, takeover, workers, ..settings(world.folder.path()) };
    // A router has runtimes of its own, which may not end inside another one.
    spawn_blocking(|| Router::start(settings).expect("a router")).await.expect("no panic")
}

/// Visitors that ask on and on, with a connection for each request or with one that they keep.
struct Visitors {
    tasks: JoinSet<()>,
    answers: Arc<AtomicUsize>,
    enough: Arc<AtomicBool>,
}

impl Visitors {
    fn of(world: &World) -> Self {
        let (address, mut tasks) = (world.address, JoinSet::new());
        let (answers, enough) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        for number in 0..8 {
            let (answers, enough) = (Arc::clone(&answers), Arc::clone(&enough));
            tasks.spawn(async move {
                let mut kept: Option<TcpStream> = None;
                while !enough.load(Ordering::Relaxed) {
                    if number % 2 == 0 {
                        let answer = get(address, "shop", "/").await;
                        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("one"), "{answer}");
                    } else {
                        let mut stream = match kept.take() {
                            Some(stream) => stream,
                            None => TcpStream::connect(address).await.expect("a connection"),
                        };
                        let asked = b"GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
                        stream.write_all(asked).await.expect("sent");
                        let (head, mut body) = (read_head(&mut stream).await, [0; 3]);
                        stream.read_exact(&mut body).await.expect("a body");
                        assert!(head.starts_with("HTTP/1.1 200") && &body == b"one", "{head}");
                        kept = (!head.contains("connection: close")).then_some(stream);
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { tasks, answers, enough }
    }

    /// Waits until each had some answers more.
    async fn go_on(&self) {
        let before = self.answers.load(Ordering::Relaxed);
        until(async || self.answers.load(Ordering::Relaxed) > before + 100).await;
    }

    /// Fails if one of them did not have the answer that it wanted.
    async fn end(self) {
        self.enough.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_takes_over_from_another_process_and_nobody_notices() {
    let mut world = world(Timeouts::default()).await;
    world.serve("shop", &[&named("one").await]).await;
    world.end_with_table_on_disk(&["shop.localhost", "healthy\":[{"]).await;
    let mut router = start(&world);
    until(async || TcpStream::connect(world.address).await.is_ok()).await;
    let visitors = Visitors::of(&world);
    for _ in 0..3 {
        visitors.go_on().await;
        let next = start(&world);
        let status = tokio::time::timeout(LONG, router.wait()).await.expect("it leaves").expect("a status");
        assert!(status.success(), "{status}");
        router = next;
    }
    visitors.go_on().await;
    visitors.end().await;
    router.kill().await.expect("SIGKILL");
    // Nobody is at its socket any more: the next one listens by itself.
    let mut router = start(&world);
    until(async || TcpStream::connect(world.address).await.is_ok()).await;
    assert!(get(world.address, "shop", "/").await.ends_with("one"));
    router.kill().await.expect("SIGKILL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_may_have_more_workers_or_fewer() {
    let mut world = world(Timeouts::default()).await;
    world.serve("shop", &[&named("one").await]).await;
    let visitors = Visitors::of(&world);
    visitors.go_on().await;
    let mut router = successor(&world, 1).await;
    world.leave().await;
    for workers in [3, 2] {
        visitors.go_on().await;
        let next = successor(&world, workers).await;
        router.replaced().await;
        spawn_blocking(|| router.stop()).await.expect("it ends");
        router = next;
    }
    visitors.go_on().await;
    visitors.end().await;
    spawn_blocking(|| router.stop()).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_has_its_drain_time_when_its_router_is_replaced() {
    let mut world = world(Timeouts { drain: Duration::from_secs(5), ..Timeouts::default() }).await;
    let (mut client, mut server) = web_socket(&world).await;
    let next = successor(&world, 2).await;
    let stopping = tokio::spawn(async move {
        world.leave().await;
        world
    });
    tokio::task::block_in_place(|| echoed(&mut client, &mut server, &Message::text("still here")));
    let closing = spawn_blocking(move || {
        let codes = (close_code(client.read()), client.flush(), close_code(server.read()));
        (codes.0, codes.2)
    });
    assert_eq!(closing.await.expect("no panic"), (1001, 1001));
    stopping.await.expect("it ends");
    spawn_blocking(|| next.stop()).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_only_asks_for_the_listeners_takes_nothing() {
    let world = world(Timeouts::default()).await;
    world.serve("shop", &[&named("one").await]).await;
    for _ in 0..3 {
        let mut curious =
            tokio::net::UnixStream::connect(world.folder.path().join("takeover.sock")).await.expect("a socket");
        assert_ne!(curious.read_u8().await.expect("a listener"), 0);
        drop(curious);
        assert!(get(world.address, "shop", "/").await.ends_with("one"));
    }
    let next = successor(&world, 2).await;
    assert!(get(world.address, "shop", "/").await.ends_with("one"));
    spawn_blocking(|| next.stop()).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_whose_socket_cannot_be_made_serves_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let takeover = Some(folder.path().join("absent/takeover.sock"));
    let settings = RouterSettings { takeover, ..settings(folder.path()) };
    let world = World::with(folder, settings).await;
    world.serve("shop", &[&named("one").await]).await;
    assert!(get(world.address, "shop", "/").await.ends_with("one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_place_of_the_socket_keeps_nobody_from_serving() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("takeover.sock");
    // Of a router that was killed. The next one finds a file.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    for _ in 0..2 {
        let settings = RouterSettings { takeover: Some(path.clone()), ..settings(folder.path()) };
        let router = spawn_blocking(|| Router::start(settings).expect("a router")).await.expect("no panic");
        assert!(get(router.addresses()[0], "nobody", "/").await.starts_with("HTTP/1.1 404"));
        let mut next = tokio::net::UnixStream::connect(&path).await.expect("the router is there now");
        assert_eq!(next.read_u8().await.expect("a listener"), b'p');
        drop(next);
        spawn_blocking(|| router.stop()).await.expect("it ends");
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "a file").expect("written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_is_killed_before_it_serves_leaves_no_trace() {
    let world = world(Timeouts::default()).await;
    world.serve("shop", &[&named("one").await]).await;
    let path = world.folder.path().join("takeover.sock");
    let mut killed = tokio::net::UnixStream::connect(&path).await.expect("a socket");
    assert_eq!(killed.read_u8().await.expect("a listener"), b'p');
    // It had made its own socket there.
    std::fs::remove_file(&path).expect("removed");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    drop(killed);
    until(async || tokio::net::UnixStream::connect(&path).await.is_ok()).await;
    let next = successor(&world, 2).await;
    world.replaced().await;
    assert!(get(world.address, "shop", "/").await.ends_with("one"));
    spawn_blocking(|| next.stop()).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_comes_over_ssh_is_refused_either() {
    let folder = tempfile::tempdir().expect("a folder");
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let with_ssh = |folder: &Path| RouterSettings {
        ssh: Some(SshEntrance { listen: vec![free], socket: folder.join("ssh.sock") }),
        takeover: Some(folder.join("takeover.sock")),
        ..settings(folder)
    };
    let settings = with_ssh(folder.path());
    let mut world = World::with(folder, settings).await;
    let settings = RouterSettings { listen: vec![world.address], ..with_ssh(world.folder.path()) };
    let next = spawn_blocking(|| Router::start(settings).expect("a router")).await.expect("no panic");
    world.leave().await;
    let controller = UnixListener::bind(world.folder.path().join("ssh.sock")).expect("a socket");
    let mut client = TcpStream::connect(free).await.expect("somebody listens at every moment");
    client.write_all(b"SSH-2.0-client").await.expect("sent");
    client.shutdown().await.expect("half closed");
    let (mut connection, _) = timeout(LONG, controller.accept()).await.expect("it is passed on").expect("a connection");
    let mut said = String::new();
    connection.read_to_string(&mut said).await.expect("text");
    assert!(said.ends_with("\r\nSSH-2.0-client"), "{said}");
    drop((client, connection));
    spawn_blocking(|| next.stop()).await.expect("it ends");
}
