//! Backing services: real servers, who gets through to them, and that what they acknowledged is never lost.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::faults;
use crate::platform::{App, Platform, Ran, shared};

/// Makes an add-on of this service; its name.
fn create(app: &App<'_>, service: &str) -> String {
    app.cli(&["addons:create", service]).expect_ok().stdout.trim().to_owned()
}

/// What one SQL statement answers.
fn sql(app: &App<'_>, statement: &str) -> String {
    let ran = app.platform.cli_with_input(&["pg:psql", "--app", &app.name], format!("\\t \\a\n{statement}").as_bytes());
    ran.expect_ok().stdout.lines().last().unwrap_or_default().to_owned()
}

/// Runs redis-cli on the app's Redis.
fn redis(app: &App<'_>, command: &[&str]) -> Ran {
    app.platform.cli(&[&["redis:cli", "--app", &app.name, "--"], command].concat()).expect_ok()
}

/// `host:port` of a config var that is a URL.
fn endpoint(app: &App<'_>, var: &str) -> String {
    let url: url::Url = app.cli(&["config:get", var]).expect_ok().stdout.trim().parse().expect("a URL");
    format!("{}:{}", url.host_str().expect("a host"), url.port().expect("a port"))
}

#[test]
fn an_app_counts_its_visits_and_others_get_through_only_while_attached() {
    let shop = shared().app("visits-app");
    let database = create(&shop, "postgres");
    shop.push().expect_ok();
    assert_eq!((shop.get("/").body, shop.get("/").body), ("1".to_owned(), "2".to_owned()));
    shop.cli(&["ps:scale", "web=2"]).expect_ok();
    crate::until("two instances run", || {
        let dynos = shop.json(&["ps"]);
        dynos.as_array().is_some_and(|dynos| dynos.iter().filter(|dyno| dyno["state"] == "up").count() == 2)
    });
    let visits: BTreeSet<_> = (0..10).map(|_| shop.get("/").body).collect();
    assert_eq!(visits.len(), 10, "no visit is counted twice: {visits:?}");
    assert_eq!(sql(&shop, "SELECT count(*) FROM visits;"), "12");
    let over_tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid();";
    assert_eq!(sql(&shop, over_tls), "t", "who insists on TLS has it");
    let said = shop.cli(&["logs", "--addon", "DATABASE", "-n", "500"]).expect_ok();
    said.expect_text(&["app[postgres.1]", "database system is ready to accept connections"]);

    let stranger = shared().app("probe-app");
    stranger.push().expect_ok();
    let place = endpoint(&shop, "DATABASE_URL");
    let connect = || stranger.get(&format!("/connect?{place}")).body;
    assert!(connect().starts_with("refused"), "{}", connect());
    let oneoff = || {
        let (host, port) = place.split_once(':').expect("host and port");
        let program = format!("import socket; socket.create_connection(('{host}', {port}), timeout=2)");
        stranger.cli(&["run", "--", "python3", "-c", &program]).ok
    };
    assert!(!oneoff());

    stranger.cli(&["addons:attach", &database, "--as", "SHOP_DB"]).expect_ok();
    assert_eq!(endpoint(&stranger, "SHOP_DB_URL"), place);
    assert_eq!(connect(), "connected");
    assert!(oneoff());
    shop.cli(&["addons:destroy", "DATABASE", "--confirm", &shop.name]).expect_refused(&["also attached to"]);
    stranger.cli(&["addons:detach", "SHOP_DB"]).expect_ok();
    crate::until("the stranger is shut out", || connect().starts_with("refused"));
    stranger.cli(&["config:get", "SHOP_DB_URL"]).expect_refused(&[]);
    assert_eq!(shop.get("/").status, 200);
}

#[test]
fn what_comes_from_an_add_on_is_its_own_and_goes_with_it() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app.cli(&["addons:attach", "--url", "mysql://user:password@db.example.com/shop", "--as", "SHOP"]).expect_ok();
    let env = || app.get("/env").body;
    assert!(env().contains("mysql://user:password@db.example.com/shop"), "{}", env());
    app.cli(&["config:set", "SHOP_URL=mine"]).expect_refused(&["Cannot overwrite attachment values SHOP_URL"]);

    let name = create(&app, "redis");
    redis(&app, &["SET", "colour", "green"]).expect_text(&["OK"]);
    redis(&app, &["GET", "colour"]).expect_text(&["green"]);
    assert!(env().contains("REDIS_URL"));
    let with = format!("v{}", app.json(&["releases"])[0]["version"]);
    app.cli(&["rollback"]).expect_ok().expect_text(&["- attachment REDIS"]);
    assert!(!env().contains("REDIS_URL"), "its use was not part of the release before");
    app.cli(&["rollback", &with]).expect_ok().expect_text(&["+ attachment REDIS"]);
    assert!(env().contains("REDIS_URL"), "and is part of this one");
    redis(&app, &["GET", "colour"]).expect_text(&["green"]);

    let id = app.json(&["addons:info", &name])["id"].as_str().expect("an id").to_owned();
    let volume = shared().home().join("volumes").join(&id);
    assert!(volume.exists());
    app.cli(&["addons:destroy", &name]).expect_refused(&["must be confirmed", "--confirm"]);
    app.cli(&["addons:destroy", &name, "--confirm", "other"]).expect_refused(&["nothing was done"]);
    app.cli(&["addons:destroy", &name, "--confirm", &app.name]).expect_ok();
    crate::until("its data is gone", || !volume.exists());
    crate::until("the app goes on without it", || !env().contains("REDIS_URL"));
    assert!(!app.cli(&["addons"]).expect_ok().text.contains(&name));
}

#[test]
fn a_backup_brings_back_what_was_and_a_broken_one_harms_nothing() {
    let app = shared().app("probe-app");
    create(&app, "postgres");
    sql(&app, "CREATE TABLE shop AS SELECT generate_series(1, 200000) AS item;");
    app.cli(&["pg:backups:capture"]).expect_ok().expect_text(&["b001"]);
    let file = app.folder.join("shop.dump");
    let path = file.to_string_lossy().into_owned();
    app.cli(&["pg:backups:download", "b001", "--output", &path]).expect_ok();
    sql(&app, "DELETE FROM shop WHERE item > 10; INSERT INTO shop VALUES (-1);");

    let restore = |what: &str| app.cli(&["pg:backups:restore", what, "--confirm", &app.name]);
    let whole = std::fs::read(&file).expect("a dump");
    for broken in [&whole[..whole.len() / 2], b"PGDMP and then nothing", b""] {
        let broken_file = app.folder.join("broken.dump");
        std::fs::write(&broken_file, broken).expect("written");
        restore(&broken_file.to_string_lossy()).expect_refused(&["no data was changed"]);
        assert_eq!(sql(&app, "SELECT count(*) FROM shop;"), "11");
    }
    // A client that holds the database does not stop a restore.
    std::thread::scope(|scope| {
        let client = scope.spawn(|| app.cli(&["pg:psql", "-c", "SELECT pg_sleep(600)"]));
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep';";
        crate::until("a client is at work", || sql(&app, waits) == "1");
        restore("b001").expect_ok();
        client.join().expect("no panic").expect_refused(&["terminating connection"]);
    });
    assert_eq!(sql(&app, "SELECT count(*), min(item) FROM shop;"), "200000|1");
    sql(&app, "DROP TABLE shop;");
    restore(&path).expect_ok();
    assert_eq!(sql(&app, "SELECT count(*) FROM shop;"), "200000");
    assert_eq!(sql(&app, "SELECT count(*) FROM pg_database WHERE datname LIKE 'platform%';"), "0", "nothing is left");
    app.cli(&["pg:backups:delete", "b001", "--confirm", &app.name]).expect_ok();
    let left = app.json(&["pg:backups"]);
    assert!(left.as_array().is_some_and(|all| all.iter().all(|backup| backup["name"] != "b001")), "{left}");
}

/// Visits without pause; every number that the app was told is in the database must stay there.
fn write_around(app: &App<'_>, during: impl FnOnce()) -> BTreeSet<u64> {
    let (acknowledged, stop) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    let count = || acknowledged.lock().expect("no panic").len();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    match app.platform.try_get(&app.host(), "/") {
                        Ok(answer) if answer.status == 200 => {
                            let number = answer.body.parse().expect("a number");
                            assert!(acknowledged.lock().expect("no panic").insert(number), "{number} came twice");
                        }
                        _ => std::thread::sleep(std::time::Duration::from_millis(20)),
                    }
                }
            });
        }
        crate::until("visits are counted", || count() > 20);
        during();
        let before = count();
        crate::until("visits are counted again", || count() > before + 20);
        stop.store(true, Ordering::Relaxed);
    });
    acknowledged.into_inner().expect("no panic")
}

/// Processes of this platform's add-ons that run this program.
fn servers(platform: &Platform, program: &str) -> Vec<Pid> {
    let home = platform.home().to_string_lossy().into_owned();
    let is_ours = |folder: &Path| {
        let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        let name = line.split(|byte| *byte == 0).next().unwrap_or_default();
        // Its volume is mounted from the platform's home.
        let mounts = std::fs::read_to_string(folder.join("mountinfo")).unwrap_or_default();
        name.ends_with(program.as_bytes()) && mounts.contains(&*home)
    };
    let processes = std::fs::read_dir("/proc").expect("readable").flatten().map(|entry| entry.path());
    let ours = processes.filter(|path| is_ours(path));
    ours.filter_map(|path| path.file_name()?.to_str()?.parse().ok()).map(Pid::from_raw).collect()
}

#[test]
fn acknowledged_rows_survive_whatever_is_killed() {
    let platform = Platform::start(&[]);
    let app = platform.app("visits-app");
    create(&app, "postgres");
    create(&app, "redis");
    app.push().expect_ok();
    platform.cli_with_input(&["redis:cli", "--app", &app.name], b"SET colour green\nINCR number\n").expect_ok();
    let place = endpoint(&app, "DATABASE_URL");
    let mut acknowledged = BTreeSet::new();

    acknowledged.extend(write_around(&app, || {
        for program in ["/postgres", "redis-server *:6379"] {
            let pids = servers(&platform, program);
            assert!(!pids.is_empty(), "{program} runs");
            for pid in pids {
                // One that went with another is as good as killed.
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }));
    acknowledged.extend(write_around(&app, || {
        app.cli(&["addons:restart", "DATABASE"]).expect_ok();
    }));
    acknowledged.extend(write_around(&app, || {
        for role in ["controller", "host", "containerd", "router"] {
            faults::kill(&platform, role);
        }
    }));
    acknowledged.extend(write_around(&app, || {
        // As a machine that restarts: nothing runs, then everything is started from what is on the disk.
        platform.cli(&["down"]).expect_ok();
        platform.up(&[]);
    }));

    assert_eq!(endpoint(&app, "DATABASE_URL"), place);
    let rows = platform.cli_with_input(&["pg:psql", "--app", &app.name], b"\\t \\a\nSELECT number FROM visits;\n");
    let rows: BTreeSet<u64> = rows.expect_ok().stdout.lines().filter_map(|line| line.parse().ok()).collect();
    let lost: Vec<_> = acknowledged.difference(&rows).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged rows are lost: {lost:?}", lost.len(), acknowledged.len());
    redis(&app, &["MGET", "colour", "number"]).expect_text(&["green", "1"]);
}
