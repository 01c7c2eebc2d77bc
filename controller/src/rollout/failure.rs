//! The words for a release that did not get healthy.

use std::fmt::Write;

use model::{AppId, DynoName, Exit, Timestamp};

use super::plan::Failure;
use super::workload::PORT;
use crate::Controller;
use crate::logs::Filter;

/// Lines of the dyno's own log that are shown.
const LOG_LINES: usize = 50;
/// Goes before each of them, and before all of them.
const QUOTE: &str = "    ";
const QUOTES: &str = "  Its last ";

impl Controller {
    /// The last lines of a dyno's own output, without time and source.
    pub(crate) async fn dyno_log(&self, app: AppId, dyno: &DynoName, since: Timestamp) -> Vec<String> {
        let filter = Filter { source: Some("app".to_owned()), process: Some(dyno.to_string()) };
        let reader = self.log_reader();
        let read = tokio::task::spawn_blocking(move || reader.last(app, LOG_LINES, filter));
        // Without its log a failure is still worth telling.
        let Ok(Ok((lines, _))) = read.await else { return Vec::new() };
        let since = since.to_log_time();
        let text = |line: &String| line.split_once("]: ").map(|(_, text)| text.to_owned());
        lines.iter().filter(|line| line.as_str() >= since.as_str()).filter_map(text).collect()
    }
}

/// Why a release is not live, and what to do. `log` holds the last lines of the dyno; `before` is the release that serves on.
pub(super) fn explain(failure: &Failure, version: u64, before: Option<u64>, log: &[String]) -> String {
    let mut text = format!("v{version} did not become healthy: {} ", failure.dyno);
    match (failure.exit, &failure.probe) {
        // The engine's own doing (R10).
        (Some(Exit::Signal(9)), Some(probe)) => {
            let _ = write!(text, "did not listen on $PORT within {} s and was stopped", probe.after.as_secs());
        }
        (Some(exit), _) => text += &exit.to_string(),
        (None, _) => text += "did not stay up",
    }
    text += ".\n";
    if let Some(probe) = &failure.probe {
        let seconds = probe.after.as_secs_f32();
        let _ = writeln!(text, "  Last probe of $PORT ({PORT}), {seconds:.1} s after its start: {}.", probe.result);
        let ports: Vec<String> = probe.listening.iter().map(u16::to_string).collect();
        if ports.is_empty() {
            text += "  It listened on no port.\n";
        } else if probe.listening.contains(&PORT) {
            let ports = ports.join(", ");
            let _ = writeln!(
                text,
                "  It listened on port {ports}, but not for others: a web process must listen on 0.0.0.0, not on 127.0.0.1 or localhost."
            );
        } else {
            let _ = writeln!(text, "  It listened on port {}. A web process must listen on $PORT.", ports.join(", "));
        }
    }
    if log.is_empty() {
        text += "  It printed nothing.\n";
    } else {
        let lines = if log.len() == 1 { "line" } else { "lines" };
        let _ = writeln!(text, "{QUOTES}{} log {lines}:", log.len());
        for line in log {
            let _ = writeln!(text, "{QUOTE}{line}");
        }
    }
    match before {
        Some(before) => write!(text, "v{before} keeps serving. Mend the app and push again."),
        None => write!(text, "Nothing was live before. Mend the app and push again."),
    }
    .unwrap_or_default();
    text
}

/// Whether a line of an explanation quotes the dyno's log.
pub(super) fn is_quoted(line: &str) -> bool {
    line.starts_with(QUOTE) || line.starts_with(QUOTES)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::ProbeReport;

    use super::*;

    #[test]
    fn the_message_says_what_happened_and_what_to_do() {
        let probe = ProbeReport {
            result: "connection refused".to_owned(),
            listening: vec![3000, 9999],
            after: Duration::from_millis(60_040),
        };
        let dyno = "web.1".parse().expect("a dyno");
        let failure = Failure { dyno, exit: Some(Exit::Signal(9)), probe: Some(probe) };
        let text = explain(&failure, 12, Some(11), &["listening on 3000".to_owned()]);
        insta::assert_snapshot!(text, @r"
        v12 did not become healthy: web.1 did not listen on $PORT within 60 s and was stopped.
          Last probe of $PORT (5000), 60.0 s after its start: connection refused.
          It listened on port 3000, 9999. A web process must listen on $PORT.
          Its last 1 log line:
            listening on 3000
        v11 keeps serving. Mend the app and push again.
        ");
        let logged: Vec<_> = text.lines().filter(|line| !is_quoted(line)).collect();
        assert_eq!(logged.len(), 4, "what the log has already is left out: {logged:?}");
        let probe = ProbeReport {
            result: "connection refused".to_owned(),
            listening: vec![PORT],
            after: Duration::from_secs(60),
        };
        let failure = Failure { probe: Some(probe), ..failure };
        let text = explain(&failure, 12, None, &[]);
        assert!(text.contains("listened on port 5000, but not for others"), "{text}");
        let failure = Failure { exit: Some(Exit::Code(7)), probe: None, ..failure };
        let text = explain(&failure, 1, None, &[]);
        insta::assert_snapshot!(text, @r"
        v1 did not become healthy: web.1 exited with code 7.
          It printed nothing.
        Nothing was live before. Mend the app and push again.
        ");
    }
}
