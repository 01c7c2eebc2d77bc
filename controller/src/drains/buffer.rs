//! Lines that wait for a receiver.

use std::collections::VecDeque;

use model::Timestamp;

/// Bytes that wait for one receiver at most; when there are more, the oldest lines go.
const MAX_WAITING: usize = 4 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    lines: VecDeque<String>,
    bytes: usize,
    dropped: Option<Dropped>,
}

/// Lines that were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) count: u64,
    /// When the first of them was.
    pub(super) since: Timestamp,
}

impl Buffer {
    /// Takes new lines, and drops old ones for which there is no room.
    pub(super) fn push(&mut self, lines: Vec<String>, now: Timestamp) {
        for line in lines {
            self.bytes += line.len();
            self.lines.push_back(line);
        }
        let mut count = 0;
        while self.bytes > MAX_WAITING {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= line.len();
            count += 1;
        }
        self.drop_more(count, now);
    }

    /// Counts lines that nobody will get.
    pub(super) fn drop_more(&mut self, count: u64, now: Timestamp) {
        if count > 0 {
            let dropped = self.dropped.get_or_insert(Dropped { count: 0, since: now });
            dropped.count += count;
        }
    }

    /// The oldest lines, up to `bytes` of them but at least one, and what was dropped before them.
    pub(super) fn take(&mut self, bytes: usize) -> (Vec<String>, Option<Dropped>) {
        let mut taken = Vec::new();
        let mut size = 0;
        while let Some(line) = self.lines.front() {
            if !taken.is_empty() && size + line.len() > bytes {
                break;
            }
            size += line.len();
            taken.extend(self.lines.pop_front());
        }
        self.bytes -= size;
        (taken, self.dropped.take())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go_and_are_counted() {
        let now = Timestamp::from_millis(7);
        let mut buffer = Buffer::default();
        let line = |number: usize| format!("{number:>1024}");
        buffer.push((0..4102).map(line).collect(), now);
        let (lines, dropped) = buffer.take(2048);
        assert_eq!((&lines[..], dropped), (&[line(6), line(7)][..], Some(Dropped { count: 6, since: now })));
        let (lines, dropped) = buffer.take(1);
        assert_eq!((lines.len(), dropped), (1, None), "a line that is too long alone goes alone");
        buffer.take(usize::MAX);
        assert!(buffer.is_empty());
        buffer.drop_more(1, now);
        assert!(!buffer.is_empty());
    }
}
