//! Follows the two publishers of the route table, for ever, and keeps the last good copy on disk.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use model::routes::{Ack, Update};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::merge::Merger;
use crate::snapshot;

/// Pauses between attempts to reach a publisher: a restarted one is found at once, an absent one costs nothing.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// Changes come in bursts; one write to disk is enough for a burst.
const SAVE_DELAY: Duration = Duration::from_millis(100);
/// A large table takes long to write: at most one part in so many of the time goes to that.
const SAVE_SHARE: u32 = 20;

/// Applies what the publisher at `socket` says, whenever it is there, and sends it what comes on `drained`.
pub(crate) async fn follow<K, V>(
    socket: &Path,
    mut drained: mpsc::UnboundedReceiver<String>,
    apply: impl Fn(Update<K, V>),
) where
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    let mut pause = RETRY.0;
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => {
                pause = RETRY.0;
                // What was drained while nobody followed concerns nobody: a publisher waits only for who follows it.
                while drained.try_recv().is_ok() {}
                if let Err(error) = follow_stream(stream, &mut drained, &apply).await {
                    tracing::info!(error = %error, socket = %socket.display(), "a publisher of routes went away");
                }
            }
            Err(error) => tracing::trace!(error = %error, socket = %socket.display(), "no publisher of routes yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

async fn follow_stream<K, V>(
    stream: UnixStream,
    drained: &mut mpsc::UnboundedReceiver<String>,
    apply: &impl Fn(Update<K, V>),
) -> io::Result<()>
where
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    let (reader, mut writer) = stream.into_split();
    let mut updates = BufReader::new(reader).lines();
    loop {
        let ack = tokio::select! {
            line = updates.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                let update: Update<K, V> = serde_json::from_str(&line)?;
                let version = update.version;
                apply(update);
                Ack::Serving(version)
            }
            Some(instance) = drained.recv() => Ack::Drained(instance),
        };
        let mut line = serde_json::to_vec(&ack)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
    }
}

/// Writes the table to `path` after every burst of changes that `changed` tells of.
pub(crate) async fn keep(path: &Path, merger: Rc<RefCell<Merger>>, changed: Rc<Notify>) {
    let mut pause = SAVE_DELAY;
    loop {
        changed.notified().await;
        tokio::time::sleep(pause).await;
        let started = Instant::now();
        let (json, path) = (merger.borrow().rows().to_json(), path.to_owned());
        let saved = tokio::task::spawn_blocking(move || snapshot::save(&path, &json)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(error = %error, "cannot keep the route table on disk");
        }
        pause = SAVE_DELAY.max(started.elapsed() * SAVE_SHARE);
    }
}
