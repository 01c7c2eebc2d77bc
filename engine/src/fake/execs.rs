//! Processes in instances, which a test plays.

use bytes::Bytes;
use model::Exit;
use tokio::sync::{mpsc, oneshot};

use super::FakeEngine;
use crate::{EngineError, Exec, Input, InstanceState, RunningOneOff};

/// A process in an instance that waits for the test to play it.
#[derive(Debug)]
pub struct FakeExec {
    /// In which instance.
    pub instance: String,
    /// What was asked for.
    pub exec: Exec,
    /// What the caller sends.
    pub input: mpsc::Receiver<Input>,
    /// The process's output; closed once the caller is gone.
    pub output: mpsc::Sender<Bytes>,
    exit: oneshot::Sender<Exit>,
}

impl FakeExec {
    /// Ends the process, and its output with it.
    pub fn exit(self, exit: Exit) {
        drop(self.output);
        // The caller may have gone.
        let _ = self.exit.send(exit);
    }
}

impl FakeEngine {
    /// The next process that was started in an instance; waits until there is one.
    pub async fn next_exec(&self) -> FakeExec {
        let mut started = self.started.subscribe();
        loop {
            if let Some(exec) = self.lock().execs.pop_front() {
                return exec;
            }
            // The sender lives in `self`, so this cannot fail while we wait.
            let _ = started.changed().await;
        }
    }

    pub(super) fn start_exec(&self, instance: &str, exec: Exec) -> Result<RunningOneOff, EngineError> {
        let (input, input_end) = mpsc::channel(64);
        let (output, output_end) = mpsc::channel(64);
        let (exit, exit_end) = oneshot::channel();
        {
            let mut world = self.reach()?;
            let lives = |state| matches!(state, InstanceState::Starting | InstanceState::Up);
            let mut instances = world.workloads.values().flat_map(|held| &held.instances);
            if !instances.any(|held| held.id == instance && lives(held.state)) {
                return Err(EngineError::NotRunning(instance.to_owned()));
            }
            let instance = instance.to_owned();
            world.execs.push_back(FakeExec { instance, exec, input: input_end, output, exit });
        }
        self.started.send_modify(|count| *count += 1);
        Ok(RunningOneOff { input, output: output_end, exit: exit_end })
    }
}
