//! `git push platform main`, and the app is live.

use crate::platform::{App, Platform, shared};

#[test]
fn the_first_push_goes_live_and_the_next_one_replaces_it() {
    let app = shared().app("probe-app");
    crate::until("the app has a page that says that nothing was deployed yet", || app.get("/").status == 503);

    let push = app.push().expect_ok();
    push.expect_text(&["remote: ", "Released v", &format!("http://{}:", app.host()), "deployed"]);
    assert_eq!(app.get("/").body, "version 1 web.1");

    app.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
    app.commit("second");
    app.push().expect_ok();
    assert_eq!(app.get("/").body, "version 2 web.1");
}

#[test]
fn node_python_go_and_static_apps_are_built_and_answer() {
    for (fixture, expected, parts) in [
        ("go-app", "Hello from Go", ["pkg:golang/stdlib@1.", "pkg:deb/debian/libc6@"]),
        ("node-app", "Hello from Node.js", ["pkg:npm/ms@2.1.3", "pkg:generic/node@24."]),
        ("python-app", "Hello from Python", ["pkg:pypi/flask@3.1.2", "pkg:generic/python@3."]),
        ("static-app", "Hello from static files", ["pkg:deb/debian/nginx", "pkg:deb/debian/libc6@"]),
    ] {
        let app = shared().app(fixture);
        app.push().expect_ok();
        let answer = app.get("/");
        assert_eq!(answer.status, 200, "{fixture}: {}", answer.body);
        assert!(answer.body.contains(expected), "{fixture}: {}", answer.body);
        app.cli(&["builds:sbom", "--format", "cyclonedx"]).expect_ok().expect_text(&parts);
    }
    for (language, fixture, expected) in [("node", "node-app", "Hello from Node.js"), ("go", "go-app", "Hello from Go")]
    {
        let ready = shared().home().join("cache/builds/toolchains").join(language);
        let is_ready = || ready.read_dir().is_ok_and(|mut versions| versions.next().is_some());
        crate::until(&format!("{language} is ready for all apps"), is_ready);
        let second = shared().app(fixture);
        if language == "go" {
            second.write("Procfile", "web: bin/go-app\n");
            second.commit("as on Heroku");
        }
        second.push().expect_ok().expect_text(&["ready on this machine"]);
        assert!(second.get("/").body.contains(expected));
    }
}

#[test]
fn a_ruby_app_gets_its_language_and_its_aptfile_from_debian_only_once() {
    let app = shared().app("ruby-app");
    app.push().expect_ok().expect_text(&["Installing Debian packages", "bundler, hello, ruby"]);
    assert_eq!(app.get("/").body, "Hello from Ruby, and from Debian: Hello, world!\n");

    app.edit("vendor/greeting/lib/greeting.rb", "Ruby", "Bundler");
    app.commit("second");
    let second = app.push().expect_ok();
    assert!(!second.text.contains("Installing Debian packages"), "{}", second.text);
    assert!(app.get("/").body.starts_with("Hello from Bundler"));
}

#[test]
fn a_push_that_no_buildpack_takes_is_refused_with_what_each_looked_for() {
    let app = shared().app("probe-app");
    app.git(&["rm", "-q", "-r", "."]).expect_ok();
    app.write("notes.txt", "nothing to run");
    app.commit("no app");
    app.push().expect_refused(&[
        "package.json",
        "requirements.txt",
        "go.mod",
        "index.html",
        "Procfile",
        "[remote rejected]",
    ]);
    assert_eq!(app.get("/").status, 503);
}

#[test]
fn a_build_step_that_fails_refuses_the_push_with_its_output_and_exit_code() {
    let app = shared().app("node-app");
    set_build_script(&app, "echo the reactor is cold; exit 42");
    app.commit("broken build");
    app.push().expect_refused(&["the reactor is cold", "42", "[remote rejected]"]);
    let builds = app.json(&["builds"]);
    assert_eq!(builds[0]["status"], "failed");
}

#[test]
fn an_app_json_sets_the_app_up_with_its_first_push() {
    let app = shared().app("probe-app");
    app.write(
        "app.json",
        r#"{
            "env": {"GREETING": "hello", "KEY": {"generator": "secret"}, "MAIL_FROM": {"description": "Sender of mail"}},
            "addons": ["redis"],
            "formation": {"web": {"quantity": 2}, "worker": {"quantity": 1}},
            "scripts": {"postdeploy": "echo seeded with $GREETING and ${REDIS_URL%%:*}"},
            "cron": [{"command": "true", "schedule": "@daily"}]
        }"#,
    );
    app.commit("says what it needs");
    app.push().expect_refused(&["MAIL_FROM", "Sender of mail", "platform config:set MAIL_FROM=", "[remote rejected]"]);
    assert_eq!(app.json(&["config"]), serde_json::json!({}), "a refused push changes nothing");

    app.cli(&["config:set", "MAIL_FROM=shop@example.com"]).expect_ok();
    let first = app.push().expect_ok();
    let parts = ["Config vars: GREETING, KEY (made up)", "(redis) as REDIS", "seeded with hello and redis"];
    first.expect_text(&parts);
    let config = app.json(&["config"]);
    assert_eq!((&config["GREETING"], config["KEY"].as_str().map(str::len)), (&"hello".into(), Some(64)));
    let formation = app.json(&["ps:scale"]);
    let quantity = |name: &str| {
        let all = formation.as_array().into_iter().flatten();
        all.filter(|part| part["type"] == name).find_map(|part| part["quantity"].as_u64())
    };
    assert_eq!((quantity("web"), quantity("worker")), (Some(2), Some(1)));

    app.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
    app.commit("second");
    let second = app.push().expect_ok();
    assert!(!second.text.contains("Setting up") && !second.text.contains("seeded"), "{}", second.text);
    assert_eq!(app.json(&["config"]), config, "what is set stays");
}

#[test]
fn other_branches_do_not_deploy() {
    let app = shared().app("probe-app");
    app.git(&["checkout", "-q", "-b", "topic"]).expect_ok();
    app.git(&["push", "platform", "topic"]).expect_ok().expect_text(&["only main and master do", "Nothing was built"]);
    assert_eq!(app.json(&["builds"]), serde_json::json!([]));
    assert_eq!(app.get("/").status, 503);
}

#[test]
fn a_wrong_token_and_an_unknown_app_are_refused() {
    let app = shared().app("probe-app");
    let url = shared().url().replace("http://", "http://x:wrong@");
    let helperless = ["-c", "credential.helper="];
    app.git(&[&helperless[..], &["push", &format!("{url}/{}.git", app.name), "main"]].concat())
        .expect_refused(&["Authentication failed"]);
    app.git(&["push", &format!("{}/no-such-app.git", shared().url()), "main"]).expect_refused(&["not found"]);
}

#[test]
fn losing_the_client_does_not_lose_the_build() {
    let app = shared().app("probe-app");
    let mut push = app.start_git(&["push", "platform", "main"]);
    let is_building = || app.json(&["builds"]).as_array().is_some_and(|builds| !builds.is_empty());
    while !is_building() {
        assert!(push.try_wait().expect("a child").is_none(), "the push ended before its build was seen");
    }
    push.kill().expect("killed");
    push.wait().expect("ended");
    while app.json(&["builds"])[0]["status"] == "pending" {
        std::thread::yield_now();
    }
    assert_eq!(app.json(&["builds"])[0]["status"], "succeeded");
    crate::until("the new release answers", || app.get("/").status == 200);
}

#[test]
fn one_build_at_a_time_and_none_of_an_app_that_is_gone() {
    let app = shared().app("node-app");
    set_build_script(&app, "sleep 100000");
    app.commit("a build that never ends");
    let mut first = app.start_git(&["push", "platform", "main"]);
    crate::until("the first build has begun", || !app.json(&["builds"]).as_array().is_none_or(Vec::is_empty));
    app.git(&["push", "platform", "HEAD:master"]).expect_refused(&["A build of", "is running", "push again"]);
    app.platform.cli(&["destroy", "--app", &app.name, "--confirm", &app.name]).expect_ok();
    crate::until("the first push ends", || first.try_wait().expect("a child").is_some());
    assert!(!first.wait().expect("ended").success());
}

fn set_build_script(app: &App<'_>, script: &str) {
    let manifest = std::fs::read_to_string(app.folder.join("package.json")).expect("readable");
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    manifest["scripts"]["build"] = script.into();
    app.write("package.json", &manifest.to_string());
}

#[test]
fn a_push_over_the_limit_is_refused_with_the_limit() {
    let platform = Platform::start(&[("PLATFORM_PUSH_LIMIT", "2MiB")]);
    let app = platform.app("probe-app");
    app.push().expect_ok();
    // Larger than what sockets hold on the way, and not compressible.
    let mut noise = vec![0; 24 << 20];
    model::Random::fill(&model::clock::SystemRandom, &mut noise);
    std::fs::write(app.folder.join("noise"), noise).expect("written");
    app.commit("too large");
    app.push().expect_refused(&["pack exceeds maximum allowed size (2.00 MiB)", "[remote rejected]"]);
    assert_eq!(app.get("/").body, "version 1 web.1");
    app.git(&["reset", "-q", "--hard", "HEAD^"]).expect_ok();
    app.git(&["commit", "-q", "--allow-empty", "-m", "small again"]).expect_ok();
    app.push().expect_ok();
}
