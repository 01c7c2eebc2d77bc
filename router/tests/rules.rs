//! What the owner of an app says of its requests, as its visitors notice it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use model::routes::{Endpoint, RouteMode, Share, WorkloadId};
use router::{RouterSettings, Timeouts, TlsEntrance};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::world::{LONG, World, app_id, app_row, get, instance, mirror, named, send, settings, until};

/// What comes back for a GET with these further header lines.
async fn ask(world: &World, app: &str, lines: &str) -> String {
    let request = format!("GET /a?b=c HTTP/1.1\r\nHost: {app}.localhost\r\n{lines}Connection: close\r\n\r\n");
    send(world.address, request.as_bytes()).await
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// An instance that answers once somebody lets it, and says when it was asked.
async fn held(name: &'static str) -> (Endpoint, Arc<AtomicUsize>, Arc<Semaphore>) {
    let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let endpoint = instance(name, {
        let (asked, gate) = (Arc::clone(&asked), Arc::clone(&gate));
        move |_| {
            let (asked, gate) = (Arc::clone(&asked), Arc::clone(&gate));
            async move {
                asked.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.expect("open").forget();
                Response::new(Full::from(name))
            }
        }
    })
    .await;
    (endpoint, asked, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_are_let_in_who_may_ask() {
    let world = World::new(Timeouts::default()).await;
    let web = named("here").await;
    world.instances("shop", &[&web]).await;
    world.rule("shop", &[("deny", "127.0.0.0/8")]).await;
    let refused = ask(&world, "shop", "Accept: application/json\r\n").await;
    assert_eq!((status(&refused), header(&refused, "content-type")), ("403", Some("application/json")), "{refused}");
    assert!(body(&refused).contains("\"id\":\"forbidden\""), "{refused}");
    world.rule("shop", &[("allow", "10.0.0.0/8")]).await;
    assert_eq!(status(&ask(&world, "shop", "").await), "403");
    world.rule("shop", &[("allow", "10.0.0.0/8,127.0.0.1")]).await;
    assert_eq!(status(&ask(&world, "shop", "").await), "200");
    world.logged(&["status=403", "at=info"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_and_checked() {
    let world = World::new(Timeouts::default()).await;
    let web = mirror("here").await;
    world.instances("shop", &[&web]).await;
    world.rule("shop", &[("basic_auth", &format!("ada:{}", hash_of_secret()))]).await;
    let refused = ask(&world, "shop", "").await;
    assert_eq!(status(&refused), "401");
    assert!(header(&refused, "www-authenticate").is_some_and(|value| value.starts_with("Basic ")), "{refused}");
    let with = |pair: &str| format!("Authorization: Basic {}\r\n", BASE64.encode(pair));
    for _ in 0..2 {
        assert_eq!(status(&ask(&world, "shop", &with("ada:secret")).await), "200");
        for wrong in ["ada:wrong", "eve:secret", "ada:", "ada"] {
            assert_eq!(status(&ask(&world, "shop", &with(wrong)).await), "401", "{wrong}");
        }
    }
}

/// A hash of `secret` that costs little.
fn hash_of_secret() -> String {
    use argon2::password_hash::{PasswordHasher, SaltString};
    let params = argon2::Params::new(64, 1, 1, None).expect("parameters");
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let salt = SaltString::encode_b64(b"some salt of it").expect("a salt");
    argon.hash_password(b"secret", &salt).expect("a hash").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let world = World::new(Timeouts::default()).await;
    let web = named("here").await;
    world.instances("shop", &[&web]).await;
    world.rule("shop", &[("rate_limit", "2/1h")]).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(ask(&world, "shop", "").await);
    }
    assert_eq!([status(&answers[0]), status(&answers[1]), status(&answers[2])], ["200", "200", "429"]);
    let seconds: u64 = header(&answers[2], "retry-after").expect("a time").parse().expect("seconds");
    assert!((1700..=1801).contains(&seconds), "half an hour for one of two an hour: {seconds}");
    // A deploy of the app does not make anybody new.
    world.rule("shop", &[("rate_limit", "2/1h")]).await;
    assert_eq!(status(&ask(&world, "shop", "").await), "429");
    world.route("shop").await;
    assert_eq!(status(&ask(&world, "shop", "").await), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn visitors_are_sent_to_the_one_host_and_to_tls() {
    let world = World::new(Timeouts::default()).await;
    let web = named("here").await;
    world.instances("shop", &[&web]).await;
    world.rule("shop", &[("canonical_host", "www.example.com")]).await;
    let port = world.address.port();
    let moved = ask(&world, "shop", "").await;
    let to = format!("http://www.example.com:{port}/a?b=c");
    assert_eq!((status(&moved), header(&moved, "location")), ("301", Some(to.as_str())), "{moved}");
    let request = "POST /x HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&send(world.address, request.as_bytes()).await), "308", "its method and body stay");
    world.rule("shop", &[("canonical_host", "shop.localhost"), ("https", "on")]).await;
    assert_eq!(status(&ask(&world, "shop", "").await), "200", "there is no entrance for TLS");

    let folder = tempfile::tempdir().expect("a folder");
    let authority = router::tls::Authority::new(&folder.path().join("tls"));
    let now = model::Clock::now(&model::clock::SystemClock);
    authority.ensure(&"localhost".parse().expect("a host name"), now).expect("certificates");
    // Visitors are sent to the port that it is told to listen on: one that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let tickets = folder.path().join("tickets.json");
    let tls = Some(TlsEntrance { listen: vec![free], certificate: authority.server(), tickets });
    let settings = RouterSettings { tls, ..settings(folder.path()) };
    let world = World::with(folder, settings).await;
    world.instances("shop", &[&web]).await;
    world.rule("shop", &[("https", "on")]).await;
    let to = format!("https://shop.localhost:{}/a?b=c", free.port());
    assert_eq!(header(&ask(&world, "shop", "").await, "location"), Some(to.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_told_that_they_may_ask() {
    let world = World::new(Timeouts::default()).await;
    let web = named("here").await;
    world.instances("shop", &[&web]).await;
    world.rule("shop", &[("cors", "https://app.example"), ("basic_auth", &format!("ada:{}", hash_of_secret()))]).await;
    let preflight = "OPTIONS / HTTP/1.1\r\nHost: shop.localhost\r\nOrigin: https://app.example\r\n\
                     Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a\r\nConnection: close\r\n\r\n";
    let may = send(world.address, preflight.as_bytes()).await;
    assert_eq!(
        (status(&may), header(&may, "access-control-allow-origin")),
        ("204", Some("https://app.example")),
        "{may}"
    );
    assert!(header(&may, "access-control-allow-methods").is_some_and(|methods| methods.contains("PUT")), "{may}");
    assert_eq!(header(&may, "access-control-allow-headers"), Some("x-a"));
    let foreign = preflight.replace("app.example", "evil.example");
    assert_eq!(status(&send(world.address, foreign.as_bytes()).await), "401", "that is a request as any");

    world.rule("shop", &[("cors", "https://app.example")]).await;
    let mine = ask(&world, "shop", "Origin: https://app.example\r\n").await;
    assert_eq!(header(&mine, "access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(header(&mine, "vary"), Some("Origin"));
    for other in ["Origin: https://evil.example\r\n", ""] {
        assert_eq!(header(&ask(&world, "shop", other).await, "access-control-allow-origin"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_no_longer_than_it_may_be_whatever_it_says_of_itself() {
    let world = World::new(Timeouts::default()).await;
    let web = mirror("here").await;
    world.instances("shop", &[&web]).await;
    world.rule("shop", &[("max_body", "8")]).await;
    let post = |head: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: shop.localhost\r\n{head}Connection: close\r\n\r\n{body}").into_bytes()
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    let sent = async |head: &str, body: &str| send(world.address, &post(head, body)).await;
    assert_eq!(status(&sent("Content-Length: 8\r\n", "12345678").await), "200");
    assert_eq!(status(&sent(chunked, "8\r\n12345678\r\n0\r\n\r\n").await), "200");
    let long = sent("Content-Length: 9\r\n", "123456789").await;
    assert_eq!(status(&long), "413", "{long}");
    world.logged(&["code=H26", "status=413", "body too large"]).await;
    let long = sent(chunked, "5\r\n12345\r\n5\r\n67890\r\n0\r\n\r\n").await;
    assert_eq!(status(&long), "413", "{long}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_says_how_long_it_may_take() {
    let world = World::new(Timeouts::default()).await;
    let (web, _, gate) = held("slow").await;
    world.instances("shop", &[&web]).await;
    world.rule("shop", &[("first_byte_timeout", "1s")]).await;
    let late = ask(&world, "shop", "").await;
    assert_eq!(status(&late), "503", "{late}");
    world.logged(&["code=H12"]).await;
    gate.add_permits(2);
    assert_eq!(status(&ask(&world, "shop", "").await), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_in_a_queue_with_an_end_while_every_instance_has_as_many_as_it_may() {
    let world = World::new(Timeouts::default()).await;
    let (web, asked, gate) = held("busy").await;
    world.instances("shop", &[&web]).await;
    world.rule("shop", &[("max_concurrency", "1"), ("queue", "1"), ("queue_timeout", "1m")]).await;
    let address = world.address;
    let first = tokio::spawn(async move { get(address, "shop", "/1").await });
    until(async || asked.load(Ordering::SeqCst) == 1).await;
    // Of two more, one waits, and the other one finds the queue full.
    let mut others = [2, 3].map(|number| {
        let path = format!("/{number}");
        tokio::spawn(async move { get(address, "shop", &path).await })
    });
    let [one, other] = &mut others;
    let (refused, second) = tokio::select! {
        answer = &mut *one => (answer, other),
        answer = &mut *other => (answer, one),
    };
    let refused = refused.expect("answered");
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert_eq!(header(&refused, "retry-after"), Some("5"));
    world.logged(&["code=H11", "Backlog too deep"]).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1, "never two at once");
    gate.add_permits(2);
    assert_eq!(status(&first.await.expect("answered")), "200");
    assert_eq!(status(&second.await.expect("answered")), "200");
    world.rule("shop", &[("max_concurrency", "1"), ("queue_timeout", "1s")]).await;
    let (other, other_asked, other_gate) = held("other").await;
    world.instances("shop", &[&other]).await;
    let first = tokio::spawn(async move { get(address, "shop", "/1").await });
    until(async || other_asked.load(Ordering::SeqCst) == 1).await;
    assert_eq!(status(&ask(&world, "shop", "").await), "503", "it waits for a second");
    // An instance more is room as well.
    world.rule("shop", &[("max_concurrency", "1"), ("queue_timeout", "1m")]).await;
    let waits = tokio::spawn(async move { get(address, "shop", "/2").await });
    let more = named("more").await;
    world.instances("shop", &[&other, &more]).await;
    assert_eq!(body(&waits.await.expect("answered")), "more");
    other_gate.add_permits(1);
    first.await.expect("answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_comes_back_to_the_instance_that_answered_it_first() {
    let world = World::new(Timeouts::default()).await;
    let (one, two) = (named("one").await, named("two").await);
    world.instances("shop", &[&one, &two]).await;
    world.rule("shop", &[("affinity", "on")]).await;
    let first = ask(&world, "shop", "").await;
    let cookie = header(&first, "set-cookie").expect("a cookie");
    assert!(cookie.starts_with("heroku-session-affinity=") && cookie.contains("HttpOnly"), "{cookie}");
    let line = format!("Cookie: a=b; {}\r\n", cookie.split(';').next().expect("a pair"));
    for _ in 0..20 {
        let again = ask(&world, "shop", &line).await;
        assert_eq!(body(&again), body(&first));
        assert_eq!(header(&again, "set-cookie"), None, "it has it");
    }
    let (stays, stayed) = if body(&first) == "one" { (&two, "two") } else { (&one, "one") };
    world.instances("shop", &[stays]).await;
    let moved = ask(&world, "shop", &line).await;
    assert_eq!(body(&moved), stayed);
    assert!(
        header(&moved, "set-cookie").is_some_and(|other| !other.starts_with(cookie.split(';').next().expect("a pair")))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_it_gets_the_newer_of_two_releases() {
    let world = World::new(Timeouts::default()).await;
    let (old, new) = (named("old").await, named("new").await);
    world.instances("shop.v1", &[&old]).await;
    world.instances("shop.v2", &[&new]).await;
    let shares =
        [("shop.v1", 1_000_000), ("shop.v2", 1)].map(|(id, weight)| Share { workload: WorkloadId(id.into()), weight });
    for (rule, line) in
        [("header:X-Canary=yes", "x-canary: yes\r\n"), ("cookie:canary=yes", "Cookie: a=b; canary=yes\r\n")]
    {
        let mut policy = model::RoutePolicy::default();
        policy.set("canary_match", rule).expect("a rule");
        let row = model::routes::AppRoute {
            policy: Some(Box::new(policy)),
            ..app_row("shop", RouteMode::Serve(shares.to_vec()))
        };
        let version = world.names.set(&app_id("shop"), Some(row));
        assert!(world.names.served(version, LONG).await);
        for _ in 0..10 {
            assert_eq!(body(&ask(&world, "shop", line).await), "new", "{rule}");
            assert_eq!(body(&ask(&world, "shop", &line.replace("yes", "no")).await), "old", "{rule}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_fails_again_and_again_is_left_alone_until_one_request_says_that_it_is_well() {
    let world = World::new(Timeouts { ejection: Duration::from_millis(500), ..Timeouts::default() }).await;
    let (well, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let ill = instance("ill", {
        let (well, failures) = (Arc::clone(&well), Arc::clone(&failures));
        move |_| {
            let is_well = well.load(Ordering::SeqCst) > 0;
            failures.fetch_add(usize::from(!is_well), Ordering::SeqCst);
            let answer = Response::builder().status(if is_well { 200 } else { 500 });
            async move { answer.body(Full::from(Bytes::from_static(b"ill"))).expect("an answer") }
        }
    })
    .await;
    let other = named("other").await;
    world.serve("shop", &[&ill, &other]).await;
    until(async || {
        get(world.address, "shop", "/").await;
        failures.load(Ordering::SeqCst) == 5
    })
    .await;
    for _ in 0..30 {
        assert_eq!(body(&get(world.address, "shop", "/").await), "other");
    }
    assert_eq!(failures.load(Ordering::SeqCst), 5, "it is left alone");
    until(async || {
        get(world.address, "shop", "/").await;
        failures.load(Ordering::SeqCst) == 6
    })
    .await;
    for _ in 0..10 {
        assert_eq!(body(&get(world.address, "shop", "/").await), "other", "one request said that it is not well");
    }
    well.store(1, Ordering::SeqCst);
    until(async || body(&get(world.address, "shop", "/").await) == "ill").await;
    let answers = async || body(&get(world.address, "shop", "/").await) == "ill";
    until(answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_instance_is_never_left_alone_for_its_answers() {
    let world = World::new(Timeouts::default()).await;
    let ill = instance("ill", |_| async {
        Response::builder().status(500).body(Full::from(Bytes::from_static(b"ill"))).expect("an answer")
    })
    .await;
    world.serve("shop", &[&ill]).await;
    for _ in 0..20 {
        assert_eq!(status(&get(world.address, "shop", "/").await), "500");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_no_good_leaves_its_app_as_it_was_and_changes_every_other_one() {
    let mut world = World::new(Timeouts::default()).await;
    let (old, new) = (named("old").await, named("new").await);
    world.serve("shop", &[&old]).await;
    world.serve("forum", &[&old]).await;
    world.instances("next", &[&new]).await;
    world.kill_publishers();
    // Somebody else says the names from now on, and of the shop nothing that can be.
    let socket = world.folder.path().join("names.sock");
    std::fs::remove_file(&socket).expect("removed");
    let publisher = tokio::net::UnixListener::bind(&socket).expect("a socket");
    let serve = |app: &str| {
        let row = app_row(app, RouteMode::serve(WorkloadId("next".to_owned())));
        (serde_json::to_value(app_id(app)).expect("JSON"), serde_json::to_value(row).expect("JSON"))
    };
    let (mut shop, forum) = (serve("shop"), serve("forum"));
    shop.1["policy"] = serde_json::json!({ "queue": "many" });
    for reset in [true, false] {
        let update = serde_json::json!({ "version": 7, "reset": reset, "set": [shop, forum], "unset": [] });
        let (mut stream, _) = publisher.accept().await.expect("the router");
        stream.write_all(format!("{update}\n").as_bytes()).await.expect("said");
        until(async || body(&get(world.address, "forum", "/").await) == "new").await;
        assert_eq!(body(&get(world.address, "shop", "/").await), "old", "reset: {reset}");
    }
    // On disk as well.
    let table = world.folder.path().join("table.json");
    until(async || std::fs::read_to_string(&table).unwrap_or_default().contains("\"next\"")).await;
    world.stop().await;
    let text = std::fs::read_to_string(&table).expect("a table");
    let text = text.replacen("\"mode\":{\"serve\"", "\"policy\":{\"queue\":\"many\"},\"mode\":{\"serve\"", 1);
    std::fs::write(&table, text).expect("written");
    world.start_router(Timeouts { boot: Duration::from_millis(10), ..Timeouts::default() });
    let known = [get(world.address, "shop", "/").await, get(world.address, "forum", "/").await];
    assert_eq!(known.iter().filter(|answer| status(answer) == "404").count(), 1, "one of them: {known:?}");
}
