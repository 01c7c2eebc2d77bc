//! A release's command comes before everything else of it.

use super::*;

#[tokio::test]
async fn a_release_phase_comes_first_and_begins_anew_in_the_next_life() {
    let mut world = World::live().await;
    world.deploy(&["release", "web"]).await;
    world.look().await;
    let lost = world.test.engine.next_run().await;
    assert_eq!(world.runs().await, ["v2.web up"]);

    let mut world = world.restart().await;
    world.test.controller.clean_up().await.expect("ended");
    drop(lost);
    world.look().await;
    let phase = world.test.engine.next_run().await;
    assert_eq!(phase.oneoff.container.args.last().map(String::as_str), Some("/cnb/process/release"));
    assert_eq!(phase.oneoff.container.env.get("DYNO").map(String::as_str), Some("release.1"));
    phase.output.send(Bytes::from_static("moved 3 täb".as_bytes())).await.expect("a reader");
    phase.output.send(Bytes::from_static(b"les\n")).await.expect("a reader");
    phase.exit(Exit::Code(0));
    world.look_until(async |world| world.runs().await == ["v2.web up", "v3.web starting"]).await;
    let release = world.release(3).await;
    let output = std::fs::read_to_string(world.test.controller.release_output(world.app.id, release.id));
    assert_eq!(output.expect("its output"), "moved 3 täbles\n");
}

#[tokio::test]
async fn a_release_phase_that_fails_replaces_nothing() {
    let mut world = World::live().await;
    world.deploy(&["release", "web"]).await;
    world.look().await;
    world.test.engine.next_run().await.exit(Exit::Code(3));
    world.look_until(async |world| world.release(3).await.status != Status::Pending).await;
    let reason = world.release(3).await.failure.expect("a reason");
    assert!(reason.contains("exited with code 3"), "{reason}");
    world.look().await;
    assert_eq!((world.route(), world.runs().await), (Some(world.serve(2)), vec!["v2.web up".to_owned()]));
}

#[tokio::test]
async fn a_release_command_that_is_over_is_not_run_again() {
    let mut world = World::live().await;
    world.deploy(&["release", "web"]).await;
    world.look().await;
    world.test.engine.next_run().await.exit(Exit::Code(0));
    world.look_until(async |world| world.runs().await == ["v2.web up", "v3.web starting"]).await;
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v3.web starting"]);
    assert_eq!(engine::Engine::oneoffs(&world.test.engine).await.expect("reachable"), []);
}

#[tokio::test]
async fn a_release_command_has_the_size_and_the_time_that_its_app_gives_it() {
    let mut world = World::live().await;
    world.policy(&[("release_timeout", "90s")]).await;
    world.deploy(&["release", "web"]).await;
    let larger = Some("standard-2x".to_owned());
    let request = ScaleRequest { process_type: "release".to_owned(), quantity: None, size: larger };
    let actor = world.test.owner_of(&world.app);
    world.test.controller.scale(&world.app, &actor, &[request]).await.expect("resized");
    world.look().await;
    let phase = world.test.engine.next_run().await;
    let limits = (phase.oneoff.time_limit, phase.oneoff.container.limits.memory_bytes);
    assert_eq!(limits, (Duration::from_secs(90), 1024 << 20));
}
