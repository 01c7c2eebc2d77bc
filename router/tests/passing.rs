//! What passes through, and how.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use http::Response;
use http_body_util::Full;
use model::routes::WorkloadAddresses;
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::time::timeout;

use crate::world::{LONG, World, get, instance, mirror, named, nobody, read_head, send};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_sees_the_request_and_who_sent_it() {
    let world = World::new(Timeouts::default()).await;
    let mirror = mirror("m").await;
    world.serve("shop", &[&mirror]).await;
    let request = "POST /a%20b?c=d HTTP/1.1\r\nHost: Shop.LOCALHOST:8080\r\nX-Forwarded-For: 1.1.1.1\r\n\
                   X-Forwarded-Proto: https\r\nX-Request-Id: 01234567890123456789\r\nX-Own: caf\u{e9}\r\n\
                   Connection: close, X-Secret\r\nX-Secret: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";
    let answer = send(world.address, request.as_bytes()).await;
    let port = world.address.port();
    for part in [
        "HTTP/1.1 200 OK",
        "POST /a%20b?c=d HTTP/1.1\n",
        "host: Shop.LOCALHOST:8080\n",
        "x-forwarded-for: 127.0.0.1\n",
        "x-forwarded-proto: http\n",
        &format!("x-forwarded-port: {port}\n"),
        "x-request-id: 01234567890123456789\n",
        "x-request-start: 1",
        "x-own: caf\u{e9}\n",
        "via: 1.1 platform\n",
        "\n\nhello world",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    assert!(!answer.contains("x-secret"), "{answer}");
    let parts = ["at=info method=POST path=\"/a%20b?c=d\"", "fwd=\"127.0.0.1\" dyno=web.1 connect=", "status=200"];
    world.logged(&parts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_stream_both_ways_over_one_connection() {
    let world = World::new(Timeouts::default()).await;
    let echo = instance("e", |request| async move {
        let body = http_body_util::BodyExt::collect(request.into_body()).await.expect("a body").to_bytes();
        Response::new(Full::new(body))
    })
    .await;
    world.serve("shop", &[&echo]).await;
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for _ in 0..3 {
        let head = format!("PUT / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(&body).await.expect("sent");
        read_head(&mut stream).await;
        let mut answer = vec![0; body.len()];
        stream.read_exact(&mut answer).await.expect("a body");
        assert!(answer == body, "every byte comes back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_and_an_answer_to_head_has_no_body() {
    let world = World::new(Timeouts::default()).await;
    let one = named("one").await;
    world.serve("shop", &[&one]).await;
    let two = "HEAD / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n\
               GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n";
    let answer = send(world.address, two.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert_eq!(answer.matches("content-length: 3").count(), 2, "{answer}");
    assert_eq!(answer.matches("one").count(), 1, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_own_hosts_go_to_the_controller() {
    let (response, connect) = (Duration::from_millis(1), Duration::from_millis(50));
    let world = World::new(Timeouts { response, connect, ..Timeouts::default() }).await;
    let request = "GET /apps HTTP/1.1\r\nHost: localhost:8080\r\nConnection: close\r\n\r\n";
    let away = send(world.address, request.as_bytes()).await;
    assert!(away.starts_with("HTTP/1.1 503") && away.contains("retry-after: 2"), "{away}");
    assert!(away.contains("{\"id\":\"unavailable\",\"message\":\"The platform is starting"), "{away}");
    let browser = request.replace("Connection", "Accept: text/html\r\nConnection");
    assert!(send(world.address, browser.as_bytes()).await.contains("<h1>Back in a moment</h1>"));

    let listener = UnixListener::bind(world.folder.path().join("controller.sock")).expect("a socket");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = read_head(&mut stream).await;
            // Slower than any app may be.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let answer = if head.contains("upgrade: platform-attach") {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: platform-attach\r\n\r\nhello"
                    .to_owned()
            } else {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len())
            };
            stream.write_all(answer.as_bytes()).await.expect("sent");
        }
    });
    for host in ["localhost", "api.localhost:8080", "127.0.0.1:8080", "[::1]"] {
        let request = format!("GET /apps?x=y HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = send(world.address, request.as_bytes()).await;
        assert!(answer.contains("GET /apps?x=y HTTP/1.1") && answer.contains(&format!("host: {host}")), "{answer}");
    }
    let attach = "POST /attach HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: platform-attach\r\n\r\n";
    let answer = send(world.address, attach.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_a_controller_that_is_being_replaced_waits_for_the_next_one() {
    let world = World::new(Timeouts { connect: LONG, ..Timeouts::default() }).await;
    let socket = world.folder.path().join("controller.sock");
    // Of the one before: nobody listens any more.
    drop(UnixListener::bind(&socket).expect("a socket"));
    let mut client = TcpStream::connect(world.address).await.expect("a connection");
    client.write_all(b"GET /apps HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.expect("sent");
    // Whatever comes after it is answered: it has found nobody by then.
    assert!(get(world.address, "nobody", "/").await.starts_with("HTTP/1.1 404"));
    std::fs::remove_file(&socket).expect("removed");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let (mut stream, _) = timeout(LONG, listener.accept()).await.expect("in time").expect("a connection");
    let head = read_head(&mut stream).await;
    stream
        .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len()).as_bytes())
        .await
        .expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /apps HTTP/1.1"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_refuses_is_left_out_and_nobody_notices() {
    let world = World::new(Timeouts::default()).await;
    let (dead, alive) = (nobody("dead"), named("alive").await);
    world.serve("shop", &[&dead, &alive]).await;
    for _ in 0..20 {
        let answer = get(world.address, "shop", "/").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("alive"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_the_first_instance_that_boots() {
    let world = World::new(Timeouts::default()).await;
    world.workload("shop", WorkloadAddresses { starting: 1, ..WorkloadAddresses::default() }).await;
    world.route("shop").await;
    let waiting = tokio::spawn({
        let address = world.address;
        async move { get(address, "shop", "/").await }
    });
    tokio::task::yield_now().await;
    let one = named("one").await;
    world.instances("shop", &[&one]).await;
    assert!(waiting.await.expect("no panic").ends_with("one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_many_clients_share_connections_to_an_instance() {
    let world = World::new(Timeouts::default()).await;
    let peers = instance("peers", |request| async move {
        let peer = request.extensions().get::<SocketAddr>().expect("a peer");
        Response::new(Full::from(format!("port {}", peer.port())))
    })
    .await;
    world.serve("shop", &[&peers]).await;
    let mut ports = HashSet::new();
    for _ in 0..20 {
        let answer = get(world.address, "shop", "/").await;
        ports.insert(answer.split_once("port ").expect("a port").1.to_owned());
    }
    assert!(ports.len() <= 2, "one connection of each of two workers: {ports:?}");
}
