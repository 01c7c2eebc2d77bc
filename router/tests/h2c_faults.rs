//! Apps that ask for HTTP/2 and do something else, or end it: what becomes of requests.

use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Frame};
use model::routes::Endpoint;
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::h2c::{full, instance, serve};
use crate::http2::{body, client, empty, request, send, text};
use crate::world::{LONG, World, get, listen, named, nobody, raw};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
/// `:status: 200` in HPACK.
const OK: &[u8] = &[0x88];

/// An instance's end of a connection, frame by frame.
struct Frames {
    stream: TcpStream,
}

struct Read {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frames {
    /// Takes the next connection and says hello.
    async fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) =
            tokio::time::timeout(LONG, listener.accept()).await.expect("in time").expect("a connection");
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.expect("a preface");
        assert_eq!(preface, PREFACE);
        let mut frames = Self { stream };
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        // Whoever is gone does not hear it.
        let _ = self.stream.write_all(&frame(kind, flags, stream, payload)).await;
    }

    /// The next frame; none at the end.
    async fn next(&mut self) -> Option<Read> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Read { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of this kind.
    async fn wait(&mut self, kind: u8) -> Read {
        let wait = async {
            while let Some(frame) = self.next().await {
                if frame.kind == kind {
                    return frame;
                }
            }
            panic!("the connection ends without a frame of kind {kind}");
        };
        tokio::time::timeout(LONG, wait).await.expect("in time")
    }

    /// Reads a request to its end: its stream and its body.
    async fn request(&mut self) -> (u32, Vec<u8>) {
        let head = self.wait(HEADERS).await;
        let (mut body, mut is_over) = (Vec::new(), head.flags & END_STREAM != 0);
        while !is_over {
            let data = self.wait(DATA).await;
            assert_eq!(data.stream, head.stream);
            is_over = data.flags & END_STREAM != 0;
            body.extend(data.payload);
        }
        (head.stream, body)
    }

    async fn answer(&mut self, stream: u32, body: &[u8]) {
        self.send(HEADERS, END_HEADERS, stream, OK).await;
        self.send(DATA, END_STREAM, stream, body).await;
    }

    async fn go_away(&mut self, last: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat()).await;
    }

    async fn reset(&mut self, stream: u32, reason: u32) {
        self.send(RST_STREAM, 0, stream, &reason.to_be_bytes()).await;
    }
}

fn post(body: &'static str) -> http::Request<crate::http2::Body> {
    request("POST", "/").body(Full::new(Bytes::from_static(body.as_bytes())).boxed()).expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_goaway_leaves_out_is_sent_again_and_what_it_names_is_answered() {
    let world = World::new(Timeouts::default()).await;
    let (listener, app) = listen("leaving").await;
    serve(&world, "shop", &[&app], &[("retries", "off")]).await;
    let sender = client(&world).await;
    let ask = |body| {
        let mut sender = sender.clone();
        tokio::spawn(async move { text(send(&mut sender, post(body)).await).await })
    };
    let first = ask("first");
    let mut old = Frames::accept(&listener).await;
    let (named, asked) = old.request().await;
    assert_eq!(asked, b"first");
    let second = ask("second");
    let (_, asked) = old.request().await;
    assert_eq!(asked, b"second");
    old.go_away(named).await;
    // It may not come twice, but it did not come once.
    let mut new = Frames::accept(&listener).await;
    let (stream, asked) = new.request().await;
    assert_eq!(asked, b"second");
    new.answer(stream, b"of the second").await;
    assert_eq!(second.await.expect("no panic"), "of the second");
    old.answer(named, b"of the first").await;
    assert_eq!(first.await.expect("no panic"), "of the first");
    assert!(tokio::time::timeout(LONG, async { while old.next().await.is_some() {} }).await.is_ok(), "it is let go");
    let third = ask("third");
    let (stream, _) = new.request().await;
    new.answer(stream, b"of the third").await;
    assert_eq!(third.await.expect("no panic"), "of the third");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_refused_goes_to_another_instance() {
    let world = World::new(Timeouts::default()).await;
    let (listener, busy) = listen("busy").await;
    tokio::spawn(async move {
        let mut frames = Frames::accept(&listener).await;
        loop {
            let stream = frames.wait(HEADERS).await.stream;
            frames.reset(stream, REFUSED_STREAM).await;
        }
    });
    let (well, _) = instance("well", 100, |request| async move {
        full(request.into_body().collect().await.expect("a body").to_bytes())
    })
    .await;
    let rules = [("retries", "off"), ("balance", "round-robin"), ("ejection", "off")];
    serve(&world, "shop", &[&busy, &well], &rules).await;
    let mut sender = client(&world).await;
    for _ in 0..10 {
        let answer = send(&mut sender, post("hello")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(text(answer).await, "hello");
    }
    world.instances("shop", &[&busy]).await;
    let answer = send(&mut sender, post("hello")).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    world.logged(&["at=error code=H13", "method=POST"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_refused_beside_others_goes_over_another_connection() {
    let world = World::new(Timeouts::default()).await;
    let (listener, app) = listen("late").await;
    serve(&world, "shop", &[&app], &[("retries", "off")]).await;
    let sender = client(&world).await;
    let ask = |body| {
        let mut sender = sender.clone();
        tokio::spawn(async move { text(send(&mut sender, post(body)).await).await })
    };
    let first = ask("first");
    let mut one = Frames::accept(&listener).await;
    let (stream, _) = one.request().await;
    let second = ask("second");
    let (refused, _) = one.request().await;
    one.reset(refused, REFUSED_STREAM).await;
    let mut other = Frames::accept(&listener).await;
    let (again, asked) = other.request().await;
    assert_eq!(asked, b"second");
    other.answer(again, b"of the second").await;
    assert_eq!(second.await.expect("no panic"), "of the second");
    one.answer(stream, b"of the first").await;
    assert_eq!(first.await.expect("no panic"), "of the first");
    let third = ask("third");
    let (stream, _) = one.request().await;
    one.answer(stream, b"of the third").await;
    assert_eq!(third.await.expect("no panic"), "of the third", "then it has room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_takes_its_requests_along_but_for_those_that_may_come_twice() {
    let world = World::new(Timeouts::default()).await;
    let (listener, app) = listen("dying").await;
    let (well, _) = instance("well", 100, |_| async move { full("well") }).await;
    serve(&world, "shop", &[&app], &[("retries", "100%"), ("ejection", "off")]).await;
    let sender = client(&world).await;
    let ask = |asked| {
        let mut sender = sender.clone();
        tokio::spawn(async move { send(&mut sender, asked).await })
    };
    let (once, twice) = (ask(post("hello")), ask(request("GET", "/").body(empty()).expect("a request")));
    let mut frames = Frames::accept(&listener).await;
    frames.wait(HEADERS).await;
    frames.wait(HEADERS).await;
    world.instances("shop", &[&app, &well]).await;
    drop(frames);
    assert_eq!(once.await.expect("no panic").status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text(twice.await.expect("no panic")).await, "well");
    world.logged(&["code=H13", "method=POST"]).await;
    world.logged(&["method=GET", "status=200", "retries=1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_broken_off_is_so_to_its_client_alone() {
    let world = World::new(Timeouts::default()).await;
    let (listener, app) = listen("breaking").await;
    serve(&world, "shop", &[&app], &[]).await;
    let sender = client(&world).await;
    let ask = || {
        let mut sender = sender.clone();
        tokio::spawn(async move { send(&mut sender, request("GET", "/").body(empty()).expect("a request")).await })
    };
    let (one, other) = (ask(), ask());
    let mut frames = Frames::accept(&listener).await;
    let broken = frames.wait(HEADERS).await.stream;
    let whole = frames.wait(HEADERS).await.stream;
    for stream in [broken, whole] {
        frames.send(HEADERS, END_HEADERS, stream, OK).await;
        frames.send(DATA, 0, stream, b"half").await;
    }
    let (one, other) = (one.await.expect("no panic"), other.await.expect("no panic"));
    frames.reset(broken, CANCEL).await;
    frames.send(DATA, END_STREAM, whole, b" and half").await;
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for answer in [one, other] {
        match answer.into_body().collect().await {
            Ok(answer) => good.push(answer.to_bytes()),
            Err(error) => bad.push(error),
        }
    }
    assert_eq!(good, ["half and half"]);
    let reset = std::error::Error::source(&bad[0]).and_then(|error| error.downcast_ref::<h2::Error>());
    assert_eq!(reset.and_then(h2::Error::reason), Some(h2::Reason::CANCEL), "the app's word is passed on: {bad:?}");
    world.logged(&["at=error code=H18", "sock=backend"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_takes_back_is_taken_back_at_the_instance_alone() {
    let world = World::new(Timeouts::default()).await;
    let (listener, app) = listen("waiting").await;
    serve(&world, "shop", &[&app], &[]).await;
    let sender = client(&world).await;
    let ask = || {
        let mut sender = sender.clone();
        tokio::spawn(async move { send(&mut sender, request("GET", "/").body(empty()).expect("a request")).await })
    };
    let one = ask();
    let mut frames = Frames::accept(&listener).await;
    let first = frames.wait(HEADERS).await.stream;
    let other = ask();
    let second = frames.wait(HEADERS).await.stream;
    one.abort();
    let reset = frames.wait(RST_STREAM).await;
    assert_eq!((reset.stream, &reset.payload[..]), (first, &CANCEL.to_be_bytes()[..]));
    frames.answer(second, b"still there").await;
    assert_eq!(text(other.await.expect("no panic")).await, "still there");
    world.logged(&["at=warning code=H27", "protocol=http2.0"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_has_herokus_codes_and_nobody_waits_there_again() {
    let world = World::new(Timeouts::default()).await;
    let (listener, app) = listen("slow").await;
    let limits = [("first_byte_timeout", "1s"), ("idle_timeout", "1s"), ("ejection", "off")];
    serve(&world, "shop", &[&app], &limits).await;
    let sender = client(&world).await;
    let ask = |asked| {
        let mut sender = sender.clone();
        tokio::spawn(async move { send(&mut sender, asked).await })
    };
    let get = || request("GET", "/").body(empty()).expect("a request");
    let silent = ask(get());
    let mut frames = Frames::accept(&listener).await;
    assert_eq!(silent.await.expect("no panic").status(), StatusCode::SERVICE_UNAVAILABLE);
    world.logged(&["at=error code=H12"]).await;
    assert_eq!(frames.wait(RST_STREAM).await.payload, CANCEL.to_be_bytes());

    // If that connection leads nowhere, another one may not.
    let half = ask(get());
    let mut frames = Frames::accept(&listener).await;
    let stream = frames.wait(HEADERS).await.stream;
    frames.send(HEADERS, END_HEADERS, stream, OK).await;
    frames.send(DATA, 0, stream, b"half").await;
    assert!(half.await.expect("no panic").into_body().collect().await.is_err(), "half is not the whole");
    world.logged(&["at=error code=H15"]).await;

    let (half, upload) = body();
    half.send(Frame::data(Bytes::from_static(b"half"))).expect("open");
    let stalled = ask(request("POST", "/").body(upload).expect("a request"));
    assert_eq!(stalled.await.expect("no panic").status().as_u16(), 499);
    world.logged(&["at=warning code=H28"]).await;
}

/// An instance that says this on each connection, once it has heard the preface, and then waits for the end.
async fn saying(bytes: Vec<u8>) -> Endpoint {
    let (listener, endpoint) = listen("saying").await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let _ = stream.read_exact(&mut [0; PREFACE.len()]).await;
                let _ = stream.write_all(&bytes).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    endpoint
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&[length[1], length[2], length[3], kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_speak_it_is_told_from_whoever_is_not_there() {
    let world = World::new(Timeouts::default()).await;
    let closing = raw("closing", |_| async {}).await;
    for (app, code) in [
        (&saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec()).await, "H17"),
        (&named("silent").await, "H13"),
        (&closing, "H13"),
        (&nobody("nobody"), "H21"),
    ] {
        serve(&world, "shop", &[app], &[("ejection", "off")]).await;
        let answer = get(world.address, "shop", "/").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(code), "{code}: {answer}");
        world.logged(&[&format!("code={code}")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_bounds_is_refused() {
    let world = World::new(Timeouts::default()).await;
    let long = |name: &[u8], length: usize| {
        // A literal header without indexing, with a name and a value of lengths in seven bits and more.
        let mut block = [OK, &[0x00, u8::try_from(name.len()).expect("short")], name, &[0x7f]].concat();
        let mut rest = length - 0x7f;
        while rest >= 0x80 {
            block.push(u8::try_from(rest % 0x80).expect("seven bits") | 0x80);
            rest /= 0x80;
        }
        block.push(u8::try_from(rest).expect("seven bits"));
        block.extend(vec![b'x'; length]);
        let mut bytes = frame(SETTINGS, 0, 0, &[]);
        let mut pieces = block.chunks(16_384).peekable();
        let mut kind = HEADERS;
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            bytes.extend(frame(kind, flags, 1, piece));
            kind = CONTINUATION;
        }
        bytes
    };
    for (bytes, code) in [
        (long(b"set-cookie", 9000), "H25"),
        (long(b"x-long", 600_000), "H25"),
        (long(b"x-longer", 5_000_000), "H17"),
        ([frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS, 1, b"\x0f\x0d\x01x")].concat(), "H17"),
    ] {
        // It answers what is asked on the first stream.
        let app = answering(bytes).await;
        serve(&world, "shop", &[&app], &[("ejection", "off")]).await;
        let answer = get(world.address, "shop", "/").await;
        assert!(answer.contains(code), "{code}: {answer}");
    }
}

/// An instance that says hello, and this once it is asked something.
async fn answering(bytes: Vec<u8>) -> Endpoint {
    let (listener, endpoint) = listen("answering").await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (hello, rest) = bytes.split_at(9);
            let _ = stream.read_exact(&mut [0; PREFACE.len()]).await;
            let _ = stream.write_all(hello).await;
            let mut frames = Frames { stream };
            frames.wait(HEADERS).await;
            let _ = frames.stream.write_all(rest).await;
            while frames.next().await.is_some() {}
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_leaves_again_and_again_fails_nobody() {
    let world = World::new(Timeouts::default()).await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let (listener, app) = listen("restless").await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                let mut answered = 0;
                while let Some(asked) = connection.accept().await {
                    let Ok((_, mut respond)) = asked else { return };
                    let mut body = respond.send_response(http::Response::new(()), false).expect("open");
                    body.send_data(Bytes::from_static(b"here"), true).expect("open");
                    answered += 1;
                    if answered == 10 {
                        let _ = tell.send(());
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    serve(&world, "shop", &[&app], &[("retries", "off"), ("ejection", "off")]).await;
    let sender = client(&world).await;
    let visitors = (0..10).map(|_| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                let answer = send(&mut sender, post("hello")).await;
                assert_eq!(answer.status(), StatusCode::OK);
                assert_eq!(text(answer).await, "here");
            }
        })
    });
    for visitor in visitors.collect::<Vec<_>>() {
        visitor.await.expect("every request has its answer");
    }
    assert!(told.recv().await.is_some(), "it left");
}
