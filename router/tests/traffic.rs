//! What routers count, and how requests are shared among workloads.

use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::Full;
use model::routes::{RouteMode, Share, WorkloadId};
use model::traffic::Counts;
use router::Timeouts;

use crate::world::{World, get, instance, named, nobody, until};

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
