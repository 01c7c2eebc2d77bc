//! Scheduled jobs: at their time, by hand, in parts, and through what happens to a platform meanwhile.

use serde_json::Value;

use crate::faults::kill;
use crate::platform::{App, Platform, shared};

/// The newest run of a job.
fn newest(app: &App<'_>, job: &str) -> Value {
    app.json(&["jobs:runs", job])[0].clone()
}

/// Waits until the newest run of a job is over, and says how it ended.
fn end_of(app: &App<'_>, job: &str) -> Value {
    crate::until("the run is over", || newest(app, job)["ended_at"].is_string());
    newest(app, job)
}

/// What a run wrote, without times and names.
fn output(app: &App<'_>, job: &str, run: &str) -> Vec<String> {
    let log = app.cli(&["jobs:logs", job, run]).expect_ok().stdout;
    log.lines().filter_map(|line| Some(line.split_once("]: ")?.1.to_owned())).collect()
}

#[test]
fn jobs_run_at_their_time_by_hand_in_parts_and_in_dynos_that_are_there() {
    let app = shared().app("probe-app");
    let ticks = "echo ticked as $JOB_NAME.$JOB_RUN of $DYNO";
    let cron = format!(
        r#"{{"cron": [{{"name": "tick", "command": "{ticks}", "schedule": "* * * * *", "timezone": "Asia/Tokyo"}}]}}"#
    );
    app.write("app.json", &cron);
    app.commit("a job");
    app.push().expect_ok();
    crate::until("its job is there", || app.json(&["jobs"])[0]["name"] == "tick");

    let command = "echo part $JOB_SHARD of $JOB_SHARDS: $JOB_SHARD_PARAMETER; exit $JOB_SHARD";
    let add = ["jobs:add", "import", "manual", command, "--set", "shards=2", "--set", "shard_parameters=eu,us"];
    app.cli(&add).expect_text(&["shard_parameters", "eu,us"]);
    app.cli(&["jobs:run", "import"]).expect_ok();
    let run = end_of(&app, "import");
    assert_eq!((&run["state"], &run["failure"]), (&"failed".into(), &"shard 1 exited with code 1".into()), "{run}");
    let both = ["part 0 of 2: eu", "part 1 of 2: us"];
    crate::until("its output is in the log", || {
        both.iter().all(|part| output(&app, "import", "1").iter().any(|line| line == part))
    });
    app.cli(&["jobs"]).expect_text(&["run 1 failed: shard 1 exited with code 1"]);
    app.cli(&["logs", "--source", "heroku", "--dyno", "scheduler"]).expect_text(&["Job import: run 1 failed"]);
    let events = app.json(&["events"]);
    let told = events.as_array().into_iter().flatten().any(|event| event["data"]["alert"] == "failed");
    assert!(told, "{events}");

    app.cli(&["jobs:update", "import", "command=sleep 100", "timeout=1s", "shards=1", "--unset", "shard_parameters"])
        .expect_ok();
    app.cli(&["jobs:run", "import"]).expect_ok();
    assert_eq!(end_of(&app, "import")["failure"], "it took longer than 1s and was ended");

    app.cli(&["jobs:add", "inside", "manual", "echo I am in $PWD", "--set", "kind=resident", "--set", "process=web"])
        .expect_ok();
    app.cli(&["jobs:run", "inside"]).expect_ok();
    let run = end_of(&app, "inside");
    assert_eq!((&run["state"], run["shards"][0]["instance"].is_string()), (&"succeeded".into(), true), "{run}");
    assert!(output(&app, "inside", "1").contains(&"I am in /app".to_owned()));

    crate::until("it ticks by itself", || newest(&app, "tick")["state"] == "succeeded");
    let number = newest(&app, "tick")["number"].to_string();
    crate::until("it said so", || {
        let expected = format!("ticked as tick.{number} of job-tick.{number}");
        output(&app, "tick", &number).contains(&expected)
    });
    app.cli(&["jobs:suspend", "tick"]).expect_text(&["suspended"]);
    app.cli(&["jobs:remove", "tick"]).expect_refused(&["app.json"]);
    app.cli(&["jobs:remove", "import"]).expect_ok();
}

#[test]
fn a_run_outlives_its_controller_and_the_death_of_an_instance() {
    let platform = Platform::start(&[]);
    let app = platform.app("probe-app");
    app.push().expect_ok();
    let command = "echo begun $JOB_SHARD.$JOB_ATTEMPT; while [ ! -e /tmp/go ] && [ $JOB_ATTEMPT = 1 ]; do sleep 0.1; done; exit 0";
    app.cli(&["jobs:add", "long", "manual", command, "--set", "shards=2"]).expect_ok();
    app.cli(&["jobs:run", "long"]).expect_ok();
    let begun = |what: &str| output(&app, "long", "1").iter().any(|line| line == what);
    crate::until("both have begun", || begun("begun 0.1") && begun("begun 1.1"));
    kill(&platform, "controller");
    let id = newest(&app, "long")["id"].as_str().expect("an id").to_owned();
    assert_eq!(newest(&app, "long")["state"], "running");
    kill_processes(&id, 1);
    crate::until("it runs elsewhere", || newest(&app, "long")["shards"][1]["deaths"] == 1);
    crate::until("that one is done", || newest(&app, "long")["shards"][1]["state"] == "done");
    let run = newest(&app, "long");
    assert_eq!(
        run["shards"][0]["state"],
        "up",
        "the other one goes on: {run}, {:?}",
        app.cli(&["logs", "-n", "200"]).stdout
    );
    kill(&platform, "host");
    app.cli(&["jobs:stop", "long"]).expect_ok();
    let run = end_of(&app, "long");
    assert_eq!((&run["state"], &run["number"]), (&"stopped".into(), &1.into()), "{run}");
    assert_eq!(app.json(&["jobs:runs", "long"]).as_array().map(Vec::len), Some(1), "all of it was one run");
}

/// Kills every process of a shard of a run, as the kernel would.
fn kill_processes(run: &str, shard: u32) {
    let (id, shard) = (format!("JOB_RUN_ID={run}"), format!("JOB_SHARD={shard}"));
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").expect("readable").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let has = |text: &str| environment.split(|byte| *byte == 0).any(|part| part == text.as_bytes());
        if has(&id) && has(&shard) {
            killed += u32::from(
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).is_ok(),
            );
        }
    }
    assert!(killed > 0, "no process of the shard is there");
}
