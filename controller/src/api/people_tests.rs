//! People, teams and tokens as clients see them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::testing::PASSWORD;
use crate::testing::http::{Caller, Server};

fn basic(email: &str, password: &str) -> String {
    use base64::Engine;
    let text = format!("{email}:{password}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

async fn post(caller: &Caller, path: &str, body: Value) -> crate::testing::http::Answer {
    caller.send("POST", path, &[], body).await
}

#[tokio::test]
async fn a_collaborator_has_the_role_that_was_given_and_gives_no_more() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let (bob, eve) = (server.user("bob@example.com").await, server.user("eve@example.com").await);
    let made = post(&ada, "/apps/shop/collaborators", json!({"user": "bob@example.com"})).await;
    assert_eq!((made.status, &made.body["role"]), (201, &json!("collaborator")));
    let names: Vec<_> = made.body["permissions"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["view", "deploy", "operate"]);
    assert_eq!(bob.get("/apps").await.each("name"), ["shop"]);
    assert_eq!(bob.send("DELETE", "/apps/shop", &[], Value::Null).await.status, 403);

    let manage = json!({"permissions": ["deploy", "manage"]});
    assert_eq!(ada.send("PATCH", "/teams/apps/shop/collaborators/bob@example.com", &[], manage).await.status, 200);
    let too_much = post(&bob, "/apps/shop/collaborators", json!({"user": "eve@example.com", "role": "admin"})).await;
    assert_eq!((too_much.status, too_much.id()), (403, "forbidden"));
    let fine = post(&bob, "/apps/shop/collaborators", json!({"user": "eve@example.com", "role": "view"})).await;
    assert_eq!(fine.status, 201);
    let refused = post(&bob, "/apps/shop/collaborators", json!({"user": "nobody"})).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text.contains("E-mail"), "{}", refused.text);
    assert_eq!(bob.send("DELETE", "/apps/shop/collaborators/ada@example.com", &[], Value::Null).await.status, 422);
    assert_eq!(eve.send("DELETE", "/apps/shop/collaborators/bob@example.com", &[], Value::Null).await.status, 403);
    let left = eve.send("DELETE", "/apps/shop/collaborators/eve@example.com", &[], Value::Null).await;
    assert_eq!((left.status, eve.get("/apps/shop").await.status), (200, 404), "everybody may go");
}

#[tokio::test]
async fn a_team_owns_apps_and_strangers_do_not_learn_that_it_exists() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let (bob, eve) = (server.user("bob@example.com").await, server.user("eve@example.com").await);
    assert_eq!(post(&ada, "/teams", json!({"name": "ours"})).await.status, 201);
    assert_eq!(post(&bob, "/teams", json!({"name": "ours"})).await.status, 422, "taken");
    let member = json!({"email": "bob@example.com", "role": "member"});
    let put = ada.send("PUT", "/teams/ours/members", &[], member).await;
    assert_eq!((put.status, &put.body["role"]), (200, &json!("member")));
    let given = ada.send("PATCH", "/teams/apps/shop", &[], json!({"owner": "ours"})).await;
    assert_eq!(given.body["team"]["name"], "ours");
    assert_eq!(given.body["owner"]["email"], "ours@herokumanager.com");
    assert_eq!(bob.get("/teams/ours/apps").await.each("name"), ["shop"]);
    let made = post(&bob, "/teams/apps", json!({"name": "second", "team": "ours"})).await;
    assert_eq!((made.status, &made.body["team"]["name"]), (201, &json!("ours")));
    assert_eq!(ada.get("/apps").await.each("name"), ["second", "shop"]);
    for (method, path) in [
        ("GET", "/teams/ours"),
        ("PATCH", "/teams/ours"),
        ("DELETE", "/teams/ours"),
        ("GET", "/teams/ours/apps"),
        ("GET", "/teams/ours/members"),
        ("GET", "/teams/ours/invitations"),
        ("GET", "/apps/shop"),
    ] {
        let body = if method == "PATCH" { json!({"name": "mine"}) } else { Value::Null };
        assert_eq!(eve.send(method, path, &[], body).await.status, 404, "{method} {path}");
    }
    let admin = json!({"email": "eve@example.com", "role": "admin"});
    assert_eq!(bob.send("PUT", "/teams/ours/members", &[], admin).await.status, 403);
    let last = ada.send("DELETE", "/teams/ours/members/ada@example.com", &[], Value::Null).await;
    assert_eq!((last.status, last.id()), (409, "conflict"), "nobody would be admin");
    assert_eq!(ada.send("DELETE", "/teams/ours", &[], Value::Null).await.status, 409, "it owns apps");
    assert_eq!(bob.send("DELETE", "/teams/ours/members/bob@example.com", &[], Value::Null).await.status, 200);
    assert_eq!(bob.get("/apps/second").await.status, 404, "gone with the team");
}

#[tokio::test]
async fn an_app_goes_to_another_user_when_they_take_it() {
    let server = Server::start().await;
    let (ada, bob) = (server.user_with_app("ada@example.com", "shop").await, server.user("bob@example.com").await);
    let offer = post(&ada, "/account/app-transfers", json!({"app": "shop", "recipient": "bob@example.com"})).await;
    assert_eq!((offer.status, &offer.body["state"]), (201, &json!("pending")));
    let path = format!("/account/app-transfers/{}", offer.body["id"].as_str().expect("an id"));
    let accept = json!({"state": "accepted"});
    assert_eq!(ada.send("PATCH", &path, &[], accept.clone()).await.status, 403, "not by who offers");
    assert_eq!(bob.get("/apps/shop").await.status, 404);
    assert_eq!(bob.send("PATCH", &path, &[], accept.clone()).await.body["state"], "accepted");
    assert_eq!((bob.get("/apps/shop").await.status, ada.get("/apps/shop").await.status), (200, 404));
    assert_eq!(bob.send("PATCH", &path, &[], accept).await.status, 409);
}

#[tokio::test]
async fn a_token_does_what_its_scope_says_and_a_deploy_token_knows_one_app() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    post(&ada, "/apps", json!({"name": "other"})).await;
    let make = async |body: Value| {
        let made = post(&ada, "/oauth/authorizations", body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        server.with_token(made.body["access_token"]["token"].as_str().expect("a token"))
    };
    let read = make(json!({"scope": ["read"]})).await;
    assert_eq!((read.get("/account").await.status, read.get("/apps/shop").await.status), (200, 200));
    for (method, path) in [
        ("GET", "/apps/shop/config-vars"),
        ("PATCH", "/apps/shop"),
        ("POST", "/apps"),
        ("GET", "/oauth/authorizations"),
        ("POST", "/oauth/authorizations"),
        ("POST", "/account/keys"),
        ("GET", "/teams"),
    ] {
        let answer = read.send(method, path, &[], json!({})).await;
        assert_eq!((answer.status, answer.id()), (403, "forbidden"), "{method} {path}");
    }
    assert_eq!(make(json!({"scope": ["read-protected"]})).await.get("/apps/shop/config-vars").await.status, 200);
    let write = make(json!({"scope": ["write"]})).await;
    assert_eq!(write.send("PATCH", "/apps/shop", &[], json!({"maintenance": true})).await.status, 200);
    assert_eq!(write.send("PATCH", "/apps/shop/config-vars", &[], json!({"A": "1"})).await.status, 403);

    let deploy = make(json!({"app": "shop", "description": "CI"})).await;
    assert_eq!(deploy.get("/apps/shop/releases").await.status, 200);
    assert_eq!(deploy.get("/apps/other").await.status, 404);
    assert_eq!(deploy.get("/apps").await.status, 403);
    assert_eq!(deploy.send("PATCH", "/apps/shop", &[], json!({})).await.status, 403, "deploy is less than operate");
    assert_eq!(deploy.send("DELETE", "/oauth/authorizations/~", &[], Value::Null).await.status, 200);
    assert_eq!(deploy.get("/account").await.status, 401);
    let refused = post(&ada, "/oauth/authorizations", json!({"scope": ["root"]})).await;
    assert_eq!((refused.status, refused.id()), (422, "invalid_params"));
}

#[tokio::test]
async fn an_authorization_is_described_made_anew_and_remembers_its_last_use() {
    let server = Server::start().await;
    let ada = server.user("ada@example.com").await;
    let made = post(&ada, "/oauth/authorizations", json!({"description": "old"})).await;
    let path = format!("/oauth/authorizations/{}", made.body["id"].as_str().expect("an id"));
    assert_eq!(ada.send("PATCH", &path, &[], json!({"description": "new"})).await.body["description"], "new");
    let anew = post(&ada, &format!("{path}/actions/regenerate-tokens"), Value::Null).await;
    let token = |answer: &Value| answer["access_token"]["token"].as_str().expect("a token").to_owned();
    assert_eq!(server.with_token(&token(&made.body)).get("/account").await.status, 401);
    assert_eq!(server.with_token(&token(&anew.body)).get("/account").await.status, 200);
    while ada.get(&path).await.body["last_used_at"].is_null() {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.user("eve@example.com").await.get(&path).await.status, 404);
}

#[tokio::test]
async fn a_password_alone_is_not_enough_for_who_has_a_second_factor() {
    let server = Server::start().await;
    let ada = server.user("ada@example.com").await;
    let begun = post(&ada, "/account/two-factor", Value::Null).await;
    assert_eq!(begun.status, 201);
    let totp = totp_rs::Totp::from_url(begun.body["url"].as_str().expect("a URL")).expect("one that phones read");
    let code = || {
        let now = server.test.controller.clock.now().as_millis() / 1000;
        totp.generate(u64::try_from(now).expect("a time")).to_string()
    };
    let confirmed = ada.send("PATCH", "/account/two-factor", &[], json!({"code": code()})).await;
    let recovery = confirmed.body["recovery_codes"][0].as_str().expect("a code").to_owned();
    assert_eq!(ada.get("/account").await.body["two_factor_authentication"], true);

    let login = basic("ada@example.com", PASSWORD);
    let stranger = server.stranger();
    let sign_in = async |code: Option<&str>| {
        let mut headers = vec![("authorization", login.as_str())];
        headers.extend(code.map(|code| ("heroku-two-factor-code", code)));
        stranger.send("POST", "/oauth/authorizations", &headers, json!({})).await
    };
    let asked = sign_in(None).await;
    assert_eq!((asked.status, asked.id()), (403, "two_factor"));
    assert_eq!(sign_in(Some("000000")).await.status, 401);
    server.test.clock.advance(std::time::Duration::from_secs(30));
    let now = code();
    assert_eq!(sign_in(Some(&now)).await.status, 201);
    assert_eq!(sign_in(Some(&now)).await.status, 401, "each code is taken once");
    assert_eq!(sign_in(Some(&recovery)).await.status, 201);
    assert_eq!(sign_in(Some(&recovery)).await.status, 401);
    let stopped = loop {
        let answer = sign_in(Some("000000")).await;
        if answer.status != 401 {
            break answer;
        }
    };
    assert_eq!((stopped.status, stopped.id()), (429, "rate_limit"));
    assert!(stopped.header("retry-after").parse::<u64>().expect("seconds") <= 601);
}

#[tokio::test]
async fn who_keeps_the_platform_invites_suspends_and_removes_and_nobody_else_does() {
    let server = Server::start().await;
    let (root, eve) = (server.user("root@example.com").await, server.user("eve@example.com").await);
    for (method, path) in [("GET", "/users"), ("POST", "/invitations"), ("PATCH", "/users/root@example.com")] {
        let answer = eve.send(method, path, &[], json!({"email": "x@example.com"})).await;
        assert_eq!((answer.status, answer.id()), (403, "forbidden"), "{method} {path}");
    }
    assert_eq!(eve.get("/users/root@example.com").await.status, 404, "others are nobody's business");
    assert_eq!(root.get("/users").await.each("email"), ["eve@example.com", "root@example.com"]);

    let invited = post(&root, "/invitations", json!({"email": "New@example.com"})).await;
    let url = invited.body["url"].as_str().expect("a link").to_owned();
    let secret = url.rsplit('/').next().expect("a secret");
    let seen = server.stranger().get(&format!("/teams/invitations/{secret}")).await;
    assert_eq!(seen.body["user"]["email"], "new@example.com");
    let controller = &server.test.controller;
    let origin = crate::Origin::default();
    controller.accept_invitation(secret, PASSWORD, &origin).await.expect("let in");
    assert!(controller.accept_invitation(secret, PASSWORD, &origin).await.is_err(), "once");

    let suspended = root.send("PATCH", "/users/eve@example.com", &[], json!({"suspended": true})).await;
    assert!(suspended.body["suspended_at"].is_string());
    assert_eq!(eve.get("/account").await.status, 401);
    assert_eq!(root.send("DELETE", "/users/eve@example.com", &[], Value::Null).await.status, 200);
    assert_eq!(root.get("/users").await.each("email"), ["new@example.com", "root@example.com"]);
    assert_eq!(root.send("DELETE", "/account", &[], json!({"password": PASSWORD})).await.status, 409);
    assert_eq!(root.send("DELETE", "/account", &[], json!({})).await.status, 422, "a token is not enough");
}

#[tokio::test]
async fn who_is_no_user_yet_is_invited_to_an_app() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let invite = async |role| {
        let made = post(&ada, "/apps/shop/collaborators", json!({"user": "Bob@example.com", "role": role})).await;
        assert_eq!((made.status, &made.body["role"]), (201, &Value::Null));
        made.header("x-heroku-warning").rsplit('/').next().expect("a link").to_owned()
    };
    let first = invite("view").await;
    let second = invite("deploy").await;
    let both = BTreeSet::from(["ada@example.com", "bob@example.com"].map(str::to_owned));
    let emails = async || {
        let known = ada.get("/apps/shop/collaborators").await.body;
        let email = |one: &Value| one["user"]["email"].as_str().expect("an address").to_owned();
        known.as_array().expect("a list").iter().map(email).collect::<BTreeSet<_>>()
    };
    assert_eq!(emails().await, both, "the second invitation took the place of the first");
    let removed = ada.send("DELETE", "/apps/shop/collaborators/bob@example.com", &[], Value::Null).await;
    assert_eq!((removed.status, emails().await.len()), (200, 1), "taken back");

    let third = invite("deploy").await;
    let controller = &server.test.controller;
    let accept = async |secret: &str| controller.accept_invitation(secret, PASSWORD, &crate::Origin::default()).await;
    assert!(accept(&first).await.is_err() && accept(&second).await.is_err());
    accept(&third).await.expect("let in");
    assert_eq!(emails().await, both);
    let known = ada.get("/apps/shop/collaborators/bob@example.com").await.body;
    assert_eq!((&known["role"], known["permissions"].as_array().map(Vec::len)), (&json!("collaborator"), Some(2)));
}

#[tokio::test]
async fn keys_are_added_listed_and_removed() {
    let server = Server::start().await;
    let ada = server.user("ada@example.com").await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti ada@laptop";
    let made = post(&ada, "/account/keys", json!({"public_key": key})).await;
    assert_eq!((made.status, &made.body["comment"]), (201, &json!("ada@laptop")));
    assert_eq!(post(&ada, "/account/keys", json!({"public_key": key})).await.status, 422);
    let known = ada.get("/account/keys").await;
    assert_eq!((known.each("email"), known.each("public_key")), (vec!["ada@example.com"], vec![key]));
    assert_eq!(ada.send("DELETE", "/account/keys/ada@laptop", &[], Value::Null).await.status, 200);
    assert_eq!(ada.get("/account/keys").await.body, json!([]));
}

#[tokio::test]
async fn pipelines_are_seen_by_who_sees_their_apps_and_changed_by_their_owners() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let bob = server.user_with_app("bob@example.com", "other").await;
    let made = post(&ada, "/pipelines", json!({"name": "market"})).await;
    assert_eq!((made.status, &made.body["owner"]["type"]), (201, &json!("user")));
    assert_eq!(post(&bob, "/pipelines", json!({"name": "market"})).await.status, 422, "the name is taken");
    let couple = json!({"app": "shop", "pipeline": "market", "stage": "production"});
    let coupling = post(&ada, "/pipeline-couplings", couple.clone()).await;
    assert_eq!((coupling.status, &coupling.body["stage"]), (201, &json!("production")));
    let twice = post(&ada, "/pipeline-couplings", couple).await;
    assert!(twice.status == 422 && twice.text.contains("market"), "{}", twice.text);
    assert_eq!(ada.get("/apps/shop/pipeline-couplings").await.body["pipeline"]["name"], "market");

    let path = format!("/pipeline-couplings/{}", coupling.body["id"].as_str().expect("an id"));
    assert_eq!(bob.get("/pipelines/market").await.status, 404);
    assert_eq!(bob.get(&path).await.status, 404);
    assert_eq!(bob.get("/pipeline-couplings").await.body, json!([]));
    post(&ada, "/apps/shop/collaborators", json!({"user": "bob@example.com", "role": "view"})).await;
    assert_eq!(bob.get("/pipelines?eq[name]=market").await.each("name"), ["market"]);
    assert_eq!(bob.get("/pipelines?eq[name]=none").await.body, json!([]));
    assert_eq!(bob.get("/pipelines/market/pipeline-couplings").await.each("stage"), ["production"]);
    let his = json!({"app": "other", "pipeline": "market", "stage": "staging"});
    assert_eq!(post(&bob, "/pipeline-couplings", his).await.status, 403);
    assert_eq!(bob.send("PATCH", &path, &[], json!({"stage": "staging"})).await.status, 403);
    assert_eq!(bob.send("DELETE", "/pipelines/market", &[], Value::Null).await.status, 403);

    let wrong = ada.send("PATCH", &path, &[], json!({"stage": "moon"})).await;
    assert!(wrong.status == 422 && wrong.text.contains("staging"), "{}", wrong.text);
    assert_eq!(ada.send("PATCH", &path, &[], json!({"stage": "staging"})).await.body["stage"], "staging");
    let ids = json!({"in": {"id": [coupling.body["app"]["id"], "11111111-1111-4111-8111-111111111111"]}});
    assert_eq!(post(&ada, "/filters/apps", ids).await.each("name"), ["shop"]);
    assert_eq!(ada.send("DELETE", "/apps/shop", &[], Value::Null).await.status, 200);
    assert_eq!(ada.get("/pipelines/market/pipeline-couplings").await.body, json!([]));
    assert_eq!(ada.send("DELETE", "/pipelines/market", &[], json!({"name": "market"})).await.status, 200);
}
