//! Time and randomness, always passed in, so that tests are exact.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment: milliseconds since the Unix epoch, UTC. Stored as a `BIGINT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This moment plus `duration`.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This moment less a duration.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 with seconds and `Z`, as the Heroku API prints times: `2026-11-21T02:39:46Z`.
    pub fn to_rfc3339(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%SZ")
    }

    /// RFC 3339 with microseconds and a numeric offset, as Heroku's log lines start: `2026-11-21T02:39:46.255000+00:00`.
    pub fn to_log_time(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S.%6f+00:00")
    }

    /// RFC 3339 with milliseconds, which loses nothing: `2026-11-21T02:39:46.255Z`.
    pub fn to_rfc3339_millis(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S.%3fZ")
    }

    /// As HTTP has it in `Date` (RFC 9110 section 5.6.7): `Sat, 21 Nov 2026 02:39:46 GMT`.
    pub fn to_http_date(self) -> String {
        self.format("%a, %d %b %Y %H:%M:%S GMT")
    }

    /// A moment in RFC 3339, whatever its offset and its precision.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|moment| Self(moment.as_millisecond()))
    }

    fn format(self, format: &str) -> String {
        let moment = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        moment.strftime(format).to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else takes its time from")]
    fn now(&self) -> Timestamp {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Where random bytes come from: ids, tokens, nonces.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes` with unpredictable bytes.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // getrandom(2) fails only on kernels older than any we run on; going on with predictable secrets would be worse.
        getrandom::fill(bytes).expect("the operating system has no random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_times_as_heroku_and_http_do() {
        let moment = Timestamp::from_millis(1_795_228_786_255);
        assert_eq!(moment.to_rfc3339(), "2026-11-21T02:39:46Z");
        assert_eq!(moment.to_log_time(), "2026-11-21T02:39:46.255000+00:00");
        assert_eq!(moment.to_http_date(), "Sat, 21 Nov 2026 02:39:46 GMT");
        assert_eq!(Timestamp::parse(&moment.to_rfc3339_millis()), Some(moment));
        assert_eq!(Timestamp::parse("2026-11-21T03:39:46+01:00"), Some(Timestamp::from_millis(1_795_228_786_000)));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}
