//! Answers that are kept for others on the wish of their app.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use model::routes::{AppRoute, Endpoint, RouteMode, Share, WorkloadId};
use model::{Clock, RoutePolicy, Timestamp};
use router::{RouterSettings, Timeouts};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::world::{LONG, World, app_id, app_row, instance, raw, read_head, send, settings, until};
use crate::{h2c, http2};

/// A clock that stands until somebody moves it.
struct Hands(AtomicI64);

impl Hands {
    fn pass(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// What the app answers to one path.
#[derive(Clone, Default)]
struct Page {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
}

/// An app whose pages can be changed, and what it was asked.
#[derive(Clone, Default)]
struct App {
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    asked: Arc<Mutex<Vec<(Method, String, HeaderMap)>>>,
}

impl App {
    fn set(&self, path: &str, headers: &[(&'static str, &'static str)], body: &'static str) {
        self.answer(path, 200, headers, body);
    }

    fn answer(&self, path: &str, status: u16, headers: &[(&'static str, &'static str)], body: &'static str) {
        let page = Page { status, headers: headers.to_vec(), body };
        self.pages.lock().expect("no panic").insert(path.to_owned(), page);
    }

    /// How often it was asked for a path.
    fn count(&self, path: &str) -> usize {
        self.asked.lock().expect("no panic").iter().filter(|(_, asked, _)| asked == path).count()
    }

    /// What the last request for a path said in a header.
    fn heard(&self, path: &str, name: &str) -> Option<String> {
        let asked = self.asked.lock().expect("no panic");
        let (_, _, headers) = asked.iter().rev().find(|(_, asked, _)| asked == path)?;
        headers.get(name).map(|value| value.to_str().expect("text").to_owned())
    }

    async fn instance(&self, name: &str) -> Endpoint {
        let app = self.clone();
        instance(name, move |request| {
            let path = request.uri().path_and_query().expect("a path").to_string();
            let known = request.headers().get("if-none-match").cloned();
            let asked = (request.method().clone(), path.clone(), request.headers().clone());
            app.asked.lock().expect("no panic").push(asked);
            let page = app.pages.lock().expect("no panic").get(&path).cloned().unwrap_or_default();
            async move {
                let tag = page.headers.iter().find(|(name, _)| *name == "etag").map(|(_, tag)| *tag);
                let is_known = known.is_some_and(|known| tag.is_some_and(|tag| known == tag));
                let status = if is_known { 304 } else { page.status.max(200) };
                let mut response = Response::builder().status(status);
                for (name, value) in page.headers {
                    response = response.header(name, value);
                }
                let body = if is_known { "" } else { page.body };
                response.body(Full::from(body)).expect("an answer")
            }
        })
        .await
    }
}

struct Kept {
    world: World,
    clock: Arc<Hands>,
    app: App,
}

impl Kept {
    /// The app `shop`, with these settings besides.
    async fn new(policy: &[(&str, &str)]) -> Self {
        Self::patient(Timeouts::default(), policy).await
    }

    async fn patient(timeouts: Timeouts, policy: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(Hands(AtomicI64::new(1_795_000_000_000)));
        let settings = RouterSettings { timeouts, clock: Arc::<Hands>::clone(&clock), ..settings(folder.path()) };
        let world = World::with(folder, settings).await;
        let app = App::default();
        let web = app.instance("web").await;
        world.instances("shop", &[&web]).await;
        let kept = Self { world, clock, app };
        kept.rule(policy).await;
        kept
    }

    async fn rule(&self, policy: &[(&str, &str)]) {
        self.world.rule("shop", &[&[("cache", "on")], policy].concat()).await;
    }

    /// The answer to `method` for `path` with these lines.
    async fn ask(&self, method: &str, path: &str, lines: &str) -> String {
        self.ask_host("shop.localhost", method, path, lines).await
    }

    async fn ask_host(&self, host: &str, method: &str, path: &str, lines: &str) -> String {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n");
        send(self.world.address, request.as_bytes()).await
    }

    async fn get(&self, path: &str) -> String {
        self.ask("GET", path, "").await
    }
}

fn value<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().expect("a head");
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| *found == name).map(|(_, value)| value)
}

fn status(answer: &str) -> &str {
    value(answer, "cache-status").unwrap_or("none")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a body").1
}

const HIT: &str = "platform; hit";
const STORED: &str = "platform; fwd=miss; stored";
const MISS: &str = "platform; fwd=miss";

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_allows_it_is_given_to_others_for_as_long_as_it_says() {
    let kept = Kept::new(&[]).await;
    kept.app.set("/", &[("cache-control", "max-age=60"), ("x-of", "app")], "hello");
    let first = kept.get("/").await;
    assert_eq!((status(&first), value(&first, "age"), body(&first)), (STORED, None, "hello"));
    kept.clock.pass(59);
    let second = kept.get("/").await;
    assert_eq!((status(&second), value(&second, "age"), body(&second)), (HIT, Some("59"), "hello"));
    assert_eq!((value(&second, "x-of"), value(&second, "content-length")), (Some("app"), Some("5")));
    assert_eq!(second.matches("via: ").count(), 1, "{second}");
    let head = kept.ask("HEAD", "/", "").await;
    assert_eq!((status(&head), value(&head, "content-length"), body(&head)), (HIT, Some("5"), ""));
    assert_eq!(kept.app.count("/"), 1);
    kept.world.logged(&["method=GET path=\"/\"", "dyno= connect=0ms", "status=200 bytes=5", "cache=hit"]).await;
    kept.world.logged(&["dyno=web.1", "cache=miss"]).await;
    kept.clock.pass(1);
    let third = kept.get("/").await;
    assert_eq!((status(&third), kept.app.count("/")), ("platform; fwd=stale; fwd-status=200; stored", 2));
    assert_eq!(status(&kept.get("/").await), HIT);

    let counted = || {
        let all = kept.world.details.totals();
        let of = |name: &str| all.iter().filter(|(place, _)| place.dyno == name).map(|(_, it)| it.cache).next_back();
        of("").zip(of("web.1")).map(|(own, app)| ([own.hits, own.misses, own.bytes], [app.hits, app.misses, app.bytes]))
    };
    // The last of the hits was asked for by HEAD, the first two by GET.
    until(async || counted() == Some(([3, 0, 10], [0, 2, 0]))).await;

    kept.world.rule("shop", &[]).await;
    let off = kept.get("/").await;
    assert_eq!((status(&off), kept.app.count("/")), ("none", 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_allow_it_is_asked_for_every_time() {
    let kept = Kept::new(&[]).await;
    let fresh = ("cache-control", "public, max-age=60");
    for (path, headers) in [
        ("/silent", &[] as &[_]),
        ("/heuristic", &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("cache-control", "public")]),
        ("/private", &[("cache-control", "private, max-age=60")]),
        ("/no-store", &[("cache-control", "max-age=60"), ("cache-control", "no-store")]),
        ("/no-cache", &[("cache-control", "no-cache, max-age=60")]),
        ("/cookie", &[fresh, ("set-cookie", "a=b")]),
        ("/vary", &[fresh, ("vary", "accept, *")]),
        ("/expired", &[("expires", "Sun, 06 Nov 1994 08:49:37 GMT")]),
    ] {
        kept.app.set(path, headers, "mine");
        for _ in 0..2 {
            assert_eq!(status(&kept.get(path).await), MISS, "{path}");
        }
        assert_eq!(kept.app.count(path), 2, "{path}");
    }
    kept.app.answer("/broken", 500, &[fresh], "oh");
    kept.app.answer("/gone", 404, &[fresh], "gone");
    for _ in 0..2 {
        kept.get("/broken").await;
        assert!(kept.get("/gone").await.starts_with("HTTP/1.1 404 "));
    }
    assert_eq!((kept.app.count("/broken"), kept.app.count("/gone")), (2, 1));
    kept.app.set("/secret", &[fresh], "of a client");
    kept.ask("GET", "/secret", "Cache-Control: no-store\r\n").await;
    assert_eq!(status(&kept.get("/secret").await), STORED, "nothing was kept of that request");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_asked_about_and_clients_who_have_it_get_no_body() {
    let kept = Kept::new(&[]).await;
    let modified = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    kept.app.set("/", &[("cache-control", "max-age=10"), ("etag", "\"one\""), modified, ("x-n", "1")], "hello");
    kept.get("/").await;
    for (asks, known) in [
        ("If-None-Match: \"zero\", W/\"one\"\r\n", true),
        ("If-None-Match: *\r\n", true),
        ("If-None-Match: \"two\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", false),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", true),
        ("If-Modified-Since: Monday, 07-Nov-94 08:49:37 GMT\r\n", true),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", false),
        ("If-Modified-Since: soon\r\n", false),
    ] {
        let answer = kept.ask("GET", "/", asks).await;
        assert_eq!(answer.starts_with("HTTP/1.1 304 "), known, "{asks}{answer}");
        assert_eq!((status(&answer), value(&answer, "etag")), (HIT, Some("\"one\"")), "{asks}");
        assert_eq!(value(&answer, "content-length").is_none(), known, "{asks}");
    }
    assert_eq!(kept.app.count("/"), 1);

    kept.app.set("/", &[("cache-control", "max-age=20"), ("etag", "\"one\""), ("x-n", "2"), ("x-n", "3")], "unseen");
    kept.clock.pass(11);
    let again = kept.get("/").await;
    assert!(again.starts_with("HTTP/1.1 200 "), "{again}");
    assert_eq!((status(&again), body(&again)), ("platform; fwd=stale; fwd-status=304", "hello"));
    assert_eq!(kept.app.heard("/", "if-none-match").as_deref(), Some("\"one\""));
    assert_eq!(kept.app.heard("/", "if-modified-since").as_deref(), Some(modified.1));
    kept.world.logged(&["dyno=web.1", "status=200", "cache=revalidated"]).await;
    kept.clock.pass(19);
    let hit = kept.get("/").await;
    assert_eq!((status(&hit), value(&hit, "age"), body(&hit)), (HIT, Some("19"), "hello"));
    assert!(hit.contains("x-n: 2\r\nx-n: 3\r\n"), "what the app says now: {hit}");

    kept.app.set("/", &[("cache-control", "max-age=20"), ("etag", "\"two\"")], "changed");
    kept.clock.pass(2);
    let changed = kept.ask("GET", "/", "If-None-Match: \"zero\"\r\n").await;
    assert_eq!(kept.app.heard("/", "if-none-match").as_deref(), Some("\"one\""), "not what the client has");
    assert_eq!(body(&changed), "changed");
    assert_eq!(body(&kept.get("/").await), "changed");
    assert_eq!(kept.app.count("/"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_differ_by_a_header_are_given_to_those_who_sent_the_same() {
    let kept = Kept::new(&[]).await;
    kept.app.set("/", &[("cache-control", "max-age=60"), ("vary", "Accept-Language")], "hello");
    let ask = async |language: &str| kept.ask("GET", "/", &format!("Accept-Language: {language}\r\n")).await;
    assert_eq!(status(&ask("de").await), STORED);
    assert_eq!(status(&ask("en").await), "platform; fwd=vary-miss; stored");
    assert_eq!(status(&kept.get("/").await), "platform; fwd=vary-miss; stored");
    for language in ["de", "en"] {
        assert_eq!(status(&ask(language).await), HIT);
    }
    assert_eq!(status(&kept.get("/").await), HIT);
    kept.app.set("/coded", &[("cache-control", "max-age=60"), ("vary", "accept-encoding")], "hello");
    kept.ask("GET", "/coded", "Accept-Encoding: gzip, br\r\n").await;
    assert_eq!(
        status(&kept.ask("GET", "/coded", "Accept-Encoding: br,gzip\r\n").await),
        HIT,
        "the same said otherwise"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_differ_by_host_path_and_query() {
    let kept = Kept::new(&[]).await;
    let all = ["/", "/a", "/a?b=1", "/a?b=2", "/A", "/a/"];
    for path in all {
        kept.app.set(path, &[("cache-control", "max-age=60")], "hello");
        assert_eq!(status(&kept.get(path).await), STORED, "{path}");
    }
    for path in all {
        assert_eq!(status(&kept.get(path).await), HIT, "{path}");
    }
    let other = kept.ask_host("shop.localhost:81", "GET", "/", "").await;
    assert_eq!(status(&other), STORED, "the app may have said where it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_changes_is_forgotten() {
    let kept = Kept::new(&[]).await;
    let fresh = ("cache-control", "max-age=60");
    for path in ["/", "/list", "/other"] {
        kept.app.set(path, &[fresh], "hello");
    }
    let fill = async || {
        for path in ["/", "/list", "/other"] {
            kept.get(path).await;
            assert_eq!(status(&kept.get(path).await), HIT, "{path}");
        }
    };
    fill().await;
    kept.app.answer("/", 500, &[], "no");
    kept.ask("POST", "/", "Content-Length: 0\r\n").await;
    assert_eq!(status(&kept.get("/").await), HIT, "nothing was changed");
    for method in ["POST", "PUT", "DELETE", "PATCH", "FROBNICATE"] {
        kept.app.set("/", &[fresh, ("location", "/list")], "hello");
        let changed = kept.ask(method, "/", "Content-Length: 0\r\n").await;
        assert_eq!(status(&changed), "platform; fwd=method", "{method}");
        assert_eq!(status(&kept.get("/").await), STORED, "{method}");
        assert_eq!(status(&kept.get("/list").await), STORED, "where it says something is, {method}");
        assert_eq!(status(&kept.get("/other").await), HIT, "{method}");
    }
    kept.ask("OPTIONS", "/", "").await;
    assert_eq!(status(&kept.get("/").await), HIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_before_a_change_is_not_kept_after_it() {
    let kept = Kept::new(&[]).await;
    let (gate, arrived) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (opened, came) = (Arc::clone(&gate), Arc::clone(&arrived));
    let slow = instance("slow", move |request| {
        let (opened, came) = (Arc::clone(&opened), Arc::clone(&came));
        async move {
            if request.method() == Method::GET {
                came.add_permits(1);
                opened.acquire().await.expect("open").forget();
            }
            Response::builder().header("cache-control", "max-age=60").body(Full::from("old")).expect("an answer")
        }
    })
    .await;
    kept.world.instances("shop", &[&slow]).await;
    let early = kept.get("/");
    let change = async {
        arrived.acquire().await.expect("open").forget();
        kept.ask("POST", "/", "Content-Length: 0\r\n").await;
        gate.add_permits(1);
    };
    let (early, ()) = tokio::join!(early, change);
    assert_eq!(body(&early), "old");
    gate.add_permits(1);
    assert!(status(&kept.get("/").await).starts_with(MISS), "it may be from before");
    assert_eq!(status(&kept.get("/").await), HIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_what_was_before_a_release_a_purge_or_maintenance() {
    let kept = Kept::new(&[]).await;
    kept.app.set("/", &[("cache-control", "max-age=600")], "old");
    let next = App::default();
    next.set("/", &[("cache-control", "max-age=600")], "new");
    let web = next.instance("next").await;
    kept.world.instances("shop-v2", &[&web]).await;
    let policy = |settings: &[(&str, &str)]| {
        let mut policy = RoutePolicy::default();
        [&[("cache", "on")], settings].concat().iter().for_each(|(name, text)| policy.set(name, text).expect(name));
        policy
    };
    let route = async |mode: RouteMode, settings: &[(&str, &str)]| {
        let row = AppRoute { policy: Some(Box::new(policy(settings))), ..app_row("shop", mode) };
        let version = kept.world.names.set(&app_id("shop"), Some(row));
        assert!(kept.world.names.served(version, LONG).await);
    };
    let serve = |workload: &str| RouteMode::serve(WorkloadId(workload.to_owned()));
    kept.get("/").await;
    assert_eq!(status(&kept.get("/").await), HIT);
    route(serve("shop"), &[("compress", "on")]).await;
    assert_eq!(status(&kept.get("/").await), HIT, "nothing that matters to it");
    route(serve("shop"), &[("cache_purged", "2026-11-23T06:22:00Z")]).await;
    assert_eq!(status(&kept.get("/").await), STORED);
    route(RouteMode::Maintenance, &[("cache_purged", "2026-11-23T06:22:00Z")]).await;
    assert!(kept.get("/").await.starts_with("HTTP/1.1 503 "));
    route(serve("shop"), &[("cache_purged", "2026-11-23T06:22:00Z")]).await;
    assert_eq!(status(&kept.get("/").await), STORED);
    assert_eq!(status(&kept.get("/").await), HIT);

    route(serve("shop-v2"), &[]).await;
    let new = kept.get("/").await;
    assert_eq!((status(&new), body(&new)), (STORED, "new"));
    route(serve("shop"), &[]).await;
    let old = kept.get("/").await;
    assert_eq!((status(&old), body(&old)), (STORED, "old"), "a rollback begins anew, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_releases_has_its_own_while_both_serve() {
    let kept = Kept::new(&[]).await;
    kept.app.set("/", &[("cache-control", "max-age=600")], "old");
    let next = App::default();
    next.set("/", &[("cache-control", "max-age=600")], "new");
    let web = next.instance("next").await;
    kept.world.instances("shop-v2", &[&web]).await;
    kept.get("/").await;
    let shares = ["shop", "shop-v2"].map(|id| Share { workload: WorkloadId(id.to_owned()), weight: 1 });
    let settings = [("cache", "on"), ("canary_match", "header:x-canary=yes")];
    kept.world.rule_in("shop", RouteMode::Serve(shares.into()), &settings).await;
    for _ in 0..20 {
        assert_eq!(body(&kept.ask("GET", "/", "X-Canary: yes\r\n").await), "new");
    }
    assert_eq!(next.count("/"), 1, "it was kept");
    let mut seen = BTreeMap::new();
    for _ in 0..100 {
        *seen.entry(body(&kept.get("/").await).to_owned()).or_insert(0) += 1;
    }
    assert!(seen["old"] > 10 && seen["new"] > 10, "{seen:?}");
    assert_eq!((kept.app.count("/"), next.count("/")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_those_get_who_say_who_they_are_is_theirs_unless_it_says_otherwise() {
    let kept = Kept::new(&[]).await;
    let me = "Authorization: Bearer me\r\n";
    kept.app.set("/mine", &[("cache-control", "max-age=60")], "mine");
    assert_eq!(status(&kept.ask("GET", "/mine", me).await), MISS);
    assert_eq!(status(&kept.get("/mine").await), STORED, "nothing was kept of that");
    let mine = kept.ask("GET", "/mine", me).await;
    assert_eq!(status(&mine), "platform; fwd=request", "what others get may not be what they get");
    for said in ["public, max-age=60", "s-maxage=60", "max-age=60, must-revalidate"] {
        let path = format!("/{}", said.len());
        kept.app.set(&path, &[("cache-control", said)], "ours");
        assert_eq!(status(&kept.ask("GET", &path, me).await), STORED, "{said}");
        assert_eq!(status(&kept.ask("GET", &path, "Authorization: Bearer you\r\n").await), HIT, "{said}");
        assert_eq!(status(&kept.get(&path).await), HIT, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_the_app_come_before_what_is_kept() {
    let kept = Kept::new(&[("cors", "*"), ("affinity", "on")]).await;
    kept.app.set("/", &[("cache-control", "max-age=60")], "hello");
    let first = kept.get("/").await;
    assert!(first.contains("set-cookie: heroku-session-affinity="), "{first}");
    let hit = kept.ask("GET", "/", "Origin: https://a.example\r\n").await;
    assert_eq!((status(&hit), value(&hit, "access-control-allow-origin")), (HIT, Some("*")));
    assert!(!hit.contains("set-cookie"), "{hit}");
    let plain = kept.get("/").await;
    assert!(status(&plain) == HIT && !plain.contains("access-control"), "each request has its own: {plain}");

    kept.rule(&[("deny", "127.0.0.1"), ("cors", "*")]).await;
    let denied = kept.get("/").await;
    assert!(denied.starts_with("HTTP/1.1 403 ") && !denied.contains("hello"), "{denied}");
    kept.rule(&[("rate_limit", "2/1h")]).await;
    assert_eq!(status(&kept.get("/").await), HIT, "other rules forget nothing");
    kept.get("/").await;
    assert!(kept.get("/").await.starts_with("HTTP/1.1 429 "));
    kept.rule(&[("canonical_host", "www.example.com")]).await;
    assert!(kept.get("/").await.starts_with("HTTP/1.1 301 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_compressed_for_those_who_take_that() {
    let kept = Kept::new(&[("compress", "on")]).await;
    let text: &'static str = Box::leak("a line of a text\n".repeat(500).into_boxed_str());
    kept.app.set("/", &[("cache-control", "max-age=60"), ("content-type", "text/plain"), ("etag", "\"one\"")], text);
    let gzip = "Accept-Encoding: gzip\r\n";
    let first = kept.ask("GET", "/", gzip).await;
    assert_eq!((status(&first), value(&first, "content-encoding")), (STORED, Some("gzip")));
    let plain = kept.get("/").await;
    assert_eq!((status(&plain), value(&plain, "content-encoding"), body(&plain)), (HIT, None, text));
    let packed = kept.ask("GET", "/", gzip).await;
    assert_eq!((status(&packed), value(&packed, "content-encoding")), (HIT, Some("gzip")));
    assert!(packed.len() < text.len() / 2 && value(&packed, "etag") == Some("W/\"one\""), "{packed}");
    let known = kept.ask("GET", "/", &format!("{gzip}If-None-Match: W/\"one\"\r\n")).await;
    assert!(known.starts_with("HTTP/1.1 304 "), "{known}");
    let head = kept.ask("HEAD", "/", gzip).await;
    assert_eq!((status(&head), value(&head, "content-encoding"), body(&head)), (HIT, Some("gzip"), ""));
    assert_eq!(kept.app.count("/"), 1);
}

/// An instance that says these bytes and ends the connection.
async fn says(bytes: String, count: &Arc<AtomicUsize>) -> Endpoint {
    let count = Arc::clone(count);
    raw("says", move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        let bytes = bytes.clone();
        async move {
            let _ = stream.write_all(bytes.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_an_answer_is_never_kept_nor_one_that_is_too_large() {
    let kept = Kept::new(&[("cache_max_answer", "1KiB")]).await;
    let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\n";
    let (long, fits) = ("x".repeat(1025), "x".repeat(1024));
    let chunked =
        |body: &str| format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (bytes, is_kept) in [
        (format!("{head}Content-Length: 5\r\n\r\nhel"), false),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), false),
        (format!("{head}\r\nhello"), false),
        (format!("{head}Content-Length: 1025\r\n\r\n{long}"), false),
        (chunked(&long), false),
        (chunked(&fits), true),
        (format!("{head}Content-Length: 1024\r\n\r\n{fits}"), true),
        (format!("{head}Content-Length: 0\r\n\r\n"), true),
        (format!("{head}Transfer-Encoding: chunked\r\nTrailer: x\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\n"), false),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let web = says(bytes.clone(), &count).await;
        kept.world.instances("shop", &[&web]).await;
        let (first, second) = (kept.get("/").await, kept.get("/").await);
        assert_eq!(status(&second) == HIT, is_kept, "{bytes}\n{second}");
        assert!(
            !is_kept || body(&first).trim_start_matches("400\r\n").trim_end_matches("\r\n0\r\n\r\n") == body(&second)
        );
        assert_eq!(count.load(Ordering::SeqCst), if is_kept { 1 } else { 2 }, "{bytes}");
        // Another one's answer is not this one's.
        kept.ask("POST", "/", "Content-Length: 0\r\n").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_asked_of_the_app_or_given_as_the_whole() {
    let kept = Kept::new(&[]).await;
    let range = "Range: bytes=0-1\r\n";
    kept.app.answer("/", 206, &[("cache-control", "max-age=60"), ("content-range", "bytes 0-1/5")], "he");
    for _ in 0..2 {
        assert!(kept.ask("GET", "/", range).await.starts_with("HTTP/1.1 206 "));
    }
    assert_eq!((kept.app.count("/"), kept.app.heard("/", "range").as_deref()), (2, Some("bytes=0-1")));
    kept.app.set("/", &[("cache-control", "max-age=60")], "hello");
    assert_eq!(body(&kept.get("/").await), "hello");
    let whole = kept.ask("GET", "/", range).await;
    assert_eq!((status(&whole), body(&whole)), (HIT, "hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_want_the_same_at_once_cost_the_app_one_request() {
    let kept = Kept::new(&[]).await;
    let count = Arc::new(AtomicUsize::new(0));
    let slow = async |gate: &Arc<Semaphore>, headers: &'static [(&'static str, &'static str)]| {
        count.store(0, Ordering::SeqCst);
        let (gate, count) = (Arc::clone(gate), Arc::clone(&count));
        let web = instance("slow", move |_| {
            let (gate, count) = (Arc::clone(&gate), Arc::clone(&count));
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.expect("open").forget();
                let mut response = Response::builder();
                for (name, value) in headers {
                    response = response.header(*name, *value);
                }
                response.body(Full::from("hello")).expect("an answer")
            }
        })
        .await;
        kept.world.instances("shop", &[&web]).await;
    };
    let asked = async |times: usize| until(async || count.load(Ordering::SeqCst) == times).await;
    let (gate, public) = (Arc::new(Semaphore::new(0)), &[("cache-control", "max-age=60")]);
    slow(&gate, public).await;
    let crowd = async |path: &'static str| {
        let mut streams = Vec::new();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(kept.world.address).await.expect("a connection");
            let request = format!("GET {path} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            streams.push(stream);
        }
        streams
    };
    let answers = async |streams: Vec<TcpStream>| {
        let mut all = Vec::new();
        for mut stream in streams {
            all.push(tokio::time::timeout(LONG, read_head(&mut stream)).await.expect("it comes"));
        }
        all
    };
    let streams = crowd("/").await;
    asked(1).await;
    gate.add_permits(1);
    let all = answers(streams).await;
    assert!(all.iter().all(|head| head.starts_with("HTTP/1.1 200 ")), "{all:?}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(all.iter().filter(|head| status(head) == STORED).count(), 1);

    // Who asked goes away: another one asks.
    let gate = Arc::new(Semaphore::new(0));
    slow(&gate, public).await;
    let mut first = TcpStream::connect(kept.world.address).await.expect("a connection");
    first.write_all(b"GET /left HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await.expect("sent");
    asked(1).await;
    let streams = crowd("/left").await;
    drop(first);
    asked(2).await;
    gate.add_permits(20);
    assert!(answers(streams).await.iter().all(|head| head.starts_with("HTTP/1.1 200 ")));
    assert_eq!(count.load(Ordering::SeqCst), 2);

    // Nobody else can have the answer: each asks, and the next ones do not even wait.
    let (first, rest) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    slow(&first, &[("cache-control", "private")]).await;
    let streams = crowd("/mine").await;
    asked(1).await;
    first.add_permits(1);
    asked(20).await;
    first.add_permits(19);
    assert!(answers(streams).await.iter().all(|head| status(head) == MISS));
    slow(&rest, &[("cache-control", "private")]).await;
    let streams = crowd("/mine").await;
    asked(20).await;
    rest.add_permits(20);
    answers(streams).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_shown_while_it_is_fetched_or_the_app_fails_if_it_says_so() {
    let kept = Kept::new(&[]).await;
    kept.app.set("/", &[("cache-control", "max-age=10, stale-while-revalidate=30")], "old");
    kept.get("/").await;
    kept.app.set("/", &[("cache-control", "max-age=10, stale-while-revalidate=30")], "new");
    kept.clock.pass(15);
    let late = kept.get("/").await;
    assert_eq!((status(&late), body(&late)), ("platform; hit; ttl=-5; detail=stale-while-revalidate", "old"));
    until(async || status(&kept.get("/").await) == HIT).await;
    assert_eq!((body(&kept.get("/").await), kept.app.count("/")), ("new", 2));
    kept.world.logged(&["dyno=web.1", "cache=refresh"]).await;
    kept.clock.pass(41);
    assert_eq!(status(&kept.get("/").await), "platform; fwd=stale; fwd-status=200; stored", "too late");

    let headers = [("cache-control", "max-age=10, stale-if-error=30")];
    kept.app.set("/error", &headers, "old");
    kept.app.set("/strict", &[("cache-control", "max-age=10, stale-if-error=30, must-revalidate")], "old");
    for path in ["/error", "/strict"] {
        kept.get(path).await;
        kept.app.answer(path, 503, &[], "down");
    }
    kept.clock.pass(11);
    let saved = kept.get("/error").await;
    assert_eq!((status(&saved), body(&saved)), ("platform; fwd=stale; fwd-status=503; detail=stale-if-error", "old"));
    assert!(saved.starts_with("HTTP/1.1 200 "), "{saved}");
    assert_eq!(body(&kept.get("/strict").await), "down");
    let nobody = crate::world::nobody("nobody");
    kept.world.instances("shop", &[&nobody]).await;
    assert_eq!(body(&kept.get("/error").await), "old");
    kept.world.logged(&["cache=stale"]).await;
    kept.clock.pass(30);
    assert!(kept.get("/error").await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_takes_no_more_than_it_may() {
    let kept = Kept::new(&[("cache_size", "64KiB")]).await;
    let large: &'static str = Box::leak("x".repeat(10_000).into_boxed_str());
    let mut paths = String::new();
    for number in 0..50 {
        let path = format!("/{number}");
        kept.app.set(&path, &[("cache-control", "max-age=60")], large);
        kept.get(&path).await;
        let _ = write!(paths, "{path} ");
    }
    let mut hits = 0;
    for number in 0..50 {
        // Others are kept then: none of these is.
        hits += usize::from(status(&kept.ask("HEAD", &format!("/{number}"), "").await) == HIT);
    }
    assert!((1..=6).contains(&hits), "{hits} of {paths}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_asks_for_that_others_must_not_get_passes_by() {
    let kept = Kept::new(&[]).await;
    kept.app.set("/", &[("cache-control", "max-age=60")], "hello");
    kept.get("/").await;
    for lines in ["Content-Length: 2\r\n", "If-Match: \"x\"\r\n", "If-Unmodified-Since: now\r\n"] {
        let body = if lines.starts_with('C') { "hi" } else { "" };
        let request = format!("GET / HTTP/1.1\r\nHost: shop.localhost\r\n{lines}Connection: close\r\n\r\n{body}");
        let answer = send(kept.world.address, request.as_bytes()).await;
        assert_eq!(status(&answer), "platform; fwd=bypass", "{lines}");
    }
    assert_eq!(kept.app.count("/"), 4);
    let known = kept.ask("GET", "/other", "If-None-Match: \"one\"\r\n").await;
    assert_eq!(kept.app.heard("/other", "if-none-match").as_deref(), Some("\"one\""), "{known}");
    kept.app.set("/tagged", &[("cache-control", "max-age=60"), ("etag", "\"one\"")], "hello");
    let unchanged = kept.ask("GET", "/tagged", "If-None-Match: \"one\"\r\n").await;
    assert!(unchanged.starts_with("HTTP/1.1 304 "), "{unchanged}");
    assert_eq!(body(&kept.get("/tagged").await), "hello", "a 304 is no answer for others");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_reaches_its_client_before_it_is_whole() {
    let kept = Kept::new(&[]).await;
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let web = raw("slow", move |mut stream| {
        let opened = Arc::clone(&opened);
        async move {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nfirst";
            stream.write_all(head.as_bytes()).await.expect("sent");
            opened.acquire().await.expect("open").forget();
            let _ = stream.write_all(b"later").await;
        }
    })
    .await;
    kept.world.instances("shop", &[&web]).await;
    let mut stream = TcpStream::connect(kept.world.address).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await.expect("sent");
    read_head(&mut stream).await;
    let mut five = [0; 5];
    let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut five);
    tokio::time::timeout(LONG, read).await.expect("it comes").expect("readable");
    assert_eq!(&five, b"first");
    gate.add_permits(1);
    let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut five);
    tokio::time::timeout(LONG, read).await.expect("it comes").expect("readable");
    until(async || status(&kept.get("/").await) == HIT).await;
    assert_eq!(body(&kept.get("/").await), "firstlater");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_apps_of_http2_are_treated_alike() {
    let kept = Kept::new(&[]).await;
    let known = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&known);
    let (web, _) = h2c::instance("web", 100, move |request| {
        let is_known = request.headers().contains_key("if-none-match");
        counted.fetch_add(usize::from(is_known), Ordering::SeqCst);
        async move {
            let mut response = h2c::full(if is_known { "" } else { "hello" });
            *response.status_mut() = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
            response.headers_mut().insert("cache-control", HeaderValue::from_static("max-age=10"));
            response.headers_mut().insert("etag", HeaderValue::from_static("\"one\""));
            response
        }
    })
    .await;
    h2c::serve(&kept.world, "shop", &[&web], &[("cache", "on")]).await;
    assert_eq!(status(&kept.get("/").await), STORED);
    let mut client = http2::client(&kept.world).await;
    let mut ask = async |method: &str| {
        let request = http2::request(method, "/").body(http2::empty()).expect("a request");
        let answer = http2::send(&mut client, request).await;
        let of = |name| answer.headers()[name].to_str().expect("text").to_owned();
        (of("cache-status"), of("content-length"), http2::text(answer).await)
    };
    assert_eq!(ask("GET").await, (HIT.to_owned(), "5".to_owned(), "hello".to_owned()));
    assert_eq!(ask("HEAD").await, (HIT.to_owned(), "5".to_owned(), String::new()));
    kept.clock.pass(10);
    let again = "platform; fwd=stale; fwd-status=304".to_owned();
    assert_eq!(ask("GET").await, (again, "5".to_owned(), "hello".to_owned()));
    assert_eq!((ask("GET").await.0.as_str(), known.load(Ordering::SeqCst)), (HIT, 1));
}
