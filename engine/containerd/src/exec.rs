//! Processes that are started in an instance that runs: for people who look into it, and for checks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::{Container, EngineError, Exec, RunningOneOff};
use model::Exit;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::container::{make_fifo, plain_exit};
use crate::containerd::{Process, Stdio};
use crate::error::Fault;
use crate::files::{self, make_private};
use crate::host::Host;
use crate::netns;
use crate::pipes::{CHANNEL, Pipes, Reader, feed, pump};
use crate::spec;

/// From being told to end to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// Starts a process in an instance. Must not be dropped half-way: run it in a task of its own.
pub(crate) async fn run(host: Arc<Host>, instance: String, exec: Exec) -> Result<RunningOneOff, EngineError> {
    let within = host.within(&instance)?;
    let started = Started { id: host.new_id(), instance, host };
    match started.begin(exec, &within.container, &within.hostname).await {
        Ok(running) => Ok(running),
        Err(fault) => {
            tokio::spawn(started.clear());
            Err(fault.into_engine("a process in an instance"))
        }
    }
}

/// Ends what an earlier life of this role had started in a container: nobody is there to listen to it.
pub(crate) fn clear(host: &Arc<Host>, container: &str) {
    for id in files::names(&host.folder(container).execs()) {
        tokio::spawn(Started { id, instance: container.to_owned(), host: Arc::clone(host) }.clear());
    }
}

/// One process in an instance, and what it leaves.
#[derive(Clone)]
struct Started {
    id: String,
    instance: String,
    host: Arc<Host>,
}

impl Started {
    fn process(&self) -> Process<'_> {
        Process { container: &self.instance, exec: &self.id }
    }

    async fn begin(&self, exec: Exec, container: &Container, hostname: &str) -> Result<RunningOneOff, Fault> {
        let (host, folder) = (&self.host, self.host.folder(&self.instance).exec(&self.id));
        make_private(&folder)?;
        let (stdin, output) = (folder.join("stdin"), folder.join("stdout"));
        make_fifo(&stdin)?;
        make_fifo(&output)?;
        let ends = Stdio::Pipes { stdin, output, terminal: exec.tty.is_some() };
        let mut runs = Container { args: exec.args, ..container.clone() };
        runs.env.extend(exec.env);
        let spec = spec::process(&runs, hostname, exec.tty)?;
        let pipes = Pipes::open(&ends)?;
        host.containerd.exec(self.process(), &spec, &ends).await?;
        let pid = host.containerd.start(self.process()).await?;
        let (to_process, from_process) = pipes.joined()?;

        let ended = CancellationToken::new();
        let (output_sender, output) = mpsc::channel(CHANNEL);
        let read = tokio::spawn(pump(from_process, output_sender.clone(), ended.clone()));
        let (input, input_receiver) = mpsc::channel(CHANNEL);
        let (host, has_tty) = (Arc::clone(host), exec.tty.is_some());
        let reader = Reader { host, container: self.instance.clone(), exec: self.id.clone(), has_tty };
        tokio::spawn(feed(reader, to_process, input_receiver, ended.clone()));
        let (exit_sender, exit) = oneshot::channel();
        let ending = Ending { pid, limit: exec.time_limit, listener: output_sender, ended, read, exit: exit_sender };
        tokio::spawn(self.clone().supervise(ending));
        Ok(RunningOneOff { input, output, exit })
    }

    /// Waits for the end or brings it about, makes it known, and removes what is left.
    async fn supervise(self, ending: Ending) {
        let Ending { pid, limit, listener, ended, read, exit } = ending;
        let by_itself = tokio::select! {
            status = self.end() => Some(status),
            () = sleep(limit) => None,
            () = listener.closed() => None,
        };
        let status = match by_itself {
            Some(status) => status,
            None => self.stop(pid).await,
        };
        ended.cancel();
        drop(listener);
        // It fails only if it panicked, and then there is nothing more to hand on.
        let _ = read.await;
        let _ = exit.send(plain_exit(status));
        self.clear().await;
    }

    async fn end(&self) -> Option<u32> {
        self.host.insist(&self.instance, || self.host.containerd.wait(self.process())).await
    }

    /// Tells the process and its children to end, as a terminal does that is closed; then kills them.
    async fn stop(&self, pid: u32) -> Option<u32> {
        self.signal(pid, Signal::SIGHUP).await;
        self.signal(pid, Signal::SIGTERM).await;
        if let Ok(status) = timeout(GRACE, self.end()).await {
            return status;
        }
        self.signal(pid, Signal::SIGKILL).await;
        self.end().await
    }

    async fn signal(&self, pid: u32, signal: Signal) {
        // The runtime makes it the leader of a session and a group of its own.
        let is_ours = netns::holds(&self.host.network.namespace(&self.instance), pid);
        if let Some(group) = i32::try_from(pid).ok().filter(|_| is_ours) {
            // It may have ended by itself meanwhile.
            let _ = killpg(Pid::from_raw(group), signal);
        }
        self.host.insist(&self.instance, || self.host.containerd.kill(self.process(), signal)).await;
    }

    /// Removes all that it left. What still runs of it is killed.
    async fn clear(self) {
        let host = &self.host;
        let remove = || async {
            match host.containerd.remove_exec(self.process()).await {
                // What still runs cannot be deleted; containerd has no code for that.
                Err(Fault::Containerd { .. }) => {}
                removed => return removed,
            }
            host.containerd.kill(self.process(), Signal::SIGKILL).await?;
            host.containerd.wait(self.process()).await?;
            host.containerd.remove_exec(self.process()).await
        };
        host.insist(&self.instance, remove).await;
        // If this fails it goes with the folder of its instance.
        let _ = tokio::fs::remove_dir_all(host.folder(&self.instance).exec(&self.id)).await;
    }
}

/// How a process's end is brought about and made known.
struct Ending {
    pid: u32,
    limit: Duration,
    /// Closed once nobody listens any more.
    listener: mpsc::Sender<Bytes>,
    /// Cancelled once it takes no more input.
    ended: CancellationToken,
    /// Ends once all its output was read.
    read: JoinHandle<()>,
    exit: oneshot::Sender<Exit>,
}
