//! Apps that are built by their Dockerfile.

use std::net::TcpListener;
use std::path::Path;
use std::process::Child;

use crate::images::{Folder, busybox};
use crate::platform::{App, Platform, authority, shared};
use crate::registry::Registry;
use crate::until;

/// Serves `/www`.
const SERVE: &str = "CMD [\"busybox\", \"httpd\", \"-f\", \"-p\", \"$PORT\", \"-h\", \"/www\"]\n";
/// Nothing but a shell.
const BASE: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nRUN busybox mkdir /www && echo up > /www/index.html\n";

/// An app with a Dockerfile that `heroku.yml` names.
fn app<'a>(platform: &'a Platform, dockerfile: &str) -> App<'a> {
    let app = platform.app("probe-app");
    std::fs::copy(busybox(), app.folder.join("busybox")).expect("copied");
    app.write("heroku.yml", "build:\n  docker:\n    web: Dockerfile\n");
    change(&app, dockerfile);
    app
}

fn change(app: &App<'_>, dockerfile: &str) {
    app.write("Dockerfile", &format!("{dockerfile}{SERVE}"));
    app.commit("a Dockerfile");
}

#[test]
fn a_dockerfile_is_built_by_root_of_nobody_and_its_steps_are_kept() {
    let app = shared().app("probe-app");
    std::fs::copy(busybox(), app.folder.join("busybox")).expect("copied");
    app.write(
        "Dockerfile",
        "FROM scratch\nARG WHAT=nothing\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n\
         RUN busybox mkdir /www && echo made with $WHAT > /www/index.html && busybox chown 33:33 /www/index.html && busybox id\n\
         CMD [\"busybox\", \"httpd\", \"-f\", \"-p\", \"$PORT\", \"-h\", \"/www\"]\n",
    );
    app.write(
        "heroku.yml",
        "build:\n  docker:\n    web: Dockerfile\n  config:\n    WHAT: care\nrelease:\n  command: busybox id -u\n",
    );
    app.commit("a Dockerfile");
    let push = app.push().expect_ok();
    push.expect_text(&["uid=0", "Used ", "Kept for the next build: ", "Process types: release, web"]);
    assert_eq!(app.get("/").body, "made with care\n");
    app.git(&["commit", "-q", "--allow-empty", "-m", "again"]).expect_ok();
    app.push().expect_ok().expect_text(&["cache hit", "is that of the last release"]);
    app.edit("Dockerfile", "busybox id\n", "busybox id && exit 3\n");
    app.commit("a mistake");
    app.push().expect_refused(&["cache miss because the step, or", "exit 3", "The Dockerfile could not be built"]);
    assert_eq!(app.get("/").body, "made with care\n");
}

#[test]
fn steps_and_base_images_trust_the_machines_authorities_and_the_image_knows_nothing_of_it() {
    let registry = Registry::elsewhere(authority());
    let app = shared().app("probe-app");
    let folder = Folder::new(&app);
    folder.image("from afar");
    let to = format!("docker://{}/base:v1", registry.address);
    let copy = shared().run("skopeo", |skopeo| {
        skopeo.args(["copy", "--quiet", "oci:layout:v1", &to]).current_dir(folder.path());
    });
    copy.expect_ok();
    app.write("heroku.yml", "build:\n  docker:\n    web: Dockerfile\n");
    let step = "for file in $SSL_CERT_FILE $PIP_CERT $NODE_EXTRA_CA_CERTS; do busybox grep -q 'BEGIN CERT' $file || exit 9; done";
    change(&app, &format!("FROM {}/base:v1\nUSER 0\nRUN {step}\n", registry.address));
    app.push().expect_ok();
    assert_eq!(app.get("/").body, "from afar\n");
    let left = "busybox env; ls /dev/platform";
    let left = app.cli(&["run", left]).expect_refused(&["/dev/platform: No such file"]);
    assert!(!left.text.contains("CERT"), "{}", left.text);
}

#[test]
fn a_hostile_dockerfile_reaches_nothing_of_the_machine() {
    let platform = shared();
    // On every address that the machine has.
    let service = TcpListener::bind("0.0.0.0:0").expect("a port");
    let machine = format!(
        "busybox nc -w 1 $(busybox ip route | busybox awk '/default/ {{print $3}}') {} </dev/null",
        service.local_addr().expect("an address").port()
    );
    // Each of these would be a way out. The container may do what it likes in its own namespaces.
    let ways = [
        "busybox mknod /disk b 254 0",
        "busybox mount -t tmpfs none /mnt",
        "busybox unshare -r -m busybox mount -t sysfs sysfs /sys",
        "echo c > /proc/sysrq-trigger",
        "echo 1 > /proc/sys/kernel/panic",
        "echo -1 > /sys/fs/cgroup/memory/memory.limit_in_bytes",
        "echo max > /sys/fs/cgroup/memory.max",
        "busybox mkdir /sys/fs/cgroup/out || busybox mkdir /sys/fs/cgroup/memory/out",
        "busybox dmesg",
        "busybox nsenter -t 1 -m /bin/true",
        "busybox ls /proc/1/root/var/lib/dpkg",
        "busybox ip link set eth0 down",
        "busybox nc -w 1 169.254.169.254 80 </dev/null",
        &machine,
    ];
    let tries = ways.iter().enumerate();
    let tries = tries.map(|(number, way)| format!("({way}) >/dev/null 2>&1 && echo way $((100 + {number})); "));
    let control = "busybox httpd -p 8081; busybox nc -w 1 127.0.0.1 8081 </dev/null && echo control $((100 + 1))";
    let links = "busybox ln -s /etc/shadow /www/shadow; busybox ln -s / /www/root; busybox ln -sfn /nowhere /mnt; busybox chmod 6755 /bin/busybox; \
                 busybox rm -rf /etc; busybox ln -s ../../../../../../etc /etc";
    let app = app(platform, &format!("{BASE}RUN {}{control}\nRUN {links}\n", tries.collect::<String>()));
    let push = app.push().expect_ok().expect_text(&["control 101"]);
    assert!(!push.text.contains("way 1"), "{}", push.text);
    assert_eq!(app.get("/").body, "up\n");
    assert_ne!(app.get("/shadow").status, 200);
    assert_eq!(app.get("/root/etc/shadow").status, 404);
    app.cli(&["run", "busybox stat -c %a,%U /bin/busybox"]).expect_ok().expect_text(&["755"]);
}

#[test]
fn a_dockerfile_that_takes_too_much_or_is_cancelled_ends_and_leaves_nothing_behind() {
    let platform = Platform::start(&[("PLATFORM_BUILD_MEMORY", "256MiB"), ("PLATFORM_BUILD_DISK", "300MiB")]);
    let app = app(&platform, BASE);
    app.push().expect_ok();
    change(&app, &format!("{BASE}RUN x=x; while :; do x=$x$x; done\n"));
    app.push().expect_refused(&["Used 0.", "used more than 256 MiB of memory", "raise `build_memory`"]);

    change(&app, &format!("{BASE}RUN echo waiting; while :; do busybox sleep 1; done\n"));
    let push = app.start_git(&["push", "platform", "main"]);
    let build = running(&app);
    until("the step runs", || printed(&platform, &build).lines().any(|line| line == "waiting"));
    app.cli(&["builds:cancel", &build]).expect_ok();
    let said = output(push);
    assert!(said.contains("The build was cancelled"), "{said}");

    // What was done before is done, however the builds ended.
    change(&app, &format!("{BASE}RUN while :; do busybox head -c 10000000 /dev/zero >> /big; done\n"));
    let full = app.push().expect_refused(&["wrote more than 300 MiB", "raise `build_disk`"]);
    assert_eq!(full.text.matches("cache hit").count(), 3, "{}", full.text);
    assert_eq!(app.get("/").body, "up\n");
    let home = platform.home().to_owned();
    until("nothing is left", || left(&home) == [] as [String; 0]);
}

#[test]
fn what_a_dockerfile_is_to_ignore_is_not_copied() {
    let app = app(shared(), &format!("{BASE}COPY . /copied\nRUN busybox find /copied -type f | busybox sort\n"));
    for file in ["kept.txt", "note.md", "note-kept.md"] {
        app.write(file, "");
    }
    app.write(".dockerignore", "# not for the image\n*.md\n!note-kept.md\nbusybox*x\n!/busybox\n");
    app.commit("a list");
    let push = app.push().expect_ok().expect_text(&["/copied/kept.txt", "/copied/note-kept.md", "/copied/busybox"]);
    assert!(!push.text.contains("/copied/note.md"), "{}", push.text);

    // The Dockerfile's own list counts instead.
    app.write("Dockerfile.dockerignore", "kept.txt\n");
    app.commit("another list");
    let push = app.push().expect_ok().expect_text(&["/copied/note.md"]);
    assert!(!push.text.contains("/copied/kept.txt"), "{}", push.text);
}

/// The build that runs.
fn running(app: &App<'_>) -> String {
    let mut id = String::new();
    until("the build begins", || {
        let builds = app.json(&["builds"]);
        let pending = builds.as_array().and_then(|all| all.iter().find(|build| build["status"] == "pending").cloned());
        pending
            .and_then(|build| build["id"].as_str().map(str::to_owned))
            .inspect(|found| id.clone_from(found))
            .is_some()
    });
    id
}

/// What a build printed so far.
fn printed(platform: &Platform, build: &str) -> String {
    let apps = std::fs::read_dir(platform.home().join("builds")).expect("builds").flatten();
    let found = apps.filter_map(|app| std::fs::read_to_string(app.path().join(format!("{build}.log"))).ok());
    found.collect()
}

fn output(process: Child) -> String {
    String::from_utf8_lossy(&process.wait_with_output().expect("ended").stderr).into_owned()
}

/// What is there of builds: processes of users that only they have, their folders, their mounts and cgroups.
fn left(home: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let staging = std::fs::read_dir(home.join("layers/staging")).expect("staging").flatten();
    left.extend(staging.map(|entry| entry.path().display().to_string()));
    let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
    let ours = mounts.lines().filter(|line| line.contains(&*home.to_string_lossy()) && line.contains("build-"));
    left.extend(ours.map(str::to_owned));
    for process in std::fs::read_dir("/proc").expect("processes").flatten() {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let is_nested = environment.windows(30).any(|part| part.starts_with(b"_CONTAINERS_USERNS_CONFIGURED"));
        let maps = std::fs::read_to_string(process.path().join("uid_map")).unwrap_or_default();
        let id = maps.split_whitespace().nth(1).and_then(|id| id.parse::<u32>().ok()).unwrap_or_default();
        if is_nested || id >= 1 << 30 {
            left.push(process.path().display().to_string());
        }
    }
    left
}
