//! What keeps apps apart from each other and from the machine.

use std::collections::{BTreeMap, BTreeSet};

use crate::faults::pid;
use crate::load::{Load, Seen};
use crate::platform::{App, shared};

/// Where each TCP socket of this machine listens, by its inode, as `ss` does not tell: `/proc/net/tcp` (proc(5)).
fn listening() -> BTreeMap<String, String> {
    let text = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default());
    let fields = text.iter().flat_map(|text| text.lines()).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listens = |fields: &Vec<&str>| fields.get(3) == Some(&"0A");
    fields.filter(listens).map(|fields| (fields[9].to_owned(), fields[1].to_owned())).collect()
}

/// Every process that the platform's supervisor started, or those did, or that was told of a file of the platform, as shims are.
fn processes_of(supervisor: i32, run: &str) -> BTreeSet<i32> {
    let all = std::fs::read_dir("/proc").expect("processes").flatten();
    let all: Vec<i32> = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let read = |pid: i32, file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let is_told = |pid: &i32| String::from_utf8_lossy(&read(*pid, "cmdline")).contains(run);
    let mut found: BTreeSet<i32> = all.iter().copied().filter(is_told).chain([supervisor]).collect();
    let parent = |pid: i32| -> Option<i32> {
        let stat = String::from_utf8_lossy(&read(pid, "stat")).into_owned();
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let parents: Vec<(i32, i32)> = all.iter().filter_map(|pid| Some((*pid, parent(*pid)?))).collect();
    loop {
        let before = found.len();
        let children = parents.iter().filter(|(_, parent)| found.contains(parent)).map(|one| one.0);
        found.extend(children.collect::<Vec<_>>());
        if found.len() == before {
            return found;
        }
    }
}

#[test]
fn nothing_listens_but_the_router() {
    let platform = shared();
    let app = platform.app("probe-app");
    app.cli(&["addons:create", "redis"]).expect_ok();
    app.push().expect_ok();
    crate::until("it has its add-on", || app.get("/env").body.contains("REDIS_URL"));
    let router = pid(platform, "router").expect("a router");
    let supervisor = pid(platform, "up").expect("a supervisor");
    let sockets = listening();
    let listeners = |pid: &i32| -> Vec<String> {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let links = files.filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.to_str()?.to_owned()));
        let inodes = links.filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()));
        inodes.filter_map(|inode| sockets.get(&inode).cloned()).collect()
    };
    assert!(!listeners(&router).is_empty(), "the router listens");
    let processes = processes_of(supervisor, &platform.runtime_dir().display().to_string());
    assert!(processes.len() > 5, "roles, containerd, shims: {processes:?}");
    // Those of containers are none of this machine's network.
    let others: Vec<(i32, Vec<String>)> = processes
        .iter()
        .filter(|pid| **pid != router)
        .map(|pid| (*pid, listeners(pid)))
        .filter(|(_, listeners)| !listeners.is_empty())
        .collect();
    assert_eq!(others, [], "nothing but the router takes connections, not even from this machine");
    assert_eq!(platform.json(&["status"])["public_listeners"], serde_json::json!([]));
}

#[test]
fn an_app_reaches_outside_only_what_its_policy_says() {
    let app = shared().app("probe-app");
    app.cli(&["egress:set", "--deny"]).expect_ok().expect_text(&["refused", "yes"]);
    app.push().expect_ok();
    // An address that nobody has: whoever gets out waits for an answer in vain.
    let refused = "refused: [Errno 111] Connection refused";
    assert_eq!(
        app.get("/connect?198.51.100.7:443").body,
        refused,
        "from the first release on, and builds are not held to it"
    );
    app.cli(&["egress:set", "--deny", "--except", "198.51.100.0/24:80,443"]).expect_ok();
    assert_ne!(app.get("/connect?198.51.100.7:443").body, refused, "at once");
    assert_eq!(app.get("/connect?198.51.100.7:444").body, refused);
    let policy = app.json(&["egress"]);
    let rules = serde_json::json!([{ "to": "198.51.100.0/24", "ports": "80,443" }]);
    assert_eq!((&policy["default"], &policy["in_force"], &policy["rules"]), (&"deny".into(), &true.into(), &rules));
    app.cli(&["egress:set", "--deny", "--except", "example.com"]).expect_refused(&["TO[:PORTS]", "203.0.113.0/24"]);
    app.cli(&["egress:clear"]).expect_ok();
    assert_ne!(app.get("/connect?198.51.100.7:444").body, refused);
}

#[test]
fn an_app_reaches_another_one_only_over_a_link_and_loses_nothing_when_that_is_deployed() {
    let platform = shared();
    let (shop, stock) = (platform.app("probe-app"), platform.app("probe-app"));
    stock.push().expect_ok();
    shop.push().expect_ok();
    shop.cli(&["links:add", &stock.name, "--as", "stock"]).expect_ok();
    let has_url = |app: &App<'_>| app.get("/env").body.contains("STOCK_URL");
    crate::until("it is told where", || has_url(&shop));
    let link = shop.json(&["links"])[0].clone();
    let url = link["url"].as_str().expect("a URL").to_owned();
    assert_eq!(shop.json(&["config"])["STOCK_URL"], link["url"]);
    // A dyno of the one asks a dyno of the other, again and again, while that is replaced.
    let ask = format!(
        "import urllib.request as r; seen = {{}}\n\
         while not seen.get('version 2 web.1', 0) > 20:\n body = r.urlopen('{url}/').read().decode(); seen[body] = seen.get(body, 0) + 1\n\
         print('all well', sorted(seen))"
    );
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| shop.cli(&["run", &format!("python3 -c \"{ask}\"")]));
        stock.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
        stock.commit("second");
        stock.push().expect_ok();
        asking.join().expect("no panic")
    });
    asked.expect_ok().expect_text(&["all well", "version 2 web.1"]);

    let place = url.trim_start_matches("http://").to_owned();
    assert_eq!(shop.get(&format!("/connect?{place}")).body, "connected");
    let stranger = platform.app("probe-app");
    stranger.push().expect_ok();
    let is_shut = |app: &App<'_>| app.get(&format!("/connect?{place}")).body.starts_with("refused");
    assert!(is_shut(&stranger) && is_shut(&stock), "a link is one app's, and goes one way");
    let Seen { failure, .. } = Load::around(&stock, || {
        shop.cli(&["links:remove", &stock.name]).expect_ok();
        crate::until("nothing of it is left", || !has_url(&shop) && is_shut(&shop));
    });
    assert_eq!(failure, None, "others do not notice");
}
