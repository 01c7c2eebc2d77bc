//! Where answers are kept: one place for the whole router, which bounds what all of them take, and in it a cache for each workload that an app
//! has now. What an earlier release said leaves with its workload.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::StatusCode;
use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderName};
use model::Timestamp;
use quick_cache::sync::{Cache as Slots, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::flight::Flights;
use super::rules::Allowed;

/// What a slot takes besides its key and what it holds.
const OVERHEAD: u64 = 512;
/// The usual answer, for an estimate of how many there will be.
const USUAL: u64 = 16 << 10;
/// How often room is looked for before an answer is not kept.
const TRIES: usize = 8;

/// What all caches of a router have in common.
pub(crate) struct Store {
    limit: AtomicU64,
    used: AtomicU64,
    caches: Mutex<Vec<Weak<Cache>>>,
    /// Numbers what happens.
    moments: AtomicU64,
}

impl Store {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        let (limit, used, moments) = (limit.into(), AtomicU64::new(0), AtomicU64::new(1));
        Arc::new(Self { limit, used, caches: Mutex::default(), moments })
    }

    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A number for this moment. Later ones are larger.
    pub(super) fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }

    /// Takes so many bytes of what there is for all; none if they are not to be had.
    pub(super) fn charge(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        let mut charge = Charge { store: Arc::clone(self), bytes: 0 };
        charge.grow(bytes).then_some(charge)
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Has the largest cache forget so many bytes.
    fn make_room(&self, bytes: u64) {
        let mut caches = lock(&self.caches);
        caches.retain(|cache| cache.strong_count() > 0);
        let all: Vec<Arc<Cache>> = caches.iter().filter_map(Weak::upgrade).collect();
        drop(caches);
        if let Some(largest) = all.iter().max_by_key(|cache| cache.slots.weight()) {
            largest.shrink(bytes);
        }
    }
}

/// A part of what there is for all, given back in the end.
pub(super) struct Charge {
    store: Arc<Store>,
    bytes: u64,
}

impl Charge {
    /// Takes more; false if it is not to be had.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let mut is_there = self.store.take(bytes);
        for _ in 0..TRIES {
            if is_there {
                break;
            }
            self.store.make_room(bytes);
            is_there = self.store.take(bytes);
        }
        self.bytes += if is_there { bytes } else { 0 };
        is_there
    }

    /// Gives back what is more than so many bytes.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        self.store.used.fetch_sub(less, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.store.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An answer that is kept.
pub(crate) struct Entry {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Arc<Kept>,
    /// When it came, and how old it was then.
    pub(super) came: Timestamp,
    pub(super) age: Duration,
    pub(super) allowed: Allowed,
}

/// A body, and what it takes.
pub(super) struct Kept {
    pub(super) bytes: Bytes,
    #[expect(dead_code, reason = "given back with the body")]
    pub(super) charge: Charge,
}

impl Entry {
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        self.age + now.since(self.came)
    }

    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        self.age(now) < self.allowed.lifetime
    }

    /// Whether it is not too late by more than `window`.
    pub(super) fn is_within(&self, window: Duration, now: Timestamp) -> bool {
        self.age(now) < self.allowed.lifetime + window
    }

    pub(super) fn weight(headers: &HeaderMap, length: u64) -> u64 {
        let line = |(name, value): (&HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 64;
        OVERHEAD + length + headers.iter().map(line).sum::<usize>() as u64
    }
}

/// What a key leads to.
#[derive(Clone)]
enum Slot {
    Answer(Arc<Entry>, u64),
    /// Answers differ by headers of their requests, and are found by another key.
    Varies(Arc<Varies>),
    /// What came last may not be kept: until then nobody waits for another one's answer.
    Passes(Timestamp),
    /// Something changed at this moment: what was asked for earlier is not kept.
    Changed(u64),
}

struct Varies {
    names: Vec<HeaderName>,
    /// When it came to be; a part of the keys, so that answers from before it are never found.
    moment: u64,
}

impl Varies {
    fn key(&self, primary: &[u8], request: &HeaderMap) -> Box<[u8]> {
        let mut key = primary.to_vec();
        key.extend_from_slice(format!("\n{}", self.moment).as_bytes());
        for name in &self.names {
            key.push(b'\n');
            for value in request.get_all(name) {
                // No value has this byte.
                key.push(1);
                match value.to_str() {
                    Ok(text) if name == ACCEPT_ENCODING => key.extend_from_slice(sorted(text).as_bytes()),
                    _ => key.extend_from_slice(value.as_bytes()),
                }
            }
        }
        key.into()
    }
}

/// The same codings in one order: browsers have many.
fn sorted(text: &str) -> String {
    let text = text.to_ascii_lowercase().replace([' ', '\t'], "");
    let mut items: Vec<&str> = text.split(',').collect();
    items.sort_unstable();
    items.join(",")
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Box<[u8]>, Slot> for Weigh {
    fn weight(&self, key: &Box<[u8]>, slot: &Slot) -> u64 {
        let held = match slot {
            Slot::Answer(entry, _) => Entry::weight(&entry.headers, entry.body.bytes.len() as u64),
            _ => OVERHEAD,
        };
        held + key.len() as u64
    }
}

type Answers = Slots<Box<[u8]>, Slot, Weigh, RandomState, DefaultLifecycle<Box<[u8]>, Slot>>;

/// What came of an answer that is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Kept,
    /// Something changed since it was asked for.
    Outdated,
    /// It is larger than the cache.
    NoRoom,
}

/// What is known of an address.
pub(super) struct Found {
    /// Under which answers to this request are.
    pub(super) key: Box<[u8]>,
    pub(super) entry: Option<Arc<Entry>>,
    /// Answers for the address are here, to other requests.
    pub(super) is_variant: bool,
    /// Nobody is to wait for another one's answer.
    pub(super) passes: bool,
}

/// Answers of one workload.
pub(crate) struct Cache {
    store: Arc<Store>,
    slots: Answers,
    size: AtomicU64,
    /// Held by who looks at a slot and then changes it.
    writing: Mutex<()>,
    pub(super) flights: Flights,
}

impl Cache {
    pub(super) fn new(store: &Arc<Store>, size: u64) -> Option<Arc<Self>> {
        let items = usize::try_from(size / USUAL).unwrap_or(usize::MAX).clamp(64, 1 << 20);
        // One part, so that the largest answer has room in it; it is read under a lock for reading alone.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(items)
            .weight_capacity(size.max(1))
            .build()
            .ok()?;
        let slots = Slots::with_options(options, Weigh, RandomState::default(), DefaultLifecycle::default());
        let (size, writing, flights) = (AtomicU64::new(size.max(1)), Mutex::default(), Flights::default());
        let cache = Arc::new(Self { store: Arc::clone(store), slots, size, writing, flights });
        lock(&store.caches).push(Arc::downgrade(&cache));
        Some(cache)
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(super) fn resize(&self, size: u64) {
        if self.size.swap(size.max(1), Ordering::Relaxed) != size.max(1) {
            self.slots.set_capacity(size.max(1));
        }
    }

    fn shrink(&self, bytes: u64) {
        let _writing = lock(&self.writing);
        self.slots.set_capacity(self.slots.weight().saturating_sub(bytes).max(1));
        self.slots.set_capacity(self.size.load(Ordering::Relaxed));
    }

    pub(super) fn find(&self, primary: &[u8], request: &HeaderMap, now: Timestamp) -> Found {
        let mut found = Found { key: primary.into(), entry: None, is_variant: false, passes: false };
        let mut slot = self.slots.get(primary);
        if let Some(Slot::Varies(varies)) = slot {
            found.key = varies.key(primary, request);
            found.is_variant = true;
            slot = self.slots.get(&found.key);
        }
        match slot {
            Some(Slot::Answer(entry, _)) => found.entry = Some(entry),
            Some(Slot::Passes(until)) => found.passes = now < until,
            Some(Slot::Varies(_) | Slot::Changed(_)) | None => {}
        }
        found
    }

    /// Most bytes that one answer can have.
    pub(super) fn most(&self) -> u64 {
        self.size.load(Ordering::Relaxed).saturating_sub(2 * OVERHEAD)
    }

    /// Keeps an answer that was asked for at this moment, unless something changed since. `request` says which of those it is by which answers
    /// differ.
    pub(super) fn put(
        &self,
        (primary, asked): (&[u8], u64),
        (names, request): (&[HeaderName], &HeaderMap),
        entry: &Arc<Entry>,
    ) -> Put {
        let _writing = lock(&self.writing);
        let before = self.slots.peek(primary);
        if before.as_ref().is_some_and(|slot| slot.moment() > asked) {
            return Put::Outdated;
        }
        let slot = Slot::Answer(Arc::clone(entry), asked);
        if names.is_empty() {
            return self.insert(primary, slot);
        }
        let varies = match before {
            Some(Slot::Varies(varies)) if varies.names == names => varies,
            _ => {
                let varies = Arc::new(Varies { names: names.to_vec(), moment: asked });
                self.slots.insert(primary.into(), Slot::Varies(Arc::clone(&varies)));
                varies
            }
        };
        let key = varies.key(primary, request);
        if self.slots.peek(&key).is_some_and(|slot| slot.moment() > asked) {
            return Put::Outdated;
        }
        self.insert(&key, slot)
    }

    fn insert(&self, key: &[u8], slot: Slot) -> Put {
        self.slots.insert(key.into(), slot);
        if self.slots.contains_key(key) { Put::Kept } else { Put::NoRoom }
    }

    /// Notes that what came under this key may not be kept.
    pub(super) fn pass(&self, key: &[u8], until: Timestamp) {
        let _writing = lock(&self.writing);
        if !matches!(self.slots.peek(key), Some(Slot::Changed(_) | Slot::Varies(_))) {
            self.slots.insert(key.into(), Slot::Passes(until));
        }
    }

    /// Forgets all answers for an address.
    pub(super) fn forget(&self, primary: &[u8]) {
        let _writing = lock(&self.writing);
        self.slots.insert(primary.into(), Slot::Changed(self.store.moment()));
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> u64 {
        self.slots.weight()
    }
}

impl Slot {
    /// What was asked for before it does not take its place.
    fn moment(&self) -> u64 {
        match self {
            Self::Answer(_, moment) | Self::Changed(moment) => *moment,
            Self::Varies(varies) => varies.moment,
            Self::Passes(_) => 0,
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one, and what it guards is whole at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
