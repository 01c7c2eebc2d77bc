//! How many requests are sent once more: a share of an app's requests. An app all of whose instances break is not asked twice as much
//! because of that.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;
use model::AppId;
use tokio::time::Instant;

/// Per cent of an app's requests, where the app says nothing else.
pub(crate) const USUAL: u8 = 20;
/// What counts is the last one and the one that has begun.
const WINDOW: Duration = Duration::from_secs(5);
/// So many more in two windows, for apps with few requests: three a second.
const LEAST: u64 = 3 * 2 * WINDOW.as_secs();

/// What one worker has sent lately, by app.
pub(crate) struct Budgets {
    began: Instant,
    window: Cell<u64>,
    rows: RefCell<HashMap<AppId, Row, RandomState>>,
}

/// Of the last window, and of this one.
#[derive(Default)]
struct Row {
    requests: [u64; 2],
    repeated: [u64; 2],
}

impl Row {
    fn turn(&mut self) {
        self.requests = [self.requests[1], 0];
        self.repeated = [self.repeated[1], 0];
    }

    fn is_idle(&self) -> bool {
        self.requests == [0; 2] && self.repeated == [0; 2]
    }
}

impl Budgets {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), window: Cell::new(0), rows: RefCell::default() }
    }

    /// One more request has come.
    pub(crate) fn deposit(&self, app: AppId, now: Instant) {
        self.turn(now);
        self.rows.borrow_mut().entry(app).or_default().requests[1] += 1;
    }

    /// Whether one of them may be sent once more, where so many per cent may.
    pub(crate) fn withdraw(&self, app: AppId, share: u8, now: Instant) -> bool {
        self.turn(now);
        let mut rows = self.rows.borrow_mut();
        let row = rows.entry(app).or_default();
        let most = row.requests.iter().sum::<u64>() * u64::from(share) / 100 + LEAST;
        let may = row.repeated.iter().sum::<u64>() < most;
        row.repeated[1] += u64::from(may);
        may
    }

    fn turn(&self, now: Instant) {
        let window = now.saturating_duration_since(self.began).as_secs() / WINDOW.as_secs();
        let passed = window.saturating_sub(self.window.get());
        if passed == 0 {
            return;
        }
        self.window.set(window);
        let mut rows = self.rows.borrow_mut();
        for _ in 0..passed.min(2) {
            rows.values_mut().for_each(Row::turn);
        }
        rows.retain(|_, row| !row.is_idle());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_requests_is_sent_twice_and_a_few_more() {
        let app: AppId = "00000000-0000-4000-8000-000000000001".parse().expect("an id");
        let (budgets, start) = (Budgets::new(), Instant::now());
        let come = |count, now| (0..count).for_each(|_| budgets.deposit(app, now));
        let left = |now| (0..10_000).take_while(|_| budgets.withdraw(app, 20, now)).count() as u64;
        come(1000, start);
        assert_eq!(left(start), 200 + LEAST);
        let next = start + WINDOW;
        assert_eq!(left(next), 0, "they count for a while");
        come(100, next);
        assert_eq!(left(next), 20);
        assert_eq!(left(next + WINDOW * 2), LEAST);
        budgets.turn(next + WINDOW * 4);
        assert!(budgets.rows.borrow().is_empty(), "who asks no more is forgotten");
    }
}
