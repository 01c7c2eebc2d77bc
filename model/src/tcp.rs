//! Ports of the platform's whose connections apps take as they are: for what speaks something else than HTTP.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::Hostname;
use crate::routes::Share;

/// How long a connection may be silent if nobody says anything else.
pub const USUAL_IDLE: Duration = Duration::from_secs(60 * 60);
/// No limit of silence is shorter.
const LEAST_IDLE: Duration = Duration::from_secs(10);

/// What routers know of a port whose connections an app takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRoute {
    /// Of routers.
    pub port: u16,
    /// Only the connections over TLS that want this host name; none: those that no other app has of the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Hostname>,
    /// The router ends TLS and passes on what is inside; otherwise it passes everything on as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminate: bool,
    /// Of instances; none is the one at which they are found healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
    /// How long a connection may be silent.
    #[serde(default = "usual_idle")]
    pub idle: Duration,
    /// Instances are told by a header of the PROXY protocol who comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introduce: Option<Introduction>,
    /// Whose instances take the connections.
    pub shares: Vec<Share>,
}

/// A limit of silence as somebody writes it: `1h`.
pub fn idle(text: &str) -> Result<Duration, String> {
    crate::rollout::duration(text, LEAST_IDLE)
}

fn usual_idle() -> Duration {
    USUAL_IDLE
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Introduction {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Introduction {
    /// Both, by name.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// What it is called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

impl FromStr for Introduction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no version of the PROXY protocol: it is v1 or v2"))
    }
}

/// The ports that may be given to apps. None at all if empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpPorts(RangeInclusive<u16>);

impl TcpPorts {
    /// Whether this is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }

    /// The first and the last; none if there is none.
    pub fn ends(&self) -> Option<(u16, u16)> {
        (!self.0.is_empty()).then_some((*self.0.start(), *self.0.end()))
    }
}

impl Default for TcpPorts {
    #[expect(clippy::reversed_empty_ranges, reason = "it is meant to be empty")]
    fn default() -> Self {
        Self(1..=0)
    }
}

/// `3000-3099`, or one port, or nothing.
impl FromStr for TcpPorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(format!("`{text}` is no range of ports like 3000-3099")),
        }
    }
}

impl fmt::Display for TcpPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ends() {
            None => Ok(()),
            Some((first, last)) if first == last => write!(f, "{first}"),
            Some((first, last)) => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_ports_or_one_or_nothing() {
        let ends = |text: &str| text.parse::<TcpPorts>().map(|ports| ports.ends());
        assert_eq!(ends("3000-3099"), Ok(Some((3000, 3099))));
        assert_eq!(ends(" 5432 "), Ok(Some((5432, 5432))));
        assert_eq!((ends(""), TcpPorts::default().ends()), (Ok(None), None));
        for wrong in ["3099-3000", "0-10", "3000-", "a-b", "70000", "1-2-3"] {
            assert_eq!(ends(wrong), Err(format!("`{wrong}` is no range of ports like 3000-3099")));
        }
        let ports: TcpPorts = "3000-3099".parse().expect("a range");
        assert!(ports.contains(3000) && ports.contains(3099) && !ports.contains(3100));
        assert!(!TcpPorts::default().contains(1));
        assert_eq!(ports.to_string(), "3000-3099");
    }

    #[test]
    fn what_says_little_is_read_as_usual() {
        let route: TcpRoute = serde_json::from_str(r#"{"port":3042,"shares":[]}"#).expect("readable");
        assert_eq!((route.host, route.terminate, route.target_port), (None, false, None));
        assert_eq!((route.idle, route.introduce), (USUAL_IDLE, None));
    }
}
