//! Figures of the API over a large database, one a line: `label|value`. `make bench` runs it.
#![expect(clippy::print_stdout, reason = "prints figures")]

use std::fmt::Write;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use model::clock::SystemRandom;
use model::{AppId, BuildId, Clock, ReleaseId};

use super::*;
use crate::accounts::TokenRequest;
use crate::rollout::Rollout;
use crate::testing::http::Server;
use crate::testing::{TestController, image, postgres};

/// The path and the range of the n-th request of a kind.
type Request<'a> = &'a dyn Fn(usize) -> (String, String);

const APPS: usize = 10_000;
const RELEASES: usize = 1_000_000;
/// Rows of one statement.
const ROWS: usize = 500;
/// Requests of one kind.
const REQUESTS: usize = 1000;
const WRITERS: usize = 8;
const WRITING: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: `make bench` runs it"]
async fn sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    figures("SQLite", format!("sqlite://{}", folder.path().join("platform.db").display())).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: `make bench` runs it"]
async fn postgresql() {
    figures("PostgreSQL", postgres::database().await).await;
}

async fn figures(kind: &str, url: String) {
    let server = Server::over(TestController::over(url).await).await;
    let controller = &server.test.controller;
    let store = &controller.store;
    let user = server.test.user("ada@example.com").await;
    let token = controller.issue_token(&server.test.actor(&user), TokenRequest::default()).await.expect("a token").text;
    let apps = seed(store, &user).await;
    let api =
        Api { address: server.address.clone(), token, client: Client::builder(TokioExecutor::new()).build_http() };
    let row = |what: &str, value: String| println!("{kind}, 10,000 apps, 1,000,000 releases: {what}|{value}");

    let some = |number: usize| &apps[(number * 7919) % APPS];
    let middle = apps[APPS / 2].1.clone();
    let kinds: &[(&str, Request<'_>)] = &[
        ("list 200 apps", &|_| ("/apps".to_owned(), String::new())),
        ("list 200 apps from the middle", &|_| ("/apps".to_owned(), format!("name ]{middle}..; max=200"))),
        ("get an app", &|n| (format!("/apps/{}", some(n).1), String::new())),
        ("list an app's 100 releases", &|n| (format!("/apps/{}/releases", some(n).1), String::new())),
        ("list its newest 15 releases", &|n| {
            (format!("/apps/{}/releases", some(n).1), "version ..; max=15,order=desc".to_owned())
        }),
        ("get a release", &|n| (format!("/apps/{}/releases/{}", some(n).1, 1 + n % 100), String::new())),
        ("get the config vars", &|n| (format!("/apps/{}/config-vars", some(n).1), String::new())),
        ("list an app's builds", &|n| (format!("/apps/{}/builds", some(n).1), String::new())),
    ];
    for (what, request) in kinds {
        row(&format!("{what}, p50 and p99"), api.measure(*request).await);
    }

    let started = Instant::now();
    let mut rollout = Rollout::new(controller.clone());
    rollout.begin().await.expect("published");
    row("the rollout reads all apps", millis(started.elapsed()));
    tokio::spawn(rollout.run());
    row("memory of the controller and its client", memory());

    let written = write(&api, &apps, |name, n| {
        let body = format!(r#"{{"CHANGED":"{n}"}}"#);
        ("PATCH", format!("/apps/{name}/config-vars"), body)
    });
    row("config:set by 8 at once", written.await);
    let written = write(&api, &apps, |_, n| ("POST", "/apps".to_owned(), format!(r#"{{"name":"another-{n}"}}"#)));
    row("create by 8 at once", written.await);
}

struct Api {
    address: String,
    token: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Api {
    async fn send(&self, method: &str, path: &str, range: &str, body: String) -> u16 {
        let request = http::Request::builder().method(method).uri(format!("{}{path}", self.address));
        let request = request.header("authorization", format!("Bearer {}", self.token)).header("range", range);
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let answer = self.client.request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        answer.into_body().collect().await.expect("a body");
        status
    }

    /// The median and the 99th percentile of requests one after the other.
    async fn measure(&self, request: Request<'_>) -> String {
        let mut times = Vec::with_capacity(REQUESTS);
        for number in 0..REQUESTS + 20 {
            let (path, range) = request(number);
            let started = Instant::now();
            let status = self.send("GET", &path, &range, String::new()).await;
            assert!(matches!(status, 200 | 206), "{path}: {status}");
            times.push(started.elapsed());
        }
        // The first fill caches and prepare statements.
        times.drain(..20);
        times.sort_unstable();
        format!("{}, {}", millis(times[REQUESTS / 2]), millis(times[REQUESTS * 99 / 100]))
    }
}

/// Requests that change something, of several clients at once: how many a second.
async fn write(
    api: &Api,
    apps: &[(AppId, String)],
    request: impl Fn(&str, usize) -> (&'static str, String, String),
) -> String {
    let started = Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let writer = async || {
        while started.elapsed() < WRITING {
            let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (method, path, body) = request(&apps[(number * 7919) % APPS].1, number);
            let status = api.send(method, &path, "", body).await;
            assert!(status < 300, "{path}: {status}");
        }
    };
    futures::future::join_all((0..WRITERS).map(|_| writer())).await;
    let count = next.load(std::sync::atomic::Ordering::Relaxed);
    format!("{:.0}/s", f64::from(u32::try_from(count).expect("few")) / started.elapsed().as_secs_f64())
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a line");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    format!("{:.0} MiB", kib / 1024.0)
}

/// Writes apps, releases and builds as the store would, only many at once.
async fn seed(store: &Store, user: &User) -> Vec<(AppId, String)> {
    let now = crate::testing::TestClock::default().now().as_millis();
    let apps: Vec<_> = (0..APPS).map(|n| (AppId::random(&SystemRandom), format!("app-{n:05}"))).collect();
    let last = RELEASES / APPS;
    let image = image(&["web"]);
    let digest = image.digest.as_str();
    let document = serde_json::to_string(&image).expect("JSON");
    let mut batch = Batch::new(store);
    batch.row("images (digest, document, created_at)", &format!("'{digest}', '{document}', {now}")).await;
    batch.flush().await;
    let mut vars = crate::config_vars::ConfigVars::default();
    vars.apply(&(0..10).map(|n| (format!("VAR_{n}").parse().expect("a name"), Some("x".repeat(40)))).collect());
    let mut currents = Vec::new();
    for (number, (app, name)) in apps.iter().enumerate() {
        let current = ReleaseId::random(&SystemRandom);
        currents.push(current);
        batch
            .row(
                "apps (id, name, uid, maintenance, stack, buildpacks, last_version, current_release_id, released_at, \
                 created_at, updated_at)",
                &format!(
                    "'{app}', '{name}', {}, 0, 'debian-13', '[]', {last}, '{current}', {now}, {now}, {now}",
                    200_000 + number
                ),
            )
            .await;
    }
    batch.flush().await;
    for (app, _) in &apps {
        let id = store.new_uuid();
        batch
            .row(
                "collaborators (id, app_id, user_id, role, created_at)",
                &format!("'{id}', '{app}', '{}', 'owner', {now}", user.id),
            )
            .await;
    }
    batch.flush().await;
    let mut builds = Vec::new();
    for ((app, _), current) in apps.iter().zip(&currents) {
        for version in 1..=last {
            let id = if version == last { *current } else { ReleaseId::random(&SystemRandom) };
            let config = store.seal_config(id, &vars).expect("sealed");
            // Every tenth one deploys something; before the first, there is nothing to run.
            let build = (version % 10 == 5).then(|| BuildId::random(&SystemRandom));
            builds.extend(build.map(|build| (build, *app)));
            let build = build.map_or_else(|| "NULL".to_owned(), |build| format!("'{build}'"));
            let image = if version >= 5 { format!("'{digest}'") } else { "NULL".to_owned() };
            batch
                .row(
                    "releases (id, app_id, version, description, user_id, image, build_id, config, attached, status, \
                     output_secret, created_at, updated_at)",
                    &format!(
                        "'{id}', '{app}', {version}, 'Set VAR_1 config var', '{}', {image}, {build}, '{config}', '{{}}', \
                         'succeeded', '{}', {now}, {now}",
                        user.id,
                        store.new_secret()
                    ),
                )
                .await;
        }
    }
    batch.flush().await;
    for (build, app) in builds {
        batch
            .row(
                "builds (id, app_id, user_id, commit_id, status, buildpacks, output_secret, created_at, updated_at)",
                &format!(
                    "'{build}', '{app}', '{}', '1a2b3c4d', 'succeeded', '[]', '{}', {now}, {now}",
                    user.id,
                    store.new_secret()
                ),
            )
            .await;
    }
    batch.flush().await;
    sqlx::query("ANALYZE").execute(&store.pool).await.expect("analysed");
    apps
}

/// Rows on their way into one table.
struct Batch<'a> {
    store: &'a Store,
    sql: String,
    rows: usize,
}

impl<'a> Batch<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, sql: String::new(), rows: 0 }
    }

    async fn row(&mut self, into: &str, values: &str) {
        if self.rows == 0 {
            self.sql = format!("INSERT INTO {into} VALUES ");
        } else {
            self.sql += ", ";
        }
        let _ = write!(self.sql, "({values})");
        self.rows += 1;
        if self.rows == ROWS {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        if self.rows > 0 {
            sqlx::query(&self.sql).persistent(false).execute(&self.store.pool).await.expect("written");
            self.rows = 0;
        }
    }
}
