//! Webhooks into a real listener.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::Mutex;

use crate::testing::http::{Caller, Server};

/// Somebody who is told.
#[derive(Default)]
struct Receiver {
    told: Mutex<Vec<(HeaderMap, String)>>,
    /// What it answers; 200 if it does not say.
    answers: Mutex<Vec<StatusCode>>,
}

async fn hear(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: String) -> StatusCode {
    receiver.told.lock().await.push((headers, body));
    receiver.answers.lock().await.pop().unwrap_or(StatusCode::OK)
}

struct World {
    server: Server,
    ada: Caller,
    receiver: Arc<Receiver>,
    url: String,
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let receiver = Arc::new(Receiver::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let routes = axum::Router::new().route("/hook", axum::routing::post(hear)).with_state(Arc::clone(&receiver));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { server, ada, receiver, url }
    }

    async fn add(&self, level: &str) -> (String, String) {
        let wish = json!({"url": self.url, "include": ["api:release", "api:app"], "level": level});
        let made = self.ada.send("POST", "/apps/shop/webhooks", &[], wish).await;
        assert_eq!((made.status, &made.body["include"]), (201, &json!(["api:release", "api:app"])), "{}", made.text);
        (made.body["id"].as_str().expect("an id").to_owned(), made.header("heroku-webhook-secret").to_owned())
    }

    async fn set(&self, value: &str) {
        let set = self.ada.send("PATCH", "/apps/shop/config-vars", &[], json!({"SECRET": value})).await;
        assert_eq!(set.status, 200, "{}", set.text);
    }

    async fn deliver(&self) {
        self.server.test.controller.deliver().await.expect("delivered");
    }

    async fn told(&self) -> Vec<Value> {
        self.receiver.told.lock().await.iter().map(|(_, body)| serde_json::from_str(body).expect("JSON")).collect()
    }

    async fn log(&self) -> Value {
        self.ada.get("/apps/shop/webhook-deliveries").await.body
    }
}

#[tokio::test]
async fn a_webhook_is_told_what_it_asked_for_signed_and_without_secrets() {
    let world = World::new().await;
    let (id, secret) = world.add("notify").await;
    world.set("canary-4711").await;
    world.ada.send("POST", "/apps/shop/domains", &[], json!({"hostname": "www.example.com"})).await;
    world.deliver().await;
    let told = world.told().await;
    assert_eq!(told.len(), 1, "nothing from before it was made, and no domains: {told:?}");
    assert_eq!((&told[0]["resource"], &told[0]["action"]), (&json!("release"), &json!("create")));
    assert_eq!((&told[0]["data"]["version"], &told[0]["actor"]["email"]), (&json!(2), &json!("ada@example.com")));
    assert_eq!(told[0]["webhook_metadata"]["webhook"]["id"], json!(id));
    let (headers, body) = world.receiver.told.lock().await[0].clone();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(body.as_bytes());
    assert_eq!(headers["heroku-webhook-hmac-sha256"], BASE64.encode(mac.finalize().into_bytes()));
    assert!(!body.contains("canary-4711") && !world.ada.get("/apps/shop/events").await.text.contains(&secret));
    world.deliver().await;
    assert_eq!(world.told().await.len(), 1, "once");
    let other = world.server.user("eve@example.com").await;
    assert_eq!(other.get(&format!("/apps/shop/webhooks/{id}")).await.status, 404);
}

#[tokio::test]
async fn what_fails_is_tried_again_later_and_by_hand_and_a_kill_forgets_nothing() {
    let world = World::new().await;
    world.add("sync").await;
    *world.receiver.answers.lock().await = vec![StatusCode::BAD_GATEWAY, StatusCode::INTERNAL_SERVER_ERROR];
    world.set("one").await;
    world.deliver().await;
    let failed = &world.log().await[0];
    assert_eq!((&failed["status"], &failed["last_attempt"]["code"]), (&json!("retrying"), &json!(500)));
    world.deliver().await;
    assert_eq!(world.told().await.len(), 1, "not before its time");
    let test = &world.server.test;
    test.clock.advance(Duration::from_secs(5));
    let next = test.next_life().await;
    next.controller.deliver().await.expect("tried");
    test.clock.advance(Duration::from_secs(10));
    world.deliver().await;
    let log = world.log().await;
    assert_eq!((&log[0]["status"], &log[0]["num_attempts"]), (&json!("succeeded"), &json!(3)));

    let path = format!("/apps/shop/webhook-deliveries/{}/actions/redeliver", log[0]["id"].as_str().expect("an id"));
    assert_eq!(world.ada.send("POST", &path, &[], Value::Null).await.status, 202);
    world.deliver().await;
    let told = world.told().await;
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|body| body["id"] == told[0]["id"]), "a receiver can tell that it is the same");
    let events = world.ada.get("/apps/shop/events?resource=webhook&action=update").await.body;
    assert_eq!(events[0]["data"], json!({"redelivered": log[0]["id"]}));
    assert_eq!(events[0]["actor"]["email"], "ada@example.com");
}

#[tokio::test]
async fn a_notification_is_tried_once_and_bad_wishes_are_refused_by_field() {
    let world = World::new().await;
    let (id, secret) = world.add("notify").await;
    *world.receiver.answers.lock().await = vec![StatusCode::NOT_FOUND];
    world.set("one").await;
    world.deliver().await;
    let log = world.log().await;
    assert_eq!((&log[0]["status"], &log[0]["last_attempt"]["code"]), (&json!("failed"), &json!(404)));

    let good = json!({"url": world.url, "include": ["api:release"], "level": "sync"});
    for (field, value) in [
        ("url", json!("ftp://example.com")),
        ("url", json!("nonsense")),
        ("include", json!(["api:nonsense"])),
        ("include", json!([])),
        ("level", json!("loud")),
        ("secret", json!("new\nline")),
        ("authorization", json!("x".repeat(5000))),
    ] {
        let mut wish = good.clone();
        wish[field] = value;
        let refused = world.ada.send("POST", "/apps/shop/webhooks", &[], wish).await;
        assert_eq!((refused.status, refused.text.contains(field)), (422, true), "{field}: {}", refused.text);
    }
    let path = format!("/apps/shop/webhooks/{id}");
    let changed = world.ada.send("PATCH", &path, &[], json!({"level": "sync"})).await;
    assert_eq!((&changed.body["level"], changed.header("heroku-webhook-secret")), (&json!("sync"), secret.as_str()));
    assert_eq!(world.ada.send("DELETE", &path, &[], Value::Null).await.status, 200);
    world.set("two").await;
    world.deliver().await;
    assert_eq!(world.told().await.len(), 1, "gone");
}
