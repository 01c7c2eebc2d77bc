use std::fmt;

use serde::Serialize;

/// A place in a file; lines and columns count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Spot {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Spot {
    /// Where a file begins.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file says less than its author thinks.
    Warning,
    /// The file cannot be used.
    Error,
}

/// Something that is wrong with a file; `Display` is `file:line:column: message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Name of the file.
    pub file: &'static str,
    /// Where.
    #[serde(flatten)]
    pub spot: Spot,
    /// How bad.
    pub severity: Severity,
    /// What, with the field's name; no full stop.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, spot, severity, message } = self;
        let prefix = if *severity == Severity::Warning { "warning: " } else { "" };
        write!(f, "{file}:{}:{}: {prefix}{message}", spot.line, spot.column)
    }
}

/// A value, and where it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// What.
    pub value: T,
    /// Name of the file.
    pub file: &'static str,
    /// Where in it.
    pub spot: Spot,
}

impl<T> At<T> {
    /// An error about this value.
    pub fn error(&self, message: impl Into<String>) -> Problem {
        Problem { file: self.file, spot: self.spot, severity: Severity::Error, message: message.into() }
    }

    /// A warning about this value.
    pub fn warning(&self, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..self.error(message) }
    }
}
