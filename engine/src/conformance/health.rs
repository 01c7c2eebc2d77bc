//! What is looked at while an instance runs, and what follows.

use std::path::PathBuf;
use std::time::Duration;

use model::Exit;

use super::{PATIENCE, PORT, SOON, Subject, bind};
use crate::{Check, Health, Instance, InstanceState, Look, Purpose, Restart, Workload};

/// Serves what is in the scratch folder, so that files there decide what checks see, and says that it was asked to end.
const SERVER: &str = "trap 'echo asked >> /scratch/sigterm; exit 0' TERM; httpd -p 5000 -h /scratch; \
    while :; do sleep 0.05; done";

fn check(look: Look, attempts: u32) -> Check {
    let (timeout, wait) = (Duration::from_millis(500), Duration::from_millis(100));
    Check { name: "special".to_owned(), look, attempts, timeout, wait, delay: Duration::ZERO }
}

fn http(path: &str, attempts: u32) -> Check {
    check(Look::Http(path.to_owned()), attempts)
}

impl Subject {
    /// A web process with these checks, beside the one that it listens.
    fn checked(&self, script: &str, change: impl FnOnce(&mut Health)) -> Workload {
        let mut workload = Self::workload(self.shell(script));
        workload.container.mounts = vec![bind(self)];
        // What was seen shows until it is started again.
        workload.restart = Restart { at_once: 0, first: Duration::from_secs(3), ..SOON };
        change(&mut workload.health);
        workload
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn write(&self, name: &str) {
        std::fs::write(self.file(name), "").expect("written");
    }
}

fn crashed(instance: &Instance) -> bool {
    matches!(instance.state, InstanceState::Crashed { .. })
}

pub(super) async fn readiness_takes_an_instance_out_and_back_in(subject: Subject) {
    let workload = subject.checked(SERVER, |health| health.readiness.push(http("/ready", 2)));
    subject.apply(&workload).await;
    let waits = |all: &[Instance]| all.iter().any(|one| one.state == InstanceState::Up && one.probe.is_some());
    let first = subject.until(&workload.id, "an instance that is up and says what it waits for", waits).await;
    assert!(!first[0].is_healthy(), "it is not ready before its check passed: {first:?}");
    let ready = |all: &[Instance]| all.len() == 1 && all[0].is_healthy();
    for _ in 0..2 {
        subject.write("ready");
        let seen = subject.until(&workload.id, "it is ready", ready).await;
        assert_eq!((&seen[0].id, &seen[0].probe), (&first[0].id, &None), "nothing was replaced, nothing fails");
        std::fs::remove_file(subject.file("ready")).expect("removed");
        let seen = subject.until(&workload.id, "it is not ready", |all| !ready(all)).await;
        assert_eq!((&seen[0].id, seen[0].state, seen[0].crashes), (&first[0].id, InstanceState::Up, 0));
        let report = seen[0].probe.clone().expect("what the check saw");
        assert_eq!((report.check.as_str(), report.purpose, report.fatal), ("special", Purpose::Readiness, false));
        assert!(report.result.starts_with("GET /ready was answered with 404 Not Found"), "{report:?}");
    }
    subject.delete(&workload.id).await;
}

pub(super) async fn liveness_replaces_what_does_not_answer(subject: Subject) {
    subject.write("alive");
    let mut workload = subject.checked(SERVER, |health| health.liveness.push(http("/alive", 3)));
    workload.stop_grace = PATIENCE;
    subject.apply(&workload).await;
    let first = subject.until_up(&workload.id, 1).await;
    std::fs::remove_file(subject.file("alive")).expect("removed");
    let seen = subject.until(&workload.id, "a crash", |all| all.iter().any(crashed)).await;
    assert_eq!(seen[0].last_exit, Some(Exit::Code(0)), "it ended well, and still counts as crashed: {seen:?}");
    let asked = std::fs::read_to_string(subject.file("sigterm")).expect("SIGTERM came first");
    assert_eq!(asked, "asked\n");
    let report = seen[0].probe.clone().expect("what the check saw");
    assert_eq!((report.purpose, report.fatal), (Purpose::Liveness, true), "{report:?}");
    assert!(
        report.result.starts_with("GET /alive was answered with 404") && report.listens_outside(PORT),
        "{report:?}"
    );
    subject.write("alive");
    let again = |all: &[Instance]| all.len() == 1 && all[0].is_healthy() && all[0].id != first[0].id;
    let seen = subject.until(&workload.id, "another instance", again).await;
    assert!(seen[0].restarts > 0, "{seen:?}");
    subject.delete(&workload.id).await;
}

pub(super) async fn a_check_that_hangs_fails_in_time(subject: Subject) {
    let script = "mkdir -p /tmp/www/cgi-bin; printf '#!/bin/sh\\nsleep 1000\\n' > /tmp/www/cgi-bin/hang; \
        chmod +x /tmp/www/cgi-bin/hang; exec httpd -f -p 5000 -h /tmp/www";
    let workload = subject.checked(script, |health| health.liveness.push(http("/cgi-bin/hang", 2)));
    subject.apply(&workload).await;
    let seen = subject.until(&workload.id, "a crash", |all| all.iter().any(crashed)).await;
    let report = seen[0].probe.clone().expect("what the check saw");
    assert_eq!(report.result, "GET /cgi-bin/hang had no answer within 0.5 s");
    assert!(report.fatal, "{report:?}");
    subject.delete(&workload.id).await;
}

pub(super) async fn a_command_in_the_instance_is_a_check(subject: Subject) {
    let sh = |script: &str| Look::Command(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
    let workload = subject.checked(SERVER, |health| {
        health.readiness.push(check(sh("test -e /scratch/ready && exit; echo for $PORT; exit 3"), 1));
        let hangs = Check { name: "hangs".to_owned(), ..check(sh("test -e /scratch/hang && sleep 1000; true"), 2) };
        health.liveness.push(Check { timeout: Duration::from_secs(2), ..hangs });
    });
    subject.apply(&workload).await;
    let waits = |all: &[Instance]| all.iter().any(|one| one.state == InstanceState::Up && one.probe.is_some());
    let seen = subject.until(&workload.id, "an instance that says what it waits for", waits).await;
    let report = seen[0].probe.clone().expect("what the check saw");
    assert_eq!(report.result, "the command exited with code 3: for 5000", "it has the instance's environment");
    subject.write("ready");
    subject.until(&workload.id, "it is ready", |all| all.iter().any(Instance::is_healthy)).await;
    subject.write("hang");
    let seen = subject.until(&workload.id, "a crash", |all| all.iter().any(crashed)).await;
    let report = seen[0].probe.clone().expect("what the check saw");
    assert_eq!((report.fatal, report.result.as_str()), (true, "the command did not end within 2 s"));
    subject.delete(&workload.id).await;
}

pub(super) async fn a_port_that_opens_late_or_closes_again_is_noticed(subject: Subject) {
    let script = "while ! test -e /scratch/open; do sleep 0.05; done; httpd -f -p 5000 -h /tmp & \
        while ! test -e /scratch/close; do sleep 0.05; done; rm /scratch/close; kill $!; exec sleep 1000";
    let workload = subject.checked(script, |health| health.liveness.push(check(Look::Listening, 2)));
    subject.apply(&workload).await;
    let starting = subject.until(&workload.id, "an instance", |all| !all.is_empty()).await;
    subject.write("open");
    let up = subject.until_up(&workload.id, 1).await;
    assert_eq!((&up[0].id, up[0].crashes), (&starting[0].id, 0), "late is not never");
    subject.write("close");
    let seen = subject.until(&workload.id, "a crash", |all| all.iter().any(crashed)).await;
    let report = seen[0].probe.clone().expect("what the check saw");
    assert_eq!((report.result.as_str(), report.fatal), ("connection refused on port 5000", true));
    assert!(report.listening.is_empty(), "{report:?}");
    let again = |all: &[Instance]| all.len() == 1 && all[0].is_healthy() && all[0].id != up[0].id;
    subject.until(&workload.id, "another instance", again).await;
    subject.delete(&workload.id).await;
}

pub(super) async fn a_startup_check_by_http_decides_when_an_instance_is_up(subject: Subject) {
    std::fs::create_dir(subject.file("folder")).expect("a folder");
    // The server answers for a folder without a slash by a redirection.
    let workload = subject.checked(SERVER, |health| {
        health.startup.extend([http("/folder", 1), http("/started", u32::MAX)]);
    });
    subject.apply(&workload).await;
    let starting = subject.until(&workload.id, "an instance", |all| !all.is_empty()).await;
    assert_eq!(starting[0].state, InstanceState::Starting);
    subject.write("started");
    let up = subject.until_up(&workload.id, 1).await;
    assert_eq!((&up[0].id, up[0].crashes, up[0].is_healthy()), (&starting[0].id, 0, true));
    subject.delete(&workload.id).await;

    let never = subject.checked(SERVER, |health| health.startup.push(http("/never", 3)));
    subject.apply(&never).await;
    let seen = subject.until(&never.id, "a crash", |all| all.iter().any(crashed)).await;
    let report = seen[0].probe.clone().expect("what the check saw");
    assert_eq!((report.check.as_str(), report.purpose, report.fatal), ("special", Purpose::Startup, true));
    assert!(report.result.contains("404") && report.listens_outside(PORT), "{report:?}");
    subject.delete(&never.id).await;
}

pub(super) async fn who_takes_too_long_to_boot_is_asked_to_end(subject: Subject) {
    // It listens where nobody but itself can reach it.
    let script = "trap 'echo asked > /scratch/sigterm; exit 0' TERM; httpd -p 127.0.0.1:5000 -h /tmp; \
        while :; do sleep 0.05; done";
    let mut workload = subject.checked(script, |health| health.boot = Duration::from_secs(2));
    workload.stop_grace = PATIENCE;
    subject.apply(&workload).await;
    let seen = subject.until(&workload.id, "a crash", |all| all.iter().any(crashed)).await;
    let report = seen[0].probe.clone().expect("what the check saw");
    assert_eq!((report.purpose, report.fatal), (Purpose::Startup, true));
    assert_eq!(report.listening, ["127.0.0.1:5000".parse().expect("an address")]);
    assert!(!report.listens_outside(PORT), "{report:?}");
    assert_eq!(seen[0].last_exit, Some(Exit::Code(0)), "it ended by itself, when it was told to: {seen:?}");
    let asked = std::fs::read_to_string(subject.file("sigterm")).expect("SIGTERM was seen");
    assert_eq!(asked, "asked\n");
    subject.delete(&workload.id).await;
}
