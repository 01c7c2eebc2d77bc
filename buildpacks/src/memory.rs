//! How much memory a build may use.

use std::fs;

/// Where a control group says its limit: version 2, then 1.
const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Megabytes of memory that this build may use; none if nobody says.
pub(crate) fn megabytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_machine(&text));
    let limits = LIMITS.iter().filter_map(|file| of_group(&fs::read_to_string(file).ok()?));
    machine.into_iter().chain(limits).min()
}

fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes / 1024)
}

/// None for `max`, which is no limit.
fn of_group(limit: &str) -> Option<u64> {
    limit.trim().parse::<u64>().ok().map(|bytes| bytes / (1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        assert_eq!(of_machine("MemFree: 1 kB\nMemTotal:       24675052 kB\n"), Some(24096));
        assert_eq!(of_group("max\n"), None);
        assert_eq!(of_group("2147483648\n"), Some(2048));
        assert!(megabytes().is_some());
    }
}
