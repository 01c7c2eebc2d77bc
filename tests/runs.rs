//! One-off dynos that nobody waits for, and processes in dynos that run.

use std::collections::BTreeSet;

use crate::faults::kill;
use crate::platform::{App, Platform, shared};

/// Starts a detached one-off and returns its name.
fn detached(app: &App<'_>, args: &[&str]) -> String {
    let args: Vec<&str> = ["run:detached"].iter().chain(args).copied().collect();
    app.cli(&args).expect_ok().stdout.trim().to_owned()
}

/// What is known of a one-off once it has ended.
fn end_of(app: &App<'_>, run: &str) -> serde_json::Value {
    crate::until("it has ended", || app.json(&["run:info", run])["state"] == "complete");
    app.json(&["run:info", run])
}

#[test]
fn a_detached_one_off_outlives_every_role_with_its_log_and_its_end() {
    let platform = Platform::start(&[]);
    let app = platform.app("probe-app");
    app.push().expect_ok();
    let script = "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo line $i of it; sleep 0.04; done; exit 7";
    let run = detached(&app, &["--", "sh", "-c", script]);
    let lines = || {
        let log = app.cli(&["logs", "-n", "1500", "--dyno", &run]).expect_ok().stdout;
        let number = |line: &str| line.split_once("]: line ")?.1.split(' ').next()?.parse::<u32>().ok();
        log.lines().filter_map(number).collect::<Vec<_>>()
    };
    for role in ["controller", "host", "containerd", "controller"] {
        crate::until("it goes on", {
            let seen = lines().len();
            move || lines().len() > seen
        });
        kill(&platform, role);
        let state = app.json(&["run:info", &run])["state"].clone();
        assert_eq!(state, "up", "killing the {role} ended it");
    }
    let end = end_of(&app, &run);
    assert_eq!((&end["exit_status"], &end["attached"]), (&7.into(), &false.into()), "{end}");
    crate::until("its last line is there", || lines().last() == Some(&1000));
    let mut seen = BTreeSet::new();
    let new: Vec<u32> = lines().into_iter().filter(|line| seen.insert(*line)).collect();
    assert_eq!(
        new,
        (1..=1000).collect::<Vec<_>>(),
        "no line is missing, whoever was killed; the last ones may come again"
    );
    app.cli(&["logs", "-n", "1500", "--dyno", &run]).expect_text(&["Process exited with code 7"]);
}

#[test]
fn a_one_off_is_listed_and_stopped_and_has_a_time_limit() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    let obliging = "trap 'echo asked to end; exit 3' TERM; echo begun; while :; do sleep 0.1; done";
    let run = detached(&app, &["--type", "nightly", "--", "sh", "-c", obliging]);
    assert!(run.starts_with("nightly."), "{run}");
    crate::until("it has begun", || app.cli(&["logs", "--dyno", &run]).stdout.contains("begun"));
    app.cli(&["ps"]).expect_text(&[&run]);
    app.cli(&["run:stop", &run]).expect_ok();
    assert_eq!(end_of(&app, &run)["exit_status"], 3);
    app.cli(&["logs", "--dyno", &run]).expect_text(&["Stopping all processes with SIGTERM", "asked to end"]);
    app.cli(&["run:stop", &run]).expect_refused(&["has ended already"]);

    let limited = detached(&app, &["--time-limit", "1s", "--", "sh", "-c", obliging]);
    assert_eq!(end_of(&app, &limited)["exit_status"], 3);
    app.cli(&["run:list"]).expect_text(&[&run, &limited, "failed (3)"]);
    let attached = app.cli(&["run", "--time-limit", "1s", "--", "sh", "-c", obliging]);
    // The shell may say of its `sleep` that it was terminated, too.
    let said = attached.stdout.starts_with("begun\n") && attached.stdout.contains("asked to end\n");
    assert!(said && attached.code == Some(3), "{:?}: {}", attached.code, attached.text);
}

#[test]
fn a_command_runs_in_a_dyno_that_runs() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app.cli(&["config:set", "COLOUR=green"]).expect_ok();
    app.cli(&["ps:exec", "--", "sh", "-c", "echo left behind > /tmp/found"]).expect_ok();
    let script = "cat /tmp/found; echo $COLOUR in $PWD at $PORT of $DYNO; id -u | sed 's/^1.*/an own user/'; exit 6";
    let ran = app.cli(&["ps:exec", "--dyno", "web.1", "--", "sh", "-c", script]);
    let expected = "left behind\ngreen in /app at 5000 of web.1\nan own user\n";
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(6), expected), "{}", ran.text);
    let found = app.cli(&["run", "--", "sh", "-c", "test -e /tmp/found || echo not here"]);
    assert_eq!(found.stdout, "not here\n", "a one-off has its own files");
    let inside = app.cli(&["run:inside", "web.1", "--", "printenv", "DYNO"]);
    assert_eq!(inside.stdout, "web.1\n", "{}", inside.text);
    let piped = shared().cli_with_input(&["ps:exec", "--app", &app.name, "--", "wc", "-c"], b"12345");
    assert_eq!(piped.stdout.trim(), "5", "{}", piped.text);
    app.cli(&["ps:exec", "--dyno", "web.9", "--", "true"]).expect_refused(&["Couldn't find that dyno"]);
    let events = app.json(&["events"]);
    let told = events.as_array().into_iter().flatten().any(|event| event["data"]["exec"] == "printenv DYNO");
    assert!(told, "{events}");
}

#[test]
fn files_and_ports_of_a_dyno_are_reached() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    let here = shared().home().join("user").join(format!("copies-{}", app.name));
    std::fs::create_dir_all(&here).expect("a folder");
    let path = |name: &str| here.join(name).display().to_string();
    let make = "mkdir -p /tmp/t/deep && echo one > /tmp/t/deep/one && ln -s deep/one /tmp/t/link && mkfifo /tmp/t/fifo";
    app.cli(&["ps:exec", "--", "sh", "-c", make]).expect_ok();
    app.cli(&["ps:copy", "web.1:/tmp/t", &path("t")]).expect_ok();
    assert_eq!(
        std::fs::read_to_string(here.join("t/link")).expect("a link"),
        "one
"
    );
    assert!(!here.join("t/fifo").exists());
    std::fs::write(here.join("t/new"), "from here").expect("written");
    app.cli(&["ps:copy", &path("t"), "web.1:/tmp/back"]).expect_ok();
    let back = app.cli(&["ps:exec", "--", "cat", "/tmp/back/new", "/tmp/back/link"]);
    assert_eq!(
        back.stdout,
        "from hereone
",
        "{}",
        back.text
    );
    app.cli(&["ps:copy", "web.1:/etc/shadow", &path("no")]).expect_refused(&["/etc/shadow"]);
    app.cli(&["ps:copy", &path("t"), "web.1:/usr"]).expect_refused(&["/usr"]);

    let listen = "import socketserver, http.server as h; socketserver.TCPServer(('127.0.0.1', 7007), h.SimpleHTTPRequestHandler).serve_forever()";
    let script = format!("cd /tmp/t && (python3 -c \"{listen}\" >/dev/null 2>&1 &)");
    app.cli(&["ps:exec", "--", "sh", "-c", &script]).expect_ok();
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let ports = format!("{free}:7007");
    let mut forward = shared().command(env!("CARGO_BIN_EXE_platform"));
    let mut forward = forward.args(["ps:forward", &ports, "--app", &app.name]).spawn().expect("the program");
    let page = || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", free)).ok()?;
        stream
            .write_all(
                b"GET /deep/one HTTP/1.0

",
            )
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    crate::until("the port answers", || {
        page().is_some_and(|answer| {
            answer.ends_with(
                "one
",
            )
        })
    });
    forward.kill().expect("ended");
    forward.wait().expect("ended");
    let events = app.json(&["events"]);
    for key in ["copied_from", "copied_to", "forward"] {
        let told = events.as_array().into_iter().flatten().any(|event| !event["data"][key].is_null());
        assert!(told, "{key}: {events}");
    }
}
