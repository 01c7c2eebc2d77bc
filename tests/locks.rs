//! Apps that nobody deploys for a while.

use crate::platform::{App, shared};

fn push_with(app: &App, options: &[&str]) -> crate::platform::Ran {
    app.git(&[&["push"], options, &["platform", "main"]].concat())
}

#[test]
fn a_push_to_a_locked_app_is_refused_with_the_message_and_nothing_is_lost() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app.cli(&["lock", "-m", "Release day, ask Ada"]).expect_ok();
    app.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
    app.commit("two");
    app.push().expect_refused(&["locked by", "Release day, ask Ada", "platform unlock", "[remote rejected]"]);
    app.cli(&["config:set", "A=1"]).expect_refused(&["Release day, ask Ada", "--force"]);
    app.cli(&["lock:info"]).expect_ok().expect_text(&["Release day, ask Ada", "Locked by"]);
    assert_eq!(app.get("/").body, "version 1 web.1");
    assert_eq!(app.json(&["builds"]).as_array().map(Vec::len), Some(1), "nothing was built");

    push_with(&app, &["-o", "reson=typo"]).expect_refused(&["no push option", "-o reason"]);
    push_with(&app, &["-o", "force", "-o", "reason=It cannot wait"]).expect_ok();
    assert_eq!(app.get("/").body, "version 2 web.1");
    assert_eq!(app.json(&["releases"])[0]["reason"], "It cannot wait");
    app.cli(&["unlock"]).expect_ok();
    app.cli(&["unlock"]).expect_refused(&["not locked"]);

    app.cli(&["freezes:add", "mon - mon", "--reason", "holidays"]).expect_ok();
    app.edit("probe.py", "VERSION = \"2\"", "VERSION = \"3\"");
    app.commit("three");
    app.push().expect_refused(&["frozen until", "holidays"]);
    app.cli(&["freezes"]).expect_ok().expect_text(&["mon 00:00 - mon 00:00 UTC", "frozen until"]);
    let id = app.json(&["freezes"])[0]["id"].as_str().expect("an id").to_owned();
    app.cli(&["freezes:remove", &id]).expect_ok();
    app.push().expect_ok();
    assert_eq!(app.get("/").body, "version 3 web.1");
}
