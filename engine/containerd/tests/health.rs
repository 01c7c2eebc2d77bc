//! What is looked at while instances run, and what is known of them after a new start of the role.

use std::net::SocketAddr;
use std::time::Duration;

use engine::{Check, Engine, Health, Instance, InstanceState, Larger, Look, Mount, Restart, Workload, WorkloadId};
use model::Exit;

use crate::faults::{delete_all, shell, up, web};
use crate::machine::{Machine, cut_link};

/// Ids of all instances.
async fn ids(machine: &Machine) -> Vec<String> {
    let list = machine.client().list().await.unwrap_or_default();
    list.into_iter().flat_map(|status| status.instances).map(|one| one.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lost_its_link_or_its_cgroup_or_was_stopped_by_others_is_replaced() {
    let machine = Machine::boot().await;
    let workload = Workload { health: Health::uptime(Duration::from_millis(100)), ..web(3) };
    machine.client().apply(workload).await.expect("applied");
    machine.until("three instances", async || up(&machine).await.len() == 3).await;
    let before = up(&machine).await;
    cut_link(before[0].1.ip());
    machine.remove_cgroup(&before[1].0);
    machine.kill_instance(&before[2].0);
    let is_new = |one: &(String, SocketAddr)| before.iter().all(|old| old.0 != one.0);
    machine
        .until("three other instances", async || {
            let now = up(&machine).await;
            now.len() == 3 && now.iter().all(is_new)
        })
        .await;
    for line in [
        "heroku[web.1]: Cannot go on: its network link is gone",
        "heroku[web.2]: Cannot go on: the cgroup that limits it is gone",
        "heroku[web.3]: Process exited with status 137",
    ] {
        assert!(machine.log().contains(line), "{line} is missing in {}", machine.log());
    }
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ready_stays_out_of_the_table_through_a_new_host_role() {
    let mut machine = Machine::boot().await;
    let mut workload = web(1);
    let check = Check {
        name: "ready".to_owned(),
        look: Look::Http("/ready".to_owned()),
        attempts: 1,
        timeout: Duration::from_secs(1),
        wait: Duration::from_millis(100),
        delay: Duration::ZERO,
    };
    workload.health.readiness.push(check);
    let scratch = machine.subject("scratch").scratch;
    workload.container = shell("httpd -p 5000 -h /scratch; while :; do sleep 0.1; done");
    workload.container.mounts =
        vec![Mount::Bind { source: scratch.clone(), target: "/scratch".into(), read_only: false }];
    machine.client().apply(workload.clone()).await.expect("applied");
    machine.until("an instance", async || up(&machine).await.len() == 1).await;
    let row = async |machine: &Machine| machine.first_addresses().await.remove(&workload.id).expect("a row");
    let first = row(&machine).await;
    assert_eq!((first.healthy.len(), first.starting), (0, 1), "routers hold requests for it");
    machine.kill_host();
    machine.start_host();
    machine.until_answering().await;
    assert_eq!(row(&machine).await.healthy.len(), 0, "it is not in the table for a moment");
    std::fs::write(scratch.join("ready"), "").expect("written");
    machine.until("it is in the table", async || row(&machine).await.healthy.len() == 1).await;
    std::fs::remove_file(scratch.join("ready")).expect("removed");
    machine.until("it is out again", async || row(&machine).await.healthy.is_empty()).await;
    let log = machine.log();
    assert!(log.contains("heroku[web.1]: Ready for requests"), "{log}");
    assert!(log.contains("heroku[web.1]: Gets no new requests: GET /ready was answered with 404 Not Found"), "{log}");
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_ends_nothing() {
    let mut machine = Machine::boot().await;
    let scratch = machine.subject("scratch").scratch;
    let mut workload = web(1);
    workload.container = shell("while ! test -e /scratch/go; do sleep 0.05; done; exec httpd -f -p 5000 -h /tmp");
    workload.container.mounts =
        vec![Mount::Bind { source: scratch.clone(), target: "/scratch".into(), read_only: false }];
    machine.client().apply(workload).await.expect("applied");
    machine
        .until("an instance runs", async || {
            machine
                .path()
                .join("home/host/instances")
                .read_dir()
                .is_ok_and(|all| all.flatten().any(|one| one.path().join("running.json").exists()))
        })
        .await;
    let first = ids(&machine).await;
    machine.kill_host();
    machine.set_clock(3_600_000);
    machine.start_host();
    machine.until_answering().await;
    std::fs::write(scratch.join("go"), "").expect("written");
    machine.until("it is up", async || up(&machine).await.len() == 1).await;
    assert_eq!(up(&machine).await[0].0, first[0], "it is the first one still: {}", machine.log());
    delete_all(&machine).await;
}

/// What is known of the first instance of a workload.
async fn first_of(machine: &Machine, workload: &WorkloadId) -> Option<Instance> {
    let list = machine.client().list().await.unwrap_or_default();
    list.into_iter().find(|status| status.id == *workload)?.instances.into_iter().next()
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_are_counted_through_a_new_host_role() {
    let mut machine = Machine::boot().await;
    let ends = |code: i32, restart| Workload { restart, container: shell(&format!("exit {code}")), ..web(1) };
    let waits = ends(3, Restart { at_once: 1, first: Duration::from_secs(600), ..Restart::default() });
    let gives_up = ends(4, Restart { at_once: 2, give_up: Some(1), ..Restart::default() });
    machine.client().apply(waits.clone()).await.expect("applied");
    machine.client().apply(gives_up.clone()).await.expect("applied");
    let retry_of = async |machine: &Machine| {
        let one = first_of(machine, &waits.id).await?;
        let counted = (one.crashes, one.restarts, one.last_exit) == (2, 1, Some(Exit::Code(3)));
        let InstanceState::Crashed { retry_at } = one.state else { return None };
        counted.then_some(retry_at)
    };
    let gave_up = async |machine: &Machine| {
        let seen = first_of(machine, &gives_up.id).await;
        seen.is_some_and(|one| {
            (one.state, one.crashes, one.last_exit) == (InstanceState::GaveUp, 2, Some(Exit::Code(4)))
        })
    };
    machine
        .until("one waits, one gave up", async || retry_of(&machine).await.is_some() && gave_up(&machine).await)
        .await;
    let before = retry_of(&machine).await.expect("it waits");
    machine.kill_host();
    machine.set_clock(3_600_000);
    machine.start_host();
    machine.until_answering().await;
    assert!(gave_up(&machine).await, "{:?}", first_of(&machine, &gives_up.id).await);
    let now = retry_of(&machine).await.expect("it waits still");
    assert!(now.since(before) > Duration::from_secs(3500), "for as long as before, by the clock as it is set now");
    delete_all(&machine).await;
    let pasts = machine.settings().home.join("host/pasts");
    machine
        .until("nothing is noted of them", async || pasts.read_dir().is_ok_and(|mut all| all.next().is_none()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_for_memory_is_told_of_while_the_others_live_on() {
    let machine = Machine::boot().await;
    let mut workload = web(1);
    workload.container =
        shell("httpd -p 5000 -h /tmp; (x=0123456789abcdef; while :; do x=$x$x; done); exec sleep 1000");
    workload.container.limits.memory_bytes = 32 << 20;
    workload.larger = Some(Larger { name: "Huge".to_owned(), memory_bytes: 64 << 20 });
    machine.client().apply(workload).await.expect("applied");
    let line = "heroku[web.1]: A process was killed: the dyno ran out of its 32 MB of memory; Huge has 64 MB";
    machine.until("it is told", async || machine.log().contains(line)).await;
    assert_eq!(up(&machine).await.len(), 1, "the first process lives on");
    assert!(machine.log().contains("heroku[web.1]: Error R14 (Memory quota exceeded)"), "{}", machine.log());
    assert_eq!(machine.log().matches("R14").count(), 1, "it is told once");
    delete_all(&machine).await;
}
