//! What happens to a dyno from outside, behind the platform's back.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::strike::{pair, strike, up};
use crate::load::Seen;
use crate::platform::{App, shared};

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

/// The parent of a process (proc(5)).
fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    fields.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()).expect("a parent")
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
    strike("the shim of an app is killed", &app, || end(parent(process(&app, &victim))), is_right);
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
