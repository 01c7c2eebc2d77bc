//! git over SSH, with the programs that people have.

use std::path::PathBuf;
use std::process::Command;

use crate::platform::{App, Platform, shared};

/// A developer's key, in the developer's home.
struct Key(PathBuf);

impl Key {
    fn new(platform: &Platform, name: &str, kind: &[&str]) -> Self {
        let file = platform.home().join("user").join(name);
        let arguments = [&["-q", "-N", "", "-C", name, "-f"], &[file.to_str().expect("UTF-8")][..], kind].concat();
        platform
            .run("ssh-keygen", |command| {
                command.args(arguments);
            })
            .expect_ok();
        Self(file)
    }

    fn public(&self) -> String {
        format!("{}.pub", self.0.display())
    }

    /// How git and we start ssh with this key and nothing of the machine's own settings.
    fn ssh(&self) -> String {
        let known = self.0.with_extension("known_hosts");
        format!(
            "ssh -F none -i {} -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes -o UserKnownHostsFile={} \
             -o StrictHostKeyChecking=accept-new",
            self.0.display(),
            known.display()
        )
    }
}

fn git(app: &App, key: &Key, args: &[&str]) -> crate::platform::Ran {
    app.platform.run("git", |command: &mut Command| {
        command.env("GIT_SSH_COMMAND", key.ssh()).arg("-C").arg(&app.folder).args(args);
    })
}

#[test]
fn a_push_over_ssh_deploys_and_a_fetch_brings_it_back() {
    let platform = shared();
    let app = platform.app("probe-app");
    for (name, kind) in [("ed25519", &["-t", "ed25519"][..]), ("rsa", &["-t", "rsa", "-b", "2048"])] {
        let key = Key::new(platform, &format!("{}-{name}", app.name), kind);
        platform.cli(&["keys:add", &key.public()]).expect_ok();
        app.git(&["remote", "remove", "platform"]).expect_ok();
        let remote = platform.run(env!("CARGO_BIN_EXE_platform"), |command| {
            command.args(["git:remote", "--ssh", "-a", &app.name]).current_dir(&app.folder);
        });
        remote.expect_ok().expect_text(&["ssh://git@localhost:"]);
        app.edit("probe.py", "VERSION = \"", "VERSION = \"s");
        app.commit(name);
        let push = git(&app, &key, &["push", "platform", "main"]);
        push.expect_ok().expect_text(&["remote: ", "Released v", "deployed"]);
        git(&app, &key, &["fetch", "platform"]).expect_ok();
    }
    assert!(app.get("/").body.starts_with("version ss1"), "both pushes are live");
    let info = platform.run(env!("CARGO_BIN_EXE_platform"), |command| {
        command.arg("info").current_dir(&app.folder);
    });
    info.expect_ok().expect_text(&[&app.name]);
    let events = platform.json(&["keys"]);
    assert!(events[0]["last_used_at"].is_string(), "{events}");
}

#[test]
fn whoever_has_no_right_gets_nothing_over_ssh() {
    let platform = shared();
    let app = platform.app("probe-app");
    let (key, strange) = (
        Key::new(platform, &format!("{}-known", app.name), &["-t", "ed25519"]),
        Key::new(platform, &format!("{}-strange", app.name), &["-t", "ed25519"]),
    );
    platform.cli(&["keys:add", &key.public()]).expect_ok();
    let address = format!("ssh://git@localhost:{}", platform.ssh_port());
    let shell = |key: &Key, command: &str| {
        let line = format!("{} -p {} git@localhost {command}", key.ssh(), platform.ssh_port());
        platform.run("sh", |command| {
            command.args(["-c", &line]);
        })
    };
    shell(&key, "").expect_refused(&["Hi ", "has no shell"]);
    shell(&key, "ls /").expect_refused(&["only git works here"]);
    shell(&key, "'git-receive-pack ../../etc.git'").expect_refused(&["only git works here"]);
    shell(&strange, "").expect_refused(&["Permission denied (publickey)"]);
    git(&app, &key, &["push", &format!("{address}/no-such-app.git"), "main"]).expect_refused(&["no app no-such-app"]);
    git(&app, &strange, &["push", &format!("{address}/{}.git", app.name), "main"])
        .expect_refused(&["Permission denied (publickey)"]);
    let key_text = std::fs::read_to_string(key.public()).expect("a key");
    platform.cli(&["keys:add", &key.public()]).expect_refused(&["one of yours already"]);
    platform.cli(&["keys:remove", key_text.split(' ').nth(2).expect("a comment").trim()]).expect_ok();
    shell(&key, "").expect_refused(&["Permission denied (publickey)"]);
}

#[test]
fn the_host_key_is_the_one_that_status_shows() {
    let platform = shared();
    let fingerprint = platform.json(&["status"])["ssh"]["fingerprint"].as_str().expect("a fingerprint").to_owned();
    let scan = format!("ssh-keyscan -p {} localhost 2>/dev/null | ssh-keygen -lf -", platform.ssh_port());
    platform
        .run("sh", |command| {
            command.args(["-c", &scan]);
        })
        .expect_ok()
        .expect_text(&[&fingerprint]);
}
