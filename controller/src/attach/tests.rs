use engine::fake::{FakeRun, Inside};
use engine::{Engine, Input, Workload};
use http::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use model::Exit;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::store::{App, Release};
use crate::testing::TestController;
use crate::testing::http::Server;

async fn server() -> Server {
    let test = TestController::new().await;
    let controller = test.controller.clone();
    controller.live.set_ready();
    let routes = super::routes(controller.clone()).merge(crate::api::routes(controller));
    Server::serve(test, routes).await
}

/// Starts a one-off that waits for its client, and returns the path of its address.
async fn wait_for_client(server: &Server, content: Value) -> String {
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let run = ada.send("POST", "/apps/shop/dynos", &[], content).await;
    let url = run.body["attach_url"].as_str().expect("an address").to_owned();
    let path = url.strip_prefix("rendezvous://localhost:8443").expect("Heroku's own kind");
    path.to_owned()
}

/// What a rollout makes of a release.
fn web_of(app: &App, release: &Release) -> Workload {
    let container = json!({"rootfs": {"layers": []}, "args": [], "env": {}, "working_dir": "/", "uid": 1, "mounts": [],
        "limits": {"memory_bytes": 1, "cpu_millis": 1, "cpu_weight": 1, "pids": 1}});
    let workload = json!({"id": "app.v2.web", "app": app.id, "release": release.version, "quantity": 1,
        "process_type": "web", "container": container, "probe": {"alive": {"settle": {"secs": 1, "nanos": 0}}},
        "stop_grace": {"secs": 1, "nanos": 0}});
    serde_json::from_value(workload).expect("a workload")
}

/// A client that a router has let in, and the one-off that it started.
async fn attach(server: &Server, path: &str) -> (TokioIo<hyper::upgrade::Upgraded>, FakeRun) {
    (connect(server, path).await, server.test.engine.next_run().await)
}

/// A client that a router has let in.
async fn connect(server: &Server, path: &str) -> TokioIo<hyper::upgrade::Upgraded> {
    let stream = TcpStream::connect(server.address()).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection.with_upgrades());
    let request = http::Request::get(path).header(CONNECTION, "upgrade").header(UPGRADE, "rendezvous");
    let answer = sender.send_request(request.body(String::new()).expect("a request")).await.expect("an answer");
    assert_eq!(answer.status(), 101);
    TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgrade"))
}

#[tokio::test]
async fn bytes_pass_both_ways_and_the_end_of_transmission_is_the_end_of_input() {
    let server = server().await;
    let content = json!({"command": "cat", "attach": true, "force_no_tty": true});
    let path = wait_for_client(&server, content).await;
    let (mut client, mut run) = attach(&server, &path).await;
    assert_eq!(run.oneoff.tty, None);
    // An EOT in the midst of the input is a byte like others, also where a piece of it ends.
    client.write_all(b"a\x04").await.expect("sent");
    client.write_all(b"b\x04").await.expect("sent");
    let mut said = Vec::new();
    while let Some(Input::Data(bytes)) = run.input.recv().await {
        said.extend(bytes);
    }
    assert_eq!(said, b"a\x04b");
    run.output.send("one \u{ffff}".into()).await.expect("sent");
    run.exit(Exit::Code(0));
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.expect("it ends");
    assert_eq!(heard, "one \u{ffff}");
}

#[tokio::test]
async fn a_terminal_has_the_clients_size_and_gets_every_key() {
    let server = server().await;
    let env = json!({"TERM": "xterm", "COLUMNS": 120, "LINES": 40});
    let path = wait_for_client(&server, json!({"command": "bash", "attach": true, "env": env})).await;
    let (mut client, mut run) = attach(&server, &path).await;
    assert_eq!(run.oneoff.tty.map(|tty| (tty.columns, tty.rows)), Some((120, 40)));
    client.write_all(b"\x03\x04").await.expect("sent");
    assert_eq!(run.input.recv().await, Some(Input::Data(b"\x03\x04"[..].into())));
    let id = run.oneoff.id.clone();
    drop(client);
    while server.test.controller.engine.oneoffs().await.expect("readable").contains(&id) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_address_works_once_and_for_a_minute() {
    let server = server().await;
    let path = wait_for_client(&server, json!({"command": "true", "attach": true})).await;
    let stranger = server.stranger();
    let come = async |path: &str| {
        stranger.send("GET", path, &[("connection", "upgrade"), ("upgrade", "rendezvous")], Value::Null).await.status
    };
    server.test.clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(come(&path).await, 404);
    assert_eq!(come(&path).await, 404);
}

#[tokio::test]
async fn each_client_gets_its_own_kind() {
    let server = server().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let run = async |protocol: Value| {
        let content = json!({"command": "true", "attach": true, "attach_protocol": protocol});
        ada.send("POST", "/apps/shop/dynos", &[], content).await
    };
    let scheme = |answer: &crate::testing::http::Answer| {
        answer.body["attach_url"].as_str().and_then(|url| Some(url.split_once(':')?.0.to_owned()))
    };
    assert_eq!(scheme(&run(Value::Null).await).as_deref(), Some("rendezvous"));
    assert_eq!(scheme(&run("websocket".into()).await).as_deref(), Some("ws"));
    let refused = run("telnet".into()).await;
    assert_eq!((refused.status, refused.id()), (422, "invalid_params"));
}

#[tokio::test]
async fn a_process_in_a_dyno_starts_with_its_client_and_ends_with_it() {
    let server = server().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let app = server.test.controller.store.apps().await.expect("readable").remove(0);
    let inside = async |dyno: &str| {
        ada.send("POST", &format!("/apps/shop/dynos/{dyno}"), &[], json!({"command": "ls", "env": {"A": "b"}})).await
    };
    assert_eq!(inside("web.1").await.status, 404, "nothing runs yet");
    let release = server.test.deploy(&app, &["web"]).await;
    server.test.engine.apply(web_of(&app, &release)).await.expect("applied");
    let started = inside("web.1").await;
    assert_eq!((started.status, &started.body["name"]), (201, &json!("web.1")));
    let url = started.body["attach_url"].as_str().expect("an address").to_owned();
    let path = url.strip_prefix("rendezvous://localhost:8443").expect("Heroku's own kind");
    let mut client = connect(&server, path).await;
    let mut exec = server.test.engine.next_exec().await;
    let Inside::Exec(process) = &exec.what else { panic!("no process: {exec:?}") };
    assert_eq!(process.args, ["/cnb/lifecycle/launcher", "ls"]);
    assert_eq!(process.env.get("A").map(String::as_str), Some("b"));
    client.write_all(b"x").await.expect("sent");
    assert_eq!(exec.input.recv().await, Some(Input::Data(b"x"[..].into())));
    drop(client);
    exec.output.closed().await;
    let events = ada.get("/apps/shop/events").await;
    let events = events.body.as_array().expect("a list");
    let noted = events.iter().find(|event| event["data"]["exec"] == "ls").expect("it is remembered");
    assert_eq!((&noted["resource"], &noted["actor"]["email"]), (&json!("dyno"), &json!("ada@example.com")));
}

#[tokio::test]
async fn a_port_and_the_files_of_a_dyno_are_for_whoever_may_operate_the_app() {
    let server = server().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let app = server.test.controller.store.apps().await.expect("readable").remove(0);
    let release = server.test.deploy(&app, &["web"]).await;
    server.test.engine.apply(web_of(&app, &release)).await.expect("applied");

    let forward =
        async |port: &str| ada.send("POST", &format!("/apps/shop/dynos/web.1/ports/{port}"), &[], Value::Null).await;
    assert_eq!(forward("0").await.status, 422);
    let made = forward("5432").await;
    assert_eq!((made.status, &made.body["dyno"], &made.body["port"]), (201, &json!("web.1"), &json!(5432)));
    let url = made.body["attach_url"].as_str().expect("an address").to_owned();
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).expect("a path").1.to_owned();
    for _ in 0..2 {
        let mut client = connect(&server, &format!("/{path}")).await;
        let exec = server.test.engine.next_exec().await;
        assert_eq!(exec.what, Inside::Port(5432));
        exec.output.send("hello".into()).await.expect("sent");
        exec.exit(Exit::Code(0));
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.expect("it ends");
        assert_eq!(heard, "hello", "again and again");
    }

    let files = "/apps/shop/dynos/web.1/files";
    let put = ada.send("PUT", &format!("{files}?path=/tmp/x%20y"), &[], json!({"any": "bytes"})).await;
    assert_eq!((put.status, &put.body["path"]), (200, &json!("/tmp/x y")));
    assert_eq!(ada.get(&format!("{files}?path=/tmp/x%20y")).await.body, json!({"any": "bytes"}));
    for wrong in ["", "?path=relative", "?path=/nowhere"] {
        assert_eq!(ada.get(&format!("{files}{wrong}")).await.status, 422, "{wrong}");
    }
    let events = ada.get("/apps/shop/events").await.body;
    let told = |key: &str, value: Value| {
        events.as_array().is_some_and(|all| all.iter().any(|event| event["data"][key] == value))
    };
    assert!(told("forward", json!(5432)) && told("copied_to", json!("/tmp/x y")), "{events}");
    assert!(told("copied_from", json!("/tmp/x y")), "{events}");
}
