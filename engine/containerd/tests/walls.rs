//! What keeps instances apart from the machine and from each other, seen from the machine.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use engine::{Engine, OneOff, OneOffId};
use model::Egress;

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

/// Another machine, as it were: a network namespace with two addresses, one public and one not, where something listens on two ports.
struct Outside {
    name: String,
    public: String,
    private: String,
    servers: Vec<Child>,
}

impl Outside {
    fn beside(machine: &Machine) -> Self {
        let number = fs::read_to_string(machine.path().join("number")).expect("a number");
        let (first, second) = number.split_once('.').expect("two numbers");
        let first: u8 = first.parse().expect("a number");
        let name = format!("out-{first}-{second}");
        let (public, private) = (format!("203.{first}.{second}"), format!("172.{}.{second}", 16 + first % 16));
        let (here, there) = (format!("o{first}-{second}"), format!("p{first}-{second}"));
        for line in [
            format!("netns add {name}"),
            format!("link add {here} type veth peer name {there} netns {name}"),
            format!("addr add {public}.1/30 dev {here}"),
            format!("addr add {private}.1/30 dev {here}"),
            format!("link set {here} up"),
            format!("-n {name} addr add {public}.2/30 dev {there}"),
            format!("-n {name} addr add {private}.2/30 dev {there}"),
            format!("-n {name} link set {there} up"),
        ] {
            let done = Command::new("ip").args(line.split(' ')).status().expect("ip is installed");
            assert!(done.success(), "ip {line}");
        }
        let folder = machine.path().join("scratch");
        let serve = |port: &str| {
            let mut server = Command::new("ip");
            server.args(["netns", "exec", &name, "python3", "-m", "http.server", port]).current_dir(&folder);
            server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("python3 is installed")
        };
        let servers = vec![serve("443"), serve("8080")];
        Self { public: format!("{public}.2"), private: format!("{private}.2"), name, servers }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Which of these an instance reaches with the first thing that it does.
async fn reached(machine: &Machine, app: model::AppId, places: &[(&str, String)], is_build: bool) -> Vec<String> {
    let look = |(name, place): &(&str, String)| {
        format!("nc -w 3 {} </dev/null >/dev/null 2>&1 && echo {name}", place.replace(':', " "))
    };
    let tries = places.iter().map(look).collect::<Vec<_>>().join("; ");
    let id = OneOffId(format!("look-{}", app.to_string().split('-').next().unwrap_or_default()));
    let oneoff = OneOff {
        id: id.clone(),
        app,
        container: shell(&format!("{tries}; true")),
        tty: None,
        time_limit: std::time::Duration::from_secs(60),
        stop_grace: std::time::Duration::ZERO,
        is_build,
        log: None,
    };
    let mut running = machine.client().run(oneoff).await.expect("started");
    let mut text = Vec::new();
    while let Some(bytes) = running.output.recv().await {
        text.extend_from_slice(&bytes);
    }
    machine.until("it is gone", async || machine.client().oneoffs().await.is_ok_and(|all| !all.contains(&id))).await;
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_says_what_an_app_reaches_outside_from_its_first_packet_and_after_a_new_host_role() {
    let mut machine = Machine::boot().await;
    let outside = Outside::beside(&machine);
    let (public, private) = (&outside.public, &outside.private);
    let places = [
        ("public", format!("{public}:443")),
        ("other-port", format!("{public}:8080")),
        ("private", format!("{private}:443")),
    ];
    machine
        .until("the outside listens", async || {
            tokio::net::TcpStream::connect(&places[0].1).await.is_ok()
                && tokio::net::TcpStream::connect(&places[1].1).await.is_ok()
        })
        .await;
    let (app, other) = (web(1).app, web(1).app);
    let set = async |machine: &Machine, text: &str| {
        let policy: Egress = serde_json::from_str(text).expect("a policy");
        machine.client().set_egress(app, Some(policy)).await.expect("set");
    };
    assert_eq!(reached(&machine, app, &places, false).await, ["public", "other-port", "private"], "as any app");
    for (policy, expected) in [
        (r#"{"default": "deny"}"#.to_owned(), &[][..]),
        (r#"{"default": "deny", "rules": [{"to": "public", "ports": "443,9000-9999"}]}"#.to_owned(), &["public"]),
        (format!(r#"{{"default": "deny", "rules": [{{"to": "{private}"}}]}}"#), &["private"]),
        (
            r#"{"default": "allow", "rules": [{"to": "private"}, {"to": "public", "ports": "8080"}]}"#.to_owned(),
            &["public"],
        ),
        (r#"{"default": "allow", "rules": [{"to": "0.0.0.0/0", "ports": "443"}]}"#.to_owned(), &["other-port"]),
    ] {
        set(&machine, &policy).await;
        assert_eq!(reached(&machine, app, &places, false).await, expected, "{policy}");
    }
    set(&machine, r#"{"default": "deny"}"#).await;
    assert_eq!(reached(&machine, other, &places, false).await.len(), 3, "others are not concerned");
    assert_eq!(reached(&machine, app, &places, true).await.len(), 3, "nor are builds");

    machine.kill_host();
    machine.flush_firewall();
    machine.start_host();
    machine.until_answering().await;
    assert_eq!(reached(&machine, app, &places, false).await, [""; 0], "it is known to the next life");
    machine.client().set_egress(app, None).await.expect("cleared");
    assert_eq!(reached(&machine, app, &places, false).await.len(), 3);
    assert_eq!(machine.client().egress().await.expect("policies").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_holds_at_once_for_what_runs() {
    let machine = Machine::boot().await;
    let outside = Outside::beside(&machine);
    let place = format!("{}:443", outside.public);
    machine.until("the outside listens", async || tokio::net::TcpStream::connect(&place).await.is_ok()).await;
    let mut workload = web(1);
    workload.container = shell(&format!(
        "httpd -p 5000 -h /tmp; while :; do nc -w 2 {} 443 </dev/null >/dev/null 2>&1 && echo open || echo shut; sleep 0.1; done",
        outside.public
    ));
    let app = workload.app;
    machine.client().apply(workload).await.expect("applied");
    let last = |machine: &Machine| machine.log().lines().last().unwrap_or_default().to_owned();
    machine.until("it is open", async || last(&machine).ends_with(": open")).await;
    let policy = Egress { default: model::Verdict::Deny, rules: Vec::new() };
    machine.client().set_egress(app, Some(policy)).await.expect("set");
    machine.until("it is shut", async || last(&machine).ends_with(": shut")).await;
    machine.client().set_egress(app, None).await.expect("cleared");
    machine.until("it is open again", async || last(&machine).ends_with(": open")).await;
    delete_all(&machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_more_connections_to_the_outside_than_its_share() {
    let machine = Machine::boot().await;
    let outside = Outside::beside(&machine);
    let place = format!("{}:443", outside.public);
    machine.until("the outside listens", async || tokio::net::TcpStream::connect(&place).await.is_ok()).await;
    let mut workload = web(1);
    // Each holds its connection for as long as it can; the machine of this test lets one have eight.
    workload.container = shell(&format!(
        "httpd -p 5000 -h /tmp; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 | nc {0} 443 >/dev/null 2>&1 & done; sleep 2; \
         nc -w 2 {0} 443 </dev/null >/dev/null 2>&1 && echo more || echo no more; while :; do sleep 0.1; done",
        outside.public
    ));
    machine.client().apply(workload.clone()).await.expect("applied");
    machine.until("it is told so", async || machine.log().contains("app[web.1]: no more")).await;
    assert!(!machine.log().contains("app[web.1]: more"), "{}", machine.log());
    let other = reached(&machine, web(1).app, &[("outside", place)], false).await;
    assert_eq!(other, ["outside"], "others have their own share");
    delete_all(&machine).await;
}
