//! `man`: the help of every command as manual pages.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

use crate::commands::Cli;
use crate::context::Context;
use crate::error::{CliError, Result};

/// Write the manual pages of every command
///
/// `make install` puts them where man(1) looks: `man platform`, `man platform-ps:scale`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform man --dir ~/.local/share/man/man1
  $ platform man | man -l -")]
pub(crate) struct Pages {
    /// Folder to write them to; without it, only the page of the program itself is printed
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Pages {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let mut root = Cli::described().disable_help_subcommand(true);
        root.build();
        let Some(dir) = self.dir else { return Ok(io::stdout().write_all(&page(&root, "platform")?)?) };
        let failed = |error: io::Error| {
            CliError::failed(format!("Cannot write manual pages to {}", dir.display())).because(&error)
        };
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let mut names = vec![write(&dir, &root, "platform").map_err(failed)?];
        for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = format!("platform-{}", command.get_name());
            names.push(write(&dir, command, &name).map_err(failed)?);
        }
        cx.show(&serde_json::json!({ "pages": names }), |out| {
            out.note(&format!("Wrote {} manual pages to {}", names.len(), dir.display()));
            Ok(())
        })
    }
}

fn write(dir: &Path, command: &Command, name: &str) -> io::Result<String> {
    let file = format!("{name}.1");
    std::fs::write(dir.join(&file), page(command, name)?)?;
    Ok(file)
}

fn page(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let man =
        Man::new(command.clone().display_name(name.to_owned())).title(name).section("1").manual("Platform Manual");
    man.render(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let mut root = Cli::described().disable_help_subcommand(true);
        root.build();
        for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = String::from_utf8(page(command, command.get_name()).unwrap()).unwrap();
            assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH OPTIONS"), "{page}");
        }
    }
}
