//! The CNB launcher: what `/cnb/process/<type>` and `/cnb/lifecycle/launcher` run inside a container.

use std::process::ExitCode;

/// Becomes the process that `argv` asks for; returns only when it cannot.
pub fn main(argv: &[std::ffi::OsString]) -> ExitCode {
    let _ = argv;
    ExitCode::FAILURE
}
