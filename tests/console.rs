//! The console, in a real browser: `console/console.mjs` has the steps.

use std::path::Path;
use std::process::Command;

use crate::platform::{Platform, shared};

const PASSWORD: &str = "correct horse battery";

/// Runs one of the scripts with a new user, who has a password.
fn browse(script: &str, email: &str, prepare: impl FnOnce(&mut Command)) {
    let platform = shared();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console");
    assert!(scripts.join("node_modules").exists(), "Playwright is missing: run `npm --prefix tests/console ci` once");
    let input = format!("{PASSWORD}\n");
    platform.cli_with_input(&["users:create", email, "--password"], input.as_bytes()).expect_ok();
    let picture = std::env::temp_dir().join(format!("{script}-failure.png"));
    let ran = platform.run("node", |command| {
        command
            .arg(scripts.join(script))
            .env("CONSOLE_URL", platform.url())
            .env("CONSOLE_EMAIL", email)
            .env("CONSOLE_PASSWORD", PASSWORD)
            .env("CONSOLE_PICTURE", &picture);
        prepare(command);
    });
    assert!(ran.ok, "what it looked like is in {}:\n{}", picture.display(), ran.text);
}

#[test]
fn people_do_their_work_in_a_browser() {
    let copy = shared().working_copy("seen", "probe-app");
    copy.edit("probe.py", "print(query", "print(__import__('urllib.parse').parse.unquote(query)");
    copy.commit("Log what is asked for");
    browse("console.mjs", "dev@localhost", |command| {
        command.env("CONSOLE_APP", &copy.name).env("CONSOLE_REPOSITORY", &copy.folder);
    });
}

#[test]
fn people_let_each_other_and_programs_in() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/heroku/node_modules/.bin");
    assert!(programs.join("heroku").exists(), "heroku is missing: run `npm --prefix tests/heroku ci` once");
    browse("people.mjs", "grace@localhost", |command| {
        command.env("CONSOLE_PLATFORM", env!("CARGO_BIN_EXE_platform")).env("CONSOLE_HEROKU", programs.join("heroku"));
    });
}

/// The part of a text between two others; empty if it is not there.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).and_then(|(_, rest)| rest.split_once(after)).map_or("", |(found, _)| found)
}

#[test]
fn only_the_link_that_root_is_told_makes_the_first_user_and_only_once() {
    let platform = Platform::fresh();
    let up = platform.cli(&["up", "--detach"]).expect_ok();
    let link =
        up.text.split_whitespace().find(|word| word.contains("/console/setup?token=")).expect("a link").to_owned();
    let jar = platform.home().join("cookies");
    let browse = |args: &[&str]| {
        platform
            .run("curl", |curl| {
                curl.args(["-sS", "-L", "-w", " %{http_code} %{url_effective}", "-H", "Accept: text/html"]);
                curl.arg("-b").arg(&jar).arg("-c").arg(&jar).args(args);
            })
            .expect_ok()
    };
    let stranger = browse(&[&platform.url()]).expect_text(&["/console/setup", "This platform has no user yet"]);
    assert!(!stranger.text.contains("name=\"password\""), "a stranger is shown no form:\n{}", stranger.text);

    let page = browse(&[&link]).expect_text(&["name=\"password\"", " 200 "]).text;
    let csrf = format!("csrf={}", between(&page, "name=\"csrf\" value=\"", "\""));
    let token = link.split_once('?').map(|(_, token)| token.to_owned()).expect("a token");
    let setup = format!("{}/console/setup", platform.url());
    let create = |token: &str, email: &str| {
        let email = format!("email={email}");
        browse(&["-d", &csrf, "-d", token, "-d", &email, "-d", "password=correct-horse", &setup])
    };
    create("token=guess", "eve@example.com").expect_text(&["This link is not good", " 422 "]);
    create(&token, "ada@example.com").expect_text(&["Nothing runs here yet", "ada@example.com", "/console/apps"]);
    create(&token, "eve@example.com").expect_text(&["The first user was made already", " 422 "]);
    let again = platform.cli(&["up", "--detach"]).expect_ok();
    assert!(!again.text.contains("token="), "there is no other first user:\n{}", again.text);
}
