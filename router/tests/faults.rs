//! Instances and clients that misbehave, and the code that says how.

use std::time::Duration;

use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, get, nobody, raw, send};

const SOON: Duration = Duration::from_millis(100);

/// The answer of an app whose one instance is `instance`, under limits of 100 ms.
async fn answer_of(world: &World, app: &str, instance: &model::routes::Endpoint) -> String {
    world.instances(app, &[instance]).await;
    world.route(app).await;
    get(world.address, app, "/").await
}

async fn impatient() -> World {
    World::new(Timeouts { response: SOON, idle: SOON, settle: SOON, ..Timeouts::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_gives_no_answer_is_named_by_its_code() {
    let world = impatient().await;
    let silent = raw("silent", |stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let closing = raw("closing", |stream| async move { drop(stream) }).await;
    let babbling = raw("babbling", |mut stream| async move {
        let _ = stream.write_all(b"what is it that you want?\r\n\r\n").await;
    })
    .await;
    let shouting = raw("shouting", |mut stream| async move {
        let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(600_000));
        let _ = stream.write_all(head.as_bytes()).await;
    })
    .await;
    let refusing = nobody("refusing").await;
    for (app, instance, code, status) in [
        ("silent", &silent, "H12", "503"),
        ("closing", &closing, "H13", "503"),
        ("babbling", &babbling, "H17", "503"),
        ("shouting", &shouting, "H25", "502"),
        ("refusing", &refusing, "H21", "503"),
    ] {
        let answer = answer_of(&world, app, instance).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code), "{app}: {answer}");
        world.logged(&["at=error", code, &format!("host={app}.localhost")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stops_half_way_is_cut_off() {
    let world = impatient().await;
    let stalled = raw("stalled", |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        std::future::pending::<()>().await;
    })
    .await;
    let broken = raw("broken", |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    })
    .await;
    for (app, instance, code) in [("stalled", &stalled, "H15"), ("broken", &broken, "H18")] {
        let answer = answer_of(&world, app, instance).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("half"), "{app}: {answer}");
        world.logged(&["at=error", code, &format!("host={app}.localhost"), "status=200 bytes=4"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_misbehaves_is_not_the_apps_fault() {
    let world = impatient().await;
    let reading = raw("reading", |mut stream| async move {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    world.instances("shop", &[&reading]).await;
    world.route("shop").await;
    let post = "POST /up HTTP/1.1\r\nHost: shop.localhost\r\n";
    let bad = format!("{post}Transfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n0\r\n\r\n");
    let answer = send(world.address, bad.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    world.logged(&["at=warning code=H26", "path=\"/up\""]).await;

    let slow = send(world.address, format!("{post}Content-Length: 100\r\n\r\nhello").as_bytes()).await;
    assert!(slow.starts_with("HTTP/1.1 499"), "{slow}");
    world.logged(&["at=warning code=H28", "sock=client"]).await;

    let mut leaving = TcpStream::connect(world.address).await.expect("a connection");
    leaving.write_all(format!("{post}Content-Length: 100\r\n\r\nhello").as_bytes()).await.expect("sent");
    drop(leaving);
    world.logged(&["at=warning code=H27", "status=499"]).await;
}
