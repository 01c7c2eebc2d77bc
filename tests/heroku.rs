//! Heroku's own program, unmodified, through the whole life of an app. `heroku/` pins which one.

use std::ffi::OsString;
use std::path::Path;

use crate::platform::{App, Ran, shared};

/// The program, as a developer runs it in the working copy of an app.
fn heroku(app: &App<'_>, args: &[&str]) -> Ran {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/heroku/node_modules/.bin");
    assert!(programs.join("heroku").exists(), "heroku is missing: run `npm --prefix tests/heroku ci` once");
    let mut path = OsString::from(programs);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    app.platform.run(env!("CARGO_BIN_EXE_platform"), |platform| {
        platform.arg("heroku").args(args).env("PATH", path).current_dir(&app.folder);
    })
}

/// Pushes to the remote that `heroku create` made: by git alone, which learned how from `platform heroku`.
fn push(app: &App<'_>) -> Ran {
    app.platform.run("git", |git| {
        // A machine's own choice would outdo what git was told of this platform.
        git.args(["push", "heroku", "main"]).current_dir(&app.folder).env_remove("GIT_SSL_CAINFO");
    })
}

#[test]
fn an_app_lives_and_dies_by_the_official_program() {
    let app = shared().working_copy("official", "probe-app");
    let name = app.name.as_str();
    heroku(&app, &["create", name]).expect_ok().expect_text(&["https://localhost:", &format!("/{name}.git")]);
    heroku(&app, &["config:set", "COLOUR=green"]).expect_ok().expect_text(&["done, v2"]);
    push(&app).expect_ok().expect_text(&["remote: "]);
    assert_eq!(app.get("/").body, "version 1 web.1");
    assert!(app.get("/env").body.contains("\"COLOUR\": \"green\""));

    heroku(&app, &["ps:scale", "web=2"]).expect_ok().expect_text(&["now running web at 2"]);
    crate::until("two instances run", || {
        let text = heroku(&app, &["ps"]).expect_ok().text;
        text.contains("web.1: up") && text.contains("web.2: up")
    });
    let ran = heroku(&app, &["run", "--no-tty", "--exit-code", "--", "sh -c 'echo $COLOUR on $DYNO; exit 7'"]);
    assert_eq!(ran.code, Some(7), "{}", ran.text);
    assert!(ran.stdout.starts_with("green on run."), "{}", ran.text);
    let detached = heroku(&app, &["run:detached", "--", "echo said by $DYNO; sleep 600"]).expect_ok();
    let dyno = detached.text.split_whitespace().find(|word| word.starts_with("run.")).expect("a name").to_owned();
    let dyno = dyno.trim_end_matches(|c: char| !c.is_ascii_digit());
    heroku(&app, &["ps"]).expect_ok().expect_text(&["sleep 600", dyno]);
    crate::until("its output is in the log", || {
        heroku(&app, &["logs", "-n", "500"]).expect_ok().text.contains(&format!("app[{dyno}]: said by {dyno}"))
    });
    heroku(&app, &["ps:stop", "-d", dyno]).expect_ok();

    heroku(&app, &["addons:create", "postgres", "--wait"]).expect_ok().expect_text(&["DATABASE_URL"]);
    heroku(&app, &["config:get", "DATABASE_URL"]).expect_ok().expect_text(&["postgres://"]);
    heroku(&app, &["pg:info"]).expect_ok().expect_text(&["=== DATABASE_URL", "Available"]);
    let domain = format!("www.{name}.example.com");
    heroku(&app, &["domains:add", &domain]).expect_ok().expect_text(&["DNS Target"]);
    heroku(&app, &["domains"]).expect_ok().expect_text(&[&domain]);

    heroku(&app, &["config:set", "COLOUR=red"]).expect_ok();
    heroku(&app, &["rollback", "v3"]).expect_ok().expect_text(&["Rolling back", "to v3", "done"]);
    heroku(&app, &["config:get", "COLOUR"]).expect_ok().expect_text(&["green"]);
    heroku(&app, &["releases"]).expect_ok().expect_text(&["Rollback to v3", "Deploy", "Initial release"]);

    heroku(&app, &["apps:destroy", "--confirm", name]).expect_ok();
    heroku(&app, &["apps:info", "--app", name]).expect_refused(&["Couldn't find that app"]);
    crate::until("no route is left", || app.get("/").status == 404);
}
