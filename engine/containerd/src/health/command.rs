//! A command inside an instance as a check.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::{EngineError, Exec, RunningOneOff};
use model::Exit;
use tokio::time::Instant;

use super::attempt::{quote, within};
use crate::exec;
use crate::host::Host;

/// Most bytes of output that are kept to be quoted.
const OUTPUT: usize = 64 << 10;

/// Runs a command in an instance; if it does not end well in time, says what it said.
pub(crate) async fn attempt(host: &Arc<Host>, instance: &str, args: &[String], limit: Duration) -> Result<(), String> {
    let exec = Exec { args: args.to_vec(), env: BTreeMap::new(), tty: None, time_limit: limit };
    // In a task of its own: it must not be dropped half-way, and whoever looks may be.
    let started = tokio::spawn(exec::run(Arc::clone(host), instance.to_owned(), exec)).await;
    let begun = Instant::now();
    let RunningOneOff { input, mut output, exit } = match started {
        Ok(Ok(running)) => running,
        // It says nothing of the instance.
        Ok(Err(EngineError::Unreachable { .. })) => return Ok(()),
        Ok(Err(error)) => return Err(format!("the command did not start: {error}")),
        Err(panic) => return Err(format!("the command did not start: {panic}")),
    };
    drop(input);
    let mut said = Vec::new();
    while let Some(piece) = output.recv().await {
        if said.len() < OUTPUT {
            said.extend_from_slice(&piece);
        }
    }
    match exit.await.unwrap_or(Exit::Lost) {
        exit if exit.is_success() => Ok(()),
        _ if begun.elapsed() >= limit => Err(format!("the command did not end {}", within(limit))),
        exit => Err(format!("the command {exit}{}", quote(&String::from_utf8_lossy(&said)))),
    }
}
