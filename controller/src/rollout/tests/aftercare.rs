//! What happens to a release that is live and does not do well.

use super::*;

/// v3 with another config is live, and nothing of v2 runs any more.
async fn changed() -> World {
    let mut world = World::live().await;
    world.configure("A", "1").await;
    world.look().await;
    world.up(3, "web");
    world.look().await;
    world.look().await;
    world.test.engine.finish_stopping(&world.id(2, "web"));
    world.look().await;
    assert_eq!(world.runs().await, ["v3.web up"]);
    world
}

fn crash_twice(world: &World, version: u64) {
    let id = world.id(version, "web");
    world.test.engine.crash(&id, 1, Exit::Code(7));
    world.test.engine.retry(&id, 1);
    world.test.engine.crash(&id, 1, Exit::Code(7));
}

#[tokio::test]
async fn a_release_that_crashes_soon_after_it_was_live_is_left_once() {
    let mut world = changed().await;
    crash_twice(&world, 3);
    world.look().await;
    let back = world.release(4).await;
    assert_eq!((back.description.as_str(), back.status), ("Return to v2", Status::Pending));
    assert!(back.reason.expect("a reason").contains("exited with code 7"));
    let left = world.rollout_of(3).await;
    assert_eq!((left.state, left.returned_by), (RolloutState::Returned, Some(4)));
    let mut world = world.restart().await;
    world.look().await;
    world.up(4, "web");
    world.look().await;
    assert!(world.release(4).await.current);
    let config = world.test.controller.store.config(world.app.id).await.expect("readable");
    assert_eq!(serde_json::to_string(&config).expect("JSON"), "{}", "as v2 was");
    world.look().await;
    crash_twice(&world, 4);
    for _ in 0..3 {
        world.look().await;
    }
    assert_eq!(world.test.controller.store.newest_version(world.app.id).await.expect("readable"), 4, "no loop");
}

#[tokio::test]
async fn a_release_is_not_left_while_a_newer_one_is_on_its_way() {
    let mut world = changed().await;
    world.deploy(&["web"]).await;
    crash_twice(&world, 3);
    world.look().await;
    assert_eq!(world.test.controller.store.newest_version(world.app.id).await.expect("readable"), 4, "the new one");
    assert_eq!(world.rollout_of(3).await.state, RolloutState::Watching);
    assert_eq!(world.release(4).await.reason, None, "it is what somebody deployed");
}

#[tokio::test]
async fn whoever_goes_on_while_an_app_is_taken_back_does_it_once() {
    let world = changed().await;
    let release = world.release(3).await;
    let store = world.test.controller.store.clone();
    store.leave_rollout(release.id, r#"{"cause": "crashed", "sentence": "It crashed."}"#).await.expect("noted");
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!(world.release(4).await.reason.as_deref(), Some("It crashed."));
    // As if nobody had got to note that.
    store.leave_rollout(release.id, "").await.expect("noted");
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!(store.newest_version(world.app.id).await.expect("readable"), 4);
}

#[tokio::test]
async fn behind_its_watch_a_release_stays() {
    let mut world = changed().await;
    world.test.clock.advance(Duration::from_secs(300));
    world.look_at_the_clock().await;
    assert_eq!(world.rollout_of(3).await.state, RolloutState::Succeeded);
    crash_twice(&world, 3);
    world.look().await;
    assert_eq!(world.test.controller.store.newest_version(world.app.id).await.expect("readable"), 3);
}

#[tokio::test]
async fn a_canary_that_answers_with_errors_fails() {
    let mut world = World::live().await;
    world.policy(&[("strategy", "canary"), ("steps", "10"), ("pause", "manual")]).await;
    world.router.counted(&world.test, &[(world.id(2, "web"), [5000, 0, 2500])]).await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.look().await;
    world
        .router
        .counted(&world.test, &[(world.id(2, "web"), [6000, 0, 2500]), (world.id(3, "web"), [100, 3, 2])])
        .await;
    world.look_at_the_clock().await;
    assert_eq!(world.release(3).await.status, Status::Pending, "what went wrong before it began does not count");
    world.router.counted(&world.test, &[(world.id(3, "web"), [100, 3, 3])]).await;
    world.router.counted(&world.test, &[(world.id(3, "web"), [101, 3, 3])]).await;
    world.look_at_the_clock().await;
    let failed = world.release(3).await;
    assert_eq!(
        (failed.status, world.rollout_of(3).await.failure().expect("a failure").cause.as_str()),
        (Status::Failed, "errors")
    );
    assert!(failed.failure.expect("a reason").contains("5.9 % of 101 requests went wrong, against 0.0 % of 1000"));
    world.look().await;
    world.gets(world.serve(2)).await;
}

#[tokio::test]
async fn a_deploy_says_how_many_requests_it_saw_and_lost() {
    let mut world = World::live().await;
    let (old, new) = (world.id(2, "web"), world.id(3, "web"));
    world.router.counted(&world.test, &[(old.clone(), [1000, 7, 0])]).await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.router.counted(&world.test, &[(old.clone(), [1200, 7, 0])]).await;
    world.look().await;
    let tally = async |world: &World| {
        let rollout = world.rollout_of(3).await;
        let tally = world.test.controller.rollout_traffic(&rollout).await.expect("readable");
        (tally.requests, tally.lost)
    };
    assert_eq!(tally(&world).await, (200, 0));
    world.look().await;
    world.router.counted(&world.test, &[(old.clone(), [1210, 8, 0]), (new.clone(), [40, 0, 0])]).await;
    assert_eq!(tally(&world).await, (250, 1), "the old one still has some");
    world.test.engine.finish_stopping(&old);
    world.look().await;
    world.router.counted(&world.test, &[(new, [5000, 3, 0])]).await;
    world.look().await;
    assert_eq!(tally(&world).await, (250, 1), "what comes later is no part of the deploy");
}
