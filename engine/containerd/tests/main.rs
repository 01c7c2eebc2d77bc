//! The host role on a real containerd: the conformance suite, and what only this engine promises.

#![expect(unreachable_pub, reason = "a test program has no callers")]

mod conformance;
mod faults;
mod health;
mod machine;
mod processes;
mod services;
mod walls;

/// Not a test: the program that tests start as their host role.
#[test]
#[ignore = "runs only as another test's host role"]
fn host_process() {
    machine::host_process();
}
