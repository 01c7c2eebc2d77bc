//! A router that comes back while everything else is away.

use std::env;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::Full;
use model::routes::Endpoint;
use router::{Router, RouterError, RouterSettings, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::world::{LONG, World, get, instance, named, proof_of, read_head, settings, until};

const SOON: Duration = Duration::from_millis(100);
const FOLDER: &str = "TEST_ROUTER_FOLDER";
const LISTEN: &str = "TEST_ROUTER_LISTEN";

/// No test by itself: the process that the next one kills.
#[test]
fn router_process() {
    let (Some(folder), Ok(listen)) = (env::var_os(FOLDER), env::var(LISTEN)) else { return };
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let listen = vec![listen.parse().expect("an address")];
    let folder = PathBuf::from(folder);
    let takeover = Some(folder.join("takeover.sock"));
    router::serve(RouterSettings { listen, takeover, ..settings(&folder) }).expect("a router");
}

/// A router with the address and the folder of `world`.
pub(crate) fn start(world: &World) -> Child {
    router_command(world, &[]).spawn().expect("a process")
}

/// The same by means of another program, which has the router's as its argument.
pub(crate) fn router_command(world: &World, by: &[&str]) -> Command {
    let program = env::current_exe().expect("this program");
    let mut command = Command::new(by.first().map_or(program.as_os_str(), OsStr::new));
    if !by.is_empty() {
        command.args(&by[1..]).arg(&program);
    }
    command
        .args(["--exact", "restart::router_process"])
        .env(FOLDER, world.folder.path())
        .env(LISTEN, world.address.to_string())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true);
    command
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

/// A process, and an instance that is it as far as anybody can tell.
async fn mortal(name: &'static str) -> (Child, Endpoint) {
    let process = Command::new("sleep").arg("1000").kill_on_drop(true).spawn().expect("a process");
    let proof = Some(proof_of(process.id().expect("it runs")));
    (process, Endpoint { proof, ..named(name).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_on_disk_that_may_be_somebody_elses_by_now_gets_no_request() {
    let mut world = World::new(Timeouts::default()).await;
    let (mut process, former) = mortal("former").await;
    let unknown = Endpoint { proof: None, ..named("unknown").await };
    world.serve("former", &[&former]).await;
    world.serve("unknown", &[&unknown]).await;
    world.serve("shop", &[&named("one").await]).await;
    let rows = ["shop", "former", "unknown"].map(|app| format!("{app}.localhost"));
    let rows: Vec<&str> = rows.iter().map(String::as_str).chain(["\"one\"", "\"former\"", "\"unknown\""]).collect();
    world.end_with_table_on_disk(&rows).await;
    process.kill().await.expect("SIGKILL");

    // Whoever listens there now would answer.
    world.start_router(Timeouts { boot: SOON, ..Timeouts::default() });
    answers(world.address).await;
    for app in ["former", "unknown"] {
        let answer = get(world.address, app, "/").await;
        assert!(answer.contains("H20"), "{app} waits for the host role: {answer}");
    }
    world.publish(&["unknown"], &[&unknown]).await;
    let answer = get(world.address, "unknown", "/").await;
    assert!(answer.ends_with("unknown"), "the host role knows it: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_dies_while_the_host_role_is_away_gets_no_request() {
    let mut world = World::new(Timeouts { boot: SOON, ..Timeouts::default() }).await;
    let (mut process, shop) = mortal("shop").await;
    world.serve("shop", &[&shop]).await;
    world.serve("lasting", &[&named("lasting").await]).await;
    world.kill_publishers();
    assert!(get(world.address, "shop", "/").await.ends_with("shop"), "it lives");
    process.kill().await.expect("SIGKILL");
    let (address, waits) = (world.address, "H20");
    until(async || get(address, "shop", "/").await.contains(waits)).await;
    assert!(get(address, "lasting", "/").await.ends_with("lasting"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_began_by_the_table_on_disk_holds_its_instance_as_well() {
    let mut world = World::new(Timeouts::default()).await;
    let (begun, finish) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let old = instance("old", {
        let (begun, finish) = (Arc::clone(&begun), Arc::clone(&finish));
        move |_| {
            let (begun, finish) = (Arc::clone(&begun), Arc::clone(&finish));
            async move {
                begun.add_permits(1);
                let _ = finish.acquire().await;
                Response::new(Full::from("old"))
            }
        }
    })
    .await;
    world.serve("shop", &[&old]).await;
    world.end_with_table_on_disk(&["shop.localhost", "\"old\""]).await;
    world.start_router(Timeouts::default());
    let address = world.address;
    let request = tokio::spawn(async move { get(address, "shop", "/").await });
    let _ = begun.acquire().await;

    world.publish(&["shop"], &[&named("new").await]).await;
    let gone = world.addresses.version();
    assert!(!world.addresses.drained("old", gone, Duration::ZERO).await, "a request is left on it");
    finish.add_permits(1);
    assert!(request.await.expect("no panic").ends_with("old"));
    assert!(world.addresses.drained("old", gone, LONG).await);
}
