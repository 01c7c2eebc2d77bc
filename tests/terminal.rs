//! What a person sees while it happens: one-offs and `up` on a real terminal, and the log as it grows.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::platform::{Platform, shared};

/// Everything that comes out of a stream, from its beginning.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn of(mut stream: impl Read + Send + 'static) -> Self {
        let screen = Self::default();
        let seen = Arc::clone(&screen.0);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal whose last program has ended answers with an error.
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                seen.lock().expect("no panic").extend_from_slice(&buffer[..length]);
            }
        });
        screen
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }

    fn wait_for(&self, text: &str) {
        // The text itself, should it not come, is what explains why.
        let seen = std::panic::catch_unwind(|| crate::until(text, || self.text().contains(text)));
        assert!(seen.is_ok(), "`{text}` was not shown:\n{}", self.text());
    }
}

/// A terminal with one program on it.
struct Terminal {
    keyboard: File,
    screen: Screen,
    /// Held open, so that the terminal and its settings outlive the program.
    tty: OwnedFd,
    program: Child,
}

impl Terminal {
    fn open(platform: &Platform, args: &[&str], (rows, columns): (u16, u16)) -> Self {
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        let end = || Stdio::from(pty.slave.try_clone().expect("a file"));
        let mut command = platform.command("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_platform")]).args(args).env("TERM", "xterm");
        stty(&pty.slave, &["rows", &rows.to_string(), "cols", &columns.to_string()]);
        let program = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid");
        let keyboard = File::from(pty.master);
        Self { screen: Screen::of(keyboard.try_clone().expect("a file")), keyboard, tty: pty.slave, program }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("written");
    }

    fn resize(&self, (rows, columns): (u16, u16)) {
        stty(&self.tty, &["rows", &rows.to_string(), "cols", &columns.to_string()]);
    }

    fn exit_status(&mut self) -> Option<i32> {
        self.program.wait().expect("a child").code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed leaves it running.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// What stty(1) says of a terminal, or does to it.
fn stty(tty: impl AsFd, args: &[&str]) -> String {
    let input = Stdio::from(tty.as_fd().try_clone_to_owned().expect("a file"));
    let output = Command::new("stty").args(args).stdin(input).output().expect("stty");
    assert!(output.status.success(), "stty {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_one_off_has_this_terminal_with_its_size_its_keys_and_its_end() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    let mut terminal = Terminal::open(shared(), &["run", "--app", &app.name, "bash", "--norc"], (30, 100));
    let settings = stty(&terminal.tty, &["--save"]);
    terminal.press("echo this is $TERM; while sleep 0.1; do stty size; done\r");
    terminal.screen.wait_for("this is xterm");
    terminal.screen.wait_for("30 100");
    terminal.resize((50, 133));
    terminal.screen.wait_for("50 133");
    // A shell goes on with its loop if the program in it ends by itself at the moment of the signal.
    crate::until("the loop is interrupted", || {
        terminal.press("\u{3}");
        terminal.press("echo interrupted with $?\r");
        terminal.screen.text().contains("interrupted with 130")
    });
    terminal.press("exit 7\r");
    assert_eq!(terminal.exit_status(), Some(7));
    assert_eq!(stty(&terminal.tty, &["--save"]), settings, "the terminal is as it was");
}

#[test]
fn ctrl_c_ends_the_command_of_a_one_off() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    let mut terminal = Terminal::open(shared(), &["run", "--app", &app.name, "echo ready; sleep 600"], (24, 80));
    terminal.screen.wait_for("ready\r\n");
    terminal.press("\u{3}");
    assert_eq!(terminal.exit_status(), Some(130));
}

#[test]
fn up_on_a_terminal_says_when_it_is_ready_and_ctrl_c_stops_it() {
    let platform = Platform::start(&[]);
    platform.cli(&["down"]).expect_ok();
    let mut terminal = Terminal::open(&platform, &["up"], (24, 80));
    terminal.screen.wait_for(&format!("The platform is up: {}", platform.url()));
    terminal.screen.wait_for("git push platform main");
    platform.cli(&["up"]).expect_refused(&["is running already", "platform down"]);
    assert!(platform.cli(&["apps"]).ok);
    terminal.press("\u{3}");
    assert_eq!(terminal.exit_status(), Some(0));
    platform.cli(&["status"]).expect_refused(&["down"]);
}

#[test]
fn a_log_that_is_followed_shows_every_source_live_and_survives_a_restart() {
    let platform = Platform::start(&[]);
    let app = platform.app("probe-app");
    let mut command = platform.command(env!("CARGO_BIN_EXE_platform"));
    let mut tail =
        command.args(["logs", "--tail", "--app", &app.name]).stdout(Stdio::piped()).spawn().expect("platform");
    let screen = Screen::of(tail.stdout.take().expect("piped"));
    app.push().expect_ok();
    app.get("/log?before-the-restart");
    let sources = ["app[build]: ", "app[web.1]: probe 1 starts", "heroku[web.1]: State changed", "path=\"/log?before"];
    for source in sources {
        screen.wait_for(source);
    }

    platform.cli(&["down"]).expect_ok();
    platform.up(&[]);
    crate::until("the app is back", || {
        app.platform.try_get(&app.host(), "/log?after-the-restart").is_ok_and(|answer| answer.status == 200)
    });
    screen.wait_for("path=\"/log?after-the-restart");
    assert_eq!(screen.text().matches("path=\"/log?before-the-restart").count(), 1, "{}", screen.text());
    tail.kill().expect("killed");
    tail.wait().expect("ended");
}
