//! Trace spans: what a collector gets, read by the types that OpenTelemetry makes of its own protocol.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::routes::Endpoint;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use router::{RouterSettings, Timeouts, TracingSettings};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::world::{World, get, instance, listen, named, nobody, send, settings, until};

const THEIR_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A collector, and what it got.
#[derive(Default)]
struct Collector {
    spans: Mutex<Vec<Span>>,
    services: Mutex<Vec<String>>,
    /// It says so often that it has no time.
    busy: Mutex<u32>,
}

impl Collector {
    async fn start(busy: u32) -> (Arc<Self>, SocketAddr) {
        let collector = Arc::new(Self { busy: Mutex::new(busy), ..Self::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let taking = Arc::clone(&collector);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = Arc::clone(&taking);
                let service = service_fn(move |request| Arc::clone(&collector).take(request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        (collector, address)
    }

    async fn take(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        assert_eq!((request.uri().path(), request.method().as_str()), ("/v1/traces", "POST"));
        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
        assert_eq!(request.headers()["authorization"], "Bearer key");
        let mut response = Response::new(Full::default());
        {
            let mut busy = self.busy.lock().expect("no panic");
            if *busy > 0 {
                *busy -= 1;
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response.headers_mut().insert("retry-after", "0".parse().expect("a value"));
                return Ok(response);
            }
        }
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let request = ExportTraceServiceRequest::decode(body).expect("what OpenTelemetry reads");
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.expect("a resource");
            let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name");
            let service = service.and_then(|attribute| attribute.value.clone()?.value);
            self.services.lock().expect("no panic").push(format!("{service:?}"));
            let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            self.spans.lock().expect("no panic").extend(spans);
        }
        Ok(response)
    }

    /// The spans of requests, of this kind, for what `key` says.
    fn spans(&self, kind: SpanKind, (key, value): (&str, &str)) -> Vec<Span> {
        let spans = self.spans.lock().expect("no panic");
        spans.iter().filter(|span| span.kind() == kind && attribute(span, key) == value).cloned().collect()
    }

    fn span(&self, path: &str) -> Option<Span> {
        self.spans(SpanKind::Server, ("url.path", path)).pop()
    }

    /// The spans of instances that were asked for this one, in their order.
    fn asked(&self, server: &Span) -> Vec<Span> {
        let mut spans = self.spans.lock().expect("no panic").clone();
        spans.retain(|span| span.parent_span_id == server.span_id && span.kind() == SpanKind::Client);
        spans
    }

    /// The span of the request for this path, once it is there.
    async fn got(&self, path: &str) -> Span {
        until(async || self.span(path).is_some()).await;
        self.span(path).expect("it was there")
    }
}

fn attribute(span: &Span, key: &str) -> String {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key);
    match attribute.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn to(collector: SocketAddr, sampler: &str) -> Option<TracingSettings> {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20key".to_owned()),
        ("OTEL_TRACES_SAMPLER", sampler.to_owned()),
        ("OTEL_SERVICE_NAME", "edge".to_owned()),
    ];
    let read = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    TracingSettings::from_environment(read).expect("good variables")
}

async fn world(tracing: Option<TracingSettings>) -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let timeouts = Timeouts { settle: std::time::Duration::from_millis(100), ..Timeouts::default() };
    let settings = RouterSettings { tracing, timeouts, ..settings(folder.path()) };
    World::with(folder, settings).await
}

/// An instance that answers what it was told of traces.
async fn told(name: &str) -> Endpoint {
    instance(name, |request| async move {
        let header = |name: &str| request.headers().get(name).map_or("-", |it| it.to_str().expect("text")).to_owned();
        Response::new(Full::from(format!("told {} {} end", header("traceparent"), header("tracestate"))))
    })
    .await
}

/// `traceparent` and `tracestate` that the instance got of a request with these of the client.
async fn ask(world: &World, path: &str, headers: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n{headers}\r\n");
    let answer = send(world.address, request.as_bytes()).await;
    let words: Vec<&str> = answer.rsplit_once("told ").expect("told").1.split(' ').collect();
    (words[0].to_owned(), words[1].to_owned())
}

fn theirs(flag: &str) -> String {
    format!("Traceparent: 00-{THEIR_TRACE}-00f067aa0ba902b7-{flag}\r\nTracestate: vendor=1\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_the_spans_of_a_request_and_the_app_goes_on_with_them() {
    let (collector, address) = Collector::start(1).await;
    let world = world(to(address, "parentbased_always_on")).await;
    let shop = told("shop").await;
    world.serve("shop", &[&shop]).await;
    world.serve("dead", &[&nobody("dead")]).await;

    let agent = "User-Agent: test/1\r\n";
    let (parent, state) = ask(&world, "/orders?token=secret", &format!("{agent}{}", theirs("01"))).await;
    let span = collector.got("/orders").await;
    let asked = collector.asked(&span);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(parent, format!("00-{THEIR_TRACE}-{}-01", hex(&asked[0].span_id)));
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (THEIR_TRACE.into(), "00f067aa0ba902b7".into()));
    assert_eq!(hex(&asked[0].trace_id), THEIR_TRACE);
    assert_eq!((state.as_str(), span.trace_state.as_str()), ("vendor=1", "vendor=1"));
    assert_eq!((span.name.as_str(), &span.status), ("GET", &None));
    assert!(span.start_time_unix_nano > 0 && asked[0].start_time_unix_nano >= span.start_time_unix_nano);
    assert!(span.end_time_unix_nano >= asked[0].end_time_unix_nano);
    assert!(!format!("{span:?} {asked:?}").contains("secret"), "{span:?} {asked:?}");
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("server.address", "shop.localhost"),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "test/1"),
        ("http.response.status_code", "200"),
        ("platform.app", "shop"),
        ("platform.dyno", "web.1"),
    ] {
        assert_eq!(attribute(&span, key), value, "{key}");
    }
    assert_eq!(attribute(&asked[0], "server.port"), shop.address.port().to_string());
    assert_eq!(attribute(&asked[0], "http.response.status_code"), "200");
    world.logged(&[&format!("request_id={}", attribute(&span, "platform.request_id"))]).await;

    get(world.address, "dead", "/dead").await;
    let span = collector.got("/dead").await;
    let seen = ["error.type", "platform.error_code", "http.response.status_code"].map(|key| attribute(&span, key));
    assert_eq!(seen, ["H21", "H21", "503"]);
    assert_eq!(span.status.as_ref().expect("a status").code(), SpanStatus::Error);
    assert_eq!(span.parent_span_id, Vec::<u8>::new(), "nobody began it before");
    assert_eq!(attribute(&collector.asked(&span)[0], "error.type"), "H21");
    let services = collector.services.lock().expect("no panic").clone();
    assert!(services.iter().all(|service| service.contains("edge")), "{services:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_instance_that_is_asked_has_a_span_and_is_told_its_own() {
    let (collector, address) = Collector::start(0).await;
    let world = world(to(address, "always_on")).await;
    let heads = Arc::new(Mutex::new(String::new()));
    let (listener, broken) = listen("broken").await;
    tokio::spawn({
        let heads = Arc::clone(&heads);
        async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = vec![0; 4096];
                let count = stream.read(&mut bytes).await.unwrap_or(0);
                heads.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        }
    });
    world.instances("shop", &[&broken, &told("well").await]).await;
    let rules = [("ejection", "off"), ("balance", "round-robin"), ("slow_start", "0s"), ("retries", "100%")];
    world.rule("shop", &rules).await;
    let mut told = Vec::new();
    for path in ["/1", "/2"] {
        told.push((ask(&world, path, "").await.0, collector.got(path).await));
    }
    let twice = told.iter().find(|(_, span)| collector.asked(span).len() == 2).expect("one was tried twice");
    let asked = collector.asked(&twice.1);
    assert_eq!(attribute(&asked[0], "error.type"), "H13");
    assert_eq!(asked[0].status.as_ref().expect("a status").code(), SpanStatus::Error);
    let resends = asked.iter().map(|span| attribute(span, "http.request.resend_count")).collect::<Vec<_>>();
    assert_eq!(resends, ["None", "1"]);
    let trace = hex(&twice.1.trace_id);
    let first = format!("traceparent: 00-{trace}-{}-01\r\n", hex(&asked[0].span_id));
    assert!(heads.lock().expect("no panic").contains(&first), "{first} in {heads:?}");
    assert_eq!(twice.0, format!("00-{trace}-{}-01", hex(&asked[1].span_id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_began_a_trace_says_whether_it_is_sampled_and_else_the_sampler() {
    let (collector, address) = Collector::start(0).await;
    let asks = async |sampler: &str, headers: &str| {
        let world = world(to(address, sampler)).await;
        world.serve("shop", &[&told("shop").await]).await;
        let path = format!("/{sampler}");
        let (parent, state) = ask(&world, &path, headers).await;
        let mut world = world;
        // What is left is sent before it ends.
        world.stop().await;
        (parent, state, collector.span(&path))
    };
    let (parent, state, span) = asks("parentbased_always_on", &theirs("00")).await;
    assert!(parent.starts_with(&format!("00-{THEIR_TRACE}-")) && parent.ends_with("-00"), "{parent}");
    assert!(!parent.contains("00f067aa0ba902b7"), "{parent}");
    assert_eq!((state.as_str(), span), ("vendor=1", None));
    let (parent, _, span) = asks("parentbased_always_off", &theirs("01")).await;
    assert!(parent.ends_with("-01") && span.is_some(), "{parent}");
    let (parent, _, span) = asks("always_off", &theirs("01")).await;
    assert!(parent.ends_with("-00") && span.is_none(), "{parent}");
    let bad = "Traceparent: 00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nTracestate: vendor=1\r\n";
    let (parent, state, span) = asks("always_on", bad).await;
    let span = span.expect("a new trace");
    assert_eq!(parent[3..35], hex(&span.trace_id));
    assert!(!parent.contains("4bf92f3577b34da6a3ce929d0e0e4736") && span.parent_span_id.is_empty(), "{parent}");
    assert_eq!(state, "-");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_holds_nobody_up_and_what_is_left_out_is_counted() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let world = world(to(silent.local_addr().expect("an address"), "always_on")).await;
    world.serve("shop", &[&named("here").await]).await;
    // More than may wait: two spans of each, a hundred on each connection.
    let next = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n".repeat(99);
    let requests = format!("{next}GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n");
    for _ in 0..50 {
        let answers = send(world.address, requests.as_bytes()).await;
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 100);
    }
    until(async || world.details.dropped().spans > 0).await;
    assert!(world.details.dropped().spans < 10_000, "{:?}", world.details.dropped());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_traces_are_the_apps_matter() {
    let world = world(None).await;
    world.serve("shop", &[&told("shop").await]).await;
    let odd = "Traceparent: what ever\r\nTracestate: vendor=1\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n{odd}\r\n");
    assert!(send(world.address, request.as_bytes()).await.ends_with("told what ever vendor=1 end"));
    let (parent, state) = ask(&world, "/", &theirs("01")).await;
    assert_eq!(parent, format!("00-{THEIR_TRACE}-00f067aa0ba902b7-01"));
    assert_eq!(state, "vendor=1");
    assert_eq!(ask(&world, "/", "").await.0, "-");
}
