//! Images pushed to a registry by the platform, and read by what Debian has for it.

use std::process::Command;

use crate::credentials::sign_in;
use crate::images::Folder;
use crate::platform::shared;
use crate::registry::{PASSWORD, Registry, USER};

#[test]
fn a_release_is_pushed_to_a_private_registry_and_nothing_of_it_twice() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    let (folder, registry) = (Folder::new(&app), Registry::private());
    let to = format!("{}/team/app:v2", registry.address);
    let push = || app.cli(&["releases:export", "--to", &to]);
    let how = format!("`platform credentials:set {}` adds them", registry.address);
    push().expect_refused(&["does not take team/app from everybody", &how]);
    sign_in(&app, &registry, "wrong");
    push().expect_refused(&["refuses the credentials of this app (user ada)", "replaces them"]);
    sign_in(&app, &registry, PASSWORD);
    let pushed = push().expect_ok().expect_text(&["Pushing the image of v2", "0 B were there"]);
    let image = pushed.stdout.trim().to_owned();
    let (_, digest) = image.split_once(&format!("{}/team/app@", registry.address)).expect("a name with a digest");

    let run = |program: &str, args: &[&str]| {
        let ran = shared().run(program, |command: &mut Command| {
            command.current_dir(folder.path()).args(args);
        });
        ran.expect_ok()
    };
    let (creds, source) = (format!("{USER}:{PASSWORD}"), format!("docker://{to}"));
    let there = ["inspect", "--tls-verify=false", "--creds", &creds, &source];
    run("skopeo", &there).expect_text(&["io.buildpacks.build.metadata", "CNB_APP_DIR=/app", digest]);
    app.cli(&["releases:export", "-o", &folder.path().join("app.tar").display().to_string()]).expect_ok();
    run("skopeo", &["inspect", "oci-archive:app.tar"]).expect_text(&[digest]);

    let name = format!("docker://{image}");
    run("skopeo", &["copy", "-q", "--src-tls-verify=false", "--src-creds", &creds, &name, "oci:layout:v2"]);
    run("oci-image-tool", &["validate", "--type", "image", "--ref", "name=v2", "layout"]);
    run("umoci", &["unpack", "--image", "layout:v2", "bundle"]);
    assert_eq!(
        std::fs::read(folder.path().join("bundle/rootfs/app/probe.py")).expect("unpacked"),
        std::fs::read(app.folder.join("probe.py")).expect("committed"),
    );

    let again = app.json(&["releases:export", "--to", &to]);
    assert_eq!((again["bytes_sent"].as_u64(), again["image"].as_str()), (Some(0), Some(image.as_str())), "{again}");
    assert!(again["bytes_present"].as_u64() > Some(0) && again["bytes_present"] == again["bytes_total"], "{again}");
    let events = app.json(&["events"]);
    let told = events.as_array().expect("a list").iter().filter(|event| event["data"]["pushed"] == image.as_str());
    assert_eq!(told.count(), 2, "{events}");
}
