//! The `platform` binary: words and wiring, no logic.

use std::io::{self, Write};
use std::process::ExitCode;

mod attach;
mod client;
mod commands;
mod context;
mod credentials;
mod error;
mod git;
mod output;

use error::Kind;
use output::Paint;

fn main() -> ExitCode {
    match commands::Cli::from_command_line().run() {
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
