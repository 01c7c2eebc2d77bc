//! The words for a release that did not get live, and what was seen of it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;

use engine::{ProbeReport, Purpose};
use model::{AppId, DynoName, Exit, Timestamp};
use serde::{Deserialize, Serialize};

use super::plan::{Cause, Sick};
use super::traffic::Tally;
use super::workload::PORT;
use crate::Controller;
use crate::logs::Filter;
use crate::sizes::Sizes;

/// What the check is called that is made of every web process.
const LISTENING: &str = "listening";
/// Lines of the dyno's own log that are shown.
const LOG_LINES: usize = 50;
/// Goes before each of them, and before all of them.
const QUOTE: &str = "    ";
const QUOTES: &str = "  Its last ";

/// Why a release is not live: one sentence, and what it is known from. As it is kept, and as the API tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// What kind of thing happened: `crashed`, `not_listening`, `check_failed`, `out_of_memory`, `stalled`, `errors`,
    /// `release_command`, `refused`, `aborted`.
    pub cause: String,
    /// What happened.
    pub sentence: String,
    /// The dyno that it happened to.
    pub dyno: Option<String>,
    /// What its process returned.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// How much memory it may have, in bytes, if it outgrew that.
    pub memory_limit: Option<u64>,
    /// The next larger size, if it outgrew its own.
    pub try_size: Option<String>,
    /// The check that failed; none if it is only whether it listens.
    pub check: Option<String>,
    /// What the last probe was answered.
    pub probe: Option<String>,
    /// Milliseconds after the start of its process, when that was.
    pub probed_after_ms: Option<u64>,
    /// Where it listened.
    pub listening: Vec<String>,
    /// The last lines that it printed.
    pub log: Vec<String>,
    /// What to know beside, in sentences.
    pub hints: Vec<String>,
}

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

impl Failure {
    /// The same, of a release that had been live.
    pub(super) fn after_it_was_live(mut self, before: u64) -> Self {
        self.sentence = self.sentence.replacen("did not become healthy", "did not stay healthy", 1);
        self.hints.push(format!("The app goes back to v{before} by itself."));
        self
    }

    /// Whether what it answers is the reason, and not that it does not run.
    pub(super) fn is_of_answers(&self) -> bool {
        ["aborted", "errors"].contains(&self.cause.as_str())
    }

    /// One that is known by its sentence alone.
    pub(super) fn of(cause: &str, sentence: String) -> Self {
        Self { cause: cause.to_owned(), sentence, ..Self::default() }
    }

    /// What made a rollout fail; `log` holds the last lines of the dyno that did.
    pub(super) fn new(version: u64, cause: &Cause, log: Vec<String>, sizes: &Sizes) -> Self {
        match cause {
            Cause::Errors { old, new } => {
                let share = |tally: &Tally| {
                    let bad = tally.lost + tally.errors;
                    let tenths = (bad * 1000).checked_div(tally.requests).unwrap_or(0);
                    format!("{}.{} % of {} requests", tenths / 10, tenths % 10, tally.requests)
                };
                let (now, before) = (share(new), share(old));
                let sentence =
                    format!("v{version} answers worse than the release before it: {now} went wrong, against {before}.");
                Self::of("errors", sentence)
            }
            Cause::Aborted => Self::of("aborted", format!("v{version} was ended before it was live.")),
            Cause::Crashed(sick) => {
                let (kind, what) = crashed(sick, sizes);
                let sentence = format!("v{version} did not become healthy: {} {what}.", sick.dyno);
                Self::of(kind, sentence).seen(sick, log, sizes)
            }
            Cause::Stalled { waited, missing } => {
                let time = format!("{} s", waited.as_secs());
                let Some(sick) = missing else {
                    let sentence =
                        format!("v{version} did not become healthy: for {time} not every dyno of it was even started.");
                    let hint = "The platform's host may be away, or busy with others: `platform status`.".to_owned();
                    return Self { hints: vec![hint], ..Self::of("stalled", sentence) };
                };
                let sentence = format!(
                    "v{version} did not become healthy: for {time} it came no further than {}, which is {}.",
                    sick.dyno, sick.state
                );
                Self::of("stalled", sentence).seen(sick, log, sizes)
            }
        }
    }

    fn seen(mut self, sick: &Sick, log: Vec<String>, sizes: &Sizes) -> Self {
        self.dyno = Some(sick.dyno.to_string());
        match sick.exit {
            Some(Exit::Code(code)) => self.exit_code = Some(code),
            Some(Exit::Signal(signal)) => self.signal = Some(signal),
            Some(Exit::OutOfMemory) => {
                let size = sizes.find(&sick.size);
                self.memory_limit = size.map(|size| size.memory_bytes);
                self.try_size = size.and_then(|size| sizes.larger(size)).map(|size| size.name.clone());
            }
            Some(Exit::Lost) | None => {}
        }
        if let Some(probe) = &sick.probe {
            self.check = Some(probe.check.clone()).filter(|check| check != LISTENING);
            self.probe = Some(probe.result.clone());
            self.probed_after_ms = u64::try_from(probe.after.as_millis()).ok();
            self.listening = probe.listening.iter().map(ToString::to_string).collect();
            self.hints.push(listening(probe));
        }
        if let Some(size) = &self.try_size {
            let (process, size) = (&sick.dyno.process_type, size.to_ascii_lowercase());
            self.hints.push(format!("The next size has more: `platform ps:type {process}={size}`."));
        }
        self.log = log;
        self
    }

    /// All of it, for people, with what serves now and what to do. `before` is the release that serves on.
    pub(super) fn text(&self, before: Option<u64>) -> String {
        let mut text = format!("{}\n", self.sentence);
        if let Some(probe) = &self.probe {
            let seconds = self.probed_after_ms.map_or(0, |ms| (ms + 50) / 100);
            let (seconds, tenth) = (seconds / 10, seconds % 10);
            let _ = match &self.check {
                None => write!(text, "  Last probe of $PORT ({PORT})"),
                Some(check) => write!(text, "  Last look by its check {check:?}"),
            };
            let _ = writeln!(text, ", {seconds}.{tenth} s after its start: {probe}.");
        }
        for hint in &self.hints {
            let _ = writeln!(text, "  {hint}");
        }
        if !self.log.is_empty() {
            let lines = if self.log.len() == 1 { "line" } else { "lines" };
            let _ = writeln!(text, "{QUOTES}{} log {lines}:", self.log.len());
            for line in &self.log {
                let _ = writeln!(text, "{QUOTE}{line}");
            }
        } else if self.dyno.is_some() {
            text += "  It printed nothing.\n";
        }
        let then = if self.cause == "aborted" { "" } else { " Mend the app and push again." };
        // Writing to a String cannot fail.
        let _ = match before {
            Some(before) => write!(text, "v{before} keeps serving.{then}"),
            None => write!(text, "Nothing was live before.{then}"),
        };
        text
    }
}

/// What a dyno that crashed did.
fn crashed(sick: &Sick, sizes: &Sizes) -> (&'static str, String) {
    match (sick.exit, &sick.probe) {
        // The engine's own doing (R10).
        (_, Some(probe)) if probe.fatal => {
            let (check, seconds) = (&probe.check, probe.after.as_secs());
            match probe.purpose {
                Purpose::Startup if !probe.listens_outside(PORT) => {
                    ("not_listening", format!("did not listen on $PORT within {seconds} s and was stopped"))
                }
                Purpose::Startup => {
                    let text = format!("did not pass its startup check {check:?} within {seconds} s and was stopped");
                    ("check_failed", text)
                }
                _ => ("check_failed", format!("did not pass its liveness check {check:?} any more and was stopped")),
            }
        }
        (Some(Exit::OutOfMemory), _) => {
            let limit = sizes.find(&sick.size).map_or_else(String::new, |size| {
                format!(": it may have {} MB ({})", size.memory_bytes >> 20, size.name)
            });
            ("out_of_memory", format!("ran out of memory{limit}"))
        }
        (Some(exit @ Exit::Code(0)), _) => ("crashed", format!("{exit}, but must stay in the foreground")),
        (Some(exit), _) => ("crashed", exit.to_string()),
        (None, _) => ("crashed", "did not stay up".to_owned()),
    }
}

/// What there is to say of where a web process listened that got no requests.
fn listening(probe: &ProbeReport) -> String {
    let list = |of: fn(&SocketAddr) -> String| Vec::from_iter(probe.listening.iter().map(of).collect::<BTreeSet<_>>());
    let ports = list(|address| address.port().to_string()).join(", ");
    if ports.is_empty() {
        "It listened on no port.".to_owned()
    } else if probe.listens_outside(PORT) {
        format!("It listened on port {ports}.")
    } else if probe.listening.iter().any(|address| address.port() == PORT) {
        let addresses = list(ToString::to_string).join(", ");
        format!("It listened on {addresses}, which nobody outside its container reaches: it must listen on 0.0.0.0.")
    } else {
        format!("It listened on port {ports}. A web process must listen on $PORT.")
    }
}

/// Whether a line of an explanation quotes the dyno's log.
pub(super) fn is_quoted(line: &str) -> bool {
    line.starts_with(QUOTE) || line.starts_with(QUOTES)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sick(exit: Option<Exit>, listening: Option<&[&str]>) -> Sick {
        let probe = listening.map(|addresses| ProbeReport {
            check: LISTENING.to_owned(),
            purpose: Purpose::Startup,
            result: "connection refused".to_owned(),
            listening: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
            after: Duration::from_millis(60_040),
            fatal: exit.is_some(),
        });
        let dyno = "web.1".parse().expect("a dyno");
        Sick { dyno, size: "Standard-1X".to_owned(), state: "starting", exit, probe }
    }

    #[test]
    fn the_message_says_what_happened_and_what_to_do() {
        let cause = Cause::Crashed(sick(Some(Exit::Code(0)), Some(&["0.0.0.0:3000", "[::]:3000", "127.0.0.1:9999"])));
        let failure = Failure::new(12, &cause, vec!["listening on 3000".to_owned()], &Sizes::built_in());
        let text = failure.text(Some(11));
        insta::assert_snapshot!(text, @r"
        v12 did not become healthy: web.1 did not listen on $PORT within 60 s and was stopped.
          Last probe of $PORT (5000), 60.0 s after its start: connection refused.
          It listened on port 3000, 9999. A web process must listen on $PORT.
          Its last 1 log line:
            listening on 3000
        v11 keeps serving. Mend the app and push again.
        ");
        assert_eq!((failure.cause.as_str(), failure.exit_code), ("not_listening", Some(0)));
        let logged: Vec<_> = text.lines().filter(|line| !is_quoted(line)).collect();
        assert_eq!(logged.len(), 4, "what the log has already is left out: {logged:?}");
        let cause = Cause::Crashed(sick(Some(Exit::Signal(9)), Some(&["127.0.0.1:5000"])));
        let text = Failure::new(12, &cause, Vec::new(), &Sizes::built_in()).text(None);
        assert!(text.contains("listened on 127.0.0.1:5000, which nobody outside its container reaches"), "{text}");
        let text = Failure::new(1, &Cause::Crashed(sick(Some(Exit::Code(7)), None)), Vec::new(), &Sizes::built_in())
            .text(None);
        insta::assert_snapshot!(text, @r"
        v1 did not become healthy: web.1 exited with code 7.
          It printed nothing.
        Nothing was live before. Mend the app and push again.
        ");
    }

    #[test]
    fn a_check_that_failed_is_named_with_what_it_saw() {
        let mut sick = sick(Some(Exit::Code(0)), Some(&["0.0.0.0:5000"]));
        let probe = sick.probe.as_mut().expect("a probe");
        (probe.check, probe.result) = ("GET /up".to_owned(), "GET /up was answered with 500".to_owned());
        let failure = Failure::new(12, &Cause::Crashed(sick), Vec::new(), &Sizes::built_in());
        assert_eq!((failure.cause.as_str(), failure.check.as_deref()), ("check_failed", Some("GET /up")));
        insta::assert_snapshot!(failure.text(Some(11)), @r#"
        v12 did not become healthy: web.1 did not pass its startup check "GET /up" within 60 s and was stopped.
          Last look by its check "GET /up", 60.0 s after its start: GET /up was answered with 500.
          It listened on port 5000.
          It printed nothing.
        v11 keeps serving. Mend the app and push again.
        "#);
    }

    #[test]
    fn who_outgrows_their_memory_is_told_the_limit_and_the_next_size() {
        let failure =
            Failure::new(3, &Cause::Crashed(sick(Some(Exit::OutOfMemory), None)), Vec::new(), &Sizes::built_in());
        insta::assert_snapshot!(failure.text(Some(2)), @r"
        v3 did not become healthy: web.1 ran out of memory: it may have 512 MB (Standard-1X).
          The next size has more: `platform ps:type web=standard-2x`.
          It printed nothing.
        v2 keeps serving. Mend the app and push again.
        ");
        assert_eq!(failure.memory_limit, Some(512 << 20));
    }

    #[test]
    fn who_comes_no_further_is_told_what_is_missing() {
        let waited = Duration::from_secs(600);
        let missing = Some(sick(None, Some(&[])));
        let text = Failure::new(3, &Cause::Stalled { waited, missing }, Vec::new(), &Sizes::built_in()).text(Some(2));
        insta::assert_snapshot!(text, @r"
        v3 did not become healthy: for 600 s it came no further than web.1, which is starting.
          Last probe of $PORT (5000), 60.0 s after its start: connection refused.
          It listened on no port.
          It printed nothing.
        v2 keeps serving. Mend the app and push again.
        ");
        let text =
            Failure::new(3, &Cause::Stalled { waited, missing: None }, Vec::new(), &Sizes::built_in()).text(Some(2));
        insta::assert_snapshot!(text, @r"
        v3 did not become healthy: for 600 s not every dyno of it was even started.
          The platform's host may be away, or busy with others: `platform status`.
        v2 keeps serving. Mend the app and push again.
        ");
    }
}
