//! Locks and freeze windows as clients see them. The tests' clock says Saturday, 2026-11-21 02:39 UTC.

use std::time::Duration;

use serde_json::{Value, json};

use crate::testing::http::{Answer, Caller, Server};

const HOUR: Duration = Duration::from_secs(3600);

async fn set_config(caller: &Caller, query: &str, value: &str) -> Answer {
    caller.send("PATCH", &format!("/apps/shop/config-vars{query}"), &[], json!({ "A": value })).await
}

/// Every request that would make a release of `shop`.
async fn releasing(caller: &Caller) -> Vec<(&'static str, Answer)> {
    let requests = [
        ("PATCH", "/apps/shop/config-vars", json!({"A": "2"})),
        ("POST", "/apps/shop/config-changes", json!({"vars": {"A": "2"}})),
        ("POST", "/apps/shop/releases", json!({"release": "2"})),
        ("POST", "/apps/shop/builds", json!({"source_blob": {"url": "http://localhost:1/x.tgz"}})),
        ("POST", "/apps/shop/addons", json!({"plan": "postgres:mini"})),
        ("POST", "/addon-attachments", json!({"app": "shop", "addon": "old-db", "name": "OTHER"})),
        ("DELETE", "/addon-attachments/DATABASE?app=shop", Value::Null),
        ("DELETE", "/apps/shop/addons/old-db", Value::Null),
    ];
    let mut answers = Vec::new();
    for (method, path, body) in requests {
        answers.push((path, caller.send(method, path, &[], body).await));
    }
    answers
}

#[tokio::test]
async fn no_release_is_made_of_a_locked_app() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    assert_eq!(set_config(&ada, "", "1").await.status, 200);
    let addon = json!({"plan": "postgres:mini", "name": "old-db"});
    assert_eq!(ada.send("POST", "/apps/shop/addons", &[], addon).await.status, 201);
    assert_eq!(ada.get("/apps/shop/lock").await.status, 404);

    let lock = ada.send("PUT", "/apps/shop/lock", &[], json!({"message": "Release day,\nask me"})).await;
    assert_eq!((lock.status, &lock.body["message"]), (200, &json!("Release day, ask me")));
    assert_eq!(lock.body["user"]["email"], "ada@example.com");
    assert_eq!(ada.get("/apps/shop/lock").await.body, lock.body);
    let before = ada.get("/apps/shop/releases").await.body;
    for (path, refused) in releasing(&ada).await {
        if path.contains("DATABASE") && refused.status == 404 {
            continue;
        }
        assert_eq!((refused.status, refused.id()), (423, "locked"), "{path}: {}", refused.text);
        for part in ["locked by ada@example.com", "2026-11-21", "Release day, ask me", "platform unlock", "--force"] {
            assert!(refused.text.contains(part), "{path}: {}", refused.text);
        }
    }
    assert_eq!(ada.get("/apps/shop/releases").await.body, before);
    let maintenance = ada.send("PATCH", "/apps/shop", &[], json!({"maintenance": true})).await;
    assert_eq!(maintenance.status, 200, "what keeps it alive goes on");

    assert_eq!(ada.send("DELETE", "/apps/shop/lock", &[], Value::Null).await.status, 200);
    assert_eq!(ada.send("DELETE", "/apps/shop/lock", &[], Value::Null).await.status, 404);
    assert_eq!(set_config(&ada, "", "2").await.status, 200);
    let told: Vec<Value> =
        ada.get("/apps/shop/events?resource=lock").await.body.as_array().cloned().unwrap_or_default();
    let told: Vec<_> = told.iter().map(|event| (&event["action"], &event["data"]["message"])).collect();
    let message = json!("Release day, ask me");
    assert_eq!(told, [(&json!("create"), &message), (&json!("destroy"), &message)]);
}

#[tokio::test]
async fn only_an_admin_goes_on_all_the_same() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let bob = server.user("bob@example.com").await;
    let role = json!({"user": "bob@example.com", "role": "operate"});
    assert_eq!(ada.send("POST", "/apps/shop/collaborators", &[], role).await.status, 201);
    let by_bob = bob.send("PUT", "/apps/shop/lock", &[], Value::Null).await;
    assert_eq!((by_bob.status, by_bob.id()), (403, "forbidden"), "that needs the role manage");
    assert_eq!(ada.send("PUT", "/apps/shop/lock", &[], Value::Null).await.status, 200);
    assert_eq!(set_config(&bob, "", "1").await.status, 423);
    assert_eq!(set_config(&bob, "?force=true", "1").await.status, 403);
    assert_eq!(set_config(&ada, "?force=false", "1").await.status, 423);
    assert_eq!(set_config(&ada, "?force=true", "1").await.status, 200);
    let events = ada.get("/apps/shop/events?resource=release").await.body;
    assert_eq!(events.as_array().and_then(|all| all.last()).map(|last| &last["data"]["forced"]), Some(&json!(true)));
    assert_eq!(ada.send("DELETE", "/apps/shop/lock", &[], Value::Null).await.status, 200);
    assert_eq!(set_config(&bob, "?force=true", "2").await.status, 200, "where nothing holds, nothing is forced");
}

#[tokio::test]
async fn a_freeze_window_holds_its_apps_until_it_ends() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let path = "/apps/shop/freeze-windows";
    let weekend = json!({"period": "fri 16:00 - mon 08:00 Europe/Berlin", "reason": "weekend"});
    let made = ada.send("POST", path, &[], weekend).await;
    assert_eq!((made.status, &made.body["active_until"]), (201, &json!("2026-11-23T07:00:00Z")));
    let refused = set_config(&ada, "", "1").await;
    assert_eq!((refused.status, refused.id()), (423, "locked"));
    for part in ["frozen until Mon 2026-11-23 08:00 Europe/Berlin: weekend", "fri 16:00 - mon 08:00"] {
        assert!(refused.text.contains(part), "{}", refused.text);
    }
    server.test.clock.advance(53 * HOUR);
    assert_eq!(set_config(&ada, "", "1").await.status, 200, "Monday, 08:39 in Berlin");
    assert_eq!(ada.get(path).await.body[0]["active_until"], Value::Null);

    let once = json!({"period": "2026-11-23 - 2026-11-24"});
    let made = ada.send("POST", path, &[], once).await;
    assert_eq!((made.status, &made.body["period"]), (201, &json!("2026-11-23 00:00 - 2026-11-24 00:00 UTC")));
    assert_eq!(set_config(&ada, "", "2").await.status, 423);
    let id = made.body["id"].as_str().expect("an id");
    assert_eq!(ada.send("DELETE", &format!("{path}/{id}"), &[], Value::Null).await.status, 200);
    assert_eq!(ada.send("DELETE", &format!("{path}/{id}"), &[], Value::Null).await.status, 404);
    assert_eq!(set_config(&ada, "", "2").await.status, 200);
    for bad in ["weekend", "2020-01-01 - 2020-01-02", "fri 16:00 - mon 08:00 Mars/Olympus"] {
        let refused = ada.send("POST", path, &[], json!({ "period": bad })).await;
        assert_eq!((refused.status, refused.id()), (422, "invalid_params"), "{bad}");
    }
}

#[tokio::test]
async fn teams_and_the_platform_freeze_all_of_their_apps() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let bob = server.user_with_app("bob@example.com", "blog").await;
    assert_eq!(ada.send("POST", "/teams", &[], json!({"name": "ours"})).await.status, 201);
    assert_eq!(ada.send("PATCH", "/teams/apps/shop", &[], json!({"owner": "ours"})).await.status, 200);
    let always = json!({"period": "mon - mon"});
    assert_eq!(bob.send("POST", "/teams/ours/freeze-windows", &[], always.clone()).await.status, 404);
    let made = ada.send("POST", "/teams/ours/freeze-windows", &[], always.clone()).await;
    assert_eq!((made.status, &made.body["team"]["name"]), (201, &json!("ours")));
    let refused = set_config(&ada, "", "1").await;
    assert_eq!(refused.status, 423);
    assert!(refused.text.contains("The apps of the team ours are frozen"), "{}", refused.text);
    let others = bob.send("PATCH", "/apps/blog/config-vars", &[], json!({"A": "1"})).await;
    assert_eq!(others.status, 200);
    let path = format!("/teams/ours/freeze-windows/{}", made.body["id"].as_str().expect("an id"));
    assert_eq!(ada.send("DELETE", &path, &[], Value::Null).await.status, 200);

    assert_eq!(bob.send("POST", "/freeze-windows", &[], always.clone()).await.status, 403);
    assert_eq!(ada.send("POST", "/freeze-windows", &[], always).await.status, 201, "the first user keeps the platform");
    for (caller, app) in [(&ada, "shop"), (&bob, "blog")] {
        let path = format!("/apps/{app}/config-vars");
        let refused = caller.send("PATCH", &path, &[], json!({"A": "2"})).await;
        assert_eq!(refused.status, 423);
        assert!(refused.text.contains("All apps of this platform are frozen"), "{}", refused.text);
        assert_eq!(caller.get(&format!("/apps/{app}/freeze-windows")).await.body.as_array().map(Vec::len), Some(1));
    }
}
