//! How many dynos are replaced at a time.

use super::*;

#[tokio::test]
async fn a_rolling_deploy_keeps_to_its_room_and_goes_on_in_every_next_life() {
    let mut world = World::live().await;
    world.scale(2, 4).await;
    world.deploy(&["web"]).await;
    for _ in 0..40 {
        world = world.restart().await;
        world.look().await;
        let stay = world.stay().await;
        let up = stay.iter().filter(|line| line.ends_with(" up")).count();
        assert!(stay.len() <= 5 && up >= 4, "{stay:?}");
        if world.release(3).await.current {
            break;
        }
        world.up(3, "web");
    }
    assert!(world.release(3).await.current, "{:?}", world.stay().await);
    world.look().await;
    assert_eq!(world.stay().await, ["v3.web up"; 4]);
}

#[tokio::test]
async fn a_rolling_deploy_that_fails_half_way_gives_back_what_it_took() {
    let mut world = World::live().await;
    world.scale(2, 4).await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    for _ in 0..3 {
        world.look().await;
    }
    assert_eq!(world.stay().await, ["v2.web up", "v2.web up", "v2.web up", "v3.web up", "v3.web starting"]);
    let id = world.id(3, "web");
    world.test.engine.crash(&id, 2, Exit::Code(7));
    world.test.engine.retry(&id, 2);
    world.test.engine.crash(&id, 2, Exit::Code(7));
    world.look().await;
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!(world.release(3).await.status, Status::Pending, "v2 has three of four");
    world.look().await;
    world.up(2, "web");
    for _ in 0..3 {
        world.look().await;
    }
    assert_eq!(world.release(3).await.status, Status::Failed);
    assert_eq!(world.rollout_of(3).await.failure().expect("a failure").exit_code, Some(7));
    world.look().await;
    assert_eq!((world.stay().await, world.route()), (vec!["v2.web up".to_owned(); 4], Some(world.serve(2))));
}

#[tokio::test]
async fn a_canary_waits_for_a_word_at_each_step_whoever_controls() {
    let mut world = World::live().await;
    world.policy(&[("strategy", "canary"), ("steps", "10,50"), ("pause", "manual")]).await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.gets(world.serve(2)).await;
    world.up(3, "web");
    world.look().await;
    world.gets(world.parts(90, 10)).await;
    assert_eq!(world.rollout_of(3).await.percent(), Some(10));
    let mut world = world.restart().await;
    world.gets(world.parts(90, 10)).await;
    world.test.clock.advance(Duration::from_secs(100_000));
    world.look_at_the_clock().await;
    assert_eq!(world.rollout_of(3).await.step, 0, "a word, not a time");

    let actor = world.test.owner_of(&world.app);
    let controller = world.test.controller.clone();
    controller.continue_rollout(&world.app, &actor, "v3").await.expect("continued");
    let again = controller.continue_rollout(&world.app, &actor, "v3").await;
    assert!(matches!(again, Err(Error::Conflict(_))), "it does not wait now: {again:?}");
    world.look().await;
    world.gets(world.parts(50, 50)).await;
    controller.continue_rollout(&world.app, &actor, "v3").await.expect("continued");
    world.look().await;
    assert!(world.release(3).await.current);
    world.gets(world.serve(3)).await;
}

#[tokio::test]
async fn a_canary_goes_on_by_itself_after_its_pause_and_ends_when_somebody_says_so() {
    let mut world = World::live().await;
    world.policy(&[("strategy", "canary"), ("steps", "10,50"), ("pause", "60s")]).await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.look().await;
    world.test.clock.advance(Duration::from_secs(60));
    world.look_at_the_clock().await;
    world.look().await;
    world.gets(world.parts(50, 50)).await;
    let actor = world.test.owner_of(&world.app);
    let controller = world.test.controller.clone();
    controller.abort_rollout(&world.app, &actor, "3").await.expect("aborted");
    world.look().await;
    assert_eq!(world.release(3).await.status, Status::Failed);
    assert_eq!(world.rollout_of(3).await.failure().expect("a failure").cause, "aborted");
    world.look().await;
    assert_eq!((world.route(), world.stay().await), (Some(world.serve(2)), vec!["v2.web up".to_owned()]));
    let again = controller.abort_rollout(&world.app, &actor, "3").await;
    assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
}
