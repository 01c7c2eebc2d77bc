//! Whatever a Procfile holds, a build knows what to say to it, and to which line.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for remark in buildpacks::procfile::check(text) {
        assert!(remark.line >= 1 && !remark.message.is_empty());
    }
});
