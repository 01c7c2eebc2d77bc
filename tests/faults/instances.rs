//! What happens to a dyno from outside, behind the platform's back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Held;
use super::strike::{pair, strike, up};
use crate::load::Seen;
use crate::platform::{App, Platform, shared};

/// One of two dynos is struck; both are up again in the end, that one as another.
fn struck(name: &str, fault: impl FnOnce(&App<'_>, &str)) -> Seen {
    let app = shared().app("probe-app");
    let before = pair(&app);
    let victim = instance(&app);
    let is_right = || up(&app).len() == 2 && up(&app).intersection(&before).count() == 1;
    strike(name, &app, || fault(&app, &victim), is_right)
}

/// What the machine calls the app's web.1.
pub(super) fn instance(app: &App<'_>) -> String {
    let id = app.json(&["apps:info"])["id"].clone();
    let instances = app.platform.home().join("host/instances");
    let is_meant = |folder: &Path| {
        let record = std::fs::read(folder.join("record.json")).unwrap_or_default();
        let record: Value = serde_json::from_slice(&record).unwrap_or_default();
        record["instance"]["workload"]["app"] == id && record["instance"]["number"] == 1
    };
    let mut folders = std::fs::read_dir(instances).expect("instances").flatten().map(|entry| entry.path());
    let folder = folders.find(|folder| is_meant(folder)).expect("web.1");
    folder.file_name().expect("a name").to_string_lossy().into_owned()
}

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it ran");
}

/// The first process of a dyno.
fn process(app: &App<'_>, id: &str) -> i32 {
    let running = std::fs::read(app.platform.home().join("host/instances").join(id).join("running.json"));
    let running: Value = serde_json::from_slice(&running.expect("it runs")).expect("JSON");
    running["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid")
}

/// The parent of a process (proc(5)), if that runs.
fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// The shims that hold a dyno.
fn shims(platform: &Platform) -> BTreeSet<i32> {
    let instances = std::fs::read_dir(platform.home().join("host/instances"));
    let running = instances.into_iter().flatten().flatten().map(|entry| entry.path().join("running.json"));
    let pid = |path: PathBuf| {
        let running: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        i32::try_from(running["pid"].as_i64()?).ok()
    };
    running.filter_map(pid).filter_map(parent).collect()
}

/// At most what each of the four visitors had under way.
fn expect_only_what_was_under_way(seen: &Seen) {
    assert!(seen.failed <= 4, "{seen:?}");
}

#[test]
fn a_dyno_that_is_killed_takes_only_its_own_requests_along() {
    let seen = struck("a dyno is killed from outside", |app, id| end(process(app, id)));
    expect_only_what_was_under_way(&seen);
}

#[test]
fn the_dynos_of_a_shim_that_is_killed_come_back() {
    let app = shared().app("probe-app");
    let before = pair(&app);
    let victim = instance(&app);
    let is_right = || up(&app).intersection(&before).count() == 0 && up(&app).len() == 2;
    // All of them go at once, and containerd takes its time to notice: how many requests that costs is the machine's pace.
    strike("the shim of an app is killed", &app, || end(parent(process(&app, &victim)).expect("a shim")), is_right);
}

#[test]
fn every_shim_that_is_killed_again_and_again_takes_nothing_but_time() {
    let platform = Platform::start(&[]);
    let apps = [platform.app("probe-app"), platform.app("probe-app")];
    for app in &apps {
        pair(app);
    }
    assert_eq!((Held::by(&platform), shims(&platform).len()), (Held::of(4), 2), "a shim for each app");
    // So many crashes in a row are followed by a restart at once: whatever it died of, a dyno that dies counts as crashed.
    let rounds = || {
        for _ in 0..3 {
            let before: Vec<_> = apps.iter().map(up).collect();
            shims(&platform).into_iter().for_each(end);
            let is_new =
                |(app, before): (&App<'_>, &BTreeSet<String>)| up(app).len() == 2 && up(app).is_disjoint(before);
            crate::until("all dynos are up as others", || apps.iter().zip(&before).all(is_new));
        }
    };
    strike("every shim is killed, three times", &apps[0], rounds, || true);
    crate::until("nothing is left over", || Held::by(&platform) == Held::of(4) && shims(&platform).len() == 2);
}

/// The folders that limit a dyno.
fn cgroups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let inside = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in inside.filter(|path| path.is_dir()) {
            if path.ends_with(id) {
                found.push(path);
            } else if depth < 2 {
                folders.push((path, depth + 1));
            }
        }
    }
    found
}

#[test]
fn a_dyno_that_nothing_limits_any_more_is_replaced() {
    let seen = struck("a dyno's cgroup is removed", |_, id| {
        for cgroup in cgroups(id) {
            let root = cgroup.ancestors().nth(2).map_or(Path::new("/sys/fs/cgroup"), |root| root).to_owned();
            // Processes come and go meanwhile.
            while cgroup.is_dir() && std::fs::remove_dir(&cgroup).is_err() {
                for pid in std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
                    let _ = std::fs::write(root.join("cgroup.procs"), pid);
                }
            }
        }
    });
    expect_only_what_was_under_way(&seen);
}

#[test]
fn a_dyno_that_lost_its_link_is_replaced() {
    let seen = struck("a dyno's network link is removed", |app, id| {
        let namespace = app.platform.runtime_dir().join("netns").join(id);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace.display())).args(["ip", "link", "delete", "eth0"]);
        assert!(command.status().expect("nsenter").success());
    });
    expect_only_what_was_under_way(&seen);
}
