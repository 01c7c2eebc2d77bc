//! The console, in a real browser: `console/console.mjs` has the steps.

use std::path::Path;

use crate::platform::shared;

const PASSWORD: &str = "correct horse battery";

#[test]
fn people_do_their_work_in_a_browser() {
    let platform = shared();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console");
    assert!(scripts.join("node_modules").exists(), "Playwright is missing: run `npm --prefix tests/console ci` once");
    let input = format!("{PASSWORD}\n");
    platform.cli_with_input(&["users:create", "dev@localhost", "--password"], input.as_bytes()).expect_ok();
    let copy = platform.working_copy("seen", "probe-app");
    copy.edit("probe.py", "print(query", "print(__import__('urllib.parse').parse.unquote(query)");
    copy.commit("Log what is asked for");
    let picture = std::env::temp_dir().join("console-failure.png");
    let ran = platform.run("node", |command| {
        command
            .arg(scripts.join("console.mjs"))
            .env("CONSOLE_URL", platform.url())
            .env("CONSOLE_EMAIL", "dev@localhost")
            .env("CONSOLE_PASSWORD", PASSWORD)
            .env("CONSOLE_APP", &copy.name)
            .env("CONSOLE_REPOSITORY", &copy.folder)
            .env("CONSOLE_PICTURE", &picture);
    });
    assert!(ran.ok, "what it looked like is in {}:\n{}", picture.display(), ran.text);
}
