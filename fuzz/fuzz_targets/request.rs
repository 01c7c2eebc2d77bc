//! Whatever bytes a client begins with, an instance reads of what it gets what the router did.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    router::check_head(bytes);
});
