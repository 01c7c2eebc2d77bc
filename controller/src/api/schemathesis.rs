//! A controller for Schemathesis, which `scripts/schemathesis.sh` runs: it makes thousands of requests of what the API says of
//! itself, good ones and bad ones, and looks at every answer.

use std::process::Command;

use serde_json::json;

use crate::testing::http::Server;

/// Names the program.
const PROGRAM: &str = "SCHEMATHESIS";
/// Names a file of its settings.
const CONFIG: &str = "SCHEMATHESIS_CONFIG";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program; scripts/schemathesis.sh runs it"]
async fn no_answer_is_a_failure_or_outside_the_schema() {
    let server = Server::start().await;
    server.test.controller.live.set_ready();
    let ada = server.user_with_app("ada@example.com", "shop").await;
    server.deploy("shop", &["web", "worker"]).await;
    ada.send("PATCH", "/apps/shop/config-vars", &[], json!({"A": "1"})).await;
    ada.send("POST", "/apps", &[], json!({"name": "doomed"})).await;
    let app = ada.get("/apps/shop").await.body["id"].clone();
    let addon = ada.send("POST", "/apps/shop/addons", &[], json!({"plan": "postgres"})).await;
    assert_eq!(addon.status, 201, "{}", addon.text);
    let (program, config) =
        (std::env::var(PROGRAM).expect("the program"), std::env::var(CONFIG).expect("its settings"));
    let settings = std::fs::read_to_string(config).expect("readable");
    let settings = settings
        .replace("@app@", app.as_str().expect("an id"))
        .replace("@addon@", addon.body["id"].as_str().expect("an id"))
        .replace("@token@", ada.token().expect("a token"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("schemathesis.toml");
    std::fs::write(&file, settings).expect("written");
    let document = format!("http://{}/openapi.json", server.address());
    // It writes down what it found, where it is started.
    let place = folder.path().to_owned();
    let run = move || {
        Command::new(program).current_dir(place).arg("--config-file").arg(file).args(["run", &document]).status()
    };
    let status = tokio::task::spawn_blocking(run).await.expect("waited").expect("it runs");
    assert!(status.success(), "Schemathesis found something; see above");
}
