//! Log lines on their way to an app's stream. Rooms below the controller write to a sink that is given to them.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::AppId;

/// Who wrote a line: `app[web.1]` (the app itself), `heroku[router]` (the platform), `app[api]` (deploys and config changes).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogSource {
    /// `app` or `heroku`, as Heroku's clients filter on them.
    pub source: String,
    /// `web.1`, `router`, `api`, …
    pub process: String,
}

impl LogSource {
    /// Output of an app's own process.
    pub fn app(process: impl fmt::Display) -> Self {
        Self { source: "app".to_owned(), process: process.to_string() }
    }

    /// A line of the platform about an app.
    pub fn platform(process: impl fmt::Display) -> Self {
        Self { source: "heroku".to_owned(), process: process.to_string() }
    }
}

impl fmt::Display for LogSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.source, self.process)
    }
}

/// Takes log lines. Writing never blocks for long and never fails the caller: a line that cannot be kept is counted, not raised.
pub trait LogSink: Send + Sync + 'static {
    /// Appends one line, without its newline, to the stream of `app`.
    fn write(&self, app: AppId, time: Timestamp, source: &LogSource, line: &str);

    /// Appends many lines of one source, as [`LogSink::write`] does each.
    fn write_all(&self, source: &LogSource, lines: &mut dyn Iterator<Item = (AppId, Timestamp, &str)>) {
        for (app, time, line) in lines {
            self.write(app, time, source, line);
        }
    }

    /// Resolves once no line that was written before is lost by an end of this process: each is kept, or was given up with a word.
    /// At once, if that is so when [`LogSink::write`] returns.
    fn kept(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(ready(()))
    }
}
