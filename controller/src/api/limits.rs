//! How much one token may ask: a bucket that holds an hour's requests and fills steadily, as Heroku's does.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::{Timestamp, TokenId, UserId};

use crate::{Actor, Via};

const HOUR: Duration = Duration::from_secs(60 * 60);
/// With more buckets than this, full ones are forgotten.
const MANY: usize = 10_000;

/// The buckets. In memory only: a restart fills them.
#[derive(Debug, Default)]
pub struct RateLimits(Mutex<HashMap<Owner, Bucket>>);

/// Each token has its own bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Token(TokenId),
    User(UserId),
}

/// How long it takes at some time until the bucket is full again.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    debt: Duration,
    at: Timestamp,
}

impl Bucket {
    fn debt(&self, now: Timestamp) -> Duration {
        self.debt.saturating_sub(now.since(self.at))
    }
}

impl RateLimits {
    /// Takes a request out; says how many are left or, if none is, when there will be one.
    pub(super) fn take(&self, actor: &Actor, per_hour: u32, now: Timestamp) -> Result<u32, Duration> {
        let one = HOUR / per_hour;
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() > MANY {
            buckets.retain(|_, bucket| !bucket.debt(now).is_zero());
        }
        let bucket = buckets.entry(owner(actor)).or_insert(Bucket { debt: Duration::ZERO, at: now });
        let debt = bucket.debt(now) + one;
        let Some(rest) = HOUR.checked_sub(debt) else { return Err(debt.saturating_sub(HOUR)) };
        *bucket = Bucket { debt, at: now };
        Ok(count(rest, one))
    }

    /// How many requests are left.
    pub(super) fn left(&self, actor: &Actor, per_hour: u32, now: Timestamp) -> u32 {
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let debt = buckets.get(&owner(actor)).map_or(Duration::ZERO, |bucket| bucket.debt(now));
        count(HOUR.saturating_sub(debt), HOUR / per_hour)
    }
}

fn owner(actor: &Actor) -> Owner {
    match actor.via {
        Via::Token(id) => Owner::Token(id),
        _ => Owner::User(actor.user.id),
    }
}

fn count(rest: Duration, one: Duration) -> u32 {
    (rest.as_nanos() / one.as_nanos().max(1)).try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;
    use crate::testing::http::Server;

    #[tokio::test]
    async fn an_hour_of_requests_is_all_that_a_token_may_ask_at_once() {
        let server = Server::start().await;
        let (ada, eve) = (server.user("ada@example.com").await, server.user("eve@example.com").await);
        let limit = server.test.controller.settings.requests_per_hour.get();
        for left in (0..limit).rev().take(3) {
            assert_eq!(ada.get("/account").await.header("ratelimit-remaining"), left.to_string());
        }
        assert_eq!(ada.get("/account/rate-limits").await.body["remaining"], limit - 4);
        let controller = &server.test.controller;
        let own = ada.get("/oauth/authorizations/~").await.body["id"].as_str().map(str::parse);
        let user = server.test.user("bob@example.com").await;
        let actor = Actor::new(user, Via::Token(own.expect("an id").expect("a token")), Origin::default());
        let take = || controller.live.limits.take(&actor, limit, controller.clock.now());
        let taken = (0..limit).filter(|_| take().is_ok()).count();
        assert_eq!((taken, take()), (limit as usize - 5, Err(HOUR / limit)), "then one after the other");
        let refused = ada.get("/account").await;
        assert_eq!((refused.status, refused.id()), (429, "rate_limit"));
        assert_eq!((refused.header("retry-after"), refused.header("ratelimit-remaining")), ("1", "0"));
        assert_eq!(eve.get("/account").await.status, 200, "nobody else is held up");
        server.test.clock.advance(HOUR / limit);
        assert_eq!((take(), take()), (Ok(0), Err(HOUR / limit)));
        server.test.clock.advance(HOUR);
        assert_eq!(ada.get("/account").await.header("ratelimit-remaining"), (limit - 1).to_string());
    }
}
