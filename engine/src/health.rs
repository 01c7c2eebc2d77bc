//! When an instance counts as started, as ready for requests, and as alive.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long an engine pauses at most between two looks at a port that somebody waits for.
const SOON: Duration = Duration::from_millis(20);
/// How long one attempt may take unless somebody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What an engine looks at to know how an instance is. It looks from outside: nothing is needed in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Health {
    /// Where it takes requests (or a service's clients); also the value of `PORT` in its environment. Routers send nothing to an
    /// instance without one.
    pub port: Option<u16>,
    /// The `Host` that checks by HTTP send: an app may take no other. None: its address.
    pub host: Option<String>,
    /// From its start until its startup checks have passed, those of uptime aside. One that takes longer is stopped and counts as
    /// crashed (R10).
    pub boot: Duration,
    /// All must pass, one after the other, before it is up; with none it is up once its process runs.
    pub startup: Vec<Check>,
    /// While one fails, an instance that is up gets no new requests. Each must pass once before it gets any.
    pub readiness: Vec<Check>,
    /// Once one fails, the instance gets no new requests, is stopped with its grace period, and counts as crashed.
    pub liveness: Vec<Check>,
}

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What people call it.
    pub name: String,
    /// What is looked at.
    pub look: Look,
    /// It failed once so many attempts in a row did, each `wait` after the one before.
    pub attempts: u32,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Pause between two attempts. Until it passed once, an engine looks more often, and does not count that.
    pub wait: Duration,
    /// From the instance's start (startup) or from when it is up to the first attempt.
    pub delay: Duration,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// Its port takes connections.
    Listening,
    /// `GET` of this path at its port is answered with 2xx or 3xx.
    Http(String),
    /// This command ends well inside the instance, with its environment and as its user.
    Command(Vec<String>),
    /// It stayed up for so long.
    Uptime(Duration),
}

impl Health {
    /// Up once it accepts connections on `port` (Heroku's rule for `web`), looked at often for as long as `boot`: somebody waits for a deploy.
    pub fn listening(port: u16, boot: Duration) -> Self {
        Self { port: Some(port), boot, ..Self::started_by("listening", Look::Listening) }
    }

    /// Up once it stayed up for `settle`.
    pub fn uptime(settle: Duration) -> Self {
        Self { boot: settle, ..Self::started_by("uptime", Look::Uptime(settle)) }
    }

    fn started_by(name: &str, look: Look) -> Self {
        let check = Check {
            name: name.to_owned(),
            look,
            attempts: u32::MAX,
            timeout: TIMEOUT,
            wait: SOON,
            delay: Duration::ZERO,
        };
        Self {
            port: None,
            host: None,
            boot: Duration::ZERO,
            startup: vec![check],
            readiness: Vec::new(),
            liveness: Vec::new(),
        }
    }

    /// All checks.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.startup.iter().chain(&self.readiness).chain(&self.liveness)
    }
}

/// As it may be written down: wishes from before there were checks have one probe instead.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Now {
        port: Option<u16>,
        #[serde(default)]
        host: Option<String>,
        boot: Duration,
        startup: Vec<Check>,
        readiness: Vec<Check>,
        liveness: Vec<Check>,
    },
    Before(Probe),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Probe {
    Tcp { port: u16, boot_timeout: Duration },
    Alive { settle: Duration },
}

impl From<Written> for Health {
    fn from(written: Written) -> Self {
        match written {
            Written::Now { port, host, boot, startup, readiness, liveness } => {
                Self { port, host, boot, startup, readiness, liveness }
            }
            Written::Before(Probe::Tcp { port, boot_timeout }) => Self::listening(port, boot_timeout),
            Written::Before(Probe::Alive { settle }) => Self::uptime(settle),
        }
    }
}
