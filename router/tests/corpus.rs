//! Requests that two readers could understand differently: where one ends, whom it is for, what it says. The router refuses them, or makes of
//! them something with one meaning. Each message is sent as it is; what an instance receives is read by a reader that forgives nothing.

use std::sync::{Arc, Mutex};

use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{LONG, World, listen, read_head};

/// What is to come of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// No instance hears of it.
    Refused,
    Passed,
    /// One or the other, as long as an instance hears nothing ambiguous.
    Either,
}
use Want::{Either, Passed, Refused};

const HOST: &str = "Host: shop.localhost\r\n";
/// What would be a second request to a reader who ends the first one earlier.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";

/// With these framing headers and this body.
fn post(framing: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\n{HOST}{framing}\r\n{body}")
}

fn lengths() -> Vec<(Want, String)> {
    let mut all = vec![
        (Passed, post("Content-Length: 5\r\n", "hello")),
        (Either, post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        (Either, post("Content-Length: 5, 5\r\n", "hello")),
        (Either, post("Content-Length: 005\r\n", "hello")),
        (Refused, post("Content-Length: 0\r\nContent-Length: 46\r\n", HIDDEN)),
        (Refused, post("Content-Length: 5, 6\r\n", "hello!")),
        (Refused, post("Content-Length : 5\r\n", "hello")),
        (Refused, post("Content-Length 5\r\n", "hello")),
        (Refused, post("Content-Length: 0\r\nTransfer-Encoding: xchunked\r\n", HIDDEN)),
        (Either, post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        (Either, format!("GET / HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nhello")),
    ];
    for wrong in ["+5", "-5", "0x5", "1_0", "5Z", "5.0", "", "1 0", "99999999999999999999", "5\0", "\u{b}5"] {
        all.push((Refused, post(&format!("Content-Length: {wrong}\r\n"), "helloworld")));
    }
    all
}

fn encodings() -> Vec<(Want, String)> {
    let mut all = vec![
        (Passed, post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")),
        (Either, post("Transfer-Encoding: CHUNKED\r\n", "5\r\nhello\r\n0\r\n\r\n")),
        (Either, post("Transfer-Encoding: chunked\r\nTrailer: X-T\r\n", "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n")),
        (Either, post("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 44\r\nHost: other\r\n\r\n")),
        (Refused, post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")),
        (Refused, post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")),
        (Refused, post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n")),
        (Refused, format!("POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
    ];
    let wrong = [
        ",chunked",
        "xchunked",
        "identity",
        "chunked, chunked",
        "chunked, identity",
        "gzip, chunked",
        "\"chunked\"",
        "\u{b}chunked",
        "chunked\0",
        "chunked;a=b",
        "\rchunked",
        "",
    ];
    for wrong in wrong {
        all.push((Refused, post(&format!("Transfer-Encoding: {wrong}\r\n"), &format!("0\r\n\r\n{HIDDEN}"))));
    }
    let wrong = [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-0\r\n\r\n",
        "0_5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "ZZ\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
    ];
    // What comes before the fault may have passed: that is a request that never ends, not one that is misread.
    all.extend(wrong.map(|body| (Either, post("Transfer-Encoding: chunked\r\n", body))));
    all
}

fn heads() -> Vec<(Want, String)> {
    let get = |line: &str, headers: &str| format!("{line}\r\n{headers}\r\n");
    let with = |header: &str| get("GET / HTTP/1.1", &format!("{HOST}{header}\r\n"));
    let mut all = vec![
        (Passed, get("GET / HTTP/1.1", HOST)),
        (Passed, get("PURGE /a?b=c HTTP/1.1", HOST)),
        (Passed, get("OPTIONS * HTTP/1.1", HOST)),
        (Either, get("GET http://shop.localhost/x HTTP/1.1", HOST)),
        (Either, get("GET / HTTP/1.0", HOST)),
        (Either, with("X: a\tb")),
        (Either, with(&format!("X: {}", "y".repeat(7000)))),
        (Refused, get("GET http://other.localhost/ HTTP/1.1", HOST)),
        (Refused, get("CONNECT shop.localhost:80 HTTP/1.1", HOST)),
        (Refused, get("GET / HTTP/1.1", "")),
        (Refused, get("GET / HTTP/1.1", &format!("{HOST}{HOST}"))),
        (Refused, get("GET / HTTP/1.1", &format!("{HOST}Host: other.localhost\r\n"))),
        (Refused, with(&format!("X: {}", "y".repeat(70_000)))),
        (Refused, get("GET / HTTP/1.1", &format!("{HOST}{}", "X: y\r\n".repeat(1100)))),
        (Refused, with("Expect: 200-maybe")),
        (Refused, format!("GET / HTTP/1.1\n{HOST}\n\r\n\r\n").replace("\r\n", "\r")),
    ];
    for line in [
        "GET  / HTTP/1.1",
        "GET / a HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET x HTTP/1.1",
        "GET /a#/../b HTTP/1.1",
        "GET * HTTP/1.1",
        "G(T / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/9.9",
        "GET / http/1.1",
        "GET / HTTP/1.1 ",
        "GET /",
    ] {
        all.push((Refused, get(line, HOST)));
    }
    for host in ["a b", "shop.localhost/x", "user@shop.localhost", "shop.localhost,other", "", "shop.localhost\0"] {
        all.push((Refused, get("GET / HTTP/1.1", &format!("Host: {host}\r\n"))));
    }
    for header in ["X: a\0b", "X: a\rb", "X\0: a", "X : a", ": a", "no colon", " X: folded at once", "X(: a"] {
        all.push((Refused, with(header)));
    }
    all
}

/// An instance that keeps what each connection said, and answers each with 200.
async fn listener(said: Arc<Mutex<Vec<Vec<u8>>>>) -> model::routes::Endpoint {
    let (listener, endpoint) = listen("keeper").await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let said = Arc::clone(&said);
            let index = {
                let mut said = said.lock().expect("no panic");
                said.push(Vec::new());
                said.len() - 1
            };
            tokio::spawn(async move {
                let mut answered = false;
                let mut buffer = vec![0; 65_536];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    let whole = {
                        let mut said = said.lock().expect("no panic");
                        said[index].extend_from_slice(&buffer[..length]);
                        read_strictly(&said[index]).is_ok()
                    };
                    if whole && !std::mem::replace(&mut answered, true) {
                        let _ = stream
                            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
                            .await;
                        let _ = stream.shutdown().await;
                    }
                }
            });
        }
    });
    endpoint
}

/// Reads exactly one request, and says its target.
fn read_strictly(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "no text".to_owned())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no end of the head")?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let [_, target, "HTTP/1.1"] = line.split(' ').collect::<Vec<_>>()[..] else { return Err(format!("line {line:?}")) };
    let (mut hosts, mut lengths, mut encodings) = (0, Vec::new(), Vec::new());
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or(format!("header {line:?}"))?;
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) || value.contains(['\r', '\n', '\0']) {
            return Err(format!("header {line:?}"));
        }
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "content-length" => lengths.push(value),
            "transfer-encoding" => encodings.push(value),
            _ => {}
        }
    }
    let whole = match (lengths[..].as_ref(), encodings[..].as_ref()) {
        ([], []) => body.is_empty(),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => length.parse() == Ok(body.len()),
        ([], ["chunked"]) => is_whole_in_chunks(body),
        framing => return Err(format!("framing {framing:?}")),
    };
    if hosts == 1 && whole { Ok(target.to_owned()) } else { Err(format!("{hosts} hosts, body {body:?}")) }
}

fn is_whole_in_chunks(mut body: &str) -> bool {
    loop {
        let Some((size, rest)) = body.split_once("\r\n") else { return false };
        let Ok(size) = usize::from_str_radix(size, 16) else { return false };
        if size == 0 {
            return rest == "\r\n" || (rest.ends_with("\r\n\r\n") && rest.find("\r\n\r\n") == Some(rest.len() - 4));
        }
        match rest.get(..size).zip(rest.get(size..)) {
            Some((_, after)) if after.starts_with("\r\n") => body = &after[2..],
            _ => return false,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_be_misread_is_refused_or_passed_with_one_meaning() {
    let world = World::new(Timeouts::default()).await;
    let messages: Vec<(Want, String)> = [lengths(), encodings(), heads()].concat();
    assert!(messages.len() > 90, "{} messages", messages.len());
    let mut told = Vec::new();
    for (want, message) in messages {
        // Its own instance: what broke off in the middle may come to one when its client is long gone.
        let said = Arc::new(Mutex::new(Vec::new()));
        world.serve("shop", &[&listener(Arc::clone(&said)).await]).await;
        let mut stream = TcpStream::connect(world.address).await.expect("a connection");
        stream.write_all(message.as_bytes()).await.expect("sent");
        let answer = tokio::time::timeout(LONG, async {
            let head = read_head(&mut stream).await;
            // Whatever the router took for a second request has its answer before this one.
            let last = "GET /last HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(last.as_bytes()).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            head
        });
        let answer = answer.await.unwrap_or_else(|_| panic!("no answer to {message:?}"));
        let refused = answer.starts_with("HTTP/1.1 4");
        let heard = said
            .lock()
            .expect("no panic")
            .iter()
            .any(|bytes: &Vec<u8>| read_strictly(bytes).is_ok_and(|target| target != "/last"));
        match want {
            Refused => assert!(refused && !heard, "{message:?} was passed: {answer}"),
            Passed => assert!(!refused && heard, "{message:?} was refused: {answer}"),
            Either => assert!(refused || heard, "{message:?}: {answer}"),
        }
        told.push((message, refused, said));
    }
    for (message, refused, said) in told {
        for bytes in said.lock().expect("no panic").iter() {
            let target = read_strictly(bytes);
            // An instance whose request broke off knows that it did.
            let is_cut = refused && !bytes.ends_with(b"0\r\n\r\n");
            let fine = is_cut || target.as_ref().is_ok_and(|target| target != "/hidden");
            assert!(fine, "{message:?} became {target:?}: {:?}", String::from_utf8_lossy(bytes));
        }
    }
}
