//! Host names that nobody knows, on a platform where an app wants to be asked about them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::routes::{AppRoute, RouteMode, WorkloadId};
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::certificates::Secure;
use crate::world::{LONG, app_id, app_row, named, send};

/// What a controller was asked, and what it says.
struct Controller {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Controller {
    /// One that makes `tenant.example.com` the app's before it says yes, says nothing of `slow.example.com` and no to everything else.
    fn of(secure: &Arc<Secure>) -> Self {
        let listener = UnixListener::bind(secure.world.folder.path().join("on-demand.sock")).expect("a socket");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (secure, log) = (Arc::downgrade(secure), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (secure, log) = (secure.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let mut head = vec![0; 4096];
                    let count = stream.read(&mut head).await.expect("a request");
                    let head = String::from_utf8_lossy(&head[..count]).into_owned();
                    let path = head.split(' ').nth(1).expect("a path").to_owned();
                    log.lock().expect("no panic").push(path.clone());
                    if path.ends_with("/slow.example.com") {
                        std::future::pending::<()>().await;
                    }
                    let is_tenant = path.ends_with("/tenant.example.com");
                    if let Some(secure) = secure.upgrade().filter(|_| is_tenant) {
                        take_in(&secure).await;
                    }
                    let status = if is_tenant { "200 OK" } else { "404 Not Found" };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

async fn take_in(secure: &Secure) {
    secure.show(1, vec![secure.signer.sign("tenant", &["tenant.example.com"])]).await;
    let mut row = asking();
    row.hosts.push("tenant.example.com".parse().expect("a host name"));
    let version = secure.world.names.set(&app_id("shop"), Some(row));
    assert!(secure.world.names.served(version, LONG).await);
}

/// The app that wants to be asked.
fn asking() -> AppRoute {
    let mut row = app_row("shop", RouteMode::serve(WorkloadId("shop".to_owned())));
    let policy = row.policy.get_or_insert_default();
    policy.set("domain_ask", "/domain-allowed").expect("a path");
    row
}

async fn get(secure: &Secure, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    send(secure.world.address, request.as_bytes()).await
}

async fn world() -> (Arc<Secure>, Controller) {
    let secure = Secure::with(Timeouts { on_demand: Duration::from_millis(500), ..Timeouts::default() }).await;
    let secure = Arc::new(secure);
    let controller = Controller::of(&secure);
    secure.world.serve("shop", &[&named("the app").await]).await;
    (secure, controller)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_an_app_wants_is_there_at_its_first_visit() {
    let (secure, controller) = world().await;
    assert!(get(&secure, "tenant.example.com").await.starts_with("HTTP/1.1 404"), "nobody wants to be asked");
    assert_eq!(secure.subject("tenant.example.com").await, None);
    assert_eq!(controller.asked(), [""; 0]);

    secure.world.names.set(&app_id("shop"), Some(asking()));
    let version = secure.world.names.version();
    assert!(secure.world.names.served(version, LONG).await);
    assert_eq!(secure.subject("Tenant.example.com").await.as_deref(), Some("tenant"), "in the very first handshake");
    assert_eq!(controller.asked(), ["/certificates/tenant.example.com"]);
    assert!(get(&secure, "tenant.example.com").await.ends_with("the app"));
    assert_eq!(secure.subject("tenant.example.com").await.as_deref(), Some("tenant"));
    assert_eq!(controller.asked().len(), 1, "what is known is not asked about");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_request_for_a_name_that_an_app_wants_reaches_it() {
    let (secure, controller) = world().await;
    secure.world.rule("shop", &[("domain_ask", "/domain-allowed")]).await;
    assert!(get(&secure, "tenant.example.com").await.ends_with("the app"));
    assert_eq!(controller.asked(), ["/names/tenant.example.com"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_by_a_name_that_is_refused_or_not_said_in_time_is_shown_what_there_is() {
    let (secure, controller) = world().await;
    secure.world.rule("shop", &[("domain_ask", "/domain-allowed")]).await;
    for _ in 0..2 {
        assert!(get(&secure, "other.example.com").await.starts_with("HTTP/1.1 404"));
        assert_eq!(secure.subject("other.example.com").await, None);
        assert_eq!(secure.subject("slow.example.com").await, None);
    }
    assert_eq!(controller.asked(), ["/names/other.example.com", "/certificates/slow.example.com"], "once each");

    for host in ["shop.localhost", "nothing.localhost", "127.0.0.1", "single"] {
        get(&secure, host).await;
    }
    assert_eq!(controller.asked().len(), 2, "nobody's customer has such a name");
    // An app that wants no more is asked no more.
    secure.world.route("shop").await;
    assert!(get(&secure, "tenant.example.com").await.starts_with("HTTP/1.1 404"));
    assert_eq!(controller.asked().len(), 2);
}
