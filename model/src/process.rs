//! What an image offers to run, and the sizes it may run in.

use serde::{Deserialize, Serialize};

use crate::name::ProcessType;

/// A process type with its command (CNB `launch.toml`, `[[processes]]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `web`, `worker`, …
    pub process_type: ProcessType,
    /// The command and the arguments that are always kept.
    pub command: Vec<String>,
    /// Arguments that a caller's own arguments replace.
    pub args: Vec<String>,
}

impl Process {
    /// The command as people read it in `ps`: a Procfile line as it was written, anything else joined by spaces.
    pub fn display(&self) -> String {
        let words: Vec<&str> = self.command.iter().chain(&self.args).map(String::as_str).collect();
        match words[..] {
            ["bash" | "/bin/sh", "-c", line] => line.to_owned(),
            _ => words.join(" "),
        }
    }
}

/// How much of the machine one dyno may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynoSize {
    /// Its id.
    pub id: String,
    /// The name people type, without regard to case: `Standard-1X`.
    pub name: String,
    /// Memory limit in bytes; a dyno over it is killed.
    pub memory_bytes: u64,
    /// Whether that memory is kept free for it alone; else it is a ceiling, and more is promised than there is.
    pub dedicated: bool,
    /// CPU limit in thousandths of a core.
    pub cpu_millis: u32,
    /// Weight against others when cores are short, 1 to 10,000.
    pub cpu_weight: u32,
    /// Most processes and threads at once.
    pub pids: u32,
    /// Most bytes that a dyno may write to its own disk, which goes with it.
    pub disk_bytes: u64,
    /// Most files and folders on that disk.
    pub files: u64,
    /// Most files and connections that one process may have open.
    pub open_files: u64,
}
