//! Publishes one half of the route table to routers, as [`model::routes`] describes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::routes::{Ack, Update};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::details::Details;
use crate::traffic::Traffic;

/// A follower that went away is counted on for so long: it may be one that starts again, and it serves meanwhile by the last table that it was
/// told.
const RETURN: Duration = Duration::from_secs(2);

/// The table of one publisher, and who follows it. Clones share it.
#[derive(Debug)]
pub struct Feed<K, V> {
    state: Arc<Mutex<State<K, V>>>,
    changed: watch::Sender<u64>,
    traffic: Traffic,
    /// What followers count in detail, if that is wanted.
    details: Option<Details>,
}

#[derive(Debug)]
struct State<K, V> {
    version: u64,
    rows: BTreeMap<K, V>,
    /// Which keys changed or went, by the version that did it last, until every follower was told. What a follower has to be
    /// told is at its end, however large the table is.
    changes: BTreeSet<(u64, K)>,
    /// That version of each of them.
    changed_in: BTreeMap<K, u64>,
    next_follower: u64,
    followers: BTreeMap<u64, Follower>,
    /// Until when each follower that went away is waited for.
    away: VecDeque<Instant>,
}

#[derive(Debug, Default)]
struct Follower {
    /// Version of the whole table that it began with.
    first: u64,
    sent: u64,
    serving: u64,
    /// What was gone by `first`, but still has requests.
    holding: BTreeSet<String>,
    drained: BTreeSet<String>,
    /// Of the instances that were to rest, by which version of the table that was last said, and whether they did.
    rested: BTreeMap<String, (u64, bool)>,
}

impl Follower {
    fn has_drained(&self, instance: &str, (gone_in, rested_in): (u64, Option<u64>)) -> bool {
        let never_had = self.first >= gone_in && !self.holding.contains(instance);
        let has_rested = rested_in.is_some_and(|version| self.rested_in(instance, version) == Some(true));
        self.serving >= gone_in && (never_had || has_rested || self.drained.contains(instance))
    }

    /// Whether an instance rests by what was said in this version; none while that is not said.
    fn rested_in(&self, instance: &str, version: u64) -> Option<bool> {
        self.rested.get(instance).filter(|(asked_in, _)| *asked_in == version).map(|(_, has_rested)| *has_rested)
    }
}

impl<K, V> Clone for Feed<K, V> {
    fn clone(&self) -> Self {
        let (changed, traffic, details) = (self.changed.clone(), self.traffic.clone(), self.details.clone());
        Self { state: Arc::clone(&self.state), changed, traffic, details }
    }
}

impl<K, V> Feed<K, V>
where
    K: Ord + Clone + Serialize + Send + 'static,
    V: PartialEq + Clone + Serialize + Send + 'static,
{
    /// A feed that begins with `rows`.
    pub fn new(rows: BTreeMap<K, V>) -> Self {
        let (changes, changed_in, followers, away) =
            (BTreeSet::new(), BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let state = State { version: 1, rows, changes, changed_in, next_follower: 0, followers, away };
        let (state, traffic) = (Arc::new(Mutex::new(state)), Traffic::default());
        Self { state, changed: watch::Sender::new(1), traffic, details: None }
    }

    /// The same feed, which asks its followers for all that they count.
    #[must_use]
    pub fn with_details(self, details: &Details) -> Self {
        Self { details: Some(details.clone()), ..self }
    }

    /// Counts on a follower of an earlier life of this publisher, if one left its socket at `path`, as on one that just went away.
    pub fn expect_return(&self, path: &Path) {
        if path.exists() {
            self.lock().away.push_back(Instant::now() + RETURN);
        }
    }

    /// What followers say of the requests that they pass.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Version of the table as it is now.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// Makes `rows` the whole table and returns its version, which stays the same if nothing changed.
    pub fn publish(&self, rows: &BTreeMap<K, V>) -> u64 {
        self.update(|state| {
            let gone: Vec<K> = state.rows.keys().filter(|key| !rows.contains_key(key)).cloned().collect();
            let there = rows.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
            state.set_all(gone.into_iter().map(|key| (key, None)).chain(there));
        })
    }

    /// Sets one row, or takes it away, and returns the table's version.
    pub fn set(&self, key: &K, value: Option<V>) -> u64 {
        self.set_all([(key.clone(), value)])
    }

    /// Sets some rows and takes others away, as one new version of the table, which it returns.
    pub fn set_all(&self, rows: impl IntoIterator<Item = (K, Option<V>)>) -> u64 {
        self.update(|state| state.set_all(rows))
    }

    fn update(&self, change: impl FnOnce(&mut State<K, V>)) -> u64 {
        let version = {
            let mut state = self.lock();
            change(&mut state);
            state.version
        };
        self.changed.send_replace(version);
        version
    }

    /// A row as it is now.
    pub fn row(&self, key: &K) -> Option<V> {
        self.lock().rows.get(key).cloned()
    }

    /// The keys of all rows that there are now.
    pub fn keys(&self) -> Vec<K> {
        self.lock().rows.keys().cloned().collect()
    }

    /// What is found in the rows that there are now.
    pub fn pick<T>(&self, find: impl Fn(&K, &V) -> Option<T>) -> Vec<T> {
        self.lock().rows.iter().filter_map(|(key, row)| find(key, row)).collect()
    }

    /// Whether any router follows.
    pub fn is_followed(&self) -> bool {
        !self.lock().followers.is_empty()
    }

    /// Waits until every router serves at least `version`; false when `limit` passed first. One that went away counts for a while.
    /// Without any nobody routes, and it is true at once.
    pub async fn served(&self, version: u64, limit: Duration) -> bool {
        self.wait(limit, |follower| follower.serving >= version).await
    }

    /// Waits until no router has a request left on `instance`, which version `gone_in` of the table took away; false when `limit`
    /// passed first. A router that went away counts for a while.
    pub async fn drained(&self, instance: &str, gone_in: u64, limit: Duration) -> bool {
        self.drained_after_rest(instance, (gone_in, None), limit).await
    }

    /// The same of an instance that rests since the version `rested_in`, if there is one: see [`Feed::rested`].
    pub async fn drained_after_rest(&self, instance: &str, versions: (u64, Option<u64>), limit: Duration) -> bool {
        let drained = self.wait(limit, |follower| follower.has_drained(instance, versions)).await;
        for follower in self.lock().followers.values_mut() {
            follower.drained.remove(instance);
            follower.rested.remove(instance);
        }
        drained
    }

    /// Whether every router let go of these instances, which are to rest since `version` of the table. Waits until all have said so,
    /// or that they use one of them; false, too, when `limit` passed first.
    pub async fn rested(&self, instances: &[String], version: u64, limit: Duration) -> bool {
        let answers = |follower: &Follower| {
            let answers: Option<Vec<bool>> = instances.iter().map(|it| follower.rested_in(it, version)).collect();
            answers
        };
        let all_said = self.wait(limit, |follower| answers(follower).is_some()).await;
        let rests = |follower: &Follower| answers(follower).is_some_and(|all| all.iter().all(|rested| *rested));
        let mut state = self.lock();
        let all_rest = all_said && state.followers.values().all(rests);
        if !all_rest {
            for follower in state.followers.values_mut() {
                follower.rested.retain(|instance, _| !instances.contains(instance));
            }
        }
        all_rest
    }

    async fn wait(&self, limit: Duration, done: impl Fn(&Follower) -> bool) -> bool {
        let mut changed = self.changed.subscribe();
        let all_done = async {
            loop {
                let away = {
                    let mut state = self.lock();
                    state.away.retain(|until| *until > Instant::now());
                    if state.away.is_empty() && state.followers.values().all(&done) {
                        return;
                    }
                    state.away.front().copied()
                };
                // The sender lives in `self`, so waiting for it cannot fail.
                let _ = match away {
                    Some(until) => timeout_at(until, changed.changed()).await.unwrap_or(Ok(())),
                    None => changed.changed().await,
                };
            }
        };
        timeout(limit, all_done).await.is_ok()
    }

    /// Serves followers on a socket at `path`, which only root may use, for as long as the process lives.
    pub async fn serve(self, path: &Path) -> io::Result<()> {
        let listener = listen(path)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let feed = self.clone();
            tokio::spawn(async move {
                let id = feed.join();
                if let Err(error) = feed.follow(stream, id).await {
                    tracing::debug!(error = %error, "a router went away");
                }
                feed.leave(id);
            });
        }
    }

    async fn follow(&self, stream: UnixStream, id: u64) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut acks = BufReader::new(reader).lines();
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(line) = self.next_update(id)? {
                writer.write_all(&line).await?;
            }
            tokio::select! {
                result = changed.changed() => if result.is_err() { return Ok(()) },
                line = acks.next_line() => match line? {
                    None => return Ok(()),
                    Some(line) => self.acknowledge(id, serde_json::from_str(&line)?),
                },
            }
        }
    }

    /// The line that brings a follower up to date, if it is not.
    fn next_update(&self, id: u64) -> io::Result<Option<Vec<u8>>> {
        let mut state = self.lock();
        let version = state.version;
        let Some(follower) = state.followers.get_mut(&id) else { return Ok(None) };
        let sent = std::mem::replace(&mut follower.sent, version);
        if sent == version {
            return Ok(None);
        }
        if sent == 0 {
            follower.first = version;
        }
        let changed: BTreeSet<&K> = match sent {
            0 => state.rows.keys().collect(),
            sent => state.changes.iter().rev().take_while(|(version, _)| *version > sent).map(|(_, key)| key).collect(),
        };
        let (mut rows, mut gone) = (Vec::new(), Vec::new());
        for key in changed {
            match state.rows.get(key) {
                Some(value) => rows.push((key, value)),
                None => gone.push(key),
            }
        }
        let mut line = serde_json::to_vec(&Update {
            version,
            reset: sent == 0,
            set: rows,
            unset: gone,
            details: self.details.is_some(),
        })?;
        line.push(b'\n');
        state.forget_told();
        Ok(Some(line))
    }

    fn acknowledge(&self, id: u64, ack: Ack) {
        let tell = |change: &dyn Fn(&mut Follower)| {
            if let Some(follower) = self.lock().followers.get_mut(&id) {
                change(follower);
            }
            self.changed.send_modify(|_| {});
        };
        match ack {
            Ack::Serving(version) => tell(&|follower| follower.serving = version),
            Ack::Holding(instances) => tell(&|follower| follower.holding.extend(instances.iter().cloned())),
            Ack::Drained(instance) => tell(&|follower| follower.drained.extend([instance.clone()])),
            Ack::Traffic(rows) => self.traffic.note(rows),
            Ack::Details { whole, rows, dropped } => self.details.iter().for_each(|details| {
                details.note(whole, &rows);
                details.note_dropped(dropped);
            }),
            Ack::Paths(apps) => self.details.iter().for_each(|details| details.note_paths(&apps)),
            Ack::Wanted(workload) => self.traffic.want(workload),
            Ack::Rest { version, gone, busy } => tell(&|follower| {
                let gone = gone.iter().map(|instance| (instance.clone(), (version, true)));
                let busy = busy.iter().map(|instance| (instance.clone(), (version, false)));
                follower.rested.extend(gone.chain(busy));
            }),
        }
    }

    fn join(&self) -> u64 {
        let mut state = self.lock();
        let id = state.next_follower;
        state.next_follower += 1;
        state.followers.insert(id, Follower::default());
        // This is the one, or as good.
        state.away.pop_front();
        id
    }

    fn leave(&self, id: u64) {
        let mut state = self.lock();
        state.followers.remove(&id);
        state.away.push_back(Instant::now() + RETURN);
        state.forget_told();
        drop(state);
        self.changed.send_modify(|_| {});
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<K, V>> {
        // Nothing panics while it holds the lock, and the table is whole after every statement anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone, V: PartialEq> State<K, V> {
    fn set_all(&mut self, rows: impl IntoIterator<Item = (K, Option<V>)>) {
        let next = self.version + 1;
        for (key, value) in rows {
            if self.rows.get(&key) == value.as_ref() {
                continue;
            }
            self.version = next;
            // A follower that comes gets everything: without one there is nobody to tell of changes.
            if !self.followers.is_empty() {
                if let Some(earlier) = self.changed_in.insert(key.clone(), next) {
                    self.changes.remove(&(earlier, key.clone()));
                }
                self.changes.insert((next, key.clone()));
            }
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
    }

    fn forget_told(&mut self) {
        let told = self.followers.values().map(|follower| follower.sent).min().unwrap_or(self.version);
        while self.changes.first().is_some_and(|(version, _)| *version <= told) {
            if let Some((_, key)) = self.changes.pop_first() {
                self.changed_in.remove(&key);
            }
        }
    }
}

/// Listens on a Unix socket that only root may use, in place of whatever an earlier life left there.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Names = Feed<String, u32>;

    const LONG: Duration = Duration::from_secs(60);

    fn rows(rows: &[(&str, u32)]) -> BTreeMap<String, u32> {
        rows.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
    }

    struct Router {
        lines: tokio::io::Lines<BufReader<tokio::net::unix::OwnedReadHalf>>,
        writer: tokio::net::unix::OwnedWriteHalf,
    }

    impl Router {
        async fn connect(path: &Path) -> Self {
            let stream = loop {
                match UnixStream::connect(path).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            let (reader, writer) = stream.into_split();
            Self { lines: BufReader::new(reader).lines(), writer }
        }

        async fn next(&mut self) -> Update<String, u32> {
            let line = self.lines.next_line().await.expect("readable").expect("open");
            serde_json::from_str(&line).expect("an update")
        }

        async fn say(&mut self, ack: &Ack) {
            let line = format!("{}\n", serde_json::to_string(ack).expect("JSON"));
            self.writer.write_all(line.as_bytes()).await.expect("writable");
        }
    }

    #[tokio::test]
    async fn a_router_gets_the_table_then_its_changes_and_holds_back_the_publisher() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("feed");
        let feed = Names::new(rows(&[("a", 1), ("b", 2)]));
        tokio::spawn({
            let (feed, path) = (feed.clone(), path.clone());
            async move { feed.serve(&path).await }
        });
        let mut router = Router::connect(&path).await;
        let first = router.next().await;
        assert!(first.reset);
        assert_eq!(first.set, [("a".to_owned(), 1), ("b".to_owned(), 2)]);

        assert_eq!(feed.publish(&rows(&[("a", 1), ("b", 2)])), first.version, "no change, no version");
        let version = feed.publish(&rows(&[("a", 3)]));
        let second = router.next().await;
        assert_eq!((second.version, second.reset), (version, false));
        assert_eq!((second.set, second.unset), (vec![("a".to_owned(), 3)], vec!["b".to_owned()]));
        assert!(feed.lock().changes.is_empty() && feed.lock().changed_in.is_empty(), "everybody was told");

        assert!(!feed.served(version, Duration::ZERO).await, "nothing acknowledged yet");
        router.say(&Ack::Serving(version)).await;
        assert!(feed.served(version, LONG).await);
        router.say(&Ack::Drained("i1".to_owned())).await;
        assert!(feed.drained("i1", version, LONG).await);
        assert!(feed.drained("i2", first.version, LONG).await, "gone before this router came");

        // Several versions before the router is told.
        feed.update(|state| {
            state.set_all([("c".to_owned(), Some(1))]);
            state.set_all([("d".to_owned(), Some(1))]);
            state.set_all([("c".to_owned(), None), ("d".to_owned(), Some(2))]);
        });
        let third = router.next().await;
        assert_eq!((third.set, third.unset), (vec![("d".to_owned(), 2)], vec!["c".to_owned()]), "each key once");

        drop(router);
        assert!(feed.served(u64::MAX, LONG).await, "nobody is left to wait for");
    }

    #[tokio::test]
    async fn a_router_that_starts_again_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("feed");
        let feed = Names::new(rows(&[("a", 1)]));
        feed.expect_return(&path);
        assert!(feed.served(0, Duration::ZERO).await, "there was nobody");
        drop(listen(&path).expect("a socket of an earlier life"));
        feed.expect_return(&path);
        assert!(!feed.served(0, Duration::ZERO).await, "one may know an earlier life of this publisher");
        tokio::spawn({
            let (feed, path) = (feed.clone(), path.clone());
            async move { feed.serve(&path).await }
        });
        let mut router = Router::connect(&path).await;
        let first = router.next().await;
        router.say(&Ack::Serving(first.version)).await;
        assert!(feed.served(first.version, LONG).await);

        let gone = feed.set(&"a".to_owned(), None);
        drop(router);
        while !feed.lock().followers.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!feed.served(gone, Duration::ZERO).await);
        assert!(!feed.drained("i1", gone, Duration::ZERO).await);
        let mut router = Router::connect(&path).await;
        let whole = router.next().await;
        assert!(!feed.drained("i2", gone, Duration::ZERO).await, "it has yet to say that it took the table");
        router.say(&Ack::Holding(vec!["i1".to_owned()])).await;
        router.say(&Ack::Serving(whole.version)).await;
        assert!(feed.drained("i2", gone, LONG).await);
        assert!(!feed.drained("i1", gone, Duration::ZERO).await, "it began a request there by the table on its disk");
        router.say(&Ack::Drained("i1".to_owned())).await;
        assert!(feed.drained("i1", gone, LONG).await);
    }
}
