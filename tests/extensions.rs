//! Image extensions: what a Dockerfile of theirs installs is there when an app is built, and when it runs.

use std::os::unix::fs::PermissionsExt;

use crate::images::Folder;
use crate::platform::{App, authority, shared};
use crate::registry::Registry;

/// Installs a Debian package.
const INSTALL: &str = "ARG base_image
FROM ${base_image}
ARG package
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends $package
RUN rm /etc/services && mkdir -p /opt/own && echo mine > /opt/own/file
";
/// As the specification wants it to end.
const RESET: &str = "ARG user_id
ARG group_id
RUN chown -R ${user_id}:${group_id} /opt/own
USER ${user_id}:${group_id}
";
const PROJECT: &str = "[_]
schema-version = '0.2'
[[io.buildpacks.pre.group]]
uri = './extension'
[[io.buildpacks.pre.group]]
id = 'test/needs-tools'
[io.buildpacks.pre.group.script]
inline = '''
echo \"built with $(hello --version | head -n 1), there is $(ls /opt/own | wc -l) file\"
if test -e /etc/services || command -v figlet; then exit 1; fi
echo nothing else came along
'''
";

/// An app with an extension that installs hello for its build, and figlet for its run.
fn extended(run: &str) -> App<'static> {
    let app = shared().app("probe-app");
    let bin = app.folder.join("extension/bin");
    std::fs::create_dir_all(&bin).expect("a folder");
    let generate = "#!/bin/sh\nset -eu\ncp \"$CNB_EXTENSION_DIR\"/*.Dockerfile \"$CNB_EXTENSION_DIR\"/extend-config.toml \"$CNB_OUTPUT_DIR\"\n";
    for (name, script) in [("detect", "#!/bin/sh\n"), ("generate", generate)] {
        std::fs::write(bin.join(name), script).expect("written");
        std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).expect("executable");
    }
    app.write("extension/extension.toml", "api = '0.10'\n[extension]\nid = 'test/tools'\nversion = '1.0.0'\n");
    app.write(
        "extension/extend-config.toml",
        "[[build.args]]\nname = 'package'\nvalue = 'hello'\n[[run.args]]\nname = 'package'\nvalue = 'figlet'\n",
    );
    app.write("extension/build.Dockerfile", &format!("{INSTALL}{RESET}"));
    app.write("extension/run.Dockerfile", &format!("{INSTALL}ENV GREETING=hello\n{run}"));
    app.write("project.toml", PROJECT);
    app.commit("an extension");
    app
}

#[test]
fn an_extension_installs_what_the_app_is_built_with_and_what_it_runs_with() {
    let app = extended(RESET);
    let push = app.push().expect_ok();
    push.expect_text(&[
        "Generating with test/tools@1.0.0",
        "Extending the build image with test/tools",
        "Extending the run image with test/tools",
        "Kept for the next build: ",
        "built with hello (GNU Hello)",
        "there is 1 file",
        "nothing else came along",
    ]);
    // The probe shows its environment and is asked by a one-off for the rest.
    assert!(app.get("/env").body.contains("\"GREETING\": \"hello\""), "{}", app.get("/env").body);
    let ask = "figlet -v | head -n 2; command -v hello || echo no hello; ls /etc/services; test -w /opt/own/file && echo own file; \
               stat -c root=%u /usr/bin/figlet* | sort -u; test -w /usr/bin || echo not everything";
    let there = app.cli(&["run", ask]);
    // Root of the machine is nobody inside.
    let there = there.expect_text(&["FIGlet", "no hello", "/etc/services", "own file", "root=65534", "not everything"]);
    assert!(there.text.contains("No such file"), "what the Dockerfile removed is gone: {}", there.text);

    // Nothing is applied again, and nothing of the image changes.
    app.git(&["commit", "-q", "--allow-empty", "-m", "again"]).expect_ok();
    let again = app.push().expect_ok().expect_text(&["Generating with", "built with hello (GNU Hello)"]);
    assert!(!again.text.contains("Extending") && !again.text.contains("STEP"), "{}", again.text);
    let parts = app.cli(&["builds:sbom", "--format", "cyclonedx"]).expect_ok().expect_text(&["pkg:deb/debian/figlet@"]);
    assert!(!parts.text.contains("pkg:deb/debian/hello@"), "that was only for its build");

    let why = app.cli(&["stack:rebase"]);
    why.expect_refused(&["image extensions changed the operating system", "push it again"]);

    // A changed line begins where the last build was.
    app.edit("extension/run.Dockerfile", "hello", "good-evening\nLABEL io.buildpacks.rebasable=true");
    app.commit("another greeting");
    let changed = app.push().expect_ok();
    // All of the build image's steps, and those before the changed one of the run image's.
    assert_eq!(changed.text.matches("cache hit").count(), 8 + 4, "{}", changed.text);
    assert!(app.get("/env").body.contains("good-evening"));
    app.cli(&["stack:rebase"]).expect_ok();
}

#[test]
fn an_extension_may_put_another_image_in_place_of_the_stacks() {
    let registry = Registry::elsewhere(authority());
    let app = extended("");
    let folder = Folder::new(&app);
    let run = |program: &str, args: &[&str]| {
        shared().run(program, |command| {
            command.args(args).current_dir(folder.path());
        })
    };
    // The files of the stack, as an image of somebody else's.
    let stack = std::fs::read(shared().home().join("stacks/debian-13.json")).expect("a stack");
    let stack: serde_json::Value = serde_json::from_slice(&stack).expect("a record");
    let layer = stack["run"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
    let files = shared().home().join("layers").join(layer).display().to_string();
    run("umoci", &["init", "--layout", "theirs"]).expect_ok();
    run("umoci", &["new", "--image", "theirs:v1"]).expect_ok();
    run("umoci", &["insert", "--image", "theirs:v1", &files, "/"]).expect_ok();
    let image = format!("{}/base:v1", registry.address);
    let copy = |from: &str, to: &str| run("skopeo", &["copy", "--quiet", from, &format!("docker://{to}")]).expect_ok();
    copy("oci:theirs:v1", &image);
    std::fs::remove_file(app.folder.join("extension/build.Dockerfile")).expect("removed");
    app.write("project.toml", "[_]\nschema-version = '0.2'\n[[io.buildpacks.pre.group]]\nuri = './extension'\n");
    app.write("extension/run.Dockerfile", &format!("FROM {image}\nENV GREETING=elsewhere\n"));
    app.commit("another image");
    app.push().expect_ok().expect_text(&[&format!("runs on the image {image}"), "Extending the run image"]);
    assert!(app.get("/env").body.contains("\"GREETING\": \"elsewhere\""));
    app.cli(&["run", "test -w /usr/bin/env && echo all of it is the apps"]).expect_ok();
    app.cli(&["stack:rebase"]).expect_refused(&["cannot be rebased", "push it again"]);

    folder.image("no libraries");
    copy("oci:layout:v1", &format!("{}/busy:v1", registry.address));
    app.write("extension/run.Dockerfile", &format!("FROM {}/busy:v1\n", registry.address));
    app.commit("an image without glibc");
    app.push().expect_refused(&["busy:v1 cannot be used", "it has no /lib"]);
}

#[test]
fn an_extension_that_leaves_the_user_root_or_fails_deploys_nothing() {
    let app = extended("");
    app.write("extension/run.Dockerfile", "ARG base_image\nFROM ${base_image}\nUSER root\nRUN true\n");
    app.write("extension/build.Dockerfile", "ARG base_image\nFROM ${base_image}\nRUN echo no services && exit 7\n");
    app.commit("two mistakes");
    app.push().expect_refused(&["no services", "exit status 7", "Dockerfiles could not be applied"]);
    app.write("extension/build.Dockerfile", "ARG base_image\nFROM ${base_image}\nRUN id -u\n");
    app.commit("one mistake");
    app.push().expect_refused(&["60000", "leaves the user root", "USER ${user_id}"]);
    app.edit("extension/run.Dockerfile", "FROM ${base_image}", "FROM ${base_image}\nFROM scratch");
    app.commit("another one");
    app.push().expect_refused(&["Image extension test/tools@1.0.0", "a second FROM, on line 3"]);
}
