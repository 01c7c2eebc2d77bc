//! What keeps instances apart from the machine and from each other, seen from the machine.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use engine::Engine;

use crate::faults::{delete_all, shell, up, web};
use crate::machine::Machine;

/// The first process of an instance.
fn pid(machine: &Machine, id: &str) -> u64 {
    let running = fs::read(machine.instances().join(id).join("running.json")).expect("a pid");
    let running: serde_json::Value = serde_json::from_slice(&running).expect("JSON");
    running["pid"].as_u64().expect("a number")
}

/// Which ids outside the ids inside are: each the first inside, the first outside, and how many.
fn ids(machine: &Machine, id: &str, file: &str) -> Vec<Vec<u64>> {
    let map = fs::read_to_string(format!("/proc/{}/{file}", pid(machine, id))).expect("a map");
    let numbers = |line: &str| line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    map.lines().map(numbers).collect()
}

/// The kernel's number of a namespace.
fn namespace(pid: &str, kind: &str) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).expect("a namespace").ino()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_instance_has_namespaces_and_users_of_its_own_also_after_a_new_host_role() {
    let mut machine = Machine::boot().await;
    let mut workload = web(2);
    workload.container = shell("httpd -p 5000 -h /tmp; while :; do sleep 0.1; done");
    machine.client().apply(workload.clone()).await.expect("applied");
    machine.until("two instances", async || up(&machine).await.len() == 2).await;
    machine.kill_host();
    machine.start_host();
    machine.until_answering().await;
    machine.client().scale(&workload.id, 3).await.expect("scaled");
    machine.until("three instances", async || up(&machine).await.len() == 3).await;

    let instances: Vec<String> = up(&machine).await.into_iter().map(|one| one.0).collect();
    for kind in ["user", "pid", "mnt", "ipc", "uts", "net", "cgroup"] {
        let of_instances = instances.iter().map(|id| namespace(&pid(&machine, id).to_string(), kind));
        let all: BTreeSet<u64> = of_instances.chain([namespace("self", kind)]).collect();
        assert_eq!(all.len(), 4, "each has its own {kind} namespace, and the machine, too");
    }
    let uid = u64::from(workload.container.uid);
    let mut roots = BTreeSet::new();
    for id in &instances {
        let users = ids(&machine, id, "uid_map");
        assert_eq!(users, ids(&machine, id, "gid_map"));
        assert_eq!(users[1], [uid, uid, 1], "its files are its own, inside and outside");
        assert_eq!((users[0][0], users[0][2], users.len()), (0, 65_536, 2));
        assert!((1 << 29..1 << 30).contains(&users[0][1]), "nobody is {}", users[0][1]);
        roots.insert(users[0][1]);
    }
    assert_eq!(roots.len(), 3, "none has a user of another");
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_leaves_its_users_to_the_next() {
    let machine = Machine::boot().await;
    let workload = web(1);
    let first_range = async || -> u64 {
        machine.client().apply(workload.clone()).await.expect("applied");
        machine.until("an instance", async || up(&machine).await.len() == 1).await;
        let range = ids(&machine, &up(&machine).await[0].0, "uid_map")[0][1];
        machine.client().delete(&workload.id).await.expect("deleted");
        machine.until("nothing is left", async || machine.leftovers().is_empty()).await;
        range
    };
    assert_eq!(first_range().await, first_range().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_has_its_place_also_where_the_image_lets_nobody_make_one() {
    let machine = Machine::boot().await;
    let mut workload = web(1);
    workload.container =
        shell("echo kept > /app/some/deep/place/file && exec httpd -f -p 5000 -h /app/some/deep/place");
    workload.container.mounts =
        vec![engine::Mount::Volume { name: "data".to_owned(), target: "/app/some/deep/place".into() }];
    machine.client().apply(workload.clone()).await.expect("applied");
    machine.until("an instance", async || up(&machine).await.len() == 1).await;
    let file = machine.settings().home.join("volumes/data/file");
    assert_eq!(fs::read_to_string(&file).expect("a file"), "kept\n");
    assert_eq!(fs::metadata(&file).expect("it is there").uid(), workload.container.uid);
    delete_all(&machine).await;
}
