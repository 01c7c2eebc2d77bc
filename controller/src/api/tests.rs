//! The API as its clients see it: over HTTP, by users with tokens.

use model::Role;
use serde_json::{Value, json};

use super::auth::Right;
use crate::testing::PASSWORD;
use crate::testing::http::Server;

#[tokio::test]
async fn every_route_refuses_who_has_no_token() {
    let server = Server::start().await;
    let stranger = server.stranger();
    for route in super::table().iter().filter(|route| route.right != Right::Anyone || route.path.starts_with("/oauth"))
    {
        let path = route.path.replace(['{', '}'], "");
        for (name, value) in [("accept", "*/*"), ("authorization", "Bearer guess"), ("authorization", "Basic Og==")] {
            let answer = stranger.send(route.method.as_str(), &path, &[(name, value)], Value::Null).await;
            assert_eq!((answer.status, answer.id()), (401, "unauthorized"), "{} {path} {value}", route.method);
        }
    }
}

#[tokio::test]
async fn what_does_not_exist_is_said_in_json() {
    let server = Server::start().await;
    let ada = server.user("ada@example.com").await;
    for (method, path, status, id) in [
        ("GET", "/nonsense", 404, "not_found"),
        ("PUT", "/apps", 405, "method_not_allowed"),
        ("GET", "/apps/nobody", 404, "not_found"),
        ("GET", "/apps/%FF/releases", 404, "not_found"),
        ("GET", "/apps/a%00b", 404, "not_found"),
        ("GET", "/oauth/authorizations/nobody", 404, "not_found"),
        ("DELETE", "/oauth/sessions/~", 404, "not_found"),
    ] {
        let answer = ada.send(method, path, &[], Value::Null).await;
        assert_eq!((answer.status, answer.id()), (status, id), "{method} {path}");
        assert!(answer.body["message"].is_string() && answer.header("content-type") == "application/json");
    }
    assert_eq!(ada.get("/apps/nobody").await.body["message"], "Couldn't find that app.");
}

#[tokio::test]
async fn a_password_makes_a_token_and_the_token_is_seen_once() {
    let server = Server::start().await;
    server.test.user("ada@example.com").await;
    let stranger = server.stranger();
    let login = async |password: &str| {
        let basic = format!("Basic {}", base64(&format!("ada@example.com:{password}")));
        let body = json!({"description": "laptop", "expires_in": "3600", "scope": ["global"]});
        stranger.send("POST", "/oauth/authorizations", &[("authorization", &basic)], body).await
    };
    assert_eq!(login("wrong").await.status, 401);
    let made = login(PASSWORD).await;
    assert_eq!((made.status, made.body["access_token"]["expires_in"].as_u64()), (201, Some(3600)));
    assert_eq!(made.body["expires_at"], "2026-11-21T03:39:46Z");
    let token = made.body["access_token"]["token"].as_str().expect("a token");

    for credentials in [format!("Bearer {token}"), basic("", token), basic("ada@example.com", token)] {
        let answer = stranger.send("GET", "/account", &[("authorization", &credentials)], Value::Null).await;
        assert_eq!((answer.status, answer.body["email"].as_str()), (200, Some("ada@example.com")));
    }
    let password = basic("ada@example.com", PASSWORD);
    assert_eq!(stranger.send("GET", "/account", &[("authorization", &password)], Value::Null).await.status, 401);

    let ada = server.with_token(token);
    let listed = ada.get("/oauth/authorizations").await;
    assert_eq!(
        (listed.body[0]["description"].as_str(), &listed.body[0]["access_token"]),
        (Some("laptop"), &Value::Null)
    );
    assert_eq!(ada.get("/oauth/authorizations/~").await.body["id"], made.body["id"]);
    assert_eq!(ada.send("DELETE", "/oauth/authorizations/~", &[], json!({})).await.status, 200);
    assert_eq!(ada.get("/account").await.status, 401);
}

#[tokio::test]
async fn every_route_of_an_app_wants_its_role_and_nobody_else_learns_that_it_exists() {
    let server = Server::start().await;
    let (ada, eve) = (server.user_with_app("ada@example.com", "shop").await, server.user("eve@example.com").await);
    assert_eq!(ada.get("/apps/shop").await.status, 200);
    let store = &server.test.controller.store;
    let app = store.apps().await.expect("readable").remove(0);
    for have in [None, Some(Role::View), Some(Role::Deploy), Some(Role::Operate), Some(Role::Manage)] {
        if let Some(role) = have {
            store.give_role(app.id, "eve@example.com", role).await;
        }
        for route in super::table() {
            let Some(need) = route.right.role().filter(|_| route.path.contains("/apps/{app}")) else { continue };
            let path = route.path.replace("{app}", "shop").replace(['{', '}'], "");
            let answer = eve.send(route.method.as_str(), &path, &[], json!({})).await;
            match have {
                None => assert_eq!((answer.status, answer.id()), (404, "not_found"), "{} {path}", route.method),
                Some(role) if role < need => {
                    assert_eq!((answer.status, answer.id()), (403, "forbidden"), "{} {path} as {role}", route.method);
                    assert!(answer.text.contains(&need.to_string()), "{}", answer.text);
                }
                Some(_) => assert_ne!(answer.id(), "forbidden", "{} {path} as {have:?}", route.method),
            }
        }
        assert_eq!(ada.get("/apps/shop").await.status, 200, "nobody without the right renamed or removed it");
    }
}

#[tokio::test]
async fn an_app_lives_from_creation_to_deletion_under_name_and_id() {
    let server = Server::start().await;
    let (ada, eve) = (server.user("ada@example.com").await, server.user("eve@example.com").await);
    let made =
        ada.send("POST", "/apps", &[], json!({"name": "first", "region": {"name": "us"}, "stack": "cedar"})).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.body["web_url"], "http://first.localhost:8080/");
    assert_eq!(made.body["git_url"], "https://localhost:8443/first.git");
    let id = made.body["id"].as_str().expect("an id").to_owned();

    for path in ["/apps/first".to_owned(), format!("/apps/{id}")] {
        assert_eq!(ada.get(&path).await.body["name"], "first");
        assert_eq!(eve.get(&path).await.status, 404, "others do not learn that it exists");
    }
    assert_eq!(eve.get("/apps").await.body, json!([]));
    let refused = ada.send("POST", "/apps", &[], json!({"name": "first"})).await;
    assert_eq!((refused.status, refused.id()), (422, "invalid_params"));
    assert_eq!(ada.send("POST", "/apps", &[], json!({"region": "mars"})).await.status, 422);
    assert_eq!(ada.send("POST", "/apps", &[], Value::Null).await.status, 201, "a name is chosen");

    let renamed = ada.send("PATCH", "/apps/first", &[], json!({"name": "second", "maintenance": "true"})).await;
    assert_eq!((&renamed.body["name"], &renamed.body["maintenance"]), (&json!("second"), &json!(true)));
    assert_eq!(ada.get("/apps/first").await.status, 404);
    let hosts = ada.get("/apps/second/domains").await;
    assert_eq!((&hosts.body[0]["hostname"], &hosts.body[0]["kind"]), (&json!("second.localhost"), &json!("heroku")));
    assert_eq!(ada.send("DELETE", &format!("/apps/{id}"), &[], json!({"force": false})).await.body["name"], "second");
    assert_eq!(ada.get("/users/~/apps").await.body.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn config_changes_make_releases_and_a_rollback_undoes_them() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "configured").await;
    let vars = "/apps/configured/config-vars";
    let set = ada.send("PATCH", vars, &[], json!({"A": "1", "COLUMNS": 80, "GONE": null})).await;
    assert_eq!(set.body, json!({"A": "1", "COLUMNS": "80"}));
    ada.send("PATCH", vars, &[], json!({"A": null})).await;
    assert_eq!(ada.get(vars).await.body, json!({"COLUMNS": "80"}));
    ada.send("PATCH", vars, &[], json!({"COLUMNS": "80"})).await;

    let releases = ada.get("/apps/configured/releases").await;
    let descriptions: Vec<_> = releases.each("description");
    assert_eq!(descriptions, ["Initial release", "Set A, COLUMNS config vars, remove GONE", "Remove A config vars"]);
    assert_eq!(ada.get("/apps/configured/releases/v2/config-vars").await.body, set.body);

    let back =
        ada.send("POST", "/apps/configured/releases", &[], json!({"release": {"id": releases.body[1]["id"]}})).await;
    assert_eq!((back.status, &back.body["version"], &back.body["current"]), (201, &json!(4), &json!(true)));
    assert_eq!(back.body["description"], "Rollback to v2");
    assert_eq!(ada.get(vars).await.body, set.body);
    for bad in [json!({"release": "v99"}), json!({"release": "nonsense"})] {
        assert_eq!(ada.send("POST", "/apps/configured/releases", &[], bad).await.status, 404);
    }
    for (bad, name) in [(json!({"1A": "x"}), "1A"), (json!({"A": ["x"]}), "A"), (json!({"A": "a\0b"}), "A")] {
        let refused = ada.send("PATCH", vars, &[], bad).await;
        assert_eq!((refused.status, refused.id()), (422, "invalid_params"));
        assert!(refused.body["message"].as_str().is_some_and(|message| message.contains(name)));
    }
}

#[tokio::test]
async fn lists_come_in_parts_and_unchanged_answers_are_not_sent_again() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "listed").await;
    for value in ["1", "2"] {
        ada.send("PATCH", "/apps/listed/config-vars", &[], json!({"A": value})).await;
    }
    let part = |range: String| {
        let ada = &ada;
        async move { ada.send("GET", "/apps/listed/releases", &[("range", &range)], Value::Null).await }
    };
    let newest = part("version ..; order=desc,max=1".to_owned()).await;
    assert_eq!((newest.status, newest.each("description")), (206, vec!["Set A config vars"]));
    assert_eq!(newest.body[0]["version"], 3);
    let next = part(newest.header("next-range").to_owned()).await;
    assert_eq!((next.status, &next.body[0]["version"]), (206, &json!(2)));
    let all = part("id ..; max=1000;".to_owned()).await;
    assert_eq!((all.status, all.body.as_array().map(Vec::len)), (200, Some(3)));

    let first = ada.get("/apps/listed").await;
    let again = ada.send("GET", "/apps/listed", &[("if-none-match", first.header("etag"))], Value::Null).await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    let traced = ada.send("GET", "/account", &[("request-id", "a,b")], Value::Null).await;
    assert!(traced.header("request-id").starts_with("a,b,"));
}

#[tokio::test]
async fn scaling_takes_numbers_strings_and_steps() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "scaled").await;
    let formation = "/apps/scaled/formation";
    let update = |update: Value| json!({"updates": [update]});
    let early = ada.send("PATCH", formation, &[], update(json!({"type": "worker", "quantity": "1"}))).await;
    assert_eq!((early.status, early.id()), (404, "not_found"), "nothing was deployed");
    assert_eq!(ada.get(formation).await.body, json!([]));
    let early = ada.send("PATCH", formation, &[], update(json!({"type": "web", "quantity": "3"}))).await;
    assert_eq!((early.status, &early.body[0]["quantity"]), (200, &json!(3)), "every app can have web processes");
    server.deploy("scaled", &["web", "worker", "release"]).await;
    assert_eq!(ada.get("/apps/scaled/formation/web").await.body["quantity"], 3);

    for (quantity, expected) in [(json!(2), 2), (json!("+1"), 3), (json!("-2"), 1), (json!(null), 1), (json!("4"), 4)] {
        let scaled =
            ada.send("PATCH", formation, &[], update(json!({"type": "web", "quantity": quantity, "size": null}))).await;
        assert_eq!((scaled.status, &scaled.body[0]["quantity"]), (200, &json!(expected)), "{quantity}");
    }
    let sized = ada.send("PATCH", "/apps/scaled/formation/worker", &[], json!({"size": "performance-m"})).await;
    assert_eq!((&sized.body["size"], &sized.body["command"]), (&json!("Performance-M"), &json!("run worker")));
    for (bad, status) in [
        (json!({"type": "web", "quantity": "x"}), 422),
        (json!({"type": "web", "quantity": "-5"}), 422),
        (json!({"type": "web", "quantity": 101}), 422),
        (json!({"type": "web", "size": "huge"}), 422),
        (json!({"type": "release", "quantity": 1}), 422),
        (json!({"quantity": 1}), 422),
        (json!({"type": "cron", "quantity": 1}), 404),
    ] {
        assert_eq!(ada.send("PATCH", formation, &[], update(bad.clone())).await.status, status, "{bad}");
    }
    assert_eq!(ada.get("/apps/scaled/formation").await.body[1]["quantity"], 4);
    assert_eq!(
        ada.get("/apps/scaled/releases").await.body.as_array().map(Vec::len),
        Some(2),
        "scaling makes no release"
    );
}

#[tokio::test]
async fn before_the_first_deploy_a_one_off_runs_on_the_bare_stack() {
    let server = Server::start().await;
    server.test.controller.live.set_ready();
    let ada = server.user_with_app("ada@example.com", "empty").await;
    let run = json!({"command": "ls /", "attach": false, "env": {"A": "b"}});
    let dyno = ada.send("POST", "/apps/empty/dynos", &[], run.clone()).await;
    assert_eq!((dyno.status, &dyno.body["release"]["version"]), (201, &json!(1)), "{}", dyno.text);
    let container = server.test.engine.next_run().await.oneoff.container;
    assert_eq!(container.args[3..], ["bash", "-c", "ls /"]);
    server.deploy("empty", &["web"]).await;
    assert_eq!(ada.send("POST", "/apps/empty/dynos", &[], run).await.status, 201);
    let container = server.test.engine.next_run().await.oneoff.container;
    assert_eq!(
        (container.args[3..].join(" "), container.env["A"].as_str()),
        ("/cnb/lifecycle/launcher ls /".into(), "b")
    );
}

#[tokio::test]
async fn a_custom_domain_belongs_to_one_app_and_takes_nothing_over() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "first").await;
    let eve = server.user_with_app("eve@example.com", "second").await;
    let wish = |hostname: &str| json!({"hostname": hostname, "sni_endpoint": null});
    let added = ada.send("POST", "/apps/first/domains", &[], wish("WWW.Example.com")).await;
    assert_eq!((added.status, &added.body["hostname"]), (201, &json!("www.example.com")));
    assert_eq!((&added.body["cname"], &added.body["status"]), (&json!("first.localhost"), &json!("none")));
    for bad in ["www.example.com", "first.localhost", "localhost", "api.localhost", "10.0.0.1", "com", "a b.c", ""] {
        let refused = eve.send("POST", "/apps/second/domains", &[], wish(bad)).await;
        assert_eq!((refused.status, refused.id()), (422, "invalid_params"), "{bad}");
    }
    assert_eq!(eve.send("DELETE", "/apps/second/domains/www.example.com", &[], Value::Null).await.status, 404);
    assert_eq!(ada.send("DELETE", "/apps/first/domains/first.localhost", &[], Value::Null).await.status, 422);
    assert_eq!(ada.send("DELETE", "/apps/first/domains/www.example.com", &[], Value::Null).await.status, 200);
}

#[tokio::test]
async fn apps_of_one_owner_share_a_host_by_path() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    ada.send("POST", "/apps", &[], json!({"name": "calls"})).await;
    let eve = server.user_with_app("eve@example.com", "other").await;
    let wish = |hostname: &str, strip: bool| json!({"hostname": hostname, "sni_endpoint": null, "strip": strip});
    let early = ada.send("POST", "/apps/calls/domains", &[], wish("www.example.com/api", true)).await;
    assert!(early.status == 422 && early.text.contains("platform domains:add www.example.com"), "{}", early.text);
    ada.send("POST", "/apps/shop/domains", &[], wish("www.example.com", false)).await;
    let added = ada.send("POST", "/apps/calls/domains", &[], wish("WWW.example.com/API/", true)).await;
    assert_eq!((added.status, &added.body["hostname"]), (201, &json!("www.example.com/API")), "{}", added.text);
    assert_eq!((&added.body["path"], &added.body["strip"]), (&json!("/API"), &json!(true)));
    let hosts = ada.get("/apps/calls/domains").await;
    assert_eq!(hosts.body.as_array().map(Vec::len), Some(2), "{}", hosts.text);
    let (id, names) = (added.body["app"]["id"].as_str().expect("an id"), &server.test.controller.live.names);
    let route = names.row(&id.parse().expect("an id")).expect("a row");
    let places: Vec<_> = route.places.iter().map(|place| (place.to_string(), place.strip)).collect();
    assert_eq!(places, [("www.example.com/API".to_owned(), true)]);
    for (hostname, strip, why) in [
        ("www.example.com/API", false, "already taken"),
        ("www.example.com/a/../b", false, "Paths begin"),
        ("www.example.com/a%20b", false, "Paths begin"),
        ("shop.localhost/api", false, "belongs to the platform"),
        ("other.example.com", true, "has none"),
    ] {
        let refused = ada.send("POST", "/apps/calls/domains", &[], wish(hostname, strip)).await;
        assert!(refused.status == 422 && refused.text.contains(why), "{hostname}: {}", refused.text);
    }
    let foreign = eve.send("POST", "/apps/other/domains", &[], wish("www.example.com/eve", false)).await;
    assert!(foreign.status == 422 && foreign.text.contains("somebody else's app"), "{}", foreign.text);
    assert!(!foreign.text.contains("shop"), "{}", foreign.text);
    let collaborator = json!({"user": "eve@example.com", "role": "operate"});
    ada.send("POST", "/apps/shop/collaborators", &[], collaborator).await;
    let foreign = eve.send("POST", "/apps/other/domains", &[], wish("www.example.com/eve", false)).await;
    assert!(foreign.status == 422 && foreign.text.contains("have one owner"), "{}", foreign.text);
    for (method, path) in [("DELETE", "/apps/shop/domains/www.example.com"), ("DELETE", "/apps/shop")] {
        let refused = ada.send(method, path, &[], Value::Null).await;
        assert!(
            refused.text.contains("domains:remove www.example.com/API -a calls"),
            "{}: {}",
            refused.status,
            refused.text
        );
    }
    for app in ["shop", "calls"] {
        let offer = json!({"app": app, "recipient": "eve@example.com"});
        let refused = ada.send("POST", "/account/app-transfers", &[], offer).await;
        assert!(
            refused.status == 409 && refused.text.contains("have one owner"),
            "{}: {}",
            refused.status,
            refused.text
        );
    }
    let shown = json!({"sni_endpoint": null});
    let refused = ada.send("PATCH", "/apps/calls/domains/www.example.com%2FAPI", &[], shown).await;
    assert!(refused.status == 422 && refused.text.contains("the certificate of the domain www"), "{}", refused.text);
    assert_eq!(ada.send("DELETE", "/apps/calls/domains/www.example.com%2FAPI", &[], Value::Null).await.status, 200);
    assert_eq!(ada.send("DELETE", "/apps/shop/domains/www.example.com", &[], Value::Null).await.status, 200);
}

#[tokio::test]
async fn bodies_are_limited_and_must_be_json() {
    let server = Server::start().await;
    let ada = server.user("ada@example.com").await;
    let post = async |body: Vec<u8>| ada.send_bytes("POST", "/apps", &[], body).await;
    assert_eq!(post(b"{\"name\":".to_vec()).await.id(), "bad_request");
    assert_eq!(post(b"[]".to_vec()).await.status, 400);
    assert_eq!(post(vec![b' '; (1 << 20) + 1]).await.status, 413);
    assert_eq!(ada.send("POST", "/oauth/authorizations", &[], json!({"description": "a\0b"})).await.status, 422);
    let big = json!({"BIG": "x".repeat(32 * 1024)});
    ada.send("POST", "/apps", &[], json!({"name": "large"})).await;
    assert_eq!(ada.send("PATCH", "/apps/large/config-vars", &[], big.clone()).await.body, big);
}

#[tokio::test]
async fn any_config_value_arrives_byte_for_byte() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "values").await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..200 {
        let tree = proptest::strategy::Strategy::new_tree(&"[^\0]{0,200}", &mut runner).expect("a value");
        let value = proptest::strategy::ValueTree::current(&tree);
        let answer = ada.send("PATCH", "/apps/values/config-vars", &[], json!({"VALUE": value})).await;
        assert_eq!(answer.body["VALUE"].as_str(), Some(value.as_str()));
        assert_eq!(ada.get("/apps/values/config-vars").await.body["VALUE"].as_str(), Some(value.as_str()));
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", base64(&format!("{name}:{password}")))
}

fn base64(text: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
}

#[tokio::test]
async fn everybody_sees_what_was_done_to_their_apps_and_by_whom() {
    let server = Server::start().await;
    // The first one keeps the platform.
    let root = server.user("root@example.com").await;
    let (ada, eve) = (server.user("ada@example.com").await, server.user("eve@example.com").await);
    let from = [("x-forwarded-for", "203.0.113.7, 198.51.100.9")];
    assert_eq!(ada.send("POST", "/apps", &from, json!({"name": "shop"})).await.status, 201);
    let set = ada.send("PATCH", "/apps/shop/config-vars", &[], json!({"SECRET": "canary-4711"})).await;
    ada.send("PATCH", "/apps/shop/config-vars", &[], json!({"SECRET": "canary-4711"})).await;

    let events = ada.get("/apps/shop/events").await;
    assert_eq!(events.each("resource"), ["app", "release", "release"], "what changes nothing is no event");
    let first = &events.body[0];
    assert_eq!((&first["actor"]["email"], &first["action"]), (&json!("ada@example.com"), &json!("create")));
    assert_eq!(first["address"], "198.51.100.9", "what the router saw, not what a client says");
    assert!(first["via"].as_str().is_some_and(|via| via.starts_with("token ")));
    assert_eq!(events.body[2]["data"]["config_set"], json!(["SECRET"]));
    assert_eq!(events.body[2]["request_id"], set.header("request-id"));
    assert!(!events.text.contains("canary-4711"), "{}", events.text);

    assert_eq!(eve.get("/apps/shop/events").await.status, 404);
    assert_eq!(eve.get("/events").await.each("resource"), ["authorization"], "what she did herself");
    assert_eq!(root.get("/events?resource=app").await.each("resource_id").len(), 1, "all of them");
    let newest = [("range", "sequence ..; max=1, order=desc")];
    let part = ada.send("GET", "/apps/shop/events", &newest, Value::Null).await;
    assert_eq!((part.status, part.body[0]["data"]["version"].clone()), (206, json!(2)));
    for bad in ["resource=nonsense", "action=nonsense", "since=yesterday", "until=soon"] {
        assert_eq!(ada.get(&format!("/events?{bad}")).await.status, 422, "{bad}");
    }

    ada.send("DELETE", "/apps/shop", &[], Value::Null).await;
    let gone = root.get("/events?resource=app&actor=ada@example.com").await;
    assert_eq!((gone.each("action"), &gone.body[1]["app"]["name"]), (vec!["create", "destroy"], &json!("shop")));
    assert_eq!(root.get("/events?app=shop&action=destroy").await.each("resource"), ["app"], "of an app that is gone");
    assert!(eve.get("/events?app=shop").await.each("resource").is_empty());
}

#[tokio::test]
async fn events_are_filtered_by_what_was_done_and_when() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    server.test.clock.advance(std::time::Duration::from_secs(3600));
    assert_eq!(ada.send("POST", "/apps", &[], json!({"name": "blog"})).await.status, 201);
    ada.send("PATCH", "/apps/blog", &[], json!({"maintenance": true})).await;
    let told = async |query: &str| {
        let events = ada.get(&format!("/events?{query}")).await;
        let told = |event: &Value| format!("{} {}", event["action"], event["app"]["name"]).replace('"', "");
        events.body.as_array().expect("a list").iter().map(told).collect::<Vec<_>>()
    };
    // The clock of the tests began at 02:39:46.
    let (shop, blog) = (["create shop"], ["create blog", "update blog"]);
    assert_eq!(told("resource=app&until=2026-11-21T03:00:00Z").await, shop);
    assert_eq!(told("resource=app&since=2026-11-21T03:00:00Z").await, blog);
    assert_eq!(told("resource=app&since=2026-11-21T04:39:46%2B01:00").await, blog, "from that moment on");
    assert_eq!(told("resource=app&until=2026-11-21T03:39:46Z").await, shop, "before that moment");
    assert_eq!(told("resource=app&app=blog&action=update&actor=ADA@example.com").await, ["update blog"]);
    assert_eq!(told("resource=app&action=update&actor=eve@example.com").await, [""; 0]);
}

#[tokio::test]
async fn events_come_live_and_go_on_where_a_client_left_off() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let mut stream = ada.stream("/apps/shop/events", &[("last-event-id", "0")]).await;
    assert!(stream.message().await.contains("\"resource\":\"app\""), "what was before it came");
    assert!(stream.message().await.contains("\"resource\":\"release\""));
    ada.send("PATCH", "/apps/shop", &[], json!({"maintenance": true})).await;
    let message = stream.message().await;
    assert!(message.contains("event: app") && message.contains("\"maintenance\":true"), "{message}");
}
