//! Builds take care of what is around them: running apps, each other, secrets.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::load::{Load, Seen};
use crate::platform::{App, Platform, Ran, shared};

/// Lets a buildpack of the repository itself run after the others.
fn add_script(app: &App<'_>, script: &str) {
    let text = format!(
        "[_]\nschema-version = '0.2'\n[[io.buildpacks.post.group]]\nid = 'test/script'\n\
         [io.buildpacks.post.group.script]\ninline = '''\nset -e\n{script}\n'''\n"
    );
    app.write("project.toml", &text);
    app.commit("a build step of its own");
}

#[test]
fn builds_that_want_all_memory_and_every_core_cost_a_running_app_no_request() {
    const HUNGRY: &str = "x=x; while :; do x=$x$x; done";
    const BUSY: &str = "for worker in 1 2 3 4; do (i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done) & done; wait";
    let platform = Platform::start(&[("PLATFORM_BUILD_MEMORY", "512MiB"), ("PLATFORM_BUILDS", "2")]);
    let steady = platform.app("probe-app");
    steady.push().expect_ok().expect_text(&["Used ", " of 0.5 GB of memory and "]);
    let hungry = platform.app("probe-app");
    add_script(&hungry, HUNGRY);
    let busy = [(); 3].map(|()| platform.app("probe-app"));
    for app in &busy {
        add_script(app, BUSY);
    }

    let mut pushes: Vec<Ran> = Vec::new();
    let Seen { failure, .. } = Load::around(&steady, || {
        pushes = std::thread::scope(|scope| {
            let all: Vec<_> = busy.iter().chain([&hungry]).map(|app| scope.spawn(|| app.push())).collect();
            all.into_iter().map(|push| push.join().expect("no panic")).collect()
        });
    });
    assert_eq!(failure, None, "a build cost a request");
    let refused = pushes.pop().expect("that of the hungry app");
    refused.expect_refused(&["used more than 512 MiB of memory", "fewer parallel jobs", "raise `build_memory`"]);
    for (app, push) in busy.iter().zip(pushes) {
        push.expect_ok();
        assert_eq!(app.get("/").body, "version 1 web.1");
    }
}

#[test]
fn a_secret_of_a_build_stays_in_it_and_the_same_commit_is_the_same_image() {
    const SECRET: &str = "nightingale-40c1";
    let platform = shared();
    let app = platform.app("probe-app");
    // Its files are for reading alone: a build must be able to replace them all the same.
    add_script(
        &app,
        "test \"${#SECRET}\" = 16; cd \"$1\"
         test ! -e kept/log || echo the cache came back
         rm -rf kept made; mkdir kept made; echo x > kept/log; echo y > made/file; chmod 444 kept/log made/file
         printf '[types]\\ncache = true' > kept.toml; printf '[types]\\nlaunch = true\\ncache = true' > made.toml",
    );
    app.cli(&["config:set", "--build-only", &format!("SECRET={SECRET}")]).expect_ok();
    let before = layers(platform);
    let push = || {
        app.git(&["commit", "-q", "--allow-empty", "-m", "again"]).expect_ok();
        let push = app.push().expect_ok();
        (push.text.contains("the cache came back"), image(&app))
    };
    let first = push();
    assert!(!first.0);
    assert_eq!(push(), (true, first.1.clone()));
    app.cli(&["builds:cache:purge"]).expect_ok();
    assert_eq!(push(), (false, first.1));

    let kept = ["builds", "cache", "logs", "releases"].map(|name| platform.home().join(name));
    let new: Vec<PathBuf> = layers(platform).difference(&before).cloned().collect();
    assert!(!new.is_empty(), "the app's files at least");
    let found = platform.run("grep", |grep| {
        grep.args(["-rlF", "--", SECRET]).args(kept.iter().filter(|folder| folder.exists())).args(new);
    });
    assert_eq!((found.code, &*found.text), (Some(1), ""), "the secret was kept");
    assert!(!app.get("/env").body.contains(SECRET), "a process has no secret of the build");
}

/// The folders of all layers of a platform.
fn layers(platform: &Platform) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(platform.home().join("layers")).expect("layers").flatten();
    entries.filter(|entry| entry.file_name() != "staging").map(|entry| entry.path()).collect()
}

/// The digest of the image of an app's newest build.
fn image(app: &App<'_>) -> String {
    let builds = app.json(&["builds"]);
    let newest = builds.as_array().expect("a list").iter().max_by_key(|build| build["created_at"].as_str());
    let id = newest.expect("one at least")["id"].as_str().expect("an id");
    let token = app.platform.cli(&["auth:token"]).expect_ok().stdout;
    let url = format!("{}/apps/{}/oci-images/{id}", app.platform.url(), app.name);
    let request = ureq::get(url).header("Authorization", format!("Bearer {}", token.trim()));
    let answer = request.call().expect("an answer").body_mut().read_to_string().expect("text");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    answer["digest"].as_str().expect("a digest").to_owned()
}
