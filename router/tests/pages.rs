//! What a client gets when there is no app to answer, or no request to understand.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use model::routes::{RouteMode, WorkloadAddresses};
use router::Timeouts;

use crate::world::{World, get, instance, mirror, send};

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_an_app_has_its_page_and_its_code() {
    let world = World::new(Timeouts { boot: Duration::from_millis(50), ..Timeouts::default() }).await;
    let unknown = get(world.address, "nobody", "/").await;
    assert!(unknown.starts_with("HTTP/1.1 404 Not Found"), "{unknown}");
    assert!(unknown.contains("No such app") && unknown.contains("nobody.localhost"), "{unknown}");

    world.name("blank", RouteMode::Blank).await;
    world.name("closed", RouteMode::Maintenance).await;
    world.name("noweb", RouteMode::NoWeb).await;
    world.serve("crashed", &[]).await;
    world.workload("crashed", WorkloadAddresses { crashed: 1, ..WorkloadAddresses::default() }).await;
    world.serve("booting", &[]).await;
    world.workload("booting", WorkloadAddresses { starting: 1, crashed: 1, ..WorkloadAddresses::default() }).await;
    for (app, code, words) in [
        ("blank", "H81", "nothing has been deployed"),
        ("closed", "H80", "undergoing maintenance"),
        ("noweb", "H14", "no web process"),
        ("crashed", "H10", "An error occurred in the application"),
        ("booting", "H20", "took too long"),
    ] {
        let page = get(world.address, app, "/some/page").await;
        assert!(page.starts_with("HTTP/1.1 503 Service Unavailable"), "{page}");
        assert!(page.contains(words) && page.contains(code), "{app}: {page}");
        let host = format!("host={app}.localhost");
        world.logged(&[code, &host, "heroku[router]: at=", "path=\"/some/page\"", "status=503"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_can_be_read_in_two_ways_reaches_no_app() {
    let world = World::new(Timeouts::default()).await;
    let mirror = mirror("m").await;
    world.serve("shop", &[&mirror]).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: shop.localhost\r\nHost: evil.localhost\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: x@shop.localhost\r\n\r\n", "400"),
        ("GET http://evil.localhost/ HTTP/1.1\r\nHost: shop.localhost\r\n\r\n", "400"),
        ("CONNECT shop.localhost:80 HTTP/1.1\r\nHost: shop.localhost\r\n\r\n", "405"),
        ("POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"),
        ("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: +1\r\n\r\na", "400"),
        ("POST / HTTP/1.1\r\nHost: shop.localhost\r\nExpect: tea\r\nContent-Length: 1\r\n\r\na", "417"),
    ] {
        let answer = send(world.address, request.as_bytes()).await;
        assert!(answer.split(' ').nth(1) == Some(status), "{request:?}: {answer}");
        assert!(!answer.contains(" 200 OK"), "{request:?}: {answer}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: shop.localhost\r\nX: {}\r\n\r\n", "y".repeat(9000));
    assert!(send(world.address, long.as_bytes()).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_has_pages_of_its_own() {
    let world = World::new(Timeouts::default()).await;
    let pages = [("error_page", "<h1>Ours</h1>"), ("maintenance_page", "//cdn.example/sorry.html?a=1&b=2")];
    world.rule_in("shop", RouteMode::Maintenance, &pages).await;
    let page = get(world.address, "shop", "/").await;
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("retry-after: 120"), "{page}");
    assert!(page.contains("<iframe src=\"//cdn.example/sorry.html?a=1&amp;b=2\">"), "{page}");
    assert!(!page.contains("undergoing maintenance"), "{page}");
    world.logged(&["code=H80", "status=503"]).await;

    world.rule_in("shop", RouteMode::NoWeb, &pages).await;
    let page = get(world.address, "shop", "/").await;
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("retry-after: 10"), "{page}");
    assert!(page.contains("text/html") && page.ends_with("\r\n\r\n<h1>Ours</h1>"), "{page}");
    let request = "GET / HTTP/1.1\r\nHost: shop.localhost\r\nAccept: application/json\r\nConnection: close\r\n\r\n";
    let json = send(world.address, request.as_bytes()).await;
    assert!(json.contains("\"id\":\"H14\"") && !json.contains("Ours"), "programs are told as before: {json}");

    world.rule_in("shop", RouteMode::Blank, &pages).await;
    assert!(get(world.address, "shop", "/").await.contains("nothing has been deployed"));
    // What the app answers itself is its own page anyway.
    let web = instance("ill", |_| async {
        Response::builder().status(503).body(Full::from(Bytes::from_static(b"mine"))).expect("an answer")
    })
    .await;
    world.instances("shop", &[&web]).await;
    world.rule("shop", &pages).await;
    assert!(get(world.address, "shop", "/").await.ends_with("mine"));
}
