//! What the caches of a router have in common, and by what answers are told apart.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};
use model::Timestamp;

use super::fetch::Address;
use super::rules::Allowed;
use super::store::{Cache, Entry, Kept, Put, Store};
use crate::headers::Hop;

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

/// An answer of so many bytes, if there is room for it.
fn entry(store: &Arc<Store>, length: usize) -> Option<Arc<Entry>> {
    let charge = store.charge(Entry::weight(&HeaderMap::new(), length as u64))?;
    let lifetime = Duration::from_secs(60);
    let allowed = Allowed { lifetime, while_revalidate: Duration::ZERO, if_error: Duration::ZERO, is_for_all: false };
    let body = Arc::new(Kept { bytes: Bytes::from(vec![0; length]), charge });
    let (headers, age) = (HeaderMap::new(), Duration::ZERO);
    Some(Arc::new(Entry { status: StatusCode::OK, headers, body, came: NOW, age, allowed }))
}

fn put(cache: &Cache, key: &str, entry: &Arc<Entry>) -> Put {
    let moment = cache.store().moment();
    cache.put((key.as_bytes(), moment), (&[], &HeaderMap::new()), entry)
}

fn has(cache: &Cache, key: &str) -> bool {
    cache.find(key.as_bytes(), &HeaderMap::new(), NOW).entry.is_some()
}

#[test]
fn all_caches_together_take_no_more_than_the_router_gives() {
    let store = Store::new(1 << 20);
    let (large, small) = (Cache::new(&store, 1 << 30).expect("a cache"), Cache::new(&store, 1 << 30).expect("a cache"));
    put(&small, "mine", &entry(&store, 1000).expect("room"));
    for number in 0..500 {
        let answer = entry(&store, 10_000).expect("room is made");
        assert_eq!(put(&large, &number.to_string(), &answer), Put::Kept);
        assert!(store.used() <= 1 << 20, "{}", store.used());
    }
    assert!(has(&small, "mine"), "it is the largest that makes room");
    assert!(has(&large, "499") && large.weight() > 900_000, "{}", large.weight());
    let held = entry(&store, 900_000).expect("all room is made");
    assert!(entry(&store, 900_000).is_none(), "what somebody is being sent is there as well");
    drop(held);
    assert!(entry(&store, 900_000).is_some());
    let tiny = Cache::new(&store, 1000).expect("a cache");
    assert_eq!(put(&tiny, "one", &entry(&store, 1000).expect("room")), Put::NoRoom);
    drop((large, small));
    assert_eq!(store.used(), 0, "what is forgotten takes nothing");
}

#[test]
fn what_is_newer_stays() {
    let store = Store::new(1 << 20);
    let cache = Cache::new(&store, 1 << 20).expect("a cache");
    let (vary, answer) = ([HeaderName::from_static("accept")], entry(&store, 10).expect("room"));
    let request = HeaderMap::from_iter([(vary[0].clone(), HeaderValue::from_static("text/html"))]);
    let put = |moment, names: &[_]| cache.put((b"key", moment), (names, &request), &answer) == Put::Kept;
    let found = || cache.find(b"key", &request, NOW).entry.is_some();
    let [early, later] = [store.moment(), store.moment()];
    assert!(put(later, &vary) && found());
    assert!(!put(early, &vary) && !put(early, &[]));
    assert!(!cache.find(b"key", &HeaderMap::new(), NOW).is_variant || found(), "others ask for their own");
    cache.forget(b"key");
    assert!(!found() && !put(later, &vary) && !put(later, &[]));
    // What was under the same header before it was forgotten is not found again.
    let other = HeaderMap::from_iter([(vary[0].clone(), HeaderValue::from_static("text/plain"))]);
    assert_eq!(cache.put((b"key", store.moment()), (&vary, &other), &answer), Put::Kept);
    assert!(!found());
}

#[test]
fn what_may_make_another_answer_makes_another_key() {
    let at = |hop: &Hop, host: &'static str, path: &'static str, headers: &HeaderMap| {
        Address::new(hop, (&HeaderValue::from_static(host), &Uri::from_static(path)), None, headers).key().to_vec()
    };
    let (none, client) = (HeaderMap::new(), IpAddr::from([9, 9, 9, 9]));
    let plain = Hop::new(client, 80, None);
    let first = at(&plain, "a.test", "/", &none);
    assert_eq!(first, at(&Hop::new(IpAddr::from([8, 8, 8, 8]), 80, None), "a.test", "/", &none), "whoever asks");
    let behind = |name: &'static str, value| {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
        at(&plain.behind(&headers, |_| true), "a.test", "/", &headers)
    };
    let mut all = vec![
        first,
        at(&Hop::new(client, 443, Some("tls1.3")), "a.test", "/", &none),
        at(&Hop::new(client, 8080, None), "a.test", "/", &none),
        at(&plain, "b.test", "/", &none),
        at(&plain, "a.test", "/?", &none),
        at(&plain, "a.test", "/?a", &none),
        at(&plain, "a.test", "/a", &none),
        behind("x-forwarded-host", "b.test"),
        behind("x-forwarded-host", "c.test"),
        behind("x-forwarded-prefix", "b.test"),
    ];
    all.sort();
    let count = all.len();
    all.dedup();
    assert_eq!(all.len(), count);
}
