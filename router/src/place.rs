//! Hosts that several apps share, each from a path on.
//!
//! A path is compared as it was sent, byte for byte and in whole segments; the longest one wins. Servers read paths more freely than that: they
//! decode them, resolve `..`, merge slashes. A request is not let in if one of these readings belongs elsewhere, since the app that gets it might
//! take it for something that another app answers, with other rules.

use std::borrow::Cow;

use model::routes::Place;
use model::{AppId, PathPrefix};

use crate::pack::{Packed, Reader, put_number};

/// Length of the row of a host that one app has as a whole.
const ALONE: usize = 16;

/// Whose a host is: of many hosts only few have more than one app.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Who has what nobody else has.
    root: Option<AppId>,
    /// The longest path first.
    places: Vec<(PathPrefix, Slot)>,
}

/// The app of a place, and whether it does not see the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) app: AppId,
    pub(crate) strip: bool,
}

/// The part of a request's path by which it came to its app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mounted {
    length: usize,
    pub(crate) strip: bool,
}

/// What a row says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Chosen {
    pub(crate) app: Option<(AppId, Option<Mounted>)>,
    /// Another path may be another app's.
    pub(crate) is_shared: bool,
}

impl Parts {
    /// Whose this place is.
    pub(crate) fn get(&self, path: Option<&PathPrefix>) -> Option<Slot> {
        match path {
            None => self.root.map(|app| Slot { app, strip: false }),
            Some(path) => self.places.iter().find(|(other, _)| other == path).map(|(_, slot)| *slot),
        }
    }

    /// Gives a place to an app.
    pub(crate) fn give(&mut self, place: &Place, app: AppId) {
        let Some(path) = &place.path else {
            self.root = Some(app);
            return;
        };
        self.places.retain(|(other, _)| other != path);
        self.places.push((path.clone(), Slot { app, strip: place.strip }));
        self.places.sort_by_key(|(path, _)| std::cmp::Reverse(path.as_str().len()));
    }

    /// Takes a place from an app, if that has it.
    pub(crate) fn take(&mut self, place: &Place, app: AppId) {
        if self.get(place.path.as_ref()).is_none_or(|slot| slot.app != app) {
            return;
        }
        match &place.path {
            None => self.root = None,
            Some(path) => self.places.retain(|(other, _)| other != path),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none() && self.places.is_empty()
    }

    /// The paths that an app has here, and, as none, the rest.
    pub(crate) fn of(&self, app: AppId) -> impl Iterator<Item = (Option<&PathPrefix>, bool)> {
        let root = (self.root == Some(app)).then_some((None, false));
        let places = self.places.iter().filter(move |(_, slot)| slot.app == app);
        root.into_iter().chain(places.map(|(path, slot)| (Some(path), slot.strip)))
    }
}

impl Packed for Parts {
    fn pack(&self, to: &mut Vec<u8>) {
        if let (Some(root), []) = (self.root, &*self.places) {
            return root.pack(to);
        }
        to.push(u8::from(self.root.is_some()));
        self.root.into_iter().for_each(|root| root.pack(to));
        for (path, slot) in &self.places {
            put_number(to, (path.as_str().len() as u64) << 1 | u64::from(slot.strip));
            to.extend_from_slice(path.as_str().as_bytes());
            slot.app.pack(to);
        }
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        if bytes.len() == ALONE {
            return Some(Self { root: Some(AppId::unpack(bytes)?), places: Vec::new() });
        }
        let (root, mut from) = root(bytes)?;
        let mut places = Vec::new();
        while let Some((path, slot)) = next(&mut from) {
            places.push((std::str::from_utf8(path).ok()?.parse().ok()?, slot));
        }
        Some(Self { root, places })
    }
}

/// Whether a row is that of a host with more than one app.
pub(crate) fn is_shared(row: &[u8]) -> bool {
    row.len() != ALONE
}

/// Whose a path is by the row of its host ([`Parts`]).
#[inline]
pub(crate) fn choose(row: &[u8], path: &[u8]) -> Chosen {
    if let Some(app) = AppId::unpack(row) {
        return Chosen { app: Some((app, None)), is_shared: false };
    }
    choose_shared(row, path)
}

#[cold]
fn choose_shared(row: &[u8], path: &[u8]) -> Chosen {
    let Some((root, mut from)) = root(row) else { return Chosen::default() };
    let ends = |rest: &[u8]| rest.is_empty() || rest[0] == b'/';
    while let Some((prefix, slot)) = next(&mut from) {
        if path.strip_prefix(prefix).is_some_and(ends) {
            let mounted = Mounted { length: prefix.len(), strip: slot.strip };
            return Chosen { app: Some((slot.app, Some(mounted))), is_shared: true };
        }
    }
    Chosen { app: root.map(|app| (app, None)), is_shared: true }
}

fn root(row: &[u8]) -> Option<(Option<AppId>, Reader<'_>)> {
    let mut from = Reader(row);
    let has_root = from.bytes(1)? == [1];
    let root = if has_root { Some(AppId::unpack(from.bytes(ALONE)?)?) } else { None };
    Some((root, from))
}

fn next<'a>(from: &mut Reader<'a>) -> Option<(&'a [u8], Slot)> {
    let number = from.number()?;
    let path = from.bytes(usize::try_from(number >> 1).ok()?)?;
    Some((path, Slot { app: AppId::unpack(from.bytes(ALONE)?)?, strip: number & 1 == 1 }))
}

impl Mounted {
    /// The path of it, of a request's.
    pub(crate) fn prefix<'a>(&self, path: &'a str) -> &'a str {
        path.get(..self.length).unwrap_or_default()
    }

    /// What the app sees of a request's path and query.
    pub(crate) fn seen<'a>(&self, path_and_query: &'a str) -> Cow<'a, str> {
        match path_and_query.get(self.length..).filter(|_| self.strip) {
            None => path_and_query.into(),
            Some(rest) if rest.starts_with('/') => rest.into(),
            Some(rest) => format!("/{rest}").into(),
        }
    }
}

/// What servers may make of a path before they look whose it is, besides taking it as it is.
pub(crate) fn readings(path: &str) -> Vec<Vec<u8>> {
    let mut all = vec![path.as_bytes().to_vec()];
    if path.starts_with('/') {
        // Twice: some decode what was decoded before.
        for step in [decode_all_but_slashes, decode, decode, cut_parameters, turn_slashes, merge_slashes, resolve] {
            let more: Vec<_> = all.iter().map(|path| step(path)).collect();
            for reading in more {
                if !all.contains(&reading) {
                    all.push(reading);
                }
            }
        }
    }
    all.swap_remove(0);
    all
}

fn decode(path: &[u8]) -> Vec<u8> {
    decoded(path, |_| true)
}

fn decode_all_but_slashes(path: &[u8]) -> Vec<u8> {
    decoded(path, |byte| !matches!(byte, b'/' | b'\\'))
}

fn decoded(mut path: &[u8], is_wanted: impl Fn(u8) -> bool) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(path.len());
    while let [first, rest @ ..] = path {
        let meant = match rest {
            [high, low, ..] if *first == b'%' => digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        let meant = meant.filter(|byte| is_wanted(*byte));
        decoded.push(meant.unwrap_or(*first));
        path = if meant.is_some() { &rest[2..] } else { rest };
    }
    decoded
}

/// `/api;v=1/x` is `/api/x` to some.
fn cut_parameters(path: &[u8]) -> Vec<u8> {
    let cut = |segment: &[u8]| segment.split(|byte| *byte == b';').next().unwrap_or_default().to_vec();
    path.split(|byte| *byte == b'/').map(cut).collect::<Vec<_>>().join(&b'/')
}

fn turn_slashes(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|a, b| *a == b'/' && *b == b'/');
    merged
}

fn resolve(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        match segment {
            b"." => {}
            b".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let first: &[&[u8]] = if kept.is_empty() { &[b"/"] } else { &[] };
    first
        .iter()
        .copied()
        .chain(kept.into_iter().flat_map(|segment| [b"/".as_slice(), segment]))
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(number: u32) -> AppId {
        format!("00000000-0000-4000-8000-{number:012}").parse().expect("an id")
    }

    fn place(path: &str, strip: bool) -> Place {
        let path = (!path.is_empty()).then(|| path.parse().expect("a path"));
        Place { host: "www.example.com".parse().expect("a host"), path, strip }
    }

    fn row(places: &[(&str, u32)]) -> Vec<u8> {
        let mut parts = Parts::default();
        for (path, number) in places {
            parts.give(&place(path, false), app(*number));
        }
        assert_eq!(Parts::unpack(&parts.packed()).as_ref(), Some(&parts));
        parts.packed()
    }

    fn whose(row: &[u8], path: &str) -> Option<AppId> {
        choose(row, path.as_bytes()).app.map(|(app, _)| app)
    }

    #[test]
    fn a_host_that_one_app_has_is_its_id_and_the_longest_path_wins() {
        assert_eq!(row(&[("", 1)]), app(1).packed(), "as if there were no paths");
        let all = row(&[("/api", 2), ("", 1), ("/api/v2", 3)]);
        for (path, number) in [
            ("/", 1),
            ("/apix", 1),
            ("/API", 1),
            ("/ap", 1),
            ("/x/api", 1),
            ("*", 1),
            ("/api", 2),
            ("/api/", 2),
            ("/api/v22", 2),
            ("/api/v2", 3),
            ("/api/v2/x", 3),
        ] {
            assert_eq!(whose(&all, path), Some(app(number)), "{path}");
        }
        let without_rest = row(&[("/api", 2)]);
        assert_eq!((whose(&without_rest, "/"), whose(&without_rest, "/api/x")), (None, Some(app(2))));
    }

    #[test]
    fn a_place_is_taken_only_from_whom_it_belongs_to() {
        let mut parts = Parts::default();
        for (path, number) in [("", 1), ("/api", 2)] {
            parts.give(&place(path, false), app(number));
        }
        parts.take(&place("/api", false), app(1));
        parts.take(&place("", false), app(2));
        assert_eq!(parts.places.len(), 1);
        parts.give(&place("/api", true), app(3));
        let slot = parts.get(place("/api", false).path.as_ref());
        assert_eq!(slot, Some(Slot { app: app(3), strip: true }));
        parts.take(&place("/api", false), app(3));
        parts.take(&place("", false), app(1));
        assert!(parts.is_empty());
    }

    #[test]
    fn an_app_sees_what_follows_its_path() {
        let [kept, cut] = [false, true].map(|strip| Mounted { length: 4, strip });
        for (sent, seen) in [("/api", "/"), ("/api?a=b", "/?a=b"), ("/api/", "/"), ("/api/x?y", "/x?y")] {
            assert_eq!((&*cut.seen(sent), &*kept.seen(sent)), (seen, sent));
            assert_eq!(cut.prefix(sent), "/api");
        }
    }

    #[test]
    fn a_path_has_every_reading_that_a_server_may_have_of_it() {
        for (path, reading) in [
            ("/%61pi", "/api"),
            ("/%2561pi", "/api"),
            ("//api/x", "/api/x"),
            ("/x/../api", "/api"),
            ("/x/%2e%2E/api", "/api"),
            ("/api/..%2f..%2Fx", "/x"),
            ("/api/..%252fx", "/x"),
            ("/api;a=b/x", "/api/x"),
            ("/x\\..\\api", "/api"),
            ("/./api", "/api"),
            ("/api/..", "/"),
            ("/%5capi", "/api"),
        ] {
            let all: Vec<_> = readings(path).into_iter().map(|it| String::from_utf8_lossy(&it).into_owned()).collect();
            assert!(all.iter().any(|other| other == reading), "{path}: {all:?}");
        }
        for plain in ["/", "/api/x.y/~z", "*", "/a/", "/%zz", "/%"] {
            assert_eq!(readings(plain), Vec::<Vec<u8>>::new(), "{plain}");
        }
        assert_eq!(readings("/a%20b"), [b"/a b"]);
        assert!(readings(&"/%252e%5c;//".repeat(500)).len() < 128);
    }
}
