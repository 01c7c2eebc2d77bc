//! What was seen of an instance that is not as it should be.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the last failed attempt of a check saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What people call the check.
    pub check: String,
    /// What it decides.
    pub purpose: Purpose,
    /// `connection refused on port 5000`, `GET /health was answered with 503 Service Unavailable`
    pub result: String,
    /// Where something in the container really listens for TCP.
    pub listening: Vec<SocketAddr>,
    /// Seconds since start, when it was seen.
    pub after: Duration,
    /// Whether the engine stopped the instance for it: how its process then ended says nothing.
    pub fatal: bool,
}

/// What a check decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Whether there is a process at all. It is the engine's own, and no check of anybody.
    Start,
    /// Whether it is up.
    Startup,
    /// Whether it gets requests.
    Readiness,
    /// Whether it may live on.
    Liveness,
}

impl ProbeReport {
    /// One that nobody looked into further: there is no process to look at.
    pub fn not_started(reason: &str) -> Self {
        Self {
            check: "start".to_owned(),
            purpose: Purpose::Start,
            result: format!("not started: {reason}"),
            listening: Vec::new(),
            after: Duration::ZERO,
            fatal: false,
        }
    }

    /// Where something listens on `port` that others than the container itself reach.
    pub fn listens_outside(&self, port: u16) -> bool {
        self.listening.iter().any(|address| address.port() == port && !address.ip().is_loopback())
    }
}
