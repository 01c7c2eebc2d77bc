use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::routing::get;
use model::Hostname;
use serde_json::{Value, json};

use super::*;
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
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
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
        let (oracle, address) = Oracle::start().await;
        let server = Server::start().await;
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
    let mut test = crate::testing::TestController::new().await;
    let acme = crate::settings::Acme { directory: String::new(), email: None, ca: None, dns_hook: None };
    Arc::get_mut(&mut test.controller).expect("nobody else has it yet").settings.acme = Some(acme);
    let (oracle, address) = Oracle::start().await;
    let server = Server::over(test).await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let world = World { server, ada, oracle, address };
    world.let_ask("shop", &format!("http://{address}/shop")).await;
    world.oracle.says("domain=", 200);
    for number in 0..MOST_WAITING {
        assert!(world.wanted(&format!("n{number}.example.com")).await, "{number}");
    }
    assert!(!world.wanted("more.example.com").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_asked_of_the_app_itself_by_the_router() {
    let mut test = crate::testing::TestController::new().await;
    let (oracle, router) = Oracle::start().await;
    Arc::get_mut(&mut test.controller).expect("nobody else has it yet").settings.entrance = Some(router);
    let server = Server::over(test).await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let world = World { server, ada, oracle, address: router };
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
async fn an_address_of_the_platforms_own_network_is_not_asked() {
    let mut test = crate::testing::TestController::new().await;
    let controller = Arc::get_mut(&mut test.controller).expect("nobody else has it yet");
    controller.outbound = crate::Outbound::new(Vec::new());
    let (oracle, address) = Oracle::start().await;
    let server = Server::over(test).await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let world = World { server, ada, oracle, address };
    world.let_ask("shop", &format!("http://{address}/shop")).await;
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
