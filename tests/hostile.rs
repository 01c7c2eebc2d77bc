//! An app that does its worst: each trick of its own, while a neighbour is used without pause and loses nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::load::{Load, Seen};
use crate::platform::{App, Ran, shared};

/// A hostile app, and one beside it.
struct Neighbours {
    hostile: App<'static>,
    neighbour: App<'static>,
}

impl Neighbours {
    fn new() -> Self {
        let (hostile, neighbour) = (shared().app("hostile-app"), shared().app("probe-app"));
        hostile.push().expect_ok();
        neighbour.push().expect_ok();
        Self { hostile, neighbour }
    }

    /// Plays a trick in a one-off of the hostile app. The neighbour loses no request and keeps its instance, and the machine is after it
    /// what it was before.
    fn play(&self, args: &[&str]) -> Ran {
        let (machine, dyno) = (machine(), self.neighbour.json(&["ps"])[0]["id"].clone());
        let command = format!("python3 hostile.py {}", args.join(" "));
        let mut ran = None;
        let seen = Load::around(&self.neighbour, || ran = Some(self.hostile.cli(&["run", &command])));
        let Seen { answered, failure, .. } = seen;
        assert_eq!(failure, None, "of {answered} requests to the neighbour, during {args:?}");
        assert_eq!(self.neighbour.json(&["ps"])[0]["id"], dyno, "the neighbour was not restarted");
        assert_eq!(self.hostile.get("/").body, "harmless", "nor do its own other instances notice");
        assert_eq!(self::machine(), machine, "the machine is what it was");
        ran.expect("it ran")
    }

    /// What a trick says that comes to its end.
    fn said(&self, args: &[&str]) -> Value {
        let ran = self.play(args).expect_ok();
        let line = ran.stdout.lines().rfind(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{}", ran.text));
        serde_json::from_str(line).expect("JSON")
    }
}

/// What of this machine no instance may change: settings of the kernel, what is mounted where the system lives, devices, users, rules of
/// firewalls that are not a platform's.
fn machine() -> BTreeMap<String, String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let settings =
        ["kernel/hostname", "kernel/core_pattern", "kernel/modprobe", "net/ipv4/ip_forward", "vm/overcommit_memory"];
    let mut found: BTreeMap<String, String> =
        settings.iter().map(|name| ((*name).to_owned(), read(&format!("/proc/sys/{name}")))).collect();
    found.insert("users".to_owned(), read("/etc/passwd") + &read("/etc/shadow"));
    let of_system = |line: &&str| {
        let place = line.split(' ').nth(1).unwrap_or_default();
        // Where tests and platforms, of other programs too, mount what is theirs.
        !["/tmp", "/run", "/var"].iter().any(|folder| place.starts_with(folder))
    };
    found.insert("mounts".to_owned(), read("/proc/mounts").lines().filter(of_system).collect::<Vec<_>>().join("\n"));
    let devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut devices: Vec<String> = devices.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    // Each limited disk has one of these.
    devices.retain(|name| !name.starts_with("loop"));
    devices.sort();
    found.insert("devices".to_owned(), devices.join(" "));
    let tables = std::process::Command::new("nft").args(["list", "tables"]).output().expect("nft is installed");
    let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
    let of_others = |line: &&str| !line.contains("inet platform_") && !line.contains("inet test_");
    found.insert("firewalls".to_owned(), tables.lines().filter(of_others).collect::<Vec<_>>().join("\n"));
    let root = |tree: &str| {
        read(&format!("/sys/fs/cgroup/{tree}/memory.limit_in_bytes"))
            + &read(&format!("/sys/fs/cgroup/{tree}/memory.max"))
    };
    found.insert("limits".to_owned(), root("memory") + &root(""));
    found
}

#[test]
fn fork_bombs_memory_bombs_and_disk_fillers_hurt_themselves_alone() {
    let app = Neighbours::new();
    let forks = app.said(&["forks"]);
    assert_eq!(forks["error"], "EAGAIN", "{forks}");
    assert!(forks["made"].as_u64().is_some_and(|made| made < 256), "{forks}");
    let memory = app.play(&["memory"]);
    assert_eq!(memory.code, Some(137), "{}", memory.text);
    let disk = app.said(&["disk"]);
    assert_eq!(disk, json!({ "/tmp": "ENOSPC", "/app": "ENOSPC", "/dev/shm": "ENOSPC", "files": "ENOSPC" }));
}

#[test]
fn no_port_scan_finds_anything_and_nobody_tells_a_machines_secrets() {
    let app = Neighbours::new();
    let platform = shared();
    // Whoever listens on this machine, under all its addresses.
    let everywhere = std::net::TcpListener::bind("0.0.0.0:0").expect("a listener");
    let SocketAddr::V4(here) = everywhere.local_addr().expect("an address") else { panic!("it has IPv4") };
    let ports = [here.port(), platform.address().port(), platform.ssh_port()].map(|port| port.to_string());
    let way = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    way.connect("198.51.100.1:1").expect("this machine has a way out");
    let machine = way.local_addr().expect("an address").ip().to_string();
    let said = app.said(&["network", &machine, &ports[0], &ports[1], &ports[2]]);
    assert_eq!(said["found"], json!([]), "{said}");
    assert!(said["own"].as_str().is_some_and(|own| own.starts_with("10.")), "{said}");
}

#[test]
fn neither_links_nor_devices_nor_files_of_the_kernel_lead_out() {
    let app = Neighbours::new();
    let files = app.said(&["files"]);
    assert_eq!(files["got"], json!([]), "{files}");
    let devices = app.said(&["devices"]);
    assert_eq!((&devices["got"], &devices["more"]), (&json!([]), &json!([])), "{devices}");
}

#[test]
fn nobody_is_traced_and_nothing_becomes_root() {
    let app = Neighbours::new();
    let trace = app.said(&["trace"]);
    assert_eq!((&trace["attached"], &trace["got"]), (&json!([]), &json!([])), "{trace}");
    assert!(trace["seen"].as_u64().is_some_and(|seen| seen < 10), "only its own processes: {trace}");
    let calls = app.said(&["calls"]);
    assert_eq!(calls["allowed"], json!([]), "{calls}");
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(calls["status"][name], "0000000000000000", "{name}: {calls}");
    }
    assert_eq!((&calls["status"]["NoNewPrivs"], &calls["status"]["Seccomp"]), (&json!("1"), &json!("2")));
    let privileges = app.said(&["privileges"]);
    assert_eq!(privileges["as"], privileges["uid"].to_string(), "set-user-id makes nobody else: {privileges}");
    assert_eq!(privileges["became"], false, "{privileges}");
}

#[test]
fn the_network_is_neither_spoken_to_raw_nor_changed_nor_filled_up() {
    let app = Neighbours::new();
    let raw = app.said(&["raw"]);
    assert_eq!(raw["got"], json!([]), "{raw}");
    // Addresses that nobody has: whoever gets out waits for an answer in vain.
    let flood = app.said(&["flood", "198.51.100.9"]);
    let refused = flood["refused"].as_u64().unwrap_or_default();
    assert!(refused > 7000, "beyond its number of connections it is refused: {flood}");
}
