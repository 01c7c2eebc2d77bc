//! What an engine must do for backing services: volumes, addresses, clients.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use model::clock::SystemRandom;
use model::{AppId, Exit};

use super::{PATIENCE, PORT, SERVER, Subject, page, text};
use crate::{
    Container, EngineError, Input, Instance, InstanceState, Mount, OneOff, Service, Workload, WorkloadId,
    WorkloadStatus,
};

/// A server that adds a line to its page with every life, on a volume that only one server may use at a time: it says so on
/// the page if another does.
const LIVES: &str = "mkdir /data/in-use 2>/dev/null || echo together >> /data/index.html; \
    trap 'rmdir /data/in-use; exit 0' TERM; \
    echo life >> /data/index.html; httpd -p 5000 -h /data; while :; do sleep 0.05; done";

fn app() -> AppId {
    AppId::random(&SystemRandom)
}

/// A volume of its own for each test; the engine may have those of others.
fn volume(subject: &Subject, app: AppId) -> (String, Container) {
    let name = format!("data-{app}");
    let mut container = subject.shell(LIVES);
    container.mounts = vec![Mount::Volume { name: name.clone(), target: "/data".into() }];
    (name, container)
}

fn service(container: Container, clients: impl IntoIterator<Item = AppId>) -> Workload {
    let service = Service { port: PORT, clients: clients.into_iter().collect() };
    Workload { service: Some(service), ..Subject::workload(container) }
}

/// The next version of a workload: same app, same process type.
fn next(workload: &Workload) -> Workload {
    let release = workload.release + 1;
    Workload { id: WorkloadId(format!("{}.v{release}.web", workload.app)), release, ..workload.clone() }
}

impl Subject {
    async fn known(&self, id: &WorkloadId) -> WorkloadStatus {
        self.status(id).await.expect("the workload is known")
    }

    async fn host_of(&self, id: &WorkloadId) -> String {
        self.known(id).await.address.expect("a service has an address at once")
    }

    async fn until_replaced(&self, id: &WorkloadId, old: &str) -> Instance {
        let is_new = |all: &[Instance]| all.len() == 1 && all[0].id != old && all[0].state == InstanceState::Up;
        self.until(id, "a new instance alone", is_new).await.remove(0)
    }

    /// The page that a one-off of `app` gets with the first thing it does.
    async fn fetch(&self, app: AppId, host: &str, port: u16) -> String {
        let oneoff = OneOff { app, ..Self::oneoff(self.shell(&get(host, port))) };
        text(self.run(&oneoff).await.output).await
    }
}

/// A command that prints the page of a server, or that there is none.
fn get(host: &str, port: u16) -> String {
    format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {host} {port} >/tmp/page 2>/dev/null; \
         test -s /tmp/page || echo out of reach; sed '1,/^\\r$/d' /tmp/page"
    )
}

pub(super) async fn a_volume_outlives_what_mounts_it(subject: Subject) {
    let app = app();
    let (name, container) = volume(&subject, app);
    let owner = OneOff { app, ..Subject::oneoff(Container { args: stat(), ..container.clone() }) };
    let uid = subject.container.uid;
    assert_eq!(text(subject.run(&owner).await.output).await, format!("{uid} {uid}\n"));
    subject.until_gone(&owner.id).await;

    let mut first = Workload { stop_grace: PATIENCE, ..Subject::workload(container) };
    subject.apply(&first).await;
    let old = subject.until_up(&first.id, 1).await.remove(0);
    subject.engine.restart(&old.id).await.expect("the restart is accepted");
    let new = subject.until_replaced(&first.id, &old.id).await;
    assert!(page(new.address.expect("an address")).await.ends_with("\r\n\r\nlife\nlife\n"));

    let refused = subject.engine.remove_volume(&name).await.expect_err("it is mounted");
    assert!(matches!(&refused, EngineError::InUse { volume, .. } if *volume == name), "{refused}");
    first.quantity = 0;
    subject.apply(&first).await;
    subject.until(&first.id, "no instances", <[Instance]>::is_empty).await;
    assert!(subject.engine.remove_volume(&name).await.is_err(), "a workload without instances still wants it");
    let second = Workload { quantity: 1, ..next(&first) };
    subject.delete(&first.id).await;
    subject.apply(&second).await;
    let up = subject.until_up(&second.id, 1).await.remove(0);
    assert!(page(up.address.expect("an address")).await.ends_with("\r\n\r\nlife\nlife\nlife\n"));
    subject.delete(&second.id).await;

    subject.engine.remove_volume(&name).await.expect("nothing mounts it");
    subject.engine.remove_volume(&name).await.expect("removing again is no error");
    assert!(subject.engine.remove_volume("../data").await.is_err(), "that is no name");
    let list = Container { args: vec!["/bin/ls".to_owned(), "/data".to_owned()], ..owner.container };
    let oneoff = Subject::oneoff(list);
    assert_eq!(text(subject.run(&oneoff).await.output).await, "", "a removed volume begins anew");
    subject.until_gone(&oneoff.id).await;
    subject.engine.remove_volume(&name).await.expect("nothing mounts it");
}

pub(super) async fn a_volume_has_a_size_and_can_be_copied_while_it_is_written(subject: Subject) {
    let app = app();
    let (name, mut container) = volume(&subject, app);
    let copy = format!("{name}-copy");
    let engine = &subject.engine;
    engine.make_volume(&name, 24 << 20).await.expect("made");
    engine.make_volume(&name, 24 << 20).await.expect("making it again is no error");
    let run = async |mounted: &str, script: &str| {
        let mut oneoff = OneOff { app, ..Subject::oneoff(subject.shell(script)) };
        oneoff.container.mounts = vec![Mount::Volume { name: mounted.to_owned(), target: PathBuf::from("/data") }];
        let output = text(subject.run(&oneoff).await.output).await;
        subject.until_gone(&oneoff.id).await;
        output
    };
    let fill = "dd if=/dev/zero of=/data/filler bs=64k 2>&1 | grep -o 'No space left on device'; echo $(($(stat -c %s /data/filler) >> 20))";
    let said = run(&name, fill).await;
    let (error, megabytes) = said.trim().split_once('\n').unwrap_or_else(|| panic!("{said:?}"));
    assert_eq!(error, "No space left on device");
    assert!((23..=26).contains(&megabytes.parse::<u64>().expect("a number")), "{megabytes}");

    // It is copied as it is at one moment.
    container.args = subject
        .shell("rm -f /data/filler; i=0; while :; do i=$((i + 1)); echo $i > /data/new; mv /data/new /data/count; done")
        .args;
    let mut workload = Subject::workload(container);
    workload.process_type = "worker".parse().expect("a process type");
    workload.health = crate::Health::uptime(Duration::from_millis(200));
    subject.apply(&workload).await;
    subject.until_up(&workload.id, 1).await;
    let grown = engine.make_volume(&name, 48 << 20).await;
    assert!(matches!(&grown, Ok(()) | Err(EngineError::InUse { .. })), "{grown:?}");
    engine.copy_volume(&name, &copy).await.expect("copied");
    let refused = engine.copy_volume(&copy, &name).await.expect_err("it is mounted");
    assert!(matches!(&refused, EngineError::InUse { volume, .. } if *volume == name), "{refused}");
    let then = run(&copy, "cat /data/count").await;
    let then: u64 = then.trim().parse().unwrap_or_else(|_| panic!("{then:?} is no number"));
    subject.delete(&workload.id).await;
    let later: u64 = run(&name, "cat /data/count").await.trim().parse().expect("a number");
    assert!(later > then && then > 0, "{later} after {then}");
    engine.make_volume(&name, 48 << 20).await.expect("nobody uses it");
    engine.make_volume(&name, 24 << 20).await.expect_err("it never shrinks");
    let megabytes: u64 = run(&name, "df -m /data | awk 'END { print $2 }'").await.trim().parse().expect("a number");
    assert!((44..=52).contains(&megabytes), "{megabytes}");

    engine.copy_volume(&copy, &name).await.expect("brought back");
    assert_eq!(run(&name, "cat /data/count").await.trim(), then.to_string());
    let archive: Vec<Bytes> = engine.volume_files(&name).await.expect("an archive").try_collect().await.expect("whole");
    let archive = archive.concat();
    let contains = |text: &str| archive.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(contains("./count") && contains(&format!("{then}\n")) && !contains("lost+found"));
    let listed = engine.volumes().await.expect("listed");
    let of_ours: Vec<_> = listed.iter().filter(|volume| volume.name.starts_with(&name)).collect();
    assert_eq!(of_ours.len(), 2);
    assert!(of_ours.iter().all(|volume| volume.used.is_some_and(|used| used > 0 && used < 100 << 20)), "{of_ours:?}");
    for name in [&name, &copy] {
        engine.remove_volume(name).await.expect("removed");
    }
    engine.copy_volume(&copy, &name).await.expect_err("there is none");
}

fn stat() -> Vec<String> {
    ["/bin/stat", "-c", "%u %g", "/data"].map(str::to_owned).to_vec()
}

pub(super) async fn a_service_has_one_address_and_one_instance(subject: Subject) {
    let (name, container) = volume(&subject, app());
    let mut first = Workload { stop_grace: PATIENCE, ..service(container, []) };
    subject.apply(&first).await;
    let host = subject.host_of(&first.id).await;
    let old = subject.until_up(&first.id, 1).await.remove(0);
    subject.engine.restart(&old.id).await.expect("the restart is accepted");
    subject.until_replaced(&first.id, &old.id).await;
    assert_eq!(subject.fetch(first.app, &host, PORT).await, "life\nlife\n");

    first.quantity = 0;
    subject.apply(&first).await;
    subject.until(&first.id, "no instances", <[Instance]>::is_empty).await;
    assert_eq!(subject.host_of(&first.id).await, host, "it is kept while nothing runs");
    assert!(subject.fetch(first.app, &host, PORT).await.contains("out of reach"));
    first.quantity = 2;
    subject.engine.apply(first.clone()).await.expect_err("two are too many");
    first.quantity = 1;
    subject.apply(&first).await;
    subject.until_up(&first.id, 1).await;

    let second = next(&first);
    subject.apply(&second).await;
    assert_eq!(subject.host_of(&second.id).await, host, "the next version takes it over");
    subject.delete(&first.id).await;
    subject.until_up(&second.id, 1).await;
    assert_eq!(subject.fetch(second.app, &host, PORT).await, "life\nlife\nlife\nlife\n", "never two together");

    let other = service(subject.shell(SERVER), []);
    subject.apply(&other).await;
    assert_ne!(subject.host_of(&other.id).await, host, "another service has another address");
    let moved = Workload { service: Some(Service { port: 1, clients: BTreeSet::new() }), ..other.clone() };
    let refused = subject.engine.apply(moved).await.expect_err("a port does not change");
    assert!(matches!(refused, EngineError::Immutable(_)), "{refused}");
    subject.delete(&other.id).await;
    subject.delete(&second.id).await;
    subject.engine.remove_volume(&name).await.expect("nothing mounts it");
}

pub(super) async fn a_service_is_reached_by_its_clients_only(subject: Subject) {
    let (client, stranger) = (app(), app());
    let with_more_ports = format!("httpd -p 7000 -h /tmp; {SERVER}");
    let mut workload = service(subject.shell(&with_more_ports), [client]);
    subject.apply(&workload).await;
    let host = subject.host_of(&workload.id).await;
    subject.until_up(&workload.id, 1).await;
    assert_eq!(subject.fetch(client, &host, PORT).await, "hello\n");
    assert_eq!(subject.fetch(workload.app, &host, PORT).await, "hello\n", "its own app always gets through");
    assert!(subject.fetch(stranger, &host, PORT).await.contains("out of reach"));
    let other_port = subject.fetch(client, &host, 7000).await;
    assert!(other_port.contains("out of reach"), "{other_port}");

    // An instance of a client: what it fetched first is the page that it shows.
    let fetching =
        format!("mkdir /tmp/www; ({}) >/tmp/www/index.html; exec httpd -f -p 5000 -h /tmp/www", get(&host, PORT));
    let instance = Workload { app: client, ..Subject::workload(subject.shell(&fetching)) };
    subject.apply(&instance).await;
    let up = subject.until_up(&instance.id, 1).await.remove(0);
    assert!(page(up.address.expect("an address")).await.ends_with("\r\n\r\nhello\n"));
    subject.delete(&instance.id).await;

    workload.service = Some(Service { port: PORT, clients: BTreeSet::from([stranger]) });
    subject.apply(&workload).await;
    assert!(subject.fetch(client, &host, PORT).await.contains("out of reach"), "no client any more");
    assert_eq!(subject.fetch(stranger, &host, PORT).await, "hello\n", "a client now");
    subject.delete(&workload.id).await;
}

pub(super) async fn a_former_client_loses_its_connections(subject: Subject) {
    let client = app();
    let mut workload = service(subject.shell("exec nc -ll -p 5000 -e cat"), [client]);
    subject.apply(&workload).await;
    let host = subject.host_of(&workload.id).await;
    subject.until_up(&workload.id, 1).await;
    let talk = subject.shell(&format!("exec nc {host} {PORT} 2>&1"));
    let mut running = subject.run(&OneOff { app: client, ..Subject::oneoff(talk) }).await;
    running.input.send(Input::Data("before\n".into())).await.expect("it takes input");
    assert_eq!(running.output.recv().await.as_deref(), Some(b"before\n".as_slice()));

    workload.service = Some(Service { port: PORT, clients: BTreeSet::new() });
    subject.apply(&workload).await;
    running.input.send(Input::Data("after\n".into())).await.expect("it takes input");
    let rest = text(running.output).await;
    assert!(!rest.contains("after"), "{rest}");
    assert_eq!(running.exit.await, Ok(Exit::Code(0)), "it ends with its connection");
    subject.delete(&workload.id).await;
}
