use std::collections::BTreeMap;
use std::time::Duration;

use engine::fake::{FakeRun, Inside};
use engine::{Engine, OneOffId};
use model::Exit;
use serde_json::{Value, json};

use crate::testing::http::{Caller, Server};
use crate::testing::{image, make_deploy_of};

const MINUTE: Duration = Duration::from_secs(60);

/// Looks after jobs until something is as it should be.
async fn until(server: &Server, mut is_so: impl AsyncFnMut() -> bool) {
    loop {
        server.test.controller.look_after_jobs().await.expect("looked");
        if is_so().await {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn add(caller: &Caller, name: &str, settings: Value) -> Value {
    let made = caller.send("POST", "/apps/shop/jobs", &[], json!({ "name": name, "settings": settings })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.body
}

async fn names(caller: &Caller) -> Vec<String> {
    caller.get("/apps/shop/jobs").await.each("name").iter().map(ToString::to_string).collect()
}

async fn runs(caller: &Caller, job: &str) -> Vec<Value> {
    caller.get(&format!("/apps/shop/jobs/{job}/runs")).await.body.as_array().expect("a list").clone()
}

/// Waits until the newest run of a job is in a state.
async fn until_run(server: &Server, caller: &Caller, (job, state): (&str, &str)) -> Value {
    until(server, async || runs(caller, job).await.first().is_some_and(|run| run["state"] == state)).await;
    runs(caller, job).await[0].clone()
}

/// Advances the clock, looks after jobs, and answers with the container that is started for that.
async fn due(server: &Server, after: Duration) -> FakeRun {
    server.test.clock.advance(after);
    server.test.controller.look_after_jobs().await.expect("looked");
    server.test.engine.next_run().await
}

async fn started() -> (Server, Caller) {
    let server = Server::start().await;
    server.test.controller.live.set_ready();
    let ada = server.user_with_app("ada@example.com", "shop").await;
    (server, ada)
}

#[tokio::test]
async fn a_job_runs_when_it_is_due_and_its_end_is_in_its_history() {
    let (server, ada) = started().await;
    // It is 02:39:46.
    let job = add(
        &ada,
        "nightly",
        json!({"command": "rake nightly", "schedule": "40 2 * * *", "shards": 2, "shard_parameters": "a,b"}),
    )
    .await;
    assert_eq!(job["next_due"], "2026-11-21T02:40:00Z");
    let first = due(&server, Duration::from_secs(14)).await;
    let second = server.test.engine.next_run().await;
    let value = |run: &FakeRun, name: &str| run.oneoff.container.env.get(name).cloned().unwrap_or_default();
    let mut told: Vec<_> = [&first, &second]
        .map(|run| {
            assert_eq!(run.oneoff.log.as_ref().map(ToString::to_string), Some(value(run, "DYNO")));
            [value(run, "DYNO"), value(run, "JOB_SHARD"), value(run, "JOB_SHARD_PARAMETER"), value(run, "JOB_SHARDS")]
                .join(" ")
        })
        .into();
    told.sort();
    assert_eq!(told, ["job-nightly.1000 0 a 2", "job-nightly.1001 1 b 2"]);
    assert_eq!(value(&first, "JOB_DUE_AT"), "2026-11-21T02:40:00Z");
    first.exit(Exit::Code(0));
    second.exit(Exit::Code(0));
    let run = until_run(&server, &ada, ("nightly", "succeeded")).await;
    assert_eq!((&run["number"], &run["lag_ms"], &run["release_version"]), (&json!(1), &json!(0), &json!(1)));
    assert_eq!(run["shards"].as_array().expect("two").iter().map(|it| &it["exit_status"]).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(ada.get("/apps/shop/jobs/nightly").await.body["next_due"], "2026-11-22T02:40:00Z");
    let events = ada.get("/apps/shop/events?resource=job-run").await.body;
    assert_eq!(events, json!([]), "what does what it should is no event");
    until(&server, async || server.test.engine.ended().await.expect("readable").is_empty()).await;
}

#[tokio::test]
async fn one_that_fails_is_an_event_and_a_mark_until_one_succeeds() {
    let (server, ada) = started().await;
    add(&ada, "flaky", json!({"command": "work", "schedule": "* * * * *", "retries": 1, "retry_pause": "0s"})).await;
    due(&server, MINUTE).await.exit(Exit::Code(3));
    until(&server, async || runs(&ada, "flaky").await[0]["shards"][0]["attempt"] == 2).await;
    server.test.engine.next_run().await.exit(Exit::Code(4));
    let failed = until_run(&server, &ada, ("flaky", "failed")).await;
    assert_eq!((&failed["failure"], &failed["shards"][0]["exit_status"]), (&json!("it exited with code 4"), &json!(4)));
    let events = ada.get("/apps/shop/events?resource=job-run").await.body;
    assert_eq!((&events[0]["data"]["alert"], &events[0]["data"]["job"]), (&json!("failed"), &json!("flaky")));
    let alert = async || ada.get("/apps/shop/jobs/flaky").await.body["alert"]["message"].clone();
    assert_eq!(alert().await, "run 1 failed: it exited with code 4");
    due(&server, MINUTE).await.exit(Exit::Code(0));
    until_run(&server, &ada, ("flaky", "succeeded")).await;
    assert_eq!(alert().await, Value::Null);
}

#[tokio::test]
async fn whoever_is_killed_between_deciding_and_starting_starts_it_once() {
    let (server, ada) = started().await;
    add(&ada, "once", json!({"command": "work", "schedule": "* * * * *"})).await;
    // It is written down, and this life of the controller gets no further.
    server.test.engine.set_reachable(false);
    server.test.clock.advance(MINUTE);
    server.test.controller.look_after_jobs().await.expect("noted");
    assert_eq!(runs(&ada, "once").await[0]["state"], "queued");
    server.test.engine.set_reachable(true);
    let next = server.test.next_life().await;
    next.controller.clean_up().await.expect("taken over");
    next.controller.look_after_jobs().await.expect("started");
    let run = next.engine.next_run().await;
    // The next one was killed behind it, and a third finds what runs.
    let third = next.next_life().await;
    third.controller.clean_up().await.expect("taken over");
    third.controller.sweep().await.expect("swept");
    let running: Vec<OneOffId> = third.engine.oneoffs().await.expect("readable");
    assert_eq!(running, std::slice::from_ref(&run.oneoff.id), "it runs on");
    third.controller.look_after_jobs().await.expect("looked");
    run.exit(Exit::Code(0));
    third.controller.look_after_jobs().await.expect("looked");
    let all = runs(&ada, "once").await;
    assert_eq!((all.len(), &all[0]["state"], &all[0]["shards"][0]["attempt"]), (1, &json!("succeeded"), &json!(1)));
}

#[tokio::test]
async fn app_json_has_jobs_while_its_release_is_live_and_what_is_set_counts_before_it() {
    let (server, ada) = started().await;
    let store = &server.test.controller.store;
    let app = store.apps().await.expect("readable").remove(0);
    let deploy = async |kept: &str| {
        let release = make_deploy_of(store, &app, &image(&["web"]), (&BTreeMap::new(), Some(kept))).await;
        server.test.finish(&release, crate::store::Outcome::Succeeded).await;
        server.test.controller.look_after_jobs().await.expect("looked");
        names(&ada).await
    };
    add(&ada, "mine", json!({"command": "work"})).await;
    // An older platform kept it like this.
    let old = r#"{"command": "rake a:b", "schedule": "@daily", "overlap": "allow"}"#;
    let named = r#"{"name": "hourly", "command": "work", "schedule": "@hourly", "timeout": "5m"}"#;
    let all = deploy(&format!(r#"{{"cron": [{old}, {named}, {old}]}}"#)).await;
    assert_eq!(all, ["hourly", "mine", "rake-a-b", "rake-a-b-2"]);
    let setting = async |name: &str| {
        let job = ada.get("/apps/shop/jobs/hourly").await.body;
        let found =
            job["settings"].as_array().expect("a list").iter().find(|it| it["name"] == name).expect("there").clone();
        format!("{} {}", found["value"].as_str().expect("text"), found["source"].as_str().expect("text"))
    };
    let set =
        async |settings: Value| ada.send("PATCH", "/apps/shop/jobs/hourly", &[], json!({ "settings": settings })).await;
    assert_eq!(
        (setting("timeout").await, setting("retries").await),
        ("5m app.json".to_owned(), "0 default".to_owned())
    );
    assert_eq!(set(json!({"timeout": "7m", "suspend": true})).await.body["next_due"], Value::Null);
    assert_eq!(setting("timeout").await, "7m app");
    assert_eq!(set(json!({"timeout": null, "suspend": null})).await.body["next_due"], "2026-11-21T03:00:00Z");
    assert_eq!(setting("timeout").await, "5m app.json");
    let refused = ada.send("DELETE", "/apps/shop/jobs/hourly", &[], Value::Null).await;
    assert_eq!((refused.status, refused.text.contains("app.json")), (409, true), "{}", refused.text);
    assert_eq!(deploy(r#"{"cron": []}"#).await, ["mine"]);
    assert_eq!(deploy(&format!(r#"{{"cron": [{named}]}}"#)).await, ["hourly", "mine"]);
    assert_eq!(ada.send("DELETE", "/apps/shop/jobs/mine", &[], Value::Null).await.status, 200);
    assert_eq!(names(&ada).await, ["hourly"]);
}

#[tokio::test]
async fn somebody_runs_a_job_now_and_stops_it() {
    let (server, ada) = started().await;
    add(&ada, "import", json!({"command": "work", "overlap": "forbid", "suspend": true})).await;
    let run = async || ada.send("POST", "/apps/shop/jobs/import/runs", &[], Value::Null).await;
    let first = run().await;
    assert_eq!(
        (first.status, &first.body["cause"], &first.body["user"]),
        (201, &json!("manual"), &json!("ada@example.com"))
    );
    assert_eq!(run().await.status, 409);
    let container = due(&server, Duration::ZERO).await;
    assert_eq!(container.oneoff.container.args.last().map(String::as_str), Some("work"));
    let stop = async || ada.send("POST", "/apps/shop/jobs/import/runs/1/actions/stop", &[], Value::Null).await.status;
    assert_eq!(stop().await, 202);
    let stopped = until_run(&server, &ada, ("import", "stopped")).await;
    assert_eq!(stopped["failure"], "ada@example.com stopped it");
    assert_eq!(stop().await, 422);
    assert_eq!(run().await.status, 201, "it is over");
    for (settings, words) in [
        (json!({"schedule": "* * *", "command": "x"}), "schedule must be a time"),
        (json!({"command": "x", "kind": "resident"}), "needs process"),
        (json!({"command": "x", "size": "huge"}), "huge"),
        (json!({"schedule": "@daily"}), "command is missing"),
        (json!({"speed": "1"}), "no setting"),
    ] {
        let refused = ada.send("POST", "/apps/shop/jobs", &[], json!({"name": "bad", "settings": settings})).await;
        assert!(refused.status == 422 && refused.text.contains(words), "{}", refused.text);
    }
    assert_eq!(ada.send("POST", "/apps/shop/jobs", &[], json!({"name": "Bad!"})).await.status, 422);
}

#[tokio::test]
async fn a_resident_job_runs_in_a_dyno_and_moves_when_that_dies() {
    let (server, ada) = started().await;
    let engine = &server.test.engine;
    server.deploy("shop", &["worker"]).await;
    let app = server.test.controller.store.apps().await.expect("readable").remove(0);
    add(&ada, "inside", json!({"command": "work", "kind": "resident", "process": "worker"})).await;
    ada.send("POST", "/apps/shop/jobs/inside/runs", &[], Value::Null).await;
    server.test.controller.look_after_jobs().await.expect("looked");
    assert_eq!(runs(&ada, "inside").await[0]["failure"], "no dyno of the process type worker is free");
    let workload = engine::Workload { quantity: 2, ..worker(app.id) };
    engine.apply(workload.clone()).await.expect("applied");
    server.test.controller.look_after_jobs().await.expect("looked");
    let mut exec = engine.next_exec().await;
    let Inside::Exec(what) = exec.what.clone() else { panic!("{:?}", exec.what) };
    assert_eq!((what.env["JOB_NAME"].as_str(), what.env["DYNO"].as_str()), ("inside", "job-inside.1"));
    // Its dyno dies under it.
    let first = exec.instance.clone();
    engine.crash(&workload.id, 1, Exit::Signal(9));
    exec.exit(Exit::Signal(9));
    until(&server, async || runs(&ada, "inside").await[0]["shards"][0]["deaths"] == 1).await;
    exec = engine.next_exec().await;
    assert_ne!(exec.instance, first);
    exec.output.send("it is done\n".into()).await.expect("listened to");
    exec.exit(Exit::Code(0));
    let run = until_run(&server, &ada, ("inside", "succeeded")).await;
    assert_eq!((&run["number"], &run["shards"][0]["attempt"]), (&json!(1), &json!(2)));
}

/// A workload of the process type `worker`.
fn worker(app: model::AppId) -> engine::Workload {
    let container = json!({"rootfs": {"layers": []}, "args": [], "env": {}, "working_dir": "/", "uid": 1, "mounts": [],
        "limits": {"memory_bytes": 1, "cpu_millis": 1, "cpu_weight": 1, "pids": 1}});
    let workload = json!({"id": format!("{app}.v2.worker"), "app": app, "release": 2, "quantity": 1,
        "process_type": "worker", "container": container, "probe": {"alive": {"settle": {"secs": 1, "nanos": 0}}},
        "stop_grace": {"secs": 1, "nanos": 0}});
    serde_json::from_value(workload).expect("a workload")
}
