//! Buildpacks that are not the platform's own, and images for programs that are not the platform.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::platform::{App, shared};
use crate::registry::Registry;

/// What a hostile buildpack would like to do. Each line that works says so.
const HOSTILE: &str = r#"
breach() { echo "BREACH: $*"; }
for path in "$HOST_HOME" /var/lib/platform /run/platform* /run/containerd /var/run/docker.sock /root/.docker /root/.ssh; do
    ls "$path" >/dev/null 2>&1 && breach "sees $path"
done
find / -xdev -type s 2>/dev/null | grep . && breach "sees a socket"
env | grep -iE 'token|registry_auth|secret|^PLATFORM_' && breach "has a secret in its environment"
cat /proc/1/environ 2>/dev/null | tr '\0' '\n' | grep -iE 'token|registry_auth|secret' && breach "reads one of process 1"
for path in /etc/passwd /usr/bin/env /cnb/lifecycle/lifecycle /platform/env/X /proc/sys/kernel/hostname; do
    (echo x >> "$path") 2>/dev/null && breach "writes $path"
done
mkdir -p /tmp/m && mount -t tmpfs none /tmp/m 2>/dev/null && breach "mounts"
mknod /tmp/disk b 8 0 2>/dev/null && breach "makes a device"
unshare -m true 2>/dev/null && ls /proc/1/root/etc/platform >/dev/null 2>&1 && breach "leaves its root"
test "$(id -u)" -ge 100000 || breach "is $(id -u)"
grep -qE '^CapEff:\s*0+$' /proc/self/status || breach "has capabilities"
ps -e 2>/dev/null | grep -q containerd && breach "sees the host's processes"
ln -s /etc/passwd "$CNB_LAYERS_DIR/link.toml" 2>/dev/null; rm -f "$CNB_LAYERS_DIR/link.toml"
echo "tried everything"
"#;

#[test]
fn classic_scripts_and_hostile_buildpacks_of_a_repository() {
    let app = shared().app("probe-app");
    script(&app, "classic/bin/detect", "test -f $1/probe.py && echo Probe");
    script(
        &app,
        "classic/bin/compile",
        "test \"$1\" = /app; test $STACK = heroku-24; test \"$(cat $3/CONFIG)\" = value
         echo again >> $2/count; echo \"-----> Compiled $(wc -l < $2/count) times\"
         mkdir -p $1/.profile.d; echo 'export FROM_PROFILE=yes' > $1/.profile.d/classic.sh
         echo 'export FROM_EXPORT=yes' > \"$(dirname $0)/../export\"",
    );
    script(
        &app,
        "classic/bin/release",
        "printf 'default_process_types:\\n  echo: echo profile $FROM_PROFILE\\n  web: exit 1\\n'",
    );
    let hostile = HOSTILE.replace("$HOST_HOME", &shared().home().display().to_string());
    app.write(
        "project.toml",
        &format!(
            "[_]\nschema-version = '0.2'\n[[io.buildpacks.group]]\nuri = './classic'\n[[io.buildpacks.group]]\nid = 'test/hostile'\n\
             [io.buildpacks.group.script]\ninline = '''\ntest \"$FROM_EXPORT\" = yes || exit 1\n{hostile}'''\n"
        ),
    );
    app.commit("buildpacks of its own");
    app.cli(&["config:set", "CONFIG=value"]).expect_ok();
    let push = app.push().expect_ok();
    push.expect_text(&[
        "classic/classic@0.0.0, test/hostile@0.0.0, platform/procfile",
        "Compiled 1 times",
        "tried everything",
    ]);
    let builds = app.json(&["builds"]);
    let output = app.cli(&["builds:output", builds[0]["id"].as_str().expect("an id")]).expect_ok();
    assert!(!output.text.contains("BREACH"), "{}", output.text);
    assert_eq!(app.get("/").body, "version 1 web.1", "the Procfile wins over bin/release");
    app.cli(&["run", "echo profile $FROM_PROFILE"]).expect_ok().expect_text(&["profile yes"]);

    app.git(&["commit", "-q", "--allow-empty", "-m", "again"]).expect_ok();
    app.push().expect_ok().expect_text(&["Compiled 2 times"]);
    app.cli(&["builds:sbom"]).expect_ok().expect_text(&["debian-13", "cyclonedx"]);
}

#[test]
fn an_exported_image_is_one_for_other_programs() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    let folder = shared().home().join("user").join(format!("{}-export", app.name));
    std::fs::create_dir(&folder).expect("a folder");
    app.cli(&["releases:export", "-o", &folder.join("app.tar").display().to_string()]).expect_ok();
    let run = |program: &str, args: &[&str]| {
        shared().run(program, |command: &mut Command| {
            command.current_dir(&folder).args(args);
        })
    };
    let image = run("skopeo", &["inspect", "oci-archive:app.tar"]).expect_ok();
    image.expect_text(&["io.buildpacks.build.metadata", "CNB_APP_DIR=/app"]);
    run("skopeo", &["copy", "-q", "oci-archive:app.tar", "oci:layout:v1"]).expect_ok();
    run("oci-image-tool", &["validate", "--type", "image", "--ref", "name=v1", "layout"]).expect_ok();
    run("umoci", &["unpack", "--image", "layout:v1", "bundle"]).expect_ok();
    let root = folder.join("bundle/rootfs");
    assert_eq!(
        std::fs::read(root.join("app/probe.py")).expect("unpacked"),
        std::fs::read(app.folder.join("probe.py")).expect("committed"),
    );
    let link = std::fs::read_link(root.join("cnb/process/web")).expect("a link");
    assert_eq!(link, std::path::Path::new("/cnb/lifecycle/launcher"));
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn an_exported_file_goes_to_a_registry_by_skopeo() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    let registry = Registry::start();
    let image = format!("docker://{}/{}:v2", registry.address, app.name);
    let run = |command: String| {
        shared().run("sh", |shell: &mut Command| {
            shell.current_dir(&app.folder).args(["-c", &command]);
        })
    };
    let export = format!("{} releases:export -a {} -o app.tar", env!("CARGO_BIN_EXE_platform"), app.name);
    run(format!("{export} && skopeo copy --preserve-digests --dest-tls-verify=false oci-archive:app.tar {image}"))
        .expect_ok();
    let there = run(format!("skopeo inspect --tls-verify=false {image}")).expect_ok();
    there.expect_text(&["io.buildpacks.build.metadata", "CNB_APP_DIR=/app"]);
}

fn script(app: &App, path: &str, text: &str) {
    let file = app.folder.join(path);
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    std::fs::write(&file, format!("#!/bin/bash\nset -e\n{text}\n")).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("executable");
}
