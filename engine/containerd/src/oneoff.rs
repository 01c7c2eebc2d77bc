//! Containers that run once. Their output takes the same way as that of instances, so that nobody can block a build by not
//! listening; only a terminal's goes through a FIFO.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::{EngineError, Input, OneOff, RunningOneOff};
use model::{Exit, Timestamp};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::container::NewContainer;
use crate::containerd::Stdio;
use crate::error::Fault;
use crate::files::Record;
use crate::host::Host;
use crate::logs::{Output, saved_offset};
use crate::tenants::Tenant;

/// What a terminal sends for Ctrl-D.
const END_OF_TRANSMISSION: &[u8] = &[4];
const CHANNEL: usize = 64;
/// How long a one-off waits for a containerd that was just restarted.
const CONTAINERD_BACK: Duration = Duration::from_secs(10);

/// Starts a one-off. Must not be dropped half-way: run it in a task of its own.
pub(crate) async fn run(host: Arc<Host>, oneoff: OneOff) -> Result<RunningOneOff, EngineError> {
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
    let (exit, _) = oneshot::channel();
    let ended = CancellationToken::new();
    if oneoff.tty.is_some() {
        kill.cancel();
    } else {
        let folder = host.folder(&oneoff.id.0);
        if let Ok(output) = host.watcher.follow(&folder.output(), saved_offset(&folder.offset()), ended.clone()) {
            let (sender, _) = mpsc::channel(1);
            tokio::spawn(pump_file(output, sender));
        }
    }
    let limit = deadline.since(host.now());
    tokio::spawn(supervise(Arc::clone(host), oneoff, limit, Ending { kill, ended, exit }));
}

/// How a one-off's end is brought about and made known.
struct Ending {
    /// Cancelled by a caller who wants it to end.
    kill: CancellationToken,
    /// Cancelled once all its output is written.
    ended: CancellationToken,
    exit: oneshot::Sender<Exit>,
}

async fn begin(host: &Arc<Host>, oneoff: OneOff, kill: CancellationToken) -> Result<RunningOneOff, Fault> {
    let id = oneoff.id.0.clone();
    let folder = host.folder(&id);
    let stdio = match oneoff.tty {
        Some(_) => Stdio::Terminal { stdin: folder.stdin(), stdout: folder.terminal() },
        None => Stdio::File { output: folder.output(), stdin: Some(folder.stdin()) },
    };
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
    // Opened for both ways, a FIFO neither waits for the shim nor ends with it; the shim does wait for us.
    let both_ways = || {
        let mut options = pipe::OpenOptions::new();
        options.read_write(true);
        options
    };
    let keyboard = both_ways().open_sender(folder.stdin()).map_err(Fault::on("open", &folder.stdin()))?;
    let screen = oneoff.tty.map(|_| both_ways().open_receiver(folder.terminal())).transpose();
    let screen = screen.map_err(Fault::on("open", &folder.terminal()))?;
    let running = host.create(new).await?;

    let ended = CancellationToken::new();
    let (output_sender, output) = mpsc::channel(CHANNEL);
    if let Some(screen) = screen {
        tokio::spawn(pump_terminal(screen, output_sender, ended.clone()));
    } else {
        let reader = host.watcher.follow(&folder.output(), 0, ended.clone());
        let reader = reader.map_err(Fault::on("follow", &folder.output()))?;
        tokio::spawn(pump_file(reader, output_sender));
    }
    if let Err(fault) = host.start(&id, &running).await {
        ended.cancel();
        return Err(fault);
    }
    let (input, input_receiver) = mpsc::channel(CHANNEL);
    tokio::spawn(feed(Arc::clone(host), oneoff.clone(), keyboard, input_receiver, ended.clone()));
    let (exit_sender, exit) = oneshot::channel();
    let limit = oneoff.time_limit;
    tokio::spawn(supervise(Arc::clone(host), oneoff, limit, Ending { kill, ended, exit: exit_sender }));
    Ok(RunningOneOff { input, output, exit })
}

/// Waits for the end or brings it about, makes it known, and removes what is left.
async fn supervise(host: Arc<Host>, oneoff: OneOff, limit: Duration, ending: Ending) {
    let id = oneoff.id.0.as_str();
    let status = tokio::select! {
        status = host.ended(id) => status,
        () = async {
            tokio::select! {
                () = sleep(limit) => {}
                () = ending.kill.cancelled() => {}
            }
            host.signal(id, Signal::SIGKILL).await;
            std::future::pending::<()>().await;
        } => None,
    };
    let exit = host.exit(id, status);
    host.insist(id, || host.containerd.remove(id)).await;
    ending.ended.cancel();
    // The caller may have gone long ago.
    let _ = ending.exit.send(exit);
    Arc::clone(&host).destroy(id.to_owned()).await;
    host.forget_oneoff(&oneoff.id);
}

/// Hands on what is appended to the file. When nobody listens any more it still reads, so that the disk does not fill.
async fn pump_file(mut file: Output, sender: mpsc::Sender<Bytes>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = file.read(&mut buffer).await {
        let _ = sender.send(Bytes::copy_from_slice(&buffer[..length])).await;
    }
}

async fn pump_terminal(mut terminal: pipe::Receiver, sender: mpsc::Sender<Bytes>, ended: CancellationToken) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        tokio::select! {
            biased;
            read = terminal.read(&mut buffer) => match read {
                Ok(length @ 1..) => {
                    let _ = sender.send(Bytes::copy_from_slice(&buffer[..length])).await;
                }
                _ => return,
            },
            () = ended.cancelled() => break,
        }
    }
    while let Ok(length @ 1..) = terminal.try_read(&mut buffer) {
        let _ = sender.send(Bytes::copy_from_slice(&buffer[..length])).await;
    }
}

/// Passes a caller's input on to the process until either ends.
async fn feed(
    host: Arc<Host>,
    oneoff: OneOff,
    mut stdin: pipe::Sender,
    mut input: mpsc::Receiver<Input>,
    ended: CancellationToken,
) {
    let id = oneoff.id.0.as_str();
    let fed = async {
        while let Some(input) = input.recv().await {
            match input {
                Input::Data(bytes) => stdin.write_all(&bytes).await?,
                Input::Resize(size) => {
                    if let Err(fault) = host.containerd.resize(id, size).await {
                        tracing::debug!(container.id = %id, error = %fault, "a terminal kept its size");
                    }
                }
                Input::Eof => break,
            }
        }
        if oneoff.tty.is_some() {
            stdin.write_all(END_OF_TRANSMISSION).await?;
            // The terminal stays open for as long as its process lives.
            std::future::pending::<()>().await;
        }
        drop(stdin);
        host.insist(id, || host.containerd.close_stdin(id)).await;
        Ok::<(), io::Error>(())
    };
    tokio::select! {
        result = fed => if let Err(error) = result {
            tracing::debug!(container.id = %id, error = %error, "a one-off takes no more input");
        },
        () = ended.cancelled() => {}
    }
}
