//! Instances and clients that misbehave, and the code that says how.

use std::time::Duration;

use model::routes::Endpoint;
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{LONG, World, get, named, nobody, raw, send};

const SOON: Duration = Duration::from_millis(100);

/// The answer of an app whose one instance is `instance`, and a line of the log that has all `parts`.
async fn answer_of(timeouts: Timeouts, instance: &Endpoint, parts: &[&str]) -> String {
    let world = World::new(timeouts).await;
    world.serve("shop", &[instance]).await;
    let answer = get(world.address, "shop", "/").await;
    world.logged(parts).await;
    answer
}

// Each limit is short only where it must run out: on a busy machine everything else may take long.

fn impatient_for_an_answer() -> Timeouts {
    Timeouts { response: SOON, ..Timeouts::default() }
}

fn impatient_with_silence() -> Timeouts {
    Timeouts { idle: SOON, ..Timeouts::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_gives_no_answer_is_named_by_its_code() {
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
    let says = |head: String| {
        raw("speaking", move |mut stream| {
            let head = head.clone();
            async move {
                let _ = stream.write_all(head.as_bytes()).await;
            }
        })
    };
    let baking = says(format!("HTTP/1.1 200 OK\r\nSet-Cookie: a={}\r\n\r\n", "y".repeat(8192))).await;
    let wordy = says(format!("HTTP/1.1 200 {}\r\n\r\n", "y".repeat(9000))).await;
    let unsure = says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nhello".to_owned()).await;
    let refusing = nobody("refusing");
    for (instance, timeouts, code, status) in [
        (&silent, impatient_for_an_answer(), "H12", "503"),
        (&closing, Timeouts::default(), "H13", "503"),
        (&babbling, Timeouts::default(), "H17", "503"),
        (&shouting, Timeouts::default(), "H25", "502"),
        (&baking, Timeouts::default(), "H25", "502"),
        (&wordy, Timeouts::default(), "H25", "502"),
        (&unsure, Timeouts::default(), "H25", "502"),
        (&refusing, Timeouts { settle: SOON, ..Timeouts::default() }, "H21", "503"),
    ] {
        let answer = answer_of(timeouts, instance, &["at=error", code, "host=shop.localhost"]).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code), "{code}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_every_instance_is_in_quarantine_the_platform_says_so() {
    let timeouts = Timeouts { settle: SOON, boot: SOON, quarantine: LONG * 2, ..Timeouts::default() };
    let world = World::new(timeouts).await;
    world.serve("shop", &[&nobody("one"), &nobody("two")]).await;
    assert!(get(world.address, "shop", "/").await.contains("H21"), "both refuse");
    let answer = get(world.address, "shop", "/").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("H99"), "{answer}");
    world.logged(&["at=error code=H99"]).await;

    let one = named("three").await;
    world.instances("shop", &[&one]).await;
    assert!(get(world.address, "shop", "/").await.ends_with("three"), "a new instance knows nothing of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stops_half_way_is_cut_off() {
    let stalled = raw("stalled", |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        std::future::pending::<()>().await;
    })
    .await;
    let broken = raw("broken", |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    })
    .await;
    for (instance, timeouts, code) in
        [(&stalled, impatient_with_silence(), "H15"), (&broken, Timeouts::default(), "H18")]
    {
        let answer = answer_of(timeouts, instance, &["at=error", code, "status=200 bytes=4"]).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("half"), "{code}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_chunks_are_bad_is_cut_off_and_chunks_win_over_a_length() {
    let bad = raw("bad", |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n").await;
    })
    .await;
    let answer = answer_of(Timeouts::default(), &bad, &["at=error", "H18", "status=200 bytes=5"]).await;
    assert!(answer.ends_with("\r\n\r\n5\r\nhello\r\n"), "no last chunk: {answer}");

    let both = raw("both", |mut stream| async move {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = stream.write_all(format!("{head}5\r\nhello\r\n0\r\n\r\n").as_bytes()).await;
    })
    .await;
    let answer = answer_of(Timeouts::default(), &both, &["at=info", "status=200 bytes=5"]).await;
    assert!(answer.ends_with("5\r\nhello\r\n0\r\n\r\n") && !answer.contains("content-length"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_misbehaves_is_not_the_apps_fault() {
    let reading = raw("reading", |mut stream| async move {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let post = "POST /up HTTP/1.1\r\nHost: shop.localhost\r\n";
    let bad = format!("{post}Transfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n0\r\n\r\n");
    let short = format!("{post}Content-Length: 100\r\n\r\nhello");
    for (timeouts, request, status, log) in [
        (Timeouts::default(), bad, "400", "at=warning code=H26"),
        (impatient_with_silence(), short, "499", "at=warning code=H28"),
    ] {
        let world = World::new(timeouts).await;
        world.serve("shop", &[&reading]).await;
        let answer = send(world.address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        world.logged(&[log, "path=\"/up\"", "sock=client"]).await;
    }
}
