//! Every app's one stream of lines, in bounded files that need no process to be alive but the one that writes.
//!
//! `<root>/<app id>/<writer>-<number>.log`: each process that has something to say (`host`, `router`, `controller`) is a
//! *writer* and appends whole lines to segments of its own; a reader merges all writers by time. A line on disk is the line
//! that people see: `2026-11-21T02:39:46.255000+00:00 app[web.1]: text`.

mod reader;
mod segments;
mod session;
mod writer;

pub(crate) use reader::read;
pub use reader::{Filter, Marks, Reader, Tail};
pub use session::{LogSession, LogSessionRequest, Sessions, routes};
pub use writer::{LogLimits, Writer};
