//! How an instance fares, as the API says it beside Heroku's fields of a dyno.

use engine::{Instance, InstanceState, ProbeReport, Purpose};
use model::Exit;
use serde::Serialize;
use utoipa::ToSchema;

use super::output::Time;

/// How an instance fares.
#[derive(Serialize, ToSchema)]
#[schema(as = DynoHealth)]
pub(super) struct HealthAnswer {
    /// Whether it is up and passes its readiness checks.
    ready: bool,
    /// How long its process took until it was healthy, in milliseconds; null before.
    boot_ms: Option<u64>,
    /// How often it crashed in a row.
    crashes: u32,
    /// How often it was started again because it had ended by itself.
    restarts: u32,
    /// When a crashed one is started again.
    retry_at: Option<Time>,
    /// It crashed too often and stays down until it is restarted.
    gave_up: bool,
    /// How its last life ended, if it crashed.
    last_exit: Option<ExitAnswer>,
    /// The check that fails now, or that failed when its last life ended.
    failing: Option<CheckAnswer>,
}

/// How a process ended.
#[derive(Serialize, ToSchema)]
#[schema(as = DynoExit)]
struct ExitAnswer {
    /// As a shell would report it.
    status: i32,
    /// The signal that ended it.
    signal: Option<i32>,
    /// Bytes of memory that it outgrew, if the kernel ended it for that.
    memory_limit: Option<u64>,
    /// `exited with code 3`
    text: String,
}

/// What a failed check saw.
#[derive(Serialize, ToSchema)]
#[schema(as = DynoCheck)]
struct CheckAnswer {
    name: String,
    /// `start`, `startup`, `readiness` or `liveness`
    purpose: &'static str,
    /// `GET /health was answered with 503 Service Unavailable`
    result: String,
    /// Addresses on which something in the container listened then.
    listening: Vec<String>,
    /// Seconds since its start.
    after_seconds: u64,
    /// Whether the instance was stopped for it.
    fatal: bool,
}

impl From<&Instance> for HealthAnswer {
    fn from(instance: &Instance) -> Self {
        let retry_at = match instance.state {
            InstanceState::Crashed { retry_at } => Some(retry_at.into()),
            _ => None,
        };
        Self {
            boot_ms: instance.booted_in.and_then(|boot| boot.as_millis().try_into().ok()),
            ready: instance.is_healthy(),
            crashes: instance.crashes,
            restarts: instance.restarts,
            retry_at,
            gave_up: instance.state == InstanceState::GaveUp,
            last_exit: instance.last_exit.map(|exit| ExitAnswer::new(exit, instance.oom_limit)),
            failing: instance.probe.as_ref().map(CheckAnswer::from),
        }
    }
}

impl ExitAnswer {
    fn new(exit: Exit, memory_limit: Option<u64>) -> Self {
        Self {
            status: exit.shell_status(),
            signal: if let Exit::Signal(signal) = exit { Some(signal) } else { None },
            memory_limit,
            text: exit.to_string(),
        }
    }
}

impl From<&ProbeReport> for CheckAnswer {
    fn from(report: &ProbeReport) -> Self {
        Self {
            name: report.check.clone(),
            purpose: match report.purpose {
                Purpose::Start => "start",
                Purpose::Startup => "startup",
                Purpose::Readiness => "readiness",
                Purpose::Liveness => "liveness",
            },
            result: report.result.clone(),
            listening: report.listening.iter().map(ToString::to_string).collect(),
            after_seconds: report.after.as_secs(),
            fatal: report.fatal,
        }
    }
}
