//! What happens to what the platform keeps things in: its database, its disk, its clock.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::strike::{pair, strike, up};
use crate::load::Seen;
use crate::platform::Platform;

/// A program that holds the database's lock until it is told to let go.
struct Lock(std::process::Child);

impl Lock {
    fn take(database: &Path) -> Self {
        const HOLD: &str = "import sqlite3, sys\n\
            database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n\
            database.execute('BEGIN EXCLUSIVE')\nprint('held', flush=True)\nsys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", HOLD]).arg(database).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line, "held\n");
        Self(child)
    }

    fn let_go(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("ended").success());
    }
}

#[test]
fn while_the_database_is_busy_apps_answer_and_changes_wait_or_say_why() {
    let platform = Platform::start(&[]);
    let app = platform.app("probe-app");
    let before = pair(&app);
    let busy = || {
        let lock = Lock::take(&platform.home().join("platform.db"));
        app.cli(&["config:set", "A=1"]).expect_refused(&["database", "again"]);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| app.cli(&["config:set", "A=2"]));
            lock.let_go();
            waits.join().expect("an answer").expect_ok();
        });
    };
    let Seen { failure, .. } = strike("the database is locked by another program", &app, busy, || {
        up(&app).len() == 2 && up(&app).intersection(&before).count() == 0
    });
    assert_eq!(failure, None);
    assert!(app.get("/env").body.contains("\"A\": \"2\""));
}

/// A small disk with a platform on it.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn mount(name: &str, files: u32) -> Self {
        let folder = std::env::temp_dir().join(format!("platform-disk-{}-{name}", std::process::id()));
        let disk = Self { image: folder.join("image"), at: folder.join("disk") };
        std::fs::create_dir_all(&disk.at).expect("a folder");
        let image = std::fs::File::create(&disk.image).expect("an image");
        image.set_len(6 << 30).expect("a sparse file");
        let run = |program: &mut Command| assert!(program.status().expect("a program").success());
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-N", &files.to_string()]).arg(&disk.image));
        run(Command::new("mount").args(["-o", "loop"]).args([&disk.image, &disk.at]));
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever still uses it goes first.
        let _ = nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir_all(self.at.parent().expect("its folder"));
    }
}

/// Lets a disk be full while an app on it is used, in the way of `fill`, and makes room again.
fn full(name: &str, platform: &Platform, fill: impl FnOnce(&Path), what: &[&str]) {
    let app = platform.app("probe-app");
    let before = pair(&app);
    let filler = platform.home().join("filler");
    // The developer's working copy is on that disk, too.
    app.git(&["commit", "-q", "--allow-empty", "-m", "again"]).expect_ok();
    let fault = || {
        fill(&filler);
        app.cli(&["config:set", "A=1"]).expect_refused(what);
        app.push().expect_refused(&["disk"]);
        assert_eq!(up(&app), before, "nothing that runs is touched");
        std::fs::remove_dir_all(&filler).expect("removed");
        app.cli(&["config:set", "A=2"]).expect_ok();
    };
    let Seen { failure, .. } =
        strike(name, &app, fault, || up(&app).len() == 2 && up(&app).intersection(&before).count() == 0);
    assert_eq!(failure, None);
    app.push().expect_ok();
    platform.cli(&["down"]).expect_ok();
}

#[test]
fn a_disk_without_a_free_byte_stops_no_app() {
    let disk = Disk::mount("bytes", 400_000);
    let platform = Platform::start_in(disk.at.join("home"), 4001, &[]);
    let fill = |filler: &Path| {
        std::fs::create_dir(filler).expect("a folder");
        for size in [1 << 30, 1 << 24, 1 << 20, 1 << 12] {
            let take = |number: u32| {
                let file = std::fs::File::create(filler.join(format!("{size}-{number}")));
                file.is_ok_and(|file| nix::fcntl::posix_fallocate(file, 0, size).is_ok())
            };
            let mut number = 0;
            while take(number) {
                number += 1;
            }
        }
    };
    full("the platform's disk has no free byte", &platform, fill, &["disk"]);
}

#[test]
fn a_disk_that_takes_no_more_files_stops_no_app() {
    let disk = Disk::mount("files", 60_000);
    let platform = Platform::start_in(disk.at.join("home"), 4002, &[]);
    let fill = |filler: &Path| {
        std::fs::create_dir(filler).expect("a folder");
        let mut number = 0;
        while std::fs::write(filler.join(number.to_string()), "").is_ok() {
            number += 1;
        }
    };
    full("the platform's disk takes no more files", &platform, fill, &["disk"]);
}

/// Takes so much of a disk that this share of it is used.
fn fill_to(filler: &Path, percent: u64) {
    let file = std::fs::File::create(filler).expect("made");
    let disk = nix::sys::statvfs::statvfs(filler).expect("measured");
    let used = disk.blocks() - disk.blocks_available();
    let bytes = (disk.blocks() * percent / 100).saturating_sub(used) * disk.fragment_size();
    nix::fcntl::posix_fallocate(file, 0, i64::try_from(bytes).expect("a size")).expect("there is room");
}

#[test]
fn a_disk_that_fills_up_takes_caches_then_builds_and_no_app() {
    let disk = Disk::mount("fills", 400_000);
    let settings = [("PLATFORM_DISK_HIGH", "50"), ("PLATFORM_DISK_FULL", "60")];
    let platform = Platform::start_in(disk.at.join("home"), 4003, &settings);
    let app = platform.app("probe-app");
    app.push().expect_ok();
    app.cli(&["ps:exec", "--", "sh", "-c", "head -c 30000000 /dev/urandom > /tmp/big; sync /tmp/big"]).expect_ok();
    let room = |name: &str| {
        let rooms = app.json(&["apps:disk"])["rooms"].clone();
        let found = rooms.as_array().expect("a list").iter().find(|room| room["name"] == name).cloned();
        found.unwrap_or_else(|| panic!("{name}: {rooms}"))["bytes"].as_u64().expect("a number")
    };
    assert!(
        room("dynos") > 30_000_000 && room("images") > 0 && room("build cache") > 0,
        "{}",
        app.json(&["apps:disk"])
    );
    let releases = app.json(&["releases"]).as_array().expect("a list").len();

    let filler = platform.home().join("filler");
    fill_to(&filler, 55);
    let waste = platform.cli(&["gc", "--dry-run"]).expect_ok().expect_text(&["cache"]);
    assert!(!waste.text.contains("volume"), "{}", waste.text);
    platform.cli(&["gc"]).expect_ok();
    crate::until("the cache gave way", || room("build cache") == 0);
    app.git(&["commit", "-q", "--allow-empty", "-m", "again"]).expect_ok();
    app.push().expect_ok();

    fill_to(&filler, 65);
    platform.cli(&["disk"]).expect_ok().expect_text(&["65 %", "nothing is built from 60 %"]);
    app.git(&["commit", "-q", "--allow-empty", "-m", "once more"]).expect_ok();
    app.push().expect_refused(&["The disk is nearly full: 65 % of its space is used", "60 %", "platform disk"]);
    assert_eq!(app.get("/").status, 200);
    app.cli(&["config:set", "A=1"]).expect_ok();
    app.cli(&["rollback"]).expect_ok();
    assert_eq!(app.json(&["releases"]).as_array().expect("a list").len(), releases + 3, "all but builds goes on");
    assert_eq!(app.get("/").status, 200);
    std::fs::remove_file(&filler).expect("removed");
    app.push().expect_ok();
    platform.cli(&["down"]).expect_ok();
}

/// Debian's library that shows programs another time.
const FAKETIME: &str = "faketime/libfaketime.so.1";

fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("libraries").flatten().map(|entry| entry.path());
    let mut found = folders.map(|folder| folder.join(FAKETIME)).filter(|path| path.exists());
    found.next().expect("libfaketime is installed (scripts/deps.sh test)")
}

#[test]
fn a_clock_that_jumps_by_an_hour_changes_nothing_that_runs() {
    let offset = std::env::temp_dir().join(format!("platform-clock-{}", std::process::id()));
    // As a whole: who reads half of it would see yet another time.
    let jump = |to: &str| {
        let new = offset.with_extension("new");
        std::fs::write(&new, format!("{to}\n")).expect("written");
        std::fs::rename(new, &offset).expect("renamed");
    };
    jump("+0");
    let (library, file) = (faketime(), offset.clone());
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    // libfaketime shares something between a process and those that come of it, which goes with the first one; `platform up` goes at once.
    let mut first = Command::new("cat").env("LD_PRELOAD", &library).stdin(Stdio::piped()).spawn().expect("cat");
    let shared = format!("/faketime_sem_{0} /faketime_shm_{0}", first.id());
    let is_there = || Path::new(&format!("/dev/shm/sem.faketime_sem_{}", first.id())).exists();
    crate::until("libfaketime is ready", is_there);
    let platform = Platform::start(&[
        ("LD_PRELOAD", &text(&library)),
        ("FAKETIME_SHARED", &shared),
        ("FAKETIME_TIMESTAMP_FILE", &text(&file)),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
    let app = platform.app("probe-app");
    let mut instances = pair(&app);
    for (name, to) in [("the clock jumps an hour ahead", "+1h"), ("the clock jumps two hours back", "-1h")] {
        let changed = || {
            let now = up(&app);
            now.len() == 2 && now.intersection(&instances).count() == 0
        };
        let fault = || {
            jump(to);
            assert_eq!(up(&app), instances, "nothing is replaced for that");
            app.cli(&["config:set", &format!("CLOCK={to}")]).expect_ok();
        };
        let Seen { failure, .. } = strike(name, &app, fault, changed);
        assert_eq!(failure, None);
        app.git(&["commit", "-q", "--allow-empty", "-m", to]).expect_ok();
        app.push().expect_ok();
        crate::until("both are up", || up(&app).len() == 2);
        instances = up(&app);
    }
    drop(platform);
    drop(first.stdin.take());
    first.wait().expect("it ends with its input");
    let _ = std::fs::remove_file(offset);
}
