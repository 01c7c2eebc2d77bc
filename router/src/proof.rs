//! Whether an address still belongs to the instance that it was told of, as far as this machine shows it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use model::routes::{Endpoint, Proof, WorkloadAddresses};

/// Whether what a proof tells of is still there.
pub(crate) fn holds(proof: &Proof) -> bool {
    let process = format!("/proc/{}", proof.pid);
    let (stat, netns) = (fs::read_to_string(format!("{process}/stat")), fs::metadata(format!("{process}/ns/net")));
    let (Ok(stat), Ok(netns)) = (stat, netns) else { return false };
    Proof::new(proof.pid, &stat, netns.ino()).as_ref() == Some(proof)
}

/// Names this life of the machine: processes and namespaces of another one may have the same numbers.
pub(crate) fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

/// Takes addresses out that are not proven any more. Their instances count as booting until the publisher says what became of them. True if there
/// were some.
pub(crate) fn keep(row: &mut WorkloadAddresses, is_proven: impl Fn(&Endpoint) -> bool) -> bool {
    let before = row.healthy.len();
    row.healthy.retain(is_proven);
    let gone = before - row.healthy.len();
    row.starting = row.starting.saturating_add(u32::try_from(gone).unwrap_or(u32::MAX));
    gone > 0
}
