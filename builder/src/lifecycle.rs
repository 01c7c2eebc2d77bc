//! The phases that run inside the build container: detect and build.

use std::process::ExitCode;

/// Runs detect and build over the mounted folders.
pub fn main(argv: &[std::ffi::OsString]) -> ExitCode {
    let _ = argv;
    ExitCode::FAILURE
}
