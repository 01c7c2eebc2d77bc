//! Drains into real listeners.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use model::{LogSink, LogSource};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::logs::{LogLimits, Writer};
use crate::testing::http::{Caller, Server};
use crate::testing::{TestClock, TestController};
use model::Clock;

/// An app whose log the test writes, and drains that are delivered until this is dropped.
struct World {
    server: Server,
    ada: Caller,
    app: model::AppId,
    log: Writer,
    work: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl World {
    async fn new() -> Self {
        Self::with(TestController::new().await).await
    }

    async fn with(test: TestController) -> Self {
        let routes = crate::api::routes(test.controller.clone());
        let server = Server::serve(test, routes).await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let app = server.test.controller.store.apps().await.expect("readable")[0].id;
        let log = writer(&server.test);
        let work = tokio::spawn(super::work(Arc::clone(&server.test.controller)));
        Self { server, ada, app, log, work }
    }

    async fn add(&self, url: &str) -> Value {
        let made = self.ada.send("POST", "/apps/shop/log-drains", &[], json!({ "url": url })).await;
        assert_eq!(made.status, 201, "{}", made.text);
        // Only what is written after a drain is there is sent; its task says so by a file.
        let controller = &self.server.test.controller;
        let id = made.body["id"].as_str().expect("an id");
        let path = controller.settings.home.join(format!("drains/{}/{id}.json", self.app));
        while !path.exists() {
            tokio::task::yield_now().await;
        }
        made.body
    }

    fn write(&self, text: &str) {
        self.log.write(self.app, TestClock::default().now(), &LogSource::app("web.1"), text);
    }
}

fn writer(test: &TestController) -> Writer {
    Writer::open(&test.controller.settings.home.join("logs"), "host", LogLimits::default()).expect("a writer")
}

/// One octet-counted message.
async fn message(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut length = 0;
    loop {
        match stream.read_u8().await.expect("a digit") {
            b' ' => break,
            digit => length = length * 10 + usize::from(digit - b'0'),
        }
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.expect("a message");
    String::from_utf8(message).expect("UTF-8")
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.expect("a connection").0
}

#[tokio::test]
async fn a_log_is_sent_by_syslog_and_goes_on_after_the_receiver_was_away() {
    let world = World::new().await;
    let (listener, port) = listen().await;
    world.write("before there was a drain");
    world.log.flush();
    let drain = world.add(&format!("syslog://localhost:{port}")).await;
    let token = drain["token"].as_str().expect("a token");
    assert!(token.starts_with("d."));
    world.write("one\ntwo");
    let mut first = accept(&listener).await;
    let time = "2026-11-21T02:39:46.000000+00:00";
    assert_eq!(message(&mut first).await, format!("<190>1 {time} {token} app web.1 - - one"));
    assert!(message(&mut first).await.ends_with("- - two"));
    drop(first);
    world.write("three");
    let mut second = accept(&listener).await;
    assert!(message(&mut second).await.ends_with("- - three"));
}

#[tokio::test]
async fn the_next_life_of_a_controller_sends_what_was_logged_meanwhile() {
    let world = World::new().await;
    let (listener, port) = listen().await;
    world.add(&format!("syslog://127.0.0.1:{port}")).await;
    world.work.abort();
    world.write("while it was away");
    world.log.flush();
    let next = world.server.test.next_life().await;
    let work = tokio::spawn(super::work(Arc::clone(&next.controller)));
    assert!(message(&mut accept(&listener).await).await.ends_with("- - while it was away"));
    work.abort();
}

#[tokio::test]
async fn a_log_is_sent_over_tls_to_a_receiver_whose_certificate_is_known() {
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let certificate = authority.cert.der().clone();
    let test = TestController::trusting(vec![certificate.clone()]).await;
    let world = World::with(test).await;
    let key = PrivateKeyDer::Pkcs8(authority.signing_key.serialize_der().into());
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).expect("a key");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listen().await;
    world.add(&format!("syslog+tls://localhost:{port}")).await;
    world.write("secret");
    let mut stream = acceptor.accept(accept(&listener).await).await.expect("a handshake");
    assert!(message(&mut stream).await.ends_with("- - secret"));
}

/// What a receiver of `application/logplex-1` saw.
struct Received {
    headers: HeaderMap,
    body: String,
}

/// Answers the first requests with `failures`, then with 200.
async fn receiver(failures: &'static [u16]) -> (u16, mpsc::UnboundedReceiver<Received>) {
    let (sender, received) = mpsc::unbounded_channel();
    let count = Arc::new(AtomicUsize::new(0));
    let take = async move |State((count, sender)): State<(Arc<AtomicUsize>, mpsc::UnboundedSender<Received>)>,
                           headers: HeaderMap,
                           body: String| {
        let _ = sender.send(Received { headers, body });
        let status = failures.get(count.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or(200);
        StatusCode::from_u16(status).expect("a status")
    };
    let routes = axum::Router::new().route("/in", axum::routing::post(take)).with_state((count, sender));
    let (listener, port) = listen().await;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (port, received)
}

#[tokio::test]
async fn a_log_is_posted_in_batches_until_the_receiver_takes_them() {
    let world = World::new().await;
    let (port, mut received) = receiver(&[503]).await;
    let drain = world.add(&format!("http://ada:p%40ss@127.0.0.1:{port}/in")).await;
    world.write("one\ntwo");
    let (refused, taken) = (received.recv().await.expect("a request"), received.recv().await.expect("a request"));
    let header = |name: &str| taken.headers[name].to_str().expect("text").to_owned();
    assert_eq!(header("logplex-frame-id"), refused.headers["logplex-frame-id"].to_str().expect("text"));
    assert_eq!(header("logplex-drain-token"), drain["token"].as_str().expect("a token"));
    assert_eq!((header("content-type").as_str(), header("logplex-msg-count").as_str()), ("application/logplex-1", "2"));
    assert_eq!(header("authorization"), "Basic YWRhOnBAc3M=");
    let time = "2026-11-21T02:39:46.000000+00:00";
    assert_eq!(taken.body, format!("61 <190>1 {time} host app web.1 - one\n61 <190>1 {time} host app web.1 - two\n"));
}

#[tokio::test]
async fn a_receiver_that_is_too_slow_is_told_how_much_it_missed() {
    let world = World::new().await;
    let (listener, port) = listen().await;
    world.add(&format!("syslog://127.0.0.1:{port}")).await;
    // More than waits for a receiver, before anybody takes a line.
    let line = "x".repeat(8000);
    for _ in 0..1500 {
        world.write(&line);
        world.log.flush();
    }
    let mut stream = accept(&listener).await;
    let told = loop {
        let message = message(&mut stream).await;
        if message.contains("L10") {
            break message;
        }
    };
    assert!(told.contains("heroku logplex - - Error L10 (output buffer overflow): "), "{told}");
    assert!(told.ends_with(" messages dropped since 2026-11-21T02:39:46Z."), "{told}");
}

#[tokio::test]
async fn drains_are_found_by_id_token_and_url_and_wrong_ones_refused() {
    let world = World::new().await;
    let drain = world.add("syslog+tls://logs.example.com:6514").await;
    let by = async |reference: &str| world.ada.get(&format!("/apps/shop/log-drains/{reference}")).await;
    for reference in ["id", "token"].map(|field| drain[field].as_str().expect("text")) {
        assert_eq!(by(reference).await.body, drain);
    }
    assert_eq!(by("syslog%2Btls%3A%2F%2Flogs.example.com%3A6514").await.body, drain);
    assert_eq!((by("d.1").await.status, by("d.1").await.body["resource"].clone()), (404, json!("log_drain")));
    for bad in ["logs.example.com", "ftp://x", "syslog:", "https://", "syslog+tls://logs.example.com:6514"] {
        let refused = world.ada.send("POST", "/apps/shop/log-drains", &[], json!({ "url": bad })).await;
        assert_eq!((refused.status, refused.id()), (422, "invalid_params"), "{bad}");
    }
    let gone = world
        .ada
        .send("DELETE", "/apps/shop/log-drains/syslog%2Btls%3A%2F%2Flogs.example.com%3A6514", &[], Value::Null)
        .await;
    assert_eq!(gone.status, 200);
    assert_eq!(world.ada.get("/apps/shop/log-drains").await.body, json!([]));
}
