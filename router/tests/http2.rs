//! HTTP/2 with clients: what apps and clients notice of it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::routes::Endpoint;
use router::Timeouts;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::tls::Secure;
use crate::world::{LONG, World, instance, mirror, named, raw, read_head, until};

const SOON: Duration = Duration::from_millis(100);

pub(crate) type Body = BoxBody<Bytes, Infallible>;
pub(crate) type Sender = SendRequest<Body>;

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Sender {
    let (sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// A client that knows without having asked.
pub(crate) async fn client(world: &World) -> Sender {
    speak(TcpStream::connect(world.address).await.expect("a connection")).await
}

pub(crate) fn empty() -> Body {
    Empty::new().boxed()
}

/// A body whose frames come when the sender says.
struct Said(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl hyper::body::Body for Said {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

pub(crate) fn body() -> (mpsc::UnboundedSender<Frame<Bytes>>, Body) {
    let (sender, frames) = mpsc::unbounded_channel();
    (sender, Said(frames).boxed())
}

pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://shop.localhost{path}"))
}

pub(crate) async fn send(sender: &mut Sender, request: Request<Body>) -> Response<Incoming> {
    tokio::time::timeout(LONG, sender.send_request(request)).await.expect("in time").expect("an answer")
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    String::from_utf8_lossy(&response.into_body().collect().await.expect("a body").to_bytes()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_it_is_what_a_client_gets_that_asks_and_apps_hear_http1() {
    let secure = Secure::new(Timeouts::default()).await;
    secure.world.serve("shop", &[&mirror("one").await]).await;
    let stream = secure.connect_http2().await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut sender = speak(stream).await;
    let upload = Full::new(Bytes::from_static(b"hello")).boxed();
    let asked = request("POST", "/a?b=c").header("cookie", "a=1").header("cookie", "b=2").header("te", "trailers");
    let answer = send(&mut sender, asked.body(upload).expect("a request")).await;
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    assert!(!answer.headers().contains_key("connection"));
    let told = text(answer).await;
    for part in [
        "POST /a?b=c HTTP/1.1\n",
        "host: shop.localhost\n",
        "cookie: a=1; b=2\n",
        "x-forwarded-proto: https\n",
        "x-forwarded-for: 127.0.0.1\n",
        "content-length: 5\n",
        "\n\nhello",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("te: "), "{told}");
    let parts =
        ["at=info method=POST path=\"/a?b=c\" host=shop.localhost", "protocol=http2.0 tls=true tls_version=tls1.3"];
    secure.world.logged(&parts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_share_a_connection_and_each_has_its_answer() {
    let world = World::new(Timeouts::default()).await;
    let echo = instance("echo", |request| async move {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        Response::new(Full::new(body))
    })
    .await;
    world.serve("shop", &[&echo]).await;
    let sender = client(&world).await;
    let mut exchanges = JoinSet::new();
    for number in 0..100_u8 {
        let mut sender = sender.clone();
        exchanges.spawn(async move {
            // Both of known and of unknown length, and one larger than any window.
            let piece = Bytes::from(vec![number; if number == 0 { 3_000_000 } else { 20_000 }]);
            let upload = if number % 2 == 0 {
                Full::new(piece.clone()).boxed()
            } else {
                let (frames, body) = body();
                frames.send(Frame::data(piece.clone())).expect("open");
                body
            };
            let answer = send(&mut sender, request("PUT", "/").body(upload).expect("a request")).await;
            let back = answer.into_body().collect().await.expect("a body").to_bytes();
            assert!(back == piece, "every byte comes back");
        });
    }
    exchanges.join_all().await;
    world.logged(&["method=PUT", "protocol=http2.0 tls=false"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    let world = World::new(Timeouts::default()).await;
    let trailing = raw("trailing", |mut stream| async move {
        let mut sent = Vec::new();
        while !sent.ends_with(b"\r\n\r\n") {
            sent.push(stream.read_u8().await.expect("a body"));
        }
        let sent = String::from_utf8_lossy(&sent).into_owned();
        assert!(sent.contains("\r\nx-check: of the client\r\n"), "{sent}");
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n";
        let rest = "5\r\nhello\r\n0\r\nX-Check: of the app\r\n\r\n";
        stream.write_all(format!("{head}{rest}").as_bytes()).await.expect("sent");
    })
    .await;
    world.serve("shop", &[&trailing]).await;
    let mut sender = client(&world).await;
    let (frames, upload) = body();
    frames.send(Frame::data(Bytes::from_static(b"hello"))).expect("open");
    let trailers = [("x-check".parse().expect("a name"), "of the client".parse().expect("a value"))];
    frames.send(Frame::trailers(trailers.into_iter().collect())).expect("open");
    drop(frames);
    let asked = request("POST", "/").header("trailer", "x-check").body(upload).expect("a request");
    let answer = send(&mut sender, asked).await.into_body().collect().await.expect("a body");
    assert_eq!(answer.trailers().expect("trailers")["x-check"], "of the app");
    assert_eq!(answer.to_bytes(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_hosts_or_for_another_protocol_is_refused() {
    let world = World::new(Timeouts::default()).await;
    world.serve("shop", &[&named("one").await]).await;
    let mut sender = client(&world).await;
    let get = || request("GET", "/");
    let connect = |protocol: &'static str| request("CONNECT", "/").extension(Protocol::from_static(protocol));
    let forward = Request::builder().method(Method::CONNECT).uri("shop.localhost:80");
    for (asked, status) in [
        (get().header("host", "other.localhost"), 400),
        (get().header("host", "shop.localhost"), 200),
        (get().header("expect", "200-maybe"), 417),
        (connect("webtransport"), 501),
        (forward, 405),
    ] {
        let asked = asked.body(empty()).expect("a request");
        let answer = send(&mut sender, asked).await;
        assert_eq!(answer.status(), status, "{answer:?}");
    }
}

fn open_socket() -> Request<Body> {
    let socket = request("CONNECT", "/socket").extension(Protocol::from_static("websocket"));
    socket
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .body(empty())
        .expect("a request")
}

/// An app whose `WebSocket`s say everything back.
async fn echoing() -> Endpoint {
    let (listener, endpoint) = crate::world::listen("echo").await;
    let listener = listener.into_std().expect("a listener");
    listener.set_nonblocking(false).expect("blocking");
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                while let Ok(message) = socket.read() {
                    if message.is_text() && socket.send(message).is_err() {
                        return;
                    }
                }
            });
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_is_a_stream_beside_others_and_an_upgrade_to_the_app() {
    let mut world = World::new(Timeouts::default()).await;
    world.serve("shop", &[&echoing().await]).await;
    world.serve("other", &[&named("other").await]).await;
    let mut sender = client(&world).await;
    let answer = send(&mut sender, open_socket()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!answer.headers().contains_key(name), "{name}: {answer:?}");
    }
    let mut socket = TokioIo::new(hyper::upgrade::on(answer).await.expect("a stream"));
    let mut said = [0; 7];
    // A masked frame of five letters, and the server's, which has no mask.
    socket.write_all(b"\x81\x85\0\0\0\0hello").await.expect("sent");
    socket.read_exact(&mut said).await.expect("an echo");
    assert_eq!(&said, b"\x81\x05hello");
    let other = Request::get("http://other.localhost/").body(empty()).expect("a request");
    assert_eq!(text(send(&mut sender, other).await).await, "other");

    let stopping = tokio::spawn(async move {
        world.stop().await;
        world
    });
    let mut goodbye = [0; 4];
    socket.read_exact(&mut goodbye).await.expect("a goodbye");
    assert_eq!(goodbye, [0x88, 2, 0x03, 0xe9]);
    socket.write_all(b"\x88\x82\0\0\0\0\x03\xe9").await.expect("sent");
    assert_eq!(socket.read_to_end(&mut Vec::new()).await.expect("the end"), 0);
    let world = stopping.await.expect("no panic");
    world.logged(&["path=\"/socket\"", "status=101", "at=info", "protocol=http2.0"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_that_nobody_opens_says_so() {
    let wrong = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
    for (answer, status) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 502),
        (wrong, 502),
    ] {
        let world = World::new(Timeouts::default()).await;
        let app = raw("app", move |mut stream| async move { stream.write_all(answer.as_bytes()).await.expect("sent") });
        world.serve("shop", &[&app.await]).await;
        let mut sender = client(&world).await;
        assert_eq!(send(&mut sender, open_socket()).await.status(), status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_its_own_time() {
    let world = World::new(Timeouts { idle: SOON, ..Timeouts::default() }).await;
    let deaf = raw("deaf", |mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let flood = raw("flood", |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
        let piece = vec![0; 65_536];
        while stream.write_all(&piece).await.is_ok() {}
    })
    .await;
    let quiet = raw("quiet", |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
        std::future::pending::<()>().await;
    })
    .await;
    for (app, instance) in [("deaf", &deaf), ("flood", &flood), ("quiet", &quiet)] {
        world.serve(app, &[instance]).await;
    }
    world.serve("shop", &[&named("one").await]).await;
    let mut sender = client(&world).await;
    // Another one keeps the connection busy all the time: that is no sign of life of these.
    let busy = tokio::spawn({
        let mut sender = sender.clone();
        async move {
            loop {
                let asked = request("GET", "/").body(empty()).expect("a request");
                assert_eq!(text(send(&mut sender, asked).await).await, "one");
            }
        }
    });
    let of = |method: &str, app: &str, body| {
        Request::builder().method(method).uri(format!("http://{app}.localhost/")).body(body).expect("a request")
    };
    let (frames, upload) = body();
    frames.send(Frame::data(Bytes::from_static(b"half"))).expect("open");
    assert_eq!(send(&mut sender, of("POST", "deaf", upload)).await.status().as_u16(), 499);
    world.logged(&["at=warning code=H28", "host=deaf.localhost"]).await;
    let unread = send(&mut sender, of("GET", "flood", empty())).await;
    world.logged(&["at=warning code=H27", "host=flood.localhost"]).await;
    assert!(unread.into_body().collect().await.is_err(), "it is not all that there is");
    let half = send(&mut sender, of("GET", "quiet", empty())).await;
    assert!(half.into_body().collect().await.is_err(), "half is not the whole");
    world.logged(&["at=error code=H15", "host=quiet.localhost"]).await;
    assert!(!busy.is_finished(), "the connection goes on");
    busy.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_a_request_back_ends_it_at_the_instance() {
    let world = World::new(Timeouts::default()).await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let waiting = raw("waiting", move |mut stream| {
        let tell = tell.clone();
        async move {
            tell.send("begun").expect("a test");
            let _ = stream.read_to_end(&mut Vec::new()).await;
            tell.send("ended").expect("a test");
        }
    })
    .await;
    world.serve("shop", &[&waiting]).await;
    let mut sender = client(&world).await;
    let answer =
        tokio::spawn(async move { send(&mut sender, request("GET", "/").body(empty()).expect("a request")).await });
    assert_eq!(told.recv().await, Some("begun"));
    answer.abort();
    assert_eq!(tokio::time::timeout(LONG, told.recv()).await.expect("it is told"), Some("ended"));
    world.logged(&["at=warning code=H27", "protocol=http2.0"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_stops_says_goodbye_and_answers_what_has_begun() {
    let mut world = World::new(Timeouts::default()).await;
    let (begun, mut has_begun) = mpsc::unbounded_channel();
    let (finish, finished) = tokio::sync::watch::channel(false);
    let slow = instance("slow", move |request| {
        let (begun, mut finished) = (begun.clone(), finished.clone());
        async move {
            if request.uri() == "/fast" {
                return Response::new(Full::from("fast"));
            }
            begun.send(()).expect("a test");
            finished.wait_for(|finished| *finished).await.expect("a test");
            Response::new(Full::from("slow"))
        }
    })
    .await;
    world.serve("shop", &[&slow]).await;
    let sender = client(&world).await;
    let answer = tokio::spawn({
        let mut sender = sender.clone();
        async move { text(send(&mut sender, request("GET", "/").body(empty()).expect("a request")).await).await }
    });
    has_begun.recv().await.expect("a request");
    let stopping = tokio::spawn(async move { world.stop().await });
    // After that it takes nothing more.
    let fast = || request("GET", "/fast").body(empty()).expect("a request");
    until(async || sender.clone().send_request(fast()).await.is_err()).await;
    finish.send_replace(true);
    assert_eq!(answer.await.expect("no panic"), "slow");
    stopping.await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_nobody_uses_is_closed() {
    let world = World::new(Timeouts { client_idle: Duration::from_secs(1), ..Timeouts::default() }).await;
    world.serve("shop", &[&named("one").await]).await;
    let mut sender = client(&world).await;
    assert_eq!(text(send(&mut sender, request("GET", "/").body(empty()).expect("a request")).await).await, "one");
    until(async || sender.clone().ready().await.is_err()).await;
    // Nor is one waited for that only ever begins to speak.
    let mut silent = TcpStream::connect(world.address).await.expect("a connection");
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    tokio::time::timeout(LONG, silent.read_to_end(&mut Vec::new())).await.expect("it ends").expect("readable");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_own_hosts_answer_and_change_protocol_too() {
    let world = World::new(Timeouts::default()).await;
    let listener = tokio::net::UnixListener::bind(world.folder.path().join("controller.sock")).expect("a socket");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = read_head(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
            stream.write_all(answer.as_bytes()).await.expect("sent");
        }
    });
    let mut sender = client(&world).await;
    let asked = Request::get("http://api.localhost/apps?x=y").body(empty()).expect("a request");
    let answer = text(send(&mut sender, asked).await).await;
    assert!(answer.contains("GET /apps?x=y HTTP/1.1") && answer.contains("host: api.localhost"), "{answer}");
}
