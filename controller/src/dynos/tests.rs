use std::collections::BTreeSet;
use std::time::Duration;

use engine::Engine;
use model::Exit;
use serde_json::{Value, json};

use crate::testing::http::Server;
use crate::watch::News;

const EVERYTHING: News = News { all: true, apps: BTreeSet::new() };

#[tokio::test]
async fn a_detached_one_off_is_listed_and_can_be_stopped() {
    let server = Server::start().await;
    server.test.controller.live.set_ready();
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let run = async || ada.send("POST", "/apps/shop/dynos", &[], json!({"command": "sleep 60"})).await;
    let listed = async || ada.get("/apps/shop/dynos").await.body.as_array().expect("a list").clone();
    let first = run().await;
    let second = run().await;
    let dynos = listed().await;
    assert_eq!(dynos.len(), 2, "{dynos:?}");
    assert_eq!(
        (&dynos[0]["type"], &dynos[0]["state"], &dynos[0]["command"]),
        (&json!("run"), &json!("up"), &json!("sleep 60"))
    );

    let stop = async |which: &Value| {
        let path = format!("/apps/shop/dynos/{}/actions/stop", which.as_str().expect("text"));
        ada.send("POST", &path, &[], Value::Null).await.status
    };
    assert_eq!(stop(&first.body["name"]).await, 202);
    assert_eq!(stop(&second.body["id"]).await, 202);
    server.test.controller.settle_runs(&EVERYTHING).await.expect("settled");
    assert_eq!(listed().await, [] as [Value; 0]);
    assert_eq!(stop(&first.body["name"]).await, 404);
}

#[tokio::test]
async fn a_restart_of_everything_leaves_one_offs_alone() {
    let server = Server::start().await;
    server.test.controller.live.set_ready();
    let ada = server.user_with_app("ada@example.com", "shop").await;
    ada.send("POST", "/apps/shop/dynos", &[], json!({"command": "rake db:migrate"})).await;
    let run = server.test.engine.next_run().await;
    assert_eq!(ada.send("DELETE", "/apps/shop/dynos", &[], Value::Null).await.status, 202);
    assert_eq!(ada.get("/apps/shop/dynos").await.each("type"), ["run"]);
    run.exit(Exit::Code(0));
    server.test.controller.settle_runs(&EVERYTHING).await.expect("settled");
    assert_eq!(ada.get("/apps/shop/dynos").await.each("type"), [] as [&str; 0]);
}

#[tokio::test]
async fn a_detached_one_off_outlives_controllers_and_its_end_is_known() {
    let server = Server::start().await;
    server.test.controller.live.set_ready();
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let start = async |command: &str, ttl: u64| {
        server.test.clock.advance(Duration::from_secs(1));
        let content = json!({"command": command, "time_to_live": ttl, "type": "nightly"});
        ada.send("POST", "/apps/shop/dynos", &[], content).await.body["name"].as_str().expect("a name").to_owned()
    };
    let (first, second) = (start("first", 60).await, start("second", 86_400).await);
    let run = server.test.engine.next_run().await;
    assert_eq!((run.oneoff.time_limit.as_secs(), run.oneoff.log.clone()), (60, first.parse().ok()));
    assert_eq!(run.oneoff.container.env.get("DYNO"), Some(&first));

    // The second one's end comes while no controller is there.
    let next = server.test.next_life().await;
    next.engine.next_run().await.exit(Exit::Code(7));
    next.controller.clean_up().await.expect("taken over");
    let running = next.engine.oneoffs().await.expect("readable");
    assert_eq!(running, std::slice::from_ref(&run.oneoff.id), "it runs on");
    next.controller.settle_runs(&EVERYTHING).await.expect("settled");
    let info = async |name: &str| ada.get(&format!("/apps/shop/runs/{name}")).await.body;
    let ended = info(&second).await;
    assert_eq!((&ended["state"], &ended["exit_status"]), (&json!("complete"), &json!(7)));
    assert_eq!((&ended["command"], &ended["user"]), (&json!("second"), &json!("ada@example.com")));
    assert_eq!(next.engine.ended().await.expect("readable"), [], "the engine need not remember it");
    let runs = info(&first).await;
    assert_eq!((&runs["state"], &runs["exit_status"], &runs["type"]), (&json!("up"), &Value::Null, &json!("nightly")));
    assert_eq!(runs["id"], ada.get("/apps/shop/dynos").await.body[0]["id"], "a run and its dyno are one");

    let stop = async |name: &str| {
        ada.send("POST", &format!("/apps/shop/runs/{name}/actions/stop"), &[], Value::Null).await.status
    };
    assert_eq!(stop(&first).await, 202);
    next.controller.settle_runs(&EVERYTHING).await.expect("settled");
    assert_eq!(info(&first).await["exit_status"], 143);
    assert_eq!(stop(&first).await, 422);
    assert_eq!(stop("nightly.1").await, 404);
    assert_eq!(ada.get("/apps/shop/runs").await.each("name"), [first, second]);
}

#[tokio::test]
async fn a_one_off_that_cannot_run_is_refused_and_noted() {
    let server = Server::start().await;
    server.test.controller.live.set_ready();
    let ada = server.user_with_app("ada@example.com", "shop").await;
    for ttl in [0, 86_401] {
        let refused = ada.send("POST", "/apps/shop/dynos", &[], json!({"command": "true", "time_to_live": ttl})).await;
        assert_eq!((refused.status, refused.id()), (422, "invalid_params"));
    }
    server.test.engine.refuse(Some("no room"));
    assert!(ada.send("POST", "/apps/shop/dynos", &[], json!({"command": "true"})).await.status >= 400);
    let runs = ada.get("/apps/shop/runs").await.body;
    let failed = &runs.as_array().expect("a list")[0];
    assert_eq!(
        (&failed["state"], &failed["failure"]),
        (&json!("complete"), &json!("It could not be started: no room"))
    );
    assert!(failed["ended_at"].is_string() && failed["started_at"].is_null());
}

#[tokio::test]
async fn an_engine_that_lost_a_one_off_is_no_reason_to_wait_for_it() {
    let server = Server::start().await;
    let controller = &server.test.controller;
    controller.live.set_ready();
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let name = ada.send("POST", "/apps/shop/dynos", &[], json!({"command": "true"})).await.body["name"].clone();
    let run = server.test.engine.next_run().await;
    run.exit(Exit::Code(0));
    let id = server.test.engine.ended().await.expect("readable")[0].id.clone();
    server.test.engine.forget(&id).await.expect("forgotten");
    controller.settle_runs(&News::default()).await.expect("nothing to do");
    assert_eq!(ada.get("/apps/shop/runs").await.each("state"), ["up"]);
    controller.settle_runs(&EVERYTHING).await.expect("settled");
    let info = ada.get(&format!("/apps/shop/runs/{}", name.as_str().expect("a name"))).await.body;
    assert_eq!((&info["state"], &info["exit_status"]), (&json!("complete"), &json!(255)));
}
