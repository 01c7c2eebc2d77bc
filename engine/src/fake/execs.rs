//! What is done in instances, which a test plays.

use std::io;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use model::Exit;
use tokio::sync::{mpsc, oneshot};

use super::FakeEngine;
use crate::{Archive, EngineError, Exec, Input, InstanceState, RunningOneOff};

/// A process in an instance, or a connection to one, that waits for the test to play it.
#[derive(Debug)]
pub struct FakeExec {
    /// In which instance.
    pub instance: String,
    /// What was asked for.
    pub what: Inside,
    /// What the caller sends.
    pub input: mpsc::Receiver<Input>,
    /// The output; closed once the caller is gone.
    pub output: mpsc::Sender<Bytes>,
    exit: oneshot::Sender<Exit>,
}

/// What a caller is joined to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inside {
    /// A process.
    Exec(Exec),
    /// A port.
    Port(u16),
}

impl FakeExec {
    /// Ends it, and its output with it.
    pub fn exit(self, exit: Exit) {
        drop(self.output);
        // The caller may have gone.
        let _ = self.exit.send(exit);
    }
}

impl FakeEngine {
    /// The next process that was started in an instance, or connection that was made; waits until there is one.
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

    pub(super) fn join(&self, instance: &str, what: Inside) -> Result<RunningOneOff, EngineError> {
        let (input, input_end) = mpsc::channel(64);
        let (output, output_end) = mpsc::channel(64);
        let (exit, exit_end) = oneshot::channel();
        self.check_running(instance)?;
        let exec = FakeExec { instance: instance.to_owned(), what, input: input_end, output, exit };
        self.lock().execs.push_back(exec);
        self.started.send_modify(|count| *count += 1);
        Ok(RunningOneOff { input, output: output_end, exit: exit_end })
    }

    pub(super) fn read_file(&self, instance: &str, path: &str) -> Result<Archive, EngineError> {
        self.check_running(instance)?;
        let found = self.lock().files.get(&(instance.to_owned(), path.to_owned())).cloned();
        let bytes = found.ok_or_else(|| EngineError::Failed(format!("cannot read {path}: there is no such file")))?;
        Ok(stream::iter([Ok(bytes)]).boxed())
    }

    pub(super) async fn write_file(&self, instance: &str, path: &str, archive: Archive) -> Result<(), EngineError> {
        self.check_running(instance)?;
        let pieces: io::Result<Vec<Bytes>> = archive.try_collect().await;
        let pieces = pieces.map_err(|error| EngineError::Failed(error.to_string()))?;
        self.lock().files.insert((instance.to_owned(), path.to_owned()), pieces.concat().into());
        Ok(())
    }

    fn check_running(&self, instance: &str) -> Result<(), EngineError> {
        let world = self.reach()?;
        let lives = |state| matches!(state, InstanceState::Starting | InstanceState::Up);
        let mut instances = world.workloads.values().flat_map(|held| &held.instances);
        if instances.any(|held| held.id == instance && lives(held.state)) {
            Ok(())
        } else {
            Err(EngineError::NotRunning(instance.to_owned()))
        }
    }
}
