//! What a buildpack tells the person who pushed, in Heroku's form.

use std::io::Write;

/// A step begins: `-----> Installing Node.js 24.1.0`.
pub(crate) fn heading(text: &str) {
    print("-----> ", text);
}

/// More about the step.
pub(crate) fn line(text: &str) {
    print("       ", text);
}

/// Something to know that does not stop the build.
pub(crate) fn warning(text: &str) {
    marked(&format!("Warning: {text}"));
}

/// Why the build stops.
pub(crate) fn error(text: &str) {
    line("");
    marked(text);
    line("");
}

/// Why a buildpack does not take an app; the platform shows it if none does.
pub(crate) fn not_detected(text: &str) {
    print("", text);
}

fn marked(text: &str) {
    for line in text.lines() {
        print(" !     ", line);
    }
}

fn print(mark: &str, text: &str) {
    // Output that nobody reads must not end the build.
    let _ = writeln!(std::io::stdout().lock(), "{}", format!("{mark}{text}").trim_end());
}
