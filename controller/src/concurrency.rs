//! Changes of one app that arrive at the same moment, over HTTP as clients send them.

use serde_json::json;
use tokio::task::JoinSet;

use crate::testing::http::{Caller, Server};

/// Sends the same kind of change many times at once; the statuses of the answers.
async fn at_once(caller: &Caller, changes: Vec<(&'static str, String, serde_json::Value)>) -> Vec<u16> {
    let mut tasks = JoinSet::new();
    for (method, path, body) in changes {
        let caller = caller.clone();
        tasks.spawn(async move { caller.send(method, &path, &[], body).await.status });
    }
    tasks.join_all().await
}

async fn versions(caller: &Caller, app: &str) -> Vec<u64> {
    let answer = caller.get(&format!("/apps/{app}/releases")).await;
    answer.body.as_array().into_iter().flatten().filter_map(|release| release["version"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_same_change_by_many_one_makes_a_release() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let set = || ("PATCH", "/apps/shop/config-vars".to_owned(), json!({ "COLOUR": "green" }));
    let statuses = at_once(&ada, (0..10).map(|_| set()).collect()).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(versions(&ada, "shop").await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_first_users_at_once_one_keeps_the_platform() {
    let server = Server::start().await;
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let controller = std::sync::Arc::clone(&server.test.controller);
        tasks.spawn(async move { controller.create_user(&format!("user{number}@example.com"), None).await });
    }
    let users = tasks.join_all().await.into_iter().map(|made| made.expect("a user"));
    assert_eq!(users.filter(|user| user.operator).count(), 1);
    let kept = server.test.controller.store.users().await.expect("readable");
    assert_eq!((kept.len(), kept.iter().filter(|user| user.operator).count()), (8, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn rollbacks_at_once_make_one_release_after_the_other_or_are_refused() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    for types in [&["web"][..], &["web", "worker"]] {
        server.deploy("shop", types).await;
    }
    let back = |version: u64| ("POST", "/apps/shop/releases".to_owned(), json!({ "release": version.to_string() }));
    let statuses = at_once(&ada, (0..10).map(|number| back(2 + number % 2)).collect()).await;
    // 200 is a way back to where the app is already.
    assert!(statuses.iter().all(|status| matches!(status, 200 | 201 | 409)), "{statuses:?}");
    let made = statuses.iter().filter(|status| **status == 201).count();
    assert!(made >= 1, "{statuses:?}");
    let versions = versions(&ada, "shop").await;
    assert!(versions.iter().copied().eq(1..=3 + made as u64), "no gap, none twice: {versions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_an_app_that_is_destroyed_meanwhile_are_made_or_find_no_app() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    server.deploy("shop", &["web"]).await;
    let mut changes: Vec<_> = (0..12)
        .flat_map(|number| {
            let vars = json!({ "NUMBER": number.to_string() });
            let scale = json!({ "quantity": number % 3 });
            [
                ("PATCH", "/apps/shop/config-vars".to_owned(), vars),
                ("PATCH", "/apps/shop/formation/web".to_owned(), scale),
            ]
        })
        .collect();
    changes.insert(12, ("DELETE", "/apps/shop".to_owned(), serde_json::Value::Null));
    let statuses = at_once(&ada, changes).await;
    assert!(statuses.iter().all(|status| matches!(status, 200 | 404)), "{statuses:?}");
    assert_eq!(ada.get("/apps/shop").await.status, 404);
    let store = &server.test.controller.store;
    assert!(store.app_ids().await.expect("readable").is_empty());
    assert!(store.pending_releases(None).await.expect("readable").is_empty());
    assert_eq!(ada.send("POST", "/apps", &[], json!({ "name": "shop" })).await.status, 201, "its name is free");
}
