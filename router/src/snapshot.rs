//! The last good table on disk: what a router serves before its publishers are there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use model::AppId;
use model::routes::{AppRoute, WorkloadAddresses, WorkloadId};
use serde::{Deserialize, Serialize};

/// Both halves of the route table. On disk they are lists of pairs, as in the feeds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) names: BTreeMap<AppId, AppRoute>,
    pub(crate) addresses: BTreeMap<WorkloadId, WorkloadAddresses>,
}

#[derive(Serialize, Deserialize)]
struct Lists<N, A> {
    names: Vec<N>,
    addresses: Vec<A>,
}

impl Snapshot {
    /// Reads the copy at `path`; empty if there is none or it is no good, for the publishers will send the table anyway.
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
        match serde_json::from_slice::<Lists<(AppId, AppRoute), (WorkloadId, WorkloadAddresses)>>(&bytes) {
            Ok(lists) => {
                Self { names: lists.names.into_iter().collect(), addresses: lists.addresses.into_iter().collect() }
            }
            Err(error) => {
                tracing::warn!(error = %error, path = %path.display(), "the last route table on disk is damaged");
                Self::default()
            }
        }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let lists = Lists { names: self.names.iter().collect(), addresses: self.addresses.iter().collect() };
        // Maps of strings and numbers: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(&lists).unwrap_or_default()
    }
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
    use super::*;

    #[test]
    fn a_table_comes_back_from_disk_and_a_damaged_one_is_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.json");
        assert_eq!(Snapshot::load(&path), Snapshot::default());
        let mut snapshot = Snapshot::default();
        snapshot.addresses.insert(WorkloadId("w".to_owned()), WorkloadAddresses::default());
        save(&path, &snapshot.to_json()).expect("saved");
        assert_eq!(Snapshot::load(&path), snapshot);
        fs::write(&path, "{\"names\":[").expect("written");
        assert_eq!(Snapshot::load(&path), Snapshot::default());
    }
}
