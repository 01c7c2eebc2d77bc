//! Hosts that several apps share, each from a path on.

use http::Request;
use model::routes::{AppRoute, Place, RouteMode, WorkloadId};
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http2;
use crate::world::{LONG, World, app_id, app_row, listen, mirror, read_head, send};

/// Makes an app that has these parts of hosts, `www.example.com/api` or, without what follows it, `www.example.com/api!`.
async fn place(world: &World, app: &str, (hosts, places): (&[&str], &[&str]), settings: &[(&str, &str)]) {
    let mut row = app_row(app, RouteMode::serve(WorkloadId(app.to_owned())));
    row.hosts.extend(hosts.iter().map(|host| host.parse().expect("a host name")));
    row.places = places.iter().map(|text| at(text)).collect();
    let mut policy = model::RoutePolicy::default();
    for (name, value) in settings {
        policy.set(name, value).expect(name);
    }
    let policy = (!settings.is_empty()).then(|| Box::new(policy));
    let version = world.names.set(&app_id(app), Some(AppRoute { policy, ..row }));
    assert!(world.names.served(version, LONG).await);
}

fn at(text: &str) -> Place {
    let (host, path) = text.split_once('/').expect("a path");
    let path = format!("/{}", path.trim_end_matches('!')).parse().expect("a path");
    Place { host: host.parse().expect("a host name"), path: Some(path), strip: text.ends_with('!') }
}

/// `www.example.com` of the app `shop`, but for what `api` has of it.
async fn shared(places: &[&str]) -> World {
    let world = World::new(Timeouts::default()).await;
    for app in ["shop", "api"] {
        world.instances(app, &[&mirror(app).await]).await;
    }
    place(&world, "shop", (&["www.example.com"], &[]), &[]).await;
    place(&world, "api", (&[], places), &[]).await;
    world
}

async fn ask(world: &World, host: &str, path: &str, lines: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n");
    send(world.address, request.as_bytes()).await
}

/// Which app was asked, and for what: its request line is the first of what it says.
async fn asked(world: &World, host: &str, path: &str) -> String {
    let answer = ask(world, host, path, "").await;
    let line = answer.split("\r\n\r\n").nth(1).and_then(|body| body.lines().next()).unwrap_or_default();
    let prefix = answer.lines().find_map(|line| line.strip_prefix("x-forwarded-prefix: ")).unwrap_or("-");
    format!("{} {prefix}", line.split(' ').nth(1).unwrap_or(&answer))
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_share_a_host_by_path() {
    let world = shared(&["www.example.com/api!", "www.example.com/api/v2", "*.wild.example/x!"]).await;
    for (path, seen) in [
        ("/", "/ -"),
        ("/apix", "/apix -"),
        ("/x/api?a=/api", "/x/api?a=/api -"),
        ("/api", "/ /api"),
        ("/api/", "/ /api"),
        ("/api?a=b", "/?a=b /api"),
        ("/api/x/y?a=b", "/x/y?a=b /api"),
        ("/api//x", "//x /api"),
        ("/api/v2/x", "/api/v2/x -"),
        ("/api/v22", "/v22 /api"),
        ("/api/a%20b%2Fc", "/a%20b%2Fc /api"),
    ] {
        assert_eq!(asked(&world, "www.example.com", path).await, seen, "{path}");
    }
    world.logged(&["path=\"/api/x/y?a=b\"", "host=www.example.com"]).await;
    assert_eq!(asked(&world, "any.wild.example", "/x/y").await, "/y /x");
    let nobody = ask(&world, "any.wild.example", "/y", "").await;
    assert!(nobody.starts_with("HTTP/1.1 404"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_can_be_read_as_another_apps_is_refused_where_there_is_one() {
    let world = shared(&["www.example.com/api!"]).await;
    let unclear = [
        "/%61pi/x",
        "/%2561pi",
        "//api",
        "/x/../api",
        "/./api/x",
        "/api/../x",
        "/api/..",
        "/api/%2e%2e/x",
        "/api/..%2Fx",
        "/api/..%252fx",
        "/api;v=1/x",
        "/api/..;/x",
        "/api/..\\x",
        "/api%2Fx",
        "/x%2F..%2Fapi",
    ];
    for path in unclear {
        let refused = ask(&world, "www.example.com", path, "Accept: application/json\r\n").await;
        assert!(refused.starts_with("HTTP/1.1 400"), "{path}: {refused}");
        assert!(refused.contains("can be read as that of another application"), "{refused}");
        assert_eq!(asked(&world, "shop.localhost", path).await, format!("{path} -"), "nobody else has a part of it");
    }
    for clear in ["/x/../y", "//x", "/a%2Fb", "/a;b"] {
        assert_eq!(asked(&world, "www.example.com", clear).await, format!("{clear} -"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_router_says_what_was_taken_off_a_path() {
    let world = shared(&["www.example.com/api!", "www.example.com/kept"]).await;
    let lines = "X-Forwarded-Prefix: /evil\r\nX_Forwarded_Prefix: /evil\r\n";
    let answer = ask(&world, "www.example.com", "/api/x", lines).await;
    assert!(answer.contains("x-forwarded-prefix: /api\n") && !answer.contains("evil"), "{answer}");
    for path in ["/kept", "/"] {
        let answer = ask(&world, "www.example.com", path, lines).await;
        assert!(!answer.contains("prefix") && !answer.contains("evil"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_and_cookies_are_of_the_part_that_the_client_sees() {
    let world = shared(&[]).await;
    let of_api = ["www.example.com/api!", "example.com/v1!"];
    place(&world, "api", (&["api.example.com"], &of_api), &[("affinity", "on")]).await;
    place(&world, "shop", (&["www.example.com"], &[]), &[("affinity", "on")]).await;
    let api = ask(&world, "www.example.com", "/api/x", "").await;
    assert!(api.contains("; Path=/api; Max-Age"), "{api}");
    let shop = ask(&world, "www.example.com", "/x", "").await;
    assert!(shop.contains("; Path=/; Max-Age"), "{shop}");
    for (canonical, host, path, location) in [
        ("www.example.com", "example.com", "/v1/x?a=b", "http://www.example.com/api/x?a=b"),
        ("www.example.com", "api.example.com", "/x", "http://www.example.com/api/x"),
        ("api.example.com", "www.example.com", "/api/x", "http://api.example.com/x"),
        ("api.example.com", "www.example.com", "/api", "http://api.example.com/"),
        ("elsewhere.example", "www.example.com", "/api/x", "http://elsewhere.example/api/x"),
    ] {
        place(&world, "api", (&["api.example.com"], &of_api), &[("canonical_host", canonical)]).await;
        let port = world.address.port();
        let moved = ask(&world, host, path, "").await;
        let wanted = location.replacen(canonical, &format!("{canonical}:{port}"), 1);
        assert!(moved.to_lowercase().contains(&format!("location: {wanted}\r\n")), "{wanted}: {moved}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http2_and_a_tunnel_go_to_the_app_of_their_path() {
    let world = shared(&["www.example.com/api!"]).await;
    let mut sender = http2::client(&world).await;
    for (path, seen) in [("/api/x?y", "/x?y"), ("/x", "/x")] {
        let wish = Request::get(format!("http://www.example.com{path}")).body(http2::empty()).expect("a request");
        let answer = http2::text(http2::send(&mut sender, wish).await).await;
        assert!(answer.starts_with(&format!("GET {seen} HTTP/1.1")), "{answer}");
    }
    let (listener, talking) = listen("talking").await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let head = read_head(&mut stream).await;
        let line = head.lines().next().unwrap_or_default();
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n{line}");
        stream.write_all(answer.as_bytes()).await.expect("sent");
    });
    world.instances("api", &[&talking]).await;
    let mut client = TcpStream::connect(world.address).await.expect("a connection");
    let head = "GET /api/talk HTTP/1.1\r\nHost: www.example.com\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    tokio::time::timeout(LONG, client.read_to_string(&mut answer)).await.expect("it ends").expect("text");
    assert!(answer.starts_with("HTTP/1.1 101") && answer.ends_with("\r\n\r\nGET /talk HTTP/1.1"), "{answer}");
}
