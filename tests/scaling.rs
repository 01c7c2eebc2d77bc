//! How many dynos there are when nobody says so: none of an app that sleeps.

use std::net::TcpStream;

use crate::faults::{kill, pid};
use crate::platform::{App, Platform, shared};

/// States of the app's dynos.
fn states(app: &App<'_>) -> Vec<String> {
    let dynos = app.json(&["ps"]);
    dynos.as_array().into_iter().flatten().map(|dyno| dyno["state"].as_str().unwrap_or_default().to_owned()).collect()
}

fn until_asleep(app: &App<'_>) {
    crate::until("it sleeps", || states(app) == ["idle"]);
}

/// How often its process was started.
fn starts(app: &App<'_>) -> usize {
    app.cli(&["logs", "-n", "1500"]).expect_ok().text.matches("starts as web").count()
}

#[test]
fn a_hundred_requests_at_once_wake_a_sleeper_and_each_is_answered_by_the_one_dyno() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app.cli(&["ps:sleep", "1s"]).expect_ok().expect_text(&["sleeps after 1s"]);
    until_asleep(&app);
    app.cli(&["logs", "-n", "1500"]).expect_ok().expect_text(&["heroku[web.1]: Idling"]);
    app.cli(&["ps:exec", "--", "true"]).expect_refused(&["sleeps", "a request to the app starts it"]);
    assert_eq!(starts(&app), 1);
    let answers = std::thread::scope(|scope| {
        let ask = || app.platform.try_get(&app.host(), "/").map(|answer| (answer.status, answer.body));
        let all: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect::<Vec<_>>()
    });
    for answer in answers {
        assert_eq!(answer.expect("an answer"), (200, "version 1 web.1".to_owned()));
    }
    crate::until("the log has both starts", || starts(&app) == 2);

    // What comes in the very moment of stopping is answered, too.
    for _ in 0..5 {
        until_asleep(&app);
        assert_eq!(app.get("/").status, 200);
    }
    app.cli(&["ps:sleep:off"]).expect_ok().expect_text(&["never sleeps"]);
    crate::until("it is awake", || states(&app) == ["up"]);
}

#[test]
fn a_load_gets_more_dynos_and_the_log_says_why() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app.cli(&["ps:autoscale:enable", "--rps", "1", "--max", "2", "--cool-down", "30s"]).expect_ok();
    app.cli(&["ps:autoscale:enable", "worker", "--rps", "1"]).expect_refused(&["only web gets requests"]);
    crate::until("there are two", || {
        let _ = app.get("/");
        states(&app) == ["up", "up"]
    });
    let decisions = app.json(&["ps:autoscale"])["decisions"].clone();
    assert_eq!((&decisions[0]["from"], &decisions[0]["to"]), (&1.into(), &2.into()), "{decisions}");
    let said = "heroku[autoscaler]: Scaled web from 1 to 2: ";
    app.cli(&["logs", "-n", "1500"])
        .expect_ok()
        .expect_text(&[said, "requests/s on each of 1 dyno in a minute; the target is 1"]);
    app.cli(&["ps:autoscale:disable"]).expect_ok();
    app.cli(&["ps:autoscale"]).expect_ok().expect_text(&["off", "1 -> 2"]);
}

#[test]
fn a_web_socket_keeps_its_app_awake_and_a_deploy_finds_a_sleeper_as_it_was() {
    let (used, unused) = (shared().app("probe-app"), shared().app("probe-app"));
    for app in [&used, &unused] {
        app.write("app.json", r#"{"formation": {"web": {"sleep_after": "2s"}}}"#);
        app.commit("it may sleep");
        app.push().expect_ok();
    }
    let stream = TcpStream::connect(used.platform.address()).expect("a connection");
    let (mut socket, _) = tungstenite::client(format!("ws://{}/", used.host()), stream).expect("a web socket");
    assert_eq!(unused.get("/").status, 200);
    until_asleep(&unused);
    assert_eq!(unused.get("/").status, 200);
    until_asleep(&unused);
    assert_eq!(states(&used), ["up"]);
    let message = tungstenite::Message::text("still there?");
    socket.send(message.clone()).expect("sent");
    assert_eq!(socket.read().expect("an echo"), message);
    drop(socket);
    until_asleep(&used);

    unused.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
    unused.commit("next");
    unused.push().expect_ok();
    assert_eq!(unused.get("/").body, "version 2 web.1");
}

#[test]
fn a_role_that_dies_while_an_app_wakes_costs_no_request() {
    let platform = Platform::start(&[]);
    let app = platform.app("probe-app");
    app.write("boot", "slow 2");
    app.commit("it takes its time");
    app.push().expect_ok();
    app.cli(&["ps:sleep", "1s"]).expect_ok();
    until_asleep(&app);
    kill(&platform, "host");
    assert_eq!(states(&app), ["idle"], "it sleeps on");
    let asks = || app.platform.try_get(&app.host(), "/").map(|answer| answer.status);
    for role in ["host", "containerd"] {
        until_asleep(&app);
        std::thread::scope(|scope| {
            let answer = scope.spawn(asks);
            crate::until("it wakes", || states(&app) == ["starting"]);
            kill(&platform, role);
            assert_eq!(answer.join().expect("no panic").expect("an answer"), 200, "{role}");
        });
    }
    // Nobody but the router and the host is needed to wake it.
    until_asleep(&app);
    let controller = nix::unistd::Pid::from_raw(pid(&platform, "controller").expect("a controller"));
    let signal = |signal| nix::sys::signal::kill(controller, signal).expect("it is there");
    signal(nix::sys::signal::Signal::SIGSTOP);
    let answer = asks();
    signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(answer.expect("an answer"), 200);
}
