//! Keeps the platform's roles alive: each its own process, started again whenever it ends.
//!
//! The supervisor holds nothing that anybody needs. When it is killed the roles go on without it, and the next
//! one replaces them: each once the old one has ended, but for a router, which takes over from the old one and leaves it to drain.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::listening;

/// A role that stayed up this long has started well: its next end is answered by an immediate restart. Short, because visitors
/// wait for the router.
const SETTLED: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a process that has a successor is looked at.
const GLANCE: Duration = Duration::from_millis(100);

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
    /// Where the next process finds the one that runs and takes over from it; without one it comes after that has ended.
    pub(crate) takeover: Option<PathBuf>,
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
        let (ended, wait_ended) = watch::channel(false);
        let mut tasks = Vec::new();
        for old in step_back(run, &role).await {
            tracing::info!(role = role.name, pid = old.pid.as_raw(), "replacing the role of an earlier supervisor");
            tasks.push(tokio::spawn(see_off(old, role.stop_limit, wait_ended.clone())));
        }
        tasks.push(tokio::spawn(keep(run.to_owned(), role, wait_ended)));
        keepers.push((ended, tasks));
    }
    stopped(&mut stop).await;
    for (ended, tasks) in keepers {
        ended.send_replace(true);
        for task in tasks {
            let _ = task.await;
        }
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

/// A role's process of an earlier supervisor: one that was killed, or what this one was before it became a newer version.
#[derive(Debug)]
struct Old {
    /// Says to whoever comes next that it is there.
    file: PathBuf,
    pid: Pid,
    started: u64,
}

impl Old {
    fn is_gone(&self) -> bool {
        let Some((state, started)) = stat(self.pid.as_raw().cast_unsigned()) else { return true };
        if state == "Z" && started == self.started {
            // A child of what this process was before.
            let _ = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
        }
        state == "Z" || started != self.started
    }

    fn signal(&self, signal: Signal) {
        if !self.is_gone() {
            let _ = kill(self.pid, signal);
        }
    }

    async fn end(self, limit: Duration) {
        self.signal(Signal::SIGTERM);
        let end = Instant::now() + limit;
        while !self.is_gone() {
            if Instant::now() > end {
                self.signal(Signal::SIGKILL);
            }
            sleep(Duration::from_millis(10)).await;
        }
        let _ = std::fs::remove_file(self.file);
    }
}

/// Makes room for a new process of a role. Ends the one that there is, unless that hands over: whoever is left then goes by itself.
async fn step_back(run: &Path, role: &Role) -> Vec<Old> {
    if let Some((pid, _)) = process(run, role.name) {
        let renamed = std::fs::rename(pid_file(run, role.name), pid_file(run, &format!("{}-{pid}.old", role.name)));
        if let Err(error) = renamed {
            tracing::error!(role = role.name, %pid, %error, "cannot note down the role of an earlier supervisor");
        }
    }
    let olds = olds(run, role.name);
    let Some(takeover) = &role.takeover else {
        for old in olds {
            tracing::info!(role = role.name, pid = old.pid.as_raw(), "ending the role of an earlier supervisor");
            old.end(role.stop_limit).await;
        }
        return Vec::new();
    };
    if UnixStream::connect(takeover).is_err() {
        // It lets go of its addresses at once, and the new one need not wait for the rest.
        for old in &olds {
            old.signal(Signal::SIGTERM);
        }
    }
    olds
}

/// Waits until an old process is gone. As long as it listens nobody has taken over from it, and it is needed. Without that it has its
/// limit.
async fn see_off(old: Old, limit: Duration, mut stop: watch::Receiver<bool>) {
    let leaves = async {
        let mut let_go: Option<Instant> = None;
        while !old.is_gone() && let_go.is_none_or(|since| since.elapsed() < limit) {
            if !listening::listens(old.pid.as_raw()) {
                let_go.get_or_insert_with(Instant::now);
            }
            sleep(GLANCE).await;
        }
    };
    tokio::select! {
        () = leaves => {}
        () = stopped(&mut stop) => {}
    }
    old.end(limit).await;
}

fn olds(run: &Path, role: &str) -> Vec<Old> {
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let ours = names
        .filter(|name| name.strip_prefix(role).is_some_and(|rest| rest.starts_with('-') && rest.ends_with(".old.pid")));
    let mut olds = Vec::new();
    for name in ours {
        match process(run, name.trim_end_matches(".pid")) {
            Some((pid, started)) => olds.push(Old { file: run.join(name), pid, started }),
            None => drop(std::fs::remove_file(run.join(name))),
        }
    }
    olds
}

/// Processes of a role that were there before the present one, and are yet to leave.
pub(crate) fn older(run: &Path, role: &str) -> Vec<Pid> {
    olds(run, role).into_iter().map(|old| old.pid).collect()
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

/// When a process started, in clock ticks since boot; none if it is gone or a zombie.
fn started_at(pid: u32) -> Option<u64> {
    stat(pid).filter(|(state, _)| state != "Z").map(|(_, started)| started)
}

/// A process's state, and when it started (proc(5), `/proc/pid/stat` fields 3 and 22).
fn stat(pid: u32) -> Option<(String, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some(((*fields.first()?).to_owned(), fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(name: &'static str) -> Role {
        let args = vec!["600".to_owned()];
        Role { name, program: "sleep".into(), args, log: None, stop_limit: Duration::from_secs(10), takeover: None }
    }

    /// Becomes what an earlier supervisor left, and holds `held` as if it listened there.
    fn leftover(run: &Path, role: &Role, held: Stdio) -> (std::process::Child, Pid) {
        let child = std::process::Command::new("sleep").arg("600").stdin(held).spawn().expect("sleep");
        write_pid(run, role.name, child.id()).expect("written");
        let pid = running(run, role.name).expect("it runs");
        (child, pid)
    }

    fn is_there(pid: Pid) -> bool {
        started_at(pid.as_raw().cast_unsigned()).is_some()
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
        let (_, pid) = leftover(folder.path(), &role, Stdio::null());
        assert!(step_back(folder.path(), &role).await.is_empty());
        assert!(!is_there(pid));
        assert_eq!((running(folder.path(), "a"), older(folder.path(), "a")), (None, vec![]));
    }

    #[tokio::test]
    async fn who_hands_over_is_not_ended_before_somebody_took_over_and_at_the_end_both_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let run_dir = folder.path().to_owned();
        let takeover = run_dir.join("takeover.sock");
        let _offer = std::os::unix::net::UnixListener::bind(&takeover).expect("a socket");
        let role = Role { takeover: Some(takeover), stop_limit: Duration::from_millis(1), ..sleeper("a") };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let held = Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().expect("its twin")));
        let (_, old) = leftover(&run_dir, &role, held);
        // Whoever only looks like the role is none of it.
        let (mut other, _) = leftover(&run_dir, &sleeper("a2"), Stdio::null());
        let (stop, stopped) = watch::channel(false);
        let supervisor = tokio::spawn({
            let run_dir = run_dir.clone();
            async move { run(&run_dir, vec![role], stopped).await }
        });
        let mut new = pid_of(&run_dir, "a", Some(old)).await;
        // A new one that dies again and again takes over nothing.
        for _ in 0..3 {
            kill(new, Signal::SIGKILL).expect("killed");
            new = pid_of(&run_dir, "a", Some(new)).await;
            assert_eq!((is_there(old), older(&run_dir, "a")), (true, vec![old]));
        }
        stop.send_replace(true);
        supervisor.await.expect("ended");
        assert_eq!((is_there(old), is_there(new)), (false, false));
        assert_eq!((running(&run_dir, "a"), older(&run_dir, "a")), (None, vec![]));
        other.kill().expect("it was left alone");
        other.wait().expect("ended");
    }

    #[tokio::test]
    async fn who_let_go_and_does_not_leave_is_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let takeover = folder.path().join("takeover.sock");
        let _offer = std::os::unix::net::UnixListener::bind(&takeover).expect("a socket");
        let role = Role { takeover: Some(takeover), ..sleeper("a") };
        let (_, pid) = leftover(folder.path(), &role, Stdio::null());
        let (_stop, stopped) = watch::channel(false);
        for old in step_back(folder.path(), &role).await {
            see_off(old, Duration::ZERO, stopped.clone()).await;
        }
        assert_eq!((is_there(pid), older(folder.path(), "a")), (false, vec![]));
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
