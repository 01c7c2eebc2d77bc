//! What a person at the terminal is told when a command fails: what happened, why, and what to do about it.

use std::error::Error;
use std::fmt::Write;
use std::io;

use crate::output::{Color, Paint};

/// What kind of failure, which decides the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The platform refused, or something on this machine failed: status 1.
    Failed,
    /// The command line makes no sense: status 2, as the argument parser's own errors.
    Usage,
    /// Nobody is logged in, or the token is no longer good: status 3.
    Login,
    /// The password is right, and a code is needed too: status 3.
    TwoFactor,
    /// The platform cannot be reached: status 4.
    Unreachable,
    /// The reader of our output went away (`platform logs | head`): status 141 and not a word, as other programs end by SIGPIPE.
    OutputClosed,
}

impl Kind {
    /// The exit status of the program.
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Login | Self::TwoFactor => 3,
            Self::Unreachable => 4,
            Self::OutputClosed => 141,
        }
    }
}

/// A failure in words.
#[derive(Debug)]
pub(crate) struct CliError {
    /// Decides the exit status.
    pub(crate) kind: Kind,
    /// What was not found, in the API's words: `app`, `release` …
    pub(crate) missing: Option<String>,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

/// What every fallible step of a command returns.
pub(crate) type Result<T, E = CliError> = std::result::Result<T, E>;

impl CliError {
    /// `message` says what happened, as a sentence without a full stop.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, missing: None, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A plain failure.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// A wrong command line.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Adds why: `source` and everything below it.
    #[must_use]
    pub(crate) fn because(mut self, source: &dyn Error) -> Self {
        let mut next = Some(source);
        while let Some(error) = next {
            let text = error.to_string();
            if !text.is_empty() && !self.causes.iter().any(|earlier| earlier.contains(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The whole report, ready for stderr.
    pub(crate) fn report(&self, paint: Paint) -> String {
        // Writing to a String cannot fail.
        let mut text = format!("{} {}\n", paint.color(Color::DarkRed, "Error:"), self.message);
        for cause in &self.causes {
            let cause = cause.replace('\n', "\n           ");
            let _ = writeln!(text, "  {} {cause}", paint.color(Color::DarkGrey, "because:"));
        }
        if let Some(hint) = &self.hint {
            let hint = hint.replace('\n', "\n           ");
            let _ = writeln!(text, "  {} {hint}", paint.color(Color::DarkCyan, "what now:"));
        }
        text
    }
}

/// Failing to write to stdout: silent when its reader went away.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Kind::OutputClosed, "The reader of the output went away");
        }
        Self::failed("Cannot write the output").because(&error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn a_report_says_what_why_and_what_to_do() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let error =
            CliError::new(Kind::Unreachable, "Cannot reach the platform").because(&refused).hint("Is it up?\nLook.");
        assert_eq!(
            error.report(Paint::plain()),
            "Error: Cannot reach the platform\n  because: connection refused\n  what now: Is it up?\n           Look.\n"
        );
        assert_eq!(error.kind.exit_status(), 4);
    }

    /// Every text that this program can fail with, as its sources have it: a change of any shows in the snapshot.
    #[test]
    fn error_texts() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cli");
        let mut files = sources(&folder);
        files.sort();
        let mut all = String::new();
        for file in files {
            let text = std::fs::read_to_string(&file).expect("readable");
            let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
            let found = texts(code);
            if !found.is_empty() {
                let name = file.strip_prefix(&folder).expect("inside").display();
                let _ = writeln!(all, "{name}\n{found}");
            }
        }
        insta::assert_snapshot!(all);
    }

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries
            .flat_map(|path| match path.extension() {
                _ if path.is_dir() => sources(&path),
                Some(end) if end == "rs" => vec![path],
                _ => Vec::new(),
            })
            .collect()
    }

    /// The texts behind every constructor of an error and every hint, a line each.
    fn texts(code: &str) -> String {
        let heads = [("CliError::usage(", ""), ("CliError::failed(", ""), ("CliError::new(", ""), (".hint(", "  > ")];
        let mut found: Vec<(usize, &str)> = Vec::new();
        for (head, mark) in heads {
            found.extend(code.match_indices(head).map(|(at, _)| (at + head.len(), mark)));
        }
        found.extend(code.match_indices("CliHint = ").map(|(at, head)| (at + head.len(), "  > ")));
        found.sort_unstable();
        let line = |(at, mark): (usize, &str)| {
            let words = literals(&code[at..]);
            (!words.is_empty()).then(|| format!("  {mark}{}\n", words.join(" | ")))
        };
        found.into_iter().filter_map(line).collect()
    }

    /// The string literals up to the end of the call, or of the statement.
    fn literals(code: &str) -> Vec<String> {
        let (mut depth, mut found, mut rest) = (0, Vec::new(), code.chars().peekable());
        while let Some(letter) = rest.next() {
            match letter {
                '(' | '{' | '[' => depth += 1,
                ')' | '}' | ']' | ';' if depth == 0 => break,
                ')' | '}' | ']' => depth -= 1,
                '"' => {
                    let literal = literal(&mut rest);
                    if literal.contains(char::is_alphabetic) {
                        found.push(literal);
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// What is left of a string literal (Rust reference, "String literals"); a line that goes on goes on.
    fn literal(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
        let mut text = String::new();
        while let Some(letter) = rest.next() {
            match letter {
                '"' => break,
                '\\' => match rest.next() {
                    Some('\n') => while rest.next_if(|letter| letter.is_whitespace()).is_some() {},
                    Some('n') => text.push_str(" / "),
                    Some(other) => text.push(other),
                    None => break,
                },
                letter => text.push(letter),
            }
        }
        text
    }
}
