//! Makes of rows what requests need.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::routes::{Endpoint, Proof, WorkloadAddresses, WorkloadId};
use tokio::sync::mpsc;

use crate::pack::Packed;
use crate::proof;
use crate::table::{Instance, Instances, Label, Workload};
use crate::traffic::News;

/// What it takes, of which there is one for all workers.
pub(crate) struct Making {
    /// How far the addresses are to be believed.
    pub(crate) source: Source,
    /// Workloads that requests want, of which no row of the addresses says anything.
    rowless: HashMap<WorkloadId, Arc<Workload>>,
    /// So many of them make it worth looking which of them nobody wants any more.
    many: usize,
    news: mpsc::UnboundedSender<News>,
    next_serial: u64,
}

/// Whether what is known of addresses is still so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The host role says so.
    Told,
    /// It said so, and went away. What has a proof is to be proven.
    Away,
    /// It is on disk, where it was written in this life of the machine, or in another one. What is not proven may be somebody else's by now.
    Disk {
        /// That life, as [`proof::boot_id`] names it.
        boot: Option<String>,
        /// It is this one.
        is_this: bool,
    },
}

impl Making {
    pub(crate) fn new(news: mpsc::UnboundedSender<News>) -> Self {
        let source = Source::Disk { boot: None, is_this: false };
        Self { source, rowless: HashMap::new(), many: 64, news, next_serial: 0 }
    }

    /// What is left of a row that nobody stands for now: addresses that are not proven count as booting, and so do, of an earlier router's table,
    /// instances that crashed, for they may have been started again.
    pub(crate) fn trusted(&self, mut row: WorkloadAddresses) -> WorkloadAddresses {
        match self.source {
            Source::Told => {}
            Source::Away => drop(proof::keep(&mut row, is_not_disproven)),
            Source::Disk { is_this, .. } => {
                proof::keep(&mut row, |endpoint| is_this && endpoint.proof.as_ref().is_some_and(proof::holds));
                row.starting = row.starting.saturating_add(std::mem::take(&mut row.crashed));
            }
        }
        row
    }

    /// The workload that a row of the addresses is of.
    pub(crate) fn workload_of(&mut self, id: &WorkloadId, row: &[u8]) -> Option<Arc<Workload>> {
        let row = self.trusted(WorkloadAddresses::unpack(row)?);
        let workload = self.workload(id.clone());
        let healthy = row.healthy.into_iter().map(|endpoint| self.instance(endpoint, &workload.label)).collect();
        let instances = Instances { healthy, starting: row.starting, crashed: row.crashed };
        instances.healthy.iter().for_each(|instance| instance.set_drain(row.drain));
        workload.set(instances);
        workload.is_doubtful.store(self.source != Source::Told, Ordering::Relaxed);
        Some(workload)
    }

    /// A workload of which the addresses say nothing.
    pub(crate) fn workload_without_row(&mut self, id: WorkloadId) -> Arc<Workload> {
        if let Some(known) = self.rowless.get(&id) {
            return Arc::clone(known);
        }
        if self.rowless.len() >= self.many {
            self.forget_unused(64);
        }
        let workload = self.workload(id);
        self.keep_without_row(&workload);
        workload
    }

    /// The row of this workload is gone, or there never was one.
    pub(crate) fn keep_without_row(&mut self, workload: &Arc<Workload>) {
        self.rowless.insert(workload.label.id.clone(), Arc::clone(workload));
    }

    /// The workload gets a row.
    pub(crate) fn take_without_row(&mut self, id: &WorkloadId) -> Option<Arc<Workload>> {
        self.rowless.remove(id)
    }

    /// All workloads that have no row.
    pub(crate) fn without_row(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.rowless.values()
    }

    /// Forgets those without a row that no app has any more. It is worth looking again when there are `more` than twice those that stay.
    pub(crate) fn forget_unused(&mut self, more: usize) {
        self.rowless.retain(|_, workload| Arc::strong_count(workload) > 1);
        self.many = self.rowless.len() * 2 + more;
    }

    pub(crate) fn instance(&mut self, endpoint: Endpoint, label: &Arc<Label>) -> Arc<Instance> {
        let serial = self.new_serial();
        Arc::new(Instance::new(endpoint, serial, Arc::clone(label), self.news.clone()))
    }

    fn workload(&mut self, id: WorkloadId) -> Arc<Workload> {
        let label = Label { id, serial: self.new_serial() };
        Arc::new(Workload::new(label, self.news.clone()))
    }

    fn new_serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }
}

/// Whether an address that its publisher told of, and that is away now, may still be used. What has no proof may.
pub(crate) fn is_not_disproven(endpoint: &Endpoint) -> bool {
    let holds = |proof: &Proof| proof::holds(proof);
    endpoint.proof.as_ref().is_none_or(holds)
}
