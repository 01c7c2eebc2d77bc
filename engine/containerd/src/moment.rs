//! Time that nobody can set: since this machine booted, sleep included. What must last for so long is measured by it, because
//! a wall clock is set forward and back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment of one boot of this machine, to the hundredth of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// The kernel's id of that boot.
    boot: [u8; 16],
    /// Milliseconds since then (`CLOCK_BOOTTIME`).
    millis: u64,
}

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        // Every Linux says so. Where it did not, no time would pass, and pauses would be whole.
        let never = Self { boot: [0; 16], millis: 0 };
        Self::parse(&read("/proc/sys/kernel/random/boot_id"), &read("/proc/uptime")).unwrap_or(never)
    }

    /// From an id in hyphenated hexadecimal, and `seconds.hundredths` (proc(5)).
    fn parse(boot: &str, uptime: &str) -> Option<Self> {
        let boot = hex::decode(boot.trim().replace('-', "")).ok()?.try_into().ok()?;
        let (seconds, hundredths) = uptime.split_whitespace().next()?.split_once('.')?;
        let millis = seconds.parse::<u64>().ok()?.checked_mul(1000)? + hundredths.parse::<u64>().ok()? * 10;
        Some(Self { boot, millis })
    }

    /// Time from `earlier` to this moment; none if the machine was booted in between.
    pub(crate) fn since(self, earlier: Self) -> Option<Duration> {
        (self.boot == earlier.boot).then(|| Duration::from_millis(self.millis.saturating_sub(earlier.millis)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_one_boot_can_be_compared() {
        let boot = "3f0d8a2c-6d0e-4b5f-9a51-1f1f3a4c5b6d\n";
        let moment = |boot, uptime| Moment::parse(boot, uptime).expect("a moment");
        let (early, late) = (moment(boot, "5.07 8.00\n"), moment(boot, "3605.10 8.00\n"));
        assert_eq!(late.since(early), Some(Duration::from_millis(3_600_030)));
        let other = moment("00000000-6d0e-4b5f-9a51-1f1f3a4c5b6d", "9000.00 1.00");
        assert_eq!(other.since(early), None);
        let now = Moment::now();
        assert!(now.boot != [0; 16] && Moment::now().since(now).is_some(), "this kernel says: {now:?}");
        assert_eq!(Moment::parse("x", "1.00 1.00"), None);
    }
}
