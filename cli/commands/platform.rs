//! `up`, `down`, `status`: for the operator, on the platform's own machine.

use std::io::{self, IsTerminal};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use builder::stack;
use clap::Args;
use controller::store::Mode;
use engine::Engine;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::client::Client;
use crate::commands::reload;
use crate::context::Context;
use crate::credentials::Credentials;
use crate::error::{CliError, Result};
use crate::listening::{self, Listener};
use crate::output::{Field, Mood, Output};
use crate::server::{self, CONTAINERD, Places, RoleName, cannot};
use crate::supervisor::{self, Lock};

/// How often somebody who waits looks again.
pub(super) const POLL: Duration = Duration::from_millis(50);
/// How long a start may take on a slow machine.
pub(super) const START_LIMIT: Duration = Duration::from_secs(60);
/// How long the kernel may take to take apart a router that was killed, which has its addresses until then.
const DYING: Duration = Duration::from_secs(2);
/// A log of the platform that is larger than this is put aside, in bytes.
const LOG_LIMIT: u64 = 16 << 20;
/// How often logs and certificate are looked at. Nothing writes so much in this time that it would matter.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// Programs without which nothing runs, and the Debian packages that they are in.
const PROGRAMS: [(&str, &str); 5] =
    [("git", "git"), ("nft", "nftables"), ("mmdebstrap", "mmdebstrap"), ("runc", "runc"), ("mkfs.ext4", "e2fsprogs")];

/// Start the platform on this machine, as root
///
/// Keeps its processes alive until it is stopped by Ctrl-C, SIGTERM or `platform down`. Apps that ran before are started
/// again. Settings come from /etc/platform/platform.toml and from PLATFORM_… variables.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ sudo platform up
  $ sudo platform up --detach
  $ sudo PLATFORM_HOME=/srv/platform PLATFORM_LISTEN=0.0.0.0:80 platform up")]
pub(crate) struct Up {
    /// Leave it running in the background, and return once it answers
    #[arg(short, long)]
    detach: bool,
    /// Only say whether it could start
    #[arg(long, hide = true, conflicts_with = "detach")]
    check: bool,
}

impl Up {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        need_root("up")?;
        let places = Places::load()?;
        check_programs(&places)?;
        check_kernel()?;
        check_addresses(&places)?;
        if self.check {
            return places.migrate(Mode::Try).map(drop);
        }
        if self.detach { detach(cx, &places) } else { supervise(cx, &places) }
    }
}

fn supervise(cx: &Context, places: &Places) -> Result<()> {
    start_log();
    places.prepare()?;
    let Some(_lock) = Lock::take(&places.run).map_err(cannot("lock", &places.run))? else {
        return Err(CliError::failed(format!("The platform of {} is running already", places.settings.home.display()))
            .hint("`platform status` shows it, `platform down` stops it."));
    };
    // Here, where somebody reads what is wrong with it. The controller would say it to nobody.
    places.migrate(Mode::Apply)?;
    let program = this_program()?;
    reload::note_program(places, &program)?;
    server::runtime()?.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let signal = |kind| signal(kind).map_err(|error| CliError::failed("Cannot wait for signals").because(&error));
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut become_next = signal(SignalKind::from_raw(reload::RELOAD as i32))?;
        let next = program.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = become_next.recv() => reload::become_the_next(&next),
                }
            }
            stop.send_replace(true);
        });
        tracing::info!(url = places.settings.url(), home = %places.settings.home.display(), "starting the platform");
        thread::spawn(keep_house(places.clone()));
        thread::spawn(announce(cx.out, places.clone()));
        supervisor::run(&places.run, places.roles(&program), stopped).await;
        tracing::info!("the platform has stopped");
        if places.has_containers() && io::stderr().is_terminal() {
            cx.out.note("Apps go on running. `platform up` takes them over again, `platform down` stops them.");
        }
        Ok(())
    })
}

fn keep_house(places: Places) -> impl FnOnce() + Send {
    move || loop {
        // A look costs nothing; it is made anew a month before it ends.
        if let Err(error) = places.renew_certificate() {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "cannot renew the certificate of the https entrance");
        }
        for log in [places.log(), places.containerd_log()] {
            if let Err(error) = supervisor::bound_log(&log, LOG_LIMIT) {
                tracing::warn!(log = %log.display(), %error, "cannot put a log aside that has grown large");
            }
        }
        thread::sleep(LOG_PAUSE);
    }
}

/// Says that everything answers: to the person at the terminal, or to whoever reads the log later.
fn announce(out: Output, places: Places) -> impl FnOnce() + Send {
    move || {
        while !states(&places).is_ok_and(|states| states.iter().all(|state| state.answers)) {
            thread::sleep(POLL);
        }
        tracing::info!("the platform is up");
        if io::stderr().is_terminal() {
            out.note(&format!("\nThe platform is up: {}\n{}", places.settings.url(), next_steps(&places)));
            out.note("Ctrl-C stops it.");
        }
    }
}

fn detach(cx: &Context, places: &Places) -> Result<()> {
    if supervisor::running(&places.run, "up").is_none() {
        cx.out.step("Starting the platform", || start_detached(places))?;
    }
    let places = &Places::load_running()?;
    cx.show(&report(places, &states(places)?), |out| {
        out.line(format!("The platform is up: {}", places.settings.url()))?;
        out.note(&next_steps(places));
        Ok(())
    })
}

/// What the operator of a platform that has just been started does with it.
fn next_steps(places: &Places) -> String {
    let is_made = places.stack().ok().and_then(|settings| stack::open(&settings).ok()).flatten().is_some();
    let url = places.settings.url();
    let is_known = Credentials::load().is_ok_and(|all| all.logins.contains_key(&url));
    let mut steps = vec![];
    if !is_made {
        steps.push(("platform stack:update --if-missing", "make the base images of builds and apps, once"));
    }
    if !is_known {
        steps.push(("platform users:create you@example.com --login", "make a user, and log in as them"));
    }
    if is_made && is_known {
        steps.push(("platform apps", "list your apps"));
    }
    steps.push(("platform create && git push platform main", "in the repository of an app: make it live"));
    let width = steps.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let mut lines: Vec<_> = steps.iter().map(|(command, what)| format!("  {command:width$}  # {what}")).collect();
    lines.extend(
        setup_link(places)
            .map(|link| format!("This platform has no user yet. Make the first one in a browser: {link}")),
    );
    lines.join("\n")
}

/// Where the first user is made in a browser; none once there is one.
fn setup_link(places: &Places) -> Option<String> {
    let answer = Client::local(&places.control()).and_then(|client| client.get(&["setup"])).ok()?;
    Some(answer["url"].as_str()?.to_owned())
}

fn start_detached(places: &Places) -> Result<()> {
    let log = &places.log();
    std::fs::create_dir_all(&places.settings.home).map_err(cannot("make", &places.settings.home))?;
    let begin = log.metadata().map_or(0, |file| file.len());
    let file = supervisor::open_log(log).map_err(cannot("write", log))?;
    let copy = file.try_clone().map_err(cannot("write", log))?;
    let program = this_program()?;
    let child = Command::new(&program)
        .arg("up")
        .stdin(Stdio::null())
        .stdout(copy)
        .stderr(file)
        .process_group(0)
        .spawn()
        .map_err(cannot("start", &program))?;
    wait_until_up(places, child)
        .map_err(|error| error.hint(format!("The end of its log, {}:\n{}", log.display(), end_of_log(log, begin))))
}

/// The last lines of what a log got since it was this long.
pub(super) fn end_of_log(log: &Path, begin: u64) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(usize::try_from(begin).unwrap_or(0)..).unwrap_or_default());
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn wait_until_up(places: &Places, mut child: Child) -> Result<()> {
    let (limit, child_id) = (Instant::now() + START_LIMIT, child.id());
    let is_up = || -> Result<bool> {
        // Until the new supervisor is there, what answers may be what a killed one left.
        let supervisor = supervisor::running(&places.run, "up").map(|pid| pid.as_raw().cast_unsigned());
        Ok(supervisor == Some(child_id) && states(places)?.iter().all(|state| state.answers))
    };
    while !is_up()? {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(CliError::failed(format!("The platform ended again, with {status}")));
        }
        if Instant::now() > limit {
            return Err(CliError::failed("The platform does not answer yet")
                .hint("It goes on trying: `platform status` shows how far it is."));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Stop the platform and all apps on this machine, as root
///
/// Apps get SIGTERM and their time to end. Everything is kept; `platform up` starts the same apps again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ sudo platform down
  $ sudo PLATFORM_HOME=/srv/platform platform down")]
pub(crate) struct Down {}

impl Down {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(&self, cx: &Context) -> Result<()> {
        need_root("down")?;
        let places = Places::load_running()?;
        if is_anything_up(&places) {
            stop(cx, &places)?;
        } else {
            cx.out.note("The platform is not running.");
        }
        let home = places.settings.home.display();
        if places.settings.home.join("platform.db").exists() {
            cx.out.note(&format!(
                "Kept in {home}: apps, releases, config vars, repositories, images, logs, and the add-ons with their data\n\
                 and backups. `platform up` starts the same apps again; to forget everything: rm -rf {home}"
            ));
        }
        cx.done(&report(&places, &states(&places)?))
    }
}

fn stop(cx: &Context, places: &Places) -> Result<()> {
    if supervisor::running(&places.run, "up").is_none() {
        // Containers outlive a supervisor that was killed, and only their keeper ends them in good order.
        cx.out.step("Starting what keeps the apps, to stop them in good order", || start_detached(places))?;
    }
    cx.out.step("Stopping the apps", || {
        let stopped = server::runtime()?.block_on(places.host().stop_all());
        stopped.map_err(|error| CliError::failed("The apps could not be stopped").because(&error))
    })?;
    cx.out.step("Stopping the platform", || {
        if let Some(pid) = supervisor::running(&places.run, "up") {
            // It may have ended just now.
            let _ = kill(pid, Signal::SIGTERM);
            while supervisor::running(&places.run, "up").is_some() {
                thread::sleep(POLL);
            }
        }
        Ok(())
    })
}

fn is_anything_up(places: &Places) -> bool {
    ["up"].into_iter().chain(role_names(places)).any(|name| supervisor::running(&places.run, name).is_some())
        || !older_routers(places).is_empty()
        || places.has_containers()
}

/// Show whether the platform on this machine is up
///
/// Exit status 0 if every process of it answers, else 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ sudo platform status
  $ sudo platform status --json | jq .url")]
pub(crate) struct Status {}

impl Status {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<u8> {
        need_root("status")?;
        let places = Places::load_running()?;
        let states = states(&places)?;
        cx.show(&report(&places, &states), |out| {
            let mut about: Vec<(&str, Field)> = vec![
                ("URL", places.settings.url().into()),
                ("Home", places.settings.home.display().to_string().into()),
                ("Log", places.log().display().to_string().into()),
            ];
            if let Some(fingerprint) = ssh_fingerprint(&places) {
                about.push(("SSH host key", fingerprint.into()));
            }
            out.pairs(about)?;
            let row = |state: &State| {
                let (text, mood) = match (state.pid, state.answers) {
                    (_, true) => ("up", Mood::Good),
                    (Some(_), false) => ("starting", Mood::Busy),
                    (None, false) => ("down", Mood::Bad),
                };
                let pid = state.pid.map_or_else(String::new, |pid| pid.to_string());
                vec![state.role.into(), Field::from(text).mood(mood), pid.into()]
            };
            out.table(&["Role", "State", "Process"], states.iter().map(row).collect(), "")
        })?;
        if supervisor::running(&places.run, "up").is_none() && states.iter().any(|state| state.pid.is_some()) {
            cx.out.note("Nothing keeps these processes alive: whatever did was killed. `platform up` takes them over.");
        }
        for pid in older_routers(&places) {
            cx.out.note(&if listening::listens(pid) {
                format!("An older router (process {pid}) still takes the requests: the present one has not taken over. The log says why.")
            } else {
                format!("An older router (process {pid}) answers what it had, and is gone within half a minute.")
            });
        }
        for Listener { pid, program, address } in listeners(&places, &states) {
            cx.out.note(&format!(
                "{program} (process {pid}) listens on {address}, which other machines may reach. Only the router should: stop it, or \
                 change what made it listen."
            ));
        }
        Ok(u8::from(!states.iter().all(|state| state.answers)))
    }
}

/// What a client of git over SSH is shown before it trusts this platform.
fn ssh_fingerprint(places: &Places) -> Option<String> {
    if places.settings.ssh_listen.0.is_empty() {
        return None;
    }
    controller::git::host_key_fingerprint(&places.settings.home)
}

/// One process of the platform.
pub(super) struct State {
    pub(super) role: &'static str,
    pub(super) pid: Option<i32>,
    pub(super) answers: bool,
}

impl State {
    fn to_json(&self) -> Value {
        json!({ "role": self.role, "pid": self.pid, "answers": self.answers })
    }
}

/// What listens where others get to and is not the router.
fn listeners(places: &Places, states: &[State]) -> Vec<Listener> {
    let supervisor = supervisor::running(&places.run, "up").map(nix::unistd::Pid::as_raw);
    let mut routers = older_routers(places);
    routers.extend(states.iter().find(|state| state.role == RoleName::Router.as_str()).and_then(|state| state.pid));
    let ours: Vec<i32> = states.iter().filter_map(|state| state.pid).chain(supervisor).collect();
    listening::public(&ours, &places.run).into_iter().filter(|one| !routers.contains(&one.pid)).collect()
}

/// Those that the present one replaces.
fn older_routers(places: &Places) -> Vec<i32> {
    let older = supervisor::older(&places.run, RoleName::Router.as_str());
    older.into_iter().map(nix::unistd::Pid::as_raw).collect()
}

/// The platform on this machine, for programs.
pub(super) fn report(places: &Places, states: &[State]) -> Value {
    json!({
        "url": places.settings.url(),
        "home": places.settings.home,
        "runtime_dir": places.run,
        "log": places.log(),
        "ssh": { "listen": places.settings.ssh_listen.0, "fingerprint": ssh_fingerprint(places) },
        "public_listeners": listeners(places, states).iter().map(Listener::to_json).collect::<Vec<_>>(),
        "up": states.iter().all(|state| state.answers),
        "roles": states.iter().map(State::to_json).collect::<Vec<_>>(),
    })
}

fn role_names(places: &Places) -> impl Iterator<Item = &'static str> {
    let containerd = places.has_own_containerd().then_some(CONTAINERD);
    RoleName::ALL.map(RoleName::as_str).into_iter().chain(containerd)
}

pub(super) fn states(places: &Places) -> Result<Vec<State>> {
    let runtime = server::runtime()?;
    let state = |role: &'static str, answers| {
        let pid = supervisor::running(&places.run, role).map(nix::unistd::Pid::as_raw);
        State { role, pid, answers: pid.is_some() && answers && !supervisor::is_leftover(&places.run, role) }
    };
    // Who is let in may have come to the one before.
    let routed = places.settings.listen.0.iter().all(|address| TcpStream::connect(address).is_ok())
        && !older_routers(places).into_iter().any(listening::listens);
    let controls = Client::local(&places.control())?.get(&["health"]).is_ok();
    let hosts = runtime.block_on(places.host().list()).is_ok();
    let mut states = vec![
        state(RoleName::Router.as_str(), routed),
        state(RoleName::Controller.as_str(), controls),
        state(RoleName::Host.as_str(), hosts),
    ];
    if places.has_own_containerd() {
        states.push(state(CONTAINERD, UnixStream::connect(places.containerd()).is_ok()));
    }
    Ok(states)
}

/// Become one process of the platform; `up` starts it
#[derive(Debug, Args)]
pub(crate) struct Serve {
    role: RoleName,
}

impl Serve {
    pub(crate) fn run(self, _: &Context) -> Result<()> {
        start_log();
        Places::load()?.serve(self.role)
    }
}

/// For the operator, who reads the platform's log.
fn start_log() {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        // What cannot be written is lost. To say so would be a second write, whose failure is a panic: on a full disk the router
        // would end, and with it every app.
        .log_internal_errors(false)
        .init();
}

pub(super) fn need_root(command: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(CliError::failed(format!("`platform {command}` must be run as root"))
        .hint(format!("It makes namespaces, mounts and containers: `sudo platform {command}`.")))
}

fn check_programs(places: &Places) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let is_there = |program: &str| program.contains('/') || folders.iter().any(|folder| folder.join(program).exists());
    let mut missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| *program != "runc" || places.settings.runtime == "runc")
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    if places.has_own_containerd() && !is_there(CONTAINERD) {
        missing.push(CONTAINERD);
    }
    if !places.settings.cni_path.0.iter().any(|folder| folder.join("ptp").exists()) {
        missing.push("containernetworking-plugins");
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(CliError::failed("This machine lacks programs that the platform needs")
        .hint(format!("On Debian and Ubuntu: `apt-get install {}`.", missing.join(" "))))
}

/// Every container has a user namespace of its own, and none starts without.
fn check_kernel() -> Result<()> {
    let most = std::fs::read_to_string("/proc/sys/user/max_user_namespaces");
    if most.is_ok_and(|most| most.trim().parse::<u64>().is_ok_and(|most| most > 0)) {
        return Ok(());
    }
    Err(CliError::failed("This machine's kernel makes no user namespaces, and every container needs one").hint(
        "`sysctl -w user.max_user_namespaces=15000` allows them, and a line in /etc/sysctl.d after the next start as well.",
    ))
}

/// Listens on an address, if need be once a router that was killed has let go of it.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let began = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < DYING => {
                thread::sleep(POLL);
            }
            result => return result,
        }
    }
}

/// A router that cannot listen tries again and again: said here, before anything is started.
fn check_addresses(places: &Places) -> Result<()> {
    if supervisor::running(&places.run, RoleName::Router.as_str()).is_some() || !older_routers(places).is_empty() {
        return Ok(());
    }
    let plain = places.settings.listen.0.iter().map(|address| (*address, "listen"));
    let tls = places.settings.tls_listen().into_iter().map(|address| (address, "tls_listen"));
    for (address, setting) in plain.chain(tls) {
        bind(address).map_err(|error| {
            CliError::failed(format!("The platform cannot listen on {address}")).because(&error).hint(format!(
                "`ss -ltnp 'sport = :{}'` shows who does. Other addresses: PLATFORM_{}, or `{setting}` in platform.toml.",
                address.port(),
                setting.to_uppercase()
            ))
        })?;
    }
    Ok(())
}

fn this_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| CliError::failed("Cannot find this program").because(&error))
}
