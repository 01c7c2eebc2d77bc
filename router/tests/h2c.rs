//! Apps that ask for HTTP/2: what they and their clients notice of it.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::routes::Endpoint;
use router::{RouterSettings, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::http2::{Body, body, client, empty, request, send, text};
use crate::world::{LONG, World, get, listen, read_head, settings, until};

/// Connections of an instance: those that came, and those that are there.
#[derive(Clone, Default)]
pub(crate) struct Connections {
    pub(crate) came: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Connections {
    pub(crate) fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// An instance that speaks HTTP/2 and nothing else, with so many streams on each connection.
pub(crate) async fn instance<F>(
    name: &str,
    streams: u32,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> (Endpoint, Connections)
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (listener, endpoint) = listen(name).await;
    let connections = Connections::default();
    tokio::spawn({
        let connections = connections.clone();
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.came.fetch_add(1, Ordering::SeqCst);
                connections.open.fetch_add(1, Ordering::SeqCst);
                let (answer, open) = (answer.clone(), Arc::clone(&connections.open));
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                tokio::spawn(async move {
                    let mut builder = http2::Builder::new(TokioExecutor::new());
                    let served =
                        builder.max_concurrent_streams(streams).serve_connection(TokioIo::new(stream), service);
                    let _ = served.await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
    });
    (endpoint, connections)
}

/// Makes `<app>.localhost` an app that asks for HTTP/2.
pub(crate) async fn serve(world: &World, app: &str, instances: &[&Endpoint], settings: &[(&str, &str)]) {
    world.instances(app, instances).await;
    world.rule(app, &[&[("app_protocol", "h2c"), ("slow_start", "0s")], settings].concat()).await;
}

pub(crate) fn full(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).boxed())
}

/// What an instance was asked: request line, headers, body.
async fn mirrored(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut told = format!("{} {} {:?}\n", parts.method, parts.uri, parts.version);
    for (name, value) in &parts.headers {
        let _ = writeln!(told, "{name}: {}", value.to_str().expect("text"));
    }
    let body = body.collect().await.expect("a body").to_bytes();
    full(told + "\n" + &String::from_utf8_lossy(&body))
}

fn trailers(name: &'static str, value: &str) -> HeaderMap {
    [(name.parse().expect("a name"), value.parse().expect("a value"))].into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_asks_hears_http2_whatever_its_client_speaks() {
    let world = World::new(Timeouts::default()).await;
    let (app, _) = instance("mirror", 100, mirrored).await;
    serve(&world, "shop", &[&app], &[]).await;
    let old = get(world.address, "shop", "/a?b=c").await;
    for part in ["HTTP/1.1 200 OK\r\n", "GET http://shop.localhost/a?b=c HTTP/2.0\n", "x-forwarded-for: 127.0.0.1\n"] {
        assert!(old.contains(part), "{part}: {old}");
    }
    assert!(!old.contains("\nte: ") && !old.contains("\nhost: ") && !old.contains("connection: upgrade"), "{old}");

    let mut sender = client(&world).await;
    let upload = Full::new(Bytes::from_static(b"hello")).boxed();
    let asked = request("POST", "/").header("cookie", "a=1").header("cookie", "b=2").header("te", "trailers");
    let answer = send(&mut sender, asked.body(upload).expect("a request")).await;
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    let told = text(answer).await;
    for part in
        ["POST http://shop.localhost/ HTTP/2.0\n", "cookie: a=1; b=2\n", "te: trailers\n", "content-length: 5\n"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(told.ends_with("\n\nhello"), "{told}");
    world.logged(&["at=info method=POST path=\"/\" host=shop.localhost", "dyno=web.1", "status=200"]).await;

    // Without the wish it is HTTP/1.1 again, which this instance does not speak.
    world.rule("shop", &[]).await;
    assert!(!get(world.address, "shop", "/").await.contains("HTTP/2.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_core_share_a_connection_and_each_has_its_answer() {
    let world = World::new(Timeouts::default()).await;
    let echo = |request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        full(body)
    };
    let (app, connections) = instance("echo", 1000, echo).await;
    serve(&world, "shop", &[&app], &[]).await;
    // All on one connection, so on one core.
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
            let answer = send(&mut sender, request("POST", "/").body(upload).expect("a request")).await;
            let back = answer.into_body().collect().await.expect("a body").to_bytes();
            assert!(back == piece, "every byte comes back");
        });
    }
    exchanges.join_all().await;
    assert_eq!(connections.came(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_both_ways_one_by_one_and_trailers_after_them() {
    let world = World::new(Timeouts::default()).await;
    // As gRPC does: the answer begins before the request ends, and how it went is told last.
    let (app, _) = instance("grpc", 100, |request| async move {
        assert_eq!(request.headers()["te"], "trailers");
        let (frames, answer) = body();
        tokio::spawn(async move {
            let mut asked = request.into_body();
            while let Some(frame) = asked.frame().await {
                let frame = frame.expect("a frame");
                if let Some(said) = frame.trailers_ref() {
                    frames
                        .send(Frame::trailers(trailers("grpc-status", said["x-sum"].to_str().expect("text"))))
                        .expect("open");
                    return;
                }
                frames.send(frame).expect("open");
            }
        });
        let mut answer = Response::new(answer);
        answer.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
        answer
    })
    .await;
    serve(&world, "shop", &[&app], &[]).await;
    let mut sender = client(&world).await;
    let (frames, upload) = body();
    let asked = request("POST", "/chat.Chat/Talk").header("te", "trailers").header("content-type", "application/grpc");
    let answer = send(&mut sender, asked.body(upload).expect("a request")).await;
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let mut answer = answer.into_body();
    for message in ["one", "two", "three"] {
        frames.send(Frame::data(Bytes::from_static(message.as_bytes()))).expect("open");
        let back = tokio::time::timeout(LONG, answer.frame()).await.expect("in time").expect("a frame").expect("good");
        assert_eq!(back.into_data().expect("data"), message);
    }
    frames.send(Frame::trailers(trailers("x-sum", "3"))).expect("open");
    drop(frames);
    let last = tokio::time::timeout(LONG, answer.frame()).await.expect("in time").expect("a frame").expect("good");
    assert_eq!(last.into_trailers().expect("trailers")["grpc-status"], "3");
    assert!(answer.frame().await.is_none());
    world.logged(&["path=\"/chat.Chat/Talk\"", "status=200", "bytes=11"]).await;

    // And an answer that is trailers only.
    let (app, _) = instance("refusing", 100, |_| async move {
        let mut answer = Response::new(empty());
        answer.headers_mut().insert("grpc-status", "12".parse().expect("a value"));
        answer
    })
    .await;
    world.instances("shop", &[&app]).await;
    let (_frames, upload) = body();
    let answer = send(&mut sender, request("POST", "/").body(upload).expect("a request")).await;
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert_eq!(text(answer).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_full_has_another_one_beside_it() {
    let world = World::new(Timeouts::default()).await;
    let (begun, mut has_begun) = mpsc::unbounded_channel();
    let finish = Arc::new(Semaphore::new(0));
    let (app, connections) = instance("two", 2, {
        let finish = Arc::clone(&finish);
        move |_| {
            let (begun, finish) = (begun.clone(), Arc::clone(&finish));
            async move {
                begun.send(()).expect("a test");
                finish.acquire().await.expect("open").forget();
                full("done")
            }
        }
    })
    .await;
    serve(&world, "shop", &[&app], &[]).await;
    let sender = client(&world).await;
    let ask = |exchanges: &mut JoinSet<String>| {
        let mut sender = sender.clone();
        exchanges.spawn(async move {
            text(send(&mut sender, request("POST", "/").body(empty()).expect("a request")).await).await
        });
    };
    let mut exchanges = JoinSet::new();
    for _ in 0..5 {
        ask(&mut exchanges);
    }
    for _ in 0..5 {
        tokio::time::timeout(LONG, has_begun.recv()).await.expect("all are there at once");
    }
    assert_eq!(connections.came(), 3);
    finish.add_permits(6);
    assert!(exchanges.join_all().await.iter().all(|answer| answer == "done"));
    let mut one_more = JoinSet::new();
    ask(&mut one_more);
    assert_eq!(one_more.join_all().await, ["done"]);
    assert_eq!(connections.came(), 3, "those that rest are used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_has_a_connection_of_its_own_in_http1() {
    let world = World::new(Timeouts::default()).await;
    let (listener, app) = listen("socket").await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("GET /chat HTTP/1.1\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).await.expect("sent");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    serve(&world, "shop", &[&app], &[]).await;
    let mut stream = tokio::net::TcpStream::connect(world.address).await.expect("a connection");
    let ask = "GET /chat HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.expect("sent");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.expect("a greeting");
    assert_eq!(&said, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_rests_ends_with_its_time_or_its_instance() {
    let world = World::new(Timeouts { upstream_idle: Duration::from_secs(1), ..Timeouts::default() }).await;
    let answer = |_| async move { full("hello") };
    let (app, connections) = instance("one", 100, answer).await;
    serve(&world, "shop", &[&app], &[]).await;
    assert!(get(world.address, "shop", "/").await.ends_with("hello"));
    assert_eq!(connections.open(), 1);
    until(async || connections.open() == 0).await;

    let (first, of_first) = instance("first", 100, answer).await;
    let (second, of_second) = instance("second", 100, answer).await;
    let patient = World::new(Timeouts::default()).await;
    serve(&patient, "shop", &[&first], &[]).await;
    assert!(get(patient.address, "shop", "/").await.ends_with("hello"));
    assert_eq!(of_first.open(), 1);
    patient.instances("shop", &[&second]).await;
    until(async || of_first.open() == 0).await;
    assert!(get(patient.address, "shop", "/").await.ends_with("hello"));
    assert_eq!((of_first.came(), of_second.open()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_up_its_own_answer_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let one_core = RouterSettings { workers: 1, ..settings(folder.path()) };
    let world = World::with(folder, one_core).await;
    let said = Arc::new(AtomicUsize::new(0));
    let (app, connections) = instance("flood", 100, {
        let said = Arc::clone(&said);
        move |request: Request<Incoming>| {
            let said = Arc::clone(&said);
            async move {
                if request.uri().path() == "/short" {
                    return full("short");
                }

                Response::new(endless(said))
            }
        }
    })
    .await;
    serve(&world, "shop", &[&app], &[]).await;
    let mut sender = client(&world).await;
    let mut unread = Vec::new();
    for _ in 0..20 {
        unread.push(send(&mut sender, request("GET", "/").body(empty()).expect("a request")).await);
    }
    let mut other = client(&world).await;
    for _ in 0..20 {
        let short = request("GET", "/short").body(empty()).expect("a request");
        assert_eq!(text(send(&mut other, short).await).await, "short");
    }
    assert_eq!(connections.came(), 1, "they share it");
    // What the router, the systems between and the app itself hold for twenty clients.
    assert!(said.load(Ordering::SeqCst) < 20 << 20, "{said:?}");
}

/// A body without an end, which counts what was taken of it.
fn endless(said: Arc<AtomicUsize>) -> Body {
    struct Endless(Arc<AtomicUsize>);
    impl hyper::body::Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.fetch_add(16_384, Ordering::SeqCst);
            std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; 16_384])))))
        }
    }
    Endless(said).boxed()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_does_not_read_holds_up_its_client() {
    let world = World::new(Timeouts::default()).await;
    let (app, _) = instance("deaf", 100, |request: Request<Incoming>| async move {
        if request.uri().path() == "/short" {
            return full("short");
        }
        let _unread = request.into_body();
        std::future::pending().await
    })
    .await;
    serve(&world, "shop", &[&app], &[]).await;
    let mut sender = client(&world).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let upload = request("POST", "/").body(endless(Arc::clone(&taken))).expect("a request");
    let mut other = sender.clone();
    let upload = tokio::spawn(async move { other.send_request(upload).await });
    until(async || taken.load(Ordering::SeqCst) > 100_000).await;
    for _ in 0..20 {
        let short = request("GET", "/short").body(empty()).expect("a request");
        assert_eq!(text(send(&mut sender, short).await).await, "short");
    }
    assert!(taken.load(Ordering::SeqCst) < 20 << 20, "{taken:?}");
    upload.abort();
}
