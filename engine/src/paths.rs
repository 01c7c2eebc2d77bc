//! What came of requests by path, as routers say it: of each app the paths that took most time.

use std::collections::{BTreeMap, HashMap, VecDeque};

use model::AppId;
use model::traffic::PathCount;

/// Paths of one app in one part of the time.
const OF_PART: usize = 64;
/// Paths of all apps in all parts; at 300 bytes each they take 60 MB.
const OF_ALL: usize = 200_000;

/// By app, in parts of the time.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    apps: HashMap<AppId, VecDeque<(u64, Part)>>,
    rows: usize,
    /// The part in which what is too old was last forgotten.
    swept: u64,
}

#[derive(Debug, Default)]
struct Part(HashMap<String, PathCount>);

impl Paths {
    /// Adds what was counted in this part of the time, and forgets what is more than so many parts older.
    pub(crate) fn note(&mut self, apps: &[(AppId, Vec<PathCount>)], part: u64, parts: u64) {
        if self.swept != part {
            self.swept = part;
            self.apps.values_mut().for_each(|all| all.retain(|(number, _)| part - number <= parts));
            self.apps.retain(|_, all| !all.is_empty());
            self.rows = self.apps.values().flatten().map(|(_, part)| part.0.len()).sum();
        }
        for (app, paths) in apps {
            let all = self.apps.entry(*app).or_default();
            if all.back().is_none_or(|(number, _)| *number != part) {
                all.push_back((part, Part::default()));
            }
            let Some((_, of_part)) = all.back_mut() else { continue };
            let before = of_part.0.len();
            for path in paths {
                of_part.add(path, self.rows - before < OF_ALL);
            }
            self.rows = self.rows - before + of_part.0.len();
        }
    }

    /// Those of an app since a part of the time: what took most time together first.
    pub(crate) fn of(&self, app: AppId, since: u64) -> Vec<PathCount> {
        let mut sums: BTreeMap<&str, PathCount> = BTreeMap::new();
        let parts = self.apps.get(&app).into_iter().flatten().filter(|(number, _)| *number >= since);
        for path in parts.flat_map(|(_, part)| part.0.values()) {
            match sums.get_mut(path.name.as_str()) {
                Some(sum) => sum.add(path),
                None => drop(sums.insert(&path.name, path.clone())),
            }
        }
        let mut sums: Vec<PathCount> = sums.into_values().collect();
        sums.sort_by_key(|path| std::cmp::Reverse(path.waited_us));
        sums
    }
}

impl Part {
    /// As in a worker of a router: one that is too many takes the place of the one that took least time, and inherits how much that was.
    fn add(&mut self, path: &PathCount, may_grow: bool) {
        if let Some(known) = self.0.get_mut(&path.name) {
            known.add(path);
            return;
        }
        let mut path = path.clone();
        if self.0.len() >= OF_PART || !may_grow {
            let weight = |path: &PathCount| path.waited_us.saturating_add(path.missed_us);
            let Some(least) = self.0.values().min_by_key(|path| weight(path)) else { return };
            path.missed_us = path.missed_us.saturating_add(weight(least));
            let least = least.name.clone();
            self.0.remove(&least);
        }
        self.0.insert(path.name.clone(), path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(number: u8) -> AppId {
        AppId::from_bytes([number; 16])
    }

    fn path(name: &str, requests: u64, waited_us: u64) -> PathCount {
        PathCount { name: name.to_owned(), requests, errors: 0, waited_us, missed_us: 0, latency: [0; 24] }
    }

    #[test]
    fn what_took_most_time_comes_first_and_what_is_old_is_forgotten() {
        let mut paths = Paths::default();
        paths.note(&[(app(1), vec![path("GET /", 100, 500), path("GET /slow", 1, 1200)])], 0, 6);
        paths.note(&[(app(1), vec![path("GET /", 10, 600)]), (app(2), vec![path("GET /", 1, 1)])], 3, 6);
        let seen = |paths: &Paths, since| -> Vec<(String, u64, u64)> {
            paths.of(app(1), since).into_iter().map(|path| (path.name, path.requests, path.waited_us)).collect()
        };
        assert_eq!(seen(&paths, 0), [("GET /slow".to_owned(), 1, 1200), ("GET /".to_owned(), 110, 1100)]);
        assert_eq!(seen(&paths, 1), [("GET /".to_owned(), 10, 600)]);
        paths.note(&[], 8, 6);
        assert_eq!((seen(&paths, 0).len(), paths.rows), (1, 2));
        paths.note(&[], 20, 6);
        assert_eq!((paths.apps.len(), paths.rows), (0, 0));
    }

    #[test]
    fn what_takes_most_time_stays_whatever_else_comes() {
        let mut paths = Paths::default();
        for number in 0..1000 {
            let rows = vec![path(&format!("GET /{number}"), 1, 10), path("GET /slow", 1, 1000)];
            paths.note(&[(app(1), rows)], 0, 6);
        }
        let all = paths.of(app(1), 0);
        assert_eq!((all.len(), paths.rows), (OF_PART, OF_PART));
        assert_eq!((all[0].name.as_str(), all[0].requests, all[0].missed_us), ("GET /slow", 1000, 0));
    }
}
