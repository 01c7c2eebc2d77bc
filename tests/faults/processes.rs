//! What an app does to itself.

use std::os::unix::fs::MetadataExt;

use super::strike::{pair, say, strike, up};
use crate::load::{Load, Seen};
use crate::platform::{App, shared};

fn app_that(boots: &str) -> App<'static> {
    let app = shared().app("probe-app");
    app.write("boot", boots);
    app.commit("how it boots");
    app
}

/// Two web dynos with this liveness check.
fn app_with(check: &str) -> App<'static> {
    let app = shared().app("probe-app");
    app.write("app.json", &format!(r#"{{"healthchecks": {{"web": [{check}]}}}}"#));
    app.commit("a check");
    pair(&app);
    app
}

#[test]
fn who_ignores_sigterm_is_killed_and_nobody_waits_for_that() {
    let app = app_that("stubborn");
    let before = pair(&app);
    let is_right = || up(&app).intersection(&before).count() == 0 && up(&app).len() == 2;
    let restart = || {
        app.cli(&["ps:restart", "web.1"]).expect_ok();
        crate::until("web.1 is another", || up(&app).intersection(&before).count() == 1 && up(&app).len() == 2);
        app.cli(&["ps:restart", "web.2"]).expect_ok();
    };
    let Seen { failure, .. } = strike("two dynos that ignore SIGTERM are restarted", &app, restart, is_right);
    assert_eq!(failure, None);
    crate::until("they were killed in the end", || {
        let log = app.cli(&["logs", "--dyno", "web.1", "-n", "20"]).expect_ok().text;
        log.contains("Stopping all processes with SIGTERM") && log.contains("SIGKILL")
    });
}

#[test]
fn a_release_whose_process_forks_and_exits_is_refused_and_costs_nothing() {
    let app = app_that("");
    pair(&app);
    app.write("boot", "forks 0 1");
    app.commit("goes into the background");
    let push = || drop(app.push().expect_refused(&["web.1 exited with code 0, but must stay in the foreground"]));
    let Seen { failure, .. } = strike("a release whose process forks and exits", &app, push, || up(&app).len() == 2);
    assert_eq!(failure, None);
}

#[test]
fn a_release_that_goes_into_the_background_once_its_port_is_open_is_left_by_itself() {
    let app = app_that("");
    pair(&app);
    app.write("boot", "forks 1 0");
    app.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
    app.commit("goes into the background, later");
    let push = || drop(app.push().expect_ok());
    let is_right = || up(&app).len() == 2 && app.get("/").body.starts_with("version 1");
    let seen = strike("a release whose process forks, opens its port and exits", &app, push, is_right);
    assert!(seen.failed * 100 <= seen.answered, "what was under way each time, and no more: {seen:?}");
    assert!(app.cli(&["releases"]).expect_ok().text.contains("Return to v2"));
}

#[test]
fn a_release_that_opens_its_port_late_is_waited_for() {
    let app = app_that("");
    pair(&app);
    app.write("boot", "slow 5");
    app.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
    app.commit("takes its time");
    let push = || drop(app.push().expect_ok());
    let is_right = || up(&app).len() == 2 && app.get("/").body.starts_with("version 2");
    let Seen { failure, .. } = strike("a release that opens its port after 5 s", &app, push, is_right);
    assert_eq!(failure, None);
}

#[test]
fn a_dyno_that_closes_its_port_is_replaced() {
    let app = app_with(r#"{"type": "liveness", "listening": true, "attempts": 2, "wait": 1}"#);
    let before = up(&app);
    let close = || assert_eq!(app.get("/close-port").status, 200);
    let is_right = || up(&app).len() == 2 && up(&app) != before;
    let seen = strike("a dyno closes its port and lives on", &app, close, is_right);
    assert!(seen.failed <= 4, "what was under way, and no more: {seen:?}");
}

#[test]
fn a_check_that_hangs_holds_up_nothing_and_has_failed() {
    let app = app_with(r#"{"type": "liveness", "path": "/alive", "timeout": 1, "attempts": 2, "wait": 1}"#);
    let before = up(&app);
    let hang = || assert_eq!(app.get("/hang?/alive=1000").status, 200);
    let is_right = || up(&app).len() == 2 && up(&app) != before;
    let seen = strike("a health check hangs", &app, hang, is_right);
    assert!(seen.failed <= 4, "what was under way, and no more: {seen:?}");
}

#[test]
fn a_flood_of_log_lines_reaches_no_neighbour_and_no_disk() {
    let (neighbour, app) = (shared().app("probe-app"), shared().app("probe-app"));
    neighbour.push().expect_ok();
    app.push().expect_ok();
    let output = shared().home().join("host/instances").join(super::instances::instance(&app)).join("output");
    let mut most = 0;
    let flood = || {
        std::thread::scope(|scope| {
            let flooding = scope.spawn(|| app.get("/flood?5"));
            while !flooding.is_finished() {
                most = most.max(std::fs::metadata(&output).map_or(0, |file| file.blocks() * 512));
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            assert_eq!(flooding.join().expect("an answer").status, 200);
        });
        assert_eq!(app.get("/log?after-the-flood").status, 200);
    };
    let is_right = || app.cli(&["logs", "--dyno", "web.1", "-n", "5"]).expect_ok().text.contains("after-the-flood");
    let Seen { failure, .. } = Load::around(&app, || {
        let Seen { failure, .. } = strike("an app writes log lines as fast as it can", &neighbour, flood, is_right);
        assert_eq!(failure, None, "the neighbour's");
    });
    assert_eq!(failure, None, "its own");
    let length = std::fs::metadata(&output).expect("its output").len();
    say(&format!("it wrote {} MiB of output in 5 s; at most {} MiB lay on the disk", length >> 20, most >> 20));
    assert!(most < 200 << 20, "{most} bytes lay on the disk");
}
