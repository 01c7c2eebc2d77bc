//! What each container holds that others may want: volumes, the address of a service, and its own address, by which services
//! know who connects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::AppId;
use tokio::sync::watch;

use crate::files::Record;

/// What one container holds for as long as anything of it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenant {
    app: AppId,
    /// For messages: `workload a.v1.web`.
    name: String,
    volumes: BTreeSet<String>,
    /// The service's address, if it is an instance of one.
    service: Option<Ipv4Addr>,
    /// Whether its app's policy of what it reaches outside holds for it.
    is_bound: bool,
    /// Whether no other such container may hold what it holds.
    exclusive: bool,
    /// Where it is reached, from its link on.
    address: Option<Ipv4Addr>,
}

impl Tenant {
    pub(crate) fn of(record: &Record) -> Self {
        let (app, container, name) = match record {
            Record::Instance { wish, .. } => {
                (wish.workload.app, &wish.workload.container, format!("workload {}", wish.workload.id))
            }
            Record::OneOff { oneoff, .. } => (oneoff.app, &oneoff.container, format!("one-off {}", oneoff.id)),
        };
        let volumes = container.volumes().map(str::to_owned).collect();
        let is_bound = !matches!(record, Record::OneOff { oneoff, .. } if oneoff.is_build);
        let exclusive = matches!(record, Record::Instance { wish, .. } if wish.workload.is_exclusive());
        Self { app, name, volumes, service: record.service_address(), is_bound, exclusive, address: None }
    }

    pub(crate) fn at(self, address: Option<Ipv4Addr>) -> Self {
        Self { address, ..self }
    }

    fn excludes(&self, other: &Self) -> bool {
        let same_service = self.service.is_some() && self.service == other.service;
        self.exclusive && other.exclusive && (same_service || !self.volumes.is_disjoint(&other.volumes))
    }
}

/// All containers of which anything exists, by id.
pub(crate) struct Tenants {
    all: Mutex<BTreeMap<String, Tenant>>,
    moved_out: watch::Sender<u64>,
}

impl Tenants {
    pub(crate) fn new(all: BTreeMap<String, Tenant>) -> Self {
        Self { all: Mutex::new(all), moved_out: watch::Sender::new(0) }
    }

    /// Takes what `tenant` holds, once nobody is left who excludes it. May be dropped while it waits.
    pub(crate) async fn move_in(&self, id: &str, tenant: Tenant) {
        let mut moved_out = self.moved_out.subscribe();
        loop {
            {
                let mut all = self.lock();
                if !all.iter().any(|(other, held)| other != id && held.excludes(&tenant)) {
                    all.insert(id.to_owned(), tenant);
                    return;
                }
            }
            // The sender lives in `self`, so this cannot fail while we wait.
            let _ = moved_out.changed().await;
        }
    }

    /// Notes where a tenant is reached now, if anywhere.
    pub(crate) fn locate(&self, id: &str, address: Option<Ipv4Addr>) {
        if let Some(tenant) = self.lock().get_mut(id) {
            tenant.address = address;
        }
    }

    /// Gives back what a container held: nothing of it is left.
    pub(crate) fn move_out(&self, id: &str) {
        self.lock().remove(id);
        self.moved_out.send_modify(|count| *count += 1);
    }

    /// The addresses of services that instances have.
    pub(crate) fn services(&self) -> BTreeSet<Ipv4Addr> {
        self.lock().values().filter_map(|tenant| tenant.service).collect()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Where the containers of these apps are reached.
    pub(crate) fn addresses(&self, apps: &BTreeSet<AppId>) -> Vec<Ipv4Addr> {
        let all = self.lock();
        all.values().filter(|tenant| apps.contains(&tenant.app)).filter_map(|tenant| tenant.address).collect()
    }

    /// Where the containers are reached for which the policies of these apps hold, and whose they are.
    pub(crate) fn bound(&self, has_policy: impl Fn(AppId) -> bool) -> BTreeMap<Ipv4Addr, AppId> {
        let all = self.lock();
        let bound = all.values().filter(|tenant| tenant.is_bound && has_policy(tenant.app));
        bound.filter_map(|tenant| Some((tenant.address?, tenant.app))).collect()
    }

    /// Does something with a volume that nobody holds, and that nobody can take meanwhile. Else `is_leaving` says of the id of
    /// each holder whether it goes by itself: then this waits. The name of one that does not is the error.
    pub(crate) async fn with_free_volume<T>(
        &self,
        volume: &str,
        is_leaving: impl Fn(&str) -> bool,
        action: impl FnOnce() -> T,
    ) -> Result<T, String> {
        let mut moved_out = self.moved_out.subscribe();
        loop {
            {
                let all = self.lock();
                let mut holders = all.iter().filter(|(_, tenant)| tenant.volumes.contains(volume)).peekable();
                if holders.peek().is_none() {
                    return Ok(action());
                }
                if let Some((_, tenant)) = holders.find(|(id, _)| !is_leaving(id)) {
                    return Err(tenant.name.clone());
                }
            }
            // As above.
            let _ = moved_out.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Tenant>> {
        // Nothing panics while it holds the lock, and each change is one statement.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn tenant(volumes: &[&str], service: Option<u8>) -> Tenant {
        Tenant {
            app: "00000000-0000-4000-8000-000000000001".parse().expect("an id"),
            name: "workload a.v1.web".to_owned(),
            volumes: volumes.iter().map(|&name| name.to_owned()).collect(),
            service: service.map(|host| Ipv4Addr::new(10, 0, 0, host)),
            is_bound: true,
            exclusive: true,
            address: None,
        }
    }

    #[test]
    fn a_volume_and_an_address_have_one_holder_at_a_time() {
        let tenants = Tenants::new(BTreeMap::from([("old".to_owned(), tenant(&["data"], Some(1)))]));
        let mut context = Context::from_waker(Waker::noop());
        for wants in [tenant(&["data"], None), tenant(&[], Some(1))] {
            assert!(pin!(tenants.move_in("new", wants)).poll(&mut context).is_pending());
        }
        let others = [tenant(&["other"], Some(2)), Tenant { exclusive: false, ..tenant(&["data"], None) }];
        for (id, other) in ["a", "b"].into_iter().zip(others) {
            assert_eq!(pin!(tenants.move_in(id, other)).poll(&mut context), Poll::Ready(()));
        }
        let mut waiting = pin!(tenants.move_in("new", tenant(&["data"], Some(1))));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        tenants.move_out("old");
        assert_eq!(waiting.poll(&mut context), Poll::Ready(()));
        let mut now =
            |volume, is_leaving| pin!(tenants.with_free_volume(volume, |_| is_leaving, || 1)).poll(&mut context);
        assert_eq!(now("data", false), Poll::Ready(Err("workload a.v1.web".to_owned())));
        assert_eq!(now("data", true), Poll::Pending);
        assert_eq!(now("free", false), Poll::Ready(Ok(1)));
    }
}
