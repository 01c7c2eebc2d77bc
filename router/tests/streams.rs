//! Bytes pass as they come, and a side that goes away takes the other one with it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::routes::{Endpoint, WorkloadAddresses, WorkloadId};
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tungstenite::{Message, WebSocket};

use crate::world::{LONG, World, listen, raw, read_head, send, until};

const SOON: Duration = Duration::from_millis(100);

async fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).await.expect("bytes");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_the_rest_of_a_body() {
    let world = World::new(Timeouts::default()).await;
    let talker = raw("talker", |mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("sent");
        for _ in 0..3 {
            let piece = read(&mut stream, 4).await;
            stream.write_all(b"4\r\n").await.expect("sent");
            stream.write_all(&piece).await.expect("sent");
            stream.write_all(b"\r\n").await.expect("sent");
        }
        stream.write_all(b"0\r\n\r\n").await.expect("sent");
    })
    .await;
    world.serve("shop", &[&talker]).await;
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    let head = "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200"), "before the first byte of the request's body");
    for piece in ["one.", "two.", "half"] {
        stream.write_all(piece.as_bytes()).await.expect("sent");
        assert_eq!(read(&mut stream, 9).await, format!("4\r\n{piece}\r\n").as_bytes());
    }
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("the end");
    assert_eq!(rest, "0\r\n\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_are_passed_over_and_trailers_pass_both_ways() {
    let world = World::new(Timeouts::default()).await;
    let instance = raw("instance", |mut stream| async move {
        let mut body = Vec::new();
        while !body.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut body).await.expect("readable"), 0);
        }
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </style>\r\n\r\n";
        let head = "HTTP/1.1 200 OK\r\nTrailer: x-told\r\nTransfer-Encoding: chunked\r\n\r\n";
        let told = String::from_utf8_lossy(&body).replace("\r\n", "|");
        let answer = format!("{hints}{head}5\r\nhello\r\n0\r\nX-Told: {told}\r\nX-Other: 1\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("sent");
    })
    .await;
    world.serve("shop", &[&instance]).await;
    let head = "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTE: trailers\r\nTrailer: x-sum, host\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "3\r\nabc\r\n0\r\nX-Sum: 7\r\nHost: b.test\r\nX-Odd: 1\r\n\r\n";
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    stream.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 OK") && !head.contains("style"), "{head}");
    let end = "5\r\nhello\r\n0\r\nx-told: 3|abc|0|x-sum: 7||\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&read(&mut stream, end.len()).await), end);
}

/// A `WebSocket` through the router, and the server's end of it.
pub(crate) async fn web_socket(world: &World) -> (WebSocket<std::net::TcpStream>, WebSocket<std::net::TcpStream>) {
    let (listener, server) = listen("server").await;
    let listener = listener.into_std().expect("a listener");
    listener.set_nonblocking(false).expect("blocking");
    world.serve("shop", &[&server]).await;
    let address = world.address;
    let client = tokio::task::spawn_blocking(move || {
        let stream = std::net::TcpStream::connect(address).expect("a connection");
        let (socket, answer) = tungstenite::client("ws://shop.localhost/socket", stream).expect("a web socket");
        assert!(answer.headers().contains_key("via"));
        socket
    });
    let server = tokio::task::spawn_blocking(move || {
        tungstenite::accept(listener.accept().expect("a connection").0).expect("a web socket")
    });
    (client.await.expect("no panic"), server.await.expect("no panic"))
}

/// The app leaves the table, and whoever still uses it has this long.
async fn take_away(world: &World, drain: Duration) -> u64 {
    let shop = WorkloadId("shop".to_owned());
    let row =
        |endpoints: Vec<Endpoint>| WorkloadAddresses { healthy: endpoints, drain, ..WorkloadAddresses::default() };
    let healthy = world.addresses.row(&shop).expect("it is there").healthy;
    world.workload("shop", row(healthy)).await;
    world.workload("shop", row(Vec::new())).await
}

pub(crate) fn echoed(
    client: &mut WebSocket<std::net::TcpStream>,
    server: &mut WebSocket<std::net::TcpStream>,
    message: &Message,
) {
    client.send(message.clone()).expect("sent");
    assert_eq!(&server.read().expect("a message"), message);
    server.send(message.clone()).expect("sent");
    assert_eq!(&client.read().expect("an echo"), message);
}

pub(crate) fn close_code(message: Result<Message, tungstenite::Error>) -> u16 {
    match message.expect("a frame") {
        Message::Close(Some(frame)) => frame.code.into(),
        other => panic!("no close frame: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_goes_on_after_its_instance_left_the_table_and_holds_the_drain() {
    let world = World::new(Timeouts::default()).await;
    let (mut client, mut server) = web_socket(&world).await;
    tokio::task::block_in_place(|| {
        echoed(&mut client, &mut server, &Message::text("ping"));
        echoed(&mut client, &mut server, &Message::text("a".repeat(5000)));
    });
    let gone = take_away(&world, LONG).await;
    assert!(!world.addresses.drained("server", gone, Duration::ZERO).await);
    tokio::task::block_in_place(|| {
        echoed(&mut client, &mut server, &Message::text("still here"));
        client.close(None).expect("closing");
        while server.read().is_ok() {}
        drop(server);
        while client.read().is_ok() {}
    });
    assert!(world.addresses.drained("server", gone, LONG).await);
    world.logged(&["path=\"/socket\"", "status=101", "at=info"]).await;
    until(async || world.addresses.traffic().of(&WorkloadId("shop".to_owned())).requests == 1).await;
    assert_eq!(world.addresses.traffic().of(&WorkloadId("shop".to_owned())).lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_drain_time_is_over_a_web_socket_is_told_to_go_at_the_end_of_a_frame() {
    let world = World::new(Timeouts::default()).await;
    let (mut client, mut server) = web_socket(&world).await;
    // Nearly always in the middle of a frame.
    let talker = std::thread::spawn(move || {
        let stream = server.get_mut();
        while stream.write_all(&[0x81, 6, b'h', b'a', b'l']).is_ok() {
            std::thread::sleep(Duration::from_millis(50));
            let _ = stream.write_all(b"ved");
        }
    });
    let halved = Message::text("halved");
    tokio::task::block_in_place(|| assert_eq!(client.read().expect("a message"), halved));
    let gone = take_away(&world, Duration::ZERO).await;
    tokio::task::block_in_place(|| {
        let mut last = client.read();
        while last.as_ref().is_ok_and(|message| *message == halved) {
            last = client.read();
        }
        assert_eq!(close_code(last), 1001);
        client.flush().expect("it answers");
    });
    assert!(world.addresses.drained("server", gone, LONG).await);
    talker.join().expect("it hears that nobody listens");
    world.logged(&["path=\"/socket\"", "status=101", "at=info"]).await;
    until(async || world.addresses.traffic().of(&WorkloadId("shop".to_owned())).requests == 1).await;
    assert_eq!(world.addresses.traffic().of(&WorkloadId("shop".to_owned())).lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_stops_closes_its_web_sockets() {
    let mut world = World::new(Timeouts::default()).await;
    let (mut client, mut server) = web_socket(&world).await;
    let closing = tokio::task::spawn_blocking(move || {
        let codes = (close_code(client.read()), client.flush(), close_code(server.read()));
        (codes.0, codes.2)
    });
    world.stop().await;
    assert_eq!(closing.await.expect("no panic"), (1001, 1001));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_that_the_app_cuts_off_counts_as_lost() {
    let world = World::new(Timeouts::default()).await;
    let (mut client, server) = web_socket(&world).await;
    drop(server);
    assert!(tokio::task::block_in_place(|| client.read()).is_err(), "without a word");
    drop(client);
    world.logged(&["path=\"/socket\"", "at=error code=H18"]).await;
    until(async || world.addresses.traffic().of(&WorkloadId("shop".to_owned())).lost == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_of_an_unknown_protocol_is_let_go_of_and_goes_on() {
    let world = World::new(Timeouts::default()).await;
    let server = raw("server", |mut stream| async move {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("sent");
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    world.serve("shop", &[&server]).await;
    let mut client = TcpStream::connect(world.address).await.expect("a connection");
    let head = "GET /chat HTTP/1.1\r\nHost: shop.localhost\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("sent");
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 101"));
    let gone = take_away(&world, Duration::ZERO).await;
    assert!(world.addresses.drained("server", gone, LONG).await);
    client.write_all(b"still here").await.expect("sent");
    assert_eq!(read(&mut client, 10).await, b"still here");
    client.shutdown().await.expect("said");
    assert_eq!(client.read_to_end(&mut Vec::new()).await.expect("the end"), 0);
    world.logged(&["path=\"/chat\"", "status=101", "bytes=10", "at=info"]).await;
}

/// An instance that tells when a request has come and when its connection ended.
async fn watched(answer: &'static str) -> (Endpoint, mpsc::UnboundedReceiver<&'static str>) {
    let (tell, told) = mpsc::unbounded_channel();
    let endpoint = raw("watched", move |mut stream| {
        let tell = tell.clone();
        async move {
            stream.write_all(answer.as_bytes()).await.expect("sent");
            tell.send("begun").expect("a test");
            let _ = stream.read_to_end(&mut Vec::new()).await;
            tell.send("ended").expect("a test");
        }
    })
    .await;
    (endpoint, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_request_at_the_instance() {
    let world = World::new(Timeouts::default()).await;
    let get = "GET /waiting HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    let post = "POST /sending HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 100\r\n\r\nhello";
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello";
    for (what, request, answer) in
        [("waiting", get, ""), ("sending", post, ""), ("receiving", &get.replace("waiting", "receiving"), begun)]
    {
        let (instance, mut told) = watched(answer).await;
        world.serve("shop", &[&instance]).await;
        let mut stream = TcpStream::connect(world.address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("sent");
        assert_eq!(told.recv().await, Some("begun"), "{what}");
        if !answer.is_empty() {
            read_head(&mut stream).await;
        }
        drop(stream);
        assert_eq!(tokio::time::timeout(LONG, told.recv()).await, Ok(Some("ended")), "{what}");
        world.logged(&["at=warning code=H27", &format!("path=\"/{what}\"")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_the_instance_and_is_cut_off() {
    let world = World::new(Timeouts { idle: SOON, ..Timeouts::default() }).await;
    let (sent, mut end) = (Arc::new(AtomicUsize::new(0)), mpsc::unbounded_channel());
    let flood = raw("flood", {
        let (sent, end) = (Arc::clone(&sent), end.0);
        move |mut stream| {
            let (sent, end) = (Arc::clone(&sent), end.clone());
            async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await.expect("sent");
                let piece = vec![0; 65_536];
                while let Ok(count) = stream.write(&piece).await {
                    sent.fetch_add(count, Ordering::Relaxed);
                }
                end.send(()).expect("a test");
            }
        }
    })
    .await;
    world.serve("shop", &[&flood]).await;
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await.expect("sent");
    tokio::time::timeout(LONG, end.1.recv()).await.expect("the instance is told");
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 64 << 20, "what fits into the buffers of four sockets, not {sent} bytes");
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_does_not_read_stops_the_client_and_is_given_up() {
    let world = World::new(Timeouts { idle: Duration::from_secs(1), ..Timeouts::default() }).await;
    let deaf = raw("deaf", |stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    world.serve("shop", &[&deaf]).await;
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    let head = "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 999999999999\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let (piece, mut sent) = (vec![0; 65_536], 0);
    while let Ok(count) = stream.write(&piece).await {
        sent += count;
    }
    assert!(sent < 64 << 20, "what fits into the buffers of four sockets, not {sent} bytes");
    world.logged(&["at=error code=H12"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_not_waited_for() {
    // Long enough for a busy machine to send a whole head in it.
    let world = World::new(Timeouts { client_idle: Duration::from_secs(1), ..Timeouts::default() }).await;
    let whole = "GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n";
    let say = |start: &'static str| send(world.address, start.as_bytes());
    let (nothing, half, answered) = tokio::join!(say(""), say(&whole[..30]), say(whole));
    assert_eq!((nothing.as_str(), half.as_str()), ("", ""));
    assert!(answered.starts_with("HTTP/1.1 404"), "answered, and closed after a while: {answered}");
}
