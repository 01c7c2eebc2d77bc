//! Containers that run once.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use engine::{EngineError, OneOff, RunningOneOff};
use model::{Exit, Timestamp};
use nix::sys::signal::Signal;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::container::NewContainer;
use crate::containerd::Stdio;
use crate::error::Fault;
use crate::files::Record;
use crate::host::{ABLE, Host};
use crate::pipes::{CHANNEL, Pipes, Reader, feed, pump};
use crate::tenants::Tenant;

/// How long a one-off waits for a containerd that was just restarted.
const CONTAINERD_BACK: Duration = Duration::from_secs(10);

/// Starts a one-off. Must not be dropped half-way: run it in a task of its own.
pub(crate) async fn run(host: Arc<Host>, oneoff: OneOff) -> Result<RunningOneOff, EngineError> {
    oneoff.container.check(ABLE)?;
    let kill = host.register_oneoff(&oneoff)?;
    let id = oneoff.id.clone();
    // If this does not help, what follows says why.
    let _ = timeout(CONTAINERD_BACK, host.insist(&id.0, || host.containerd.ping())).await;
    match begin(&host, oneoff, kill).await {
        Ok(running) => Ok(running),
        Err(fault) => {
            tokio::spawn(async move {
                Arc::clone(&host).destroy(id.0.clone()).await;
                host.forget_oneoff(&id);
            });
            Err(fault.into_engine("a one-off container"))
        }
    }
}

/// Takes over a one-off that an earlier life of this role left running. Nobody listens any more; it runs on until its
/// end or its time limit. A terminal hung up with the life that held it.
pub(crate) fn adopt(host: &Arc<Host>, oneoff: OneOff, deadline: Timestamp) {
    let Ok(kill) = host.register_oneoff(&oneoff) else { return };
    let output = pipe::OpenOptions::new().open_receiver(host.folder(&oneoff.id.0).stdout());
    if oneoff.tty.is_some() || output.is_err() {
        kill.cancel();
    }
    let read = tokio::spawn(async move {
        if let Ok(output) = output {
            pump(output, mpsc::channel(1).0, CancellationToken::new()).await;
        }
    });
    let (exit, _) = oneshot::channel();
    let ending = Ending { kill, read, ended: CancellationToken::new(), exit };
    tokio::spawn(supervise(Arc::clone(host), oneoff, deadline.since(host.now()), ending));
}

/// How a one-off's end is brought about and made known.
struct Ending {
    /// Cancelled by a caller who wants it to end.
    kill: CancellationToken,
    /// Ends once all its output was read.
    read: JoinHandle<()>,
    /// Cancelled once it takes no more input.
    ended: CancellationToken,
    exit: oneshot::Sender<Exit>,
}

async fn begin(host: &Arc<Host>, oneoff: OneOff, kill: CancellationToken) -> Result<RunningOneOff, Fault> {
    let id = oneoff.id.0.clone();
    let folder = host.folder(&id);
    let stdio = Stdio::Pipes { stdin: folder.stdin(), output: folder.stdout(), terminal: oneoff.tty.is_some() };
    let deadline = host.now().after(oneoff.time_limit);
    let record = Record::OneOff { oneoff: Box::new(oneoff.clone()), deadline };
    let new = NewContainer {
        id: &id,
        record: &record,
        container: &oneoff.container,
        app: oneoff.app,
        hostname: &id[..id.len().min(63)],
        tty: oneoff.tty,
        stdio,
    };
    host.tenants.move_in(&id, Tenant::of(&record)).await;
    host.prepare(&new)?;
    let pipes = Pipes::open(&new.stdio)?;
    let running = host.create(new).await?;
    let (to_process, from_process) = pipes.joined()?;
    host.start(&id, &running).await?;

    let ended = CancellationToken::new();
    let (output_sender, output) = mpsc::channel(CHANNEL);
    // Whatever holds the output open is in the container, and goes with it.
    let read = tokio::spawn(pump(from_process, output_sender, CancellationToken::new()));
    let (input, input_receiver) = mpsc::channel(CHANNEL);
    let reader = Reader { host: Arc::clone(host), container: id, exec: String::new(), has_tty: oneoff.tty.is_some() };
    tokio::spawn(feed(reader, to_process, input_receiver, ended.clone()));
    let (exit_sender, exit) = oneshot::channel();
    let limit = oneoff.time_limit;
    tokio::spawn(supervise(Arc::clone(host), oneoff, limit, Ending { kill, read, ended, exit: exit_sender }));
    Ok(RunningOneOff { input, output, exit })
}

/// Waits for the end or brings it about, makes it known, and removes what is left.
async fn supervise(host: Arc<Host>, oneoff: OneOff, limit: Duration, ending: Ending) {
    let id = oneoff.id.0.as_str();
    let mut over = pin!(async {
        tokio::select! {
            () = sleep(limit) => {}
            () = ending.kill.cancelled() => {}
        }
    });
    let by_itself = tokio::select! {
        status = host.ended(id) => Some(status),
        () = &mut over => None,
    };
    let status = if let Some(status) = by_itself {
        // What is still in the pipes would go with the container.
        tokio::select! {
            _ = ending.read => {}
            () = over => {}
        }
        status
    } else {
        host.signal(id, Signal::SIGKILL).await;
        host.ended(id).await
    };
    ending.ended.cancel();
    // The caller may have gone long ago. Nothing runs in the container any more, so nobody waits for its removal.
    let _ = ending.exit.send(host.exit(id, status));
    Arc::clone(&host).destroy(id.to_owned()).await;
    host.forget_oneoff(&oneoff.id);
}
