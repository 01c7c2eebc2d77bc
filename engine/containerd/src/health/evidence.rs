//! What an instance does instead of what it should.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::{ProbeReport, Purpose};

/// What the last failed attempt said.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastFailure(Arc<Mutex<Option<Failed>>>);

/// A check whose last attempt failed.
#[derive(Debug, Clone)]
struct Failed {
    check: String,
    purpose: Purpose,
    result: String,
}

impl LastFailure {
    pub(crate) fn set(&self, check: &str, purpose: Purpose, result: String) {
        *self.lock() = Some(Failed { check: check.to_owned(), purpose, result });
    }

    /// What was seen, for people.
    pub(crate) fn words(&self) -> String {
        self.lock().as_ref().map(|failed| failed.result.clone()).unwrap_or_default()
    }

    /// A check passed: what it saw before is of no interest any more.
    pub(crate) fn passed(&self, check: &str) {
        let mut last = self.lock();
        if last.as_ref().is_some_and(|failed| failed.check == check) {
            *last = None;
        }
    }

    /// As a report, with all that listens in the network namespace of `pid`.
    pub(crate) fn report(&self, pid: u32, after: Duration) -> Option<ProbeReport> {
        let Failed { check, purpose, result } = self.lock().clone()?;
        Some(ProbeReport { check, purpose, result, listening: listening(pid), after, fatal: false })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where something listens for TCP where process `pid` lives, in order of ports.
pub(crate) fn listening(pid: u32) -> Vec<SocketAddr> {
    let table = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
    let mut found: Vec<_> = ["tcp", "tcp6"].iter().flat_map(|file| listening_in(&table(file))).collect();
    found.sort_unstable_by_key(|address| (address.port(), address.ip()));
    found.dedup();
    found
}

/// From the text of `/proc/net/tcp` and its sister for IPv6 (proc(5)): local address as `hex:port`, remote address, state, where `0A`
/// listens.
fn listening_in(table: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let (ip, port) = local.rsplit_once(':').filter(|_| state == "0A")?;
        Some(SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?))
    };
    table.lines().skip(1).filter_map(address).collect()
}

/// Words of 32 bits as this machine holds them in memory.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => word(0).map(|bytes| Ipv4Addr::from(bytes).into()),
        32 => {
            let words: Vec<[u8; 4]> = (0..4).map(word).collect::<Option<_>>()?;
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            // An IPv4 address in the clothes of IPv6 is what it is.
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_where_something_listens() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
                     \x20  0: 0100007F:1388 00000000:0000 0A 00000000:00000000\n\
                     \x20  1: 0100007F:1F90 0100007F:D431 01 00000000:00000000\n\
                     \x20  2: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 0:0\n\
                     \x20  3: 00000000000000000000000001000000:0BB9 00000000000000000000000000000000:0000 0A 0:0\n\
                     \x20  4: 0000000000000000FFFF00000100007F:0BBA 00000000000000000000000000000000:0000 0A 0:0\n";
        let found: Vec<String> = listening_in(table).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.1:5000", "[::]:3000", "[::1]:3001", "127.0.0.1:3002"]);
    }
}
