//! Containers that run once.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use engine::{Ended, EngineError, OneOff, RunningOneOff};
use model::{Exit, Timestamp};
use nix::sys::signal::Signal;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::container::{Followed, NewContainer};
use crate::containerd::Stdio;
use crate::error::Fault;
use crate::files::{Record, Running};
use crate::host::{ABLE, Host, Switch};
use crate::overlays;
use crate::pipes::{CHANNEL, Pipes, Reader, feed, pump};
use crate::tenants::Tenant;

/// How long a one-off waits for a containerd that was just restarted.
const CONTAINERD_BACK: Duration = Duration::from_secs(10);
/// How long what a stopped one-off said at last waits for its reader.
const LAST_OUTPUT: Duration = Duration::from_secs(5);

/// Starts a one-off. Must not be dropped half-way: run it in a task of its own.
pub(crate) async fn run(host: Arc<Host>, oneoff: OneOff) -> Result<RunningOneOff, EngineError> {
    oneoff.container.check(ABLE)?;
    let switch = host.register_oneoff(&oneoff)?;
    let id = oneoff.id.clone();
    // If this does not help, what follows says why.
    let _ = timeout(CONTAINERD_BACK, host.insist(&id.0, || host.containerd.ping())).await;
    match begin(&host, oneoff, switch).await {
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

/// Takes over a one-off of an earlier life of this role, of which it left `running` if its process lives. One with a log goes on as
/// if nothing had happened, and if it has ended meanwhile that is told. To others nobody listens any more; they run on until their
/// end or their time limit. A terminal hung up with the life that held it.
pub(crate) fn adopt(host: &Arc<Host>, oneoff: OneOff, deadline: Timestamp, running: Option<Running>) {
    if running.is_none() && oneoff.log.is_none() {
        return;
    }
    // It may have been told already how it ended, and only its removal is left.
    let Ok(switch) = host.register_oneoff(&oneoff) else { return };
    let (id, limit) = (oneoff.id.0.clone(), deadline.since(host.now()));
    let (exit, _) = oneshot::channel();
    let output = if let Some(dyno) = &oneoff.log {
        Output::Logged(host.follow(&id, oneoff.app, dyno).ok())
    } else {
        let output = pipe::OpenOptions::new().open_receiver(host.folder(&id).stdout());
        if oneoff.tty.is_some() || output.is_err() {
            switch.kill.cancel();
        }
        Output::Piped(tokio::spawn(async move {
            if let Ok(output) = output {
                pump(output, mpsc::channel(1).0, CancellationToken::new()).await;
            }
        }))
    };
    let was_noted = host.folder(&id).running().is_some();
    let ending = Ending { switch, output, ended: CancellationToken::new(), exit };
    let host = Arc::clone(host);
    tokio::spawn(async move {
        if was_noted {
            supervise(host, oneoff, limit, ending).await;
        } else {
            // It may never have been started: nobody would wait for the right thing.
            settle(host, oneoff, (None, Duration::ZERO), ending).await;
        }
    });
}

/// What becomes of what a one-off writes.
enum Output {
    /// Ends once all of it was read.
    Piped(JoinHandle<()>),
    /// It goes to the log; none if there is nothing that could be read.
    Logged(Option<Followed>),
}

/// How a one-off's end is brought about and made known.
struct Ending {
    switch: Switch,
    output: Output,
    /// Cancelled once it takes no more input.
    ended: CancellationToken,
    exit: oneshot::Sender<Exit>,
}

async fn begin(host: &Arc<Host>, oneoff: OneOff, switch: Switch) -> Result<RunningOneOff, Fault> {
    let id = oneoff.id.0.clone();
    let folder = host.folder(&id);
    let stdio = match &oneoff.log {
        Some(_) => Stdio::File { output: folder.output() },
        None => Stdio::Pipes { stdin: folder.stdin(), output: folder.stdout(), terminal: oneoff.tty.is_some() },
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
    let _turn = host.turn().await;
    host.prepare(&new).await?;
    let ended = CancellationToken::new();
    let (input, input_receiver) = mpsc::channel(CHANNEL);
    let (output_sender, output) = mpsc::channel(CHANNEL);
    let kept = if let Some(dyno) = &oneoff.log {
        let running = host.create(new).await?;
        let followed = host.follow(&id, oneoff.app, dyno)?;
        if let Err(fault) = host.start(&id, &running).await {
            followed.finish().await;
            return Err(fault);
        }
        host.say(oneoff.app, dyno, "State changed from starting to up");
        Output::Logged(Some(followed))
    } else {
        let pipes = Pipes::open(&new.stdio)?;
        let running = host.create(new).await?;
        let (to_process, from_process) = pipes.joined()?;
        host.start(&id, &running).await?;
        let (host, container, has_tty) = (Arc::clone(host), id, oneoff.tty.is_some());
        let reader = Reader { host, container, exec: String::new(), has_tty };
        tokio::spawn(feed(reader, to_process, input_receiver, ended.clone()));
        // Whatever holds the output open is in the container, and goes with it.
        Output::Piped(tokio::spawn(pump(from_process, output_sender, CancellationToken::new())))
    };
    let (exit_sender, exit) = oneshot::channel();
    let limit = oneoff.time_limit;
    let ending = Ending { switch, output: kept, ended, exit: exit_sender };
    tokio::spawn(supervise(Arc::clone(host), oneoff, limit, ending));
    Ok(RunningOneOff { input, output, exit })
}

/// Waits for the end or brings it about, and settles what follows.
async fn supervise(host: Arc<Host>, oneoff: OneOff, limit: Duration, ending: Ending) {
    let (id, deadline, switch) = (oneoff.id.0.as_str(), Instant::now() + limit, ending.switch.clone());
    let mut ended = pin!(host.ended(id));
    let by_itself = tokio::select! {
        status = &mut ended => Some(status),
        () = over(&switch, deadline) => None,
    };
    let end = match by_itself {
        Some(status) => (status, deadline.saturating_duration_since(Instant::now())),
        None => (stop(&host, &oneoff, &switch, ended).await, LAST_OUTPUT),
    };
    settle(Arc::clone(&host), oneoff.clone(), end, ending).await;
}

/// Until somebody or something wants a one-off to end.
async fn over(switch: &Switch, deadline: Instant) {
    tokio::select! {
        () = sleep_until(deadline) => {}
        () = switch.stop.cancelled() => {}
        () = switch.kill.cancelled() => {}
    }
}

/// SIGTERM, unless it has no time for that, then SIGKILL. Returns how it ended.
async fn stop(host: &Host, oneoff: &OneOff, switch: &Switch, ended: impl Future<Output = Option<u32>>) -> Option<u32> {
    let (id, grace) = (oneoff.id.0.as_str(), oneoff.stop_grace);
    let mut ended = pin!(ended);
    if !grace.is_zero() && !switch.kill.is_cancelled() {
        say(host, oneoff, "Stopping all processes with SIGTERM");
        tokio::select! {
            status = &mut ended => return status,
            () = host.signal(id, Signal::SIGTERM) => {}
        }
        tokio::select! {
            status = &mut ended => return status,
            () = sleep(grace) => {}
            () = switch.kill.cancelled() => {}
        }
        say(host, oneoff, "Error R12 (Exit timeout) -> Stopping remaining processes with SIGKILL");
    }
    host.signal(id, Signal::SIGKILL).await;
    ended.await
}

/// Hands on the last of its output, for so long at most, makes known how it ended, and removes what is left.
async fn settle(host: Arc<Host>, oneoff: OneOff, (status, patience): (Option<u32>, Duration), ending: Ending) {
    let id = oneoff.id.0.as_str();
    let Ending { switch, output, ended, exit } = ending;
    let how = host.exit(id, status);
    match output {
        // What is still in the pipes would go with the container.
        Output::Piped(read) => tokio::select! {
            _ = read => {}
            () = sleep(patience) => {}
            () = switch.kill.cancelled() => {}
        },
        Output::Logged(followed) => {
            // Once the task is gone, all its output is in the file.
            host.insist(id, || host.containerd.remove(id)).await;
            if let Some(followed) = followed {
                followed.finish().await;
            }
            if how == Exit::OutOfMemory {
                let megabytes = oneoff.container.limits.memory_bytes >> 20;
                say(&host, &oneoff, &format!("Process ran out of its {megabytes} MB of memory"));
                say(&host, &oneoff, "Error R15 (Memory quota vastly exceeded)");
            }
            say(&host, &oneoff, &format!("Process {how}"));
            say(&host, &oneoff, "State changed from up to complete");
            host.remember(&Ended { id: oneoff.id.clone(), app: oneoff.app, exit: how, at: host.now() }).await;
        }
    }
    ended.cancel();
    // Whoever made the folders that its overlays are of has them back with its end.
    host.insist(id, || async { overlays::take_away(host.folder(id).path()) }).await;
    // The caller may have gone long ago. Nothing runs in the container any more, so nobody waits for its removal.
    let _ = exit.send(how);
    Arc::clone(&host).destroy(id.to_owned()).await;
    host.forget_oneoff(&oneoff.id);
}

/// Writes a line of the platform about a one-off that has a log.
fn say(host: &Host, oneoff: &OneOff, line: &str) {
    if let Some(dyno) = &oneoff.log {
        host.say(oneoff.app, dyno, line);
    }
}
