//! The files of one app's stream: their names, and which of them are there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One file of one writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) changed: SystemTime,
}

/// Segments by writer, the oldest first.
pub(super) type Segments = BTreeMap<String, Vec<Segment>>;

pub(super) fn path(folder: &Path, writer: &str, number: u64) -> PathBuf {
    // Ten digits: the order of names is the order of numbers, for people who look.
    folder.join(format!("{writer}-{number:010}.log"))
}

/// What lies in `folder`; nothing if there is no such folder.
pub(super) fn list(folder: &Path) -> io::Result<Segments> {
    let mut found = Segments::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Some((writer, number)) = entry.file_name().to_str().and_then(parse) else { continue };
        let metadata = match entry.metadata() {
            // Another writer made room in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let segment = Segment { number, bytes: metadata.len(), changed: metadata.modified()? };
        found.entry(writer).or_default().push(segment);
    }
    for segments in found.values_mut() {
        segments.sort_by_key(|segment| segment.number);
    }
    Ok(found)
}

fn parse(name: &str) -> Option<(String, u64)> {
    let (writer, number) = name.strip_suffix(".log")?.rsplit_once('-')?;
    Some((writer.to_owned(), number.parse().ok()?))
}

/// Deletes the oldest finished segments, whoever wrote them, until all of them have at most `limit` bytes when every
/// writer fills its present segment of `segment_bytes`. The present ones are never touched: their writers hold them open.
pub(super) fn prune(folder: &Path, limit: u64, segment_bytes: u64) -> io::Result<()> {
    let segments = list(folder)?;
    let mut total = segment_bytes.saturating_mul(u64::try_from(segments.len()).unwrap_or(u64::MAX));
    let mut finished = Vec::new();
    for (writer, segments) in &segments {
        let Some((_, old)) = segments.split_last() else { continue };
        for segment in old {
            total = total.saturating_add(segment.bytes);
            finished.push((segment.changed, writer, segment));
        }
    }
    finished.sort_by_key(|(changed, writer, segment)| (*changed, *writer, segment.number));
    for (_, writer, segment) in finished {
        if total <= limit {
            break;
        }
        match std::fs::remove_file(path(folder, writer, segment.number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => total -= segment.bytes,
        }
    }
    Ok(())
}
