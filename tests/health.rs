//! Health: what an app says in its app.json decides what gets requests and what is replaced.

use std::collections::BTreeSet;

use crate::load::{Load, Seen};
use crate::platform::{App, shared};

/// An app of two web instances with these checks.
fn app_with(checks: &str) -> App<'static> {
    let app = shared().app("probe-app");
    write_checks(&app, checks);
    app.commit("checks");
    app.push().expect_ok();
    app
}

fn write_checks(app: &App<'_>, checks: &str) {
    let formation = r#"{"web": {"quantity": 2}}"#;
    app.write("app.json", &format!(r#"{{"formation": {formation}, "healthchecks": {{"web": [{checks}]}}}}"#));
}

/// Who answers some requests.
fn answering(app: &App<'_>) -> BTreeSet<String> {
    (0..20).map(|_| app.get("/").body).collect()
}

#[test]
fn a_release_that_does_not_pass_its_startup_check_is_refused_with_what_it_answered() {
    let app = app_with(r#"{"path": "/answer?201"}"#);
    app.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
    write_checks(&app, r#"{"name": "warm", "path": "/answer?503", "attempts": 2, "wait": 1}"#);
    app.commit("never warm");
    app.push().expect_refused(&[
        "did not pass its startup check \"warm\"",
        "GET /answer?503 was answered with 503 Service Unavailable: as asked",
        "It listened on port 5000.",
        "keeps serving",
    ]);
    assert!(app.get("/").body.starts_with("version 1"));
    // The checks are those of the code that runs: the refused ones went with theirs.
    app.cli(&["config:set", "A=b"]).expect_ok();
    crate::until("the release with the config is live", || app.json(&["releases"])[0]["current"] == true);
}

#[test]
fn an_instance_that_is_not_ready_gets_no_requests_until_it_is() {
    let app = app_with(r#"{"type": "readiness", "path": "/ready", "attempts": 1, "wait": 1}"#);
    crate::until("both answer", || answering(&app).len() == 2);
    let Seen { failure, .. } = Load::around(&app, || {
        let sick = app.get("/sick?/ready=8").body;
        crate::until("the other one answers alone", || {
            let seen = answering(&app);
            seen.len() == 1 && !seen.contains(&sick)
        });
        crate::until("both answer again", || answering(&app).len() == 2);
    });
    assert_eq!(failure, None, "nobody noticed");
}

#[test]
fn an_instance_that_is_not_alive_is_replaced() {
    let app = app_with(r#"{"type": "liveness", "name": "heart", "path": "/alive", "attempts": 2, "wait": 1}"#);
    crate::until("both answer", || answering(&app).len() == 2);
    let ids = || app.json(&["ps"]).as_array().expect("dynos").iter().map(|dyno| dyno["id"].to_string()).collect();
    let before: BTreeSet<String> = ids();
    app.get("/sick?/alive=1000");
    crate::until("another instance is there", || ids().difference(&before).count() == 1);
    crate::until("both answer", || answering(&app).len() == 2);
    crate::until("the log says why", || {
        let log = app.cli(&["logs", "-n", "200"]).expect_ok().text;
        log.contains("Liveness check \"heart\" failed 2 times in a row: GET /alive was answered with 503")
    });
}

#[test]
fn a_command_in_the_instance_is_a_check() {
    let command =
        r#"["python3", "-c", "import os, sys; print('port ' + os.environ['PORT']); sys.exit(os.path.exists('sick'))"]"#;
    let app = app_with(&format!(
        r#"{{"type": "readiness", "name": "well", "command": {command}, "attempts": 1, "wait": 1}}"#
    ));
    crate::until("both answer", || answering(&app).len() == 2);
    let sick = app.get("/").body;
    let dyno = sick.rsplit(' ').next().expect("a dyno");
    let inside = |command: &[&str]| app.cli(&[&["ps:exec", "--dyno", dyno, "--"], command].concat()).expect_ok();
    inside(&["touch", "sick"]);
    crate::until("the other one answers alone", || {
        let seen = answering(&app);
        seen.len() == 1 && !seen.contains(&sick)
    });
    app.cli(&["ps"]).expect_text(&["up, not ready (the command exited with code 1: port 5000)"]);
    inside(&["rm", "sick"]);
    crate::until("both answer again", || answering(&app).len() == 2);
}

#[test]
fn the_first_process_passes_signals_on_and_buries_the_dead() {
    let app = shared().app("probe-app");
    app.write("boot", "polite");
    app.commit("listens to signals");
    app.push().expect_ok();
    app.get("/orphans?20");
    let processes = || -> serde_json::Value { serde_json::from_str(&app.get("/processes").body).expect("JSON") };
    let is_orphan = |process: &serde_json::Value| ["sh", "true", "sleep"].iter().any(|name| process["name"] == *name);
    crate::until("no dead process is left", || {
        let all = processes();
        let all = all.as_array().expect("processes");
        assert!(all.iter().any(|process| process["pid"] == 1 && process["name"] != "python3"), "{all:?}");
        all.iter().all(|process| process["state"] != "Z")
    });
    crate::until("no child is left", || !processes().as_array().expect("processes").iter().any(is_orphan));
    app.cli(&["ps:restart"]).expect_ok();
    crate::until("the app heard of its end", || {
        let log = app.cli(&["logs", "-n", "200"]).expect_ok().text;
        log.contains("app[web.1]: asked to end by SIGTERM") && log.contains("Process exited with status 0")
    });
}
