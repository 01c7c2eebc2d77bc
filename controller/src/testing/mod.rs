//! A controller for tests: its own database and folder, the fake engine, a clock that stands still.

pub(crate) mod http;
pub(crate) mod postgres;
pub(crate) mod router;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use builder::packages::PackageAccess;
use builder::stack::{Stack, StackSettings};
use builder::{BuildLimits, Builder, Queue};
use engine::LayerStore;
use engine::fake::FakeEngine;
use model::clock::SystemRandom;
use model::{
    AppId, AppName, BuildId, Clock, Digest, Image, ImageConfig, Layer, LogSink, LogSource, Process, ProcessType,
    Timestamp,
};

use crate::logins::LoginLimiter;
use crate::store::{
    App, Change, Deploy, Ending, NewApp, NewBuild, NewRelease, Outcome, Release, Stamp, Start, Store, User, UserRef,
};
use crate::{Actor, Controller, Origin, Outbound, Settings, Via};

/// The password of every user that [`TestController::user`] makes.
pub(crate) const PASSWORD: &str = "correct horse";

/// Set to `postgresql`, it makes the controllers of all tests use a PostgreSQL database instead of SQLite.
const DATABASE: &str = "PLATFORM_TEST_DATABASE";

/// A controller and what a test needs to move its world.
pub(crate) struct TestController {
    pub(crate) controller: Arc<Controller>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) engine: FakeEngine,
    home: Arc<tempfile::TempDir>,
    database: String,
}

/// A clock that moves when a test says so.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).expect("a short while"), Ordering::Relaxed);
    }
}

impl Default for TestClock {
    /// 2026-11-21T02:39:46Z
    fn default() -> Self {
        Self(AtomicI64::new(1_795_228_786_000))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

struct NoLogs;

impl LogSink for NoLogs {
    fn write(&self, _: AppId, _: Timestamp, _: &LogSource, _: &str) {}
}

impl TestController {
    /// With an empty database and an engine in which everything is up, or gone, at once.
    pub(crate) async fn new() -> Self {
        Self::start(FakeEngine::prompt).await
    }

    /// With an empty database and an engine that moves when the test moves it.
    pub(crate) async fn manual() -> Self {
        Self::start(FakeEngine::new).await
    }

    /// With an engine that moves when the test moves it, and room for so many containers of jobs.
    pub(crate) async fn with_jobs_at_once(number: u32) -> Self {
        let mut test = Self::manual().await;
        let controller = Arc::get_mut(&mut test.controller).expect("nobody else has it yet");
        controller.settings.jobs_at_once = NonZeroU32::new(number).expect("more than none");
        test
    }

    /// As [`Self::new`], in a world in which these authorities are trusted.
    pub(crate) async fn trusting(authorities: Vec<rustls::pki_types::CertificateDer<'static>>) -> Self {
        let mut test = Self::new().await;
        let controller = Arc::get_mut(&mut test.controller).expect("nobody else has it yet");
        controller.outbound = outbound(authorities);
        test
    }

    async fn start(engine: impl FnOnce(Arc<dyn Clock>) -> FakeEngine) -> Self {
        let clock = Arc::new(TestClock::default());
        let engine = engine(clock.clone());
        let home = Arc::new(tempfile::tempdir().expect("a folder"));
        let database = match std::env::var(DATABASE).as_deref() {
            Ok("postgresql") => postgres::database().await,
            _ => format!("sqlite://{}", home.path().join("platform.db").display()),
        };
        Self { controller: controller((home.path(), &database), &clock, &engine).await, clock, engine, home, database }
    }

    /// The next life of a controller that was killed: same database and files, same engine, nothing in memory.
    pub(crate) async fn next_life(&self) -> Self {
        let (clock, engine, home) = (Arc::clone(&self.clock), self.engine.clone(), Arc::clone(&self.home));
        let database = self.database.clone();
        Self { controller: controller((home.path(), &database), &clock, &engine).await, clock, engine, home, database }
    }

    /// Makes a user.
    pub(crate) async fn user(&self, email: &str) -> User {
        self.controller.create_user(email, Some(PASSWORD)).await.expect("a user")
    }

    /// Somebody at the console.
    #[expect(clippy::unused_self, reason = "whom a test makes by it acts in its world")]
    pub(crate) fn actor(&self, user: &User) -> Actor {
        Actor::new(user.clone(), Via::Session(None), Origin::default())
    }

    /// Makes a user who is signed in.
    pub(crate) async fn somebody(&self, email: &str) -> Actor {
        self.actor(&self.user(email).await)
    }

    /// The owner of an app at the console.
    pub(crate) fn owner_of(&self, app: &App) -> Actor {
        let UserRef { id, email } = app.owner.clone();
        self.actor(&User::new(id, email, app.created_at))
    }

    /// Ends a pending release.
    pub(crate) async fn finish(&self, release: &Release, outcome: Outcome) {
        self.controller.store.finish_release(release, (outcome, &Ending::default()), &stamp()).await.expect("finished");
    }

    /// Makes an app.
    pub(crate) async fn app(&self, owner: &User, name: &str) -> App {
        make_app(&self.controller.store, owner, name).await
    }

    /// Deploys an image with these process types and lets the release succeed.
    pub(crate) async fn deploy(&self, app: &App, types: &[&str]) -> Release {
        let store = &self.controller.store;
        let release = make_deploy(store, app, &image(types)).await;
        self.finish(&release, Outcome::Succeeded).await;
        store.release(release.id).await.expect("readable").expect("there")
    }
}

async fn controller((home, url): (&Path, &str), clock: &Arc<TestClock>, engine: &FakeEngine) -> Arc<Controller> {
    let path = |name: &str| home.join(name);
    let layers = LayerStore::open(&path("layers")).expect("a layer store");
    // A platform that starts installs its buildpacks; here it has none.
    std::fs::create_dir_all(path("buildpacks")).expect("a folder");
    let debian = StackSettings {
        home: home.to_owned(),
        layers: layers.clone(),
        cache: path("stack"),
        packages: PackageAccess::default(),
        digest: builder::diff_id,
    };
    let builder = Builder {
        engine: Arc::new(engine.clone()),
        layers,
        debian: Arc::new(debian),
        stack: Arc::new(|| Ok(Some(stack()))),
        buildpacks: path("buildpacks"),
        program: path("platform"),
        cache: path("cache"),
        other_distros: false,
        packages: PackageAccess::default(),
        limits: BuildLimits {
            memory_bytes: 1 << 30,
            time: Duration::from_secs(60),
            disk_bytes: 1 << 40,
            free_disk_bytes: 0,
            full_disk_percent: 101,
        },
        queue: Arc::new(Queue::new(4)),
    };
    Arc::new(Controller {
        store: Store::open(url, &path("secrets.key"), Arc::new(SystemRandom)).await.expect("a store"),
        engine: Arc::new(engine.clone()),
        builder: Arc::new(builder),
        logs: Arc::new(NoLogs),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        random: Arc::new(SystemRandom),
        settings: Settings {
            home: home.to_owned(),
            domain: "localhost".parse().expect("a host"),
            port: 8080,
            tls_port: Some(8443),
            entrance: None,
            tls_entrance: None,
            authority: path("ca.pem"),
            acme: None,
            ssh_listen: Vec::new(),
            tcp_ports: "3000-3004".parse().expect("a range"),
            gateway: std::net::Ipv4Addr::new(10, 210, 0, 1),
            stack: "debian-13".to_owned(),
            program: path("platform"),
            control_socket: path("control.sock"),
            push_limit: 1 << 30,
            requests_per_hour: NonZeroU32::new(100_000).expect("more than none"),
            boot_timeout: Duration::from_secs(60),
            stop_grace: Duration::from_secs(30),
            restart: engine::Restart::default(),
            memory_overcommit: NonZeroU32::new(16).expect("not zero"),
            reserved_memory: 0,
            disk_overcommit: NonZeroU32::new(16).expect("not zero"),
            event_retention: Duration::from_secs(90 * 24 * 60 * 60),
            disk_high: 101,
            kept_images: NonZeroU32::new(3).expect("not zero"),
            jobs_at_once: NonZeroU32::new(4).expect("not zero"),
        },
        changed: crate::Changed::default(),
        addons: crate::addons::Addons::new(Arc::new(|_, _| Ok(Digest::from_sha256([9; 32])))),
        outbound: outbound(Vec::new()),
        drains: crate::drains::Drains::default(),
        logins: LoginLimiter::default(),
        log_sessions: crate::logs::Sessions::default(),
        live: crate::Live::default(),
    })
}

/// Reaches this machine.
fn outbound(authorities: Vec<rustls::pki_types::CertificateDer<'static>>) -> Outbound {
    Outbound::trusting(vec!["127.0.0.0/8".parse().expect("a network")], authorities)
}

/// A stack that nobody made: the fake engine needs no files.
fn stack() -> Stack {
    Stack {
        name: builder::stack::NAME.to_owned(),
        version: "1".to_owned(),
        recipe: "1".to_owned(),
        build: Digest::from_sha256([8; 32]),
        run: Digest::from_sha256([9; 32]),
        distro_name: "debian".to_owned(),
        distro_version: "13".to_owned(),
        os: "linux".to_owned(),
        arch: "amd64".to_owned(),
    }
}

/// What the platform does by itself, at the time that the clock has at first.
pub(crate) fn stamp() -> Stamp {
    Stamp { by: None, now: TestClock::default().now(), insists: false }
}

pub(crate) async fn make_app(store: &Store, owner: &User, name: &str) -> App {
    let name: AppName = name.parse().expect("a name");
    let id = AppId::random(&SystemRandom);
    let new = NewApp { id, name: &name, owner: owner.id, team: None, stack: "debian-13" };
    store.create_app(new, &stamp()).await.expect("an app")
}

/// Notes a build and makes the pending release that deploys it.
pub(crate) async fn make_deploy(store: &Store, app: &App, image: &Image) -> Release {
    make_deploy_of(store, app, image, (&BTreeMap::new(), None)).await
}

/// The same, for an app with a manifest: what its process types start with, and what is kept.
pub(crate) async fn make_deploy_of(
    store: &Store,
    app: &App,
    image: &Image,
    (starts, manifest): (&BTreeMap<ProcessType, Start>, Option<&str>),
) -> Release {
    let id = BuildId::random(&SystemRandom);
    let commit = "1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b";
    store
        .insert_build(
            NewBuild { id, app: app.id, user: app.owner.id, commit, subject: Some("Count"), source: None },
            &stamp(),
        )
        .await
        .expect("a build");
    let buildpacks = &["platform/nodejs@0.1.0".to_owned()];
    let deploy = Deploy { build: id, image, buildpacks, size_bytes: 1, starts, manifest, volumes: &[] };
    let change = Change::Deploy(deploy);
    let new = NewRelease { app: app.id, user: app.owner.id, description: "Deploy 1a2b3c4d", reason: None, change };
    store.create_release(new, &stamp()).await.expect("a release").expect("a change")
}

/// An image that offers these process types.
pub(crate) fn image(types: &[&str]) -> Image {
    let process = |name: &&str| Process {
        process_type: name.parse().expect("a process type"),
        command: vec!["bash".to_owned(), "-c".to_owned()],
        args: vec![format!("run {name}")],
    };
    let mut hash = [0; 32];
    for (byte, text) in hash.iter_mut().zip(types.join(",").bytes()) {
        *byte = text;
    }
    Image {
        digest: Digest::from_sha256(hash),
        layers: vec![Layer { diff_id: Digest::from_sha256([7; 32]), created_by: "test".to_owned() }],
        config: ImageConfig { working_dir: "/app".to_owned(), ..ImageConfig::default() },
        processes: types.iter().map(process).collect(),
        foreign: None,
    }
}

/// Writes a program. By another process: one that this process writes may be open in a child that it starts at that moment, and cannot be run then.
pub(crate) fn write_script(path: &Path, text: &str) {
    use std::io::Write;
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path).stdin(std::process::Stdio::piped());
    let mut child = shell.spawn().expect("a shell");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
    assert!(child.wait().expect("an end").success());
}
