//! The buildpacks as a program of their own; `platform` is the same under its other name.

use std::process::ExitCode;

fn main() -> ExitCode {
    buildpacks::main()
}
