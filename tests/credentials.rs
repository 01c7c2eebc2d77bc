//! Private registries and git hosts: what is fetched from there, and who never sees what it is fetched with.

use std::path::Path;
use std::process::Command;

use base64::Engine;

use crate::images::{Folder, busybox};
use crate::platform::{App, shared};
use crate::registry::{PASSWORD, Registry, USER};

/// Puts an image that serves `text` into a private registry, as `busy:v1`.
fn publish(folder: &Folder, registry: &Registry, text: &str) {
    folder.image(text);
    let to = format!("docker://{}/busy:v1", registry.address);
    let copy = shared().run("skopeo", |skopeo: &mut Command| {
        let user = format!("--dest-creds={USER}:{PASSWORD}");
        skopeo.args(["copy", "--quiet", "--dest-tls-verify=false", &user, "oci:layout:v1", &to]);
        skopeo.current_dir(folder.path());
    });
    copy.expect_ok();
}

pub(crate) fn sign_in(app: &App<'_>, registry: &Registry, password: &str) {
    let args = ["credentials:set", &registry.address, "--user", USER, "-a", &app.name];
    shared().cli_with_input(&args, format!("{password}\n").as_bytes()).expect_ok();
}

/// How the password goes over the wire.
fn sent() -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"))
}

/// Nothing that the platform wrote shows the password, in any of the ways in which it is sent.
fn expect_nowhere(home: &Path) {
    let sent = sent();
    let found = shared().run("grep", |grep: &mut Command| {
        // `user` and `control` are what the tests write.
        grep.args(["-rlaF", "--exclude-dir=user", "--exclude=control", "-e", PASSWORD, "-e", &sent]).arg(home);
    });
    assert_eq!(found.stdout, "", "the password is on the disk");
}

#[test]
fn a_private_image_is_deployed_with_credentials_that_nobody_sees() {
    let app = shared().app("probe-app");
    let (folder, registry) = (Folder::new(&app), Registry::private());
    publish(&folder, &registry, "in private");
    let image = format!("{}/busy:v1", registry.address);
    let deploy = || app.cli(&["builds:create", "--image", &image]);
    let how = format!("`platform credentials:set {}` adds them", registry.address);
    deploy().expect_refused(&["there are no credentials for", &how]);
    sign_in(&app, &registry, "wrong");
    deploy().expect_refused(&["refuses the credentials of this app (user ada)"]);
    sign_in(&app, &registry, PASSWORD);
    deploy().expect_ok();
    assert_eq!(app.get("/").body, "in private\n");
    app.cli(&["credentials"]).expect_ok().expect_text(&[&registry.address, USER, "password"]);
    expect_nowhere(shared().home());

    app.cli(&["credentials:remove", &registry.address]).expect_ok();
    app.cli(&["credentials:remove", &registry.address]).expect_refused(&["There are no credentials of"]);
    deploy().expect_refused(&["there are no credentials for"]);
    assert_eq!(app.get("/").body, "in private\n");
}

#[test]
fn a_dockerfile_starts_from_a_private_image_and_no_step_of_it_finds_the_credentials() {
    let app = shared().app("probe-app");
    let (folder, registry) = (Folder::new(&app), Registry::private());
    publish(&folder, &registry, "in private");
    std::fs::copy(busybox(), app.folder.join("busybox")).expect("copied");
    app.write("heroku.yml", "build:\n  docker:\n    web: Dockerfile\n");
    // A pattern that does not match itself, or the Dockerfile and whoever looks would be found.
    let pattern = |text: &str| format!("-e '[{}]{}'", &text[..1], &text[1..]);
    let seek = format!("{} {}", pattern(PASSWORD), pattern(&sent()));
    let places = "/proc/*/environ /proc/*/cmdline /proc/*/root/bases /proc/*/root/containers /proc/*/root/etc /proc/*/root/root \
                  /proc/*/root/run /proc/*/root/var/tmp /proc/*/root/tmp /proc/*/root/workspace \
                  /bases /containers /etc /root /run /var /tmp /home /dev/platform";
    let tries = format!(
        "busybox mkdir -p /tmp; printf '%s%s' {} {} > /tmp/control; echo tried $(busybox ls /proc | busybox grep -c '^[0-9]') processes; \
         busybox env | busybox grep -q {seek} && echo BREACH environment; \
         for p in {places}; do busybox grep -rl {seek} $p 2>/dev/null | busybox sed 's/^/BREACH /'; done; \
         for f in $(busybox find / -xdev -name auth.json -o -xdev -name .dockercfg -o -xdev -path '*/.docker/config.json' 2>/dev/null); do echo BREACH $f; done; \
         busybox nc -w 1 {} </dev/null && echo BREACH registry; true",
        &PASSWORD[..4],
        &PASSWORD[4..],
        registry.address.replace(':', " ")
    );
    let dockerfile = |more: &str| {
        format!(
            "ARG REGISTRY={}\nFROM $REGISTRY/busy:v1 AS base\nUSER 0\nCOPY busybox /bin/busybox\nRUN {tries}\n{more}",
            registry.address
        )
    };
    app.write("Dockerfile", &dockerfile(""));
    app.commit("a Dockerfile");
    app.push().expect_refused(&["The Dockerfile could not be built"]);
    sign_in(&app, &registry, PASSWORD);
    let push = app.push().expect_ok().expect_text(&["Fetching", "tried "]);
    // What it left there itself is found, and nothing else.
    let found = push.text.lines().filter_map(|line| line.strip_prefix("remote: BREACH "));
    let (control, breaches): (Vec<_>, Vec<_>) = found.map(str::trim).partition(|path| path.ends_with("/tmp/control"));
    assert!(control.contains(&"/tmp/control") && breaches.is_empty(), "{}", push.text);
    assert_eq!(app.get("/").body, "in private\n");
    expect_nowhere(shared().home());

    app.write("Dockerfile", &dockerfile(&format!("COPY --from={}/busy:v1 /www /copied\n", registry.address)));
    app.commit("more");
    let again = app.push().expect_ok().expect_text(&["cache hit"]);
    assert!(!again.text.contains("Fetching"), "what is there is not fetched again: {}", again.text);
    publish(&folder, &registry, "another one");
    app.git(&["commit", "-q", "--allow-empty", "-m", "again"]).expect_ok();
    app.push().expect_ok().expect_text(&["Fetching"]);
    assert_eq!(app.get("/").body, "another one\n");
}
