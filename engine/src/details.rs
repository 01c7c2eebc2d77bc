//! What the routers that follow a [`Feed`](crate::feed::Feed) count in detail, and when that was.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::AppId;
use model::traffic::{Detail, Dropped, Outcome, PathCount, Place, percentile};
use tokio::time::Instant;

use crate::paths::Paths;

/// What is known of a place is forgotten once no router has said anything of it for so long.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Between two looks for what is to be forgotten.
const SWEEP: Duration = Duration::from_secs(60);
/// Most places that are known; at 3 KB each, if they got requests for an hour, they take 120 MB. One router tells half as many apart.
const PLACES: usize = 40_000;
/// Most routers' lives that are told apart of one place.
const LIVES: usize = 8;
/// What was counted lately is kept in parts of so long …
const PART: Duration = Duration::from_secs(10 * 60);
/// … of which there are so many beside the one that grows.
const PARTS: u64 = 6;
/// An app's minutes that are kept.
pub const MINUTES: u64 = 60;

/// What all followers counted. Clones share it.
#[derive(Debug, Clone)]
pub struct Details(Arc<Mutex<Book>>);

#[derive(Debug)]
struct Book {
    began: Instant,
    rows: BTreeMap<Place, Row>,
    apps: HashMap<AppId, Minutes>,
    paths: Paths,
    /// The latest word of each router's life on what it left out, and the sum of all.
    dropped: (Vec<Dropped>, Dropped),
    swept: Instant,
}

#[derive(Debug)]
struct Row {
    /// The latest word of each router's life, the one first that was silent longest.
    lives: Vec<Detail>,
    total: Detail,
    /// What came of it in each part of the time.
    parts: VecDeque<(u64, Detail)>,
    heard: Instant,
}

/// What became of an app's requests in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Minute {
    /// How many minutes ago it was; the current one is 0.
    pub ago: u64,
    /// Statuses below 400.
    pub well: u64,
    /// Statuses of 400 to 499.
    pub client_errors: u64,
    /// Statuses of 500 and above.
    pub server_errors: u64,
    /// Milliseconds that half of them waited at most.
    pub p50: Option<u64>,
    /// Milliseconds that 95 of 100 waited at most.
    pub p95: Option<u64>,
    /// Milliseconds that 99 of 100 waited at most.
    pub p99: Option<u64>,
}

/// The minutes of one app. How long each request waited is only kept of the last one.
#[derive(Debug, Default)]
struct Minutes {
    all: VecDeque<(u64, Minute)>,
    last: Detail,
}

impl Default for Details {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Book::new(Instant::now()))))
    }
}

impl Details {
    /// All that was counted of each place. It only grows, until nobody has asked for the place for an hour.
    pub fn totals(&self) -> Vec<(Place, Detail)> {
        self.lock().totals()
    }

    /// What was counted in the last hour of each place of an app, and since when that is: between 50 and 60 minutes, or since this process began.
    pub fn of_last_hour(&self, app: AppId) -> (Duration, Vec<(Place, Detail)>) {
        self.lock().of_last_hour(app, Instant::now())
    }

    /// The last [`MINUTES`] of an app that had any requests, the oldest first.
    pub fn minutes(&self, app: AppId) -> Vec<Minute> {
        self.lock().minutes(app, Instant::now())
    }

    /// Takes what a router counted of each place since it started. The `whole` of it may be long ago.
    pub fn note(&self, whole: bool, rows: &[(Place, Detail)]) {
        self.lock().note_all(whole, rows, Instant::now());
    }

    /// What routers left out since this process began to hear of them.
    pub fn dropped(&self) -> Dropped {
        self.lock().dropped.1
    }

    /// Takes what a router left out since it started.
    pub fn note_dropped(&self, dropped: Dropped) {
        if !dropped.is_none() {
            self.lock().note_dropped(dropped);
        }
    }

    /// What came of an app's requests in the last hour, by path: those that took most time together first. Since when that is, see
    /// [`Details::of_last_hour`].
    pub fn paths(&self, app: AppId) -> Vec<PathCount> {
        let book = self.lock();
        book.paths.of(app, book.first_part(Instant::now()))
    }

    /// Takes what came of requests by path since the router last said so.
    pub fn note_paths(&self, apps: &[(AppId, Vec<PathCount>)]) {
        let mut book = self.lock();
        let part = book.part(Instant::now());
        book.paths.note(apps, part, PARTS);
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Nothing panics while it holds the lock, and the book is whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            rows: BTreeMap::new(),
            apps: HashMap::new(),
            paths: Paths::default(),
            dropped: <(Vec<Dropped>, Dropped)>::default(),
            swept: now,
        }
    }

    fn note_dropped(&mut self, dropped: Dropped) {
        let (lives, total) = &mut self.dropped;
        let known = lives.iter().position(|life| life.life == dropped.life).map(|index| lives.remove(index));
        total.add(&dropped.since(&known.unwrap_or_default()));
        lives.push(dropped);
        if lives.len() > LIVES {
            lives.remove(0);
        }
    }

    fn totals(&self) -> Vec<(Place, Detail)> {
        self.rows.iter().map(|(place, row)| (place.clone(), row.total.clone())).collect()
    }

    fn of_last_hour(&self, app: AppId, now: Instant) -> (Duration, Vec<(Place, Detail)>) {
        let first = self.first_part(now);
        let since = now.duration_since(self.began).saturating_sub(PART * u32::try_from(first).unwrap_or(u32::MAX));
        let sum = |row: &Row| {
            let mut sum = Detail::default();
            row.parts.iter().filter(|(part, _)| *part >= first).for_each(|(_, detail)| sum.add(detail));
            sum
        };
        let own = Place { app: Some(app), workload: None, dyno: String::new() };
        let own = self.rows.range(own..).take_while(|(place, _)| place.app == Some(app));
        let rows = own.map(|(place, row)| (place.clone(), sum(row))).filter(|(_, sum)| sum.requests() > 0);
        (since, rows.collect())
    }

    fn minutes(&self, app: AppId, now: Instant) -> Vec<Minute> {
        let current = self.minute(now);
        let Some(minutes) = self.apps.get(&app) else { return Vec::new() };
        let aged = |(number, minute): &(u64, Minute)| Minute { ago: current.saturating_sub(*number), ..*minute };
        minutes.all.iter().map(aged).filter(|minute| minute.ago < MINUTES).collect()
    }

    fn note_all(&mut self, whole: bool, rows: &[(Place, Detail)], now: Instant) {
        for (place, detail) in rows {
            self.note(whole, (place, detail), now);
        }
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.rows.retain(|_, row| now.duration_since(row.heard) < REMEMBERED);
            let current = self.minute(now);
            self.apps.retain(|_, minutes| minutes.all.back().is_some_and(|(last, _)| current - last < MINUTES));
        }
    }

    fn part(&self, now: Instant) -> u64 {
        now.duration_since(self.began).as_secs() / PART.as_secs()
    }

    /// That the last hour is made of.
    fn first_part(&self, now: Instant) -> u64 {
        self.part(now).saturating_sub(PARTS - 1)
    }

    fn minute(&self, now: Instant) -> u64 {
        now.duration_since(self.began).as_secs() / 60
    }

    fn note(&mut self, whole: bool, (place, detail): (&Place, &Detail), now: Instant) {
        let (part, minute) = (self.part(now), self.minute(now));
        if self.rows.len() >= PLACES && !self.rows.contains_key(place) {
            return;
        }
        let row = self.rows.entry(place.clone()).or_insert_with(|| Row::new(now));
        row.heard = now;
        let known = row.lives.iter().position(|life| life.life == detail.life).map(|index| row.lives.remove(index));
        let news = detail.clone().since(known.as_ref().unwrap_or(&Detail::default()));
        row.lives.push(detail.clone());
        if row.lives.len() > LIVES {
            row.lives.remove(0);
        }
        row.total.add(&news);
        if whole && known.is_none() {
            // Nobody knows when that was.
            return;
        }
        row.add(part, &news);
        if let Some(app) = place.app {
            self.apps.entry(app).or_default().add(minute, &news);
        }
    }
}

impl Row {
    fn new(now: Instant) -> Self {
        Self { lives: Vec::new(), total: Detail::default(), parts: VecDeque::new(), heard: now }
    }

    fn add(&mut self, part: u64, news: &Detail) {
        match self.parts.back_mut() {
            Some((last, detail)) if *last == part => detail.add(news),
            _ => self.parts.push_back((part, news.clone())),
        }
        while self.parts.front().is_some_and(|(first, _)| part - first > PARTS) {
            self.parts.pop_front();
        }
    }
}

impl Minutes {
    fn add(&mut self, number: u64, news: &Detail) {
        if self.all.back().is_none_or(|(last, _)| *last != number) {
            self.last.clear();
            self.all.push_back((number, Minute::default()));
        }
        while self.all.front().is_some_and(|(first, _)| number - first >= MINUTES) {
            self.all.pop_front();
        }
        self.last.add(news);
        let Some((_, minute)) = self.all.back_mut() else { return };
        for Outcome { status, count, .. } in &news.outcomes {
            let counter = match status {
                0..=399 => &mut minute.well,
                400..=499 => &mut minute.client_errors,
                _ => &mut minute.server_errors,
            };
            *counter += count;
        }
        let waited = |percent| percentile(&self.last.latency, percent);
        (minute.p50, minute.p95, minute.p99) = (waited(50), waited(95), waited(99));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppId {
        AppId::from_bytes([7; 16])
    }

    fn place(dyno: &str) -> Place {
        Place { app: Some(app()), workload: None, dyno: dyno.to_owned() }
    }

    fn counted(life: u64, requests: u64) -> Detail {
        let mut detail = Detail { life, ..Detail::default() };
        detail.end(200, 0, requests);
        detail.latency[3] = requests;
        detail
    }

    #[test]
    fn what_routers_left_out_adds_up() {
        let details = Details::default();
        for (life, lines) in [(1, 5), (1, 7), (2, 3), (1, 7), (2, 0)] {
            details.note_dropped(Dropped { life, lines, ..Dropped::default() });
        }
        assert_eq!(details.dropped().lines, 10);
    }

    #[test]
    fn what_routers_counted_adds_up_and_has_its_time() {
        let start = Instant::now();
        let after = |minutes: u64| start + Duration::from_secs(minutes * 60);
        let mut book = Book::new(start);
        let sums = |book: &Book, now| {
            let sum = |rows: Vec<(Place, Detail)>| rows.iter().map(|(_, detail)| detail.requests()).sum::<u64>();
            (sum(book.totals()), sum(book.of_last_hour(app(), now).1))
        };
        book.note_all(true, &[(place("web.1"), counted(1, 1000))], start);
        assert_eq!((sums(&book, start), book.minutes(app(), start)), ((1000, 0), vec![]), "it may be long ago");
        book.note_all(false, &[(place("web.1"), counted(1, 1010)), (place("web.2"), counted(2, 5))], start);
        assert_eq!(sums(&book, start), (1015, 15));
        // Another router, and the first one again, after both lost their connection.
        book.note_all(false, &[(place("web.1"), counted(3, 7))], start);
        book.note_all(true, &[(place("web.1"), counted(1, 1011)), (place("web.1"), counted(3, 7))], start);
        assert_eq!(sums(&book, start), (1023, 23));
        let minutes = book.minutes(app(), start);
        assert_eq!((minutes.len(), minutes[0].well, minutes[0].p95), (1, 23, Some(5)));

        book.note_all(false, &[(place("web.1"), counted(3, 17))], after(30));
        assert_eq!(sums(&book, after(30)), (1033, 33));
        let minutes: Vec<(u64, u64)> = book.minutes(app(), after(30)).iter().map(|it| (it.ago, it.well)).collect();
        assert_eq!(minutes, [(30, 23), (0, 10)]);
        assert_eq!(book.of_last_hour(app(), after(65)).0, Duration::from_secs(55 * 60));
        assert_eq!(sums(&book, after(61)), (1033, 10), "the first ones are more than an hour ago");
        assert_eq!(book.minutes(app(), after(61)).len(), 1);
        book.note_all(false, &[(place("web.9"), counted(9, 1))], after(121));
        assert_eq!(sums(&book, after(121)), (1, 1), "the rest is forgotten");
        assert_eq!(book.of_last_hour(AppId::from_bytes([8; 16]), start).1, []);
    }

    #[test]
    fn no_more_places_are_known_than_may_be() {
        let details = Details::default();
        let all: Vec<_> = (0..PLACES + 10).map(|number| (place(&format!("web.{number}")), counted(1, 1))).collect();
        details.note(false, &all);
        assert_eq!(details.totals().len(), PLACES);
    }
}
