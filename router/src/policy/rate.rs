//! How often one client may ask: a bucket of tokens for each, which fills with time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use model::Rate;
use tokio::time::Instant;

use super::lock::Lock;

/// Most clients that are remembered. Who makes room asks as if for the first time.
const REMEMBERED: usize = 65_536;

pub(super) struct Rates {
    rate: Rate,
    clients: Lock<Clients>,
}

/// Those that asked lately, and those that asked before: when the first are many, the second make room, all at once.
#[derive(Default)]
struct Clients {
    lately: HashMap<IpAddr, Bucket>,
    before: HashMap<IpAddr, Bucket>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Rates {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, clients: Lock::default() }
    }

    /// Takes a client's token, or says after how many seconds there is one.
    pub(super) fn take(&self, client: IpAddr) -> Result<(), u64> {
        self.take_at(client, Instant::now())
    }

    fn take_at(&self, client: IpAddr, now: Instant) -> Result<(), u64> {
        let (capacity, per_second) =
            (f64::from(self.rate.count), f64::from(self.rate.count) / self.rate.per.as_secs_f64());
        let (client, mut clients) = (network(client), self.clients.lock());
        let Clients { lately, before } = &mut *clients;
        if lately.len() >= REMEMBERED / 2 && !lately.contains_key(&client) {
            *before = std::mem::take(lately);
        }
        let known = || before.remove(&client).unwrap_or(Bucket { tokens: capacity, filled: now });
        let bucket = lately.entry(client).or_insert_with(known);
        let grown = now.saturating_duration_since(bucket.filled).as_secs_f64() * per_second;
        bucket.tokens = (bucket.tokens + grown).min(capacity);
        bucket.filled = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let wait = std::time::Duration::from_secs_f64((1.0 - bucket.tokens) / per_second);
        Err(wait.as_secs() + 1)
    }
}

/// Whoever has an address of IPv6 has 2^64 of them.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_client_that_asks_too_often_waits_and_no_other_one_does() {
        let rates = Rates::new(Rate { count: 2, per: Duration::from_secs(10) });
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!([rates.take_at(one, start), rates.take_at(one, start)], [Ok(()), Ok(())]);
        assert_eq!(rates.take_at(one, start), Err(6));
        assert_eq!(rates.take_at(other, start), Ok(()));
        assert_eq!(rates.take_at(one, after(3)), Err(3));
        assert_eq!(rates.take_at(one, after(6)), Ok(()));
        let v6 = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(
            [rates.take_at(v6("2001:db8::1"), start), rates.take_at(v6("2001:db8::2"), start)],
            [Ok(()), Ok(())]
        );
        assert!(rates.take_at(v6("2001:db8::3"), start).is_err(), "a network is one client");
        for number in 0..100_000_u32 {
            let _ = rates.take_at(IpAddr::from(number.to_be_bytes()), start);
        }
        let clients = rates.clients.lock();
        assert!(clients.lately.len() + clients.before.len() <= REMEMBERED);
    }

    #[test]
    fn who_asks_again_and_again_is_not_forgotten_for_others() {
        let rates = Rates::new(Rate { count: 1, per: Duration::from_secs(3600) });
        let (busy, now) = (IpAddr::from([192, 0, 2, 1]), Instant::now());
        assert_eq!(rates.take_at(busy, now), Ok(()));
        for number in 0..200_000_u32 {
            let _ = rates.take_at(IpAddr::from(number.to_be_bytes()), now);
            assert!(number % 10_000 != 0 || rates.take_at(busy, now).is_err(), "at {number}");
        }
    }
}
