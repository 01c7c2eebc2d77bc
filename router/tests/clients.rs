//! HTTP/1 as clients speak it: what they may send, and how a connection goes on after an answer.

use http::Response;
use http_body_util::{BodyExt, Full};
use model::routes::Endpoint;
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};

use crate::world::{LONG, World, instance, listen, mirror, named, raw, read_head, send};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_headers_reach_the_app_and_one_more_is_too_many() {
    let world = World::new(Timeouts::default()).await;
    world.serve("shop", &[&counting().await]).await;
    let with = |count: usize| {
        let lines = (0..count).map(|number| format!("X-{number}: y\r\n")).collect::<Vec<_>>().concat();
        // Two of them are there already.
        format!("{GET}Connection: close\r\n{lines}\r\n")
    };
    let answer = send(world.address, with(998).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("998 of them"), "{answer}");
    let answer = send(world.address, with(999).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("1000 headers at most"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

/// An instance that counts the headers of the test. hyper has no room for as many.
async fn counting() -> Endpoint {
    let (listener, endpoint) = listen("counting").await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = read_head(&mut stream).await;
            let count = head.lines().filter(|line| line.starts_with("x-") && line.ends_with(": y")).count();
            let body = format!("{count} of them");
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_at_once_are_answered_one_after_the_other() {
    let world = World::new(Timeouts::default()).await;
    let echo = instance("echo", |request| async move {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        Response::new(Full::from(format!("<{path} {}>", String::from_utf8_lossy(&body))))
    })
    .await;
    world.serve("shop", &[&echo]).await;
    let host = "Host: shop.localhost\r\n";
    let requests = format!(
        "GET /1 HTTP/1.1\r\n{host}\r\n\
         POST /2 HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhello\
         POST /3 HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n\
         \r\nGET /4 HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
    );
    let whole = send(world.address, requests.as_bytes()).await;
    // However they are cut into pieces.
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    for piece in requests.as_bytes().chunks(7) {
        stream.write_all(piece).await.expect("sent");
        tokio::task::yield_now().await;
    }
    let mut pieces = String::new();
    stream.read_to_string(&mut pieces).await.expect("the end");
    for answers in [whole, pieces] {
        let found: Vec<&str> = answers.split('<').skip(1).map(|rest| rest.split_once('>').expect("an end").0).collect();
        assert_eq!(found, ["/1 ", "/2 hello", "/3 hi", "/4 "], "{answers}");
        assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_only_when_there_is_an_app_to_take_it() {
    let world = World::new(Timeouts::default()).await;
    let mirror = mirror("m").await;
    world.serve("shop", &[&mirror]).await;
    let post = |app: &str| {
        format!("POST / HTTP/1.1\r\nHost: {app}.localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    for _ in 0..2 {
        stream.write_all(post("shop").as_bytes()).await.expect("sent");
        assert_eq!(read_head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"hello").await.expect("sent");
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200") && !head.contains("close"), "{head}");
        let length = head.split_once("content-length: ").expect("a length").1;
        let length = length.split_once("\r\n").expect("a line").0.parse().expect("a number");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.expect("a body");
        assert!(String::from_utf8_lossy(&body).ends_with("\n\nhello"));
    }
    let answer = send(world.address, post("nobody").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_0_is_spoken_to_as_it_understands() {
    let world = World::new(Timeouts::default()).await;
    let chunks = raw("chunks", |mut stream| async move {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{head}5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n").as_bytes()).await.expect("sent");
    })
    .await;
    world.serve("shop", &[&chunks]).await;
    let get = "GET / HTTP/1.0\r\nHost: shop.localhost\r\n";
    for connection in ["", "Connection: keep-alive\r\n"] {
        let answer = send(world.address, format!("{get}{connection}\r\n").as_bytes()).await;
        assert!(answer.ends_with("\r\n\r\nhello world") && !answer.contains("chunked"), "{answer}");
    }
    world.serve("shop", &[&named("one").await]).await;
    let twice = format!("{get}Connection: keep-alive\r\n\r\n{get}\r\n");
    let answers = send(world.address, twice.as_bytes()).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert_eq!(answers.matches("connection: keep-alive").count(), 1, "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_a_request_arrives_and_is_the_last_one() {
    let world = World::new(Timeouts::default()).await;
    let hasty = raw("hasty", |mut stream| async move {
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno").await.expect("sent");
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    world.serve("shop", &[&hasty]).await;
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    let head = "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await.expect("it ends").expect("readable");
    assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("no"), "{answer}");
    // A client that still sends is not told that nobody is there: it could lose the answer that it has not read yet.
    for _ in 0..10 {
        stream.write_all(&[b'x'; 1000]).await.expect("somebody listens");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lines_of_an_instance_hold_nobody_up() {
    let world = World::new(Timeouts::default()).await;
    let empty = raw("empty", |mut stream| async move {
        stream.write_all(b"\r\n\r\n").await.expect("sent");
        tokio::task::yield_now().await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.expect("sent");
    })
    .await;
    world.serve("shop", &[&empty]).await;
    let answer = send(world.address, format!("{GET}Connection: close\r\n\r\n").as_bytes()).await;
    assert!(answer.ends_with("hi"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_answered_may_take_the_rest_of_the_request_all_the_same() {
    const LENGTH: usize = 8 << 20;
    let world = World::new(Timeouts::default()).await;
    let listener = UnixListener::bind(world.folder.path().join("controller.sock")).expect("a socket");
    let controller = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        assert!(read_head(&mut stream).await.starts_with("POST /big "));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nknown").await.expect("sent");
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n0\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut said).await.expect("the rest"), 0, "{} bytes came", said.len());
        }
        assert!(said.len() > LENGTH, "{} bytes came", said.len());
    });
    let mut client = TcpStream::connect(world.address).await.expect("a connection");
    let head = "POST /big HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("sent");
    // The answer is there before anything of the body is.
    let answer = read_head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for _ in 0..LENGTH / 4096 {
        client.write_all(format!("1000\r\n{}\r\n", "x".repeat(4096)).as_bytes()).await.expect("all of it is taken");
    }
    client.write_all(b"0\r\n\r\n").await.expect("and the end");
    tokio::time::timeout(LONG, controller).await.expect("in time").expect("it has everything");
}
