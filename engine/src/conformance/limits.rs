//! What a container may use, and that its neighbours do not notice.

use std::time::Duration;

use model::Exit;

use super::{PORT, SERVER, Subject, page};
use crate::{Health, InstanceState};

pub(super) async fn memory_is_limited(subject: Subject) {
    let mut container = subject.shell("x=0123456789abcdef; while :; do x=$x$x; done");
    container.limits.memory_bytes = 32 << 20;
    let (_, exit) = subject.output(container).await;
    assert_eq!(exit, Exit::OutOfMemory);
}

pub(super) async fn processes_are_limited(subject: Subject) {
    let mut container = subject.shell("for i in $(seq 1 100); do sleep 1000 & done; echo all");
    container.limits.pids = 20;
    let (output, _) = subject.output(container).await;
    assert!(output.contains("fork") && !output.contains("all"), "{output:?}");
}

pub(super) async fn open_files_are_limited(subject: Subject) {
    let mut container = subject.shell("ulimit -n; ulimit -Hn; ulimit -n 101 2>/dev/null || echo no more");
    container.limits.open_files = Some(100);
    assert_eq!(subject.output(container).await.0, "100\n100\nno more\n");
}

/// Fills its disk with one file, says how much that took, and makes room again.
const FILL: &str = "dd if=/dev/zero of=/tmp/filler bs=64k 2>&1 | grep -o 'No space left on device'; \
    echo $(($(stat -c %s /tmp/filler) >> 20)); \
    rm /tmp/filler; echo again > /tmp/again && cat /tmp/again";

pub(super) async fn what_a_container_writes_is_limited(subject: Subject) {
    let neighbour = Subject::workload(subject.shell(SERVER));
    subject.apply(&neighbour).await;
    let address = subject.until_up(&neighbour.id, 1).await[0].address.expect("an address");
    let mut container = subject.shell(FILL);
    container.limits.disk_bytes = Some(24 << 20);
    let (output, exit) = subject.output(container.clone()).await;
    let lines: Vec<&str> = output.lines().collect();
    let [full, megabytes, again] = lines[..] else { panic!("{output:?}") };
    assert_eq!((full, again, exit), ("No space left on device", "again", Exit::Code(0)));
    // What else there is takes a little.
    assert!((23..=26).contains(&megabytes.parse::<u64>().expect("a number")), "{output}");
    assert!(page(address).await.ends_with("hello\n"), "a neighbour has not noticed");

    // An instance has it, too.
    container.args[2] = format!("dd if=/dev/zero of=/tmp/filler bs=64k; {SERVER}");
    let mut workload = Subject::workload(container);
    workload.health = Health::listening(PORT, Duration::from_secs(5));
    subject.apply(&workload).await;
    let crashed = |instance: &crate::Instance| matches!(instance.state, InstanceState::Crashed { .. });
    subject.until(&workload.id, "its disk is full, so it cannot serve", |all| all.iter().any(crashed)).await;
    subject.delete(&workload.id).await;
    subject.delete(&neighbour.id).await;
}

pub(super) async fn how_many_files_a_container_has_is_limited(subject: Subject) {
    let script = "i=0; while true > /tmp/$i; do i=$((i + 1)); done 2>&1 | grep -o 'No space left on device'; \
        ls /tmp | wc -l; mkdir /tmp/folder 2>/dev/null || echo no folder either; \
        rm /tmp/1; true > /tmp/again && echo again";
    let mut container = subject.shell(script);
    (container.limits.disk_bytes, container.limits.files) = (Some(64 << 20), Some(2000));
    let (output, _) = subject.output(container).await;
    let lines: Vec<&str> = output.lines().collect();
    let [full, files, folder, again] = lines[..] else { panic!("{output:?}") };
    assert_eq!((full, folder, again), ("No space left on device", "no folder either", "again"));
    assert!((1900..=3100).contains(&files.parse::<u64>().expect("a number")), "{output}");
}
