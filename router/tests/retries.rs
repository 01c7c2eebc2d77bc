//! Requests whose instance gives no answer, and what becomes of them at another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::routes::Endpoint;
use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, get, mirror, named, raw, send, until};

/// An instance that closes each connection once it has a whole request with `body`, and counts them.
async fn closing(body: &'static str) -> (Endpoint, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let endpoint = raw("closing", {
        let asked = Arc::clone(&asked);
        move |mut stream: TcpStream| {
            let asked = Arc::clone(&asked);
            async move {
                let mut found = vec![0; body.len()];
                if stream.read_exact(&mut found).await.is_ok() {
                    assert_eq!(found, body.as_bytes());
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    })
    .await;
    (endpoint, asked)
}

fn request(method: &str, rest: &str) -> Vec<u8> {
    format!("{method} /a HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n{rest}").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_come_twice_goes_to_another_instance_when_one_does_not_answer() {
    let world = World::new(Timeouts::default()).await;
    let (broken, asked) = closing("").await;
    let well = named("well").await;
    world.instances("shop", &[&broken, &well]).await;
    // That it is left alone after some failures is another matter.
    world
        .rule("shop", &[("ejection", "off"), ("balance", "round-robin"), ("slow_start", "0s"), ("retries", "100%")])
        .await;
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"] {
        for _ in 0..2 {
            let answer = send(world.address, &request(method, "\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
        }
    }
    assert!(asked.load(Ordering::SeqCst) >= 6, "it was its turn every other time");
    world.logged(&["at=info", "dyno=web.1", "status=200", "retries=1"]).await;
    until(async || send(world.address, &request("POST", "Content-Length: 0\r\n\r\n")).await.contains("H13")).await;
    world.logged(&["code=H13", "method=POST"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_sent_is_sent_again_and_what_is_yet_to_come_follows() {
    let world = World::new(Timeouts::default()).await;
    let (broken, asked) = closing("12345").await;
    let well = mirror("well").await;
    world.instances("shop", &[&broken, &well]).await;
    world
        .rule("shop", &[("ejection", "off"), ("balance", "round-robin"), ("slow_start", "0s"), ("retries", "100%")])
        .await;
    for sent in 1..=3 {
        until(async || {
            let answer = send(world.address, &request("PUT", "Content-Length: 5\r\n\r\n12345")).await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\n12345"), "{answer}");
            asked.load(Ordering::SeqCst) >= sent
        })
        .await;
    }
    // The rest of one comes when the first instance is gone.
    let before = asked.load(Ordering::SeqCst);
    until(async || {
        let mut client = TcpStream::connect(world.address).await.expect("a connection");
        client.write_all(&request("PUT", "Content-Length: 10\r\n\r\n12345")).await.expect("sent");
        let is_its_turn = async {
            while asked.load(Ordering::SeqCst) == before {
                tokio::task::yield_now().await;
            }
        };
        let was = tokio::time::timeout(std::time::Duration::from_millis(200), is_its_turn).await.is_ok();
        client.write_all(b"67890").await.expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\n1234567890"), "{answer}");
        was
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_sent_twice_at_most_and_only_while_there_is_another_instance() {
    let world = World::new(Timeouts::default()).await;
    let (one, two, three) = (closing("").await, closing("").await, closing("").await);
    let asked = || [&one, &two, &three].iter().map(|(_, asked)| asked.load(Ordering::SeqCst)).sum::<usize>();
    world.serve("shop", &[&one.0, &two.0, &three.0]).await;
    let answer = get(world.address, "shop", "/").await;
    assert!(answer.contains("H13"), "{answer}");
    assert_eq!(asked(), 2);
    world.logged(&["code=H13", "retries=1"]).await;
    world.instances("shop", &[&one.0]).await;
    let answer = get(world.address, "shop", "/").await;
    assert!(answer.contains("H13"), "{answer}");
    assert_eq!(asked(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_closes_a_connection_after_an_answer_loses_no_request() {
    let world = World::new(Timeouts::default()).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let forgetful = raw("forgetful", {
        let asked = Arc::clone(&asked);
        move |mut stream: TcpStream| {
            let asked = Arc::clone(&asked);
            async move {
                asked.fetch_add(1, Ordering::SeqCst);
                // It does not say that it is about to close.
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("sent");
                let _ = stream.read_u8().await;
            }
        }
    })
    .await;
    world.serve("shop", &[&forgetful]).await;
    // By one connection, so that all of them come to one worker.
    let first = b"GET /a HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    let after = |method: &str| [&first[..], &first[..], &request(method, "Content-Length: 0\r\n\r\n")].concat();
    let answers = send(world.address, &after("GET")).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    assert_eq!(asked.load(Ordering::SeqCst), 3, "each had a connection of its own in the end");
    world.logged(&["status=200", "retries=1"]).await;
    let answers = send(world.address, &after("POST")).await;
    assert!(answers.contains("H13"), "what may not come twice is not sent again: {answers}");
    world.rule("shop", &[("retries", "off")]).await;
    assert!(send(world.address, &after("GET")).await.contains("H13"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_says_that_nothing_is_sent_twice() {
    let world = World::new(Timeouts::default()).await;
    let (broken, asked) = closing("").await;
    let well = named("well").await;
    world.instances("shop", &[&broken, &well]).await;
    world
        .rule("shop", &[("ejection", "off"), ("balance", "round-robin"), ("slow_start", "0s"), ("retries", "off")])
        .await;
    let answers = [get(world.address, "shop", "/").await, get(world.address, "shop", "/").await];
    assert_eq!(answers.iter().filter(|answer| answer.contains("H13")).count(), 1, "{answers:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_in_part_is_not_sent_again() {
    let world = World::new(Timeouts::default()).await;
    let half = raw("half", |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Ha").await;
    })
    .await;
    let well = named("well").await;
    world.instances("shop", &[&half, &well]).await;
    world
        .rule("shop", &[("ejection", "off"), ("balance", "round-robin"), ("slow_start", "0s"), ("retries", "100%")])
        .await;
    let answers = [get(world.address, "shop", "/").await, get(world.address, "shop", "/").await];
    assert_eq!(answers.iter().filter(|answer| answer.contains("H13")).count(), 1, "{answers:?}");
}
