//! Answers that are compressed on the wish of their app.

use std::io::Read;

use http::Response;
use http_body_util::Full;
use model::routes::Endpoint;
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{LONG, World, instance, raw, read_head};

fn text() -> String {
    let lines: Vec<String> = (0..2000).map(|number| format!("line {number} of a text\n")).collect();
    lines.concat()
}

/// An instance that answers with the text and these headers.
async fn teller(headers: &'static [(&'static str, &'static str)]) -> Endpoint {
    instance("teller", move |_| async move {
        let mut response = Response::builder();
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(Full::from(text())).expect("an answer")
    })
    .await
}

/// Head and body of the answer to a request with these lines.
async fn ask(world: &World, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    let request = format!("{request}Host: shop.localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let head = read_head(&mut stream).await;
    let mut body = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut body)).await.expect("it ends").expect("readable");
    if head.contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    (head, body)
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a length");
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).expect("text"), 16).expect("a length");
        if length == 0 {
            return all;
        }
        all.extend_from_slice(&bytes[end + 2..end + 2 + length]);
        bytes = &bytes[end + 2 + length + 2..];
    }
}

fn unpacked(coding: &str, bytes: &[u8]) -> String {
    let mut text = String::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_string(&mut text),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text),
        _ => zstd::stream::read::Decoder::new(bytes).expect("a decoder").read_to_string(&mut text),
    }
    .expect("whole");
    text
}

const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_an_answer_in_what_it_takes() {
    let world = World::new(Timeouts::default()).await;
    let web = teller(&[HTML, ("etag", "\"one\""), ("vary", "Origin"), ("accept-ranges", "bytes")]).await;
    world.serve("shop", &[&web]).await;
    let (head, body) = ask(&world, "GET / HTTP/1.1\r\nAccept-Encoding: gzip, br, zstd\r\n").await;
    assert!(!head.contains("content-encoding"), "nobody wants it: {head}");
    assert_eq!(body, text().as_bytes());

    world.rule("shop", &[("compress", "on")]).await;
    for (coding, accepted) in [("gzip", "gzip, deflate"), ("br", "gzip, deflate, br"), ("zstd", "gzip, br, zstd")] {
        let (head, body) = ask(&world, &format!("GET / HTTP/1.1\r\nAccept-Encoding: {accepted}\r\n")).await;
        assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{head}");
        assert!(head.contains("vary: Origin\r\n") && head.contains("vary: accept-encoding\r\n"), "{head}");
        assert!(head.contains("etag: W/\"one\"\r\n"), "{head}");
        assert!(!head.contains("content-length") && !head.contains("accept-ranges"), "{head}");
        assert!(body.len() < text().len() / 3, "{} bytes", body.len());
        assert_eq!(unpacked(coding, &body), text());
    }
    let (head, body) = ask(&world, "GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n").await;
    assert_eq!(unpacked("gzip", &body), text(), "{head}");
    let (head, body) = ask(&world, "HEAD / HTTP/1.1\r\nAccept-Encoding: gzip\r\n").await;
    assert!(head.contains("content-encoding: gzip\r\n") && !head.contains("content-length"), "{head}");
    assert_eq!(body, b"");
    let (head, body) = ask(&world, "GET / HTTP/1.1\r\n").await;
    assert!(!head.contains("content-encoding") && head.contains("etag: \"one\"\r\n"), "{head}");
    assert!(head.contains("vary: accept-encoding\r\n"), "caches are told all the same: {head}");
    assert_eq!(body, text().as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compressed_or_must_not_be_passes_as_it_is() {
    let world = World::new(Timeouts::default()).await;
    world.rule("shop", &[("compress", "on")]).await;
    let others = [
        teller(&[("content-type", "image/png")]).await,
        teller(&[]).await,
        teller(&[HTML, ("content-encoding", "deflate")]).await,
        teller(&[HTML, ("cache-control", "public, no-transform")]).await,
        teller(&[("content-type", "text/event-stream")]).await,
        instance("short", |_| async {
            Response::builder().header("content-type", "text/plain").body(Full::from("hello")).expect("an answer")
        })
        .await,
    ];
    for web in &others {
        world.instances("shop", &[web]).await;
        let (head, body) = ask(&world, "GET / HTTP/1.1\r\nAccept-Encoding: gzip, br, zstd\r\n").await;
        for coding in ["gzip", "br", "zstd"] {
            assert!(!head.contains(&format!("content-encoding: {coding}")), "{head}");
        }
        assert!(head.contains("content-length: ") && !head.contains("vary"), "{head}");
        assert!(body == text().as_bytes() || body == b"hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_said_is_not_held_back() {
    let world = World::new(Timeouts::default()).await;
    world.rule("shop", &[("compress", "on")]).await;
    for coding in ["gzip", "br", "zstd"] {
        // It says more only once the client knows what it said before.
        let web = raw("slow", |mut stream| async move {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[1,";
            stream.write_all(head.as_bytes()).await.expect("sent");
            std::future::pending::<()>().await;
        })
        .await;
        world.instances("shop", &[&web]).await;
        let mut stream = TcpStream::connect(world.address).await.expect("a connection");
        let request = format!("GET / HTTP/1.0\r\nHost: shop.localhost\r\nAccept-Encoding: {coding}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let head = read_head(&mut stream).await;
        assert!(head.contains(&format!("content-encoding: {coding}")), "{head}");
        let mut bytes = Vec::new();
        while partly(coding, &bytes) != b"[1," {
            let mut more = [0; 512];
            let read = tokio::time::timeout(LONG, stream.read(&mut more)).await;
            let length = read.expect("it comes").expect("readable");
            assert!(length > 0, "{coding}: it is not over");
            bytes.extend_from_slice(&more[..length]);
        }
    }
}

/// What the beginning of a compressed text says.
fn partly(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut reader: Box<dyn Read> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "br" => Box::new(brotli::Decompressor::new(bytes, 1)),
        _ => Box::new(zstd::stream::read::Decoder::new(bytes).expect("a decoder")),
    };
    let (mut all, mut byte) = (Vec::new(), [0]);
    while let Ok(1) = reader.read(&mut byte) {
        all.push(byte[0]);
    }
    all
}
