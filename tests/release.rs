//! Releases: what fails leaves the old one serving, what is wrong is said.

use crate::platform::{App, shared};

/// An app whose version 1 is live.
fn live() -> App<'static> {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app
}

fn push_with_boot(app: &App<'_>, boot: &str) -> crate::platform::Ran {
    app.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
    app.write("boot", boot);
    app.commit("boots badly");
    app.push()
}

#[test]
fn a_web_process_that_exits_leaves_the_old_release_serving() {
    let app = live();
    let push = push_with_boot(&app, "exit 7").expect_refused(&[
        "exited with code 7",
        "Its last 50 log lines",
        "attempt 12 to calm the flux",
        "attempt 60 to calm the flux",
        "cannot go on: the flux is out of phase",
        "keeps serving",
    ]);
    assert!(!push.text.contains("attempt 11 "), "more than 50 lines:\n{}", push.text);
    assert_eq!(app.get("/").body, "version 1 web.1");
    let releases = app.json(&["releases"]);
    assert_eq!(releases[0]["status"], "failed");
    assert_eq!(releases[1]["current"], true);
}

#[test]
fn a_web_process_that_listens_elsewhere_is_told_which_port_it_really_took() {
    let app = live();
    push_with_boot(&app, "listen 9999").expect_refused(&[
        "Last probe of $PORT (5000)",
        "It listened on port 9999.",
        "keeps serving",
    ]);
    assert_eq!(app.get("/").body, "version 1 web.1");
}

#[test]
fn a_web_process_that_outgrows_its_memory_is_named_so() {
    let app = live();
    push_with_boot(&app, "memory 4096").expect_refused(&["memory", "keeps serving"]);
    assert_eq!(app.get("/").body, "version 1 web.1");
}

#[test]
fn every_config_change_and_rollback_is_a_numbered_release() {
    let app = live();
    let version = |app: &App<'_>| app.json(&["releases"])[0]["version"].as_u64().expect("a number");
    let before = version(&app);
    app.cli(&["config:set", "GREETING=hello"]).expect_ok();
    assert_eq!(version(&app), before + 1);
    crate::until("the new value arrives", || env(&app)["GREETING"] == "hello");
    app.cli(&["rollback", &format!("v{before}")]).expect_ok();
    assert_eq!(version(&app), before + 2);
    crate::until("the value is gone again", || env(&app)["GREETING"].is_null());
}

#[test]
fn config_that_is_not_valid_is_refused_by_name() {
    let app = shared().app("probe-app");
    app.cli(&["config:set", "1BAD=x"]).expect_refused(&["1BAD"]);
    app.cli(&["config:set", "BAD-NAME=x"]).expect_refused(&["BAD-NAME"]);
    assert_eq!(app.json(&["config"]), serde_json::json!({}));
}

/// What the app's web process sees as its environment.
fn env(app: &App<'_>) -> serde_json::Value {
    serde_json::from_str(&app.get("/env").body).expect("JSON")
}

#[test]
fn config_values_arrive_byte_for_byte() {
    use proptest::strategy::{Strategy, ValueTree};
    let app = live();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let any_text = proptest::string::string_regex("(?s)[^\\x00]{0,200}").expect("a pattern");
    let mut values: Vec<String> = (0..20).map(|_| any_text.new_tree(&mut runner).expect("a value").current()).collect();
    values.extend(
        ["", "it's \"quoted\" $HOME `id` \\n", "two\nlines\n", "🦀 émoji", " spaces ", "a=b=c", "%s{}"]
            .map(str::to_owned),
    );
    values.push(format!("{{\"key\": \"{}\"}}", "\\\"x\\\" ".repeat(32 * 1024 / 6)));
    let pairs: Vec<(String, String)> =
        values.into_iter().enumerate().map(|(i, value)| (format!("VALUE_{i}"), value)).collect();
    let arguments: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let arguments: Vec<&str> = std::iter::once("config:set").chain(arguments.iter().map(String::as_str)).collect();
    app.cli(&arguments).expect_ok();
    crate::until("the values arrive", || !env(&app)["VALUE_0"].is_null());
    let seen = env(&app);
    for (name, value) in &pairs {
        assert_eq!(seen[name], serde_json::Value::String(value.clone()), "{name}");
    }
}

#[test]
fn scaling_adds_and_removes_instances_that_share_the_requests() {
    let app = live();
    app.cli(&["ps:scale", "web=3"]).expect_ok();
    let seen = || (0..40).map(|_| app.get("/").body).collect::<std::collections::BTreeSet<_>>();
    crate::until("three instances answer", || seen().len() == 3);
    app.cli(&["ps:scale", "web=0"]).expect_ok();
    crate::until("no instance is left", || app.get("/").status == 503);
    app.cli(&["ps:scale", "web=1", "worker=1"]).expect_ok();
    crate::until("one is back", || app.get("/").status == 200);
    crate::until("the worker runs", || app.json(&["ps"]).to_string().contains("worker.1"));
}

#[test]
fn a_crashed_instance_comes_back() {
    let app = live();
    let _ = app.platform.try_get(&app.host(), "/crash");
    crate::until("it answers again", || app.get("/").status == 200);
    crate::until("the log says how it ended", || {
        let log = app.cli(&["logs", "-n", "200"]).expect_ok().text;
        log.lines().any(|line| line.contains("heroku[web.1]") && line.contains("status 3"))
    });
}
