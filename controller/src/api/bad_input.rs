//! What nobody should send, and somebody will: every answer is an error in JSON that names what is wrong, and nothing is half
//! done.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::accounts::TokenRequest;
use crate::testing::http::{Answer, Server};

/// Every route of the Heroku Platform API, from its published schema.
const HEROKU: &str = include_str!("../../../tests/fixtures/heroku-routes.txt");

fn assert_error(answer: &Answer, what: &str) {
    assert!((400..500).contains(&answer.status) || answer.status == 501, "{what}: {} {}", answer.status, answer.text);
    assert!(answer.body["message"].is_string() && !answer.id().is_empty(), "{what}: {}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json", "{what}");
}

#[tokio::test]
async fn names_in_paths_that_are_none_are_not_found() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let long = "a".repeat(3000);
    let bad = [
        "%00",
        "a%00b",
        "%2F",
        "..%2F..%2Fetc",
        "%FF%FE",
        "%F0%9F%92%A9",
        "%27%20OR%201=1",
        "18446744073709551616",
        &long,
    ];
    for route in super::table() {
        let Some((before, _)) = route.path.rsplit_once("/{") else { continue };
        let after =
            route.path[before.len() + 1..].split_once('/').map_or(String::new(), |(_, rest)| format!("/{rest}"));
        for bad in bad {
            let path = format!("{}/{bad}{after}", before.replace("{app}", "shop"));
            let answer = ada.send(route.method.as_str(), &path, &[], json!({})).await;
            // What a body must have may be missed before what the path names is looked for.
            if answer.status >= 300 {
                assert_error(&answer, &format!("{} {path}", route.method));
            }
            if bad.contains("%00") || bad.contains("%FF") {
                assert_eq!((answer.status, answer.id()), (404, "not_found"), "{} {path}", route.method);
            }
        }
    }
}

#[tokio::test]
async fn every_route_of_heroku_is_answered_in_json() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let mut absent = 0;
    for line in HEROKU.lines() {
        let (method, template) = line.split_once(' ').expect("a method and a path");
        let path = template.replace("{app}", "nobody").replace(['{', '}'], "");
        // Those would end what the others need.
        if method == "DELETE" && ["/account", "/users/account"].contains(&path.as_str()) {
            continue;
        }
        let answer = ada.send(method, &path, &[], json!({})).await;
        if answer.status >= 300 {
            assert_error(&answer, line);
        }
        absent += u32::from(answer.status == 501);
    }
    assert!(absent > 50, "{absent} are said to be missing by name");
    assert_eq!(ada.get("/spaces").await.body["message"], "This platform has no private spaces.");
}

#[tokio::test]
async fn a_token_that_is_wrong_or_over_opens_nothing() {
    let server = Server::start().await;
    let user = server.test.user("ada@example.com").await;
    let actor = server.test.actor(&user);
    let hour = Duration::from_secs(3600);
    let wish = TokenRequest { lifetime: Some(hour), ..TokenRequest::default() };
    let token = server.test.controller.issue_token(&actor, wish).await.expect("a token").text;
    assert_eq!(server.with_token(&token).get("/account").await.status, 200);
    server.test.clock.advance(hour);
    let mut changed = token.clone();
    changed.pop();
    for bad in [&token, &changed, "", "\u{e9}", "null", &"x".repeat(10_000)] {
        let answer = server.with_token(bad).get("/account").await;
        assert_eq!((answer.status, answer.id()), (401, "unauthorized"), "{bad}");
        assert_error(&answer, bad);
    }
}

#[tokio::test]
async fn what_belongs_to_others_is_as_if_it_were_not_there() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    server.deploy("shop", &["web"]).await;
    let addon = ada.send("POST", "/apps/shop/addons", &[], json!({"plan": "postgres"})).await;
    let app = ada.get("/apps/shop").await.body["id"].as_str().expect("an id").to_owned();
    let authorization = ada.get("/oauth/authorizations/~").await.body["id"].as_str().expect("an id").to_owned();
    let addon = addon.body["id"].as_str().expect("an id");
    let eve = server.user_with_app("eve@example.com", "hers").await;
    let mut tried = 0;
    for route in super::table() {
        let theirs = ["{app}", "{addon}", "{authorization}"].iter().any(|name| route.path.contains(name));
        if !theirs || route.path.starts_with("/account/") {
            continue;
        }
        let path =
            route.path.replace("{app}", &app).replace("{addon}", addon).replace("{authorization}", &authorization);
        let answer = eve.send(route.method.as_str(), &path.replace(['{', '}'], ""), &[], json!({})).await;
        assert_eq!((answer.status, answer.id()), (404, "not_found"), "{} {path}: {}", route.method, answer.text);
        tried += 1;
    }
    assert!(tried > 50, "{tried}");
    let stolen = eve.send("POST", "/actions/addons/resolve", &[], json!({"addon": addon, "app": "hers"})).await;
    assert_eq!(stolen.status, 404);
    assert_eq!(ada.get("/apps/shop").await.body["id"], app);
}

#[tokio::test]
async fn too_many_config_vars_change_nothing() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let vars = |count: usize| (0..count).map(|n| (format!("V{n}"), json!("1"))).collect::<Map<_, _>>();
    for (count, status, id) in [(100_000, 413, "payload_too_large"), (50_000, 422, "invalid_params")] {
        let refused = ada.send("PATCH", "/apps/shop/config-vars", &[], Value::Object(vars(count))).await;
        assert_eq!((refused.status, refused.id()), (status, id), "{count}");
    }
    assert_eq!(ada.get("/apps/shop/config-vars").await.body, json!({}));
    assert_eq!(ada.get("/apps/shop/releases").await.body.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn bodies_of_wrong_shape_are_refused_with_the_field() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    for (method, path, body, field) in [
        ("POST", "/apps", json!({"name": {"a": 1}}), "name"),
        ("POST", "/apps", json!({"name": ["shop"]}), "name"),
        ("POST", "/apps", json!({"stack": {"id": {}}}), "stack"),
        ("PATCH", "/apps/shop", json!({"maintenance": "perhaps"}), "maintenance"),
        ("PATCH", "/apps/shop/formation", json!({"updates": {"type": "web"}}), "updates"),
        ("PATCH", "/apps/shop/formation", json!({"updates": [{"quantity": 1}]}), "updates[0].type"),
        (
            "PATCH",
            "/apps/shop/formation",
            json!({"updates": [{"type": "web"}, {"type": "web", "quantity": []}]}),
            "updates[1].quantity",
        ),
        ("PATCH", "/apps/shop/config-vars", json!({"A": {"b": 1}}), "A"),
        ("POST", "/apps/shop/dynos", json!({"command": null}), "command"),
        ("POST", "/apps/shop/dynos", json!({"command": "ls", "env": ["A=b"]}), "env"),
        ("POST", "/apps/shop/domains", json!({}), "hostname"),
        ("POST", "/apps/shop/log-sessions", json!({"lines": -1}), "lines"),
    ] {
        let refused = ada.send(method, path, &[], body.clone()).await;
        assert_eq!((refused.status, refused.id()), (422, "invalid_params"), "{method} {path} {body}: {}", refused.text);
        assert!(refused.body["message"].as_str().is_some_and(|it| it.starts_with(field)), "{field}: {}", refused.text);
    }
    let no_text = ada.send_bytes("POST", "/apps", &[], b"{\"name\": \"\xff\"}".to_vec()).await;
    assert_eq!((no_text.status, no_text.id()), (400, "bad_request"));
    let unknown = ada.send("PATCH", "/apps/shop", &[], json!({"what": {"is": ["this"]}})).await;
    assert_eq!(unknown.status, 200, "unknown fields are nobody's business");
}

#[tokio::test]
async fn any_name_of_an_app_is_taken_or_refused_with_the_rule() {
    let server = Server::start().await;
    let ada = server.user("ada@example.com").await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let names = ["[a-z][a-z0-9-]{1,30}", "[a-zA-Z0-9._-]{0,40}", "\\PC{0,20}"];
    for number in 0..150 {
        let tree = proptest::strategy::Strategy::new_tree(&names[number % names.len()], &mut runner).expect("a name");
        let name = proptest::strategy::ValueTree::current(&tree);
        let answer = ada.send("POST", "/apps", &[], json!({ "name": name })).await;
        if name.parse::<model::AppName>().is_ok() {
            let taken = answer.status == 422 && answer.text.contains("taken");
            assert!(answer.status == 201 || taken, "{name:?}: {}", answer.text);
        } else {
            assert_eq!((answer.status, answer.id()), (422, "invalid_params"), "{name:?}");
            assert!(answer.text.contains("Name"), "{name:?}: {}", answer.text);
        }
    }
}
