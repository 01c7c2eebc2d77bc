//! What the control plane costs with many apps. `scripts/bench-scale.sh` runs it; nothing here passes or fails by a figure.

use std::time::Instant;

use super::*;
use crate::store::Start;
use crate::testing::{make_app, make_deploy_of};

/// Instances of each app.
const INSTANCES: u32 = 5;

/// How often a change of one app is measured.
const CHANGES: usize = 50;

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn row(apps: usize, what: &str, value: &str) {
    println!("{apps} apps, {} instances: {what}|{value}", apps * INSTANCES as usize);
}

/// Memory of this process, in MiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of the memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// Makes apps until there are so many, each with a release that is live and of which nothing runs yet.
async fn grow(world: &World, owner: &crate::store::User, from: usize, to: usize) -> Vec<App> {
    let store = &world.test.controller.store;
    let web = "web".parse().expect("a process type");
    let starts = BTreeMap::from([(web, Start { quantity: Some(INSTANCES), ..Start::default() })]);
    let mut apps = Vec::new();
    for number in from..to {
        let app = make_app(store, owner, &format!("app-{number}")).await;
        let release = make_deploy_of(store, &app, &image(&["web"]), (&starts, None)).await;
        world.test.finish(&release, crate::store::Outcome::Succeeded).await;
        apps.push(app);
    }
    apps
}

/// Changes one app after the other; how long each took from its commit until the old release was gone, p50 and p99.
async fn change(world: &mut World, apps: &[App]) -> String {
    let mut took = Vec::new();
    for app in apps {
        world.app = app.clone();
        let version = world.configure("COUNT", "1").await.version;
        let begin = Instant::now();
        loop {
            world.look().await;
            let running = engine::Engine::list_of(&world.test.engine, &[app.id]).await.expect("reachable");
            if running.iter().all(|workload| workload.release == version) && world.release(version).await.current {
                break;
            }
        }
        took.push(begin.elapsed());
    }
    took.sort_unstable();
    let at = |share: usize| took[took.len() * share / 100].as_secs_f64() * 1000.0;
    format!("{:.1} ms, {:.1} ms", at(50), at(99))
}

/// Looks at every app.
async fn look_at_all(world: &mut World) {
    world.test.controller.changed.notify_one();
    world.look().await;
    while !world.rollout.backlog.is_empty() {
        world.look().await;
    }
}

fn since(begin: Instant) -> String {
    format!("{:.2} s", begin.elapsed().as_secs_f64())
}

#[tokio::test]
async fn a_change_of_one_app_does_not_wait_for_a_look_at_all_of_them() {
    let test = TestController::new().await;
    let ada = test.user("ada@example.com").await;
    let app = test.app(&ada, "shop").await;
    let mut world = World::with(test, app, 1).await;
    for number in 0..700 {
        make_app(&world.test.controller.store, &ada, &format!("app-{number}")).await;
    }
    world.test.controller.changed.notify_one();
    world.look().await;
    let version = world.deploy(&["web"]).await.version;
    for _ in 0..2 {
        world.look().await;
    }
    assert!(world.release(version).await.current && !world.rollout.backlog.is_empty());
    look_at_all(&mut world).await;
    assert_eq!(world.test.controller.live.names.keys().len(), 701, "each has its turn");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement; scripts/bench-scale.sh runs it"]
async fn figures() {
    let sizes = std::env::var("SCALE_APPS").unwrap_or_else(|_| "500 5000 50000".to_owned());
    let test = TestController::new().await;
    let ada = test.user("ada@example.com").await;
    let app = test.app(&ada, "first").await;
    let mut world = World::with(test, app, 1).await;
    let (mut made, mut fresh) = (0, Vec::new());
    for apps in sizes.split_whitespace().map(|word| word.parse::<usize>().expect("a number of apps")) {
        fresh.extend(grow(&world, &ada, made, apps).await);
        made = apps;
        for what in ["pass that starts all that is missing", "full pass with nothing to do", "the same once more"] {
            let begin = Instant::now();
            look_at_all(&mut world).await;
            row(apps, what, &since(begin));
        }
        let stride = fresh.len() / CHANGES;
        let (some, rest): (Vec<_>, Vec<_>) = fresh.into_iter().enumerate().partition(|(at, _)| at % stride == 0);
        fresh = rest.into_iter().map(|(_, app)| app).collect();
        let some: Vec<App> = some.into_iter().map(|(_, app)| app).collect();
        row(apps, "one app's change amid them, p50, p99", &change(&mut world, &some).await);
        row(apps, "memory, with that of the engine", &format!("{} MiB", memory()));
        let begin = Instant::now();
        Rollout::new(world.test.controller.clone()).begin().await.expect("a readable store");
        row(apps, "a controller that starts has told routers of all after", &since(begin));
    }
}
