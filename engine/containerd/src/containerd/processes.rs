//! Processes of containers: the first one, which a container lives and dies with, and those that are started in it later.

use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest, WaitRequest,
};
use engine::TtySize;
use nix::sys::signal::Signal;
use prost_types::Any;
use tonic::Code;

use super::{Containerd, Stdio, fault, gone_is_fine};
use crate::error::Fault;

/// Which process of which container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process<'a> {
    pub(crate) container: &'a str,
    /// Empty for the first one.
    pub(crate) exec: &'a str,
}

impl<'a> Process<'a> {
    /// The process that a container is made with.
    pub(crate) fn first(container: &'a str) -> Self {
        Self { container, exec: "" }
    }

    fn container_id(self) -> String {
        self.container.to_owned()
    }

    fn exec_id(self) -> String {
        self.exec.to_owned()
    }
}

impl Containerd {
    /// Describes one more process to a container that runs. It waits for [`Containerd::start`].
    pub(crate) async fn exec(
        &self,
        process: Process<'_>,
        spec: &oci_spec::runtime::Process,
        stdio: &Stdio,
    ) -> Result<(), Fault> {
        let Stdio::Pipes { stdin, output, terminal } = stdio else {
            return Err(Fault::Refused("a process in a container has pipes".to_owned()));
        };
        let spec = serde_json::to_vec(spec)
            .map_err(|error| Fault::Refused(format!("the process cannot be described: {error}")))?;
        let output = output.display().to_string();
        let request = ExecProcessRequest {
            container_id: process.container_id(),
            exec_id: process.exec_id(),
            stdin: stdin.display().to_string(),
            stderr: if *terminal { String::new() } else { output.clone() },
            stdout: output,
            terminal: *terminal,
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
                value: spec,
            }),
        };
        let made = self.tasks().await?.exec(self.request(request)).await;
        made.map_err(|status| fault("make a process", &status))?;
        Ok(())
    }

    /// Takes back what containerd keeps of a process that has ended, and its ends of the pipes. One that is gone is no error.
    pub(crate) async fn remove_exec(&self, process: Process<'_>) -> Result<(), Fault> {
        let request = DeleteProcessRequest { container_id: process.container_id(), exec_id: process.exec_id() };
        gone_is_fine(self.tasks().await?.delete_process(self.request(request)).await, "delete a process")
    }

    /// Lets a created process run, and returns its pid.
    pub(crate) async fn start(&self, process: Process<'_>) -> Result<u32, Fault> {
        let request = StartRequest { container_id: process.container_id(), exec_id: process.exec_id() };
        let started = self.tasks().await?.start(self.request(request)).await;
        Ok(started.map_err(|status| fault("start a task", &status))?.into_inner().pid)
    }

    /// Waits until the process ended and returns its status as a shell would see it; `None` when there is no such process.
    pub(crate) async fn wait(&self, process: Process<'_>) -> Result<Option<u32>, Fault> {
        let request = WaitRequest { container_id: process.container_id(), exec_id: process.exec_id() };
        match self.tasks().await?.wait(self.request(request)).await {
            Ok(answer) => Ok(Some(answer.into_inner().exit_status)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(fault("wait for a task", &status)),
        }
    }

    /// Sends a signal to a process. One that is gone is no error.
    pub(crate) async fn kill(&self, process: Process<'_>, signal: Signal) -> Result<(), Fault> {
        let signal = u32::try_from(signal as i32).unwrap_or_default();
        let request =
            KillRequest { container_id: process.container_id(), exec_id: process.exec_id(), signal, all: false };
        gone_is_fine(self.tasks().await?.kill(self.request(request)).await, "kill a task")
    }

    /// Sets the size of a process's terminal.
    pub(crate) async fn resize(&self, process: Process<'_>, size: TtySize) -> Result<(), Fault> {
        let request = ResizePtyRequest {
            container_id: process.container_id(),
            exec_id: process.exec_id(),
            width: size.columns.into(),
            height: size.rows.into(),
        };
        gone_is_fine(self.tasks().await?.resize_pty(self.request(request)).await, "resize a terminal")
    }

    /// Ends a process's standard input.
    pub(crate) async fn close_stdin(&self, process: Process<'_>) -> Result<(), Fault> {
        let request = CloseIoRequest { container_id: process.container_id(), exec_id: process.exec_id(), stdin: true };
        gone_is_fine(self.tasks().await?.close_io(self.request(request)).await, "close a task's input")
    }
}
