use std::net::SocketAddr;
use std::time::Duration;

use engine::conformance::SOON;
use engine::{
    Container, DRAIN_LIMIT, Engine, EngineError, Health, InstanceState, OneOff, OneOffId, Workload, WorkloadId,
};
use model::AppId;
use model::clock::SystemRandom;
use model::routes::{Ack, AddressesUpdate, Endpoint};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use crate::machine::{Machine, container};

const PORT: u16 = 5000;

pub(crate) fn shell(script: &str) -> Container {
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let env = [("PATH".to_owned(), "/bin".to_owned())].into();
    Container { args, env, ..container() }
}

pub(crate) fn web(quantity: u32) -> Workload {
    let app = AppId::random(&SystemRandom);
    Workload {
        id: WorkloadId(format!("{app}.v1.web")),
        app,
        release: 1,
        process_type: "web".parse().expect("a process type"),
        quantity,
        container: shell("httpd -p 5000 -h /tmp; echo serving; while :; do sleep 0.1; echo tick; done"),
        health: Health::listening(PORT, Duration::from_secs(60)),
        restart: SOON,
        drain: DRAIN_LIMIT,
        idle: None,
        larger: None,
        stop_grace: Duration::from_secs(1),
        service: None,
    }
}

/// Id and address of all instances that are up.
pub(crate) async fn up(machine: &Machine) -> Vec<(String, SocketAddr)> {
    let list = machine.client().list().await.unwrap_or_default();
    let instances = list.into_iter().flat_map(|status| status.instances);
    let up = instances.filter(|instance| instance.state == InstanceState::Up);
    up.filter_map(|instance| Some((instance.id, instance.address?))).collect()
}

async fn all_answer(instances: &[(String, SocketAddr)]) -> bool {
    for (_, address) in instances {
        if TcpStream::connect(address).await.is_err() {
            return false;
        }
    }
    true
}

pub(crate) async fn delete_all(machine: &Machine) {
    let client = machine.client();
    for status in client.list().await.expect("the list") {
        client.delete(&status.id).await.expect("deleted");
    }
    machine.until("nothing is left", async || machine.leftovers().is_empty()).await;
}

/// Instances that each have a disk of their own, with a file on it.
fn with_disks(quantity: u32) -> Workload {
    let mut workload = web(quantity);
    workload.container = shell("echo kept > /tmp/index.html; exec httpd -f -p 5000 -h /tmp");
    (workload.container.limits.disk_bytes, workload.container.limits.files) = (Some(64 << 20), Some(1000));
    workload
}

#[tokio::test(flavor = "multi_thread")]
async fn limited_disks_outlive_the_host_role() {
    let mut machine = Machine::boot().await;
    machine.client().apply(with_disks(2)).await.expect("applied");
    machine.until("two instances", async || up(&machine).await.len() == 2).await;
    let instances = up(&machine).await;
    machine.kill_host();
    machine.start_host();
    machine.until_answering().await;
    assert_eq!(up(&machine).await, instances, "no instance was replaced");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    for (id, address) in &instances {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.ends_with("kept\n"), "{answer}");
        assert!(mounts.contains(&format!("{id}/disk")), "{mounts}");
    }
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_role_killed_while_it_starts_leaves_no_disk() {
    let mut machine = Machine::boot().await;
    for round in 0..5 {
        machine.client().apply(with_disks(8)).await.expect("applied");
        // Some are mounted, some only copied, some not begun.
        let begun = || std::fs::read_dir(machine.instances()).into_iter().flatten().flatten().count();
        machine.until("some have begun", async || begun() > round).await;
        machine.kill_host();
        machine.start_host();
        machine.until_answering().await;
        delete_all(&machine).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_host_and_containerd_touches_no_running_instance() {
    let mut machine = Machine::boot().await;
    machine.client().apply(web(2)).await.expect("applied");
    machine.until("two instances", async || up(&machine).await.len() == 2).await;
    let instances = up(&machine).await;
    for round in 0..6 {
        match round % 3 {
            0 => {
                machine.kill_host();
                assert!(all_answer(&instances).await, "instances answer without a host role");
                machine.start_host();
            }
            1 => {
                machine.kill_containerd();
                assert!(all_answer(&instances).await, "instances answer without containerd");
                machine.start_containerd();
            }
            _ => {
                machine.kill_host();
                machine.kill_containerd();
                machine.start_host();
                machine.until_answering().await;
                assert_eq!(up(&machine).await, instances, "they count as up without containerd to ask");
                machine.start_containerd();
            }
        }
        machine.until_answering().await;
        assert_eq!(up(&machine).await, instances, "no instance was replaced");
        assert!(all_answer(&instances).await);
    }
    let serving = machine.log().lines().filter(|line| *line == "app[web.1]: serving").count();
    assert_eq!(serving, 1, "what was logged is not logged again");
    let ticks = || machine.log().matches("app[web.1]: tick").count();
    let before = ticks();
    machine.until("output still arrives", async || ticks() > before).await;
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_nobody_looks_is_noticed_later() {
    let mut machine = Machine::boot().await;
    let mut workload = web(1);
    workload.container =
        shell("httpd -p 5000 -h /tmp; while ! test -e /scratch/end; do sleep 0.05; done; rm /scratch/end; exit 4");
    let scratch = machine.subject("scratch").scratch;
    workload.container.mounts =
        vec![engine::Mount::Bind { source: scratch.clone(), target: "/scratch".into(), read_only: false }];
    machine.client().apply(workload.clone()).await.expect("applied");
    machine.until("an instance", async || up(&machine).await.len() == 1).await;
    let first = up(&machine).await;

    machine.kill_containerd();
    std::fs::write(scratch.join("end"), "").expect("written");
    machine.until("it ended", async || !scratch.join("end").exists()).await;
    machine.start_containerd();
    machine.until("a new instance", async || up(&machine).await.iter().any(|new| new.0 != first[0].0)).await;
    let second = up(&machine).await;
    assert!(machine.log().contains("heroku[web.1]: Process exited with status 4"), "{}", machine.log());

    machine.kill_host();
    std::fs::write(scratch.join("end"), "").expect("written");
    machine.until("it ended", async || !scratch.join("end").exists()).await;
    machine.start_host();
    machine.until("a new instance", async || up(&machine).await.iter().any(|new| new.0 != second[0].0)).await;
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_host_at_any_moment_leaves_no_orphans() {
    let mut machine = Machine::boot().await;
    let workload = web(3);
    for step in 0..8_u64 {
        machine.client().apply(Workload { quantity: 3, ..workload.clone() }).await.expect("applied");
        tokio::time::sleep(Duration::from_millis(step * 30)).await;
        machine.kill_host();
        machine.start_host();
        machine.until_answering().await;
        machine.client().apply(Workload { quantity: 1, ..workload.clone() }).await.expect("applied");
        tokio::time::sleep(Duration::from_millis(step * 20)).await;
        machine.kill_host();
        if step % 4 == 3 {
            machine.kill_containerd();
            machine.start_containerd();
        }
        machine.start_host();
        machine.until_answering().await;
    }
    machine.until("one instance is up", async || up(&machine).await.len() == 1).await;
    let oneoff = OneOff {
        id: OneOffId("left-alone".to_owned()),
        app: workload.app,
        container: shell("exec sleep 1000"),
        tty: None,
        time_limit: Duration::from_secs(1000),
        stop_grace: Duration::ZERO,
        is_build: false,
        log: None,
    };
    drop(machine.client().run(oneoff.clone()).await.expect("started"));
    machine.kill_host();
    machine.start_host();
    machine.until_answering().await;
    assert_eq!(machine.client().oneoffs().await.expect("the list"), std::slice::from_ref(&oneoff.id));
    machine.client().kill(&oneoff.id).await.expect("killed");
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_started_and_not_noted_is_replaced() {
    let mut machine = Machine::boot().await;
    let workload = web(1);
    machine.client().apply(workload).await.expect("applied");
    machine.until("an instance", async || up(&machine).await.len() == 1).await;
    let lost = up(&machine).await;
    machine.kill_host();
    // As if it had been killed between the two.
    std::fs::remove_file(machine.instances().join(&lost[0].0).join("running.json")).expect("removed");
    machine.start_host();
    machine
        .until("another instance", async || {
            let now = up(&machine).await;
            now.len() == 1 && now[0].0 != lost[0].0
        })
        .await;
    machine.until("the first is gone", async || !machine.instances().join(&lost[0].0).exists()).await;
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_one_app_share_a_shim_and_not_their_fate() {
    let machine = Machine::boot().await;
    let workload = web(3);
    machine.client().apply(workload.clone()).await.expect("applied");
    machine.until("three instances", async || up(&machine).await.len() == 3).await;
    assert_eq!(machine.shims().len(), 1, "one shim serves the app");
    let before = up(&machine).await;
    machine.client().apply(Workload { quantity: 2, ..workload.clone() }).await.expect("applied");
    machine.until("two instances", async || up(&machine).await.len() == 2).await;
    let first = before[0].0.clone();
    machine.client().restart(&first).await.expect("restarted");
    let replaced = async || {
        let now = up(&machine).await;
        now.len() == 2 && now.iter().all(|(id, _)| *id != first)
    };
    machine.until("the first, which began the shim, is replaced", replaced).await;
    assert!(up(&machine).await.contains(&before[1]), "the second was not touched");
    assert!(all_answer(&up(&machine).await).await);
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_the_desired_workloads_run_again() {
    let mut machine = Machine::boot().await;
    machine.client().apply(web(1)).await.expect("applied");
    machine.until("an instance", async || up(&machine).await.len() == 1).await;
    let before = up(&machine).await;
    machine.kill_host();
    machine.power_cut();
    machine.start_containerd();
    machine.start_host();
    machine.until("another instance", async || up(&machine).await.iter().any(|now| now.0 != before[0].0)).await;
    assert_eq!(up(&machine).await.len(), 1);
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_program_wished_runs_on_and_is_scaled_as_it_is() {
    let mut machine = Machine::boot().await;
    let workload = web(1);
    machine.client().apply(workload.clone()).await.expect("applied");
    machine.until("an instance", async || up(&machine).await.len() == 1).await;
    let before = up(&machine).await;
    machine.kill_host();
    let wish = machine.settings().home.join("host/workloads").join(format!("{}.json", workload.id));
    for file in [wish, machine.instances().join(&before[0].0).join("record.json")] {
        let text = std::fs::read_to_string(&file).expect("what was written down");
        let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let of_instance = json.pointer("/instance/workload").is_some();
        let old = if of_instance { &mut json["instance"]["workload"] } else { &mut json };
        let old = old.as_object_mut().expect("a workload");
        for new in ["health", "restart", "drain", "idle"] {
            old.remove(new).expect("it is written down");
        }
        let timeout = serde_json::json!({ "secs": 60, "nanos": 0 });
        old.insert("probe".to_owned(), serde_json::json!({ "tcp": { "port": PORT, "boot_timeout": timeout } }));
        old["container"]["limits"]["pids"] = 999.into();
        std::fs::write(&file, json.to_string()).expect("written");
    }
    machine.start_host();
    machine.until("the instance", async || up(&machine).await == before).await;
    let refused = machine.client().apply(Workload { quantity: 2, ..workload.clone() }).await;
    assert!(matches!(refused, Err(EngineError::Immutable(_))), "this program would run something else");
    machine.client().scale(&workload.id, 2).await.expect("scaled");
    machine.until("two instances", async || up(&machine).await.len() == 2).await;
    assert!(up(&machine).await.contains(&before[0]), "the first was not touched");
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_no_instance() {
    let mut machine = Machine::boot().await;
    let disk = machine.with_small_disk();
    machine.until_answering().await;
    let scratch = machine.subject("scratch").scratch;
    let mut workload = web(1);
    workload.container = shell(
        "httpd -p 5000 -h /tmp; i=0; while :; do i=$((i+1)); while ! test -e /scratch/go-$i; do sleep 0.02; done; \
         head -c 524288 /dev/zero | tr '\\0' x | fold -w 8000; echo; echo said $i; done",
    );
    workload.container.mounts =
        vec![engine::Mount::Bind { source: scratch.clone(), target: "/scratch".into(), read_only: true }];
    machine.client().apply(workload.clone()).await.expect("applied");
    machine.until("an instance", async || up(&machine).await.len() == 1).await;
    let instance = up(&machine).await;

    disk.fill();
    for round in 1..=10 {
        std::fs::write(scratch.join(format!("go-{round}")), "").expect("written");
        let said = format!("app[web.1]: said {round}\n");
        machine.until("its output, however much", async || machine.log().contains(&said)).await;
    }
    assert_eq!(up(&machine).await, instance);
    assert!(all_answer(&instance).await);
    let refused = machine.client().apply(Workload { quantity: 2, ..workload.clone() }).await.expect_err("no room");
    assert!(matches!(&refused, EngineError::Exhausted(reason) if reason.contains("disk is full")), "{refused:?}");
    let oneoff = OneOff {
        id: OneOffId("too-much".to_owned()),
        app: workload.app,
        container: shell("true"),
        tty: None,
        time_limit: Duration::from_secs(60),
        stop_grace: Duration::ZERO,
        is_build: false,
        log: None,
    };
    let refused = machine.client().run(oneoff.clone()).await.expect_err("no room");
    assert!(matches!(refused, EngineError::Exhausted(_)), "{refused:?}");

    disk.make_room();
    machine.client().apply(Workload { quantity: 2, ..workload }).await.expect("applied");
    machine.until("another instance", async || up(&machine).await.len() == 2).await;
    assert!(up(&machine).await.contains(&instance[0]), "the first was not touched");
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_firewall_is_mended() {
    let machine = Machine::boot().await;
    let rules = machine.firewall();
    assert!(rules.contains("masquerade"), "{rules}");
    machine.flush_firewall();
    machine.until("the same rules again", async || machine.firewall() == rules).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn going_down_leaves_nothing_but_wishes() {
    let mut machine = Machine::boot().await;
    let scratch = machine.subject("scratch").scratch;
    let bind = engine::Mount::Bind { source: scratch.clone(), target: "/scratch".into(), read_only: false };
    let mut container =
        shell("trap 'echo asked > /scratch/asked; exit 0' TERM; touch /scratch/ready; while :; do sleep 0.1; done");
    container.mounts = vec![bind];
    let workload = web(2);
    machine.client().apply(workload.clone()).await.expect("applied");
    let oneoff = OneOff {
        id: OneOffId("a-build".to_owned()),
        app: workload.app,
        container,
        tty: None,
        time_limit: Duration::from_secs(1000),
        stop_grace: Duration::ZERO,
        is_build: false,
        log: None,
    };
    let running = machine.client().run(oneoff.clone()).await.expect("started");
    machine.until("two instances", async || up(&machine).await.len() == 2).await;
    machine.until("a one-off", async || scratch.join("ready").exists()).await;

    machine.client().stop_all().await.expect("stopped");
    assert_eq!(machine.leftovers(), [""; 0]);
    assert_eq!(machine.shared_leftovers(), [""; 0]);
    assert_eq!(running.exit.await, Ok(model::Exit::Code(0)));
    assert!(scratch.join("asked").exists(), "one-offs are asked to end too");
    machine.client().apply(Workload { quantity: 3, ..workload.clone() }).await.expect("wishes are still taken");
    assert!(machine.client().run(oneoff).await.is_err(), "nothing starts any more");
    machine.client().stop_all().await.expect("stopping again is no error");
    assert_eq!(machine.leftovers(), [""; 0]);

    machine.kill_host();
    machine.start_host();
    machine.until("what was desired", async || up(&machine).await.len() == 3).await;
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_logged_and_platform_lines_tell_the_story() {
    let machine = Machine::boot().await;
    let mut workload = web(1);
    workload.container = shell("echo hello; printf 'no newline'; exit 5");
    machine.client().apply(workload.clone()).await.expect("applied");
    machine.until("a second crash", async || machine.log().matches("from starting to crashed").count() == 2).await;
    let log = machine.log();
    let story: Vec<&str> = log.lines().take(6).collect();
    assert_eq!(
        story,
        [
            "app[web.1]: hello",
            "app[web.1]: no newline",
            "heroku[web.1]: Process exited with status 5",
            "heroku[web.1]: State changed from starting to crashed",
            "heroku[web.1]: State changed from crashed to starting",
            "app[web.1]: hello",
        ]
    );
    delete_all(&machine).await;
}

/// A router that says what it serves only when it is told to.
struct Router {
    said: OwnedWriteHalf,
    /// Version and healthy instances of the newest table that it was sent.
    told: watch::Receiver<(u64, Vec<Endpoint>)>,
}

impl Router {
    async fn follow(machine: &Machine) -> Self {
        let stream = UnixStream::connect(machine.settings().addresses_socket()).await.expect("a publisher");
        let (reader, said) = stream.into_split();
        let (tell, told) = watch::channel((0, Vec::new()));
        tokio::spawn(async move {
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let update: AddressesUpdate = serde_json::from_str(&line).expect("an update");
                let healthy = update.set.into_iter().flat_map(|(_, row)| row.healthy).collect();
                tell.send_replace((update.version, healthy));
            }
        });
        Self { said, told }
    }

    async fn acknowledge(&mut self) {
        let version = self.told.borrow().0;
        let line = format!("{}\n", serde_json::to_string(&Ack::Serving(version)).expect("JSON"));
        self.said.write_all(line.as_bytes()).await.expect("said");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_rests_until_every_router_has_let_go_of_it() {
    let machine = Machine::boot().await;
    let mut router = Router::follow(&machine).await;
    machine.client().apply(web(1)).await.expect("applied");
    machine.until("an instance", async || up(&machine).await.len() == 1).await;
    let before = up(&machine).await.remove(0);
    let told = router.told.wait_for(|(_, healthy)| !healthy.is_empty()).await.expect("a table").1[0].clone();
    assert_eq!((&told.instance, told.address), (&before.0, before.1));
    let proof = told.proof.expect("a proof");
    let running = std::fs::read_to_string(machine.instances().join(&before.0).join("running.json")).expect("a record");
    assert!(running.contains(&format!("\"pid\":{},", proof.pid)), "it is proven by its process: {running}");
    router.acknowledge().await;

    machine.kill_instance(&before.0);
    machine.until("another instance", async || up(&machine).await.iter().any(|now| now.0 != before.0)).await;
    machine.until("nothing of the first but its address", async || !machine.instances().join(&before.0).exists()).await;
    let leases = machine.settings().run_dir.join("leases").join(&machine.settings().namespace);
    let lease = leases.join(before.1.ip().to_string());
    for _ in 0..10 {
        assert!(up(&machine).await.iter().all(|now| now.1.ip() != before.1.ip()));
        assert!(lease.exists(), "a router may still send requests to it");
    }
    router.acknowledge().await;
    machine.until("it is free again", async || !lease.exists()).await;
    drop(router);
    delete_all(&machine).await;
}
