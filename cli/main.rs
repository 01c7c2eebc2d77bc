//! The `platform` binary: words and wiring, no logic.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

mod attach;
mod client;
mod commands;
mod context;
mod credentials;
mod error;
mod forward;
mod git;
mod listening;
mod output;
mod server;
mod settings;
mod supervisor;
mod trust;

use error::Kind;
use output::Paint;

/// A request makes and drops some dozen small things: with the C library's own a tenth of its CPU time is spent on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    match other_self(&argv) {
        Some(main) => main(&argv),
        None => command_line(),
    }
}

/// This one program is every program of the platform: in builds and in apps it goes by the names that the Cloud Native Buildpacks
/// specification gives them, and git runs it as a hook.
fn other_self(argv: &[OsString]) -> Option<fn(&[OsString]) -> ExitCode> {
    let path = Path::new(argv.first()?);
    let name = path.file_name()?.to_str()?;
    let folder = path.parent()?;
    match name {
        "launcher" => Some(builder::launcher::main),
        "lifecycle" => Some(builder::lifecycle::main),
        "dockerfile" => Some(builder::dockerfile::main),
        "toolchain" => Some(buildpacks::make_toolchain),
        "detect" | "build" if folder.ends_with("bin") => Some(|_| buildpacks::main()),
        _ if folder == Path::new("/cnb/process") => Some(builder::launcher::main),
        _ if argv.get(1)? == "git-hook" => Some(|_| controller::git::hook::main()),
        _ => None,
    }
}

fn command_line() -> ExitCode {
    match commands::Cli::from_command_line().and_then(commands::Cli::run) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            if error.kind != Kind::OutputClosed {
                // Nobody can be told that stderr is closed.
                let _ = write!(io::stderr(), "{}", error.report(Paint::detect(&io::stderr())));
            }
            ExitCode::from(error.kind.exit_status())
        }
    }
}
