//! What an instance cannot do without, whatever its app checks: its link to the network, and the cgroup that limits it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use crate::cgroup;
use crate::network::INTERFACE;

/// How often it is looked for: often enough that nobody wonders for long, and for some microseconds.
const PAUSE: Duration = Duration::from_secs(2);
/// It is lost once it was missed so often in a row.
const MISSES: u32 = 2;

/// One instance's.
pub(crate) struct Vitals {
    pub(crate) pid: u32,
    pub(crate) cgroup: PathBuf,
    pub(crate) cgroups: cgroup::Version,
}

impl Vitals {
    /// Waits until something of it is lost, and says what. What else there is to look at is looked at each time.
    pub(crate) async fn lost(&self, each_time: impl Fn()) -> &'static str {
        let mut misses = 0;
        loop {
            sleep(PAUSE).await;
            each_time();
            let missing = self.missing();
            misses = if missing.is_some() { misses + 1 } else { 0 };
            if let Some(what) = missing.filter(|_| misses >= MISSES) {
                return what;
            }
        }
    }

    fn missing(&self) -> Option<&'static str> {
        // What cannot be read is of a process that is ending; it is waited for elsewhere.
        let links =
            std::fs::read_to_string(format!("/proc/{}/net/dev", self.pid)).ok().filter(|text| !text.is_empty())?;
        if !has_link(&links) {
            return Some("its network link is gone");
        }
        (!self.cgroups.is_whole(&self.cgroup)).then_some("the cgroup that limits it is gone")
    }
}

/// From the text of `/proc/net/dev` (proc(5)): two lines of titles, then `name: counters`.
fn has_link(table: &str) -> bool {
    table.lines().skip(2).any(|line| line.split(':').next().is_some_and(|name| name.trim() == INTERFACE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_found_by_its_name() {
        let titles = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n";
        assert!(has_link(&format!("{titles}    lo: 0 0\n  eth0: 1 2\n")));
        assert!(!has_link(&format!("{titles}    lo: 0 0\n eth01: 1 2\n")));
    }
}
