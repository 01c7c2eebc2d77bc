//! What SQLite is told once in a process.

use std::sync::Once;

use libsqlite3_sys::{SQLITE_CONFIG_MEMSTATUS, sqlite3_config};

/// Keeps SQLite from counting the bytes that it takes. It does so under one lock for the whole process, which is taken for every
/// value of every row, by the thread that reads it and the one that is done with it: a fifth of the time of a long list.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let off: std::ffi::c_int = 0;
        #[expect(unsafe_code, reason = "SQLite has no other way, and sqlx does not go it")]
        // SAFETY: this option takes one int. Where a database is open already, SQLite refuses, and nothing changes.
        let result = unsafe { sqlite3_config(SQLITE_CONFIG_MEMSTATUS, off) };
        tracing::debug!(result, "SQLite was told not to count its memory");
    });
}
