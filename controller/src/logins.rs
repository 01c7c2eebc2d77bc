//! Who guesses passwords and codes is stopped for a while.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::{Email, Timestamp};
use tokio::sync::Semaphore;

use crate::{Error, Origin};

/// Failures for one address that are let through within [`WINDOW`].
const PER_ADDRESS: usize = 10;
/// Failures from one client: a company behind one IP address mistypes more often than one person.
const PER_CLIENT: usize = 100;
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Addresses and clients that are remembered at once; who failed longest ago goes first.
const MEMORY: usize = 10_000;
/// Passwords hashed at the same time; each takes 19 MiB and a core, and strangers decide how many come.
const HASHES_AT_ONCE: usize = 2;

/// Remembers failed logins, in memory only (a restart forgives), and keeps the hashing of passwords within bounds.
#[derive(Debug)]
pub struct LoginLimiter {
    failures: Mutex<BTreeMap<Who, VecDeque<Timestamp>>>,
    /// Taken while a password is hashed. Waiting for it is what a flood of logins gets.
    pub(crate) hashing: Semaphore,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Address(Email),
    Client(IpAddr),
}

impl Who {
    const fn limit(&self) -> usize {
        match self {
            Self::Address(_) => PER_ADDRESS,
            Self::Client(_) => PER_CLIENT,
        }
    }
}

impl Default for LoginLimiter {
    fn default() -> Self {
        Self { failures: Mutex::default(), hashing: Semaphore::new(HASHES_AT_ONCE) }
    }
}

impl LoginLimiter {
    /// Counts an attempt as failed, until [`LoginLimiter::forgive`] says otherwise: of many at once, no more get through than
    /// one after the other. Refuses whoever failed too often, for this address or from this client, and says when to try again.
    pub(crate) fn attempt(&self, email: &Email, origin: &Origin, now: Timestamp) -> Result<(), Error> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = whom(email, origin).filter_map(|who| {
            let recent: Vec<Timestamp> =
                failures.get(&who)?.iter().copied().filter(|time| now.since(*time) < WINDOW).collect();
            // Free again once so many are forgotten that one more fits.
            let oldest = recent.len().checked_sub(who.limit())?;
            Some(WINDOW.saturating_sub(now.since(recent[oldest])))
        });
        if let Some(wait) = wait.max() {
            return Err(Error::TooMany {
                message: "Too many failed logins. Nobody gets in this way for some minutes, also with the right password.",
                retry_after: wait.max(Duration::from_secs(1)),
            });
        }
        for who in whom(email, origin) {
            let times = failures.entry(who.clone()).or_default();
            times.push_back(now);
            if times.len() > who.limit() {
                times.pop_front();
            }
        }
        while failures.len() > MEMORY {
            let oldest = failures.iter().min_by_key(|(_, times)| times.back().copied()).map(|(who, _)| who.clone());
            oldest.and_then(|who| failures.remove(&who));
        }
        Ok(())
    }

    /// An attempt at this moment was none of a guesser.
    pub(crate) fn forgive(&self, email: &Email, origin: &Origin, now: Timestamp) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for who in whom(email, origin) {
            let Some(times) = failures.get_mut(&who) else { continue };
            if let Some(place) = times.iter().rposition(|time| *time == now) {
                times.remove(place);
            }
            if times.is_empty() {
                failures.remove(&who);
            }
        }
    }
}

fn whom(email: &Email, origin: &Origin) -> impl Iterator<Item = Who> {
    let client = origin.address.map(|address| Who::Client(network(address)));
    [Some(Who::Address(email.clone())), client].into_iter().flatten()
}

/// A client has one IPv4 address, and as many IPv6 addresses as it likes within its /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn email(name: &str) -> Email {
        format!("{name}@example.com").parse().expect("an address")
    }

    fn from(address: &str) -> Origin {
        Origin { address: Some(address.parse().expect("an address")), request: None }
    }

    #[test]
    fn an_address_and_a_client_are_stopped_until_enough_is_forgotten() {
        let logins = LoginLimiter::default();
        let start = Timestamp::from_millis(1_000_000);
        for second in 0..PER_ADDRESS {
            let now = start.after(Duration::from_secs(second as u64));
            logins.attempt(&email("ada"), &from("192.0.2.1"), now).expect("not yet");
        }
        let now = start.after(Duration::from_secs(60));
        let refused = logins.attempt(&email("ada"), &from("198.51.100.7"), now).expect_err("from anywhere");
        let Error::TooMany { retry_after, .. } = refused else { panic!("{refused}") };
        assert_eq!(retry_after + Duration::from_secs(60), WINDOW);
        logins.attempt(&email("bob"), &from("192.0.2.1"), now).expect("others get in");
        logins.attempt(&email("ada"), &from("192.0.2.1"), now.after(retry_after)).expect("free again");

        for number in 0..PER_CLIENT {
            logins.attempt(&email(&format!("user{number}")), &from("2001:db8::1"), now).expect("not yet");
        }
        assert!(logins.attempt(&email("new"), &from("2001:db8::ffff:1"), now).is_err(), "the same client");
        logins.attempt(&email("new"), &from("2001:db8:0:1::1"), now).expect("another one");
    }

    #[test]
    fn who_gets_in_is_never_stopped_and_memory_is_bounded() {
        let logins = LoginLimiter::default();
        let now = Timestamp::from_millis(1);
        for _ in 0..PER_CLIENT * 2 {
            logins.attempt(&email("ada"), &from("192.0.2.1"), now).expect("let in");
            logins.forgive(&email("ada"), &from("192.0.2.1"), now);
        }
        for number in 0..MEMORY + 50 {
            logins.attempt(&email(&format!("u{number}")), &Origin::default(), now).expect("let in");
        }
        assert_eq!(logins.failures.lock().expect("not poisoned").len(), MEMORY);
    }
}
