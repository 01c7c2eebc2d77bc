//! The platform becomes another version of itself while it is used.

use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tungstenite::{Message, WebSocket};

use crate::faults::pid;
use crate::load::{Load, Seen};
use crate::platform::{App, Platform, Ran};

const ROLES: [&str; 4] = ["controller", "router", "host", "containerd"];

/// The program in a place of its own, where another one can be put.
struct Program(PathBuf);

impl Program {
    fn install(platform: &Platform) -> Self {
        let program = Self(platform.home().join("bin/platform"));
        std::fs::create_dir_all(platform.home().join("bin")).expect("a folder");
        program.replace();
        program
    }

    /// As a package does it: a file of its own in the place of the one that runs.
    fn replace(&self) {
        let draft = self.0.with_extension("new");
        std::fs::copy(env!("CARGO_BIN_EXE_platform"), &draft).expect("copied");
        std::fs::rename(&draft, &self.0).expect("in its place");
    }

    fn run(&self, platform: &Platform, args: &[&str]) -> Ran {
        Ran::from(platform.command(&self.0.to_string_lossy()).args(args).output().expect("the program"))
    }

    /// Whether this role of the platform is what the file is now.
    fn is_run_by(&self, platform: &Platform, role: &str) -> bool {
        let pid = pid(platform, role).expect("a running role");
        let runs = std::fs::metadata(format!("/proc/{pid}/exe")).expect("its program");
        runs.ino() == std::fs::metadata(&self.0).expect("the file").ino()
    }
}

/// Routers that were replaced, and are there.
fn older_routers(platform: &Platform) -> Vec<i32> {
    let entries = std::fs::read_dir(platform.runtime_dir()).expect("its folder").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("router-")?.strip_suffix(".old.pid")?.parse().ok()).collect()
}

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
}

fn web_socket(app: &App<'_>) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(app.platform.address()).expect("a connection");
    tungstenite::client(format!("ws://{}/", app.host()), stream).expect("a web socket").0
}

fn echoes(socket: &mut WebSocket<TcpStream>) -> bool {
    let message = Message::text("still here");
    socket.send(message.clone()).is_ok() && socket.read().is_ok_and(|echo| echo == message)
}

#[test]
fn the_platform_is_upgraded_under_load_and_nobody_notices() {
    let platform = Platform::fresh();
    let program = Program::install(&platform);
    program.run(&platform, &["reload"]).expect_refused(&["The platform is not running", "`platform up` starts it"]);
    program.run(&platform, &["up", "--detach"]).expect_ok();
    platform.welcome();
    let app = platform.app("probe-app");
    app.push().expect_ok();
    let dyno = app.json(&["ps"])[0]["id"].clone();

    let Seen { answered, failure, .. } = Load::around_routers(&app, || {
        for _ in 0..3 {
            let (mut socket, before) = (web_socket(&app), ROLES.map(|role| pid(&platform, role)));
            assert!(echoes(&mut socket));
            program.replace();
            program.run(&platform, &["reload"]).expect_ok().expect_text(&["The platform is what is installed now"]);
            assert!(echoes(&mut socket), "it has its drain time");
            for (role, before) in ROLES.into_iter().zip(before) {
                assert_ne!(pid(&platform, role), before, "{role}");
                assert!(role == "containerd" || program.is_run_by(&platform, role), "{role}");
            }
            assert!(app.cli(&["ps"]).ok);
        }
    });
    assert_eq!(failure, None, "of {answered} requests and messages, in three upgrades");

    // One that does not work: a program that cannot run, and one that says that it would not start.
    let before = ROLES.map(|role| pid(&platform, role));
    let Seen { failure, .. } = Load::around_routers(&app, || {
        for broken in ["no program", "#!/bin/sh\necho a library is missing >&2\nexit 1\n"] {
            std::fs::remove_file(&program.0).expect("removed");
            std::fs::write(&program.0, broken).expect("written");
            std::fs::set_permissions(&program.0, PermissionsExt::from_mode(0o755)).expect("executable");
            let said = platform.cli(&["reload"]).expect_refused(&[&program.0.to_string_lossy()]);
            assert!(broken == "no program" || said.text.contains("a library is missing"), "{}", said.text);
        }
    });
    assert_eq!((failure, ROLES.map(|role| pid(&platform, role))), (None, before));

    // The supervisor is killed in the middle, and what drains dies as well: whoever has nothing to do with that notices nothing.
    program.replace();
    let mut socket = web_socket(&app);
    let Seen { failure, .. } = Load::around_routers(&app, || {
        end(pid(&platform, "up").expect("a supervisor"));
        program.run(&platform, &["up", "--detach"]).expect_ok();
        assert!(echoes(&mut socket), "it has its drain time");
    });
    assert_eq!(failure, None);
    let older = older_routers(&platform);
    assert!(!older.is_empty(), "the one with the web socket");
    older.into_iter().for_each(end);
    assert_eq!(app.get("/").status, 200);
    crate::until("nothing of it is left", || older_routers(&platform).is_empty());
    assert_eq!(app.json(&["ps"])[0]["id"], dyno, "the same dyno all along");

    let mut draining = web_socket(&app);
    program.run(&platform, &["reload"]).expect_ok();
    let (router, older) = (pid(&platform, "router").expect("a router"), older_routers(&platform));
    assert_eq!(older.len(), 1);
    std::thread::scope(|scope| {
        scope.spawn(|| platform.cli(&["down"]).expect_ok());
        // Until the dyno ends it. Then there is nothing to wait for.
        while draining.read().is_ok() {}
        drop(draining);
    });
    for pid in older.into_iter().chain([router]) {
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists(), "{pid} outlived the platform");
    }
}
