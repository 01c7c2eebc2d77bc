//! Keeps the platform's roles alive: each its own process, started again whenever it ends.
//!
//! The supervisor holds nothing that anybody needs. When it is killed the roles go on without it, and the next
//! one replaces them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// A role that stayed up this long has started well: its next end is answered by an immediate restart. Short, because visitors
/// wait for the router.
const SETTLED: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// One long-running process of the platform.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    /// `host`, `router`, …; names its pid file.
    pub(crate) name: &'static str,
    /// What to execute.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Where its output goes; without one, where the supervisor's does.
    pub(crate) log: Option<PathBuf>,
    /// How long it may take to end after SIGTERM.
    pub(crate) stop_limit: Duration,
}

/// The lock that makes this the only supervisor of a platform; released when dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

impl Lock {
    /// Takes the lock in `run` and writes this process's id there. `None` if another supervisor holds it.
    pub(crate) fn take(run: &Path) -> io::Result<Option<Self>> {
        let file = File::options().create(true).append(true).open(run.join("up.lock"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                write_pid(run, "up", std::process::id())?;
                Ok(Some(Self(lock)))
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }
}

/// Runs `roles` until `stop` turns true, then ends them in the order given.
pub(crate) async fn run(run: &Path, roles: Vec<Role>, mut stop: watch::Receiver<bool>) {
    let mut keepers = Vec::new();
    for role in roles {
        end_leftover(run, &role).await;
        let (ended, wait_ended) = watch::channel(false);
        let keeper = tokio::spawn(keep(run.to_owned(), role, wait_ended));
        keepers.push((ended, keeper));
    }
    stopped(&mut stop).await;
    for (ended, keeper) in keepers {
        ended.send_replace(true);
        let _ = keeper.await;
    }
}

async fn keep(run: PathBuf, role: Role, mut stop: watch::Receiver<bool>) {
    let mut pause = Duration::ZERO;
    loop {
        let started = Instant::now();
        match start(&run, &role) {
            Ok(mut child) => {
                let status = tokio::select! {
                    status = child.wait() => status,
                    () = stopped(&mut stop) => {
                        end(&mut child, role.stop_limit).await;
                        let _ = std::fs::remove_file(pid_file(&run, role.name));
                        return;
                    }
                };
                report(&role, status);
            }
            Err(error) => {
                tracing::error!(role = role.name, program = %role.program.display(), %error, "cannot start a role");
            }
        }
        pause = if started.elapsed() > SETTLED {
            Duration::ZERO
        } else {
            (pause * 2).clamp(Duration::from_millis(50), LONGEST_PAUSE)
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could ask for a stop: the process is ending.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn start(run: &Path, role: &Role) -> io::Result<Child> {
    // A group of its own: Ctrl-C in the terminal reaches the supervisor alone, which then ends the roles in order.
    let mut command = Command::new(&role.program);
    command.args(&role.args).stdin(Stdio::null()).process_group(0);
    if let Some(log) = &role.log {
        let log = open_log(log)?;
        command.stdout(log.try_clone()?).stderr(log);
    }
    let child = command.spawn()?;
    if let Some(pid) = child.id() {
        write_pid(run, role.name, pid)?;
        tracing::debug!(role = role.name, pid, "role started");
    }
    Ok(child)
}

fn report(role: &Role, status: io::Result<ExitStatus>) {
    match status {
        Ok(status) => tracing::warn!(role = role.name, %status, log = ?role.log, "role ended, starting it again"),
        Err(error) => tracing::error!(role = role.name, %error, "cannot wait for a role"),
    }
}

async fn end(child: &mut Child, limit: Duration) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if timeout(limit, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Ends the role's process of an earlier supervisor that was killed.
async fn end_leftover(run: &Path, role: &Role) {
    let Some(pid) = running(run, role.name) else { return };
    tracing::info!(role = role.name, pid = pid.as_raw(), "ending the role of an earlier supervisor");
    let _ = kill(pid, Signal::SIGTERM);
    let limit = Instant::now() + role.stop_limit;
    while running(run, role.name).is_some() {
        if Instant::now() > limit {
            let _ = kill(pid, Signal::SIGKILL);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Opens a log to write to. Every writer appends, so that [`bound_log`] can take from a file that several hold open.
pub(crate) fn open_log(log: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(log)
}

/// Keeps `log` below `limit` bytes: what it holds is moved to `<log>.1` when it is larger, in place of what was there.
pub(crate) fn bound_log(log: &Path, limit: u64) -> io::Result<()> {
    if !log.metadata().is_ok_and(|file| file.len() > limit) {
        return Ok(());
    }
    let mut old = log.as_os_str().to_owned();
    old.push(".1");
    // Copied and emptied, not renamed: whoever writes to it keeps its file open. A line of that very moment may be lost.
    std::fs::copy(log, old)?;
    File::options().write(true).open(log)?.set_len(0)
}

fn pid_file(run: &Path, role: &str) -> PathBuf {
    run.join(format!("{role}.pid"))
}

/// Writes the process id with the process's start time, which tells it from a later process of the same number.
fn write_pid(run: &Path, role: &str, pid: u32) -> io::Result<()> {
    std::fs::write(pid_file(run, role), format!("{pid} {}", started_at(pid).unwrap_or_default()))
}

/// The process id of a role that runs right now.
pub(crate) fn running(run: &Path, role: &str) -> Option<Pid> {
    process(run, role).map(|(pid, _)| pid)
}

/// Whether a role that runs is older than the supervisor, which will replace it.
pub(crate) fn is_leftover(run: &Path, role: &str) -> bool {
    process(run, "up").zip(process(run, role)).is_some_and(|((_, up), (_, role))| role < up)
}

/// The id of a process that runs right now, and when it started.
fn process(run: &Path, role: &str) -> Option<(Pid, u64)> {
    let text = std::fs::read_to_string(pid_file(run, role)).ok()?;
    let (pid, started) = text.split_once(' ')?;
    let pid: u32 = pid.parse().ok()?;
    let started = started.parse().ok()?;
    (started_at(pid) == Some(started)).then(|| (Pid::from_raw(pid.cast_signed()), started))
}

/// When a process started, in clock ticks since boot; none if it is gone or a zombie (proc(5), `/proc/pid/stat` field 22).
fn started_at(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if fields.first() == Some(&"Z") { None } else { fields.get(19)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(name: &'static str) -> Role {
        let args = vec!["600".to_owned()];
        Role { name, program: "sleep".into(), args, log: None, stop_limit: Duration::from_secs(10) }
    }

    async fn pid_of(run: &Path, role: &str, other_than: Option<Pid>) -> Pid {
        loop {
            match running(run, role) {
                Some(pid) if Some(pid) != other_than => return pid,
                _ => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn a_killed_role_comes_back_and_all_end_at_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let run_dir = folder.path().to_owned();
        let (stop, stopped) = watch::channel(false);
        let supervisor = tokio::spawn({
            let run_dir = run_dir.clone();
            async move { run(&run_dir, vec![sleeper("a"), sleeper("b")], stopped).await }
        });
        let first = pid_of(&run_dir, "a", None).await;
        kill(first, Signal::SIGKILL).expect("killed");
        let second = pid_of(&run_dir, "a", Some(first)).await;
        assert_ne!(first, second);
        stop.send_replace(true);
        supervisor.await.expect("ended");
        assert_eq!((running(&run_dir, "a"), running(&run_dir, "b")), (None, None));
    }

    #[tokio::test]
    async fn a_new_supervisor_replaces_what_a_killed_one_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let role = sleeper("a");
        let mut leftover = start(folder.path(), &role).expect("started");
        // Whoever started it reaps it; here that is this test.
        let reaped = tokio::spawn(async move { leftover.wait().await });
        end_leftover(folder.path(), &role).await;
        assert_eq!(running(folder.path(), "a"), None);
        reaped.await.expect("no panic").expect("reaped");
    }

    #[test]
    fn a_log_that_is_being_written_stays_bounded() {
        use std::io::Write;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("platform.log");
        let mut writer = open_log(&path).expect("writable");
        let read = |path: &Path| std::fs::read_to_string(path).expect("readable");
        for line in ["one\n", "two\n", "three\n"] {
            writer.write_all(line.as_bytes()).expect("written");
            bound_log(&path, 6).expect("bounded");
        }
        assert_eq!(
            (read(&path).as_str(), read(&folder.path().join("platform.log.1")).as_str()),
            ("three\n", "one\ntwo\n")
        );
    }

    #[test]
    fn one_supervisor_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Lock::take(folder.path()).expect("usable");
        assert!(first.is_some());
        assert!(Lock::take(folder.path()).expect("usable").is_none());
        drop(first);
        assert!(Lock::take(folder.path()).expect("usable").is_some());
    }
}
