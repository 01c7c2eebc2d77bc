//! Whatever a client sends as `Range`, it means some part of a list.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let slice = controller::api::parse_range(text);
    assert!((1..=1000).contains(&slice.max));
});
