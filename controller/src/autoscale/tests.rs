use std::collections::BTreeMap;
use std::time::Duration;

use model::ProcessType;
use tokio::time::Instant;

use super::worker::Autoscaler;
use crate::formation::ScaleRequest;
use crate::rollout::Rollout;
use crate::store::{App, NewScaling, Outcome};
use crate::testing::{TestController, image, make_deploy};

/// An app with a worker that uses as much of a processor as the test says.
struct World {
    test: TestController,
    app: App,
    autoscaler: Autoscaler,
    now: Instant,
    used: Duration,
}

impl World {
    async fn new() -> Self {
        let test = TestController::new().await;
        let user = test.user("ada@example.com").await;
        let app = test.app(&user, "shop").await;
        let release = make_deploy(&test.controller.store, &app, &image(&["web", "worker"])).await;
        test.finish(&release, Outcome::Succeeded).await;
        tokio::spawn(Rollout::new(test.controller.clone()).run());
        let autoscaler = Autoscaler::new(test.controller.clone());
        let mut world = Self { test, app, autoscaler, now: Instant::now(), used: Duration::ZERO };
        world.scale(1).await;
        world
    }

    /// Somebody scales the worker by hand.
    async fn scale(&mut self, quantity: u32) {
        let request = ScaleRequest {
            process_type: "worker".to_owned(),
            quantity: Some(quantity.to_string()),
            size: Some("basic".to_owned()),
        };
        let actor = self.test.owner_of(&self.app);
        self.test.controller.scale(&self.app, &actor, &[request]).await.expect("scaled");
    }

    /// Waits until as many workers run.
    async fn until(&self, quantity: u32) {
        let runs = || {
            let applied = self.test.engine.applied();
            let found = applied.into_iter().find(|workload| workload.process_type.as_str() == "worker");
            found.map_or(0, |workload| workload.quantity)
        };
        let comes = async {
            while runs() != quantity {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let limit = Duration::from_secs(60);
        assert!(tokio::time::timeout(limit, comes).await.is_ok(), "there are {} workers", runs());
    }

    /// Works for so long, using this part of a core.
    async fn work(&mut self, seconds: u64, part: f64) {
        for _ in 0..seconds / 10 {
            let tick = Duration::from_secs(10);
            (self.now, self.used) = (self.now + tick, self.used + tick.mul_f64(part));
            self.test.clock.advance(tick);
            for workload in self.test.engine.applied() {
                self.test.engine.set_used(&workload.id, self.used, 100 << 20);
            }
            self.autoscaler.tick(self.now).await.expect("a look");
        }
    }

    /// Lets the worker scale by itself.
    async fn enable(&self) {
        let changes = [("metric", "cpu"), ("target", "50"), ("max", "4"), ("cool_down", "60s")];
        let changes: BTreeMap<_, _> = changes.map(|(name, text)| (name.to_owned(), Some(text.to_owned()))).into();
        let actor = self.test.owner_of(&self.app);
        self.test.controller.set_scaling_policy((&self.app, &actor), &worker(), &changes).await.expect("set");
    }

    /// What was decided, the newest first.
    async fn decided(&self) -> Vec<NewScaling> {
        let all = self.test.controller.store.scaling_decisions(self.app.id, &worker()).await.expect("readable");
        all.into_iter().map(|decision| decision.scaling).collect()
    }

    async fn quantity(&self) -> u32 {
        let formation = self.test.controller.formation(&self.app).await.expect("readable");
        let found = formation.iter().find(|process| process.row.process_type.as_str() == "worker");
        found.expect("a worker").row.quantity
    }
}

fn worker() -> ProcessType {
    "worker".parse().expect("a type")
}

#[tokio::test]
async fn a_busy_worker_gets_company_and_the_numbers_are_remembered() {
    let mut world = World::new().await;
    world.until(1).await;
    world.work(120, 1.0).await;
    assert_eq!(world.quantity().await, 1, "nobody asked for it");
    world.enable().await;
    world.work(60, 1.0).await;
    world.until(2).await;
    let first = world.decided().await.remove(0);
    assert_eq!((first.from, first.to, first.metric.as_str(), first.target), (1, 2, "cpu", 50));
    assert_eq!(first.reason, "100 % of the CPU of 1 dyno in a minute; the target is 50 %");
    let scaled_in = async |world: &World| {
        let rows = world.test.controller.store.formation(world.app.id).await.expect("readable");
        rows.iter().find(|row| row.process_type == worker()).expect("a row").scaled_in
    };
    let before = scaled_in(&world).await;

    // By hand it goes elsewhere, and from there on.
    world.scale(4).await;
    world.until(4).await;
    let by_hand = scaled_in(&world).await;
    assert!(by_hand >= before && by_hand > 0, "that counts as scaled by people");
    world.work(40, 0.25).await;
    assert_eq!(world.quantity().await, 4, "the cool-down is not over");
    world.work(60, 0.25).await;
    world.until(2).await;
    assert_eq!(world.decided().await.len(), 2);
    world.scale(0).await;
    world.until(0).await;
    world.work(300, 1.0).await;
    assert_eq!(world.quantity().await, 0, "what is stopped stays so");
}

#[tokio::test]
async fn what_there_is_no_room_for_is_held_and_the_decision_says_what_is_free() {
    let mut world = World::new().await;
    world.until(1).await;
    // For what runs, and nothing more.
    world.test.engine.set_capacity(80 << 20, 1 << 50, 1000);
    world.enable().await;
    world.work(60, 1.0).await;
    let held = world.decided().await;
    assert_eq!((held.len(), held[0].from, held[0].to), (1, 1, 1));
    let reason = "100 % of the CPU of 1 dyno in a minute; the target is 50 %; held: no room: worker=2 of basic needs 0.1 GiB \
         (of its 1 GiB one in 16: `memory_overcommit`); 0 of 0 GiB are free.";
    assert!(held[0].reason.starts_with(reason), "{}", held[0].reason);
    world.work(60, 1.0).await;
    assert_eq!(world.decided().await.len(), 2, "it is said once in a cool-down");
    assert_eq!(world.quantity().await, 1);
    world.test.engine.set_capacity(1 << 40, 1 << 50, 1000);
    world.work(10, 1.0).await;
    world.until(2).await;
    assert_eq!((world.decided().await[0].from, world.decided().await[0].to), (1, 2));
}
