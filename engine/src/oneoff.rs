//! Containers that run once: builds, release phases, `run`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use model::{AppId, DynoName, Exit, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::workload::Container;

/// Unique for ever; chosen by the caller, so that it can be written down before the container exists. Letters, digits, `.` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OneOffId(pub String);

impl fmt::Display for OneOffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container to run once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneOff {
    /// Its id.
    pub id: OneOffId,
    /// Whose it is.
    pub app: AppId,
    /// What it runs.
    pub container: Container,
    /// A terminal of this size instead of pipes.
    pub tty: Option<TtySize>,
    /// It is stopped after this long.
    pub time_limit: Duration,
    /// From SIGTERM to SIGKILL, at its time limit and with [`crate::Engine::stop`].
    #[serde(default)]
    pub stop_grace: Duration,
    /// Whether it makes what an app is made of: then its app's policy of what it reaches outside does not hold for it.
    #[serde(default)]
    pub is_build: bool,
    /// Named like this, its output goes to its app's log, it has no input, and it outlives whoever started it and every process of
    /// the platform. How it ended is kept until [`crate::Engine::forget`].
    #[serde(default)]
    pub log: Option<DynoName>,
}

/// How a one-off with a log ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which.
    pub id: OneOffId,
    /// Whose it was.
    pub app: AppId,
    /// How.
    pub exit: Exit,
    /// When.
    pub at: Timestamp,
}

/// A process to start in an instance that runs: with the instance's own user, limits and network, and none of its privileges more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments, passed to execve as they are.
    pub args: Vec<String>,
    /// Environment on top of the instance's own.
    pub env: BTreeMap<String, String>,
    /// A terminal of this size instead of pipes.
    pub tty: Option<TtySize>,
    /// It is ended after this long.
    pub time_limit: Duration,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtySize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// What a caller sends to a running one-off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes for its standard input.
    Data(Bytes),
    /// No more input.
    Eof,
    /// The terminal has a new size.
    Resize(TtySize),
}

/// A process that runs once. Dropping this does not end a one-off.
#[derive(Debug)]
pub struct RunningOneOff {
    /// To its standard input and terminal, byte for byte; takes no more than the process does. Dropping it means no more input.
    pub input: mpsc::Sender<Input>,
    /// Its output, byte for byte, standard output and error in one (they may overtake each other, unless it has a terminal); ends
    /// after the process ended and all was read. The process waits for whoever does not read on, in bounded memory; once this is
    /// dropped, it waits for nobody.
    pub output: mpsc::Receiver<Bytes>,
    /// How it ended; an error here means that the engine was lost.
    pub exit: oneshot::Receiver<Exit>,
}
