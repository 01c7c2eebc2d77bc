//! Releases take each other's place: how, with which requests, and back.

use crate::load::{Load, Seen};
use crate::platform::{App, shared};

/// An app whose version 1 is live.
fn live() -> App<'static> {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app
}

/// Commits the next version of the app; its number is its answer's.
fn next(app: &App<'_>, version: u32) {
    app.edit("probe.py", &format!("VERSION = \"{}\"", version - 1), &format!("VERSION = \"{version}\""));
    app.commit("next");
}

/// The releases that dynos run which get requests, as the platform says.
fn routed(app: &App<'_>) -> Vec<u64> {
    let dynos = app.json(&["ps"]);
    let routed = dynos.as_array().into_iter().flatten().filter(|dyno| dyno["routed"] == true);
    routed.filter_map(|dyno| dyno["release"]["version"].as_u64()).collect()
}

fn state(app: &App<'_>, release: &str) -> String {
    app.json(&["rollouts:info", release])["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn each_strategy_takes_over_under_load_without_a_lost_request_and_says_so() {
    let app = live();
    app.cli(&["ps:scale", "web=3"]).expect_ok();
    crate::until("three get requests", || routed(&app) == [2, 2, 2]);
    for (version, settings) in
        (2..).zip([vec!["max_surge=1"], vec!["max_surge=0", "max_unavailable=1"], vec!["strategy=all-at-once"]])
    {
        let policy = [vec!["rollouts:policy"], settings.clone()].concat();
        app.cli(&policy).expect_ok();
        next(&app, version);
        let Seen { failure, .. } = Load::around(&app, || {
            let push = app.push().expect_ok();
            push.expect_text(&["Lost 0 of "]);
            let release = u64::from(version) + 1;
            crate::until("only the new ones run", || {
                routed(&app) == [release; 3] && app.json(&["ps"]).as_array().is_some_and(|all| all.len() == 3)
            });
        });
        assert_eq!(failure, None, "{settings:?}");
        assert!(app.get("/").body.starts_with(&format!("version {version}")));
    }
}

#[test]
fn a_canary_takes_its_part_goes_on_when_told_and_ends_when_told() {
    let app = live();
    app.cli(&["rollouts:policy", "strategy=canary", "steps=50", "pause=manual"]).expect_ok();
    next(&app, 2);
    app.push().expect_ok().expect_text(&["v3 is a canary with 50 % of the requests", "rollouts:continue"]);
    let answers = || (0..40).map(|_| app.get("/").body).collect::<std::collections::BTreeSet<_>>();
    crate::until("both answer", || answers().len() == 2);
    assert_eq!(app.json(&["releases"])[0]["status"], "pending");
    app.cli(&["rollouts:abort"]).expect_ok();
    crate::until("it is over", || state(&app, "v3") == "failed");
    crate::until("the old one answers alone", || answers().len() == 1 && routed(&app) == [2]);
    app.cli(&["rollouts:continue", "v3"]).expect_refused(&["nothing to go on with"]);

    next(&app, 3);
    app.push().expect_ok();
    app.cli(&["rollouts:continue"]).expect_ok();
    crate::until("it is live", || routed(&app) == [4]);
    assert_eq!(app.get("/").body, "version 3 web.1");
}

#[test]
fn a_canary_that_answers_with_errors_goes_back_by_itself() {
    let app = live();
    let policy = ["rollouts:policy", "strategy=canary", "steps=50", "pause=manual", "error_requests=10"];
    app.cli(&policy).expect_ok();
    app.edit("probe.py", "self.send_response(status)", "self.send_response(500)");
    next(&app, 2);
    app.push().expect_ok();
    crate::until("it is given up", || {
        let _ = app.get("/");
        state(&app, "v3") == "failed"
    });
    let failure = &app.json(&["rollouts:info", "v3"])["failure"];
    assert_eq!(failure["cause"], "errors", "{failure}");
    crate::until("the old one answers alone", || (0..20).all(|_| app.get("/").status == 200));
    app.cli(&["releases:info", "v3"]).expect_ok().expect_text(&["answers worse", "v2 keeps serving"]);
}

#[test]
fn a_release_that_errs_once_it_is_live_is_left_by_itself() {
    let app = live();
    app.cli(&["rollouts:policy", "error_requests=10"]).expect_ok();
    app.edit("probe.py", "self.send_response(status)", "self.send_response(500)");
    next(&app, 2);
    app.push().expect_ok();
    crate::until("the old code answers", || app.get("/").body == "version 1 web.1");
    let releases = app.json(&["releases"]);
    assert_eq!(releases[0]["description"], "Return to v2");
    assert_eq!((state(&app, "v3").as_str(), routed(&app)), ("returned", vec![4]));
}

#[test]
fn a_rollout_that_comes_no_further_ends_at_its_deadline() {
    let app = live();
    app.write("app.json", r#"{"rollout": {"deadline": "2s"}}"#);
    app.write("boot", "slow 3600");
    app.commit("never gets up");
    app.push().expect_refused(&["did not become healthy", "it came no further than web.1", "v2 keeps serving"]);
    let policy = app.json(&["rollouts:policy"]);
    let deadline = policy.as_array().expect("a list").iter().find(|it| it["name"] == "deadline").expect("a deadline");
    assert_eq!((&deadline["value"], &deadline["source"]), (&"10m".into(), &"default".into()), "v3 did not make it");
    assert_eq!(app.get("/").body, "version 1 web.1");
}
