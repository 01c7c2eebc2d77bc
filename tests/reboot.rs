//! After everything died at once, every app answers for itself, and none for another.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::faults::pid;
use crate::platform::{Answer, App, Platform};

const APPS: usize = 20;
const ROUNDS: usize = 20;

/// Apps that say their own names.
fn apps(platform: &Platform) -> Vec<App<'_>> {
    let apps: Vec<App<'_>> = (0..APPS).map(|_| platform.app("probe-app")).collect();
    std::thread::scope(|scope| {
        for some in apps.chunks(APPS / 4) {
            scope.spawn(move || {
                for app in some {
                    app.edit("probe.py", "VERSION = \"1\"", &format!("VERSION = \"{}\"", app.name));
                    app.commit("its name");
                    app.push().expect_ok();
                }
            });
        }
    });
    apps
}

fn own_answer(app: &App<'_>) -> Answer {
    Answer { status: 200, body: format!("version {} web.1", app.name) }
}

fn end(pid: i32) {
    // It may be gone already.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Kills every process of the platform and of its apps at once.
fn kill_everything(platform: &Platform) {
    for role in ["up", "router", "host", "controller", "containerd"] {
        end(pid(platform, role).expect("it ran"));
    }
    let socket = platform.runtime_dir().join("containerd.sock").display().to_string();
    for process in names(Path::new("/proc")).into_iter().filter_map(|name| name.parse::<i32>().ok()) {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("containerd-shim") && line.contains(&socket) {
            end(process);
        }
    }
    let instances = platform.home().join("host/instances");
    for id in names(&instances) {
        let record = std::fs::read(instances.join(&id).join("running.json")).ok();
        let record = record.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let process = record.and_then(|record| i32::try_from(record["pid"].as_i64()?).ok());
        // Another process may have the number by now.
        let is_its_own = |process: &i32| {
            std::fs::read_to_string(format!("/proc/{process}/cgroup")).is_ok_and(|cgroup| cgroup.contains(&id))
        };
        process.filter(is_its_own).into_iter().for_each(end);
    }
}

/// Takes what a reboot takes beside processes: mounts, firewall rules, and what lies under `/run`.
fn forget_what_a_reboot_forgets(platform: &Platform) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let ours = |target: &Path| target.starts_with(platform.home()) || target.starts_with(platform.runtime_dir());
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    for target in targets.filter(|target| ours(target)) {
        let _ = umount2(&target, MntFlags::MNT_DETACH);
    }
    let rules = platform.runtime_dir().file_name().map(|name| name.to_string_lossy().replace('-', "_"));
    let rules = Command::new("nft").args(["delete", "table", "inet"]).args(rules).status().expect("nft");
    assert!(rules.success(), "the rules that keep everybody from an instance");
    std::fs::remove_dir_all(platform.runtime_dir()).expect("removed");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// What a visitor gets who waits at the door.
fn first_answer(app: &App<'_>) -> Answer {
    let mut answer = None;
    crate::until("the router takes requests", || {
        answer = app.platform.try_get(&app.host(), "/").ok();
        answer.is_some()
    });
    answer.expect("an answer")
}

#[test]
fn whatever_dies_at_once_every_app_answers_again_and_none_for_another() {
    let platform = Platform::start(&[]);
    let apps = apps(&platform);
    for round in 0..ROUNDS {
        let before = addresses(&platform);
        kill_everything(&platform);
        // A reboot in every other round: then addresses are handed out from the first one on again, to whoever is there first.
        if round % 2 == 0 {
            forget_what_a_reboot_forgets(&platform);
        }
        if round % 4 == 0 {
            no_request_passes_while_the_host_role_is_held_back(&platform, &apps, before);
        }
        std::thread::scope(|scope| {
            let visitors: Vec<_> = apps.iter().map(|app| (app, scope.spawn(|| first_answer(app)))).collect();
            platform.up(&[]);
            for (app, visitor) in visitors {
                assert_eq!(visitor.join().expect("no panic"), own_answer(app), "round {round}, the first answer");
            }
        });
        for app in &apps {
            assert_eq!(app.get("/"), own_answer(app), "round {round}");
        }
    }
}

/// The router serves alone, and at every address of before there is somebody else who would answer.
fn no_request_passes_while_the_host_role_is_held_back(platform: &Platform, apps: &[App<'_>], before: Vec<SocketAddr>) {
    let strangers = Strangers::at(before);
    let mut router = platform.command(env!("CARGO_BIN_EXE_platform"));
    let router = router.args(["role", "router"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut router = router.spawn().expect("a router");
    crate::until("the router takes requests", || TcpStream::connect(platform.address()).is_ok());
    let mut waiting: Vec<TcpStream> = apps
        .iter()
        .map(|app| {
            let mut visitor = TcpStream::connect(platform.address()).expect("a connection");
            write!(visitor, "GET / HTTP/1.1\r\nHost: {}\r\n\r\n", app.host()).expect("sent");
            visitor
        })
        .collect();
    assert_eq!(platform.get("nobody.localhost", "/").status, 404, "it answers what needs no instance");
    for visitor in &mut waiting {
        visitor.set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
        let mut answer = [0; 512];
        let error = visitor.read(&mut answer).map(|length| String::from_utf8_lossy(&answer[..length]).into_owned());
        let held =
            error.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        assert!(held, "it waits for its own app: {error:?}");
    }
    router.kill().expect("killed");
    router.wait().expect("ended");
    assert_eq!(strangers.visitors(), 0);
}

/// Where the router would send requests if it believed what is on disk.
fn addresses(platform: &Platform) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    crate::until("every app and its address are on disk", || {
        let table = std::fs::read(platform.home().join("routes.json")).expect("a table");
        let table: Value = serde_json::from_slice(&table).expect("JSON");
        let rows = |half: &str| table[half].as_array().cloned().expect("rows");
        let (names, rows) = (rows("names"), rows("addresses"));
        let healthy = rows.iter().flat_map(|row| row[1]["healthy"].as_array().into_iter().flatten());
        found = healthy.filter_map(|endpoint| endpoint["address"].as_str()?.parse().ok()).collect();
        found.len() == APPS && names.iter().filter(|row| row[1]["mode"]["serve"].is_array()).count() == APPS
    });
    found
}

/// Somebody at each of these addresses who answers every request.
struct Strangers {
    addresses: Vec<SocketAddr>,
    shared: std::sync::Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    visitors: AtomicU32,
    stop: AtomicBool,
}

impl Strangers {
    fn at(addresses: Vec<SocketAddr>) -> Self {
        let shared = std::sync::Arc::new(Shared::default());
        for address in &addresses {
            ip("add", address);
            let listener = TcpListener::bind(address).expect("its address");
            let shared = std::sync::Arc::clone(&shared);
            std::thread::spawn(move || {
                while let Ok((mut visitor, _)) = listener.accept() {
                    if shared.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    shared.visitors.fetch_add(1, Ordering::Relaxed);
                    let _ = visitor.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nstranger");
                }
            });
        }
        let strangers = Self { addresses, shared };
        for address in &strangers.addresses {
            let mut answer = String::new();
            let mut visitor = TcpStream::connect(address).expect("somebody listens");
            visitor.read_to_string(&mut answer).expect("an answer");
            assert!(answer.ends_with("stranger"));
        }
        strangers.shared.visitors.store(0, Ordering::Relaxed);
        strangers
    }

    fn visitors(&self) -> u32 {
        self.shared.visitors.load(Ordering::Relaxed)
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for address in &self.addresses {
            // Wakes who listens, so that it ends.
            let _ = TcpStream::connect(address);
            ip("del", address);
        }
    }
}

fn ip(action: &str, address: &SocketAddr) {
    let address = format!("{}/32", address.ip());
    let done = Command::new("ip").args(["address", action, &address, "dev", "lo"]).status().expect("iproute2");
    assert!(done.success() || std::thread::panicking(), "ip address {action} {address}");
}
