//! What routers count, and how requests are shared among workloads.

use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use model::routes::{RouteMode, Share, WorkloadId};
use model::traffic::Counts;
use router::Timeouts;

use crate::world::{World, app_id, get, instance, named, nobody, send, until};

const SOON: Duration = Duration::from_millis(100);

fn id(name: &str) -> WorkloadId {
    WorkloadId(name.to_owned())
}

/// Requests, lost ones, errors of the app, and those that waited.
fn numbers(counts: &Counts) -> [u64; 4] {
    assert_eq!(counts.latency.iter().sum::<u64>(), counts.requests, "each waited for some time");
    [counts.requests, counts.lost, counts.errors, counts.held]
}

/// Waits until both publishers know these numbers of a workload.
async fn counted(world: &World, workload: &str, expected: [u64; 4]) {
    let known = async || {
        let (names, addresses) = (world.names.traffic().of(&id(workload)), world.addresses.traffic().of(&id(workload)));
        [numbers(&names), numbers(&addresses)] == [expected; 2]
    };
    until(known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_hear_what_became_of_every_request() {
    let mut world = World::new(Timeouts { settle: SOON, ..Timeouts::default() }).await;
    let shop = instance("shop", |request| async move {
        let mut response = Response::new(Full::from("done"));
        if request.uri().path() == "/bad" {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        response
    })
    .await;
    world.serve("shop", &[&shop]).await;
    world.serve("dead", &[&nobody("dead")]).await;
    world.route("empty").await;
    world.name("quiet", RouteMode::NoWeb).await;
    for path in ["/", "/bad", "/"] {
        get(world.address, "shop", path).await;
    }
    assert!(get(world.address, "dead", "/").await.contains("H21"));
    assert!(get(world.address, "quiet", "/").await.contains("H14"));
    counted(&world, "shop", [3, 0, 1, 0]).await;
    counted(&world, "dead", [1, 1, 0, 1]).await;

    // Nobody heard of it so far, and it waits until there is somebody.
    let address = world.address;
    let waiting = tokio::spawn(async move { get(address, "empty", "/").await });
    for feed in [world.names.traffic(), world.addresses.traffic()] {
        until(async || feed.take_wanted().contains(&id("empty"))).await;
    }
    world.instances("empty", &[&named("awake").await]).await;
    assert!(waiting.await.expect("no panic").ends_with("awake"));
    counted(&world, "empty", [1, 0, 0, 1]).await;

    // Another life of both publishers is told of all that was counted.
    world.kill_publishers();
    world.publish(&["shop"], &[&shop]).await;
    counted(&world, "shop", [3, 0, 1, 0]).await;
    get(world.address, "shop", "/").await;
    counted(&world, "shop", [4, 0, 1, 0]).await;
    assert_eq!(
        world.names.traffic().of(&id("quiet")),
        Counts::default(),
        "an app without web processes has no workload"
    );
}

/// What is known of a place: outcomes as `status code count`, and bytes of bodies that came and went.
fn known(world: &World, app: &str, dyno: &str) -> (Vec<String>, u64, u64) {
    let mut rows = world.details.totals();
    rows.retain(|(place, _)| place.app == Some(app_id(app)) && place.dyno == dyno);
    let Some((_, detail)) = rows.pop() else { return (Vec::new(), 0, 0) };
    assert_eq!(detail.latency.iter().sum::<u64>(), detail.requests(), "each waited for some time");
    let mut outcomes: Vec<_> =
        detail.outcomes.iter().map(|it| format!("{} {} {}", it.status, it.code, it.count)).collect();
    outcomes.sort();
    (outcomes, detail.received, detail.sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_instance_status_error_and_bytes() {
    let mut world = World::new(Timeouts { settle: SOON, ..Timeouts::default() }).await;
    let shop = instance("shop", |request| async move {
        let path = request.uri().path().to_owned();
        let _ = request.into_body().collect().await;
        let mut response = Response::new(Full::from("done"));
        if let Ok(status) = path[1..].parse::<u16>() {
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        }
        response
    })
    .await;
    world.serve("shop", &[&shop]).await;
    world.serve("dead", &[&nobody("dead")]).await;
    world.name("quiet", RouteMode::NoWeb).await;
    for path in ["/", "/404", "/500", "/"] {
        get(world.address, "shop", path).await;
    }
    let posts = ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"];
    for post in posts {
        let request = format!("POST / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n{post}");
        assert!(send(world.address, request.as_bytes()).await.ends_with("done"));
    }
    get(world.address, "dead", "/").await;
    get(world.address, "quiet", "/").await;
    let counted =
        |well: u64, sent| (vec![format!("200 0 {well}"), "404 0 1".to_owned(), "500 0 1".to_owned()], 8, sent);
    let expected = counted(4, 6 * 4);
    until(async || known(&world, "shop", &shop.dyno) == expected).await;
    until(async || known(&world, "dead", "web.1").0 == ["503 21 1"]).await;
    until(async || known(&world, "quiet", "").0 == ["503 14 1"]).await;
    for path in ["/orders/1?token=secret", "/orders/22"] {
        get(world.address, "shop", path).await;
    }
    let asked = |name: &str| world.details.paths(app_id("shop")).into_iter().find(|path| path.name == name);
    until(async || asked("GET /orders/:id").is_some_and(|path| (path.requests, path.errors) == (2, 0))).await;
    let posts = asked("POST /").expect("posts");
    assert_eq!((posts.requests, asked("GET /:id").expect("/404 and /500").errors), (2, 1));
    let rows = world.details.of_last_hour(app_id("shop")).1;
    assert_eq!(rows[0].0.workload, Some(id("shop")));
    assert_eq!(rows[0].1.requests(), 8);
    let minutes = world.details.minutes(app_id("shop"));
    assert_eq!(minutes.iter().map(|it| it.well + it.client_errors + it.server_errors).sum::<u64>(), 8);

    let expected = counted(6, 8 * 4);
    // Another life of the publisher hears all of it, but knows not when it was.
    world.kill_publishers();
    world.publish(&["shop"], &[&shop]).await;
    until(async || known(&world, "shop", &shop.dyno) == expected).await;
    assert_eq!(world.details.of_last_hour(app_id("shop")).1, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_releases_share_the_requests_by_weight_and_stand_in_for_each_other() {
    let world = World::new(Timeouts::default()).await;
    world.instances("old", &[&named("old").await]).await;
    world.instances("new", &[&named("new").await]).await;
    let share = |old, new| {
        let shares = [("old", old), ("new", new)];
        RouteMode::Serve(shares.map(|(workload, weight)| Share { workload: id(workload), weight }).into())
    };
    let ask = async |times| {
        let mut new = 0;
        for _ in 0..times {
            let answer = get(world.address, "shop", "/").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            new += u32::from(answer.ends_with("new"));
        }
        new
    };
    world.name("shop", share(80, 20)).await;
    let new = ask(300).await;
    assert!((20..120).contains(&new), "20 of 100, not {new} of 300");
    counted(&world, "new", [u64::from(new), 0, 0, 0]).await;
    counted(&world, "old", [u64::from(300 - new), 0, 0, 0]).await;

    world.name("shop", share(1, 0)).await;
    assert_eq!(ask(50).await, 0, "no weight, no request");
    world.name("shop", share(1, 1)).await;
    world.instances("old", &[]).await;
    assert_eq!(ask(50).await, 50, "who is healthy takes them all");
}
