//! Bytes pass as they come, and a side that goes away takes the other one with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::routes::Endpoint;
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tungstenite::Message;

use crate::world::{LONG, World, listen, raw, read_head, send};

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
async fn a_web_socket_passes_and_holds_no_drain_back() {
    let world = World::new(Timeouts::default()).await;
    let (listener, echo) = listen("echo").await;
    let listener = listener.into_std().expect("a listener");
    listener.set_nonblocking(false).expect("blocking");
    let server = std::thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().expect("a connection").0).expect("a web socket");
        while let Ok(message) = socket.read() {
            if !message.is_close() {
                socket.send(message).expect("sent");
            }
        }
    });
    world.serve("shop", &[&echo]).await;
    let address = world.address;
    let (open, opened) = oneshot::channel();
    let (go_on, go) = std::sync::mpsc::channel();
    let client = tokio::task::spawn_blocking(move || {
        let stream = std::net::TcpStream::connect(address).expect("a connection");
        let (mut socket, answer) = tungstenite::client("ws://shop.localhost/socket", stream).expect("a web socket");
        assert!(answer.headers().contains_key("via"));
        let mut echoed = |message: Message| {
            socket.send(message.clone()).expect("sent");
            assert_eq!(socket.read().expect("an echo"), message);
        };
        echoed(Message::text("ping"));
        echoed(Message::binary(vec![7; 1_000_000]));
        open.send(()).expect("a test");
        go.recv().expect("a word");
        echoed(Message::text("still here"));
        socket.close(None).expect("closing");
        while socket.read().is_ok() {}
    });
    opened.await.expect("two echoes");
    let gone = world.instances("shop", &[]).await;
    assert!(world.addresses.drained("echo", gone, LONG).await);
    go_on.send(()).expect("a client");
    client.await.expect("every message came back");
    server.join().expect("a clean end");
    world.logged(&["path=\"/socket\"", "status=101", "at=info"]).await;
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
