use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::Hostname;
use model::clock::{Clock, SystemClock};
use router::tls::Authority;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::Outbound;
use crate::acm::plan;
use crate::acm::worker::Worker;
use crate::settings::Acme;
use crate::testing::TestController;
use crate::testing::http::{Caller, Server};

/// Somebody who is asked about names, and answers with what was set.
#[derive(Clone, Default)]
struct Oracle(Arc<Mutex<Heard>>);

/// What it answers to whatever has a text in it, and what it was asked.
#[derive(Default)]
struct Heard {
    answers: BTreeMap<String, u16>,
    asked: Vec<String>,
}

impl Oracle {
    async fn start() -> (Self, SocketAddr) {
        let oracle = Self::default();
        let routes = Router::new().fallback(get(Self::answer)).with_state(oracle.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (oracle, address)
    }

    #[expect(clippy::needless_pass_by_value, reason = "so that it can be a handler")]
    fn answer(State(oracle): State<Self>, request: Request) -> Ready<StatusCode> {
        let host = request.headers()[HOST].to_str().expect("text");
        let asked = format!("{host}{}", request.uri());
        let mut inner = oracle.0.lock().expect("no panic");
        let status = inner.answers.iter().find(|(part, _)| asked.contains(*part)).map_or(404, |(_, status)| *status);
        inner.asked.push(asked);
        ready(StatusCode::from_u16(status).expect("a status"))
    }

    /// From now on, whatever has `part` in it is answered with `status`.
    fn says(&self, part: &str, status: u16) {
        self.0.lock().expect("no panic").answers.insert(part.to_owned(), status);
    }

    /// Where it answers over TLS, with the certificate that an authority has in this folder.
    async fn secured(&self, authority: &Authority) -> SocketAddr {
        let pem = std::fs::read(authority.server()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(&pem).expect("a key");
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().expect("a chain");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, oracle) = (listener.local_addr().expect("an address"), self.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let oracle = oracle.clone();
                let answer = move |request: http::Request<Incoming>| {
                    let status = Self::answer(State(oracle.clone()), request.map(axum::body::Body::new));
                    async { Ok::<_, Infallible>(status.await.into_response()) }
                };
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
        address
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic").asked)
    }
}

struct World {
    server: Server,
    ada: Caller,
    oracle: Oracle,
    address: SocketAddr,
}

impl World {
    /// An app, `shop`, that wants the oracle to be asked.
    async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    /// The same on a platform that is made another before anything happens; it is told where the oracle is.
    async fn with(change: impl FnOnce(&mut Controller, SocketAddr)) -> Self {
        let (oracle, address) = Oracle::start().await;
        let mut test = TestController::new().await;
        change(Arc::get_mut(&mut test.controller).expect("nobody else has it yet"), address);
        let server = Server::over(test).await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let world = Self { server, ada, oracle, address };
        world.let_ask("shop", &format!("http://{address}/shop")).await;
        world
    }

    async fn let_ask(&self, app: &str, ask: &str) {
        let path = format!("/apps/{app}/routing-policy");
        let set = self.ada.send("PATCH", &path, &[], json!({ "domain_ask": ask })).await;
        assert_eq!(set.status, 200, "{}", set.text);
    }

    fn controller(&self) -> &Arc<Controller> {
        &self.server.test.controller
    }

    /// Whether a router that asks about a name is told that it is there.
    async fn wanted(&self, host: &str) -> bool {
        self.controller().wanted_domain(host).await.expect("known").is_some()
    }

    async fn domains(&self, app: &str) -> Vec<String> {
        let answer = self.ada.get(&format!("/apps/{app}/domains")).await.body;
        let custom = answer.as_array().expect("a list").iter().filter(|domain| domain["kind"] == "custom");
        custom.map(|domain| domain["hostname"].as_str().expect("a name").to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_the_apps_that_says_yes_and_routers_are_told_first() {
    let world = World::new().await;
    world.oracle.says("domain=tenant.example.com", 204);
    let (first, second) = tokio::join!(world.wanted("Tenant.example.com"), world.wanted("tenant.example.com"));
    assert!(first && second);
    assert_eq!(world.oracle.asked(), [format!("{}/shop?domain=tenant.example.com", world.address)], "once");
    assert_eq!(world.domains("shop").await, ["tenant.example.com"]);
    let hosts = world.controller().live.names.pick(|_, route| Some(route.hosts.clone())).concat();
    assert!(hosts.contains(&"tenant.example.com".parse::<Hostname>().expect("a name")), "{hosts:?}");
    let domain = world.ada.get("/apps/shop/domains/tenant.example.com").await.body;
    assert_eq!(domain["acm_status"], "pending", "also of an app whose other domains get none: {domain}");
    let events = world.ada.get("/apps/shop/events").await.text;
    assert!(events.contains("tenant.example.com"), "{events}");

    assert!(world.wanted("tenant.example.com").await);
    assert_eq!(world.oracle.asked(), [""; 0], "it is known");
    assert!(!world.controller().wanted_certificate("tenant.example.com").await.expect("known"), "nobody gets any");
    // Whoever is killed here goes on with what is in the store.
    let next = world.server.test.next_life().await;
    let due = next.controller.store.due_certificates(next.controller.clock.now(), 10).await.expect("readable");
    assert_eq!(
        due.iter().map(|it| (it.hostname.as_str(), it.on_demand)).collect::<Vec<_>>(),
        [("tenant.example.com", true)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_asked_again_after_a_while_and_when_the_rule_changes() {
    let world = World::new().await;
    assert!(!world.wanted("other.example.com").await && !world.wanted("other.example.com").await);
    assert_eq!(world.oracle.asked().len(), 1, "a refusal is remembered");
    world.server.test.clock.advance(REFUSED);
    world.oracle.says("other", 302);
    assert!(!world.wanted("other.example.com").await, "a redirect is no yes");
    world.oracle.says("other", 200);
    world.let_ask("shop", &format!("http://{}/new", world.address)).await;
    assert!(world.wanted("other.example.com").await);
    assert_eq!(world.oracle.asked().len(), 2);

    world.oracle.says("broken", 500);
    assert!(!world.wanted("broken.example.com").await);
    world.server.test.clock.advance(UNCLEAR);
    world.oracle.says("broken", 200);
    assert!(world.wanted("broken.example.com").await, "an error says nothing for long");
    // An app that wants no more keeps what it has.
    world.let_ask("shop", "off").await;
    assert!(world.wanted("other.example.com").await && !world.wanted("third.example.com").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_about_what_no_customer_can_have() {
    let world = World::new().await;
    world.oracle.says("domain=", 200);
    let hosts = [
        "com",
        "co.uk",
        "192.0.2.1",
        "[::1]",
        "localhost",
        "shop.localhost",
        "api.localhost",
        "*.example.com",
        "a_b",
        "link-8500.internal",
        "www.nosuchsuffix",
        "a..example.com",
        "",
    ];
    for host in hosts {
        assert!(!world.wanted(host).await, "{host}");
    }
    assert_eq!(world.oracle.asked(), [""; 0]);
    assert_eq!(world.domains("shop").await, [""; 0]);
    assert!(world.wanted("example.co.uk").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_two_apps_want_is_neithers() {
    let world = World::new().await;
    world.ada.send("POST", "/apps", &[], json!({ "name": "blog" })).await;
    world.let_ask("blog", &format!("http://{}/blog", world.address)).await;
    world.oracle.says("domain=both.example.com", 200);
    world.oracle.says("/blog?domain=blog.example.com", 200);
    assert!(!world.wanted("both.example.com").await);
    assert!(world.wanted("blog.example.com").await);
    assert_eq!(world.domains("shop").await, [""; 0]);
    assert_eq!(world.domains("blog").await, ["blog.example.com"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_names_come_in_an_hour() {
    let world = World::new().await;
    world.oracle.says("domain=", 200);
    for number in 0..MOST_IN_AN_HOUR {
        assert!(world.wanted(&format!("n{number}.example.com")).await, "{number}");
    }
    assert!(!world.wanted("more.example.com").await);
    world.server.test.clock.advance(HOUR);
    assert!(world.wanted("more.example.com").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_wait_for_their_certificate_are_few() {
    let acme = Acme { directory: String::new(), email: None, ca: None, dns_hook: None };
    let world = World::with(|controller, _| controller.settings.acme = Some(acme)).await;
    world.oracle.says("domain=", 200);
    for number in 0..MOST_WAITING {
        assert!(world.wanted(&format!("n{number}.example.com")).await, "{number}");
    }
    assert!(!world.wanted("more.example.com").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_asked_of_the_app_itself_by_the_router() {
    let world = World::with(|controller, router| controller.settings.entrance = Some(router)).await;
    world.let_ask("shop", "/domain-allowed").await;
    world.oracle.says("domain=tenant.example.com", 200);
    assert!(world.wanted("tenant.example.com").await);
    assert_eq!(world.oracle.asked(), ["shop.localhost/domain-allowed?domain=tenant.example.com"]);
    let policy = json!({ "canonical_host": "www.example.com" });
    world.ada.send("PATCH", "/apps/shop/routing-policy", &[], policy).await;
    assert!(!world.wanted("other.example.com").await);
    assert_eq!(
        world.oracle.asked(),
        ["www.example.com/domain-allowed?domain=other.example.com"],
        "where no redirect is"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_asked_by_https_must_be_who_is_meant() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = |name: &str| {
        let authority = Authority::new(&folder.path().join(name));
        authority.ensure(&"localhost".parse().expect("a host name"), SystemClock.now()).expect("certificates");
        authority
    };
    let (known, unknown) = (own("known"), own("unknown"));
    let trusted = CertificateDer::from_pem_file(known.certificate()).expect("a certificate");
    let allowed = ["127.0.0.0/8".parse().expect("a network")].to_vec();
    let world = World::with(|controller, _| controller.outbound = Outbound::trusting(allowed, vec![trusted])).await;
    world.oracle.says("/allowed?domain=", 200);
    let (right, wrong) = (world.oracle.secured(&known).await, world.oracle.secured(&unknown).await);
    world.let_ask("shop", &format!("https://{wrong}/allowed")).await;
    assert!(!world.wanted("one.example.com").await);
    assert_eq!(world.oracle.asked(), [""; 0], "a stranger is not asked");
    world.let_ask("shop", &format!("https://{right}/allowed")).await;
    assert!(world.wanted("one.example.com").await);
    assert_eq!(world.oracle.asked(), [format!("{right}/allowed?domain=one.example.com")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_for_https_alone_is_asked_by_the_https_of_the_router() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path());
    authority.ensure(&"localhost".parse().expect("a host name"), SystemClock.now()).expect("certificates");
    let (router, plain) = Oracle::start().await;
    let secured = router.secured(&authority).await;
    let world = World::with(|controller, _| {
        (controller.settings.entrance, controller.settings.tls_entrance) = (Some(plain), Some(secured));
        controller.settings.authority = authority.certificate();
    })
    .await;
    world.let_ask("shop", "/allowed").await;
    // The router answers others with a redirect.
    router.says("shop.localhost/allowed?domain=", 200);
    assert!(world.wanted("one.example.com").await);
    assert_eq!(router.asked(), ["shop.localhost/allowed?domain=one.example.com"]);
    let policy = json!({ "https": "on", "canonical_host": "www.example.com" });
    let set = world.ada.send("PATCH", "/apps/shop/routing-policy", &[], policy).await;
    assert_eq!(set.status, 200, "{}", set.text);
    router.says("www.example.com/allowed?domain=", 200);
    // Whatever name is asked for, the certificate is the platform's.
    assert!(world.wanted("two.example.com").await);
    assert_eq!(router.asked(), ["www.example.com/allowed?domain=two.example.com"]);
    // Nobody is there who has the platform's certificate.
    let stranger = Authority::new(&folder.path().join("other"));
    stranger.ensure(&"localhost".parse().expect("a host name"), SystemClock.now()).expect("certificates");
    std::fs::copy(stranger.certificate(), authority.certificate()).expect("another authority");
    assert!(!world.wanted("three.example.com").await);
    assert_eq!(router.asked(), [""; 0]);
}

/// A certificate authority that makes accounts, and refuses every order.
async fn refusing_authority() -> Acme {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let ways = json!({
        "newNonce": format!("{base}/nonce"),
        "newAccount": format!("{base}/account"),
        "newOrder": format!("{base}/order"),
    });
    let nonce = [("replay-nonce", "nonce")];
    let made = [("replay-nonce", "nonce".to_owned()), ("location", format!("{base}/account/1"))];
    let problem = r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no such name"}"#;
    let routes = Router::new()
        .route("/directory", get(async move || axum::Json(ways)))
        .route("/nonce", get(async move || nonce))
        .route("/account", post(async move || (StatusCode::CREATED, made, r#"{"status":"valid"}"#)))
        .route("/order", post(async move || (StatusCode::FORBIDDEN, nonce, problem)));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Acme { directory: format!("{base}/directory"), email: None, ca: None, dns_hook: None }
}

impl World {
    /// With an authority that refuses every order, and a name that came with a visitor.
    async fn refused() -> (Self, Worker) {
        let acme = refusing_authority().await;
        let world = Self::with(|controller, _| controller.settings.acme = Some(acme.clone())).await;
        world.oracle.says("domain=tenant.example.com", 200);
        assert!(world.wanted("tenant.example.com").await);
        let worker = Worker { controller: world.controller().clone(), acme, authority: tokio::sync::Mutex::default() };
        (world, worker)
    }

    /// Looks at what is due so many times, each time when the next attempt is.
    async fn attempts(&self, worker: &Worker, numbers: std::ops::RangeInclusive<u32>) {
        for number in numbers {
            worker.look().await.expect("a look");
            self.server.test.clock.advance(plan::pause(number, None));
        }
    }

    /// How far the platform is with a certificate, and why no further.
    async fn certificate(&self, host: &str) -> (String, String) {
        let domain = self.ada.get(&format!("/apps/shop/domains/{host}")).await.body;
        let text = |field: &str| domain[field].as_str().unwrap_or_default().to_owned();
        (text("acm_status"), text("acm_status_reason"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_gets_no_certificate_goes_after_six_failures_and_comes_back_with_a_visitor() {
    let (world, worker) = World::refused().await;
    world.ada.send("POST", "/apps/shop/domains", &[], json!({ "hostname": "www.example.com" })).await;
    world.ada.send("POST", "/apps/shop/acm", &[], Value::Null).await;
    world.attempts(&worker, 1..=5).await;
    let (status, why) = world.certificate("tenant.example.com").await;
    assert!(status == "failing" && why.contains("no such name"), "{status}: {why}");
    assert_eq!(world.domains("shop").await, ["tenant.example.com", "www.example.com"]);
    world.attempts(&worker, 6..=6).await;
    assert_eq!(world.domains("shop").await, ["www.example.com"], "what somebody added stays");
    assert_eq!(world.certificate("www.example.com").await.0, "failed");
    let hosts = world.controller().live.names.pick(|_, route| Some(route.hosts.clone())).concat();
    assert!(!hosts.contains(&"tenant.example.com".parse::<Hostname>().expect("a name")), "{hosts:?}");
    let events = world.ada.get("/apps/shop/events").await.body;
    let gone = |event: &&Value| event["action"] == "destroy" && event["data"]["hostname"] == "tenant.example.com";
    assert_eq!(events.as_array().expect("a list").iter().filter(gone).count(), 1, "{events}");

    world.oracle.asked();
    assert!(world.wanted("tenant.example.com").await);
    assert_eq!(world.oracle.asked().len(), 1, "its app is asked again");
    assert_eq!(world.certificate("tenant.example.com").await, ("pending".to_owned(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_which_apps_answer_paths_stays_until_they_do_no_more() {
    let (world, worker) = World::refused().await;
    world.ada.send("POST", "/apps", &[], json!({ "name": "blog" })).await;
    let path = json!({ "hostname": "tenant.example.com/blog" });
    let made = world.ada.send("POST", "/apps/blog/domains", &[], path).await;
    assert_eq!(made.status, 201, "{}", made.text);
    world.attempts(&worker, 1..=6).await;
    let (status, why) = world.certificate("tenant.example.com").await;
    assert_eq!(status, "failed");
    assert!(why.contains("no such name") && why.contains("answer paths of it"), "{why}");
    // Also when its app wants it no more, and for as long as that takes.
    world.oracle.says("domain=tenant.example.com", 404);
    world.attempts(&worker, 7..=9).await;
    let (status, why) = world.certificate("tenant.example.com").await;
    assert!(status == "failed" && why.contains("not its own") && why.contains("answer paths of it"), "{why}");
    assert_eq!(world.domains("blog").await, ["tenant.example.com/blog"]);
    let removed = world.ada.send("DELETE", "/apps/blog/domains/tenant.example.com%2Fblog", &[], Value::Null).await;
    assert_eq!(removed.status, 200, "{}", removed.text);
    world.attempts(&worker, 10..=10).await;
    assert_eq!(world.domains("shop").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_the_platforms_own_network_is_not_asked() {
    let world = World::with(|controller, _| controller.outbound = crate::Outbound::new(Vec::new())).await;
    world.oracle.says("domain=", 200);
    assert!(!world.wanted("tenant.example.com").await);
    assert_eq!(world.oracle.asked(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_are_answered_by_status() {
    let world = World::new().await;
    world.oracle.says("domain=tenant.example.com", 200);
    let server = Server::serve(world.server.test.next_life().await, routes(world.controller().clone())).await;
    let router = server.stranger();
    for (path, status) in [
        ("/names/tenant.example.com", 200),
        ("/names/other.example.com", 404),
        ("/certificates/tenant.example.com", 404),
        ("/certificates/other.example.com", 404),
    ] {
        assert_eq!(router.send("GET", path, &[], Value::Null).await.status, status, "{path}");
    }
}
