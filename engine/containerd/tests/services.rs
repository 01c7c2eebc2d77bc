use std::collections::BTreeSet;
use std::time::Duration;

use engine::conformance::SOON;
use engine::{
    Container, DRAIN_LIMIT, Engine, Health, Instance, InstanceState, Mount, Service, Workload, WorkloadId,
    WorkloadStatus,
};
use model::AppId;
use model::clock::SystemRandom;

use crate::machine::{Machine, container};

const PORT: u16 = 5432;

fn shell(script: &str) -> Container {
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Container { args, env: [("PATH".to_owned(), "/bin".to_owned())].into(), ..container() }
}

/// Writes one row after the other, says which are safe, and gives back what clients send.
fn database(clients: impl IntoIterator<Item = AppId>) -> Workload {
    let app = AppId::random(&SystemRandom);
    let mut container = shell(
        "nc -ll -p 5432 -e cat & row=$(tail -n 1 /data/rows 2>/dev/null); \
         while :; do row=$((row+1)); echo $row >> /data/rows; sync /data/rows; echo kept $row; sleep 0.02; done",
    );
    container.mounts = vec![Mount::Volume { name: "data".to_owned(), target: "/data".into() }];
    Workload {
        id: WorkloadId(format!("{app}.v1.db")),
        app,
        release: 1,
        process_type: "db".parse().expect("a process type"),
        quantity: 1,
        container,
        health: Health::listening(PORT, Duration::from_secs(60)),
        restart: SOON,
        drain: DRAIN_LIMIT,
        idle: None,
        larger: None,
        stop_grace: Duration::ZERO,
        service: Some(Service { port: PORT, clients: clients.into_iter().collect() }),
    }
}

/// Keeps one connection for as long as it holds, and says what comes back. Ends with it.
fn client(app: AppId, host: &str) -> Workload {
    let script =
        format!("echo connecting; (while :; do echo echo; sleep 0.05; done) | nc {host} {PORT}; echo lost; exit 1");
    Workload {
        id: WorkloadId(format!("{app}.v1.worker")),
        app,
        process_type: "worker".parse().expect("a process type"),
        container: shell(&script),
        health: Health::uptime(Duration::ZERO),
        service: None,
        ..database([])
    }
}

async fn status(machine: &Machine, id: &WorkloadId) -> WorkloadStatus {
    machine.until("the host role answers", async || machine.client().list().await.is_ok()).await;
    let list = machine.client().list().await.expect("the list");
    list.into_iter().find(|status| status.id == *id).expect("the workload is known")
}

/// The workload's instance, once it is up and not the one of before.
async fn up(machine: &Machine, id: &WorkloadId, before: Option<&Instance>) -> Instance {
    let is_new = |now: &Instance| before.is_none_or(|before| before.id != now.id);
    let found = async || {
        let instances = status(machine, id).await.instances;
        instances.into_iter().find(|now| now.state == InstanceState::Up && is_new(now))
    };
    machine.until("an instance that is up", async || found().await.is_some()).await;
    found().await.expect("it was just seen")
}

async fn more(machine: &Machine, line: &str) {
    let count = || machine.log().matches(line).count();
    let before = count();
    machine.until(line, async || count() > before + 1).await;
}

/// Every row that was said to be kept is there, once and in order.
fn assert_rows(machine: &Machine) {
    let log = machine.log();
    let rows = std::fs::read_to_string(machine.path().join("home/volumes/data/rows")).expect("the rows");
    let numbers: Vec<u64> = rows.lines().map(|row| row.parse().expect("a number")).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let kept = log.lines().filter_map(|line| line.strip_prefix("app[db.1]: kept ")).map(str::parse::<u64>);
    let last = kept.map(|row| row.expect("a number")).max();
    assert!(last.is_some_and(|last| last <= numbers.len() as u64), "{last:?} of {}", numbers.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_survives_whatever_is_killed() {
    let mut machine = Machine::boot().await;
    let app = AppId::random(&SystemRandom);
    let database = database([app]);
    machine.client().apply(database.clone()).await.expect("applied");
    let host = status(&machine, &database.id).await.address.expect("an address");
    let first = up(&machine, &database.id, None).await;
    let client = client(app, &host);
    machine.client().apply(client.clone()).await.expect("applied");
    more(&machine, "app[worker.1]: echo").await;

    machine.kill_host();
    machine.start_host();
    let now = up(&machine, &database.id, None).await;
    assert_eq!(
        (&now.id, now.since, now.booted_in, now.address),
        (&first.id, first.since, first.booted_in, first.address)
    );
    more(&machine, "app[worker.1]: echo").await;
    assert!(!machine.log().contains("app[worker.1]: lost"), "no connection was lost");

    for round in 0..3 {
        let before = up(&machine, &database.id, None).await;
        if round == 2 {
            machine.kill_host();
            machine.power_cut();
            machine.start_containerd();
            machine.start_host();
        } else {
            machine.kill_instance(&before.id);
        }
        up(&machine, &database.id, Some(&before)).await;
        assert_eq!(status(&machine, &database.id).await.address.as_ref(), Some(&host), "the address stays");
        more(&machine, "app[db.1]: kept").await;
        more(&machine, "app[worker.1]: echo").await;
        assert_rows(&machine);
    }

    let detached = Service { port: PORT, clients: BTreeSet::new() };
    machine.client().apply(Workload { service: Some(detached), ..database.clone() }).await.expect("applied");
    more(&machine, "app[worker.1]: lost").await;
    machine.client().delete(&client.id).await.expect("deleted");
    machine.client().delete(&database.id).await.expect("deleted");
    machine.until("nothing is left", async || machine.leftovers().is_empty()).await;
    assert!(!machine.firewall().contains(&host), "{}", machine.firewall());
    assert_rows(&machine);
    machine.client().remove_volume("data").await.expect("removed");
}
