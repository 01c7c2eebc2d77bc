//! The last good table on disk: what a router serves before its publishers are there, as far as it is proven.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use model::AppId;
use model::routes::{AppRoute, Endpoint, WorkloadAddresses, WorkloadId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::proof;

/// Both halves of the route table. On disk they are lists of pairs, as in the feeds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) names: BTreeMap<AppId, AppRoute>,
    pub(crate) addresses: BTreeMap<WorkloadId, WorkloadAddresses>,
}

#[derive(Serialize, Deserialize)]
struct Lists<N, A> {
    /// The life of the machine in which it was written.
    #[serde(default)]
    boot: Option<String>,
    names: Vec<N>,
    addresses: Vec<A>,
}

/// Each row is read by itself.
type Both = Lists<Value, Value>;

impl Snapshot {
    /// Reads the copy at `path`; empty if there is none or it is no good, for the publishers will send the table anyway. Whose an address is by now
    /// only its proof says, and what crashed may have been started again: all that is not proven counts as booting.
    pub(crate) fn load(path: &Path) -> Self {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(error = %error, path = %path.display(), "cannot read the last route table");
                }
                return Self::default();
            }
        };
        match serde_json::from_slice::<Both>(&bytes) {
            Ok(lists) => {
                let boot = proof::boot_id();
                let same_boot = boot.is_some() && boot == lists.boot;
                let is_proven = |endpoint: &Endpoint| same_boot && endpoint.proof.as_ref().is_some_and(proof::holds);
                let mut addresses: BTreeMap<WorkloadId, WorkloadAddresses> = good(lists.addresses);
                for row in addresses.values_mut() {
                    proof::keep(row, is_proven);
                    row.starting = row.starting.saturating_add(std::mem::take(&mut row.crashed));
                }
                Self { names: good(lists.names), addresses }
            }
            Err(error) => {
                tracing::warn!(error = %error, path = %path.display(), "the last route table on disk is damaged");
                Self::default()
            }
        }
    }

    /// What another router serves at this moment: it knows whose its addresses are.
    pub(crate) fn of_running(json: &[u8]) -> serde_json::Result<Self> {
        let lists: Both = serde_json::from_slice(json)?;
        Ok(Self { names: good(lists.names), addresses: good(lists.addresses) })
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let boot = proof::boot_id();
        let lists = Lists { boot, names: self.names.iter().collect(), addresses: self.addresses.iter().collect() };
        // Maps of strings and numbers: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(&lists).unwrap_or_default()
    }
}

/// What can be read of these rows: one that is no good is no reason to let go of the others.
fn good<K: DeserializeOwned + Ord, V: DeserializeOwned>(rows: Vec<Value>) -> BTreeMap<K, V> {
    let read = |row| {
        let row = serde_json::from_value(row);
        row.inspect_err(|error| tracing::error!(error = %error, "a row of the last route table is no good")).ok()
    };
    rows.into_iter().filter_map(read).collect()
}

/// Puts `json` at `path` so that a reader, also one after a power cut, finds the old copy or the new one, never half of one.
pub(crate) fn save(path: &Path, json: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(json)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use model::routes::Proof;

    use super::*;

    fn this_process() -> Proof {
        let netns = fs::metadata("/proc/self/ns/net").expect("a namespace").ino();
        let stat = fs::read_to_string("/proc/self/stat").expect("a process");
        Proof::new(std::process::id(), &stat, netns).expect("a proof")
    }

    fn endpoint(proof: Option<Proof>) -> Endpoint {
        let (instance, dyno) = ("i1".to_owned(), "web.1".to_owned());
        Endpoint { instance, dyno, address: ([127, 0, 0, 1], 80).into(), proof }
    }

    #[test]
    fn a_table_comes_back_from_disk_as_far_as_it_is_proven_and_a_damaged_one_is_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.json");
        assert_eq!(Snapshot::load(&path), Snapshot::default());
        let proven = this_process();
        let mut snapshot = Snapshot::default();
        let drain = std::time::Duration::from_secs(30);
        let row = |healthy: &[Endpoint], starting, crashed| WorkloadAddresses {
            healthy: healthy.into(),
            starting,
            crashed,
            drain,
            ..WorkloadAddresses::default()
        };
        let addresses = &mut snapshot.addresses;
        addresses.insert(WorkloadId("proven".to_owned()), row(&[endpoint(Some(proven))], 1, 0));
        addresses.insert(WorkloadId("unknown".to_owned()), row(&[endpoint(None)], 0, 2));
        let other = [Proof { started: proven.started + 1, ..proven }, Proof { netns: proven.netns + 1, ..proven }];
        addresses.insert(WorkloadId("other".to_owned()), row(&other.map(|proof| endpoint(Some(proof))), 0, 0));
        save(&path, &snapshot.to_json()).expect("saved");
        let mut loaded = snapshot.clone();
        loaded.addresses.insert(WorkloadId("unknown".to_owned()), row(&[], 3, 0));
        loaded.addresses.insert(WorkloadId("other".to_owned()), row(&[], 2, 0));
        assert_eq!(Snapshot::load(&path), loaded);

        let text = String::from_utf8(snapshot.to_json()).expect("text");
        let before = text.replacen("\"boot\":\"", "\"boot\":\"before-", 1);
        assert_ne!(before, text);
        fs::write(&path, before).expect("written");
        loaded.addresses.insert(WorkloadId("proven".to_owned()), row(&[], 2, 0));
        assert_eq!(Snapshot::load(&path), loaded, "after a reboot nothing is proven");
        fs::write(&path, "{\"names\":[").expect("written");
        assert_eq!(Snapshot::load(&path), Snapshot::default());
    }
}
