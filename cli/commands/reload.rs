//! `reload`: the platform becomes the version that is installed now, and nobody notices.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use clap::Args;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::commands::platform::{POLL, START_LIMIT, State, end_of_log, need_root, report, states};
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::server::{Places, cannot};
use crate::supervisor;

/// What makes a supervisor become the program that its file is by now.
pub(super) const RELOAD: Signal = Signal::SIGUSR2;

/// Become the version that is installed now, with the settings of now, as root
///
/// Put the new program in the place of the old one (with `mv` or by a package; not with `cp`, which the system refuses while it
/// runs), and say this. Apps and their visitors notice nothing: the new router takes the sockets of the old one, which goes
/// once its requests have their answers; `WebSockets` have 27 seconds. The new program is tried before: if it would not start,
/// all stays as it is. Settings are read anew from platform.toml; those in PLATFORM_… variables stay as they were.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ sudo mv platform.new /usr/local/bin/platform && sudo platform reload
  $ sudoedit /etc/platform/platform.toml && sudo platform reload")]
pub(crate) struct Reload {}

impl Reload {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(&self, cx: &Context) -> Result<()> {
        need_root("reload")?;
        let places = Places::load_running()?;
        let Some(up) = supervisor::running(&places.run, "up") else {
            return Err(CliError::failed("The platform is not running, or nothing keeps it alive")
                .hint("`platform up` starts it, and takes over what there is."));
        };
        let _turn = turn(&places)?;
        cx.out.step("Trying the program that is installed now", || rehearse(&places, up))?;
        cx.out.step("Replacing the platform's processes", || replace(&places, up))?;
        let places = &Places::load_running()?;
        cx.show(&report(places, &states(places)?), |out| out.line("The platform is what is installed now."))
    }
}

/// Notes what this supervisor becomes when it is told to.
pub(super) fn note_program(places: &Places, program: &Path) -> Result<()> {
    let file = noted(places);
    std::fs::write(&file, program.as_os_str().as_bytes()).map_err(cannot("write", &file))
}

/// Becomes what the program's file is by now, as if this supervisor had been killed: the new one finds the roles, and replaces them.
pub(super) fn become_the_next(program: &Path) {
    tracing::info!(program = %program.display(), "becoming the program that is installed now");
    let error = Command::new(program).args(std::env::args_os().skip(1)).exec();
    tracing::error!(%error, program = %program.display(), "cannot become the program that is installed now; this one goes on");
}

fn noted(places: &Places) -> PathBuf {
    places.run.join("up.program")
}

/// One at a time: a supervisor that has just begun does not know the signal yet.
fn turn(places: &Places) -> Result<Flock<File>> {
    let path = places.run.join("reload.lock");
    let file = File::options().create(true).append(true).open(&path).map_err(cannot("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| cannot("lock", &path)(errno.into()))
}

/// Has the new program say whether it could start, where the one that runs did.
fn rehearse(places: &Places, up: Pid) -> Result<()> {
    let until = Instant::now() + START_LIMIT;
    while !knows_reload(up) {
        if Instant::now() > until {
            return Err(CliError::failed("The version that runs cannot be replaced while it runs, it is too old").hint(format!(
                "`kill -9 {up}; platform up --detach` does the same once: without its supervisor the platform goes on, and the \
                 new one takes it over."
            )));
        }
        thread::sleep(POLL);
    }
    let program = std::fs::read(noted(places)).map_err(cannot("read", &noted(places)))?;
    let program = Path::new(OsStr::from_bytes(&program));
    let environ = PathBuf::from(format!("/proc/{up}/environ"));
    let environ = std::fs::read(&environ).map_err(cannot("read", &environ))?;
    let variables = environ.split(|byte| *byte == 0).filter_map(|one| {
        let split = one.iter().position(|byte| *byte == b'=')?;
        Some((OsStr::from_bytes(&one[..split]), OsStr::from_bytes(&one[split + 1..])))
    });
    let ran = Command::new(program)
        .args(["up", "--check"])
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null())
        .output()
        .map_err(cannot("start", program))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    Err(CliError::failed(format!("{} would not start, so all stays as it is", program.display())).hint(format!(
        "It ended with {} and said:\n{}",
        ran.status,
        said.trim_end()
    )))
}

/// Whether a process waits for the signal; others are ended by it (proc(5), `SigCgt`).
fn knows_reload(up: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{up}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    caught & (1 << (RELOAD as u32 - 1)) != 0
}

fn replace(places: &Places, up: Pid) -> Result<()> {
    let begin = places.log().metadata().map_or(0, |file| file.len());
    let before: Vec<Option<i32>> = states(places)?.iter().map(|state| state.pid).collect();
    let hint = |error: CliError| {
        error.hint(format!(
            "If it is no better, put the old program back and say `platform reload` again. The end of the log, {}:\n{}",
            places.log().display(),
            end_of_log(&places.log(), begin)
        ))
    };
    kill(up, RELOAD).map_err(|error| CliError::failed("Cannot tell the platform").because(&error))?;
    let until = Instant::now() + START_LIMIT;
    loop {
        // It may listen elsewhere by now.
        let now = states(&Places::load_running()?)?;
        let waits = |(state, before): &(&State, &Option<i32>)| !state.answers || state.pid == **before;
        let missing: Vec<&str> = now.iter().zip(&before).filter(waits).map(|(state, _)| state.role).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if supervisor::running(&places.run, "up") != Some(up) {
            let error =
                CliError::failed("The new version ended at once. What ran goes on, with nobody to start it again");
            return Err(hint(error));
        }
        if Instant::now() > until {
            let error = CliError::failed(format!("The new version does not answer yet: {}", missing.join(", ")));
            return Err(hint(error));
        }
        thread::sleep(POLL);
    }
}
