use model::Exit;
use serde_json::{Value, json};

use crate::testing::http::Server;

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
    while !listed().await.is_empty() {
        tokio::task::yield_now().await;
    }
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
    while !ada.get("/apps/shop/dynos").await.each("type").is_empty() {
        tokio::task::yield_now().await;
    }
}
