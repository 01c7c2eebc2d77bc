//! Every case runs on SQLite and on PostgreSQL.
#![expect(clippy::print_stderr, reason = "says which case runs")]

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use model::clock::SystemRandom;
use model::{Clock, ConfigVarName, Role, Timestamp, UserId};
use serde_json::json;

use super::*;
use crate::actors::{By, Origin};
use crate::testing::{TestClock, image, make_app, make_deploy, postgres};

type Case = for<'a> fn(&'a Store) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

const CASES: &[(&str, Case)] = &[
    ("releases are numbered without gaps, also when many are made at once", |store| Box::pin(numbering(store))),
    ("a release starts from the newest config and the newest image that did not fail", |store| Box::pin(bases(store))),
    ("an older release that succeeds late does not replace a newer one", |store| Box::pin(late(store))),
    ("contents replace those that somebody saw, and no others", |store| Box::pin(rollback(store))),
    ("every app has its own uid, and a name exists once", |store| Box::pin(uids(store))),
    ("an app is seen only by those who have access", |store| Box::pin(access(store))),
    ("deleting an app leaves nothing of it", |store| Box::pin(deletion(store))),
    ("scaling at once adds up, and one bad change spoils all", |store| Box::pin(scaling(store))),
    ("a token is good until it expires or is deleted", |store| Box::pin(tokens(store))),
    ("a host name belongs to one app", |store| Box::pin(domains(store))),
    ("a port belongs to one owner, and a host on it to one app", |store| Box::pin(ports(store))),
    ("a build ends once", |store| Box::pin(builds(store))),
    ("what comes from attachments is changed by nothing else", |store| Box::pin(attachments(store))),
    ("every part of a list follows the one before, in both directions", |store| Box::pin(slices(store))),
    ("a duty has one holder at a time, and every taking a number of its own", |store| Box::pin(leases(store))),
    ("a rotation of the key that is killed goes on, and nothing needs the old key then", |store| {
        Box::pin(rotation(store))
    }),
    ("a team's apps are its members', and it keeps an admin", |store| Box::pin(teams(store))),
    ("an app goes to who takes it, once", |store| Box::pin(offers(store))),
    ("an invitation lets in once, and into its team", |store| Box::pin(invitations(store))),
    ("a code and a recovery code are taken once", |store| Box::pin(second_factor(store))),
    ("who is gone leaves nothing that lets in, and what was made stays", |store| Box::pin(gone(store))),
    ("transfers are numbered and run one at a time", |store| Box::pin(transfers(store))),
    ("old events are forgotten, and the numbers of new ones go on", |store| Box::pin(forgetting(store))),
    ("every change has its event, in the order of commits and without gaps", |store| Box::pin(events(store))),
    ("who sees few apps and who sees many find their events", |store| Box::pin(events_seen(store))),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_case_holds_on_sqlite() {
    for (name, case) in CASES {
        eprintln!("{name}");
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("platform.db").display());
        case(&open(&url, folder.path()).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_holds_on_postgresql() {
    for (name, case) in CASES {
        eprintln!("{name}");
        let folder = tempfile::tempdir().expect("a folder");
        case(&open(&postgres::database().await, folder.path()).await).await;
    }
}

async fn open(url: &str, folder: &Path) -> Store {
    Store::open(url, &folder.join("secrets.key"), Arc::new(SystemRandom)).await.expect("a store")
}

fn now() -> Timestamp {
    TestClock::default().now()
}

fn stamp() -> Stamp {
    Stamp { by: None, now: now(), insists: false }
}

async fn user(store: &Store, email: &str) -> User {
    let id = UserId::random(&SystemRandom);
    let email = email.parse().expect("an address");
    let user = User::new(id, email, now());
    store.insert_user(user, Some("hash"), &stamp()).await.expect("inserted")
}

fn patch(vars: &[(&str, Option<&str>)]) -> BTreeMap<ConfigVarName, Option<String>> {
    let entry = |(name, value): &(&str, Option<&str>)| (name.parse().expect("a name"), value.map(str::to_owned));
    vars.iter().map(entry).collect()
}

async fn set(store: &Store, app: &App, vars: &[(&str, Option<&str>)]) -> Option<Release> {
    let patch = patch(vars);
    let change = Change::Config(&patch, &BTreeMap::new());
    let new = NewRelease { app: app.id, user: app.owner.id, description: "Set config vars", reason: None, change };
    store.create_release(new, &stamp()).await.expect("released")
}

async fn finish(store: &Store, release: &Release, outcome: Outcome) -> bool {
    store.finish_release(release, (outcome, &Ending::default()), &stamp()).await.expect("finished")
}

async fn current_version(store: &Store, app: &App) -> u64 {
    let app = store.app(app.id).await.expect("readable").expect("there");
    store.release(app.current_release).await.expect("readable").expect("there").version
}

async fn numbering(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let app = make_app(store, &owner, "numbered").await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (store, app) = (store.clone(), app.clone());
        tasks.spawn(async move { set(&store, &app, &[(&format!("VAR_{number}"), Some("x"))]).await });
    }
    tasks.join_all().await;
    let versions: Vec<u64> =
        store.releases(app.id).await.expect("readable").iter().map(|release| release.version).collect();
    assert_eq!(versions, (1..=21).collect::<Vec<_>>());
    assert_eq!(store.config(app.id).await.expect("readable").iter().count(), 20, "no change was lost");
    assert!(set(store, &app, &[("VAR_1", Some("x"))]).await.is_none(), "no change, no release");
    assert_eq!(set(store, &app, &[("VAR_1", None)]).await.expect("a change").version, 22, "and no number used up");
    assert_eq!(current_version(store, &app).await, 22, "without an image there is nothing to wait for");
}

async fn bases(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let app = make_app(store, &owner, "bases").await;
    let (good, bad) = (image(&["web"]), image(&["web", "worker"]));
    let first = make_deploy(store, &app, &good).await;
    assert_eq!((first.version, first.status), (2, Status::Pending));
    assert!(finish(store, &first, Outcome::Succeeded).await);
    assert!(!finish(store, &first, Outcome::Failed("again".to_owned())).await, "a release ends once");
    assert_eq!(current_version(store, &app).await, 2);

    let second = make_deploy(store, &app, &bad).await;
    let during = set(store, &app, &[("A", Some("1"))]).await.expect("a change");
    assert_eq!(during.image.as_ref(), Some(&bad.digest), "what was deployed meanwhile stays deployed");
    finish(store, &second, Outcome::Failed("no port".to_owned())).await;
    finish(store, &during, Outcome::Failed("no port".to_owned())).await;
    assert_eq!(current_version(store, &app).await, 2);
    assert_eq!(store.newest_image(app.id).await.expect("readable"), Some(good.clone()));

    let after = set(store, &app, &[("B", Some("2"))]).await.expect("a change");
    assert_eq!(after.image.as_ref(), Some(&good.digest), "a failed image is not carried on");
    let config = store.release_config(after.id).await.expect("readable");
    let names: Vec<_> = config.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(names, ["A=1", "B=2"], "a config var survives the failure of its release");
}

async fn late(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let app = make_app(store, &owner, "late").await;
    let second = make_deploy(store, &app, &image(&["web"])).await;
    let third = set(store, &app, &[("A", Some("1"))]).await.expect("a change");
    let pending: Vec<u64> = store.pending_releases(None).await.expect("readable").iter().map(|r| r.version).collect();
    assert_eq!(pending, [2, 3]);
    finish(store, &third, Outcome::Succeeded).await;
    finish(store, &second, Outcome::Succeeded).await;
    assert_eq!(current_version(store, &app).await, 3);
}

async fn rollback(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let app = make_app(store, &owner, "rollback").await;
    let old = make_deploy(store, &app, &image(&["web"])).await;
    set(store, &app, &[("A", Some("1"))]).await;
    make_deploy(store, &app, &image(&["web", "worker"])).await;
    let seen = store.present(app.id).await.expect("readable");
    let next = store.contents(&old).await.expect("readable");
    let replace = async |seen: &Contents, next: &Contents| {
        let change = Change::Replace { seen, next };
        let description = "Rollback to v2";
        let new = NewRelease { app: app.id, user: owner.id, description, reason: Some("slow"), change };
        store.create_release(new, &stamp()).await
    };
    let back = replace(&seen, &next).await.expect("released").expect("a release");
    assert_eq!((back.version, &back.image, back.build), (5, &old.image, None));
    assert_eq!((back.reason.as_deref(), &back.slug), (Some("slow"), &old.slug));
    assert_eq!(store.contents(&back).await.expect("readable").config, next.config);
    assert!(matches!(replace(&seen, &next).await, Err(StoreError::Stale)), "somebody was quicker");
    let now = store.present(app.id).await.expect("readable");
    assert!(replace(&now, &now).await.expect("looked at").is_none(), "nothing changes");
}

async fn uids(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let first = make_app(store, &owner, "first").await;
    store.delete_app(&first, None, &stamp()).await.expect("deleted");
    let second = make_app(store, &owner, "second").await;
    assert_eq!((first.uid, second.uid), (100_000, 100_001), "a uid is never given twice");
    let name = second.name.clone();
    let id = model::AppId::random(&SystemRandom);
    let again = NewApp { id, name: &name, owner: owner.id, team: None, stack: "debian-13" };
    assert!(matches!(store.create_app(again, &stamp()).await, Err(StoreError::Taken("Name"))));
}

async fn access(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let stranger = user(store, "stranger@example.com").await;
    let app = make_app(store, &owner, "private").await;
    let id = app.id.to_string();
    for reference in ["private", id.as_str()] {
        assert!(store.find_app(owner.id, reference).await.expect("readable").is_some(), "{reference}");
        assert!(store.find_app(stranger.id, reference).await.expect("readable").is_none(), "{reference}");
    }
    assert_eq!(store.apps_of(owner.id).await.expect("readable").len(), 1);
    assert_eq!(store.apps_of(stranger.id).await.expect("readable").len(), 0);
    assert!(store.collaborators(app.id, now()).await.expect("readable")[0].is_owner);
}

async fn deletion(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let app = make_app(store, &owner, "doomed").await;
    let release = make_deploy(store, &app, &image(&["web"])).await;
    store.delete_app(&app, None, &stamp()).await.expect("deleted");
    assert!(store.app(app.id).await.expect("readable").is_none());
    assert!(store.release(release.id).await.expect("readable").is_none());
    assert!(store.builds(app.id).await.expect("readable").is_empty());
    assert!(store.formation(app.id).await.expect("readable").is_empty());
    assert!(!finish(store, &release, Outcome::Succeeded).await, "what a rollout reports late is no error");
}

async fn scaling(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let app = make_app(store, &owner, "scaled").await;
    make_deploy(store, &app, &image(&["web", "worker"])).await;
    let by = |process_type: &str, quantity| Scale {
        process_type: process_type.parse().expect("a process type"),
        quantity: Some(quantity),
        size: None,
    };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (store, app, change) = (store.clone(), app.id, by("web", Quantity::By(1)));
        tasks.spawn(async move { store.scale(app, &[change], 100, &stamp()).await.expect("scaled") });
    }
    tasks.join_all().await;
    let quantities = async || {
        let rows = store.formation(app.id).await.expect("readable");
        rows.iter().map(|row| (row.process_type.to_string(), row.quantity)).collect::<Vec<_>>()
    };
    let expected = [("web".to_owned(), 11), ("worker".to_owned(), 0)];
    assert_eq!(quantities().await, expected);
    for bad in [by("cron", Quantity::Exactly(1)), by("worker", Quantity::By(-1)), by("worker", Quantity::Exactly(101))]
    {
        let changes = [by("web", Quantity::Exactly(1)), bad];
        assert!(store.scale(app.id, &changes, 100, &stamp()).await.is_err());
        assert_eq!(quantities().await, expected, "all or nothing");
    }
}

async fn tokens(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let stranger = user(store, "stranger@example.com").await;
    let make = |expires_at| Token {
        id: model::TokenId::random(&SystemRandom),
        user: owner.id,
        description: "test".to_owned(),
        grant: crate::grants::Grant::default(),
        app_name: None,
        expires_at,
        last_used_at: None,
        created_at: now(),
        updated_at: now(),
    };
    let (lasting, short) = (make(None), make(Some(now().after(Duration::from_secs(60)))));
    store.insert_token(NewToken { token: &lasting, digest: "d1" }, &stamp()).await.expect("inserted");
    store.insert_token(NewToken { token: &short, digest: "d2" }, &stamp()).await.expect("inserted");
    let later = now().after(Duration::from_secs(60));
    for (digest, moment, good) in [("d1", now(), true), ("d1", later, true), ("d2", now(), true), ("d2", later, false)]
    {
        let found = store.bearer(digest, moment).await.expect("readable");
        assert_eq!(found.is_some_and(|found| found.user.id == owner.id), good, "{digest} at {moment}");
    }
    assert_eq!(store.tokens(owner.id, now()).await.expect("readable").len(), 2);
    let stamp_later = Stamp { by: None, now: later, insists: false };
    assert_eq!(store.delete_expired_tokens(&stamp_later).await.expect("deleted"), 1);
    assert_eq!(store.delete_expired_tokens(&stamp_later).await.expect("deleted"), 0);
    assert_eq!(store.tokens(owner.id, now()).await.expect("readable").len(), 1);
    let filter = EventFilter { resource: Some(Resource::Authorization), ..EventFilter::default() };
    let slice = Slice { max: 10, descending: true, ..Slice::default() };
    let told = store.events(&filter, &slice).await.expect("readable").items;
    assert_eq!((told[0].action, told[0].resource_id.clone()), (Action::Destroy, short.id.to_string()));
    assert_eq!(told[0].data["expired"], serde_json::json!(true));
    assert!(store.delete_token(stranger.id, lasting.id, &stamp()).await.expect("asked").is_none(), "not theirs");
    assert!(store.delete_token(owner.id, lasting.id, &stamp()).await.expect("asked").is_some());
    assert!(store.bearer("d1", now()).await.expect("readable").is_none());
}

async fn ports(store: &Store) {
    let (ada, bob) = (user(store, "ada@example.com").await, user(store, "bob@example.com").await);
    let (first, second) = (make_app(store, &ada, "first").await, make_app(store, &ada, "second").await);
    let foreign = make_app(store, &bob, "foreign").await;
    let range: model::TcpPorts = "3000-3002".parse().expect("a range");
    let wish = |port: Option<u16>, host: &str| NewTcpRoute {
        process_type: "worker".parse().expect("a process type"),
        port,
        host: (!host.is_empty()).then(|| host.parse().expect("a host name")),
        terminate: !host.is_empty(),
        target_port: port.map(|port| port - 1000),
        idle: Duration::from_secs(90),
        introduce: Some(model::Introduction::V1),
    };
    let add = async |app: &App, port, host: &str| {
        store.insert_tcp_route(app, &wish(port, host), &range, &stamp()).await.expect("the database answers")
    };
    let all = add(&first, Some(3001), "").await.expect("free");
    assert_eq!(store.tcp_routes(first.id).await.expect("readable"), std::slice::from_ref(&all));
    assert_eq!(add(&first, Some(3001), "").await, Err(NoPort::Own));
    for (app, host) in [(&second, ""), (&foreign, ""), (&foreign, "db.example.com")] {
        assert_eq!(add(app, Some(3001), host).await, Err(NoPort::Taken), "{} {host}", app.name);
    }
    // Who has all of a port may give a part of it to another app of the same owner.
    let part = add(&second, Some(3001), "db.example.com").await.expect("of the same owner");
    let standing = store.standing(&[second.id]).await.expect("readable").remove(0);
    assert_eq!(standing.tcp, std::slice::from_ref(&part));
    // A port of hosts is anybody's, host by host.
    assert_eq!(add(&first, None, "a.example.com").await.expect("free").port, 3000);
    add(&foreign, Some(3000), "b.example.com").await.expect("another host");
    assert_eq!(add(&foreign, Some(3000), "a.example.com").await, Err(NoPort::Taken));
    assert_eq!(add(&first, Some(3000), "").await, Err(NoPort::Taken));
    assert_eq!(add(&second, None, "").await.expect("free").port, 3002);
    assert_eq!(add(&second, None, "").await, Err(NoPort::Full));
    store.delete_tcp_route(&all, &stamp()).await.expect("deleted");
    store.delete_tcp_route(&all, &stamp()).await.expect("no error");
    add(&foreign, Some(3001), "c.example.com").await.expect("nobody has all of it any more");
    // Whatever is asked for at once, no port is given out twice.
    let range: model::TcpPorts = "4000-4004".parse().expect("a range");
    let asks = (0..8).map(|_| async { store.insert_tcp_route(&first, &wish(None, ""), &range, &stamp()).await });
    let got: Vec<_> = futures::future::join_all(asks).await.into_iter().map(|one| one.expect("answers")).collect();
    let mut got: Vec<u16> = got.into_iter().flatten().map(|route| route.port).collect();
    got.sort_unstable();
    assert_eq!(got, [4000, 4001, 4002, 4003, 4004]);
}

async fn domains(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let (first, second) = (make_app(store, &owner, "first").await, make_app(store, &owner, "second").await);
    let domain = |app: &App| Domain {
        id: model::DomainId::random(&SystemRandom),
        app: app.id,
        place: "www.example.com".parse::<model::Hostname>().expect("a host").into(),
        sni_endpoint: None,
        on_demand: false,
        created_at: now(),
        updated_at: now(),
    };
    let mine = domain(&first);
    store.insert_domain(&mine, &stamp()).await.expect("inserted");
    assert!(matches!(store.insert_domain(&domain(&second), &stamp()).await, Err(StoreError::Taken("Hostname"))));
    assert_eq!(store.domains(first.id).await.expect("readable"), std::slice::from_ref(&mine));
    // A path of it is another app's, and as long as it is the host stays.
    let path = |app: &App| {
        let place =
            model::routes::Place { path: Some("/api".parse().expect("a path")), strip: true, ..mine.place.clone() };
        Domain { place, ..domain(app) }
    };
    let part = path(&second);
    store.insert_domain(&part, &stamp()).await.expect("inserted");
    assert!(matches!(store.insert_domain(&path(&first), &stamp()).await, Err(StoreError::Taken("Hostname"))));
    assert_eq!(store.domains(second.id).await.expect("readable"), std::slice::from_ref(&part));
    let standing = store.standing(&[second.id]).await.expect("readable").remove(0);
    assert_eq!(standing.domains, std::slice::from_ref(&part.place));
    let paths = vec![(part.place.clone(), second.name.clone())];
    assert_eq!(store.paths_of_host(mine.id).await.expect("readable"), paths);
    assert_eq!(store.paths_of_others(first.id).await.expect("readable"), paths);
    for app in [&first, &second] {
        assert_eq!(store.shared_paths(app.id).await.expect("readable"), paths);
    }
    assert!(store.delete_domain(&mine, &stamp()).await.is_err(), "also if somebody adds one meanwhile");
    store.delete_domain(&part, &stamp()).await.expect("deleted");
    // Both of one app go with it.
    store.insert_domain(&path(&first), &stamp()).await.expect("inserted");
    assert!(store.paths_of_others(first.id).await.expect("readable").is_empty());
    assert!(store.shared_paths(first.id).await.expect("readable").is_empty());
    store.delete_app(&first, None, &stamp()).await.expect("deleted");
    assert!(store.all_domains().await.expect("readable").is_empty());
}

async fn builds(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let app = make_app(store, &owner, "built").await;
    let release = make_deploy(store, &app, &image(&["web"])).await;
    let build = store.build(release.build.expect("a build")).await.expect("readable").expect("there");
    assert_eq!((build.status, build.release), (Status::Succeeded, Some(release.id)));
    assert!(!store.fail_build(app.id, build.id, &stamp()).await.expect("asked"), "it succeeded already");
    assert_eq!(store.build_by_output(&build.output_secret).await.expect("readable").map(|b| b.id), Some(build.id));

    let id = model::BuildId::random(&SystemRandom);
    let new = NewBuild { id, app: app.id, user: owner.id, commit: "abc", subject: Some("Count"), source: None };
    store.insert_build(new, &stamp()).await.expect("inserted");
    assert_eq!(store.pending_builds().await.expect("readable").len(), 1);
    assert!(store.fail_build(app.id, id, &stamp()).await.expect("asked"));
    let (image, starts) = (image(&["web"]), BTreeMap::new());
    let deploy = Deploy {
        build: id,
        image: &image,
        buildpacks: &[],
        size_bytes: 0,
        starts: &starts,
        manifest: None,
        volumes: &[],
    };
    let change = Change::Deploy(deploy);
    let new = NewRelease { app: app.id, user: owner.id, description: "Deploy abc", reason: None, change };
    assert!(store.create_release(new, &stamp()).await.is_err(), "a failed build deploys nothing");
}

async fn make_addon(store: &Store, app: &App, name: &str) -> Result<Addon, StoreError> {
    let credentials = BTreeMap::from([("password".to_owned(), "secret".to_owned())]);
    let new = NewAddon {
        id: model::AddonId::random(&SystemRandom),
        name: &name.parse().expect("a name"),
        app: app.id,
        kind: "postgres",
        plan: "mini",
        credentials: &credentials,
        attachment: &"DATABASE".parse().expect("a name"),
    };
    let made = store.insert_addon(new, &stamp()).await?;
    assert_eq!(store.addon_credentials(made.id).await.expect("readable"), credentials);
    Ok(made)
}

async fn attachments(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let app = make_app(store, &owner, "shop").await;
    let addon = make_addon(store, &app, "postgres-1").await.expect("an add-on");
    assert!(addon.uid > app.uid, "nobody else's");
    assert!(matches!(make_addon(store, &app, "postgres-1").await, Err(StoreError::Taken("Name"))));
    assert!(matches!(make_addon(store, &app, "postgres-2").await, Err(StoreError::Taken("Attachment name"))));

    let attach = async |value: Option<&str>| {
        let vars = value.map(|value| ("DATABASE_URL".parse().expect("a name"), (addon.id, value.to_owned())));
        let vars = vars.into_iter().collect();
        let seen = store.present(app.id).await.expect("readable").attachments;
        let change = Change::Attachments { seen: &seen, vars: &vars };
        let new = NewRelease { app: app.id, user: owner.id, description: "Attach", reason: None, change };
        store.create_release(new, &stamp()).await.expect("released")
    };
    set(store, &app, &[("A", Some("1"))]).await.expect("a release");
    let before = store.present(app.id).await.expect("readable");
    assert!(attach(Some("one")).await.is_some());
    assert!(attach(Some("one")).await.is_none(), "nothing changed");
    set(store, &app, &[("A", Some("2"))]).await.expect("a release");
    let refused = patch(&[("DATABASE_URL", None)]);
    let change = Change::Config(&refused, &BTreeMap::new());
    let new = NewRelease { app: app.id, user: owner.id, description: "Unset", reason: None, change };
    assert!(matches!(store.create_release(new, &stamp()).await, Err(StoreError::Attached(_))));

    let none = model::AddonId::random(&SystemRandom);
    let other = Attachments::from([(
        "DATABASE".parse().expect("a name"),
        AttachedAddon { addon: none, ..attached(store, &app).await },
    )]);
    let change = Change::Attachments { seen: &other, vars: &BTreeMap::new() };
    let new = NewRelease { app: app.id, user: owner.id, description: "Detach", reason: None, change };
    assert!(
        matches!(store.create_release(new, &stamp()).await, Err(StoreError::Stale)),
        "thought out for something else"
    );

    let seen = store.present(app.id).await.expect("readable");
    let change = Change::Replace { seen: &seen, next: &Contents { attachments: Attachments::new(), ..before.clone() } };
    let new = NewRelease { app: app.id, user: owner.id, description: "Rollback", reason: None, change };
    store.create_release(new, &stamp()).await.expect("released").expect("a release");
    assert!(store.attachments_of_app(app.id).await.expect("readable").is_empty());
    let now = store.present(app.id).await.expect("readable");
    let change = Change::Replace { seen: &now, next: &seen };
    let new = NewRelease { app: app.id, user: owner.id, description: "Rollback", reason: None, change };
    let back = store.create_release(new, &stamp()).await.expect("released").expect("a release");
    assert_eq!(back.attachments.as_ref(), Some(&seen.attachments), "and back again");
    assert_eq!(store.attached(app.id).await.expect("readable").values().collect::<Vec<_>>(), [&addon.id]);

    store.delete_app(&app, None, &stamp()).await.expect("deleted");
    let left = store.addon(addon.id).await.expect("readable").expect("there until its server is gone");
    assert_eq!((left.state, left.app_name), (AddonState::Removing, None));
    assert!(store.attachments().await.expect("readable").is_empty());
    assert_eq!(store.owners().await.expect("readable"), [addon.id.into()].into());
}

async fn attached(store: &Store, app: &App) -> AttachedAddon {
    let present = store.present(app.id).await.expect("readable");
    present.attachments.into_values().next().expect("an attachment")
}

async fn transfers(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let app = make_app(store, &owner, "shop").await;
    let addon = make_addon(store, &app, "postgres-1").await.expect("an add-on");
    let begin = async |action| store.insert_transfer(&addon, action, None, &stamp()).await.expect("asked");
    let first = begin(TransferAction::Capture).await.expect("begun");
    assert!(begin(TransferAction::Restore).await.is_none(), "one runs");
    store.finish_transfer(&first, Ok(7), &stamp()).await.expect("ended");
    store.finish_transfer(&first, Err("late".to_owned()), &stamp()).await.expect("too late");
    let second = begin(TransferAction::Restore).await.expect("begun");
    assert_eq!((first.number, second.number), (1, 2));
    assert_eq!(store.running_transfers().await.expect("readable"), [second]);
    let all = store.transfers(addon.id).await.expect("readable");
    assert_eq!((all[0].state, all[0].bytes), (TransferState::Succeeded, 7));
}

async fn slices(store: &Store) {
    let (owner, other) = (user(store, "owner@example.com").await, user(store, "other@example.com").await);
    let mut names = Vec::new();
    for name in ["delta", "alpha", "echo", "bravo", "charlie"] {
        names.push(make_app(store, &owner, name).await.name.to_string());
        make_app(store, &other, &format!("{name}-of-other")).await;
    }
    names.sort_unstable();
    for field in ["name", "id", "created_at", "updated_at"] {
        for descending in [false, true] {
            let mut slice = Slice { field: Some(field.to_owned()), max: 2, descending, ..Slice::default() };
            let mut visited = Vec::new();
            loop {
                let part = store.apps_slice(owner.id, &slice).await.expect("readable");
                assert_eq!(part.field, field);
                visited.extend(part.items.iter().map(|app| app.name.to_string()));
                let Some(value) = part.next else { break };
                slice.first = Some(Edge { value, exclusive: true });
            }
            if field == "name" {
                assert!(visited.is_sorted_by(|a, b| (a < b) != descending), "{visited:?}");
            }
            visited.sort_unstable();
            assert_eq!(visited, names, "each once, by {field}, descending: {descending}");
        }
    }

    let app = make_app(store, &owner, "numbered").await;
    for number in 2..=12 {
        set(store, &app, &[("NUMBER", Some(&number.to_string()))]).await;
    }
    let edge = |value: &str, exclusive| Some(Edge { value: value.to_owned(), exclusive });
    let versions = async |slice: Slice| {
        let part = store.releases_slice(app.id, &slice).await.expect("readable");
        let versions: Vec<u64> = part.items.iter().map(|release| release.version).collect();
        (versions, part.next)
    };
    let newest = Slice { max: 3, descending: true, ..Slice::default() };
    assert_eq!(versions(newest.clone()).await, (vec![12, 11, 10], Some("10".to_owned())));
    let after = Slice { first: edge("10", true), last: edge("8", false), ..newest.clone() };
    assert_eq!(versions(after).await, (vec![9, 8], None), "numbers are no texts, and bounds go the way of the list");
    let inside = Slice { first: edge("3", false), last: edge("5", true), max: 3, ..Slice::default() };
    assert_eq!(versions(inside).await, (vec![3, 4], None));
    let unclear = Slice { field: Some("colour".to_owned()), first: edge("x", true), max: 1, ..Slice::default() };
    assert_eq!(versions(unclear).await, (vec![1], Some("1".to_owned())), "the usual order");
}

async fn leases(store: &Store) {
    let later = |seconds| now().after(Duration::from_secs(seconds));
    let take = async |holder, at: Timestamp| {
        let until = at.after(Duration::from_secs(10));
        store.take_lease(("rollout", holder), at, until).await.expect("asked")
    };
    let first = take("one", now()).await.expect("it was free");
    assert!(take("two", later(9)).await.is_none(), "one has it");
    assert!(store.renew_lease(&first, later(30)).await.expect("asked"));
    assert!(take("two", later(29)).await.is_none(), "one keeps it");
    let second = take("two", later(30)).await.expect("it expired");
    assert!(second.epoch > first.epoch);
    assert!(!store.renew_lease(&first, later(60)).await.expect("asked"), "it is not one's any more");
    let late = Store { duties: Arc::default(), ..store.clone() };
    late.hold(vec![first]);
    let event =
        |action| NewEvent { app: None, resource: Resource::Platform, id: "x".to_owned(), action, data: json!({}) };
    let refused = late.record(&stamp(), event(Action::Update)).await;
    assert!(matches!(refused, Err(StoreError::Fenced(duty)) if duty == "rollout"), "what one still does by itself");
    let current = Store { duties: Arc::default(), ..store.clone() };
    current.hold(vec![second.clone()]);
    current.record(&stamp(), event(Action::Update)).await.expect("it is two's");
    let anew = take("two", later(31)).await.expect("the next life need not wait");
    assert!(!store.renew_lease(&second, later(60)).await.expect("asked"), "an earlier life has nothing");
    assert_eq!(store.lease_holder("rollout").await.expect("readable"), Some(anew.holder));

    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let holder = format!("controller {number}");
            store.take_lease(("addons", &holder), now(), now().after(Duration::from_secs(10))).await.expect("asked")
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().flatten().count(), 1, "of many at once, one has it");
}

async fn rotation(store: &Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("secrets.key");
    let with_key = async || {
        let secrets = Arc::new(Secrets::open(&key, Arc::new(SystemRandom)).expect("a key"));
        Store { secrets, ..store.clone() }
    };
    let life = with_key().await;
    let owner = user(&life, "owner@example.com").await;
    let app = make_app(&life, &owner, "shop").await;
    for number in 0..3 {
        set(&life, &app, &[("NUMBER", Some(&number.to_string()))]).await;
    }
    let addon = make_addon(&life, &app, "postgres-1").await.expect("an add-on");
    let old_key = std::fs::read(&key).expect("readable");

    // Killed when it has begun, and again when some of it is done.
    life.secrets.begin_rotation().expect("begun");
    let life = with_key().await;
    assert!(life.is_rotating());
    let mut position = rotation::Position::default();
    assert_eq!(life.reseal_some(&mut position).await.expect("moved"), Some(1), "the add-on");
    let during = set(&life, &app, &[("DURING", Some("yes"))]).await.expect("a change");
    let life = with_key().await;
    assert_eq!(life.config(app.id).await.expect("readable").iter().count(), 2, "both keys open");
    assert_eq!(life.rotate_secrets().await.expect("rotated"), 4, "v1 to v4; the rest was done already");
    assert!(!life.is_rotating());

    let life = with_key().await;
    assert_ne!(std::fs::read(&key).expect("readable"), old_key);
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1, "the old key is gone");
    assert_eq!(life.release_config(during.id).await.expect("readable").iter().count(), 2);
    assert_eq!(life.addon_credentials(addon.id).await.expect("readable")["password"], "secret");
    for release in life.releases(app.id).await.expect("readable") {
        life.release_config(release.id).await.expect("readable");
    }
}

async fn forgetting(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    make_app(store, &owner, "old").await;
    let later = now().after(Duration::from_secs(60));
    let event =
        |action| NewEvent { app: None, resource: Resource::Platform, id: "x".to_owned(), action, data: json!({}) };
    store.record(&Stamp { by: None, now: later, insists: false }, event(Action::Update)).await.expect("recorded");
    assert_eq!(store.forget_events(now()).await.expect("asked"), 0, "none is older");
    assert_eq!(store.forget_events(later).await.expect("asked"), 3, "the user, the app and its release");
    store.record(&Stamp { by: None, now: later, insists: false }, event(Action::Update)).await.expect("recorded");
    let all = Slice { max: 10, ..Slice::default() };
    let left = store.events(&EventFilter::default(), &all).await.expect("readable").items;
    assert_eq!(left.iter().map(|event| event.sequence).collect::<Vec<_>>(), [4, 5]);
}

async fn events_seen(store: &Store) {
    let (ada, bob) = (user(store, "ada@example.com").await, user(store, "bob@example.com").await);
    let mut seen = Vec::new();
    for name in ["one", "two", "none"] {
        let app = make_app(store, &ada, name).await;
        for number in ["1", "2", "3"] {
            set(store, &app, &[("NUMBER", Some(number))]).await;
        }
        if name != "none" {
            store.set_collaborator(app.id, &bob.to_ref(), Role::View, &stamp()).await.expect("given");
            seen.push(app.id);
        }
    }
    let own = Stamp {
        by: Some(By { user: bob.to_ref(), via: "session".to_owned(), origin: Origin::default() }),
        now: now(),
        insists: false,
    };
    make_app(store, &bob, "gone").await;
    let gone = store.apps_of(bob.id).await.expect("readable").into_iter().find(|app| app.name.as_str() == "gone");
    store.delete_app(&gone.expect("there"), None, &own).await.expect("deleted");
    let all = store.events(&EventFilter::default(), &Slice { max: 100, ..Slice::default() }).await.expect("readable");
    let is_seen = |event: &&Event| event.actor == Some(bob.id) || event.app.is_some_and(|app| seen.contains(&app));
    let expected: Vec<u64> = all.items.iter().filter(is_seen).map(|event| event.sequence).collect();
    assert_eq!(expected.len(), 13, "of each app its making, its four releases and the role; and what bob did");
    let filter = EventFilter { visible_to: Some(bob.id), ..EventFilter::default() };
    for (many, descending, max) in [(true, true, 4), (false, true, 4), (true, false, 5), (false, false, 1)] {
        let (mut found, mut first) = (Vec::new(), None);
        loop {
            let slice = Slice { first, max, descending, ..Slice::default() };
            let part = store.events_seen(&filter, many, &slice).await.expect("readable");
            found.extend(part.items.iter().map(|event| event.sequence));
            let Some(next) = part.next else { break };
            first = Some(Edge { value: next, exclusive: true });
        }
        if descending {
            found.reverse();
        }
        assert_eq!(found, expected, "many: {many}, descending: {descending}");
    }
    let releases = EventFilter { resource: Some(Resource::Release), ..filter };
    for many in [true, false] {
        let slice = Slice { max: 3, descending: true, ..Slice::default() };
        let found = store.events_seen(&releases, many, &slice).await.expect("readable").items;
        assert!(found.len() == 3 && found.iter().all(|event| event.resource == Resource::Release));
    }
}

async fn events(store: &Store) {
    let owner = user(store, "owner@example.com").await;
    let by = By { user: owner.to_ref(), via: "session".to_owned(), origin: crate::Origin::default() };
    let stamp = Stamp { by: Some(by), now: now(), insists: false };
    let mut apps = tokio::task::JoinSet::new();
    for number in 0..10 {
        let (store, owner) = (store.clone(), owner.clone());
        apps.spawn(async move { make_app(&store, &owner, &format!("app-{number}")).await });
    }
    let apps = apps.join_all().await;
    let mut tasks = tokio::task::JoinSet::new();
    for app in apps.clone() {
        let (store, stamp) = (store.clone(), stamp.clone());
        tasks.spawn(async move {
            let change = AppChange { maintenance: Some(true), ..AppChange::default() };
            let app = store.update_app(&app, change, &stamp).await.expect("updated");
            let change = AppChange { maintenance: Some(true), ..AppChange::default() };
            store.update_app(&app, change, &stamp).await.expect("nothing to update");
        });
    }
    // Whoever follows sees every event once, in order, whatever is committed at the same time.
    let mut newest = store.newest_event();
    let mut seen: Vec<Event> = Vec::new();
    let part = async |filter: EventFilter, after: u64| {
        let first = Some(Edge { value: after.to_string(), exclusive: true });
        store.events(&filter, &Slice { first, max: 7, ..Slice::default() }).await.expect("readable").items
    };
    while seen.len() < 31 {
        let last = seen.last().map_or(0, |event| event.sequence);
        let more = part(EventFilter::default(), last).await;
        if more.is_empty() {
            newest.changed().await.expect("the store is there");
        }
        seen.extend(more);
    }
    tasks.join_all().await;
    assert_eq!(seen.iter().map(|event| event.sequence).collect::<Vec<_>>(), (1..=31).collect::<Vec<_>>());
    let updates: Vec<_> = seen.iter().filter(|event| event.action == Action::Update).collect();
    assert_eq!(updates.len(), 10, "what changes nothing is no event");
    assert_eq!(updates[0].data, json!({ "maintenance": true }));
    assert_eq!((updates[0].actor, updates[0].via.as_deref()), (Some(owner.id), Some("session")));

    store.delete_app(&apps[0], None, &stamp).await.expect("deleted");
    let own = EventFilter { app: Some(apps[0].id), ..EventFilter::default() };
    let left = part(own, 0).await;
    let left: Vec<_> = left.iter().map(|event| (event.resource, event.action)).collect();
    let app = |action| (Resource::App, action);
    let release = (Resource::Release, Action::Create);
    assert_eq!(left, [app(Action::Create), release, app(Action::Update), app(Action::Destroy)], "outlives its app");
}

/// A file system of two megabytes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("small-disk"), folder.path(), Some("tmpfs"), flags, Some("size=4m")).expect("mounted");
        Self(folder)
    }

    /// Takes all the room that there is, until the answer is removed.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("filling");
        let mut file = File::create(&path).expect("a file");
        while file.write_all(&[0; 1024]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_loses_none_that_was_made() {
    let disk = SmallDisk::mount();
    let url = format!("sqlite://{}", disk.0.path().join("platform.db").display());
    let store = open(&url, disk.0.path()).await;
    let ada = user(&store, "ada@example.com").await;
    let app = make_app(&store, &ada, "shop").await;
    set(&store, &app, &[("KEPT", Some("yes"))]).await;
    let filling = disk.fill();

    let change = async |text: String| {
        let (vars, nowhere) = (patch(&[("MORE", Some(&text))]), BTreeMap::new());
        let change = Change::Config(&vars, &nowhere);
        store
            .create_release(
                NewRelease { app: app.id, user: ada.id, description: "Set MORE", reason: None, change },
                &stamp(),
            )
            .await
    };
    // Each leaves another place where a change breaks off.
    let (mut made, mut refused) = (0, 0);
    while refused < 50 {
        match change((made + refused).to_string().repeat(10 + 97 * (refused % 20) * (refused % 20))).await {
            Ok(_) => made += 1,
            Err(error) => {
                assert!(error.is_disk_full(), "{error:?}");
                refused += 1;
            }
        }
    }
    let releases = store.releases(app.id).await.expect("readable").len();
    assert_eq!(releases, 2 + made, "each change that was made, and no half of another");

    std::fs::remove_file(filling).expect("removed");
    set(&store, &app, &[("AGAIN", Some("yes"))]).await.expect("there is room again");
    // More readers at once than there are connections: none of them sees anything else.
    let reads = futures::future::join_all((0..40).map(|_| store.config(app.id))).await;
    for config in reads {
        let config = config.expect("readable").to_env();
        assert_eq!((config["KEPT"].as_str(), config.get("AGAIN").map(String::as_str)), ("yes", Some("yes")));
    }
    drop(store);
    assert_eq!(open(&url, disk.0.path()).await.releases(app.id).await.expect("readable").len(), releases + 1);
}

async fn teams(store: &Store) {
    let (ada, bob) = (user(store, "ada@example.com").await, user(store, "bob@example.com").await);
    let team = TeamRef { id: model::TeamId::random(&SystemRandom), name: "ours".parse().expect("a name") };
    store.insert_team(&team, &ada.to_ref(), &stamp()).await.expect("made");
    let app = make_app(store, &ada, "shared").await;
    store.set_owner(&app, &NewOwner::Team(team.id, ada.to_ref()), &stamp()).await.expect("given");
    let role = async |user: &User| store.role(user.id, app.id).await.expect("readable");
    assert_eq!((role(&ada).await, role(&bob).await), (Some(Role::Admin), None));
    let set = async |user: &User, role| store.set_member(&team, &user.to_ref(), role, &stamp()).await.expect("tried");
    assert!(set(&bob, Role::Deploy).await);
    assert_eq!(role(&bob).await, Some(Role::Deploy));
    assert_eq!(store.apps_of(bob.id).await.expect("readable").len(), 1);
    assert_eq!(store.summaries(bob.id, "", (0, 1)).await.expect("readable")[0].app.team.as_ref(), Some(&team));
    store.set_collaborator(app.id, &bob.to_ref(), Role::Manage, &stamp()).await.expect("given");
    assert_eq!(role(&bob).await, Some(Role::Manage), "the higher of the two");
    assert!(!set(&ada, Role::View).await, "nobody would be admin");
    assert!(!store.remove_member(&team, &ada.to_ref(), &stamp()).await.expect("tried"));
    assert!(!store.delete_team(&team, &stamp()).await.expect("tried"), "it owns an app");
    assert!(set(&bob, Role::Admin).await && set(&ada, Role::View).await);
    assert_eq!(role(&ada).await, Some(Role::View), "who brought the app has no more right than the team gives");
    assert!(store.remove_member(&team, &ada.to_ref(), &stamp()).await.expect("tried"));
    assert_eq!((role(&ada).await, store.apps_of(ada.id).await.expect("readable").len()), (None, 0));
    assert_eq!(
        store.collaborators(app.id, now()).await.expect("readable").len(),
        1,
        "of a team's app nobody is the owner"
    );
    let app = store.app(app.id).await.expect("readable").expect("there");
    store.set_owner(&app, &NewOwner::User(bob.to_ref()), &stamp()).await.expect("taken back");
    assert!(store.delete_team(&team, &stamp()).await.expect("tried"));
    assert_eq!(role(&bob).await, Some(Role::Admin));
}

async fn offers(store: &Store) {
    let (ada, bob) = (user(store, "ada@example.com").await, user(store, "bob@example.com").await);
    let app = make_app(store, &ada, "offered").await;
    let (ada_ref, bob_ref) = (ada.to_ref(), bob.to_ref());
    let make = async || store.insert_offer(&app, (&ada_ref, &bob_ref), &stamp()).await.expect("offered");
    let (first, second) = (make().await, make().await);
    assert!(!store.answer_offer(&first, Some(&app), &stamp()).await.expect("tried"), "the second took its place");
    assert!(store.answer_offer(&second, Some(&app), &stamp()).await.expect("tried"));
    assert!(!store.answer_offer(&second, Some(&app), &stamp()).await.expect("tried"), "once");
    assert_eq!(store.app(app.id).await.expect("readable").expect("there").owner, bob_ref);
    assert_eq!(store.role(ada.id, app.id).await.expect("readable"), None);
    let states: Vec<_> = store.offers(bob.id).await.expect("readable").iter().map(|offer| offer.state).collect();
    assert!(states.contains(&OfferState::Accepted) && states.contains(&OfferState::Declined), "{states:?}");
}

async fn invitations(store: &Store) {
    let ada = user(store, "ada@example.com").await;
    let team = TeamRef { id: model::TeamId::random(&SystemRandom), name: "ours".parse().expect("a name") };
    store.insert_team(&team, &ada.to_ref(), &stamp()).await.expect("made");
    let invite = |end| Invitation {
        id: model::InvitationId::random(&SystemRandom),
        email: "bob@example.com".parse().expect("an address"),
        place: Place::Team(team.clone()),
        role: Some(Role::Operate),
        invited_by: ada.to_ref(),
        expires_at: end,
        created_at: now(),
        updated_at: now(),
    };
    let later = now().after(Duration::from_secs(60));
    store.insert_invitation(&invite(later), "d1", &stamp()).await.expect("kept");
    let second = invite(later);
    store.insert_invitation(&second, "d2", &stamp()).await.expect("kept");
    assert!(store.invitation("d1", now()).await.expect("readable").is_none(), "the second took its place");
    assert!(store.invitation("d2", later).await.expect("readable").is_none(), "over");
    let found = store.invitation("d2", now()).await.expect("readable").expect("good");
    assert_eq!((&found.place, found.role), (&Place::Team(team.clone()), Some(Role::Operate)));
    let bob = User::new(UserId::random(&SystemRandom), "bob@example.com".parse().expect("an address"), now());
    let accept = async || store.accept_invitation(&found, (&bob, Some("hash")), &stamp()).await.expect("tried");
    assert!(accept().await);
    assert!(!accept().await, "once");
    let members = store.members(team.id).await.expect("readable");
    let mut roles: Vec<_> = members.iter().map(|member| member.role).collect();
    roles.sort_unstable();
    assert_eq!(roles, [Role::Operate, Role::Admin]);
}

async fn second_factor(store: &Store) {
    let ada = user(store, "ada@example.com").await;
    assert!(store.begin_totp(ada.id, b"secret").await.expect("kept"));
    assert!(store.confirm_totp(ada.id, 7, &["r1".to_owned(), "r2".to_owned()], &stamp()).await.expect("confirmed"));
    assert!(!store.begin_totp(ada.id, b"other").await.expect("tried"), "never replaced");
    assert_eq!(store.totp(ada.id).await.expect("readable").expect("there").secret, b"secret");
    assert!(!store.take_step(ada.id, 7).await.expect("tried") && store.take_step(ada.id, 8).await.expect("tried"));
    assert!(!store.take_step(ada.id, 8).await.expect("tried"));
    assert!(store.take_recovery_code(ada.id, "r1", &stamp()).await.expect("tried"));
    assert!(!store.take_recovery_code(ada.id, "r1", &stamp()).await.expect("tried"));
    assert_eq!(store.recovery_codes_left(ada.id).await.expect("readable"), 1);
    store.rotate_secrets().await.expect("rotated");
    assert_eq!(store.totp(ada.id).await.expect("readable").expect("there").secret, b"secret", "under a new key");
}

async fn gone(store: &Store) {
    let ada = user(store, "ada@example.com").await;
    let app = make_app(store, &ada, "left").await;
    store
        .set_owner(&app, &NewOwner::User(user(store, "bob@example.com").await.to_ref()), &stamp())
        .await
        .expect("given");
    store.delete_user(&ada, &stamp()).await.expect("gone");
    assert_eq!(store.releases(app.id).await.expect("readable").len(), 1, "its releases name who made them");
    assert!(store.user_with_password(&ada.email).await.expect("readable").is_none());
    user(store, "ada@example.com").await;
    assert_eq!(store.users().await.expect("readable").len(), 2);
    let gone = store
        .events(&EventFilter::default(), &Slice { max: 10, descending: true, ..Slice::default() })
        .await
        .expect("readable");
    assert!(gone.items.iter().any(|event| event.action == Action::Destroy && event.data["email"] == "ada@example.com"));
}
