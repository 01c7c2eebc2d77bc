//! What a buildpack tells the person who pushed, in Heroku's form.
#![expect(
    clippy::print_stdout,
    reason = "a buildpack's standard output is its way to speak (Buildpack spec, \"Output\")"
)]

/// A step begins: `-----> Installing Node.js 24.1.0`.
pub(crate) fn heading(text: &str) {
    println!("-----> {text}");
}

/// More about the step.
pub(crate) fn line(text: &str) {
    if text.is_empty() {
        println!();
    } else {
        println!("       {text}");
    }
}

/// Something to know that does not stop the build.
pub(crate) fn warning(text: &str) {
    marked(&format!("Warning: {text}"));
}

/// Why the build stops.
pub(crate) fn error(text: &str) {
    println!();
    marked(text);
    println!();
}

fn marked(text: &str) {
    for line in text.lines() {
        println!("{}", format!(" !     {line}").trim_end());
    }
}

/// Why a buildpack does not take an app; the platform shows it if none does.
pub(crate) fn not_detected(text: &str) {
    println!("{text}");
}
