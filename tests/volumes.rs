//! Volumes: what outlives dynos, releases and apps.

use crate::load::{Load, Seen};
use crate::platform::{App, shared};

const APP_JSON: &str = r#"{"volumes": {"data": {"process": "web", "path": "/data", "size": "64MiB"}}}"#;

/// Wants what a volume that is there does not become.
const OTHER_APP_JSON: &str = r#"{"volumes": {"data": {"process": "web", "path": "/elsewhere", "size": "128MiB"}}}"#;

/// Names no volume, and wants what a process type with one does not do.
const NO_APP_JSON: &str = r#"{"formation": {"web": {"autoscale": {"metric": "rps", "target": 25}}}}"#;

/// Writes until there is no room, then frees it.
const FILL: &str = "
import errno, os
try:
    with open('/data/filler', 'wb') as file:
        while True:
            file.write(b'x' * 65536)
            file.flush()
except OSError as error:
    print(errno.errorcode[error.errno])
os.remove('/data/filler')";

fn inside(app: &App<'_>, args: &[&str]) -> String {
    let command = ["ps:exec", "--dyno", "web.1", "--"];
    app.cli(&[&command, args].concat()).stdout.trim().to_owned()
}

fn shell(app: &App<'_>, script: &str) -> String {
    inside(app, &["sh", "-c", script])
}

/// Waits until the dyno that runs sees this.
fn sees(app: &App<'_>, text: &str) {
    crate::until(&format!("the dyno sees {text}"), || shell(app, "cat /data/file") == text);
}

#[test]
fn what_is_on_a_volume_outlives_releases_and_the_app_and_comes_back_from_snapshots() {
    let neighbour = shared().app("probe-app");
    neighbour.push().expect_ok();
    let app = shared().app("probe-app");
    app.write("app.json", APP_JSON);
    app.commit("Keep data");
    app.push().expect_ok();
    shell(&app, "echo first > /data/file; mkdir /data/folder; ln -s ../file /data/folder/link");
    assert_eq!(app.cli(&["volumes:snapshot", "data"]).expect_ok().stdout.trim(), "s1");

    app.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
    app.commit("Change");
    app.write("app.json", OTHER_APP_JSON);
    app.commit("Wish for more");
    app.push().expect_ok().expect_text(&[
        "web has a volume: its dyno stops before the new one starts",
        "The volume data stays as it is: 64MiB for web at /data",
    ]);
    app.write("app.json", NO_APP_JSON);
    app.commit("Wish for nothing");
    app.push().expect_ok().expect_text(&[
        "app.json no longer names the volume data",
        "web has a volume, which is for one dyno: it does not scale by itself",
    ]);
    assert!(app.get("/").body.starts_with("version 2"));
    sees(&app, "first");
    app.cli(&["ps:scale", "web=2"]).expect_refused(&["have the volume data"]);

    shell(&app, "echo second > /data/file");
    let name = app.name.as_str();
    app.cli(&["volumes:restore", "data", "s1", "--confirm", name]).expect_ok();
    sees(&app, "first");
    let tar = app.cli(&["volumes:download", "data", "--output", "-"]).expect_ok().stdout;
    assert!(tar.contains("./file") && tar.contains("first\n") && !tar.contains("second"), "{tar}");
    let tar = app.cli(&["volumes:download", "data", "s2", "--output", "-"]).expect_ok().stdout;
    assert!(tar.contains("second\n"), "what was there before is a snapshot: {tar}");

    let Seen { failure, answered, .. } = Load::around(&neighbour, || {
        assert_eq!(inside(&app, &["python3", "-c", FILL]), "ENOSPC");
        assert!(app.get("/").body.starts_with("version 2"), "it goes on itself");
    });
    assert_eq!(failure, None, "of {answered} requests none was lost");
    let megabytes = || shell(&app, "df -m /data | awk 'END { print $2 }'").parse::<u32>().unwrap_or_default();
    let before = megabytes();
    assert!((50..=70).contains(&before), "{before}");
    app.cli(&["volumes:resize", "data", "128MiB"]).expect_ok();
    crate::until("it holds more", || megabytes() >= 120);
    sees(&app, "first");

    app.cli(&["destroy", "--confirm", name]).expect_refused(&["data (128MiB, 2 snapshots)", "--keep-volumes"]);
    app.cli(&["destroy", "--confirm", name, "--keep-volumes"]).expect_ok();
    let kept = shared().json(&["volumes", "--kept"]);
    let volume =
        kept.as_array().expect("a list").iter().find(|it| it["kept_from"] == name).expect("it is kept").clone();
    let id = volume["id"].as_str().expect("an id");
    let heir = shared().app("probe-app");
    heir.cli(&["volumes:create", "files", "/data", "--from", id]).expect_ok();
    heir.push().expect_ok();
    sees(&heir, "first");
    assert_eq!(
        shell(&heir, "echo third > /data/file; cat /data/folder/link"),
        "third",
        "it may write what another app's user wrote"
    );
    heir.cli(&["volumes:destroy", "files", "--confirm", "files"])
        .expect_refused(&["2 snapshots", "--delete-snapshots"]);
    let disks = || std::fs::read_dir(shared().home().join("volumes")).expect("readable").count();
    let before = disks();
    heir.cli(&["volumes:destroy", "files", "--confirm", "files", "--delete-snapshots"]).expect_ok();
    crate::until("the dyno has none", || shell(&heir, "ls /data 2>/dev/null | wc -l") == "0");
    // Each is an image and the folder where it is mounted.
    crate::until("its disks are gone", || disks() + 6 == before);
}
