//! Follows the two publishers of the route table, for ever, and keeps the last good copy on disk.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::AppId;
use model::routes::{Ack, Update};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::merge::Merger;
use crate::snapshot;
use crate::tls::{Kept, Shown};
use crate::traffic::{Outbox, Totals};

/// Pauses between attempts to reach a publisher: a restarted one is found at once, an absent one costs nothing.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// Changes come in bursts; one write to disk is enough for a burst.
const SAVE_DELAY: Duration = Duration::from_millis(100);
/// A large table takes long to write: at most one part in so many of the time goes to that.
const SAVE_SHARE: u32 = 20;

/// What is said to a publisher: what waits for it, and all that was counted.
type Said<'a> = (&'a Outbox, &'a RefCell<Totals>);

/// Applies what the publisher at `socket` says, whenever it is there, and tells it what is to be said. `apply` gets an update and the keys of rows
/// that stay as they are, because what was said of them is no good, and answers what is to be said before it is said that the update is served. While the publisher is away, `alone` is called now and then.
pub(crate) async fn follow<K, V>(
    socket: &Path,
    said: Said<'_>,
    apply: impl Fn(Update<K, V>, &[K]) -> Vec<Ack>,
    alone: impl Fn(),
) where
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    let mut pause = RETRY.0;
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => {
                pause = RETRY.0;
                if let Err(error) = follow_stream(stream, said, &apply).await {
                    tracing::info!(error = %error, socket = %socket.display(), "a publisher of routes went away");
                }
            }
            Err(error) => tracing::trace!(error = %error, socket = %socket.display(), "no publisher of routes yet"),
        }
        alone();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

async fn follow_stream<K, V>(
    stream: UnixStream,
    (outbox, totals): Said<'_>,
    apply: &impl Fn(Update<K, V>, &[K]) -> Vec<Ack>,
) -> io::Result<()>
where
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    let (reader, mut writer) = stream.into_split();
    let mut updates = BufReader::new(reader).lines();
    outbox.begin(totals);
    let mut has_begun = false;
    loop {
        let acks = tokio::select! {
            line = updates.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                let (update, kept) = read(&line)?;
                let version = update.version;
                let first = apply(update, &kept);
                has_begun = true;
                first.into_iter().chain([Ack::Serving(version)]).collect()
            }
            acks = outbox.next(totals), if has_begun => acks,
        };
        let mut lines = Vec::new();
        for ack in acks {
            serde_json::to_writer(&mut lines, &ack)?;
            lines.push(b'\n');
        }
        writer.write_all(&lines).await?;
    }
}

/// Reads an update, and which rows it is about that are no good and stay as they were: one app is no reason to let go of the others.
fn read<K, V>(line: &str) -> serde_json::Result<(Update<K, V>, Vec<K>)>
where
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    let error = match serde_json::from_str(line) {
        Ok(update) => return Ok((update, Vec::new())),
        Err(error) => error,
    };
    let Update { version, reset, set, unset } = serde_json::from_str::<Update<K, Value>>(line).map_err(|_| error)?;
    let mut good = Vec::new();
    let mut kept = Vec::new();
    for (key, row) in set {
        match serde_json::from_value(row) {
            Ok(row) => good.push((key, row)),
            Err(error) => {
                tracing::error!(error = %error, "a row of the route table is no good; what was there before stays");
                kept.push(key);
            }
        }
    }
    Ok((Update { version, reset, set: good, unset }, kept))
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

/// Writes the certificates of each app that `changed` tells of, as they are by then.
pub(crate) async fn keep_certificates(kept: Kept, shown: Arc<Shown>, mut changed: mpsc::UnboundedReceiver<AppId>) {
    while let Some(app) = changed.recv().await {
        let (kept, row) = (kept.clone(), shown.row(app));
        let saved = tokio::task::spawn_blocking(move || kept.save(app, row.as_deref())).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(error = %error, app.id = %app, "cannot keep the certificates of an app on disk");
        }
    }
}
