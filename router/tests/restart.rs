//! A router that comes back while everything else is away.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;

use router::{Router, RouterError, RouterSettings, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::world::{World, get, named, read_head, settings, until};

const FOLDER: &str = "TEST_ROUTER_FOLDER";
const LISTEN: &str = "TEST_ROUTER_LISTEN";

/// No test by itself: the process that the next one kills.
#[test]
fn router_process() {
    let (Some(folder), Ok(listen)) = (env::var_os(FOLDER), env::var(LISTEN)) else { return };
    let listen = vec![listen.parse().expect("an address")];
    router::serve(RouterSettings { listen, ..settings(&PathBuf::from(folder)) }).expect("a router");
}

fn start(world: &World) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "restart::router_process"])
        .env(FOLDER, world.folder.path())
        .env(LISTEN, world.address.to_string())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("a process")
}

async fn answers(router: SocketAddr) {
    until(async || TcpStream::connect(router).await.is_ok()).await;
    let answer = get(router, "shop", "/").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("one"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_router_serves_the_table_on_disk_without_any_publisher() {
    let mut world = World::new(Timeouts::default()).await;
    let one = named("one").await;
    world.serve("shop", &[&one]).await;
    world.end_with_table_on_disk(&["shop.localhost", "healthy\":[{"]).await;

    let mut router = start(&world);
    for _ in 0..5 {
        answers(world.address).await;
        let mut open = TcpStream::connect(world.address).await.expect("a connection");
        open.write_all(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await.expect("sent");
        read_head(&mut open).await;
        router.kill().await.expect("SIGKILL");
        router = start(&world);
        answers(world.address).await;
        let _ = open.read_to_end(&mut Vec::new()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_router_does_not_take_half_of_the_requests() {
    let world = World::new(Timeouts::default()).await;
    let second = RouterSettings { listen: vec![world.address], ..settings(world.folder.path()) };
    // A router has runtimes of its own, which may not end inside another one.
    let refused = tokio::task::spawn_blocking(|| Router::start(second).err()).await.expect("no panic");
    assert!(matches!(refused, Some(RouterError::Listen { address, .. }) if address == world.address));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_outlives_its_publishers_and_follows_their_successors() {
    let mut world = World::new(Timeouts::default()).await;
    let (one, two) = (named("one").await, named("two").await);
    world.serve("shop", &[&one]).await;
    world.kill_publishers();
    answers(world.address).await;
    world.publish(&["shop"], &[&two]).await;
    let answer = get(world.address, "shop", "/").await;
    assert!(answer.ends_with("two"), "{answer}");
}
