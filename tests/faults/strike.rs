//! One fault under load: what visitors saw of it, and how long that lasted.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::load::{Load, Seen};
use crate::platform::App;

/// Says something to whoever makes docs/faults.md.
#[expect(clippy::print_stderr, reason = "the figures are what it is for")]
pub(super) fn say(line: &str) {
    eprintln!("{line}");
}

/// Lets `fault` happen while visitors of every kind use `app`, and waits until `is_right` again. Prints a row of docs/faults.md.
pub(super) fn strike(name: &str, app: &App<'_>, fault: impl FnOnce(), is_right: impl FnMut() -> bool) -> Seen {
    let mut right = 0.0;
    let seen = Load::around(app, || {
        let begun = Instant::now();
        fault();
        crate::until(name, is_right);
        right = begun.elapsed().as_secs_f64();
    });
    let Seen { answered, failed, .. } = seen;
    say(&format!("| {name} | {right:.1} s | {failed} of {} |", answered + failed));
    seen
}

/// The dynos of the formation that are up and, if they are web's, get requests: their ids.
pub(super) fn up(app: &App<'_>) -> BTreeSet<String> {
    let dynos = app.json(&["ps"]);
    let up = dynos.as_array().into_iter().flatten().filter(|dyno| dyno["state"] == "up" && dyno["routed"] != false);
    up.filter_map(|dyno| dyno["id"].as_str().map(str::to_owned)).collect()
}

/// An app with two web dynos.
pub(super) fn pair(app: &App<'_>) -> BTreeSet<String> {
    app.push().expect_ok();
    app.cli(&["ps:scale", "web=2"]).expect_ok();
    crate::until("both are up", || up(app).len() == 2);
    up(app)
}
