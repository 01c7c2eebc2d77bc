//! Merges the two halves of the route table. One control thread owns this; workers see its results in the [`Table`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use model::routes::{
    Ack, AddressesUpdate, AppRoute, Endpoint, NamesUpdate, RouteMode, Update, WorkloadAddresses, WorkloadId,
};
use model::{AppId, RoutePolicy};
use tokio::sync::mpsc;

use crate::policy::Rules;
use crate::proof;
use crate::snapshot::Snapshot;
use crate::table::{App, Instance, Instances, Label, Mode, Shares, Table, Workload};
use crate::traffic::News;

pub(crate) struct Merger {
    table: Arc<Table>,
    rows: Snapshot,
    workloads: HashMap<WorkloadId, Arc<Workload>>,
    /// What the owners of apps say of their requests. An app that stays as it is keeps what it remembers.
    rules: HashMap<AppId, Arc<Rules>>,
    /// Those that take the requests of an app.
    served: HashSet<WorkloadId>,
    /// What left the table and still had requests when somebody looked.
    leaving: Vec<Arc<Instance>>,
    news: mpsc::UnboundedSender<News>,
    next_serial: u64,
}

impl Merger {
    /// Begins with `rows` in the table, and says by `news` which instance has no request left after it was taken away.
    pub(crate) fn new(table: Arc<Table>, rows: Snapshot, news: mpsc::UnboundedSender<News>) -> Self {
        let (workloads, rules, served, leaving) = (HashMap::new(), HashMap::new(), HashSet::new(), Vec::new());
        let rows_of_none = Snapshot::default();
        let mut merger = Self { table, rows: rows_of_none, workloads, rules, served, leaving, news, next_serial: 0 };
        let Snapshot { names, addresses } = rows;
        merger.apply_addresses(AddressesUpdate {
            version: 0,
            reset: true,
            set: addresses.into_iter().collect(),
            unset: vec![],
        });
        merger.apply_names(NamesUpdate { version: 0, reset: true, set: names.into_iter().collect(), unset: vec![] });
        merger
    }

    /// Everything held, for the disk.
    pub(crate) fn rows(&self) -> &Snapshot {
        &self.rows
    }

    /// Makes these rows stay as they are, also if an update is of the whole table.
    pub(crate) fn keep_names(&self, update: &mut NamesUpdate, kept: &[AppId]) {
        keep(&self.rows.names, update, kept);
    }

    /// The same of the other half.
    pub(crate) fn keep_addresses(&self, update: &mut AddressesUpdate, kept: &[WorkloadId]) {
        keep(&self.rows.addresses, update, kept);
    }

    /// Once this returns, every request from now on is routed by the new names.
    pub(crate) fn apply_names(&mut self, update: NamesUpdate) {
        let mut touched: BTreeSet<AppId> =
            update.set.iter().map(|(id, _)| *id).chain(update.unset.iter().copied()).collect();
        if update.reset {
            touched.extend(self.rows.names.keys());
        }
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for (id, row) in touched.iter().filter_map(|id| Some((*id, self.rows.names.get(id)?))) {
            taken.extend(row.hosts.iter().map(|host| (host.clone(), id)));
            left.extend(serves(row).cloned());
        }
        merge(&mut self.rows.names, update.reset, update.set, &update.unset);
        let mut given = Vec::new();
        for workload in &left {
            self.served.remove(workload);
        }
        for id in touched {
            let Some(mut route) = self.rows.names.get(&id).cloned() else {
                self.rules.remove(&id);
                continue;
            };
            let rules = self.rules(id, route.policy.take());
            self.served.extend(serves(&route).cloned());
            let mode = match route.mode {
                RouteMode::Blank => Mode::Blank,
                RouteMode::Maintenance => Mode::Maintenance,
                RouteMode::NoWeb => Mode::NoWeb,
                RouteMode::Serve(shares) => {
                    Mode::Serve(Shares::new(shares.iter().map(|share| (self.workload(&share.workload), share.weight))))
                }
            };
            let app = Arc::new(App { id, name: route.name, mode, rules });
            given.extend(route.hosts.into_iter().map(|host| (host, Arc::clone(&app))));
        }
        self.table.change(taken, given);
        self.forget_unused(left);
        self.table.changed.send_replace(());
    }

    /// Once this returns, no new request goes to an instance that the update took away. The answer is what its publisher is to know
    /// first: what became of those that are to rest, and, of a whole table, which of those that are gone, also by earlier updates, still
    /// have requests.
    pub(crate) fn apply_addresses(&mut self, update: AddressesUpdate) -> Vec<Ack> {
        let (version, is_whole) = (update.version, update.reset);
        let mut touched: HashSet<WorkloadId> = update.set.iter().map(|(id, _)| id.clone()).collect();
        touched.extend(update.unset.iter().cloned());
        if update.reset {
            touched.extend(self.rows.addresses.keys().cloned());
        }
        merge(&mut self.rows.addresses, update.reset, update.set, &update.unset);
        if is_whole {
            // Another life of the publisher was not asked by those who wait.
            self.workloads.values().for_each(|workload| workload.ask_again());
        }
        self.leaving.retain(|instance| !instance.is_drained());
        let (mut gone, mut busy) = (Vec::new(), Vec::new());
        for id in &touched {
            let row = self.rows.addresses.get(id).cloned().unwrap_or_default();
            for (instance, is_gone) in self.set_instances(id, row) {
                if is_gone { gone.push(instance) } else { busy.push(instance) }
            }
        }
        self.forget_unused(touched);
        self.table.changed.send_replace(());
        let rest = (!gone.is_empty() || !busy.is_empty()).then_some(Ack::Rest { version, gone, busy });
        self.leaving.retain(|instance| !instance.is_drained());
        let held: Vec<_> = self.leaving.iter().map(|instance| instance.endpoint.instance.clone()).collect();
        let holding = (is_whole && !held.is_empty()).then_some(Ack::Holding(held));
        holding.into_iter().chain(rest).collect()
    }

    /// Looks, while the publisher is away, which addresses are still proven, and takes the others out. What has no proof stays.
    pub(crate) fn prove(&mut self) -> bool {
        let is_proven = |endpoint: &Endpoint| endpoint.proof.as_ref().is_none_or(proof::holds);
        let mut changed = Vec::new();
        for (id, row) in &mut self.rows.addresses {
            if proof::keep(row, is_proven) {
                changed.push((id.clone(), row.clone()));
            }
        }
        for (id, row) in &changed {
            tracing::info!(workload.id = %id, "an instance is gone while the host role is away");
            self.set_instances(id, row.clone());
        }
        if !changed.is_empty() {
            self.table.changed.send_replace(());
        }
        !changed.is_empty()
    }

    /// The answer is which of those that are to rest do so (true), and which have something to do.
    fn set_instances(&mut self, id: &WorkloadId, row: WorkloadAddresses) -> Vec<(String, bool)> {
        let workload = self.workload(id);
        let before = workload.instances.load_full();
        let kept = |endpoint: &Endpoint| before.healthy.iter().find(|old| old.endpoint == *endpoint).map(Arc::clone);
        let mut healthy: Vec<Arc<Instance>> = row
            .healthy
            .into_iter()
            .map(|endpoint| kept(&endpoint).unwrap_or_else(|| self.instance(endpoint, &workload.label)))
            .collect();
        let mut answers = Vec::new();
        for endpoint in row.resting {
            let leaves = self.leaving.iter().any(|old| old.endpoint.instance == endpoint.instance);
            let works = kept(&endpoint).filter(|instance| !instance.rest());
            answers.push((endpoint.instance, works.is_none() && !leaves));
            healthy.extend(works);
        }
        for instance in &healthy {
            instance.set_drain(row.drain);
        }
        let gone = before.healthy.iter().filter(|old| !healthy.iter().any(|new| Arc::ptr_eq(old, new)));
        let gone: Vec<&Arc<Instance>> = gone.collect();
        workload.set(Instances { healthy, starting: row.starting, crashed: row.crashed });
        for instance in gone {
            instance.retire();
            self.leaving.push(Arc::clone(instance));
        }
        answers
    }

    fn rules(&mut self, id: AppId, policy: Option<Box<RoutePolicy>>) -> Option<Arc<Rules>> {
        let Some(policy) = policy else {
            self.rules.remove(&id);
            return None;
        };
        if let Some(known) = self.rules.get(&id).filter(|rules| rules.policy == *policy) {
            return Some(Arc::clone(known));
        }
        let rules = Arc::new(Rules::new(*policy));
        self.rules.insert(id, Arc::clone(&rules));
        Some(rules)
    }

    fn workload(&mut self, id: &WorkloadId) -> Arc<Workload> {
        if let Some(known) = self.workloads.get(id) {
            return Arc::clone(known);
        }
        let label = Label { id: id.clone(), serial: self.new_serial() };
        let workload = Arc::new(Workload::new(label, self.news.clone()));
        self.workloads.insert(id.clone(), Arc::clone(&workload));
        workload
    }

    fn instance(&mut self, endpoint: Endpoint, label: &Arc<Label>) -> Arc<Instance> {
        let serial = self.new_serial();
        Arc::new(Instance::new(endpoint, serial, Arc::clone(label), self.news.clone()))
    }

    fn new_serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// Forgets those of these workloads that neither half has.
    fn forget_unused(&mut self, workloads: impl IntoIterator<Item = WorkloadId>) {
        for id in workloads {
            if !self.rows.addresses.contains_key(&id) && !self.served.contains(&id) {
                self.workloads.remove(&id);
            }
        }
    }
}

fn serves(row: &AppRoute) -> impl Iterator<Item = &WorkloadId> {
    let shares = match &row.mode {
        RouteMode::Serve(shares) => shares.as_slice(),
        _ => &[],
    };
    shares.iter().map(|share| &share.workload)
}

fn keep<K: Ord + Clone, V: Clone>(rows: &BTreeMap<K, V>, update: &mut Update<K, V>, kept: &[K]) {
    update.set.extend(kept.iter().filter_map(|key| Some((key.clone(), rows.get(key)?.clone()))));
}

fn merge<K: Ord, V>(rows: &mut BTreeMap<K, V>, reset: bool, set: Vec<(K, V)>, unset: &[K]) {
    if reset {
        rows.clear();
    }
    for key in unset {
        rows.remove(key);
    }
    rows.extend(set);
}

#[cfg(test)]
mod tests {
    use model::routes::Share;

    use super::*;

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

    fn addresses(reset: bool, set: Vec<(&str, WorkloadAddresses)>) -> AddressesUpdate {
        let set = set.into_iter().map(|(id, row)| (WorkloadId(id.to_owned()), row)).collect();
        AddressesUpdate { version: 1, reset, set, unset: vec![] }
    }

    fn names(hosts: &[&str], mode: RouteMode) -> NamesUpdate {
        let hosts = hosts.iter().map(|host| host.parse().expect("a host name")).collect();
        let id = "00000000-0000-4000-8000-000000000001".parse().expect("an id");
        let row = AppRoute { name: "shop".parse().expect("a name"), hosts, mode, policy: None };
        NamesUpdate { version: 1, reset: false, set: vec![(id, row)], unset: vec![] }
    }

    fn instances(table: &Table, host: &str) -> Vec<String> {
        let app = table.find(host).expect("an app");
        let Mode::Serve(shares) = &app.mode else { panic!("not serving") };
        let names = |workload: &Arc<Workload>| -> Vec<String> {
            workload.instances.load().healthy.iter().map(|instance| instance.endpoint.instance.clone()).collect()
        };
        shares.iter().flat_map(names).collect()
    }

    fn serve(workload: &str) -> RouteMode {
        RouteMode::serve(WorkloadId(workload.to_owned()))
    }

    fn gone(told: &mut mpsc::UnboundedReceiver<News>) -> Option<String> {
        match told.try_recv().ok()? {
            News::Drained(instance) => Some(instance),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_host_moves_between_apps_in_either_order_and_what_nobody_serves_is_forgotten() {
        let table = Arc::new(Table::new());
        let mut merger = Merger::new(Arc::clone(&table), Snapshot::default(), mpsc::unbounded_channel().0);
        let id = |number: u32| -> AppId { format!("00000000-0000-4000-8000-{number:012}").parse().expect("an id") };
        let row = |number, hosts: &[&str], workload: &str| {
            let NamesUpdate { set, .. } = names(hosts, serve(workload));
            (id(number), set.into_iter().next().expect("a row").1)
        };
        let mut say = |reset, set, unset| merger.apply_names(NamesUpdate { version: 1, reset, set, unset });
        let who = |host: &str| table.find(host).map(|app| app.id);
        say(false, vec![row(1, &["old.localhost", "*.shop.example"], "w1")], vec![]);
        // Another takes the name before it is known to be free.
        say(false, vec![row(2, &["old.localhost"], "w2")], vec![]);
        say(false, vec![row(1, &["new.localhost"], "w1")], vec![]);
        assert_eq!([who("old.localhost"), who("new.localhost")], [Some(id(2)), Some(id(1))]);
        assert_eq!(who("www.shop.example"), None);
        // At once, and as a part of the whole.
        say(false, vec![row(1, &["old.localhost"], "w3"), row(2, &["new.localhost"], "w2")], vec![]);
        assert_eq!([who("old.localhost"), who("new.localhost")], [Some(id(1)), Some(id(2))]);
        say(true, vec![row(3, &["new.localhost"], "w4")], vec![]);
        assert_eq!([who("old.localhost"), who("new.localhost")], [None, Some(id(3))]);
        say(false, vec![], vec![id(3)]);
        assert_eq!(who("new.localhost"), None);
        assert!(merger.workloads.is_empty() && merger.served.is_empty());
    }

    #[test]
    fn the_halves_meet_in_either_order_and_a_change_of_one_row_keeps_the_rest() {
        let table = Arc::new(Table::new());
        let (sender, mut told) = mpsc::unbounded_channel();
        let mut merger = Merger::new(Arc::clone(&table), Snapshot::default(), sender);
        merger.apply_names(names(&["shop.localhost", "*.shop.example"], serve("w1")));
        assert!(instances(&table, "shop.localhost").is_empty());
        merger.apply_addresses(addresses(true, vec![("w1", healthy(&["a", "b"])), ("w2", healthy(&["c"]))]));
        assert_eq!(instances(&table, "shop.localhost"), ["a", "b"]);
        assert_eq!(instances(&table, "deep.www.shop.example"), ["a", "b"]);
        assert!(table.find("shop.example").is_none(), "a wildcard does not mean its parent");

        let held = table.find("shop.localhost").expect("an app");
        let Mode::Serve(shares) = &held.mode else { panic!("not serving") };
        let workload = shares.iter().next().expect("one");
        let kept = Arc::clone(&workload.instances.load().healthy[1]);
        merger.apply_addresses(addresses(false, vec![("w1", healthy(&["b"]))]));
        assert_eq!(gone(&mut told).as_deref(), Some("a"));
        assert!(Arc::ptr_eq(&kept, &workload.instances.load().healthy[0]), "an instance that stays keeps its state");

        let both = [("w1", 1), ("w2", 3)].map(|(id, weight)| Share { workload: WorkloadId(id.to_owned()), weight });
        merger.apply_names(names(&["shop.localhost"], RouteMode::Serve(both.into())));
        assert_eq!(instances(&table, "shop.localhost"), ["b", "c"]);
        merger.apply_names(names(&["shop.localhost"], serve("w2")));
        assert_eq!(instances(&table, "shop.localhost"), ["c"]);
        assert!(told.try_recv().is_err(), "only the addresses take instances away");
        merger.apply_addresses(addresses(true, vec![]));
        let mut both = [gone(&mut told).expect("one"), gone(&mut told).expect("two")];
        both.sort();
        assert_eq!(both, ["b", "c"]);
    }
}
