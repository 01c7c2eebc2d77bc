//! Whether what is asked for fits: nothing is promised that the machine has not got.
//!
//! Memory of dedicated sizes is kept free for them. That of the others is a ceiling, which few reach at the same time: it is promised
//! [`Settings::memory_overcommit`](crate::Settings) times over, and the disk as well.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use engine::{Capacity, Demand, WorkloadStatus};
use model::{AppId, ProcessType};
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use crate::rollout::size_of;
use crate::sizes::{Sizes, limits};
use crate::store::{FormationRow, Quantity, Scale};
use crate::{Controller, Error};

/// So long after it was promised something an app is looked at again: the engine may not have been told yet.
const LATELY: Duration = Duration::from_secs(60);

/// What was promised to apps lately, all that such an app may have in the end. Held while something is promised: of two who ask for
/// the last of the memory one gets it.
pub(crate) type Promised = BTreeMap<AppId, (Demand, Instant)>;

/// What there is and what is taken of it, in the units in which it is shared out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    capacity: Capacity,
    memory_overcommit: u64,
    reserved_memory: u64,
    disk_overcommit: u64,
    /// Bytes of disk that volumes may take. What is in them stays, so that it is promised only once.
    volumes: u64,
}

impl Room {
    /// Bytes of memory that can be promised.
    fn memory(&self) -> u64 {
        // A small machine keeps half of it.
        let reserved = self.reserved_memory.min(self.capacity.memory / 2);
        self.capacity.memory - reserved
    }

    fn disk(&self) -> u64 {
        self.capacity.disk
    }

    /// How much of the memory a demand takes.
    fn memory_of(&self, demand: Demand) -> u64 {
        demand.dedicated_memory.saturating_add(demand.shared_memory / self.memory_overcommit)
    }

    fn disk_of(&self, demand: Demand) -> u64 {
        demand.disk / self.disk_overcommit
    }

    fn disk_taken(&self) -> u64 {
        self.disk_of(self.capacity.demand).saturating_add(self.volumes)
    }

    /// Refuses a volume of so many bytes if they are not free.
    pub(crate) fn admit_volume(&self, who: &str, bytes: u64) -> Result<(), String> {
        let disk = (self.disk(), self.disk_taken(), bytes);
        if bytes <= disk.0.saturating_sub(disk.1) { Ok(()) } else { Err(refusal(who, "disk", disk, (bytes, 1))) }
    }

    /// The same with more, or less, that is taken.
    fn taking(mut self, more: Demand, less: Demand) -> Self {
        self.capacity.demand += more;
        self.capacity.demand = self.capacity.demand.without(less);
        self
    }

    /// Refuses what needs more of anything than is free. `who` asks: `web=3 of performance-l`.
    pub(crate) fn admit(&self, who: &str, needs: Demand) -> Result<(), String> {
        let taken = self.capacity.demand;
        let memory = (self.memory(), self.memory_of(taken), self.memory_of(needs));
        let disk = (self.disk(), self.disk_taken(), self.disk_of(needs));
        let addresses = (self.capacity.containers, taken.containers, needs.containers);
        let fits = |(all, taken, needs): (u64, u64, u64)| needs == 0 || needs <= all.saturating_sub(taken);
        if !fits(memory) {
            let limit = needs.dedicated_memory.saturating_add(needs.shared_memory);
            return Err(refusal(who, "memory", memory, (limit, self.memory_overcommit)));
        }
        if !fits(disk) {
            return Err(refusal(who, "disk", disk, (needs.disk, self.disk_overcommit)));
        }
        if !fits(addresses) {
            let (all, taken, needs) = addresses;
            let free = all.saturating_sub(taken);
            return Err(format!("{who} needs {needs} addresses; {free} of {all} are free (setting `subnet`)."));
        }
        Ok(())
    }
}

/// `web=3 of performance-l needs 42 GiB; 6.1 of 22 GiB are free`
fn refusal(who: &str, what: &str, (all, taken, needs): (u64, u64, u64), (limit, overcommit): (u64, u64)) -> String {
    let mut text = format!("{who} needs {} GiB", gib(needs, true));
    if what != "memory" {
        let _ = write!(text, " of {what}");
    }
    if limit > needs {
        let _ = write!(text, " (of its {} GiB one in {overcommit}: `{what}_overcommit`)", gib(limit, true));
    }
    let (free, all) = (gib(all.saturating_sub(taken), false), gib(all, false));
    let _ =
        write!(text, "; {free} of {all} GiB are free. Take fewer or smaller ones (`platform ps:sizes`), or make room.");
    text
}

/// GiB, below ten with a tenth; what is needed is never said to be less than it is, what is free never more.
fn gib(bytes: u64, up: bool) -> String {
    let tenths = u128::from(bytes) * 10;
    let tenths = if up { tenths.div_ceil(1 << 30) } else { tenths >> 30 };
    match (tenths / 10, tenths % 10) {
        (whole, 0) => whole.to_string(),
        (whole @ 0..10, tenth) => format!("{whole}.{tenth}"),
        (whole, _) => if up { whole + 1 } else { whole }.to_string(),
    }
}

/// What so many dynos of a size may use.
pub(crate) fn demand_of(sizes: &Sizes, size: &str, quantity: u32) -> Demand {
    sizes.find_or_default(size).map_or_else(Demand::default, |size| Demand::of(&limits(size), quantity))
}

/// What an app has of what the engine was told.
pub(crate) fn demand_now(sizes: &Sizes, mine: &[WorkloadStatus]) -> Demand {
    let desired = mine.iter().filter(|status| !status.deleting);
    desired.map(|status| demand_of(sizes, size_of(&status.id), status.quantity)).sum()
}

impl Controller {
    /// How much room there is beside what all, or all but `app`, have; none if the engine does not say.
    pub(crate) async fn room_beside(&self, app: Option<AppId>, promised: &mut Promised) -> Result<Option<Room>, Error> {
        promised.retain(|_, (_, moment)| moment.elapsed() < LATELY);
        let apps: Vec<AppId> = promised.keys().copied().chain(app).collect();
        let Ok(capacity) = self.engine.capacity().await else { return Ok(None) };
        // Most of the time nothing was promised lately.
        let (sizes, running) = if apps.is_empty() {
            (Sizes::built_in(), Vec::new())
        } else {
            let Ok(running) = self.engine.list_of(&apps).await else { return Ok(None) };
            (self.sizes().await?, running)
        };
        let now = |id: AppId| {
            let mine: Vec<_> = running.iter().filter(|status| status.app == id).cloned().collect();
            demand_now(&sizes, &mine)
        };
        // What the engine will be told of soon.
        let others = promised.iter().filter(|(id, _)| Some(**id) != app);
        let due = others.map(|(id, (demand, _))| demand.without(now(*id))).sum();
        let room = Room {
            capacity,
            memory_overcommit: u64::from(self.settings.memory_overcommit.get()),
            reserved_memory: self.settings.reserved_memory,
            disk_overcommit: u64::from(self.settings.disk_overcommit.get()),
            volumes: self.store.volume_bytes().await?,
        };
        Ok(Some(room.taking(due, app.map(now).unwrap_or_default())))
    }

    /// Refuses to scale an app to more than fits beside what others have. The answer must be held until it is written down.
    pub(crate) async fn admit_scale(
        &self,
        app: AppId,
        known: &[FormationRow],
        changes: &[Scale],
        sizes: &Sizes,
    ) -> Result<MutexGuard<'_, Promised>, Error> {
        let mut promised = self.live.promised.lock().await;
        let Some(room) = self.room_beside(Some(app), &mut promised).await? else { return Ok(promised) };
        let (mut needs, mut before, mut rest, mut who) =
            (Demand::default(), Demand::default(), Demand::default(), Vec::new());
        for row in known {
            let Some(change) = changes.iter().find(|change| change.process_type == row.process_type) else {
                rest += demand_of(sizes, &row.size, row.quantity);
                continue;
            };
            let (quantity, size) = scaled(change, row.quantity, &row.size);
            needs += demand_of(sizes, size, quantity);
            before += demand_of(sizes, &row.size, row.quantity);
            if quantity > 0 && size != &row.size {
                // Those of the old size serve until the new ones are healthy.
                rest += demand_of(sizes, &row.size, row.quantity);
            }
            if quantity > 0 {
                who.push(words(&row.process_type, quantity, size));
            }
        }
        // Less is always fine, also where nothing more would be.
        let is_more = needs.without(before) != Demand::default();
        if is_more {
            room.taking(rest, Demand::default()).admit(&who.join(" and "), needs).map_err(Error::Conflict)?;
        }
        if is_more || promised.contains_key(&app) {
            promised.insert(app, ([needs, rest].into_iter().sum(), Instant::now()));
        }
        Ok(promised)
    }

    /// Refuses one more container that does not fit.
    pub(crate) async fn admit_one(&self, who: &str, needs: Demand) -> Result<(), Error> {
        self.admit_instead(who, needs, Demand::default()).await
    }

    /// Refuses what does not fit in the place of what is there. Less is always fine.
    pub(crate) async fn admit_instead(&self, who: &str, needs: Demand, before: Demand) -> Result<(), Error> {
        if needs.without(before) == Demand::default() {
            return Ok(());
        }
        let mut promised = self.live.promised.lock().await;
        let Some(room) = self.room_beside(None, &mut promised).await? else { return Ok(()) };
        room.taking(Demand::default(), before).admit(who, needs).map_err(Error::Conflict)
    }
}

/// `web=3 of performance-l`
pub(crate) fn words(process_type: &ProcessType, quantity: u32, size: &str) -> String {
    format!("{process_type}={quantity} of {}", size.to_ascii_lowercase())
}

fn scaled<'a>(change: &'a Scale, quantity: u32, size: &'a String) -> (u32, &'a String) {
    let quantity = match change.quantity {
        Some(Quantity::Exactly(exactly)) => exactly,
        Some(Quantity::By(by)) => quantity.saturating_add_signed(by),
        None => quantity,
    };
    (quantity, change.size.as_ref().unwrap_or(size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formation::ScaleRequest;
    use crate::testing::TestController;

    fn room(memory_gib: u64, taken: Demand) -> Room {
        let capacity = Capacity { memory: memory_gib << 30, disk: 40 << 30, containers: 100, demand: taken };
        Room { capacity, memory_overcommit: 16, reserved_memory: 1 << 30, disk_overcommit: 4, volumes: 0 }
    }

    fn needs(size: &str, quantity: u32) -> Demand {
        demand_of(&Sizes::built_in(), size, quantity)
    }

    fn scale(quantity: &str, size: &str) -> ScaleRequest {
        let (quantity, size) = (Some(quantity.to_owned()), Some(size.to_owned()));
        ScaleRequest { process_type: "web".to_owned(), quantity, size }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_is_free() {
        let taken = Demand { dedicated_memory: 17_000_000_000, ..Demand::default() };
        let refused = |room: Room, who: &str, needs| room.admit(who, needs).expect_err("too much");
        let told = [
            refused(room(23, taken), "web=3 of performance-l", needs("performance-l", 3)),
            refused(room(2, Demand::default()), "web=20 of standard-2x", needs("standard-2x", 20)),
            refused(room(64, Demand::default()), "web=41 of basic", needs("basic", 41)),
            refused(room(64, Demand { containers: 99, ..Demand::default() }), "web=2 of eco", needs("eco", 2)),
        ];
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn a_small_machine_runs_many_small_dynos() {
        let small = Demand { disk: 0, ..needs("basic", 20) };
        room(4, Demand::default()).admit("web=20 of basic", small).expect("twenty on 4 GiB");
        let many = Demand { disk: 0, containers: 0, ..needs("basic", 500) };
        room(24, Demand::default()).admit("web=500 of basic", many).expect("five hundred on 24 GiB");
        room(1, Demand::default()).admit("web=1 of basic", needs("basic", 1)).expect("half of a small one is kept");
        room(24, many).admit("web=0 of basic", Demand::default()).expect("nothing always fits");
    }

    #[tokio::test]
    async fn of_two_who_ask_for_the_last_of_the_memory_one_gets_it() {
        let world = TestController::manual().await;
        let ada = world.somebody("ada@example.com").await;
        world.engine.set_capacity(23 << 30, 1 << 50, 1000);
        let (first, second) = (world.app(&ada.user, "first").await, world.app(&ada.user, "second").await);
        for app in [&first, &second] {
            world.deploy(app, &["web"]).await;
        }
        let controller = &world.controller;
        let refused = controller.scale(&first, &ada, &[scale("3", "performance-l")]).await.expect_err("too much");
        assert_eq!(
            refused.to_string(),
            "web=3 of performance-l needs 42 GiB; 22 of 23 GiB are free. Take fewer or smaller ones (`platform ps:sizes`), or make room."
        );
        controller.scale(&first, &ada, &[scale("1", "performance-l")]).await.expect("there is room");
        // The engine has not been told yet.
        let refused = controller.scale(&second, &ada, &[scale("1", "performance-l")]).await.expect_err("too much");
        assert!(
            refused.to_string().starts_with("web=1 of performance-l needs 14 GiB; 8.9 of 23 GiB are free."),
            "{refused}"
        );
        controller.scale(&second, &ada, &[scale("3", "performance-m")]).await.expect("there is room");
        controller.scale(&first, &ada, &[scale("0", "performance-l")]).await.expect("less is always fine");
        controller.scale(&second, &ada, &[scale("1", "performance-l")]).await.expect("now there is");
        world.engine.set_reachable(false);
        controller.scale(&first, &ada, &[scale("9", "performance-l")]).await.expect("nobody knows better");
    }

    #[tokio::test]
    async fn another_size_must_fit_beside_the_old_one_and_a_smaller_one_always_does() {
        let world = TestController::manual().await;
        let ada = world.somebody("ada@example.com").await;
        world.engine.set_capacity(20 << 30, 1 << 50, 1000);
        let app = world.app(&ada.user, "shop").await;
        world.deploy(&app, &["web"]).await;
        let controller = &world.controller;
        controller.scale(&app, &ada, &[scale("3", "performance-m")]).await.expect("there is room");
        let refused = controller.scale(&app, &ada, &[scale("1", "performance-l")]).await.expect_err("not beside them");
        assert!(
            refused.to_string().starts_with("web=1 of performance-l needs 14 GiB; 12 of 20 GiB are free."),
            "{refused}"
        );
        assert_eq!(controller.formation(&app).await.expect("readable")[0].row.size, "Performance-M");
        controller.scale(&app, &ada, &[scale("0", "performance-m")]).await.expect("less is always fine");
        controller.scale(&app, &ada, &[scale("1", "performance-l")]).await.expect("nothing is beside it");
        controller.scale(&app, &ada, &[scale("1", "performance-m")]).await.expect("less is always fine");
    }
}
