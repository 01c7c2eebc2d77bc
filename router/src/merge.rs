//! Merges the two halves of the route table into what workers read, the [`Table`]. One control thread does.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::routes::{Ack, AppRoute, Endpoint, Place, WorkloadAddresses, WorkloadId};
use model::{AppId, Hostname};
use tokio::sync::mpsc;

use crate::follow::Half;
use crate::making::{Making, Source, is_not_disproven};
use crate::pack::Packed;
use crate::rows::Draft;
use crate::table::{Instance, Instances, Table, Workload};
use crate::traffic::News;

/// Bytes of rows after which a part of a large update takes effect.
const PORTION: usize = 4 << 20;

/// What apps are by name.
pub(crate) struct Names {
    table: Arc<Table>,
    /// Numbers the updates.
    update: u32,
    rows: Draft,
    unset: Vec<AppId>,
    taken: Vec<(Place, AppId)>,
    given: Vec<(Place, AppId)>,
}

impl Names {
    pub(crate) fn new(table: Arc<Table>) -> Self {
        let (rows, unset, taken, given) = (Draft::default(), Vec::new(), Vec::new(), Vec::new());
        Self { table, update: 0, rows, unset, taken, given }
    }

    /// Takes all rows out again.
    pub(crate) fn forget(&mut self) {
        self.begin();
        self.end(0, true);
    }

    fn remove(&mut self, key: &[u8]) {
        self.take_places(key, &[]);
        if let Some(id) = AppId::unpack(key) {
            self.table.askers.set(id, false);
            self.table.ports.set(id, &[]);
        }
        self.rows.set(key, None);
    }

    /// Notes which places an app has and is to have no more.
    fn take_places(&mut self, key: &[u8], stay: &[Place]) {
        let (Some(id), Some(Some(row))) = (AppId::unpack(key), self.table.names.read(key, AppRoute::unpack)) else {
            return;
        };
        let gone = places(row.hosts, row.places).filter(|place| !stay.iter().any(|other| place.is_where(other)));
        self.taken.extend(gone.map(|place| (place, id)));
    }
}

fn places(hosts: Vec<Hostname>, places: Vec<Place>) -> impl Iterator<Item = Place> {
    hosts.into_iter().map(Place::from).chain(places)
}

impl Half for Names {
    type Key = AppId;
    type Row = AppRoute;

    fn begin(&mut self) {
        let update = self.update.wrapping_add(1);
        *self = Self { update, ..Self::new(Arc::clone(&self.table)) };
    }

    fn set(&mut self, id: AppId, route: AppRoute) {
        self.table.askers.set(id, route.policy.as_ref().is_some_and(|policy| policy.domain_ask.is_some()));
        self.table.ports.set(id, &route.tcp);
        let (key, row) = (id.packed(), route.packed());
        let is_same = self.table.names.is_told(&key, &row, self.update);
        let places: Vec<Place> = places(route.hosts, route.places).collect();
        if !is_same {
            self.take_places(&key, &places);
            self.rows.set(&key, Some(&row));
        }
        // Two apps may have claimed a place, of which one has let go by now.
        let is_to_have = |place: &Place| match self.table.slot(place) {
            Some(slot) if slot.app == id => slot.strip != place.strip,
            Some(_) => !is_same,
            None => true,
        };
        self.given.extend(places.into_iter().filter(is_to_have).map(|place| (place, id)));
        if self.rows.size() >= PORTION {
            self.apply();
        }
    }

    fn keep(&mut self, id: AppId) {
        self.table.names.keep(&id.packed(), self.update);
    }

    fn apply(&mut self) {
        let (rows, table) = (std::mem::take(&mut self.rows), &self.table);
        // An app that requests use goes on as what the row says now. Of another one nothing is made before there is a request.
        table.names.change(&rows, self.update, |part| {
            let mut making = table.making();
            part(&mut |change, _, live| {
                let (before, id) = (live?, AppId::unpack(change.key)?);
                Some(table.make_app(&mut making, id, AppRoute::unpack(change.row?)?, Some(before)))
            });
        });
        table.move_places(&std::mem::take(&mut self.taken), &std::mem::take(&mut self.given));
    }

    fn unset(&mut self, id: AppId) {
        self.unset.push(id);
    }

    /// Once this returns, every request from now on is routed by the new names.
    fn end(&mut self, _: u64, reset: bool) -> Vec<Ack> {
        self.apply();
        let unset = std::mem::take(&mut self.unset).into_iter().map(|id| id.packed().into());
        let mut gone: Vec<Box<[u8]>> = unset.collect();
        if reset {
            gone.extend(self.table.names.untold(self.update));
        }
        gone.retain(|key| self.table.names.told(key).is_some_and(|update| update != self.update));
        for key in &gone {
            self.remove(key);
        }
        self.apply();
        self.table.ports.settle();
        self.table.changed.send_replace(());
        Vec::new()
    }
}

/// Where the instances of workloads are.
pub(crate) struct Addresses {
    table: Arc<Table>,
    /// Numbers the updates.
    update: u32,
    rows: Draft,
    unset: Vec<WorkloadId>,
    /// Of the instances that are to rest, those that do, and those that have something to do.
    gone: Vec<String>,
    busy: Vec<String>,
    /// What left the table and still had requests when somebody looked.
    leaving: Vec<Arc<Instance>>,
    news: mpsc::UnboundedSender<News>,
}

impl Addresses {
    /// Says by `news` which instance has no request left after it was taken away.
    pub(crate) fn new(table: Arc<Table>, news: mpsc::UnboundedSender<News>) -> Self {
        let (rows, unset, gone, busy, leaving) = (Draft::default(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { table, update: 0, rows, unset, gone, busy, leaving, news }
    }

    /// Takes all rows out again, of which nobody has used any yet.
    pub(crate) fn forget(&mut self) {
        self.begin();
        for key in self.table.addresses.untold(self.update) {
            self.rows.set(&key, None);
        }
        self.apply();
    }

    /// Instances that nobody ever used leave the table, or are to rest.
    fn leave_unused(&mut self, making: &Making, before: &WorkloadAddresses, after: &WorkloadAddresses) {
        for endpoint in &after.resting {
            let leaves = self.is_leaving(endpoint);
            let answers = if leaves { &mut self.busy } else { &mut self.gone };
            answers.push(endpoint.instance.clone());
        }
        // To a table on disk nobody's instances belong.
        if matches!(making.source, Source::Disk { .. }) {
            return;
        }
        let stays = |old: &Endpoint| after.healthy.contains(old) || after.resting.contains(old);
        for endpoint in before.healthy.iter().filter(|old| !stays(old)) {
            // Without a receiver the router is stopping, and nobody waits for it.
            let _ = self.news.send(News::Drained(endpoint.instance.clone()));
        }
    }

    fn is_leaving(&self, endpoint: &Endpoint) -> bool {
        self.leaving.iter().any(|old| old.endpoint.instance == endpoint.instance)
    }

    /// Makes a workload that requests use what a row says.
    fn set_instances(&mut self, making: &mut Making, workload: &Arc<Workload>, row: WorkloadAddresses) {
        let before = workload.instances.load_full();
        let kept = |endpoint: &Endpoint| before.healthy.iter().find(|old| old.endpoint == *endpoint).map(Arc::clone);
        let mut healthy: Vec<Arc<Instance>> = row
            .healthy
            .into_iter()
            .map(|endpoint| kept(&endpoint).unwrap_or_else(|| making.instance(endpoint, &workload.label)))
            .collect();
        for endpoint in row.resting {
            let works = kept(&endpoint).filter(|instance| !instance.rest());
            let rests = works.is_none() && !self.is_leaving(&endpoint);
            let answers = if rests { &mut self.gone } else { &mut self.busy };
            answers.push(endpoint.instance);
            healthy.extend(works);
        }
        for instance in &healthy {
            instance.set_drain(row.drain);
        }
        let gone = before.healthy.iter().filter(|old| !healthy.iter().any(|new| Arc::ptr_eq(old, new)));
        let gone: Vec<&Arc<Instance>> = gone.collect();
        workload.set(Instances { healthy, starting: row.starting, crashed: row.crashed });
        workload.is_doubtful.store(false, Ordering::Relaxed);
        for instance in gone {
            instance.retire();
            self.leaving.push(Arc::clone(instance));
        }
    }

    /// The host role stands for all rows: what was held back of them is there again.
    fn trust(&mut self) {
        let table = Arc::clone(&self.table);
        let mut making = table.making();
        making.source = Source::Told;
        // Another life of the publisher was not asked by those who wait.
        making.without_row().for_each(|workload| workload.ask_again());
        let mut doubtful = Vec::new();
        table.addresses.all_live(|_, row, workload| {
            workload.ask_again();
            if workload.is_doubtful.load(Ordering::Relaxed) {
                doubtful.push((Arc::clone(workload), WorkloadAddresses::unpack(row).unwrap_or_default()));
            }
        });
        for (workload, row) in doubtful {
            self.set_instances(&mut making, &workload, row);
        }
    }

    /// What the publisher is to know before it hears that this version is served: what became of those that are to rest, and, of a whole table,
    /// which of those that are gone, also by earlier updates, still have requests.
    fn answer(&mut self, version: u64, is_whole: bool) -> Vec<Ack> {
        self.leaving.retain(|instance| !instance.is_drained());
        let held: Vec<_> = self.leaving.iter().map(|instance| instance.endpoint.instance.clone()).collect();
        let holding = (is_whole && !held.is_empty()).then_some(Ack::Holding(held));
        let (gone, busy) = (std::mem::take(&mut self.gone), std::mem::take(&mut self.busy));
        let rest = (!gone.is_empty() || !busy.is_empty()).then_some(Ack::Rest { version, gone, busy });
        holding.into_iter().chain(rest).collect()
    }
}

impl Half for Addresses {
    type Key = WorkloadId;
    type Row = WorkloadAddresses;

    fn begin(&mut self) {
        let (update, leaving) = (self.update.wrapping_add(1), std::mem::take(&mut self.leaving));
        *self = Self { update, leaving, ..Self::new(Arc::clone(&self.table), self.news.clone()) };
        self.leaving.retain(|instance| !instance.is_drained());
    }

    fn set(&mut self, id: WorkloadId, addresses: WorkloadAddresses) {
        let (key, row) = (id.packed(), addresses.packed());
        // What became of an instance that is to rest is said anew for each update that speaks of it.
        if addresses.resting.is_empty() && self.table.addresses.is_told(&key, &row, self.update) {
            return;
        }
        self.rows.set(&key, Some(&row));
        if self.rows.size() >= PORTION {
            self.apply();
        }
    }

    fn keep(&mut self, id: WorkloadId) {
        self.table.addresses.keep(&id.packed(), self.update);
    }

    fn apply(&mut self) {
        let (rows, update, table) = (std::mem::take(&mut self.rows), self.update, Arc::clone(&self.table));
        table.addresses.change(&rows, update, |part| {
            let mut making = table.making();
            part(&mut |change, before, live| {
                let id = WorkloadId::unpack(change.key)?;
                let row = change.row.and_then(WorkloadAddresses::unpack);
                let workload = live.map(Arc::clone).or_else(|| making.take_without_row(&id));
                let Some(workload) = workload else {
                    let before = before.and_then(WorkloadAddresses::unpack).unwrap_or_default();
                    self.leave_unused(&making, &before, &row.unwrap_or_default());
                    return None;
                };
                let has_row = row.is_some();
                self.set_instances(&mut making, &workload, row.unwrap_or_default());
                if !has_row {
                    making.keep_without_row(&workload);
                    return None;
                }
                Some(workload)
            });
        });
    }

    fn unset(&mut self, id: WorkloadId) {
        self.unset.push(id);
    }

    /// Once this returns, no new request goes to an instance that the update took away.
    fn end(&mut self, version: u64, reset: bool) -> Vec<Ack> {
        self.apply();
        let unset = std::mem::take(&mut self.unset).into_iter().map(|id| id.packed().into());
        let mut gone: Vec<Box<[u8]>> = unset.collect();
        if reset {
            gone.extend(self.table.addresses.untold(self.update));
        }
        gone.retain(|key| self.table.addresses.told(key).is_some_and(|update| update != self.update));
        for key in &gone {
            self.rows.set(key, None);
        }
        self.apply();
        if reset {
            self.trust();
        }
        self.table.changed.send_replace(());
        self.answer(version, reset)
    }

    /// Looks which addresses that requests use are still proven, and takes the others out. What has no proof stays.
    fn alone(&mut self) {
        let table = Arc::clone(&self.table);
        if table.making().source == Source::Told {
            table.making().source = Source::Away;
        }
        let mut disproven = Vec::new();
        table.addresses.all_live(|_, row, workload| {
            if !workload.instances.load().healthy.iter().all(|instance| is_not_disproven(&instance.endpoint)) {
                disproven.push((Arc::clone(workload), WorkloadAddresses::unpack(row).unwrap_or_default()));
            }
        });
        for (workload, row) in &disproven {
            tracing::info!(workload.id = %workload.label.id, "an instance is gone while the host role is away");
            let mut making = table.making();
            let row = making.trusted(row.clone());
            self.set_instances(&mut making, workload, row);
            workload.is_doubtful.store(true, Ordering::Relaxed);
        }
        if !disproven.is_empty() {
            table.changed.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use model::routes::{Proof, RouteMode, Share};

    use super::*;
    use crate::table::{App, Mode};

    /// A table with both halves, and what is said to publishers.
    struct World {
        table: Arc<Table>,
        names: Names,
        addresses: Addresses,
        told: mpsc::UnboundedReceiver<News>,
    }

    impl World {
        fn new() -> Self {
            let (news, told) = mpsc::unbounded_channel();
            let table = Arc::new(Table::new(news.clone()));
            let (names, addresses) = (Names::new(Arc::clone(&table)), Addresses::new(Arc::clone(&table), news));
            Self { table, names, addresses, told }
        }

        fn say_names(&mut self, reset: bool, set: Vec<(AppId, AppRoute)>, unset: &[AppId]) {
            self.names.begin();
            for (id, row) in set {
                self.names.set(id, row);
            }
            for id in unset {
                self.names.unset(*id);
            }
            self.names.end(1, reset);
        }

        fn say_addresses(&mut self, reset: bool, set: Vec<(&str, WorkloadAddresses)>) -> Vec<Ack> {
            self.addresses.begin();
            for (id, row) in set {
                self.addresses.set(WorkloadId(id.to_owned()), row);
            }
            self.addresses.end(1, reset)
        }

        fn find(&self, host: &str) -> Arc<App> {
            self.table.find(host, "/").expect("an app").0
        }

        fn workloads(&self, host: &str) -> Vec<Arc<Workload>> {
            let app = self.find(host);
            let Mode::Serve(shares) = &app.mode else { panic!("not serving") };
            shares.iter().map(Arc::clone).collect()
        }

        fn instances(&self, host: &str) -> Vec<String> {
            let workloads = self.workloads(host);
            let instances = workloads.iter().flat_map(|workload| workload.instances.load().healthy.clone());
            instances.map(|instance| instance.endpoint.instance.clone()).collect()
        }

        /// Instances that are drained by now.
        fn drained(&mut self) -> Vec<String> {
            let mut drained = Vec::new();
            while let Ok(news) = self.told.try_recv() {
                let News::Drained(instance) = news else { panic!("{news:?}") };
                drained.push(instance);
            }
            drained.sort();
            drained
        }
    }

    fn endpoint(instance: &str) -> Endpoint {
        Endpoint {
            instance: instance.to_owned(),
            dyno: "web.1".to_owned(),
            address: ([127, 0, 0, 1], 80).into(),
            proof: None,
        }
    }

    fn healthy(instances: &[&str]) -> WorkloadAddresses {
        WorkloadAddresses { healthy: instances.iter().map(|id| endpoint(id)).collect(), ..WorkloadAddresses::default() }
    }

    fn id(number: u32) -> AppId {
        format!("00000000-0000-4000-8000-{number:012}").parse().expect("an id")
    }

    fn row(number: u32, hosts: &[&str], mode: RouteMode) -> (AppId, AppRoute) {
        let hosts = hosts.iter().map(|host| host.parse().expect("a host name")).collect();
        (
            id(number),
            AppRoute { name: "shop".parse().expect("a name"), hosts, places: vec![], mode, policy: None, tcp: vec![] },
        )
    }

    fn serve(workload: &str) -> RouteMode {
        RouteMode::serve(WorkloadId(workload.to_owned()))
    }

    #[test]
    fn a_host_moves_between_apps_in_either_order_and_what_nobody_serves_is_forgotten() {
        let mut world = World::new();
        let row = |number, hosts: &[&str], workload: &str| row(number, hosts, serve(workload));
        let who = |world: &World, host: &str| world.table.find(host, "/").ok().map(|(app, _)| app.id);
        let both = |world: &World| [who(world, "old.localhost"), who(world, "new.localhost")];
        world.say_names(false, vec![row(1, &["old.localhost", "*.shop.example"], "w1")], &[]);
        assert_eq!(who(&world, "a.b.shop.example"), Some(id(1)));
        // Another takes the name before it is known to be free.
        world.say_names(false, vec![row(2, &["old.localhost"], "w2")], &[]);
        world.say_names(false, vec![row(1, &["new.localhost"], "w1")], &[]);
        assert_eq!(both(&world), [Some(id(2)), Some(id(1))]);
        assert_eq!(who(&world, "www.shop.example"), None);
        // At once, and as a part of the whole.
        world.say_names(false, vec![row(1, &["old.localhost"], "w3"), row(2, &["new.localhost"], "w2")], &[]);
        assert_eq!(both(&world), [Some(id(1)), Some(id(2))]);
        world.say_names(true, vec![row(3, &["new.localhost"], "w4")], &[]);
        assert_eq!(both(&world), [None, Some(id(3))]);
        world.say_names(false, vec![row(3, &["new.localhost"], "w4")], &[id(3)]);
        assert_eq!(who(&world, "new.localhost"), Some(id(3)), "what is set stays");
        world.say_names(false, vec![], &[id(3)]);
        assert_eq!(who(&world, "new.localhost"), None);
        world.table.making().forget_unused(0);
        assert_eq!(world.table.making().without_row().count(), 0);
    }

    #[test]
    fn the_halves_meet_in_either_order_and_a_change_of_one_row_keeps_the_rest() {
        let mut world = World::new();
        let hosts = ["shop.localhost", "*.shop.example"];
        world.say_names(false, vec![row(1, &hosts, serve("w1"))], &[]);
        assert!(world.instances("shop.localhost").is_empty());
        world.say_addresses(true, vec![("w1", healthy(&["a", "b"])), ("w2", healthy(&["c"]))]);
        assert_eq!(world.instances("shop.localhost"), ["a", "b"]);
        assert_eq!(world.instances("deep.www.shop.example"), ["a", "b"]);
        assert!(world.table.find("shop.example", "/").is_err(), "a wildcard does not mean its parent");

        let workload = world.workloads("shop.localhost").remove(0);
        let kept = Arc::clone(&workload.instances.load().healthy[1]);
        world.say_addresses(false, vec![("w1", healthy(&["b"]))]);
        assert_eq!(world.drained(), ["a"]);
        assert!(Arc::ptr_eq(&kept, &workload.instances.load().healthy[0]), "an instance that stays keeps its state");

        let both = [("w1", 1), ("w2", 3)].map(|(id, weight)| Share { workload: WorkloadId(id.to_owned()), weight });
        world.say_names(false, vec![row(1, &hosts, RouteMode::Serve(both.into()))], &[]);
        assert_eq!(world.instances("shop.localhost"), ["b", "c"]);
        assert!(Arc::ptr_eq(&workload, &world.workloads("shop.localhost")[0]), "a workload is one for all");
        world.say_names(false, vec![row(1, &hosts, serve("w2"))], &[]);
        assert_eq!(world.instances("shop.localhost"), ["c"]);
        assert!(world.drained().is_empty(), "only the addresses take instances away");
        world.say_addresses(true, vec![]);
        assert_eq!(world.drained(), ["b", "c"]);
        world.say_addresses(false, vec![("w2", healthy(&["d"]))]);
        assert_eq!(world.instances("shop.localhost"), ["d"], "who waits for it finds it");
    }

    #[test]
    fn parts_of_a_host_come_and_go_with_their_apps_and_the_rest_stays() {
        let mut world = World::new();
        let at = |number, hosts: &[&str], places: &[(&str, bool)]| {
            let (id, mut route) = row(number, hosts, RouteMode::Blank);
            let place = |(path, strip): &(&str, bool)| Place {
                host: "www.shop.example".parse().expect("a host name"),
                path: Some(path.parse().expect("a path")),
                strip: *strip,
            };
            route.places = places.iter().map(place).collect();
            (id, route)
        };
        let who = |world: &World, path: &str| {
            world
                .table
                .find("www.shop.example", path)
                .ok()
                .map(|(app, mounted)| (app.id, mounted.is_some_and(|it| it.strip)))
        };
        let of = |number| Some((id(number), false));
        world.say_names(
            true,
            vec![at(1, &["www.shop.example"], &[]), at(2, &[], &[("/api", false), ("/a", false)])],
            &[],
        );
        assert_eq!([who(&world, "/"), who(&world, "/api/x"), who(&world, "/a")], [of(1), of(2), of(2)]);
        world.say_names(false, vec![at(2, &[], &[("/api", true)])], &[]);
        assert_eq!([who(&world, "/api"), who(&world, "/a")], [Some((id(2), true)), of(1)]);
        // Another app has taken it before that is known.
        world.say_names(false, vec![at(3, &[], &[("/api", false)])], &[]);
        world.say_names(false, vec![], &[id(2)]);
        assert_eq!([who(&world, "/api"), who(&world, "/")], [of(3), of(1)]);
        world.say_names(false, vec![at(1, &[], &[])], &[]);
        assert_eq!([who(&world, "/api"), who(&world, "/")], [of(3), None]);
        world.say_names(false, vec![at(4, &["*.shop.example"], &[])], &[]);
        assert_eq!(
            [who(&world, "/api"), who(&world, "/")],
            [of(3), of(4)],
            "the rest is whose it is without the parts"
        );
        let unclear = world.table.find("www.shop.example", "/x/../api").err();
        assert_eq!(unclear, Some(crate::table::Nowhere::Unclear));
        world.say_names(true, vec![at(1, &["www.shop.example"], &[])], &[]);
        assert_eq!([who(&world, "/api"), who(&world, "/x/../api")], [of(1), of(1)], "it has one app again");
    }

    #[test]
    fn what_nobody_asked_for_leaves_and_rests_as_what_somebody_did() {
        for asked in [false, true] {
            let mut world = World::new();
            world.say_names(true, vec![row(1, &["shop.localhost"], serve("w"))], &[]);
            world.say_addresses(true, vec![("w", healthy(&["a", "b", "c"]))]);
            let held = asked.then(|| world.workloads("shop.localhost").remove(0));
            let in_flight = held.as_ref().and_then(|it| it.instances.load().healthy[1].enter(u64::MAX));
            let resting = ["b", "c"].map(endpoint).into();
            let acks = world.say_addresses(false, vec![("w", WorkloadAddresses { resting, ..healthy(&["d"]) })]);
            let (busy, gone): (Vec<_>, Vec<_>) = ["b", "c"].into_iter().partition(|it| asked && *it == "b");
            let [busy, gone] = [busy, gone].map(|names| names.into_iter().map(str::to_owned).collect());
            assert_eq!(acks, [Ack::Rest { version: 1, gone, busy }], "{asked}");
            assert_eq!(world.drained(), ["a"], "{asked}");
            assert_eq!(world.instances("shop.localhost").len(), 1 + usize::from(asked));
            drop(in_flight);
        }
    }

    #[test]
    fn of_a_million_hosts_each_takes_less_than_three_hundred_bytes() {
        let mut world = World::new();
        let (count, instance) = (20_000, "01234567-89ab-4def-8123-456789abcdef");
        world.names.begin();
        world.addresses.begin();
        for number in 0..count {
            let workload = WorkloadId(format!("{}.v12.web", id(number)));
            let (id, route) =
                row(number, &[&format!("app-{number}.apps.example.com")], RouteMode::serve(workload.clone()));
            world.names.set(id, route);
            let proof = Some(Proof { pid: 1_000_000, started: 10_000_000, netns: 4_026_532_000 });
            let healthy = vec![Endpoint { proof, ..endpoint(instance) }];
            world.addresses.set(workload, WorkloadAddresses { healthy, ..WorkloadAddresses::default() });
        }
        world.names.end(1, true);
        world.addresses.end(1, true);
        let bytes = world.table.size() / count as usize;
        assert!((150..260).contains(&bytes), "{bytes} bytes");
        // Who is asked for is made, and nobody else.
        (0..100).for_each(|number| drop(world.find(&format!("app-{number}.apps.example.com"))));
        let mut live = 0;
        world.table.names.all_live(|_, _, _| live += 1);
        assert_eq!(live, 100);
    }
}
