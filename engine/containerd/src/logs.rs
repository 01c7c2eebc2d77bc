//! Output of containers. The shim appends it to a file, so that no other process must live for an app to go on writing; here
//! the file is followed, and the space of what was read is given back to the disk.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use inotify::{Inotify, WatchDescriptor, WatchMask, Watches};
use model::{AppId, Clock, LogSink, LogSource};
use nix::fcntl::{FallocateFlags, fallocate};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Longer lines are split, as Heroku does.
const LINE_LIMIT: usize = 10_000;
/// A reader that is further behind skips to the newest output: the disk must not fill with what nobody will read.
const BACKLOG_LIMIT: u64 = 64 << 20;
/// What a reader that skipped still shows, in bytes.
const BACKLOG_KEPT: u64 = 1 << 20;
/// Read output is given back to the disk in pieces of this many bytes.
const PIECE: u64 = 1 << 20;
/// Space that is kept ready for output not written yet. The shim stops for good at the first write that finds no space, and
/// then the app waits for ever to be read: a full disk must not come to that.
const RESERVE: u64 = 2 * PIECE;

type Readers = Arc<Mutex<HashMap<WatchDescriptor, Arc<Notify>>>>;

/// Wakes the readers of files that grew.
pub(crate) struct Watcher {
    watches: Watches,
    readers: Readers,
}

impl Watcher {
    /// Must be called within the runtime that it shall work in.
    pub(crate) fn start() -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let watches = inotify.watches();
        let readers = Readers::default();
        let mut events = inotify.into_event_stream([0; 4096])?;
        tokio::spawn({
            let readers = Arc::clone(&readers);
            async move {
                while let Some(event) = events.next().await {
                    let Ok(event) = event else { continue };
                    if let Some(reader) = lock(&readers).get(&event.wd) {
                        reader.notify_one();
                    }
                }
            }
        });
        Ok(Self { watches, readers })
    }

    /// Follows the file at `path` until `ended` is cancelled and all was read.
    pub(crate) fn follow(&self, path: &Path, position: u64, ended: CancellationToken) -> io::Result<Output> {
        let file = File::options().read(true).write(true).open(path)?;
        let descriptor = self.watches.clone().add(path, WatchMask::MODIFY)?;
        let grown = Arc::new(Notify::new());
        lock(&self.readers).insert(descriptor.clone(), Arc::clone(&grown));
        let watch = Watch { descriptor, watches: self.watches.clone(), readers: Arc::clone(&self.readers) };
        let output = Output { file, position, freed: position / PIECE * PIECE, grown, ended, _watch: watch };
        output.reserve();
        Ok(output)
    }
}

struct Watch {
    descriptor: WatchDescriptor,
    watches: Watches,
    readers: Readers,
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.readers).remove(&self.descriptor);
        // Fails if the file was removed, which ended the watch already.
        let _ = self.watches.remove(self.descriptor.clone());
    }
}

fn lock(readers: &Readers) -> std::sync::MutexGuard<'_, HashMap<WatchDescriptor, Arc<Notify>>> {
    readers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that is read while it is written.
pub(crate) struct Output {
    file: File,
    position: u64,
    freed: u64,
    grown: Arc<Notify>,
    ended: CancellationToken,
    _watch: Watch,
}

impl Output {
    /// Reads what is there, or waits until something is; 0 once the writer ended and all was read.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let ended = self.ended.is_cancelled();
            // From the page cache, where the shim put it a moment ago.
            let length = self.file.read_at(buffer, self.position)?;
            if length > 0 {
                self.position += length as u64;
                self.free();
                return Ok(length);
            }
            if ended {
                return Ok(0);
            }
            tokio::select! {
                () = self.grown.notified() => {}
                () = self.ended.cancelled() => {}
            }
        }
    }

    /// Skips to the newest output if the reader is too far behind; true if it did.
    fn skip_backlog(&mut self) -> bool {
        let length = self.file.metadata().map_or(0, |meta| meta.len());
        let skip = length.saturating_sub(self.position) > BACKLOG_LIMIT;
        if skip {
            self.position = length - BACKLOG_KEPT;
            self.free();
        }
        skip
    }

    /// Punches a hole where output was read, and reserves as much for what comes. The file keeps its length, so appending goes on.
    fn free(&mut self) {
        let read = self.position / PIECE * PIECE;
        if read > self.freed {
            self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, self.freed, read - self.freed);
            self.freed = read;
            self.reserve();
        }
    }

    fn reserve(&self) {
        self.allocate(FallocateFlags::empty(), self.freed, RESERVE);
    }

    /// A file system that cannot do this keeps all output until the instance ends, and has nothing ready on a full disk.
    fn allocate(&self, flags: FallocateFlags, start: u64, length: u64) {
        if let (Ok(start), Ok(length)) = (i64::try_from(start), i64::try_from(length)) {
            let _ = fallocate(&self.file, flags | FallocateFlags::FALLOC_FL_KEEP_SIZE, start, length);
        }
    }
}

/// Where the last life of this role stopped reading.
pub(crate) fn saved_offset(path: &Path) -> u64 {
    std::fs::read(path).ok().and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Where output goes, and what it is told of there.
pub(crate) struct Stream {
    pub(crate) log: Arc<dyn LogSink>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) app: AppId,
    pub(crate) source: LogSource,
}

/// Hands the output line by line to `stream`, and remembers at `offset` how far it came: after a crash of this role no line is missing, and
/// at most the last few come twice.
pub(crate) async fn forward(mut output: Output, offset: &Path, stream: Stream) {
    let sink = |line: &str| stream.log.write(stream.app, stream.clock.now(), &stream.source, line);
    let Ok(offset) = File::options().write(true).create(true).truncate(false).open(offset) else { return };
    let mut buffer = vec![0; 64 << 10];
    let mut lines = Lines::default();
    loop {
        if output.skip_backlog() {
            lines = Lines::default();
            sink("Error L10 (output buffer overflow): output was dropped because it came faster than it could be kept");
        }
        match output.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => lines.take(&buffer[..length], &sink),
        }
        let taken = output.position - lines.rest.len() as u64;
        stream.log.kept().await;
        // Losing this costs a few repeated lines, no more.
        let _ = offset.write_all_at(&taken.to_le_bytes(), 0);
    }
    if !lines.rest.is_empty() {
        lines.finish(&sink);
    }
}

/// Cuts bytes into lines.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], sink: &impl Fn(&str)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.ends_with(b"\n") {
                self.rest.pop();
                self.finish(sink);
            } else {
                while self.rest.len() > LINE_LIMIT {
                    let tail = self.rest.split_off(character_boundary(&self.rest, LINE_LIMIT));
                    self.finish(sink);
                    self.rest = tail;
                }
            }
        }
    }

    fn finish(&mut self, sink: &impl Fn(&str)) {
        let mut line = self.rest.as_slice();
        while line.len() > LINE_LIMIT {
            let (head, tail) = line.split_at(character_boundary(line, LINE_LIMIT));
            sink(&String::from_utf8_lossy(head));
            line = tail;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        sink(&String::from_utf8_lossy(line));
        self.rest.clear();
    }
}

/// The last place at or before `limit` where no UTF-8 character is cut in two.
fn character_boundary(bytes: &[u8], limit: usize) -> usize {
    let is_start = |&place: &usize| bytes[place] & 0b1100_0000 != 0b1000_0000;
    (limit.saturating_sub(3)..=limit).rev().find(is_start).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;
    use std::pin::Pin;

    use model::Timestamp;
    use model::clock::{SystemClock, SystemRandom};
    use tokio::sync::Semaphore;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<String> {
        let lines = RefCell::new(Vec::new());
        let sink = |line: &str| lines.borrow_mut().push(line.to_owned());
        let mut cutter = Lines::default();
        for piece in pieces {
            cutter.take(piece, &sink);
        }
        if !cutter.rest.is_empty() {
            cutter.finish(&sink);
        }
        lines.into_inner()
    }

    /// A log that tells of each line, and keeps none before it may.
    struct Lazy {
        lines: UnboundedSender<String>,
        may_keep: Arc<Semaphore>,
    }

    impl LogSink for Lazy {
        fn write(&self, _: AppId, _: Timestamp, _: &LogSource, line: &str) {
            self.lines.send(line.to_owned()).expect("a listener");
        }

        fn kept(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(async { self.may_keep.acquire().await.expect("open").forget() })
        }
    }

    fn stream(lines: UnboundedSender<String>, may_keep: usize) -> (Stream, Arc<Semaphore>) {
        let may_keep = Arc::new(Semaphore::new(may_keep));
        let log = Arc::new(Lazy { lines, may_keep: Arc::clone(&may_keep) });
        let app = AppId::random(&SystemRandom);
        (Stream { log, clock: Arc::new(SystemClock), app, source: LogSource::app("web.1") }, may_keep)
    }

    #[test]
    fn lines_arrive_whole_and_long_ones_in_parts() {
        assert_eq!(cut(&[b"a\nb", b"c\r\n\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(cut(&[b"\xff\n"]), ["\u{fffd}"]);
        let long = "é".repeat(8000);
        let parts = cut(&[long.as_bytes()]);
        assert_eq!(parts.iter().map(String::len).collect::<Vec<_>>(), [10_000, 6_000]);
        assert_eq!(parts.concat(), long);
        let odd = format!("x{long}");
        assert_eq!(cut(&[odd.as_bytes(), b"\n"]).concat(), odd, "no character is cut in two");
    }

    #[tokio::test]
    async fn a_reader_sees_what_is_appended_and_gives_the_space_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, offset) = (folder.path().join("output"), folder.path().join("offset"));
        let mut file = File::options().append(true).create(true).open(&path).expect("a file");
        file.write_all(b"one\n").expect("written");
        let ended = CancellationToken::new();
        let watcher = Watcher::start().expect("inotify");
        let output = watcher.follow(&path, 0, ended.clone()).expect("followed");
        let (sender, mut lines) = unbounded_channel();
        let reader = tokio::spawn({
            let offset = offset.clone();
            let (stream, _) = stream(sender, Semaphore::MAX_PERMITS);
            async move { forward(output, &offset, stream).await }
        });
        assert_eq!(lines.recv().await.as_deref(), Some("one"));
        let line = "x".repeat(1023) + "\n";
        file.write_all(line.repeat(5 << 10).as_bytes()).expect("written");
        for _ in 0..5 << 10 {
            assert_eq!(lines.recv().await.map(|line| line.len()), Some(1023));
        }
        file.write_all(b"last, without a newline").expect("written");
        ended.cancel();
        assert_eq!(lines.recv().await.as_deref(), Some("last, without a newline"));
        reader.await.expect("the reader ends");
        let meta = std::fs::metadata(&path).expect("the file");
        let taken = meta.blocks() * 512;
        assert!((RESERVE..meta.len()).contains(&taken), "{taken}: read output takes no space, the next has its own");
        assert_eq!(saved_offset(&offset), meta.len() - "last, without a newline".len() as u64);
    }

    #[tokio::test]
    async fn what_is_not_kept_yet_is_read_again_by_the_next_life() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, offset) = (folder.path().join("output"), folder.path().join("offset"));
        let mut file = File::options().append(true).create(true).open(&path).expect("a file");
        let watcher = Watcher::start().expect("inotify");
        let (sender, mut lines) = unbounded_channel();
        let (stream, may_keep) = stream(sender, 1);
        file.write_all(b"one\n").expect("written");
        let output = watcher.follow(&path, 0, CancellationToken::new()).expect("followed");
        let reader = tokio::spawn({
            let offset = offset.clone();
            async move { forward(output, &offset, stream).await }
        });
        assert_eq!(lines.recv().await.as_deref(), Some("one"));
        file.write_all(b"two\n").expect("written");
        assert_eq!(lines.recv().await.as_deref(), Some("two"));
        reader.abort();
        assert!(reader.await.is_err() && may_keep.available_permits() == 0);
        assert_eq!(saved_offset(&offset), 4, "the log never said that it has the second line");
    }
}
