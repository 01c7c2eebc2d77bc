//! Many rows by their keys, in few bytes each, which all workers read without a lock and one thread changes.
//!
//! Rows are in parts, chosen by a hash of the key. A part is one block behind an atomic pointer: the bytes of its rows one after another, and
//! where each begins. A change copies the blocks that it touches. What a row becomes once somebody uses it ("live") hangs beside its bytes: of a
//! million apps most have no request most of the time.

use std::hash::BuildHasher;
use std::iter;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use crate::pack::{Reader, number_length, put_number};

/// Of a million rows 500 in each, of ten thousand 5.
const PARTS: u64 = 2048;

pub(crate) struct Rows<T> {
    parts: Box<[ArcSwap<Block<T>>]>,
    hasher: RandomState,
}

/// Rows of one part, in the order of their hashes.
pub(crate) struct Block<T> {
    index: Box<[Entry]>,
    bytes: Box<[u8]>,
    /// What is live of each row, once anything is.
    live: OnceLock<Box<[OnceLock<Arc<T>>]>>,
}

struct Entry {
    /// Half of the hash.
    hash: u32,
    /// Where the row is.
    at: u32,
    /// The last update that said it, or that it stays.
    told: AtomicU32,
}

/// What is to become of some rows; the last word counts.
#[derive(Default)]
pub(crate) struct Draft {
    bytes: Vec<u8>,
    changes: Vec<(usize, usize, Option<usize>)>,
}

impl Draft {
    /// Sets a row, or takes it away.
    pub(crate) fn set(&mut self, key: &[u8], row: Option<&[u8]>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(row.unwrap_or_default());
        self.changes.push((start, middle, row.map(|_| self.bytes.len())));
    }

    /// How much is in it.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    hash: u64,
    pub(crate) key: &'a [u8],
    pub(crate) row: Option<&'a [u8]>,
}

impl<T> Rows<T> {
    pub(crate) fn new() -> Self {
        let none = Arc::new(Block { index: Box::default(), bytes: Box::default(), live: OnceLock::new() });
        let parts = (0..PARTS).map(|_| ArcSwap::new(Arc::clone(&none))).collect();
        Self { parts, hasher: RandomState::default() }
    }

    /// Reads a row.
    pub(crate) fn read<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let hash = self.hash(key);
        let block = self.part(hash).load();
        block.find(hash, key).map(|at| read(block.row(at).1))
    }

    /// What is live of a row.
    pub(crate) fn live(&self, key: &[u8]) -> Option<Arc<T>> {
        let hash = self.hash(key);
        let block = self.part(hash).load();
        block.live_at(block.find(hash, key)?).map(Arc::clone)
    }

    /// What is live of a row, made of it if nothing is; none if there is no such row. Nobody may do anything else meanwhile that makes something
    /// live, or changes rows.
    pub(crate) fn liven(&self, key: &[u8], make: impl FnOnce(&[u8]) -> Option<Arc<T>>) -> Option<Arc<T>> {
        let hash = self.hash(key);
        let block = self.part(hash).load();
        let at = block.find(hash, key)?;
        if let Some(live) = block.live_at(at) {
            return Some(Arc::clone(live));
        }
        let new = make(block.row(at).1)?;
        let cells = block.live.get_or_init(|| block.index.iter().map(|_| OnceLock::new()).collect());
        Some(Arc::clone(cells[at].get_or_init(|| new)))
    }

    /// Notes that this update says a row as it is. False if it is not so.
    pub(crate) fn is_told(&self, key: &[u8], row: &[u8], update: u32) -> bool {
        let hash = self.hash(key);
        let block = self.part(hash).load();
        let at = block.find(hash, key).filter(|at| block.row(*at).1 == row);
        at.inspect(|at| block.index[*at].told.store(update, Ordering::Relaxed)).is_some()
    }

    /// Notes that a row stays as it is.
    pub(crate) fn keep(&self, key: &[u8], update: u32) {
        let hash = self.hash(key);
        let block = self.part(hash).load();
        if let Some(at) = block.find(hash, key) {
            block.index[at].told.store(update, Ordering::Relaxed);
        }
    }

    /// The last update that told a row.
    pub(crate) fn told(&self, key: &[u8]) -> Option<u32> {
        let hash = self.hash(key);
        let block = self.part(hash).load();
        block.find(hash, key).map(|at| block.index[at].told.load(Ordering::Relaxed))
    }

    /// Keys of all rows that this update did not tell.
    pub(crate) fn untold(&self, update: u32) -> Vec<Box<[u8]>> {
        let mut keys = Vec::new();
        for block in self.blocks() {
            let untold = |at: &usize| block.index[*at].told.load(Ordering::Relaxed) != update;
            keys.extend((0..block.index.len()).filter(untold).map(|at| block.row(at).0.into()));
        }
        keys
    }

    /// All rows, each as it is when its turn comes.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Arc<Block<T>>> {
        self.parts.iter().map(ArcSwap::load_full)
    }

    /// Everything that is live, with its key and its row.
    pub(crate) fn all_live(&self, mut each: impl FnMut(&[u8], &[u8], &Arc<T>)) {
        for block in self.blocks() {
            for (at, live) in block.live.get().into_iter().flatten().enumerate() {
                let (key, row) = block.row(at);
                live.get().into_iter().for_each(|live| each(key, row, live));
            }
        }
    }

    /// Makes the changes, one part after another. `part` is called for each, to make sure of what [`Rows::liven`] wants and to say how what is
    /// live of a row goes on.
    pub(crate) fn change(&self, draft: &Draft, update: u32, mut part: impl FnMut(&mut dyn FnMut(Turn<'_, T>))) {
        let mut changes: Vec<Change<'_>> = draft.changes.iter().map(|change| self.change_of(draft, *change)).collect();
        changes.sort_by_key(|change| (change.hash % PARTS, tag(change.hash)));
        for changes in changes.chunk_by(|a, b| a.hash % PARTS == b.hash % PARTS) {
            part(&mut |turn| self.change_part(changes, update, turn));
        }
    }

    fn change_of<'a>(&self, draft: &'a Draft, (start, middle, end): (usize, usize, Option<usize>)) -> Change<'a> {
        let key = &draft.bytes[start..middle];
        Change { hash: self.hash(key), key, row: end.map(|end| &draft.bytes[middle..end]) }
    }

    fn change_part(&self, changes: &[Change<'_>], update: u32, turn: Turn<'_, T>) {
        let part = self.part(changes[0].hash);
        let old = part.load_full();
        let changes_of = |hash: u32| {
            let from = changes.partition_point(|change| tag(change.hash) < hash);
            changes[from..].iter().take_while(move |change| tag(change.hash) == hash)
        };
        let mut new = Vec::with_capacity(old.index.len() + changes.len());
        for (at, entry) in old.index.iter().enumerate() {
            let (key, row) = old.row(at);
            if !changes_of(entry.hash).any(|change| change.key == key) {
                let told = entry.told.load(Ordering::Relaxed);
                new.push((entry.hash, key, row, told, old.live_at(at).map(Arc::clone)));
            }
        }
        for (number, change) in changes.iter().enumerate() {
            let hash = tag(change.hash);
            if changes[number + 1..].iter().take_while(|it| tag(it.hash) == hash).any(|later| later.key == change.key) {
                continue;
            }
            let at = old.find(change.hash, change.key);
            let live = turn(change, at.map(|at| old.row(at).1), at.and_then(|at| old.live_at(at)));
            new.extend(change.row.map(|row| (hash, change.key, row, update, live)));
        }
        new.sort_by_key(|(hash, ..)| *hash);
        part.store(Arc::new(Block::new(new)));
    }

    /// Bytes that rows take. Each part takes a hundred more, which is nothing if there are many.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        let cell = size_of::<OnceLock<Arc<T>>>();
        let size = |block: &Arc<Block<T>>| {
            block.bytes.len() + size_of_val(&*block.index) + block.live.get().map_or(0, |cells| cells.len() * cell)
        };
        self.blocks().map(|block| size(&block)).sum()
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    #[inline]
    fn part(&self, hash: u64) -> &ArcSwap<Block<T>> {
        &self.parts[usize::try_from(hash % PARTS).unwrap_or_default()]
    }
}

/// Says, of a change, the row before and what was live of it, what is live of the row after.
pub(crate) type Turn<'a, T> = &'a mut dyn FnMut(&Change<'_>, Option<&[u8]>, Option<&Arc<T>>) -> Option<Arc<T>>;

/// What is known of a row in a block that is being made: hash, key, row, update, what is live.
type Line<'a, T> = (u32, &'a [u8], &'a [u8], u32, Option<Arc<T>>);

/// The half of a hash that does not choose the part.
#[inline]
fn tag(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or_default()
}

impl<T> Block<T> {
    fn new(lines: Vec<Line<'_, T>>) -> Self {
        let put = |part: &[u8]| part.len() + number_length(part.len() as u64);
        let size = lines.iter().map(|(_, key, row, ..)| put(key) + put(row)).sum();
        let (mut index, mut bytes) = (Vec::with_capacity(lines.len()), Vec::with_capacity(size));
        for (hash, key, row, told, _) in &lines {
            let at = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            index.push(Entry { hash: *hash, at, told: AtomicU32::new(*told) });
            for part in [key, row] {
                put_number(&mut bytes, part.len() as u64);
                bytes.extend_from_slice(part);
            }
        }
        let live = OnceLock::new();
        if lines.iter().any(|(.., live)| live.is_some()) {
            live.get_or_init(|| {
                lines.into_iter().map(|(.., live)| live.map_or_else(OnceLock::new, OnceLock::from)).collect()
            });
        }
        Self { index: index.into(), bytes: bytes.into(), live }
    }

    /// Its rows with their keys.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..self.index.len()).map(|at| self.row(at))
    }

    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let hash = tag(hash);
        let first = self.index.partition_point(|entry| entry.hash < hash);
        let same = iter::zip(first.., &self.index[first..]).take_while(|(_, entry)| entry.hash == hash);
        same.map(|(at, _)| at).find(|at| self.row(*at).0 == key)
    }

    fn row(&self, at: usize) -> (&[u8], &[u8]) {
        let mut from = Reader(&self.bytes[self.index[at].at as usize..]);
        let mut part = || {
            let length = usize::try_from(from.number()?).ok()?;
            from.bytes(length)
        };
        (part().unwrap_or_default(), part().unwrap_or_default())
    }

    #[inline]
    fn live_at(&self, at: usize) -> Option<&Arc<T>> {
        self.live.get()?[at].get()
    }
}
