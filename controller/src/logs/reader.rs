//! Reads an app's stream: the last lines of it, and what comes after them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use model::AppId;
use serde::{Deserialize, Serialize};

use super::segments::{self, Segments};

/// Characters of the time that begins a line. All times have the same width: their order as text is their order.
const TIME: usize = 32;

/// Which lines to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// `app` or `heroku`.
    pub source: Option<String>,
    /// A dyno (`web.1`), all dynos of a process type (`web`), or a part of the platform (`router`, `api`); several, with commas.
    pub process: Option<String>,
}

impl Filter {
    fn admits(&self, line: &str) -> bool {
        let Some((source, process)) = origin(line) else { return false };
        self.source.as_deref().is_none_or(|wanted| wanted == source)
            && self.process.as_deref().is_none_or(|wanted| {
                let is =
                    |wanted| process.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
                wanted.split(',').any(is)
            })
    }
}

/// `app` and `web.1` of a line; none if it is not whole.
fn origin(line: &str) -> Option<(&str, &str)> {
    let (source, rest) = line.get(TIME + 1..)?.split_once('[')?;
    Some((source, rest.split_once(']')?.0))
}

/// The streams under one root.
#[derive(Debug, Clone)]
pub struct Reader {
    root: PathBuf,
}

impl Reader {
    /// Of what [`super::Writer`]s write under `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The last `count` lines that `filter` admits, in the order of their times, and what follows them. Reads files: not
    /// for a thread that serves others.
    pub fn last(&self, app: AppId, count: usize, filter: Filter) -> io::Result<(Vec<String>, Tail)> {
        let folder = self.root.join(app.to_string());
        let segments = segments::list(&folder)?;
        let mut lines = Vec::new();
        let mut positions = BTreeMap::new();
        for (writer, own) in &segments {
            let mut of_writer = Vec::new();
            for segment in own.iter().rev() {
                let text = read(&segments::path(&folder, writer, segment.number), 0)?.unwrap_or_default();
                positions
                    .entry(writer.clone())
                    .or_insert(Position { number: segment.number, offset: text.len() as u64 });
                let mut found: Vec<String> =
                    text.lines().filter(|line| filter.admits(line)).map(str::to_owned).collect();
                found.append(&mut of_writer);
                of_writer = found;
                if of_writer.len() >= count {
                    break;
                }
            }
            lines.extend(of_writer);
        }
        sort(&mut lines);
        lines.drain(..lines.len().saturating_sub(count));
        Ok((lines, Tail { folder, filter, positions }))
    }

    /// Everything that comes after a place in the stream.
    pub fn resume(&self, app: AppId, Marks(positions): Marks) -> Tail {
        Tail { folder: self.root.join(app.to_string()), filter: Filter::default(), positions }
    }

    /// Removes an app's stream.
    pub fn delete(&self, app: AppId) -> io::Result<()> {
        match std::fs::remove_dir_all(self.root.join(app.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Sorts by time; lines of the same moment stay in the order in which they were written.
fn sort(lines: &mut [String]) {
    lines.sort_by(|a, b| a.get(..TIME).cmp(&b.get(..TIME)));
}

/// What comes next in a stream.
#[derive(Debug, Clone)]
pub struct Tail {
    folder: PathBuf,
    filter: Filter,
    positions: BTreeMap<String, Position>,
}

/// A place in a stream, to come back to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Marks(BTreeMap<String, Position>);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Position {
    number: u64,
    offset: u64,
}

impl Tail {
    /// The lines that came since the last call, in the order of their times. Costs a look at the folder when there are none.
    pub fn poll(&mut self) -> io::Result<Vec<String>> {
        let segments = segments::list(&self.folder)?;
        let mut lines = Vec::new();
        for text in self.advance(&segments)? {
            lines.extend(text.lines().filter(|line| self.filter.admits(line)).map(str::to_owned));
        }
        sort(&mut lines);
        Ok(lines)
    }

    /// How far it is.
    pub fn marks(&self) -> Marks {
        Marks(self.positions.clone())
    }

    fn advance(&mut self, segments: &Segments) -> io::Result<Vec<String>> {
        let mut news = Vec::new();
        for (writer, own) in segments {
            let first = own.first().map_or(0, |segment| segment.number);
            let position = self.positions.entry(writer.clone()).or_insert(Position { number: first, offset: 0 });
            let newest = own.last().map_or(0, |segment| segment.number);
            let begin = position.number;
            for segment in own.iter().filter(|segment| segment.number >= begin) {
                if segment.number > position.number {
                    *position = Position { number: segment.number, offset: 0 };
                }
                // The size is of a moment ago: one that has a successor by now may have grown since.
                if segment.bytes <= position.offset && segment.number == newest {
                    continue;
                }
                let path = segments::path(&self.folder, writer, segment.number);
                if let Some(text) = read(&path, position.offset)?.filter(|text| !text.is_empty()) {
                    position.offset += text.len() as u64;
                    news.push(text);
                }
            }
        }
        Ok(news)
    }
}

/// The whole lines of a file from `offset`; none if it is gone.
pub(crate) fn read(path: &Path, offset: u64) -> io::Result<Option<String>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    bytes.truncate(whole);
    // Only a damaged disk makes this lossy: writers write text.
    Ok(Some(String::from_utf8(bytes).unwrap_or_else(|error| {
        error.into_bytes().iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect()
    })))
}

#[cfg(test)]
mod tests {
    use model::{LogSink, LogSource, Timestamp};

    use super::super::{LogLimits, Writer};
    use super::*;

    fn app() -> AppId {
        "00000000-0000-4000-8000-000000000001".parse().expect("an id")
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_795_228_786_000 + millis)
    }

    fn texts(lines: &[String]) -> Vec<&str> {
        lines.iter().map(|line| line.split_once(": ").expect("a line").1).collect()
    }

    #[test]
    fn lines_of_all_writers_come_back_in_the_order_of_their_times() {
        let root = tempfile::tempdir().expect("a folder");
        let open = |name| Writer::open(root.path(), name, LogLimits::default()).expect("a writer");
        let (host, router) = (open("host"), open("router"));
        let (web, worker) = (LogSource::app("web.1"), LogSource::app("webhooks.1"));
        host.write(app(), at(0), &web, "one\ntwo \u{1b}[31mred");
        host.write(app(), at(30), &worker, "");
        router.write(app(), at(20), &LogSource::platform("router"), "at=info");
        host.flush();
        router.flush();

        let reader = Reader::new(root.path());
        let (lines, mut tail) = reader.last(app(), 10, Filter::default()).expect("readable");
        assert_eq!(lines[0], "2026-11-21T02:39:46.000000+00:00 app[web.1]: one");
        assert_eq!(texts(&lines), ["one", "two \u{1b}[31mred", "at=info", ""]);
        let of = |source: Option<&str>, process: Option<&str>| {
            let filter = Filter { source: source.map(str::to_owned), process: process.map(str::to_owned) };
            reader.last(app(), 10, filter).expect("readable").0.len()
        };
        assert_eq!((of(Some("app"), None), of(Some("heroku"), None), of(None, Some("router"))), (3, 1, 1));
        assert_eq!((of(None, Some("web")), of(None, Some("web.1")), of(None, Some("web.2"))), (2, 2, 0));

        assert_eq!(tail.poll().expect("readable"), [""; 0]);
        host.write(app(), at(50), &web, "later");
        open("controller").write(app(), at(40), &LogSource::app("api"), "Scaled");
        host.flush();
        assert_eq!(texts(&tail.poll().expect("readable")), ["Scaled", "later"]);
        reader.delete(app()).expect("deleted");
        assert_eq!(tail.poll().expect("readable"), [""; 0]);
    }

    #[tokio::test]
    async fn what_is_kept_stays_whoever_is_killed() {
        let root = tempfile::tempdir().expect("a folder");
        let reader = Reader::new(root.path());
        let writer = Writer::open(root.path(), "host", LogLimits::default()).expect("a writer");
        for line in 0..500 {
            writer.write(app(), at(line), &LogSource::app("web.1"), &line.to_string());
            writer.kept().await;
            let (lines, _) = reader.last(app(), 1, Filter::default()).expect("readable");
            assert_eq!(texts(&lines), [line.to_string()]);
        }
    }

    #[test]
    fn a_stream_stays_within_its_bounds_and_a_tail_misses_nothing_when_files_change() {
        let root = tempfile::tempdir().expect("a folder");
        let limits = LogLimits { app_bytes: 256 << 10 };
        let reader = Reader::new(root.path());
        let (_, mut tail) = reader.last(app(), 0, Filter::default()).expect("readable");
        let mut seen = 0;
        for round in 0..50 {
            // A new process every round goes on in the file of the one before.
            let writer = Writer::open(root.path(), "host", limits).expect("a writer");
            for line in 0..200 {
                let text = format!("{:05} {}", round * 200 + line, "x".repeat(50));
                writer.write(app(), at(i64::from(round)), &LogSource::app("web.1"), &text);
            }
            writer.flush();
            for line in tail.poll().expect("readable") {
                assert!(line.contains(&format!(": {seen:05} ")), "{line}");
                seen += 1;
            }
        }
        assert_eq!(seen, 10_000);
        let bytes: u64 = segments::list(&root.path().join(app().to_string()))
            .expect("readable")
            .values()
            .flatten()
            .map(|segment| segment.bytes)
            .sum();
        assert!((200 << 10..=256 << 10).contains(&bytes), "{bytes}");
        let (lines, _) = reader.last(app(), 500, Filter::default()).expect("readable");
        assert_eq!((lines.len(), lines[499].contains(": 09999 ")), (500, true));
    }

    #[test]
    fn a_long_line_is_cut_with_a_mark() {
        let root = tempfile::tempdir().expect("a folder");
        let writer = Writer::open(root.path(), "host", LogLimits::default()).expect("a writer");
        writer.write(app(), at(0), &LogSource::app("web.1"), &"ö".repeat(10_001));
        writer.flush();
        let (lines, _) = Reader::new(root.path()).last(app(), 1, Filter::default()).expect("readable");
        assert!(lines[0].ends_with("ö [10002 bytes cut]"), "{}", &lines[0][lines[0].len() - 30..]);
    }
}
