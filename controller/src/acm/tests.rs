//! Certificates from a real authority (`scripts/acme.sh`), by a real router.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::get;
use model::clock::{Clock, SystemClock};
use router::{Router, RouterSettings, TlsEntrance};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::worker::Worker;
use crate::settings::Acme;
use crate::store::{Staple, StapleStatus};
use crate::testing::TestController;
use crate::testing::http::{Caller, Server};
use crate::testing::router::settings as router_settings;
use crate::testing::write_script;

/// Where everything that the authority looks for is.
const ADDRESS: [u8; 4] = [127, 77, 0, 3];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The authority's process.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A platform with a router and an authority.
struct World {
    folder: tempfile::TempDir,
    server: Server,
    worker: Worker,
    ada: Caller,
    router: Option<Router>,
    _authority: Running,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at_authority = folder.path().join("acme");
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/acme-server.py");
        let python = std::env::var_os("ACME_PYTHON").expect("run scripts/acme.sh");
        let address = std::net::Ipv4Addr::from(ADDRESS).to_string();
        let authority =
            Command::new(python).arg(program).arg(&at_authority).arg(address).spawn().expect("an authority");
        let authority = Running(authority);
        let url = at_authority.join("url");
        until(|| url.exists()).await;
        let records = at_authority.join("records");
        let hook = folder.path().join("hook");
        let script = format!(
            "#!/bin/sh\ncase $1 in\npresent) echo \"$2 $3\" >> {0} ;;\ncleanup) grep -v \"$2 $3\" {0} > {0}.new; mv {0}.new {0} ;;\nesac\n",
            records.display()
        );
        write_script(&hook, &script);
        let acme = Acme {
            directory: std::fs::read_to_string(&url).expect("a URL"),
            email: Some("ops@example.com".to_owned()),
            ca: Some(at_authority.join("ca.pem")),
            dns_hook: Some(hook),
        };
        let mut test = TestController::new().await;
        let passed = SystemClock.now().since(test.clock.now());
        test.clock.advance(passed);
        let controller = Arc::get_mut(&mut test.controller).expect("nobody else has it yet");
        controller.settings.acme = Some(acme.clone());
        controller.settings.tls_port = Some(443);
        for (feed, socket) in [(0, "names.sock"), (1, "certificates.sock")] {
            let (live, path) = (&test.controller.live, folder.path().join(socket));
            let (names, certificates) = (live.names.clone(), live.certificates.clone());
            tokio::spawn(
                async move { if feed == 0 { names.serve(&path).await } else { certificates.serve(&path).await } },
            );
        }
        let routes = super::routes(test.controller.clone());
        let listener = engine::feed::listen(&folder.path().join("on-demand.sock")).expect("a socket");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let worker = Worker { controller: test.controller.clone(), acme, authority: Mutex::default() };
        let server = Server::over(test).await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        Self { folder, server, worker, ada, router: None, _authority: authority }
    }

    /// Puts a router in the place of the last one: at port 443, and at port 80 if somebody may come there.
    async fn route(&mut self, has_http: bool) {
        if let Some(router) = self.router.take() {
            tokio::task::spawn_blocking(move || router.stop()).await.expect("stopped");
        }
        let settings = router_settings(self.folder.path());
        let tls = settings.tls.map(|tls| TlsEntrance { listen: vec![SocketAddr::from((ADDRESS, 443))], ..tls });
        let listen = vec![SocketAddr::from((ADDRESS, if has_http { 80 } else { 0 }))];
        let settings = RouterSettings { listen, tls, ..settings };
        self.router = Some(Router::start(settings).expect("a router"));
        let certificates = &self.worker.controller.live.certificates;
        while !certificates.is_followed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn add(&self, hostname: &str) {
        let made = self.ada.send("POST", "/apps/shop/domains", &[], json!({ "hostname": hostname })).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }

    /// What the API says of a domain.
    async fn domain(&self, hostname: &str) -> Value {
        self.ada.get(&format!("/apps/shop/domains/{hostname}")).await.body
    }

    /// What a client that trusts the authority is shown.
    async fn shown(&self, host: &str) -> Option<CertificateDer<'static>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.folder.path().join("acme/ca.pem")).expect("one"))
            .expect("trusted");
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(SocketAddr::from((ADDRESS, 443))).await.expect("a connection");
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        Some(stream.get_ref().1.peer_certificates()?[0].clone().into_owned())
    }

    fn at_authority(&self, file: &str) -> PathBuf {
        self.folder.path().join("acme").join(file)
    }

    fn advance(&self, by: Duration) {
        self.server.test.clock.advance(by);
    }
}

async fn until(done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it comes true");
}

/// A customer's domain has its certificate in the handshake of its first visitor, for as long as the app says that it is its own.
async fn on_demand(world: &mut World) {
    world.route(true).await;
    let customers = Arc::new(std::sync::Mutex::new(StatusCode::OK));
    let (says, listener) = (Arc::clone(&customers), TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    let ask = format!("http://{}/allowed", listener.local_addr().expect("an address"));
    let answer = move || std::future::ready(*says.lock().expect("no panic"));
    let routes = axum::Router::new().route("/allowed", get(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let set = world.ada.send("PATCH", "/apps/shop/routing-policy", &[], json!({ "domain_ask": ask })).await;
    assert_eq!(set.status, 200, "{}", set.text);
    let names = &world.worker.controller.live.names;
    assert!(names.served(names.version(), Duration::from_secs(30)).await, "routers know that there is somebody to ask");
    let work = async {
        world.worker.controller.live.certificates_wanted.notified().await;
        // What came before has left a notice.
        until_async(async || world.domain("tenant.example.com").await["hostname"].is_string()).await;
        world.worker.look().await.expect("looked");
    };
    let (shown, ()) = tokio::join!(world.shown("tenant.example.com"), work);
    assert_ne!(shown, None, "{}", world.domain("tenant.example.com").await);

    // An app that does not answer loses nothing; one that says no does.
    *customers.lock().expect("no panic") = StatusCode::BAD_GATEWAY;
    world.advance(DAY * 21);
    world.worker.look().await.expect("looked");
    let domain = world.domain("tenant.example.com").await;
    assert!(domain["acm_status_reason"].as_str().is_some_and(|why| why.contains("502")), "{domain}");
    assert_eq!(world.shown("tenant.example.com").await, shown);
    *customers.lock().expect("no panic") = StatusCode::FORBIDDEN;
    world.advance(DAY);
    world.worker.look().await.expect("looked");
    assert_eq!(world.domain("tenant.example.com").await["id"], "not_found");
    assert_eq!(world.shown("tenant.example.com").await, None);
    let events = world.ada.get("/apps/shop/events").await.text;
    assert!(events.contains("destroy"), "{events}");
}

/// A certificate that the authority takes back has another one in its place, but not on the day on which it came.
async fn taken_back(world: &World) {
    let (controller, before) = (&world.worker.controller, world.shown("www.example.com").await);
    let now = controller.clock.now();
    for asked in controller.store.due_staples(now, 100).await.expect("readable") {
        let (status, due_at) = (StapleStatus::Revoked, now.after(DAY * 100));
        let staple = Staple { status, reason: None, answer: None, failures: 0, due_at, updated_at: now };
        controller.store.save_staple(&asked, &staple, &controller.own_stamp()).await.expect("saved");
    }
    world.worker.look().await.expect("looked");
    assert_eq!(world.shown("www.example.com").await, before);
    world.advance(DAY);
    world.worker.look().await.expect("looked");
    let after = world.shown("www.example.com").await;
    assert!(after.is_some() && after != before, "{}", world.domain("www.example.com").await);
    world.worker.look().await.expect("looked");
    assert_eq!(world.shown("www.example.com").await, after, "once");
}

async fn until_async(done: impl AsyncFn() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it comes true");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an authority: scripts/acme.sh"]
async fn an_authority_gives_certificates_by_every_challenge_and_they_are_renewed() {
    let mut world = World::new().await;
    world.route(true).await;
    world.add("www.example.com").await;
    assert_eq!(world.domain("www.example.com").await["acm_status"], Value::Null);
    assert_eq!(world.ada.send("POST", "/apps/shop/acm", &[], Value::Null).await.body["acm"], json!(true));
    let domain = world.domain("www.example.com").await;
    assert_eq!((&domain["acm_status"], &domain["acm_status_reason"]), (&json!("pending"), &Value::Null));
    world.worker.look().await.expect("looked");
    let domain = world.domain("www.example.com").await;
    assert_eq!((&domain["acm_status"], &domain["acm_status_reason"]), (&json!("cert issued"), &Value::Null));
    let endpoints = world.ada.get("/apps/shop/sni-endpoints").await.body;
    assert_eq!(endpoints[0]["ssl_cert"]["acm"], json!(true), "{endpoints}");
    let first = world.shown("www.example.com").await.expect("a certificate of the authority");
    assert!(world.worker.controller.live.challenges.lock().is_empty(), "nothing is left to ask for");
    let events = world.ada.get("/apps/shop/events").await.text;
    assert!(events.contains("cert issued"), "{events}");

    // Without port 80 there is TLS, and only DNS speaks for a wildcard.
    world.route(false).await;
    world.add("alpn.example.com").await;
    world.add("*.wild.example.com").await;
    world.add("nowhere.example.com").await;
    world.worker.look().await.expect("looked");
    assert_ne!(world.shown("alpn.example.com").await, None, "{}", world.domain("alpn.example.com").await);
    assert_ne!(world.shown("any.wild.example.com").await, None, "{}", world.domain("*.wild.example.com").await);
    assert_eq!(std::fs::read_to_string(world.at_authority("records")).expect("records"), "", "cleaned up");

    // Who has no address gets none, is told why, and is tried again.
    let nowhere = world.domain("nowhere.example.com").await;
    let reason = nowhere["acm_status_reason"].as_str().unwrap_or_default().to_owned();
    assert_eq!(nowhere["acm_status"], "failing");
    assert!(["HTTP-01: ", "TLS-ALPN-01: ", "DNS-01: "].iter().all(|tried| reason.contains(tried)), "{reason}");
    assert_eq!(world.shown("nowhere.example.com").await, None);
    for _ in 0..6 {
        world.advance(DAY);
        world.worker.look().await.expect("looked");
    }
    assert_eq!(world.domain("nowhere.example.com").await["acm_status"], "failed");

    // An authority that is asked too often is left alone for as long as it says.
    std::fs::write(world.at_authority("mood"), "refuse").expect("written");
    world.add("later.example.com").await;
    world.worker.look().await.expect("looked");
    let later = world.domain("later.example.com").await;
    assert!(later["acm_status_reason"].as_str().is_some_and(|why| why.contains("too many certificates")), "{later}");
    std::fs::remove_file(world.at_authority("mood")).expect("removed");
    world.advance(Duration::from_secs(7000));
    world.worker.look().await.expect("looked");
    assert_eq!(world.domain("later.example.com").await["acm_status"], "failing");
    world.advance(Duration::from_secs(300));
    world.worker.look().await.expect("looked");
    assert_eq!(world.domain("later.example.com").await["acm_status"], "cert issued");

    // At two thirds of its thirty days.
    assert_eq!(world.shown("www.example.com").await.as_ref(), Some(&first));
    world.advance(DAY * 14);
    world.worker.look().await.expect("looked");
    let second = world.shown("www.example.com").await.expect("a certificate");
    assert_ne!(second, first);

    taken_back(&world).await;
    world.ada.send("DELETE", "/apps/shop/acm", &[], Value::Null).await;
    assert_eq!(world.shown("www.example.com").await, None);
    assert_eq!(world.ada.get("/apps/shop/sni-endpoints").await.body, json!([]));
    on_demand(&mut world).await;
    let store = &world.worker.controller.store;
    let account = store.acme_account(&world.worker.acme.directory).await.expect("read").expect("one");
    assert!(account.contains("key_pkcs8"), "the account is there for the next life");
}
