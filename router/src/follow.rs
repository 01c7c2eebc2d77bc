//! Follows the two publishers of the route table, for ever, and keeps the last good copy on disk.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::AppId;
use model::certificate::{AppCertificates, CertificatesUpdate};
use model::routes::{Ack, Update};
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::snapshot;
use crate::split::{Piece, Splitter};
use crate::table::Table;
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

/// Bytes that are read at once of what a publisher says.
const CHUNK: usize = 16 << 10;

/// What takes the rows of one publisher. They come one by one, and a large update may take effect in parts.
pub(crate) trait Half {
    /// Names a row.
    type Key: DeserializeOwned;
    /// What is known of it.
    type Row: DeserializeOwned;

    /// An update begins. Of one that had begun there is nothing more to come.
    fn begin(&mut self);
    /// A row is new, changed, or as it was.
    fn set(&mut self, key: Self::Key, row: Self::Row);
    /// A row stays as it is, because what was said of it is no good.
    fn keep(&mut self, key: Self::Key);
    /// A row is gone, if the update does not set it as well.
    fn unset(&mut self, key: Self::Key);
    /// That was all of a version, or of the whole table. The answer is what is to be said before it is said that the version is served.
    fn end(&mut self, version: u64, reset: bool) -> Vec<Ack>;
    /// Lets take effect what was said up to now.
    fn apply(&mut self) {}
    /// Called now and then while the publisher is away.
    fn alone(&mut self) {}
}

/// Lets `half` take what the publisher at `socket` says, whenever it is there, and tells it what is to be said.
pub(crate) async fn follow(socket: &Path, said: Said<'_>, half: &mut impl Half) {
    let mut pause = RETRY.0;
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => {
                pause = RETRY.0;
                if let Err(error) = follow_stream(stream, said, half).await {
                    tracing::info!(error = %error, socket = %socket.display(), "a publisher of routes went away");
                }
            }
            Err(error) => tracing::trace!(error = %error, socket = %socket.display(), "no publisher of routes yet"),
        }
        half.alone();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

async fn follow_stream(stream: UnixStream, (outbox, totals): Said<'_>, half: &mut impl Half) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let (mut updates, mut chunk) = (Updates::default(), vec![0; CHUNK]);
    outbox.begin(totals);
    let mut has_begun = false;
    loop {
        let acks = tokio::select! {
            count = reader.read(&mut chunk) => match count? {
                0 => return Ok(()),
                count => updates.read(&chunk[..count], half)?,
            },
            acks = outbox.next(totals), if has_begun => acks,
        };
        if updates.details {
            outbox.ask(totals);
        }
        if acks.is_empty() {
            continue;
        }
        has_begun = true;
        let mut lines = Vec::new();
        for ack in acks {
            serde_json::to_writer(&mut lines, &ack)?;
            lines.push(b'\n');
        }
        writer.write_all(&lines).await?;
    }
}

/// Updates that come in pieces.
#[derive(Default)]
struct Updates {
    splitter: Splitter,
    version: Option<u64>,
    reset: bool,
    /// The publisher asks for details of what is counted.
    details: bool,
}

impl Updates {
    /// Takes what came next. The answer is what is to be said of the updates that are whole by now.
    fn read(&mut self, bytes: &[u8], half: &mut impl Half) -> io::Result<Vec<Ack>> {
        let Self { splitter, version, reset, details } = self;
        let mut acks = Vec::new();
        splitter.push(bytes, &mut |piece| {
            match piece {
                Piece::Begin => {
                    (*version, *reset) = (None, false);
                    half.begin();
                }
                Piece::Member("version", value) => *version = serde_json::from_slice(value)?,
                Piece::Member("reset", value) => *reset = serde_json::from_slice(value)?,
                Piece::Member("details", value) => *details = serde_json::from_slice(value)?,
                Piece::Item("set", row) => read_row(row, half)?,
                Piece::Item("unset", key) => half.unset(serde_json::from_slice(key)?),
                Piece::Member(..) | Piece::Item(..) => {}
                Piece::End => {
                    let version = version.ok_or_else(|| io::Error::other("an update has no version"))?;
                    acks.extend(half.end(version, *reset));
                    acks.push(Ack::Serving(version));
                }
            }
            Ok(())
        })?;
        Ok(acks)
    }
}

/// Takes a row. One that is no good stays as it was: one app is no reason to let go of the others.
pub(crate) fn read_row<H: Half>(row: &[u8], half: &mut H) -> serde_json::Result<()> {
    match serde_json::from_slice::<(H::Key, H::Row)>(row) {
        Ok((key, row)) => half.set(key, row),
        Err(error) => {
            let (key, _) = serde_json::from_slice::<(H::Key, IgnoredAny)>(row)?;
            tracing::error!(error = %error, "a row of the route table is no good; what was there before stays");
            half.keep(key);
        }
    }
    Ok(())
}

/// Writes the table to `path` after every burst of changes that `changed` tells of.
pub(crate) async fn keep(path: &Path, table: &Arc<Table>, mut changed: watch::Receiver<()>) {
    let mut pause = SAVE_DELAY;
    // Who says so lives in the table.
    while changed.changed().await.is_ok() {
        tokio::time::sleep(pause).await;
        changed.mark_unchanged();
        let started = Instant::now();
        let (table, path) = (Arc::clone(table), path.to_owned());
        let saved = tokio::task::spawn_blocking(move || snapshot::save(&table, &path)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(error = %error, "cannot keep the route table on disk");
        }
        pause = SAVE_DELAY.max(started.elapsed() * SAVE_SHARE);
    }
}

/// Takes certificates as a whole.
pub(crate) struct Certificates {
    shown: Arc<Shown>,
    /// Who is told of apps whose certificates are not what they were.
    changed: mpsc::UnboundedSender<AppId>,
    update: CertificatesUpdate,
    kept: Vec<AppId>,
}

impl Certificates {
    pub(crate) fn new(shown: Arc<Shown>, changed: mpsc::UnboundedSender<AppId>) -> Self {
        let update = Update { version: 0, reset: false, set: Vec::new(), unset: Vec::new(), details: false };
        Self { shown, changed, update, kept: Vec::new() }
    }
}

impl Half for Certificates {
    type Key = AppId;
    type Row = AppCertificates;

    fn begin(&mut self) {
        *self = Self::new(Arc::clone(&self.shown), self.changed.clone());
    }

    fn set(&mut self, app: AppId, row: AppCertificates) {
        self.update.set.push((app, row));
    }

    fn keep(&mut self, app: AppId) {
        self.kept.push(app);
    }

    fn unset(&mut self, app: AppId) {
        self.update.unset.push(app);
    }

    fn end(&mut self, version: u64, reset: bool) -> Vec<Ack> {
        let Update { set, unset, .. } = &mut self.update;
        let (set, unset) = (std::mem::take(set), std::mem::take(unset));
        let update = Update { version, reset, set, unset, details: false };
        for app in self.shown.apply(update, &self.kept) {
            // Who keeps them lives as long as this does.
            let _ = self.changed.send(app);
        }
        Vec::new()
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
