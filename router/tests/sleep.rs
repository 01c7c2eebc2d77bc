//! What nobody uses leaves the table when its publisher asks for it, and what somebody uses does not.

use std::time::Duration;

use http::Response;
use http_body_util::Full;
use model::routes::{Endpoint, WorkloadAddresses, WorkloadId};
use router::Timeouts;
use tokio::sync::Semaphore;

use crate::world::{LONG, World, get, instance, named, until};

/// Lets the slow request end.
static GO: Semaphore = Semaphore::const_new(0);
/// The slow request is there.
static BEGUN: Semaphore = Semaphore::const_new(0);

fn id(name: &str) -> WorkloadId {
    WorkloadId(name.to_owned())
}

fn resting(endpoint: &Endpoint) -> WorkloadAddresses {
    WorkloadAddresses { resting: vec![endpoint.clone()], drain: LONG, ..WorkloadAddresses::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_request_leaves_at_once_and_the_next_request_asks_for_it() {
    let world = World::new(Timeouts::default()).await;
    let shop = named("shop").await;
    world.serve("shop", &[&shop]).await;
    assert!(get(world.address, "shop", "/").await.ends_with("shop"));
    let version = world.workload("shop", resting(&shop)).await;
    let instances = [shop.instance.clone()];
    assert!(world.addresses.rested(&instances, version, LONG).await);

    let address = world.address;
    let waiting = tokio::spawn(async move { get(address, "shop", "/").await });
    let wanted = async || world.addresses.traffic().take_wanted().contains(&id("shop"));
    until(wanted).await;
    assert!(!waiting.is_finished());
    // It is taken back, is asked again, and really leaves.
    world.instances("shop", &[&shop]).await;
    assert!(waiting.await.expect("no panic").ends_with("shop"));
    let again = world.workload("shop", resting(&shop)).await;
    assert!(world.addresses.rested(&instances, again, LONG).await);
    let gone = world.workload("shop", WorkloadAddresses::default()).await;
    let versions = |rested_in| (gone, rested_in);
    let drained =
        async |rested_in| world.addresses.drained_after_rest(&shop.instance, versions(rested_in), Duration::ZERO).await;
    assert!(!drained(Some(version)).await, "what it said before it was taken back says nothing");
    let again = world.workload("shop", resting(&shop)).await;
    assert!(world.addresses.rested(&instances, again, LONG).await, "also one that it does not know any more");
    let gone = world.workload("shop", WorkloadAddresses::default()).await;
    assert!(world.addresses.drained_after_rest(&shop.instance, (gone, Some(again)), Duration::ZERO).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_request_stays_and_takes_more() {
    let world = World::new(Timeouts::default()).await;
    let shop = instance("shop", |request| async move {
        if request.uri().path() == "/slow" {
            BEGUN.add_permits(1);
            let _ = GO.acquire().await.expect("open");
        }
        Response::new(Full::from("done"))
    })
    .await;
    world.serve("shop", &[&shop]).await;
    let address = world.address;
    let slow = tokio::spawn(async move { get(address, "shop", "/slow").await });
    let _ = BEGUN.acquire().await.expect("open");
    let version = world.workload("shop", resting(&shop)).await;
    let instances = [shop.instance.clone()];
    assert!(!world.addresses.rested(&instances, version, LONG).await);
    assert!(get(world.address, "shop", "/").await.ends_with("done"), "it is in the table still");
    world.instances("shop", &[&shop]).await;
    GO.add_permits(1);
    assert!(slow.await.expect("no panic").ends_with("done"));
    until(async || {
        let version = world.workload("shop", resting(&shop)).await;
        let rested = world.addresses.rested(&instances, version, LONG).await;
        if !rested {
            world.instances("shop", &[&shop]).await;
        }
        rested
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_life_of_the_publisher_is_asked_again() {
    let mut world = World::new(Timeouts::default()).await;
    world.route("shop").await;
    let address = world.address;
    let waiting = tokio::spawn(async move { get(address, "shop", "/").await });
    until(async || world.addresses.traffic().take_wanted().contains(&id("shop"))).await;
    // It dies before it did anything about it; the app still has no instance.
    world.kill_publishers();
    world.publish(&["shop"], &[]).await;
    until(async || world.addresses.traffic().take_wanted().contains(&id("shop"))).await;
    world.instances("shop", &[&named("awake").await]).await;
    assert!(waiting.await.expect("no panic").ends_with("awake"));
}
