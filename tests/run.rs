//! One-offs, logs, isolation, and the little things of a day.

use crate::platform::shared;

#[test]
fn a_one_off_runs_with_the_release_and_hands_on_its_exit_status() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app.cli(&["config:set", "COLOUR=green"]).expect_ok();
    let ran = app.cli(&["run", "--", "sh", "-c", "echo colour $COLOUR in $PWD; exit 5"]);
    assert_eq!((ran.code, ran.stdout.trim()), (Some(5), "colour green in /app"), "{}", ran.text);
    let piped = shared().cli_with_input(&["run", "--app", &app.name, "--", "wc", "-c"], b"12345");
    assert_eq!(piped.stdout.trim(), "5", "{}", piped.text);
}

#[test]
fn one_stream_holds_build_app_router_and_platform_lines() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app.get("/log?from-the-app-itself");
    let all =
        ["app[api]", "probe 1 starts as web", "from-the-app-itself", "heroku[router]", "path=\"/log", "heroku[web.1]"];
    crate::until("all lines are there", || {
        let text = app.cli(&["logs", "-n", "500"]).expect_ok().text;
        all.iter().all(|part| text.contains(part))
    });
}

#[test]
fn visitors_addresses_and_request_ids_reach_the_app() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    let headers: serde_json::Value = serde_json::from_str(&app.get("/headers").body).expect("JSON");
    let header = |name: &str| {
        headers
            .as_object()
            .and_then(|all| all.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)))
            .map(|(_, value)| value.clone())
    };
    for name in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Request-Id"] {
        assert!(header(name).is_some(), "{name} is missing: {headers}");
    }
}

#[test]
fn websockets_pass() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    let stream = std::net::TcpStream::connect(app.platform.address()).expect("the router");
    let (mut socket, _) = tungstenite::client(format!("ws://{}/", app.host()), stream).expect("an upgrade");
    socket.send(tungstenite::Message::text("ping through")).expect("sent");
    assert_eq!(socket.read().expect("an echo"), tungstenite::Message::text("ping through"));
}

#[test]
fn an_app_runs_unprivileged_and_reaches_neither_others_nor_the_host() {
    let (one, other) = (shared().app("probe-app"), shared().app("probe-app"));
    one.push().expect_ok();
    other.push().expect_ok();
    let status = one.get("/status").body;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned()
    };
    assert!(field("Uid:").split_whitespace().all(|uid| uid.parse::<u32>().is_ok_and(|uid| uid >= 100_000)), "{status}");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("CapEff:"), "0000000000000000");
    let address = one.cli(&["run", "--", "hostname", "-i"]).stdout;
    let gateway = address.trim().rsplit_once('.').map(|(net, _)| format!("{net}.1")).unwrap_or_default();
    let router = app_port(other.platform.address());
    for target in [format!("{gateway}:{router}"), "169.254.169.254:80".to_owned()] {
        let answer = one.get(&format!("/connect?{target}"));
        assert!(answer.body.starts_with("refused"), "{target}: {}", answer.body);
    }
}

fn app_port(address: std::net::SocketAddr) -> u16 {
    address.port()
}

#[test]
fn an_unknown_host_gets_a_page_that_says_so() {
    let answer = shared().get("nobody-has-this.localhost", "/");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("no app") || answer.body.contains("No such app"), "{}", answer.body);
}

#[test]
fn create_says_how_to_push_the_branch_at_hand() {
    let platform = shared();
    let folder = platform.home().join("user/branches");
    std::fs::create_dir_all(&folder).expect("a folder");
    let here = |program: &str, args: &[&str]| {
        crate::platform::Ran::from(platform.command(program).args(args).current_dir(&folder).output().expect(program))
    };
    let create = |name: &str| here(env!("CARGO_BIN_EXE_platform"), &["create", name]).expect_ok();
    create("no-repository").expect_text(&["not a git repository", "platform git:remote -a no-repository"]);
    here("git", &["init", "-q", "-b", "master"]).expect_ok();
    create("on-master").expect_text(&["Added the git remote platform", "`git push platform master`"]);
    create("second-here").expect_text(&["already points to", "on-master.git"]);
    here("git", &["remote", "remove", "platform"]).expect_ok();
    here("git", &["symbolic-ref", "HEAD", "refs/heads/topic"]).expect_ok();
    create("on-topic").expect_text(&["`git push platform HEAD:main`"]);
}

#[test]
fn a_destroyed_app_is_gone() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app.platform.cli(&["destroy", "--app", &app.name, "--confirm", &app.name]).expect_ok();
    crate::until("no route is left", || app.get("/").status == 404);
    app.cli(&["info"]).expect_refused(&["Couldn't find that app"]);
}
