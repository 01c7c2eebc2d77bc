//! What fits on the machine.

use super::*;

#[tokio::test]
async fn a_release_that_does_not_fit_fails_and_says_what_is_free() {
    let mut world = World::new().await;
    world.test.engine.set_capacity(16 << 20, 1 << 50, 1000);
    world.deploy(&["web"]).await;
    world.look().await;
    assert_eq!(world.runs().await, [""; 0]);
    let failure = world.release(2).await.failure.expect("a reason");
    let refused =
        "web=1 of standard-1x needs 0.1 GiB (of its 0.5 GiB one in 16: `memory_overcommit`); 0 of 0 GiB are free.";
    assert!(failure.starts_with(refused), "{failure}");
}

#[tokio::test]
async fn where_there_is_no_room_beside_it_the_old_one_goes_first() {
    let mut world = World::live().await;
    // Room for what runs, and for nothing more.
    world.test.engine.set_capacity(40 << 20, 1 << 50, 1000);
    world.configure("A", "1").await;
    world.look().await;
    let policy = world.rollout_of(3).await.policy;
    assert_eq!((policy.get("strategy"), policy.get("max_surge")), ("rolling".to_owned(), "0".to_owned()));
    world.roll(3).await;
    assert_eq!(world.stay().await, ["v3.web up"]);
    // What grows is refused, in words for whoever asks.
    let actor = world.test.owner_of(&world.app);
    let two = ScaleRequest { process_type: "web".to_owned(), quantity: Some("2".to_owned()), size: None };
    let refused = world.test.controller.scale(&world.app, &actor, &[two]).await.expect_err("no room").to_string();
    assert!(refused.starts_with("web=2 of standard-1x needs 0.1 GiB"), "{refused}");
}

#[tokio::test]
async fn a_release_command_that_does_not_fit_fails_its_release_before_anything_starts() {
    let mut world = World::live().await;
    world.test.engine.set_capacity(40 << 20, 1 << 50, 1000);
    world.deploy(&["release", "web"]).await;
    world.look_until(async |world| world.release(3).await.status != Status::Pending).await;
    let failure = world.release(3).await.failure.expect("a reason");
    let refused = "The release command of v3, a dyno of standard-1x, needs 0.1 GiB (of its 0.5 GiB one in 16: \
         `memory_overcommit`); 0 of 0 GiB are free.";
    assert!(failure.starts_with(refused) && failure.ends_with("No instance was replaced."), "{failure}");
    assert_eq!(engine::Engine::oneoffs(&world.test.engine).await.expect("reachable"), []);
    assert_eq!(world.stay().await, ["v2.web up"]);
}
