//! What every engine must do. An engine's own tests run each of [`CHECKS`] against a real one.

mod execs;
mod health;
mod limits;
mod oneoffs;
mod restarts;
mod services;
mod wishes;
mod within;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use model::clock::SystemRandom;
use model::{AppId, Exit};
use tokio::io::AsyncReadExt;

use crate::{
    Container, DRAIN_LIMIT, Engine, EngineError, Health, Instance, InstanceState, Mount, OneOff, OneOffId, Restart,
    RunningOneOff, Workload, WorkloadId, WorkloadStatus,
};

/// The engine under test and what it may run.
#[derive(Clone)]
pub struct Subject {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// A container with a root file system that has the `BusyBox` applets in `/bin`. Its arguments and environment are replaced.
    pub container: Container,
    /// A directory on the engine's machine that may be mounted, and in which the container's uid may write.
    pub scratch: PathBuf,
}

/// One thing that an engine must do; it panics with the reason if the engine does not.
pub type Check = fn(Subject) -> Pin<Box<dyn Future<Output = ()> + Send>>;

use execs::{
    a_process_in_an_instance_ends_at_the_latest_with_it, a_process_in_an_instance_is_where_the_instance_is,
    a_process_in_an_instance_takes_and_gives_bytes,
};
use health::{
    a_check_that_hangs_fails_in_time, a_command_in_the_instance_is_a_check,
    a_port_that_opens_late_or_closes_again_is_noticed, a_startup_check_by_http_decides_when_an_instance_is_up,
    liveness_replaces_what_does_not_answer, readiness_takes_an_instance_out_and_back_in,
    who_takes_too_long_to_boot_is_asked_to_end,
};
use limits::{
    how_many_files_a_container_has_is_limited, memory_is_limited, open_files_are_limited, processes_are_limited,
    what_a_container_writes_is_limited,
};
use oneoffs::{
    a_one_off_ends_at_its_time_limit, a_one_off_gives_its_output_and_exit_code,
    a_one_off_has_a_terminal_that_can_be_resized, a_one_off_is_killed_on_request,
    a_one_off_is_told_to_end_before_it_is_killed, a_one_off_passes_bytes_on_as_they_are, a_one_off_reads_its_input,
    a_one_off_whose_caller_hangs_up_runs_on, a_one_off_with_a_log_is_remembered_until_it_is_forgotten,
};
use restarts::{
    a_crash_is_restarted_after_growing_pauses, one_crash_too_many_is_the_last,
    what_outgrows_its_memory_is_told_from_what_ends_otherwise, who_forks_and_exits_is_over,
};
use services::{
    a_former_client_loses_its_connections, a_service_has_one_address_and_one_instance,
    a_service_is_reached_by_its_clients_only, a_volume_has_a_size_and_can_be_copied_while_it_is_written,
    a_volume_outlives_what_mounts_it,
};

pub use wishes::on_paper;
use wishes::{
    an_app_is_seen_by_itself, scaling_changes_the_quantity_and_nothing_else, the_longest_process_type_runs,
    what_an_instance_uses_is_known, what_cannot_be_done_is_refused_by_name, what_is_asked_for_is_counted,
    what_is_done_around_instances_may_change,
};
use within::{a_port_of_an_instance_is_reached_though_only_it_listens, files_are_copied_out_of_and_into_an_instance};

macro_rules! checks {
    ($($name:ident,)*) => {
        /// All checks by name, independent of each other.
        pub const CHECKS: &[(&str, Check)] = &[$((stringify!($name), |subject| Box::pin($name(subject)))),*];
    };
}

checks! {
    an_instance_starts_then_is_up_where_it_listens,
    a_crash_is_restarted_after_growing_pauses,
    one_crash_too_many_is_the_last,
    what_outgrows_its_memory_is_told_from_what_ends_otherwise,
    who_forks_and_exits_is_over,
    scaling_changes_the_quantity_and_nothing_else,
    what_an_instance_uses_is_known,
    what_is_done_around_instances_may_change,
    what_cannot_be_done_is_refused_by_name,
    an_app_is_seen_by_itself,
    what_is_asked_for_is_counted,
    the_longest_process_type_runs,
    an_instance_that_never_listens_is_stopped_and_shows_its_ports,
    a_startup_check_by_http_decides_when_an_instance_is_up,
    who_takes_too_long_to_boot_is_asked_to_end,
    readiness_takes_an_instance_out_and_back_in,
    liveness_replaces_what_does_not_answer,
    a_check_that_hangs_fails_in_time,
    a_command_in_the_instance_is_a_check,
    a_port_that_opens_late_or_closes_again_is_noticed,
    an_instance_without_port_is_up_once_it_stays,
    a_container_that_cannot_start_says_why,
    deleting_sends_sigterm_first,
    deleting_kills_after_the_grace_period,
    the_quantity_changes_and_nothing_else,
    an_instance_is_replaced_on_request,
    an_environment_arrives_byte_for_byte,
    every_instance_knows_its_name,
    a_one_off_gives_its_output_and_exit_code,
    a_one_off_reads_its_input,
    a_one_off_passes_bytes_on_as_they_are,
    a_one_off_has_a_terminal_that_can_be_resized,
    a_one_off_ends_at_its_time_limit,
    a_one_off_is_killed_on_request,
    a_one_off_is_told_to_end_before_it_is_killed,
    a_one_off_whose_caller_hangs_up_runs_on,
    a_one_off_with_a_log_is_remembered_until_it_is_forgotten,
    a_process_in_an_instance_is_where_the_instance_is,
    a_process_in_an_instance_takes_and_gives_bytes,
    a_process_in_an_instance_ends_at_the_latest_with_it,
    files_are_copied_out_of_and_into_an_instance,
    a_port_of_an_instance_is_reached_though_only_it_listens,
    mounts_are_where_they_are_asked_for,
    memory_is_limited,
    processes_are_limited,
    open_files_are_limited,
    what_a_container_writes_is_limited,
    how_many_files_a_container_has_is_limited,
    nothing_is_privileged,
    names_and_users_are_known_inside,
    other_instances_the_host_and_metadata_are_out_of_reach,
    a_volume_outlives_what_mounts_it,
    a_volume_has_a_size_and_can_be_copied_while_it_is_written,
    a_service_has_one_address_and_one_instance,
    a_service_is_reached_by_its_clients_only,
    a_former_client_loses_its_connections,
}

/// Longest wait before a check fails. Only a failing one waits this long.
const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 5000;
/// Started again soon, for checks that wait for it: once at once, then after pauses that double.
pub const SOON: Restart = Restart {
    at_once: 1,
    first: Duration::from_millis(500),
    longest: Duration::from_secs(10),
    give_up: None,
    stable: Duration::from_secs(60),
};
const SERVER: &str = "mkdir -p /tmp/www && echo hello > /tmp/www/index.html && exec httpd -f -p 5000 -h /tmp/www";

impl Subject {
    fn shell(&self, script: &str) -> Container {
        self.command(&["/bin/sh", "-c", script])
    }

    fn command(&self, args: &[&str]) -> Container {
        Container {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned()), ("PORT".to_owned(), PORT.to_string())]),
            ..self.container.clone()
        }
    }

    fn workload(container: Container) -> Workload {
        let app = AppId::random(&SystemRandom);
        Workload {
            id: WorkloadId(format!("{app}.v1.web")),
            app,
            release: 1,
            process_type: "web".parse().expect("a process type"),
            quantity: 1,
            container,
            health: Health::listening(PORT, PATIENCE),
            restart: SOON,
            drain: DRAIN_LIMIT,
            stop_grace: Duration::from_secs(1),
            idle: None,
            larger: None,
            service: None,
        }
    }

    async fn apply(&self, workload: &Workload) {
        self.engine.apply(workload.clone()).await.expect("the workload is accepted");
    }

    async fn status(&self, id: &WorkloadId) -> Option<WorkloadStatus> {
        let list = self.engine.list().await.expect("the engine is in reach");
        list.into_iter().find(|status| status.id == *id)
    }

    /// The workload's instances once they are as wanted.
    async fn until(&self, id: &WorkloadId, what: &str, wanted: impl Fn(&[Instance]) -> bool) -> Vec<Instance> {
        let wait = async {
            loop {
                let mut changes = self.engine.changes().await.expect("the engine is in reach");
                loop {
                    let instances = self.status(id).await.map(|status| status.instances).unwrap_or_default();
                    if wanted(&instances) {
                        return instances;
                    }
                    if changes.next().await.is_none() {
                        break;
                    }
                }
            }
        };
        let Ok(instances) = tokio::time::timeout(PATIENCE, wait).await else {
            panic!("never came: {what}; last seen: {:?}", self.status(id).await)
        };
        instances
    }

    async fn until_up(&self, id: &WorkloadId, quantity: usize) -> Vec<Instance> {
        let up = |instance: &Instance| instance.state == InstanceState::Up;
        self.until(id, "all instances up", |all| all.len() == quantity && all.iter().all(up)).await
    }

    /// Deletes a workload and waits until nothing of it is left.
    async fn delete(&self, id: &WorkloadId) {
        self.engine.delete(id).await.expect("the deletion is accepted");
        self.until(id, "no instances", <[Instance]>::is_empty).await;
        assert_eq!(self.status(id).await, None, "a deleted workload is gone");
    }

    fn oneoff(container: Container) -> OneOff {
        let app = AppId::random(&SystemRandom);
        OneOff {
            id: OneOffId(format!("run-{app}")),
            app,
            container,
            tty: None,
            time_limit: PATIENCE,
            stop_grace: Duration::ZERO,
            is_build: false,
            log: None,
        }
    }

    async fn run(&self, oneoff: &OneOff) -> RunningOneOff {
        self.engine.run(oneoff.clone()).await.expect("the one-off starts")
    }

    /// Runs to the end without input.
    async fn output(&self, container: Container) -> (String, Exit) {
        let RunningOneOff { input, output, exit } = self.run(&Self::oneoff(container)).await;
        drop(input);
        let output = text(output).await;
        (output, exit.await.expect("an exit"))
    }

    async fn until_gone(&self, id: &OneOffId) {
        let wait = async {
            let mut changes = self.engine.changes().await.expect("the engine is in reach");
            while self.engine.oneoffs().await.expect("the engine is in reach").contains(id) {
                assert!(changes.next().await.is_some(), "the engine is in reach");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the one-off is removed");
    }
}

async fn text(mut output: tokio::sync::mpsc::Receiver<Bytes>) -> String {
    let mut bytes = Vec::new();
    while let Some(piece) = output.recv().await {
        bytes.extend_from_slice(&piece);
    }
    String::from_utf8(bytes).expect("text")
}

/// What an HTTP server at this address answers to `GET /`.
async fn page(address: SocketAddr) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

async fn an_instance_starts_then_is_up_where_it_listens(subject: Subject) {
    let script = format!("while ! test -e /scratch/go; do sleep 0.05; done; {SERVER}");
    let mut workload = Subject::workload(subject.shell(&script));
    workload.container.mounts = vec![bind(&subject)];
    subject.apply(&workload).await;
    let starting = subject.until(&workload.id, "an instance", |all| !all.is_empty()).await;
    assert_eq!(starting[0].state, InstanceState::Starting);
    assert_eq!(starting[0].dyno.to_string(), "web.1");
    std::fs::write(subject.scratch.join("go"), "").expect("written");
    let up = subject.until_up(&workload.id, 1).await;
    assert_eq!((up[0].crashes, up[0].last_exit), (0, None));
    assert!(page(up[0].address.expect("an address")).await.ends_with("hello\n"));
    subject.apply(&workload).await;
    assert_eq!(subject.until_up(&workload.id, 1).await[0].id, up[0].id, "applying again changes nothing");
    subject.delete(&workload.id).await;
    subject.engine.delete(&workload.id).await.expect("deleting again is no error");
}

async fn an_instance_that_never_listens_is_stopped_and_shows_its_ports(subject: Subject) {
    let mut workload = Subject::workload(subject.shell("exec httpd -f -p 6000 -h /tmp"));
    workload.health = Health::listening(PORT, Duration::from_secs(5));
    subject.apply(&workload).await;
    let crashed = |instance: &Instance| matches!(instance.state, InstanceState::Crashed { .. });
    let seen = subject.until(&workload.id, "a crash", |all| all.iter().any(crashed)).await;
    let report = seen[0].probe.clone().expect("what the probe saw");
    assert!(report.result.contains("5000"), "{report:?}");
    let ports: Vec<u16> = report.listening.iter().map(SocketAddr::port).collect();
    assert_eq!((ports.as_slice(), report.fatal), ([6000].as_slice(), true));
    assert!(report.after >= Duration::from_secs(5), "{report:?}");
    subject.delete(&workload.id).await;
}

async fn an_instance_without_port_is_up_once_it_stays(subject: Subject) {
    let mut workload = Subject::workload(subject.shell("exec sleep 1000"));
    workload.process_type = "worker".parse().expect("a process type");
    workload.health = Health::uptime(Duration::from_millis(200));
    workload.stop_grace = Duration::ZERO;
    subject.apply(&workload).await;
    let up = subject.until_up(&workload.id, 1).await;
    assert_eq!(up[0].dyno.to_string(), "worker.1");
    subject.delete(&workload.id).await;
}

async fn a_container_that_cannot_start_says_why(subject: Subject) {
    let missing = subject.command(&["/bin/there-is-no-such-program"]);
    let oneoff = Subject::oneoff(missing.clone());
    let refused = subject.engine.run(oneoff.clone()).await.expect_err("it cannot start");
    assert!(refused.to_string().contains("there-is-no-such-program"), "{refused}");
    subject.until_gone(&oneoff.id).await;

    let workload = Subject::workload(missing);
    subject.apply(&workload).await;
    let crashed = |instance: &Instance| matches!(instance.state, InstanceState::Crashed { .. });
    let seen = subject.until(&workload.id, "a crash", |all| all.iter().any(crashed)).await;
    let report = seen[0].probe.clone().expect("a reason");
    assert!(report.result.contains("there-is-no-such-program"), "{report:?}");
    subject.delete(&workload.id).await;

    let root = Container { uid: 0, ..subject.shell("true") };
    assert!(subject.engine.run(Subject::oneoff(root)).await.is_err(), "nothing runs as root");
}

fn bind(subject: &Subject) -> Mount {
    Mount::Bind { source: subject.scratch.clone(), target: PathBuf::from("/scratch"), read_only: false }
}

async fn deleting_sends_sigterm_first(subject: Subject) {
    let script =
        "trap 'echo asked > /scratch/sigterm; exit 0' TERM; httpd -p 5000 -h /tmp; while :; do sleep 0.1; done";
    let mut workload = Subject::workload(subject.shell(script));
    workload.container.mounts = vec![bind(&subject)];
    workload.stop_grace = PATIENCE;
    subject.apply(&workload).await;
    subject.until_up(&workload.id, 1).await;
    subject.delete(&workload.id).await;
    let said = std::fs::read_to_string(subject.scratch.join("sigterm")).expect("SIGTERM was seen");
    assert_eq!(said, "asked\n");
}

async fn deleting_kills_after_the_grace_period(subject: Subject) {
    let script = "trap '' TERM; httpd -p 5000 -h /tmp; while :; do sleep 0.1; done";
    let mut workload = Subject::workload(subject.shell(script));
    workload.stop_grace = Duration::from_secs(2);
    subject.apply(&workload).await;
    subject.until_up(&workload.id, 1).await;
    subject.engine.delete(&workload.id).await.expect("the deletion is accepted");
    let status = subject.status(&workload.id).await.expect("it is still stopping");
    assert!(status.deleting && status.quantity == 0, "{status:?}");
    subject.delete(&workload.id).await;
}

async fn the_quantity_changes_and_nothing_else(subject: Subject) {
    let mut workload = Subject::workload(subject.shell(SERVER));
    subject.apply(&workload).await;
    let first = subject.until_up(&workload.id, 1).await;
    workload.quantity = 3;
    subject.apply(&workload).await;
    let three = subject.until_up(&workload.id, 3).await;
    assert_eq!(three.iter().map(|instance| instance.dyno.to_string()).collect::<Vec<_>>(), ["web.1", "web.2", "web.3"]);
    let mut addresses: Vec<_> = three.iter().map(|instance| instance.address.expect("an address")).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "every instance has its own address");
    let other = Workload { release: 2, ..workload.clone() };
    let refused = subject.engine.apply(other).await.expect_err("a workload is immutable");
    assert!(matches!(&refused, EngineError::Immutable(id) if *id == workload.id), "{refused}");
    workload.quantity = 1;
    subject.apply(&workload).await;
    let left = subject.until(&workload.id, "one instance", |all| all.len() == 1).await;
    assert_eq!(left[0].id, first[0].id, "the first instance was never touched");
    workload.quantity = 0;
    subject.apply(&workload).await;
    subject.until(&workload.id, "no instances", <[Instance]>::is_empty).await;
    subject.delete(&workload.id).await;
}

async fn an_instance_is_replaced_on_request(subject: Subject) {
    let workload = Subject::workload(subject.shell(SERVER));
    subject.apply(&workload).await;
    let old = subject.until_up(&workload.id, 1).await[0].id.clone();
    subject.engine.restart(&old).await.expect("the restart is accepted");
    let is_new = |all: &[Instance]| all.len() == 1 && all[0].id != old && all[0].state == InstanceState::Up;
    let new = subject.until(&workload.id, "the new instance alone", is_new).await;
    assert_eq!(new[0].dyno.to_string(), "web.1");
    subject.engine.restart("no-such-instance").await.expect("unknown instances are no error");
    subject.delete(&workload.id).await;
}

async fn an_environment_arrives_byte_for_byte(subject: Subject) {
    let json = format!("{{\"key\": \"{}\"}}", "x\\\"$y\u{1f600}'".repeat(4000));
    assert!(json.len() > 32 << 10);
    let values = [
        ("QUOTES", "\"it's\" `quoted` \\ \\n"),
        ("DOLLAR", "$HOME ${PATH} $(id) %d"),
        ("NEWLINES", "\none\n\ntwo\r\n"),
        ("EMOJI", "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} é"),
        ("HOME", "/a home"),
        ("EMPTY", ""),
        ("EQUALS", "a=b=c"),
        ("CONTROL", "\u{1}\u{7f}\t\u{1b}[0m"),
        ("JSON", json.as_str()),
    ];
    let env: BTreeMap<String, String> = values.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let container = Container { env: env.clone(), ..subject.command(&["/bin/cat", "/proc/self/environ"]) };
    let (output, exit) = subject.output(container).await;
    assert_eq!(exit, Exit::Code(0));
    let seen = output.split_terminator('\0').filter_map(|entry| entry.split_once('='));
    let mut seen: BTreeMap<String, String> = seen.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert!(seen.remove("HOSTNAME").is_some(), "a container knows its name");
    let wrong: Vec<&String> = env.keys().filter(|name| seen.get(*name) != env.get(*name)).collect();
    assert!(wrong.is_empty() && seen.len() == env.len(), "{wrong:?} differ, or there are more than {:?}", env.keys());
}

async fn every_instance_knows_its_name(subject: Subject) {
    let script = "echo $DYNO > /tmp/index.html; exec httpd -f -p 5000 -h /tmp";
    let mut workload = Subject::workload(subject.shell(script));
    workload.quantity = 2;
    subject.apply(&workload).await;
    for instance in subject.until_up(&workload.id, 2).await {
        let page = page(instance.address.expect("an address")).await;
        assert!(page.ends_with(&format!("{}\n", instance.dyno)), "{page:?} is not of {}", instance.dyno);
    }
    subject.delete(&workload.id).await;
    let mut oneoff = subject.shell("echo $DYNO");
    oneoff.env.insert("DYNO".to_owned(), "run.4321".to_owned());
    assert_eq!(subject.output(oneoff).await.0, "run.4321\n", "a one-off is named by its caller");
}

async fn mounts_are_where_they_are_asked_for(subject: Subject) {
    let dir = |name: &str| {
        let dir = subject.scratch.join(name);
        std::fs::create_dir(&dir).expect("a folder");
        std::os::unix::fs::chown(&dir, Some(subject.container.uid), Some(subject.container.uid)).expect("its owner");
        dir
    };
    let (below, above, upper, work) = (dir("below"), dir("above"), dir("upper"), dir("work"));
    std::fs::write(below.join("file"), "below").expect("written");
    std::fs::write(below.join("only"), "only").expect("written");
    std::fs::write(above.join("file"), "above").expect("written");
    let mut container = subject.shell(
        "cat /overlay/file /overlay/only /fixed/file; echo new > /overlay/new; echo no 2>/dev/null > /fixed/new || echo kept",
    );
    container.mounts = vec![
        Mount::Overlay { lower: vec![above.clone(), below], upper: upper.clone(), work, target: "/overlay".into() },
        Mount::Bind { source: above, target: "/fixed".into(), read_only: true },
    ];
    assert_eq!(subject.output(container).await, ("aboveonlyabovekept\n".to_owned(), Exit::Code(0)));
    let written = std::fs::read_to_string(upper.join("new")).expect("writes land in the upper directory");
    assert_eq!(written, "new\n");
}

async fn nothing_is_privileged(subject: Subject) {
    let script = "id -u; id -g; grep -E '^(NoNewPrivs|CapEff|CapBnd|CapPrm|Seccomp|Groups):' /proc/self/status | tr -d ' \\t'; \
        unshare -n true 2>/dev/null || echo no-namespaces; mount -t tmpfs none /tmp 2>/dev/null || echo no-mounts; \
        hostname x 2>/dev/null || echo no-names; echo 1 2>/dev/null > /proc/sys/vm/drop_caches || echo no-settings; \
        echo x 2>/dev/null > /bin/x || echo no-system-files; echo x > /tmp/x && echo temporary-files";
    let (output, _) = subject.output(subject.shell(script)).await;
    let uid = subject.container.uid.to_string();
    let zero = "0000000000000000";
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], [uid.as_str(), uid.as_str()]);
    for expected in [
        &format!("CapEff:{zero}"),
        &format!("CapBnd:{zero}"),
        &format!("CapPrm:{zero}"),
        "NoNewPrivs:1",
        "Seccomp:2",
        "no-namespaces",
        "no-mounts",
        "no-names",
        "no-settings",
        "no-system-files",
        "temporary-files",
    ] {
        assert!(lines.contains(&expected), "{expected} is missing in {output}");
    }
}

async fn names_and_users_are_known_inside(subject: Subject) {
    let script = "whoami; hostname; cat /etc/hostname; grep -c localhost /etc/hosts; test -w /dev/shm && echo shared; \
        echo again > /dev/stdout";
    let oneoff = Subject::oneoff(subject.shell(script));
    let running = subject.run(&oneoff).await;
    drop(running.input);
    let output = text(running.output).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "app");
    assert_eq!(lines[1], lines[2]);
    assert_eq!(lines[4..], ["shared", "again"], "{output}");
}

async fn other_instances_the_host_and_metadata_are_out_of_reach(subject: Subject) {
    let workload = Subject::workload(subject.shell(SERVER));
    subject.apply(&workload).await;
    let neighbour = subject.until_up(&workload.id, 1).await[0].address.expect("an address").ip();
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a listener");
    let host_port = listener.local_addr().expect("an address").port();
    let script = format!(
        "reach() {{ nc -w 2 $2 $3 </dev/null >/dev/null 2>&1 && echo reached $1; }}; \
         httpd -p 7000 -h /tmp; reach itself 127.0.0.1 7000; \
         reach neighbour {neighbour} {PORT}; \
         gateway=$(route -n | awk '$1 == \"0.0.0.0\" {{ print $2 }}'); reach host $gateway {host_port}; \
         reach metadata 169.254.169.254 80; \
         test -n \"$gateway\" && echo tried; ip addr | grep -c 'inet6 fe80' || true"
    );
    let (output, _) = subject.output(subject.shell(&script)).await;
    assert_eq!(output, "reached itself\ntried\n0\n", "only itself is in reach");
    subject.delete(&workload.id).await;
}
