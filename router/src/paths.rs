//! Which paths of an app take most time: few of them, whatever clients ask for, and no query, which may hold secrets.
//!
//! Paths that differ by an id are one path. Of an app a worker remembers so many at once; one that is new then takes the place of the one that took
//! least time, and inherits how much that was (the space-saving sketch of Metwally and others): what takes much time is never missed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::RandomState;
use http::Method;
use model::AppId;
use model::traffic::{LATENCY_ENDS_MS, PathCount, latency_part};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use crate::traffic::News;

/// Workers hand over what they counted so often.
const INTERVAL: Duration = Duration::from_secs(5);
/// Paths of one app that a worker counts at once.
const OF_APP: usize = 64;
/// Paths of all apps that a worker counts at once; at 300 bytes each they take 2.5 MB.
const OF_ALL: usize = 8192;
/// Paths as they were asked for of which a worker remembers what they are called: most requests are for one that was asked for lately.
const LATELY: usize = 512;
/// Bytes of a method and a path that are told apart.
const LONGEST: usize = 128;
/// In the place of what differs from one request to the next.
const ID: &[u8] = b":id";

/// What one worker counted since it last handed it over.
#[derive(Default)]
pub(crate) struct Paths {
    apps: RefCell<HashMap<AppId, Sketch, RandomState>>,
    /// Nobody outside knows by what it hashes, so nobody can make two names be one.
    hasher: RandomState,
    /// By the hash of a method and a path: that hash, and the one of their name.
    lately: RefCell<Vec<(u64, u64)>>,
    /// Of all apps.
    slots: Cell<usize>,
    is_begun: Cell<bool>,
    begun: Notify,
}

/// The paths of one app.
#[derive(Default)]
struct Sketch {
    /// Of each slot the hash of its name: they lie close, for all are looked at.
    hashes: Vec<u64>,
    slots: Vec<Slot>,
}

struct Slot {
    name: Box<[u8]>,
    requests: u64,
    errors: u64,
    waited_us: u64,
    /// What it may have taken besides.
    missed_us: u64,
    latency: [u32; LATENCY_ENDS_MS.len() + 1],
}

/// One request, as far as it matters here.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) app: AppId,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) waited: Duration,
    pub(crate) failed: bool,
}

impl Paths {
    pub(crate) fn count(&self, asked: Asked<'_>) {
        let mut apps = self.apps.borrow_mut();
        let sketch = apps.entry(asked.app).or_default();
        let Some(index) = self.slot(sketch, &asked) else { return };
        let slot = &mut sketch.slots[index];
        slot.requests += 1;
        slot.errors += u64::from(asked.failed);
        slot.waited_us += u64::try_from(asked.waited.as_micros()).unwrap_or(0);
        slot.latency[latency_part(u64::try_from(asked.waited.as_millis()).unwrap_or(u64::MAX))] += 1;
        if !self.is_begun.replace(true) {
            self.begun.notify_one();
        }
    }

    /// Where a request is counted; none if there is no room at all.
    fn slot(&self, sketch: &mut Sketch, asked: &Asked<'_>) -> Option<usize> {
        let text = self.hasher.hash_one((asked.method.as_str(), asked.path));
        let mut lately = self.lately.borrow_mut();
        if lately.is_empty() {
            lately.resize(LATELY, (0, 0));
        }
        let place = usize::try_from(text % LATELY as u64).unwrap_or(0);
        if lately[place].0 == text
            && let Some(index) = sketch.known(lately[place].1)
        {
            return Some(index);
        }
        let name = Name::of(asked.method, asked.path);
        let hash = self.hasher.hash_one(name.bytes());
        lately[place] = (text, hash);
        sketch.known(hash).or_else(|| {
            let may_grow = sketch.slots.len() < OF_APP && self.slots.get() < OF_ALL;
            self.slots.set(self.slots.get() + usize::from(may_grow));
            sketch.insert(hash, name.bytes(), may_grow)
        })
    }

    /// Hands over what is counted, for as long as somebody takes it.
    pub(crate) async fn deliver(&self, to: &mpsc::UnboundedSender<News>) {
        loop {
            self.begun.notified().await;
            sleep(INTERVAL).await;
            if to.send(News::Asked(self.take())).is_err() {
                return;
            }
        }
    }

    /// Paths that nobody asked for since are forgotten; the others keep their memory.
    fn take(&self) -> Vec<(AppId, Vec<PathCount>)> {
        self.is_begun.set(false);
        let mut apps = self.apps.borrow_mut();
        let taken =
            apps.iter_mut().map(|(app, sketch)| (*app, sketch.take())).filter(|(_, all)| !all.is_empty()).collect();
        apps.retain(|_, sketch| !sketch.slots.is_empty());
        self.slots.set(apps.values().map(|sketch| sketch.slots.len()).sum());
        taken
    }
}

impl Sketch {
    fn known(&self, hash: u64) -> Option<usize> {
        self.hashes.iter().position(|known| *known == hash)
    }

    /// Makes a slot for a name, or takes that of the one that took least time.
    fn insert(&mut self, hash: u64, name: &[u8], may_grow: bool) -> Option<usize> {
        if may_grow {
            self.hashes.push(hash);
            self.slots.push(Slot::new(name, 0));
            return Some(self.slots.len() - 1);
        }
        let weights = self.slots.iter().map(|slot| slot.waited_us + slot.missed_us);
        let (least, weight) = weights.enumerate().min_by_key(|(_, weight)| *weight)?;
        (self.hashes[least], self.slots[least]) = (hash, Slot::new(name, weight));
        Some(least)
    }

    fn take(&mut self) -> Vec<PathCount> {
        let mut index = 0;
        while let Some(slot) = self.slots.get(index) {
            if slot.requests > 0 {
                index += 1;
            } else {
                self.slots.swap_remove(index);
                self.hashes.swap_remove(index);
            }
        }
        self.slots.iter_mut().map(Slot::take).collect()
    }
}

impl Slot {
    fn new(name: &[u8], missed_us: u64) -> Self {
        let latency = [0; LATENCY_ENDS_MS.len() + 1];
        Self { name: name.into(), requests: 0, errors: 0, waited_us: 0, missed_us, latency }
    }

    fn take(&mut self) -> PathCount {
        let Self { name, requests, errors, waited_us, missed_us, latency } = self;
        let count = PathCount {
            name: String::from_utf8_lossy(name).into_owned(),
            requests: *requests,
            errors: *errors,
            waited_us: *waited_us,
            missed_us: *missed_us,
            latency: *latency,
        };
        (*requests, *errors, *waited_us, *missed_us) = (0, 0, 0, 0);
        latency.fill(0);
        count
    }
}

/// A method and a path without what differs from one request to the next: `GET /orders/:id`.
struct Name {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Name {
    fn of(method: &Method, path: &str) -> Self {
        let mut name = Self { bytes: [0; LONGEST], length: 0 };
        // Anybody can make up a method.
        let method = method.as_str();
        name.push(if method.len() <= 8 { method.as_bytes() } else { b"other" });
        name.push(b" ");
        for (index, segment) in path.as_bytes().split(|byte| *byte == b'/').enumerate() {
            if index > 0 && !name.push(b"/") {
                break;
            }
            name.push_segment(segment);
        }
        name
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Appends what there is room for; false if that is not all.
    fn push(&mut self, bytes: &[u8]) -> bool {
        let room = bytes.len().min(LONGEST - self.length);
        self.bytes[self.length..self.length + room].copy_from_slice(&bytes[..room]);
        self.length += room;
        room == bytes.len()
    }

    fn push_segment(&mut self, segment: &[u8]) {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_uuid = segment.len() == 36 && segment.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
        // What is no word to read is somebody's data: an address, a name in another script, a token.
        if is_uuid || segment.len() > 64 || !segment.iter().all(is_plain) {
            self.push(ID);
            return;
        }
        let mut rest = segment;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'-' | b'_' | b'.')) {
            self.push_word(&rest[..end]);
            self.push(&rest[end..=end]);
            rest = &rest[end + 1..];
        }
        self.push_word(rest);
    }

    fn push_word(&mut self, word: &[u8]) {
        self.push(if is_id(word) { ID } else { word });
    }
}

/// Whether a word of letters and digits is a number, a hash, or another one that nobody chose to be read.
fn is_id(word: &[u8]) -> bool {
    let count = |of: fn(&u8) -> bool| word.iter().filter(|byte| of(byte)).count();
    let digits = count(u8::is_ascii_digit);
    if digits == word.len() {
        return digits > 0;
    }
    let is_hex = || word.iter().all(u8::is_ascii_hexdigit);
    let has_both_cases = || word.iter().any(u8::is_ascii_uppercase) && word.iter().any(u8::is_ascii_lowercase);
    match word.len() {
        0..8 => false,
        8..16 => digits > 0 && (is_hex() || digits >= 4),
        16..24 => digits > 0,
        24..40 => digits > 0 || has_both_cases(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &str) -> String {
        String::from_utf8(Name::of(&Method::GET, path).bytes().to_vec()).expect("text")
    }

    #[test]
    fn what_differs_from_one_request_to_the_next_is_left_out() {
        for (path, expected) in [
            ("/", "/"),
            ("/orders/4711/items/9", "/orders/:id/items/:id"),
            ("/users/3f2504e0-4f89-41d3-9a0c-0305e82c3301", "/users/:id"),
            ("/assets/main.4f3d2c1b.js", "/assets/main.:id.js"),
            ("/commit/6d0d9ac1e2f3a4b5c6d7e8f90a1b2c3d4e5f6a7b", "/commit/:id"),
            ("/p/red-shoes-12345", "/p/red-shoes-:id"),
            ("/api/v1/search_all.json", "/api/v1/search_all.json"),
            ("/reset/kJ8dLw02mXqPz7RtYbNc", "/reset/:id"),
            ("/invite/AbCdEfGhIjKlMnOpQrStUvWx", "/invite/:id"),
            ("/mail/ada@example.com", "/mail/:id"),
            ("/caf%C3%A9", "/:id"),
            ("/internationalization", "/internationalization"),
            ("//a//", "//a//"),
        ] {
            assert_eq!(name(path), format!("GET {expected}"));
        }
        assert_eq!(name(&"/abc".repeat(100)).len(), LONGEST);
        let odd = Method::from_bytes(b"MADE-UP-METHOD").expect("a method");
        assert_eq!(Name::of(&odd, "/").bytes(), b"other /");
    }

    #[test]
    fn what_takes_much_time_is_never_missed_however_many_paths_there_are() {
        let (paths, app) = (Paths::default(), AppId::from_bytes([1; 16]));
        let ask = |path: &str, milliseconds, failed| {
            let waited = Duration::from_millis(milliseconds);
            paths.count(Asked { app, method: &Method::GET, path, waited, failed });
        };
        let word = |mut number: usize| {
            let mut word = String::from("/w");
            while number > 0 {
                word.push(char::from(b'a' + u8::try_from(number % 26).expect("a letter")));
                number /= 26;
            }
            word
        };
        for round in 0..5000 {
            ask(&word(round), 1, false);
            if round % 50 == 0 {
                ask("/slow", 900, round == 0);
            }
        }
        let taken = paths.take();
        assert_eq!((taken.len(), taken[0].1.len()), (1, OF_APP));
        let slow = taken[0].1.iter().find(|path| path.name == "GET /slow").expect("it is there");
        assert_eq!((slow.requests, slow.errors, slow.waited_us, slow.missed_us), (100, 1, 90_000_000, 0));
        // Another time: nothing of what was told is told again.
        ask("/slow", 5, false);
        let taken = paths.take();
        assert_eq!((taken[0].1.len(), taken[0].1[0].requests, taken[0].1[0].waited_us), (1, 1, 5000));
        assert_eq!(paths.take(), []);
        assert_eq!(paths.slots.get(), 0);
    }

    #[test]
    fn a_worker_counts_so_many_paths_at_once() {
        let paths = Paths::default();
        for number in 0..1000_u16 {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&number.to_le_bytes());
            for letter in b'a'..=b'z' {
                let path = format!("/{}", char::from(letter));
                let (app, waited) = (AppId::from_bytes(id), Duration::ZERO);
                paths.count(Asked { app, method: &Method::GET, path: &path, waited, failed: false });
            }
        }
        assert_eq!(paths.slots.get(), OF_ALL);
        assert!(paths.take().iter().map(|(_, all)| all.len()).sum::<usize>() <= OF_ALL);
    }
}
