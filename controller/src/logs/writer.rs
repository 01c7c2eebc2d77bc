//! Appends lines. Callers are the data plane and the keeper of instances: they never wait for a disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use model::{AppId, LogSink, LogSource, Timestamp};
use tokio::sync::watch;

use super::segments;

/// Longest text of one line in bytes, as Heroku's.
const MAX_LINE: usize = 10_000;

/// Files that are kept open; those of the apps that were silent for longest are closed.
const MAX_OPEN: usize = 256;

/// Bytes that wait for the disk at most; lines beyond are dropped and counted.
const MAX_WAITING: usize = 8 << 20;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// Bytes of one app's stream, all writers together.
    pub app_bytes: u64,
}

impl Default for LogLimits {
    /// 16 MiB an app.
    fn default() -> Self {
        Self { app_bytes: 16 << 20 }
    }
}

impl LogLimits {
    fn segment_bytes(self) -> u64 {
        (self.app_bytes / 16).max(4096)
    }
}

/// One process's way into the streams of all apps. Lines are on their way to the disk at once; dropping this writes the rest.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// How many of all lines were given to the operating system, or could not be.
    settled: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<(AppId, String)>,
    bytes: usize,
    /// Lines that ever were in it.
    count: u64,
    /// Lines that found no room, and when the last one came.
    dropped: BTreeMap<AppId, (u64, Timestamp)>,
    closed: bool,
}

impl Writer {
    /// Writes under `root` as `name` (`host`, `router`, `controller`), of which there must be one process at a time.
    pub fn open(root: &Path, name: &str, limits: LogLimits) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let shared = Arc::new(Shared::default());
        let mut files = Files { root: root.to_owned(), name: name.to_owned(), limits, uses: 0, open: HashMap::new() };
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                while let Some(batch) = shared.next_batch() {
                    files.write(batch);
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Waits until every line so far was given to the operating system.
    pub fn flush(&self) {
        let mut queue = self.shared.lock();
        let wanted = queue.count;
        while *self.shared.settled.borrow() < wanted {
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl LogSink for Writer {
    fn write(&self, app: AppId, time: Timestamp, source: &LogSource, line: &str) {
        self.write_all(source, &mut std::iter::once((app, time, line)));
    }

    fn write_all(&self, source: &LogSource, lines: &mut dyn Iterator<Item = (AppId, Timestamp, &str)>) {
        let (mut written, mut time_text) = (None, String::new());
        let mut queue = self.shared.lock();
        for (app, time, text) in lines {
            // Of thousands in a second many have the same time.
            if written.replace(time) != Some(time) {
                time_text = time.to_log_time();
            }
            for part in text.split('\n') {
                queue.push(app, time, &time_text, source, part);
            }
        }
        drop(queue);
        self.shared.changed.notify_all();
    }

    fn kept(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let wanted = self.shared.lock().count;
        let mut settled = self.shared.settled.subscribe();
        Box::pin(async move {
            // It fails when the sender is gone, which this borrows.
            let _ = settled.wait_for(|count| *count >= wanted).await;
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, which was reported then.
            let _ = thread.join();
        }
    }
}

impl Queue {
    fn push(&mut self, app: AppId, time: Timestamp, time_text: &str, source: &LogSource, text: &str) {
        if self.bytes + text.len() > MAX_WAITING {
            let (count, last) = self.dropped.entry(app).or_insert((0, time));
            (*count, *last) = (*count + 1, time);
            return;
        }
        let line = format!("{time_text} {source}: {}\n", shortened(text));
        self.bytes += line.len();
        self.lines.push_back((app, line));
        self.count += 1;
    }
}

impl Shared {
    /// All that waits, by app; none when the writer was closed and nothing is left.
    fn next_batch(&self) -> Option<BTreeMap<AppId, String>> {
        let mut queue = self.lock();
        self.settled.send_replace(queue.count - queue.lines.len() as u64);
        self.changed.notify_all();
        while queue.lines.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let (lines, dropped) = (std::mem::take(&mut queue.lines), std::mem::take(&mut queue.dropped));
        queue.bytes = 0;
        drop(queue);
        let mut batch = BTreeMap::<AppId, String>::new();
        for (app, line) in lines {
            batch.entry(app).or_default().push_str(&line);
        }
        for (app, (count, time)) in dropped {
            let source = LogSource::platform("logs");
            let line = format!("{} {source}: {count} lines were dropped: they came too fast\n", time.to_log_time());
            batch.entry(app).or_default().push_str(&line);
        }
        Some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shortened(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= MAX_LINE {
        return text.into();
    }
    let kept = (0..=MAX_LINE).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{} [{} bytes cut]", &text[..kept], text.len() - kept).into()
}

struct Files {
    root: PathBuf,
    name: String,
    limits: LogLimits,
    uses: u64,
    open: HashMap<AppId, Open>,
}

struct Open {
    file: File,
    number: u64,
    bytes: u64,
    used: u64,
}

impl Files {
    fn write(&mut self, batch: BTreeMap<AppId, String>) {
        for (app, text) in batch {
            if let Err(error) = self.append(app, &text) {
                // A full disk, most likely. What an app says must not stop what it does.
                let lines = text.matches('\n').count();
                tracing::warn!(%app, lines, %error, "log lines were lost");
                self.open.remove(&app);
            }
        }
    }

    fn append(&mut self, app: AppId, text: &str) -> io::Result<()> {
        self.uses += 1;
        for piece in pieces(text, self.limits.segment_bytes()) {
            let uses = self.uses;
            let open = self.segment(app, piece.len())?;
            open.used = uses;
            // Only whole lines: a reader goes as far as the last newline, and a torn line would merge with the next one.
            if let Err(error) = open.file.write_all(piece.as_bytes()) {
                // Cannot be mended if it fails too; the reader then sees one damaged line.
                let _ = open.file.set_len(open.bytes);
                return Err(error);
            }
            open.bytes += piece.len() as u64;
        }
        Ok(())
    }

    /// The segment that has room for `bytes` more.
    fn segment(&mut self, app: AppId, bytes: usize) -> io::Result<&mut Open> {
        let folder = self.root.join(app.to_string());
        let segment_bytes = self.limits.segment_bytes();
        let is_full = |open: &Open| open.bytes + bytes as u64 > segment_bytes;
        let number = match self.open.get(&app) {
            Some(open) if is_full(open) => open.number + 1,
            Some(open) => open.number,
            None => {
                std::fs::create_dir_all(&folder)?;
                match segments::list(&folder)?.get(&self.name).and_then(|own| own.last()) {
                    Some(last) if last.bytes + bytes as u64 > segment_bytes => last.number + 1,
                    Some(last) => last.number,
                    None => 1,
                }
            }
        };
        if self.open.get(&app).is_none_or(|open| open.number != number) {
            let path = segments::path(&folder, &self.name, number);
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            let bytes = file.metadata()?.len();
            self.make_room();
            self.open.insert(app, Open { file, number, bytes, used: self.uses });
            segments::prune(&folder, self.limits.app_bytes, segment_bytes)?;
        }
        self.open.get_mut(&app).ok_or_else(|| io::Error::other("the segment was closed"))
    }

    fn make_room(&mut self) {
        if self.open.len() < MAX_OPEN {
            return;
        }
        let oldest = self.open.iter().min_by_key(|(_, open)| open.used).map(|(app, _)| *app);
        if let Some(oldest) = oldest {
            self.open.remove(&oldest);
        }
    }
}

/// `text` in pieces of whole lines, each of at most `limit` bytes unless a line alone has more.
fn pieces(text: &str, limit: u64) -> impl Iterator<Item = &str> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = if rest.len() <= limit {
            rest.len()
        } else {
            let fitting = rest.as_bytes()[..limit].iter().rposition(|byte| *byte == b'\n');
            fitting.or_else(|| rest.find('\n')).map_or(rest.len(), |newline| newline + 1)
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}
