//! How many instances of each process type should run, and of which size. Scaling makes no release.

use std::sync::LazyLock;

use model::DynoSize;

/// Size of a process type that nobody gave another.
pub const DEFAULT_SIZE: &str = "Standard-1X";

/// The sizes that there are, from small to large. The 1X sizes share a core's time with others; larger ones get more of it.
pub fn dyno_sizes() -> &'static [DynoSize] {
    static SIZES: LazyLock<Vec<DynoSize>> = LazyLock::new(|| {
        let size = |name: &str, memory_mib: u64, cpu_millis, pids| DynoSize {
            name: name.to_owned(),
            memory_bytes: memory_mib << 20,
            cpu_millis,
            pids,
        };
        vec![
            size("Eco", 512, 1000, 256),
            size("Basic", 512, 1000, 256),
            size("Standard-1X", 512, 1000, 256),
            size("Standard-2X", 1024, 2000, 512),
            size("Performance-M", 2560, 2000, 16384),
            size("Performance-L", 14336, 8000, 32768),
        ]
    });
    &SIZES
}

/// The size of this name, in any case.
pub fn dyno_size(name: &str) -> Option<&'static DynoSize> {
    dyno_sizes().iter().find(|size| size.name.eq_ignore_ascii_case(name))
}
