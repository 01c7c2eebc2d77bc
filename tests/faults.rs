//! Everything may be killed at any moment, and disks fill up. docs/faults.md is the table of what comes of it.

mod instances;
mod processes;
mod stores;
mod strike;

use std::path::PathBuf;
use std::time::Instant;

use crate::load::{Load, Seen};
use crate::platform::{App, Platform};

/// The process of a role, if it ever ran.
pub(crate) fn pid(platform: &Platform, role: &str) -> Option<i32> {
    let text = std::fs::read_to_string(platform.runtime_dir().join(format!("{role}.pid"))).ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Kills a role and waits until its successor runs and all roles answer.
pub(crate) fn kill(platform: &Platform, role: &str) {
    let old = pid(platform, role).expect("a running role");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL).expect("killed");
    crate::until("the role is back", || pid(platform, role) != Some(old) && platform.cli(&["status"]).ok);
}

/// Kills the router. In how many milliseconds the next visitor has an answer.
fn until_answered_again(app: &App<'_>) -> u128 {
    let old = pid(app.platform, "router").expect("a router");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL).expect("killed");
    let killed = Instant::now();
    while !app.platform.try_get(&app.host(), "/").is_ok_and(|answer| answer.status == 200) {}
    let took = killed.elapsed().as_millis();
    crate::until("the role is back", || pid(app.platform, "router") != Some(old) && app.platform.cli(&["status"]).ok);
    took
}

/// What the kernel and the OCI runtime hold for instances of this platform.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    mounts: usize,
    namespaces: usize,
    containers: usize,
}

impl Held {
    fn by(platform: &Platform) -> Self {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
        let home = platform.home().to_string_lossy().into_owned();
        let run = platform.runtime_dir();
        let count = |folder: PathBuf| std::fs::read_dir(folder).map_or(0, Iterator::count);
        let namespaces = std::fs::read_dir(run.join("runc")).into_iter().flatten().flatten();
        Self {
            mounts: mounts.lines().filter(|line| line.starts_with("overlay") && line.contains(&*home)).count(),
            namespaces: count(run.join("netns")),
            containers: namespaces.map(|namespace| count(namespace.path())).sum(),
        }
    }

    /// What this many instances need, and nothing more.
    fn of(instances: usize) -> Self {
        Self { mounts: instances, namespaces: instances, containers: instances }
    }
}

#[test]
fn killing_any_role_under_load_costs_no_running_app() {
    let platform = Platform::start(&[]);
    let app = platform.app("probe-app");
    app.push().expect_ok();
    app.cli(&["ps:scale", "web=2"]).expect_ok();
    let all_up = || {
        app.json(&["ps"]).as_array().is_some_and(|dynos| dynos.iter().filter(|dyno| dyno["state"] == "up").count() == 2)
    };
    crate::until("two instances run", all_up);
    let instances = || {
        let dynos = app.json(&["ps"]);
        let ids = dynos.as_array().into_iter().flatten().map(|dyno| (dyno["name"].to_string(), dyno["id"].to_string()));
        ids.collect::<Vec<_>>()
    };
    let before = (Held::by(&platform), instances());
    assert_eq!(before.0, Held::of(2));

    for role in ["controller", "host", "containerd"] {
        for _ in 0..3 {
            let Seen { answered, failure, .. } = Load::around(&app, || kill(&platform, role));
            assert_eq!(failure, None, "killing the {role} cost a request of {answered}");
        }
    }
    for _ in 0..3 {
        Load::around(&app, || {
            let took = until_answered_again(&app);
            strike::say(&format!("| the router is killed, until a new connection has its answer | {took} ms | |"));
        });
    }
    crate::until("two instances run", all_up);
    assert_eq!((Held::by(&platform), instances()), before, "the same instances, and nothing left over");

    app.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
    app.commit("second");
    app.push().expect_ok();
    assert!(app.get("/").body.starts_with("version 2"));
}

#[test]
fn no_change_of_an_app_under_load_fails_a_request_or_cuts_a_web_socket() {
    let app = crate::platform::shared().app("probe-app");
    app.push().expect_ok();
    let releases = || app.json(&["releases"]).as_array().map_or(0, Vec::len);
    let Seen { answered, moved, failure, .. } = Load::around(&app, || {
        app.cli(&["ps:scale", "web=3"]).expect_ok();
        app.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
        app.commit("second");
        app.push().expect_ok();
        app.cli(&["config:set", "COLOUR=green"]).expect_ok();
        crate::until("it has the config var", || app.get("/env").body.contains("green"));
        app.cli(&["rollback", "--yes"]).expect_ok();
        crate::until("it has no config var", || !app.get("/env").body.contains("green"));
        app.cli(&["ps:scale", "web=1:standard-1x"]).expect_ok();
        crate::until("one instance is left", || app.json(&["ps"]).as_array().is_some_and(|dynos| dynos.len() == 1));
    });
    assert_eq!(failure, None, "of {answered} requests and messages, in {} releases", releases());
    assert!(moved > 0, "a web socket outlived its instance's drain time and was told to go");
}

#[test]
fn killing_a_role_in_the_middle_of_a_build_leaves_nothing_half_made() {
    let platform = Platform::start(&[]);
    let app = platform.app("probe-app");
    app.push().expect_ok();
    for (version, role) in (2..).zip(["controller", "host", "containerd", "router"]) {
        kill_during_push(&app, version, role, "builds");
        // Whatever became of that push, the next one works.
        app.git(&["commit", "-q", "--allow-empty", "-m", "again"]).expect_ok();
        app.push().expect_ok();
        assert_eq!(app.get("/").body, format!("version {version} web.1"));
    }
    crate::until("only the running instance is left", || Held::by(&platform) == Held::of(1));
}

#[test]
fn killing_a_role_in_the_middle_of_a_rollout_does_not_stop_it() {
    let platform = Platform::start(&[]);
    let app = platform.app("probe-app");
    app.write("boot", "slow 2");
    app.commit("a rollout takes its time");
    app.push().expect_ok();
    for (version, role) in (2..).zip(["controller", "host", "containerd", "router"]) {
        kill_during_push(&app, version, role, "releases");
        crate::until("the release is live", || app.get("/").body == format!("version {version} web.1"));
        crate::until("only the running instance is left", || Held::by(&platform) == Held::of(1));
    }
}

/// Pushes `version` to an app under load and kills a role as soon as one of `rows` (builds or releases) is pending. Returns
/// when none is.
fn kill_during_push(app: &App<'_>, version: u32, role: &str, rows: &str) {
    app.edit("probe.py", &format!("VERSION = \"{}\"", version - 1), &format!("VERSION = \"{version}\""));
    app.commit("next");
    let is_pending = |rows: &str| {
        let rows = app.json(&[rows]);
        rows.as_array().is_some_and(|rows| rows.iter().any(|row| row["status"] == "pending"))
    };
    let Seen { failure, .. } = Load::around(app, || {
        let mut push = app.start_git(&["push", "platform", "main"]);
        crate::until("it has begun", || is_pending(rows));
        kill(app.platform, role);
        push.wait().expect("ended");
        crate::until("nothing is left pending", || !is_pending("builds") && !is_pending("releases"));
    });
    if role != "router" {
        assert_eq!(failure, None, "killing the {role} in a deploy cost a request");
    }
}

#[test]
fn down_leaves_nothing_and_up_brings_the_apps_back() {
    let platform = Platform::start(&[]);
    let app = platform.app("probe-app");
    app.push().expect_ok();
    let kept = format!("Kept in {}: apps", platform.home().display());
    platform.cli_in_another_shell(&["status"]).expect_ok().expect_text(&[&platform.url()]);
    let down = platform.cli_in_another_shell(&["down"]).expect_ok();
    down.expect_text(&[&kept, "`platform up` starts the same apps again"]);
    assert_eq!(Held::by(&platform), Held::of(0));
    assert!(platform.try_get(&app.host(), "/").is_err(), "nobody listens");
    platform.cli(&["down"]).expect_ok().expect_text(&["is not running", &kept]);
    platform.up(&[]);
    crate::until("the app is back", || answers(&app));
}

fn answers(app: &App<'_>) -> bool {
    app.platform.try_get(&app.host(), "/").is_ok_and(|answer| answer.status == 200)
}

#[test]
fn killing_the_supervisor_costs_nothing_and_up_or_down_take_over() {
    let platform = Platform::start(&[]);
    let app = platform.app("probe-app");
    app.push().expect_ok();
    let instance = app.json(&["ps"])[0]["id"].clone();
    let kill_supervisor = || {
        let supervisor = nix::unistd::Pid::from_raw(pid(&platform, "up").expect("a supervisor"));
        nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).expect("killed");
    };

    let Seen { failure, .. } = Load::around(&app, kill_supervisor);
    assert_eq!(failure, None);
    platform.cli(&["status"]).expect_ok().expect_text(&["`platform up` takes them over"]);
    platform.up(&[]);
    crate::until("the app answers through the new router", || answers(&app));
    assert_eq!(app.json(&["ps"])[0]["id"], instance, "the same instance");
    kill(&platform, "router");

    kill_supervisor();
    let down = platform.json(&["down"]);
    assert_eq!(Held::by(&platform), Held::of(0));
    let roles = down["roles"].as_array().expect("a list");
    assert!(roles.len() == 4 && roles.iter().all(|role| role["pid"].is_null()), "a process is left: {down}");
    platform.up(&[]);
    crate::until("the app is back", || answers(&app));
}

#[test]
fn a_port_that_is_taken_is_said_before_anything_starts() {
    let platform = Platform::start(&[]);
    platform.cli(&["down"]).expect_ok();
    let taken = std::net::TcpListener::bind(platform.address()).expect("a free port");
    let address = platform.address().to_string();
    platform.cli(&["up", "--detach"]).expect_refused(&["cannot listen on", &address, "in use", "PLATFORM_LISTEN"]);
    platform.cli(&["status"]).expect_refused(&["down"]);
    drop(taken);
    platform.up(&[]);
}

#[test]
fn a_full_disk_refuses_builds_and_harms_nothing_else() {
    let platform = Platform::start(&[]);
    let app = platform.app("probe-app");
    app.push().expect_ok();
    platform.cli(&["down"]).expect_ok();
    platform.up(&[("PLATFORM_MIN_FREE_DISK", "1000TiB")]);
    app.git(&["commit", "-q", "--allow-empty", "-m", "again"]).expect_ok();
    app.push().expect_refused(&["disk", "free"]);
    crate::until("the app answers", || answers(&app));
    app.cli(&["config:set", "STILL=works"]).expect_ok();
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let platform = Platform::fresh();
    // As on a full disk.
    std::os::unix::fs::symlink("/dev/full", platform.home().join("platform.log")).expect("a link");
    platform.up(&[]);
    platform.cli(&["users:create", "dev@localhost", "--login"]).expect_ok();
    platform.cli(&["create", "before"]).expect_ok();
    assert_eq!(platform.get("before.localhost", "/").status, 503, "no code yet");
    // Everybody says something of that.
    kill(&platform, "controller");
    platform.cli(&["create", "after"]).expect_ok();
    crate::until("the router hears of new apps", || platform.get("after.localhost", "/").status == 503);
    assert_eq!(platform.get("before.localhost", "/").status, 503, "and forgets none");
}
