//! Programs that a buildpack starts: their output goes to the user, indented; their failure becomes an error.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::error::PackError;
use crate::output;

/// A program to run.
pub(crate) struct Run {
    command: Command,
    shown: String,
    /// Beginnings of lines that are of use to nobody.
    hidden: &'static [&'static str],
}

impl Run {
    /// `program` with `arguments`, in `folder`.
    pub(crate) fn new<S: AsRef<OsStr>>(folder: &Path, program: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let shown = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        Self { command, shown, hidden: &[] }
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Puts a folder of programs before all others.
    pub(crate) fn path(mut self, folder: &Path) -> Self {
        let rest =
            self.command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value.map(OsStr::to_owned));
        let mut path = folder.as_os_str().to_owned();
        if let Some(rest) = rest.or_else(|| std::env::var_os("PATH")) {
            path.push(":");
            path.push(rest);
        }
        self.command.env("PATH", path);
        self
    }

    /// Leaves lines that begin so out of what is shown.
    pub(crate) fn without(mut self, beginnings: &'static [&'static str]) -> Self {
        self.hidden = beginnings;
        self
    }

    /// Runs it and shows its output.
    pub(crate) fn show(self) -> Result<(), PackError> {
        self.show_or_fail(|_, _| None)
    }

    /// Runs it and shows its output; a failure becomes what `explain` makes of its status and output, if anything.
    pub(crate) fn show_or_fail(
        mut self,
        explain: impl FnOnce(ExitStatus, &str) -> Option<PackError>,
    ) -> Result<(), PackError> {
        let (reader, writer) = std::io::pipe().map_err(|source| self.cannot_start(source))?;
        let errors = writer.try_clone().map_err(|source| self.cannot_start(source))?;
        let child = self.command.stdout(writer).stderr(errors).spawn();
        let mut child = child.map_err(|source| self.cannot_start(source))?;
        // The command holds the pipe's writing end; only the child may, or reading would never end.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let last = show_lines(reader, self.hidden);
        let status = child.wait().map_err(|source| self.cannot_start(source))?;
        if status.success() {
            return Ok(());
        }
        Err(explain(status, &last).unwrap_or(PackError::Command { command: self.shown, status }))
    }

    /// Runs it; its output is shown only if it fails in a way that `explain` cannot put into words.
    pub(crate) fn quiet_or_fail(
        mut self,
        explain: impl FnOnce(ExitStatus, &str) -> Option<PackError>,
    ) -> Result<(), PackError> {
        let output = self.command.output().map_err(|source| self.cannot_start(source))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Err(explain(output.status, &said).unwrap_or_else(|| {
            said.lines().for_each(output::line);
            PackError::Command { command: self.shown, status: output.status }
        }))
    }

    /// Runs it and says whether it succeeded; its output is not shown.
    pub(crate) fn succeeds(mut self) -> bool {
        self.command.output().is_ok_and(|output| output.status.success())
    }

    /// Runs it and returns its standard output; its errors are shown if it fails.
    pub(crate) fn read(mut self) -> Result<String, PackError> {
        let output = self.command.stderr(Stdio::piped()).output().map_err(|source| self.cannot_start(source))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            output::line(line);
        }
        Err(PackError::Command { command: self.shown, status: output.status })
    }

    fn cannot_start(&self, source: std::io::Error) -> PackError {
        PackError::Start { command: self.shown.clone(), source }
    }
}

/// Bytes of the last lines that are kept for the explanation of a failure: uv says first what could not be compiled, and then
/// all that the compiler printed.
const KEPT: usize = 512 * 1024;

fn show_lines(reader: impl Read, hidden: &[&str]) -> String {
    let mut last = std::collections::VecDeque::new();
    let mut kept = 0;
    for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !hidden.iter().any(|beginning| line.starts_with(beginning)) {
            output::line(&line);
        }
        kept += line.len() + 1;
        last.push_back(line);
        while kept > KEPT {
            kept -= last.pop_front().map_or(kept, |line| line.len() + 1);
        }
    }
    Vec::from(last).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_its_status() {
        let error = Run::new(Path::new("/"), "sh", ["-c", "exit 3"]).show().unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3` failed with exit code 3.");
    }

    #[test]
    fn a_failure_is_explained_by_what_was_said_long_before_it() {
        let script = "echo 'the reason'; seq 5000; exit 1";
        let mut heard = String::new();
        let explain = |_, said: &str| {
            said.lines().next().unwrap_or_default().clone_into(&mut heard);
            None
        };
        Run::new(Path::new("/"), "sh", ["-c", script]).show_or_fail(explain).unwrap_err();
        assert_eq!(heard, "the reason");
        assert!(show_lines("line\n".repeat(KEPT).as_bytes(), &["line"]).len() <= KEPT);
    }

    #[test]
    fn output_can_be_read_and_folders_of_programs_come_first() {
        let run = Run::new(Path::new("/"), "sh", ["-c", "echo $PATH"]).path(Path::new("/b")).path(Path::new("/a"));
        assert!(run.read().unwrap().starts_with("/a:/b:"));
    }
}
