//! Lines of a log as a receiver gets them.

use model::Timestamp;

/// Facility and severity: local7.info for what an app says, local3.info for what the platform says of it; those of Heroku.
const APP: u8 = 190;
const PLATFORM: u8 = 158;
/// Characters of the time that begins a line.
const TIME: usize = 32;
/// Longest name of a process (RFC 5424, section 6: PROCID).
const MAX_PROCESS: usize = 128;

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// As RFC 5424 has it.
    Syslog,
    /// The same without structured data, and a newline at the end: `application/logplex-1`.
    Logplex,
}

/// A line of a log, `2026-11-21T02:39:46.255000+00:00 app[web.1]: text`, as a frame: its length, a space, the message. None if
/// it is not whole.
pub(super) fn frame(line: &str, token: &str, format: Format) -> Option<Vec<u8>> {
    let (time, rest) = (line.get(..TIME)?, line.get(TIME + 1..)?);
    let (source, rest) = rest.split_once('[')?;
    let (process, text) = rest.split_once("]: ").or_else(|| Some((rest.strip_suffix("]:")?, "")))?;
    let priority = if source == "app" { APP } else { PLATFORM };
    Some(message((priority, time), (source, process), (text, token), format))
}

/// What tells of lines that were dropped.
pub(super) fn overflow((count, since): (u64, Timestamp), now: Timestamp, token: &str, format: Format) -> Vec<u8> {
    let text = format!("Error L10 (output buffer overflow): {count} messages dropped since {}.", since.to_rfc3339());
    message((PLATFORM, &now.to_log_time()), ("heroku", "logplex"), (&text, token), format)
}

fn message(
    (priority, time): (u8, &str),
    (source, process): (&str, &str),
    (text, token): (&str, &str),
    format: Format,
) -> Vec<u8> {
    let process: String =
        process.chars().take(MAX_PROCESS).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    let message = match format {
        Format::Syslog => format!("<{priority}>1 {time} {token} {source} {process} - - {text}"),
        Format::Logplex => format!("<{priority}>1 {time} host {source} {process} - {text}\n"),
    };
    format!("{} {message}", message.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str, format: Format) -> Option<String> {
        frame(line, "d.1", format).map(|frame| String::from_utf8(frame).expect("text"))
    }

    #[test]
    fn a_line_becomes_a_counted_message() {
        let line = "2026-11-21T02:39:46.255000+00:00 app[web.1]: grüße [x]: y";
        let message = "<190>1 2026-11-21T02:39:46.255000+00:00 d.1 app web.1 - - grüße [x]: y";
        assert_eq!(text(line, Format::Syslog).expect("a frame"), format!("{} {message}", message.len()));
        let message = "<190>1 2026-11-21T02:39:46.255000+00:00 host app web.1 - grüße [x]: y\n";
        assert_eq!(text(line, Format::Logplex).expect("a frame"), format!("{} {message}", message.len()));
        let empty = text("2026-11-21T02:39:46.255000+00:00 heroku[router]: ", Format::Syslog).expect("a frame");
        assert!(empty.ends_with("<158>1 2026-11-21T02:39:46.255000+00:00 d.1 heroku router - - "), "{empty}");
        for broken in ["", "2026", "2026-11-21T02:39:46.255000+00:00 app", "ü".repeat(40).as_str()] {
            assert_eq!(text(broken, Format::Syslog), None, "{broken}");
        }
    }
}
