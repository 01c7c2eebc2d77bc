//! One release replaces another, whoever is killed, away or slow meanwhile.

use super::*;

#[tokio::test]
async fn a_healthy_release_takes_over_and_only_then_the_old_one_stops() {
    let mut world = World::new().await;
    assert_eq!(world.route(), Some(RouteMode::Blank));
    world.deploy(&["web"]).await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web starting"]);
    assert_eq!((world.release(2).await.status, world.route()), (Status::Pending, Some(RouteMode::Blank)));
    world.up(2, "web");
    world.look().await;
    assert!(world.release(2).await.current);
    assert_eq!(world.route(), Some(world.serve(2)));

    world.deploy(&["web", "worker"]).await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v3.web starting"], "a worker starts when it is scaled");
    assert_eq!(world.route(), Some(world.serve(2)));
    world.up(3, "web");
    world.look().await;
    assert_eq!((world.release(3).await.status, world.release(3).await.current), (Status::Succeeded, true));
    assert_eq!(
        (world.route(), world.runs().await),
        (Some(world.serve(3)), vec!["v2.web up".into(), "v3.web up".into()])
    );
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping", "v3.web up"]);
}

#[tokio::test]
async fn nothing_is_live_and_nothing_old_stops_before_every_router_says_so() {
    let mut world = World::live().await;
    let release = world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.router.slow.send_replace(true);
    let (id, serves) = (world.app.id, world.serve(3));
    tokio::select! {
        biased;
        result = world.rollout.tick() => panic!("it went on without its router: {result:?}"),
        () = world.router.until(id, Some(&serves)) => {}
    }
    assert_eq!(world.runs().await, ["v2.web up", "v3.web up"]);
    let said = (world.release(3).await.status, world.release(2).await.current);
    assert_eq!(said, (Status::Pending, true), "nobody serves it yet, as far as anybody knows");
    assert!(world.routed().await.is_empty());
    world.router.slow.send_replace(false);
    world.look_at_the_clock().await;
    assert!(!world.rollout_of(3).await.unconfirmed);
    assert_eq!(world.routed().await, ["v3.web.1"]);
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping", "v3.web up"]);
    assert!(world.release(3).await.current && world.release(3).await.id == release.id);
}

#[tokio::test]
async fn whoever_goes_on_while_routers_are_told_goes_on_with_that() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.router.slow.send_replace(true);
    let (id, serves) = (world.app.id, world.serve(3));
    tokio::select! {
        biased;
        result = world.rollout.tick() => panic!("it went on without its router: {result:?}"),
        () = world.router.until(id, Some(&serves)) => {}
    }
    let mut world = world.restart().await;
    assert_eq!(world.route(), Some(world.serve(3)), "nobody is sent back");
    world.look().await;
    assert!(world.release(3).await.current);
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping", "v3.web up"]);
}

#[tokio::test]
async fn a_router_that_says_nothing_is_given_up_and_that_is_said() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.router.slow.send_replace(true);
    *world.test.controller.live.router_patience.lock() = std::time::Duration::ZERO;
    world.look().await;
    assert!(world.release(3).await.current && world.rollout_of(3).await.unconfirmed);
    assert!(world.routed().await.is_empty(), "nothing else is said before the router does");
}

#[tokio::test]
async fn a_dyno_has_the_size_and_the_release_that_it_runs() {
    let mut world = World::live().await;
    let dynos = async |world: &World| -> Vec<String> {
        let all = world.test.controller.dynos(&world.app).await.expect("readable");
        all.iter().map(|dyno| format!("v{} {} {:?}", dyno.release.version, dyno.size, dyno.routed)).collect()
    };
    assert_eq!(dynos(&world).await, ["v2 Standard-1X Some(true)"]);
    let larger = ScaleRequest { process_type: "web".to_owned(), quantity: None, size: Some("standard-2x".to_owned()) };
    let actor = world.test.owner_of(&world.app);
    world.test.controller.scale(&world.app, &actor, &[larger]).await.expect("resized");
    assert_eq!(dynos(&world).await, ["v2 Standard-1X Some(true)"], "a wish changes nothing yet");
    world.look().await;
    assert_eq!(dynos(&world).await, ["v2 Standard-1X Some(true)", "v2 Standard-2X Some(false)"]);
}

#[tokio::test]
async fn a_candidate_that_crashes_fails_and_the_old_release_keeps_serving() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.crash(3, "web");
    world.look().await;
    assert_eq!(world.release(3).await.status, Status::Pending, "once may be chance");
    world.test.engine.retry(&world.id(3, "web"), 1);
    world.crash(3, "web");
    world.look().await;
    let failed = world.release(3).await;
    assert_eq!(failed.status, Status::Failed);
    let reason = failed.failure.expect("a reason");
    assert!(reason.contains("web.1 exited with code 7") && reason.contains("v2 keeps serving"), "{reason}");
    let known = world.rollout_of(3).await.failure().expect("a failure");
    assert_eq!((known.cause.as_str(), known.exit_code), ("crashed", Some(7)));
    assert_eq!((known.dyno.as_deref(), known.sentence.lines().count()), (Some("web.1"), 1));
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v3.web stopping"]);
    assert_eq!((world.route(), world.release(2).await.current), (Some(world.serve(2)), true));
}

#[tokio::test]
async fn a_release_that_comes_no_further_fails_at_its_deadline() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    let wait = async |world: &mut World, looks| {
        for _ in 0..looks {
            world.test.clock.advance(std::time::Duration::from_secs(10));
            world.look_at_the_clock().await;
        }
    };
    wait(&mut world, 59).await;
    let mut world = world.restart().await;
    world.look().await;
    wait(&mut world, 59).await;
    assert_eq!(world.release(3).await.status, Status::Pending, "a platform that was away counts anew");
    wait(&mut world, 1).await;
    let failed = world.release(3).await;
    assert_eq!(failed.status, Status::Failed);
    let known = world.rollout_of(3).await.failure().expect("a failure");
    assert_eq!((known.cause.as_str(), known.dyno.as_deref()), ("stalled", Some("web.1")));
    assert!(failed.failure.expect("a reason").starts_with(&known.sentence), "{}", known.sentence);
    world.look().await;
    assert_eq!(
        (world.route(), world.runs().await),
        (Some(world.serve(2)), vec!["v2.web up".into(), "v3.web stopping".into()])
    );
}

#[tokio::test]
async fn a_release_that_the_engine_refuses_fails_in_its_words() {
    let mut world = World::live().await;
    world.test.engine.refuse(Some("the disk is full"));
    world.deploy(&["web"]).await;
    world.look().await;
    let failed = world.release(3).await;
    assert!(failed.failure.is_some_and(|reason| reason.contains("the disk is full")));
    assert_eq!((world.route(), world.runs().await), (Some(world.serve(2)), vec!["v2.web up".to_owned()]));
}

#[tokio::test]
async fn the_next_life_of_a_controller_carries_on_with_a_rollout() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    let mut world = world.restart().await;
    assert_eq!(world.route(), Some(world.serve(2)), "the first thing that routers hear");
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v3.web starting"], "nothing twice");
    world.up(3, "web");
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!((world.route(), world.release(3).await.current), (Some(world.serve(3)), true));
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping", "v3.web up"]);
}

#[tokio::test]
async fn what_an_older_program_wished_is_scaled_as_it_is_and_replaced_by_the_next_release() {
    let mut world = World::new().await;
    world.deploy(&["web"]).await;
    world.look().await;
    let mut older = world.test.engine.applied().remove(0);
    engine::Engine::delete(&world.test.engine, &older.id).await.expect("deleted");
    world.test.engine.finish_stopping(&older.id);
    // Another size and another port than this program would wish.
    older.container.limits.pids += 1;
    older.health = engine::Health::listening(4000, std::time::Duration::from_secs(1));
    engine::Engine::apply(&world.test.engine, older.clone()).await.expect("applied");
    world.up(2, "web");
    world.look().await;
    assert_eq!(world.route(), Some(world.serve(2)));

    let actor = world.test.owner_of(&world.app);
    let twice = ScaleRequest { process_type: "web".to_owned(), quantity: Some("2".to_owned()), size: None };
    world.test.controller.scale(&world.app, &actor, &[twice]).await.expect("scaled");
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v2.web starting"]);
    assert_eq!(world.test.engine.applied(), [engine::Workload { quantity: 2, ..older.clone() }]);

    world.configure("A", "1").await;
    world.roll(3).await;
    assert_eq!(world.stay().await, ["v3.web up", "v3.web up"]);
    assert_eq!(world.test.engine.applied()[0].container.limits.pids, older.container.limits.pids - 1);
}

#[tokio::test]
async fn a_config_change_during_a_rollout_comes_after_it() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.configure("COLOUR", "green").await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v3.web starting"]);
    world.up(3, "web");
    world.look().await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping", "v3.web up", "v4.web starting"]);
    let applied = world.test.engine.applied();
    let colour = |version| {
        let id = world.id(version, "web");
        applied.iter().find(|workload| workload.id == id)?.container.env.get("COLOUR").cloned()
    };
    assert_eq!((colour(3), colour(4)), (None, Some("green".to_owned())));
    world.up(4, "web");
    world.look().await;
    assert_eq!((world.route(), world.release(4).await.current), (Some(world.serve(4)), true));
}

#[tokio::test]
async fn an_app_is_looked_at_for_a_reason_and_a_look_at_all_finds_what_nobody_told() {
    let mut world = World::live().await;
    // What became live was said to have changed.
    world.look().await;
    let store = &world.test.controller.store;
    let two = Scale {
        process_type: "web".parse().expect("a process type"),
        quantity: Some(Quantity::Exactly(2)),
        size: None,
    };
    store.scale(world.app.id, &[two], 100, &crate::testing::stamp()).await.expect("scaled");
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up"], "it is one of many that do not change");
    world.test.controller.changed.notify_one();
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v2.web starting"]);
}

#[tokio::test]
async fn an_app_that_is_removed_during_its_rollout_leaves_nothing() {
    let mut world = World::live().await;
    world.deploy(&["release", "web"]).await;
    world.look().await;
    let owner = world.test.actor(&world.test.user("eve@example.com").await);
    world.test.controller.delete_app(&world.app, &owner, None).await.expect("removed");
    assert_eq!(world.route(), None, "nobody is sent there when the verb returns");
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping"]);
    world.test.engine.finish_stopping(&world.id(2, "web"));
    world.test.controller.sweep().await.expect("swept");
    assert_eq!(engine::Engine::oneoffs(&world.test.engine).await.expect("reachable"), []);
    world.look().await;
    assert!(world.runs().await.is_empty());
}

#[tokio::test]
async fn while_the_engine_is_away_visitors_stay_and_then_the_rollout_goes_on() {
    let mut world = World::live().await;
    world.test.engine.set_reachable(false);
    let release = world.deploy(&["web"]).await;
    assert!(matches!(world.rollout.tick().await, Err(Error::Engine(_))));
    assert_eq!((world.route(), world.release(3).await.status), (Some(world.serve(2)), Status::Pending));

    let World { test, rollout, router, app, .. } = world.restart().await;
    router
        .until(app.id, Some(&RouteMode::serve(workload_id(app.id, 2, &"web".parse().expect("web"), DEFAULT_SIZE))))
        .await;
    let engine = test.engine.clone();
    let loop_of_its_own = tokio::spawn(rollout.run());
    engine.set_reachable(true);
    let id = workload_id(app.id, 3, &"web".parse().expect("web"), DEFAULT_SIZE);
    while !engine.applied().iter().any(|workload| workload.id == id) {
        tokio::task::yield_now().await;
    }
    engine.make_all_up(&id);
    test.controller.live.settled(release.id).await;
    assert!(test.controller.store.release(release.id).await.expect("readable").expect("there").current);
    loop_of_its_own.abort();
}

#[tokio::test]
async fn a_rollback_is_scaled_as_its_release_was_and_the_old_one_stays_as_it_is() {
    let mut world = World::live().await;
    let first = world.release(2).await;
    let actor = world.test.owner_of(&world.app);
    let controller = world.test.controller.clone();
    let twice = ScaleRequest { process_type: "web".to_owned(), quantity: Some("2".to_owned()), size: None };
    controller.scale(&world.app, &actor, &[twice]).await.expect("scaled");
    world.configure("A", "1").await;
    world.look().await;
    world.up(2, "web");
    world.roll(3).await;
    assert_eq!(world.stay().await, ["v3.web up", "v3.web up"]);

    let wish = RollbackWish::default();
    controller.rollback((&world.app, &actor), &first, &wish).await.expect("rolled back");
    world.look().await;
    assert_eq!(world.stay().await, ["v3.web up", "v3.web up", "v4.web starting"]);
    world.up(4, "web");
    world.look().await;
    world.look().await;
    assert_eq!(world.stay().await, ["v4.web up"]);
}

#[tokio::test]
async fn a_rollback_waits_until_its_add_ons_let_the_app_through() {
    let test = TestController::new().await;
    let ada = test.user("ada@example.com").await;
    let app = test.app(&ada, "shop").await;
    let mut world = World::with(test, app, 1).await;
    let actor = world.test.owner_of(&world.app);
    let controller = world.test.controller.clone();
    let request = AddonRequest { plan: "postgres".to_owned(), ..AddonRequest::default() };
    controller.create_addon(&world.app, &actor, request).await.expect("an add-on");
    let attached = async || controller.store.attached(world.app.id).await.expect("readable");
    // The image is made on a thread of its own.
    while attached().await.is_empty() {
        controller.settle_addons().await;
        tokio::task::yield_now().await;
    }
    world.deploy(&["web"]).await;
    world.look_until(async |world| world.release(3).await.current).await;
    let attachments = controller.store.attachments_of_app(world.app.id).await.expect("readable");
    controller.detach_addon(&attachments[0], &actor).await.expect("detached");
    let is_out = async |world: &World| !world.runs().await.iter().any(|line| line.starts_with("v3."));
    world.look_until(async |world| world.release(4).await.current && is_out(world).await).await;
    controller.settle_addons().await;

    let with = world.release(3).await;
    controller.rollback((&world.app, &actor), &with, &RollbackWish::default()).await.expect("rolled back");
    world.look().await;
    assert_eq!(world.runs().await.iter().filter(|line| line.starts_with("v5.")).count(), 0, "not told yet");
    controller.settle_addons().await;
    world.look_until(async |world| world.release(5).await.current).await;
}
