//! What commands print: lines, tables, JSON and progress. Results go to stdout, everything else to stderr.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Attribute, Cell, ContentArrangement, Table};
use crossterm::style::Stylize;
use indicatif::{ProgressBar, ProgressStyle};
use model::Timestamp;
use serde_json::Value;

use crate::error::{CliError, Result};

pub(crate) use crossterm::style::Color;

/// Puts colours around text, or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    /// Colours if `stream` is a terminal that shows them and nobody objects: `NO_COLOR`, `CLICOLOR=0`, `TERM=dumb`. Elsewhere only
    /// if somebody insists: `CLICOLOR_FORCE=1`.
    pub(crate) fn detect(stream: &impl IsTerminal) -> Self {
        Self(wants_colors(stream.is_terminal(), |name| std::env::var(name).ok()))
    }

    /// Always colours.
    pub(crate) fn forced() -> Self {
        Self(true)
    }

    /// Never colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self(false)
    }

    /// `text` in `color`.
    pub(crate) fn color(self, color: Color, text: &str) -> String {
        if self.0 { text.with(color).to_string() } else { text.to_owned() }
    }

    /// `text` in bold.
    pub(crate) fn strong(self, text: &str) -> String {
        if self.0 { text.bold().to_string() } else { text.to_owned() }
    }
}

/// What <https://no-color.org> and <https://bixense.com/clicolors> say of the environment.
fn wants_colors(is_terminal: bool, env: impl Fn(&str) -> Option<String>) -> bool {
    let is_set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
    if is_set("NO_COLOR") {
        return false;
    }
    if is_set("CLICOLOR_FORCE") && env("CLICOLOR_FORCE").as_deref() != Some("0") {
        return true;
    }
    is_terminal && env("CLICOLOR").as_deref() != Some("0") && env("TERM").as_deref() != Some("dumb")
}

/// Where a command prints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Colours of stdout.
    pub(crate) paint: Paint,
    progress: Paint,
}

impl Output {
    /// Looks at what stdout and stderr are.
    pub(crate) fn detect() -> Self {
        Self { paint: Paint::detect(&io::stdout()), progress: Paint::detect(&io::stderr()) }
    }

    /// One line of result.
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn line(self, text: impl AsRef<str>) -> Result<()> {
        writeln!(io::stdout(), "{}", text.as_ref()).map_err(CliError::from)
    }

    /// A heading over a part of the result: `=== my-app`.
    pub(crate) fn heading(self, text: &str) -> Result<()> {
        self.line(format!("{} {}", self.paint.color(Color::DarkGrey, "==="), self.paint.strong(text)))
    }

    /// The API's own JSON, for programs.
    pub(crate) fn json(self, value: &Value) -> Result<()> {
        self.line(format!("{value:#}"))
    }

    /// Rows under a header, for people. `empty` is said, on stderr, when there are none.
    pub(crate) fn table(self, header: &[&str], rows: Vec<Vec<Field>>, empty: &str) -> Result<()> {
        if rows.is_empty() {
            self.note(empty);
            return Ok(());
        }
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        if let Some(width) = terminal_width() {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        if self.paint.0 {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(header.iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
        table.add_rows(rows.into_iter().map(|row| row.into_iter().map(Cell::from).collect::<Vec<_>>()));
        if let Some(first) = table.column_mut(0) {
            first.set_padding((0, 1));
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// `name: value` lines with the values under each other.
    pub(crate) fn pairs<N: AsRef<str>>(self, pairs: impl IntoIterator<Item = (N, Field)>) -> Result<()> {
        let pairs: Vec<_> = pairs.into_iter().collect();
        let width = pairs.iter().map(|(name, _)| name.as_ref().len() + 2).max().unwrap_or(0);
        for (name, value) in pairs {
            let name = name.as_ref();
            let gap = " ".repeat(width - name.len() - 1);
            self.line(format!("{}{gap}{}", self.paint.color(Color::DarkGreen, &format!("{name}:")), value.text))?;
        }
        Ok(())
    }

    /// Something that is good to know and not the result.
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn note(self, text: &str) {
        // Nobody can be told that stderr is closed.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Begins something that takes a while. On a terminal it shows what it is at; elsewhere only how it begins and ends.
    pub(crate) fn task(self, what: &str) -> Task {
        let bar = ProgressBar::new_spinner();
        // The template is a constant; without it the bar would only look plainer.
        if let Ok(style) = ProgressStyle::with_template("{prefix}... {elapsed}  {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        if bar.is_hidden() {
            let _ = write!(io::stderr(), "{what}... ");
        }
        Task { what: what.to_owned(), bar, paint: self.progress }
    }

    /// Does `work` between `Restarting web on my-app...` and ` done`.
    pub(crate) fn step<T>(self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _ = write!(io::stderr(), "{what}... ");
        let result = work();
        let end = match &result {
            Ok(_) => self.progress.color(Color::DarkGreen, "done"),
            Err(_) => self.progress.color(Color::DarkRed, "failed"),
        };
        let _ = writeln!(io::stderr(), "{end}");
        result
    }
}

/// Something that takes a while and says what it is at.
#[derive(Debug)]
pub(crate) struct Task {
    what: String,
    bar: ProgressBar,
    paint: Paint,
}

impl Task {
    /// Shows what it is at, on a terminal, until the next line or the end.
    pub(crate) fn show(&self, line: &str) {
        self.bar.set_message(Field::from(line).text);
    }

    /// Says how it ended and how long it took.
    pub(crate) fn end(self, well: bool) {
        let seconds = self.bar.elapsed().as_secs();
        if !self.bar.is_hidden() {
            self.bar.finish_and_clear();
            let _ = write!(io::stderr(), "{}... ", self.what);
        }
        let (color, end) = if well { (Color::DarkGreen, "done") } else { (Color::DarkRed, "failed") };
        let _ = writeln!(io::stderr(), "{} in {seconds} s", self.paint.color(color, end));
    }
}

/// Columns of the terminal that shows the output. Files and pipes get whole lines, and so do terminals too narrow for a table.
fn terminal_width() -> Option<u16> {
    let (columns, _) = io::stdout().is_terminal().then(crossterm::terminal::size)?.ok()?;
    (columns >= 60).then_some(columns)
}

/// One piece of a table: text, and what it means for the reader's mood.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    text: String,
    mood: Mood,
}

/// What a state means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Nothing special.
    Plain,
    /// As it should be.
    Good,
    /// On its way.
    Busy,
    /// Somebody should look.
    Bad,
}

impl Field {
    /// With this meaning.
    #[must_use]
    pub(crate) fn mood(mut self, mood: Mood) -> Self {
        self.mood = mood;
        self
    }
}

impl<T: AsRef<str>> From<T> for Field {
    fn from(text: T) -> Self {
        Self { text: harmless(text.as_ref()), mood: Mood::Plain }
    }
}

/// Bytes, for people.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{}.{} kB", bytes / 1_000, bytes % 1_000 / 100),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

/// A text as a shell reads it back, whatever is in it.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Text may come from anywhere, so what could drive the terminal is taken out.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect()
}

impl From<Field> for Cell {
    fn from(field: Field) -> Self {
        let cell = Cell::new(field.text);
        match field.mood {
            Mood::Plain => cell,
            Mood::Good => cell.fg(comfy_table::Color::DarkGreen),
            Mood::Busy => cell.fg(comfy_table::Color::DarkYellow),
            Mood::Bad => cell.fg(comfy_table::Color::DarkRed),
        }
    }
}

/// A time of the API (`2026-11-21T02:39:46Z`) as people say it: `2026-11-21 02:39:46 UTC (5 min ago)`.
pub(crate) fn when(time: &str, now: Timestamp) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(moment) => format!("{} ({})", moment.strftime("%Y-%m-%d %H:%M:%S UTC"), ago(time, now)),
        Err(_) => time.to_owned(),
    }
}

/// How long ago a time of the API was, or how long it is until then: `just now`, `5 min ago`, `in 3 days`.
pub(crate) fn ago(time: &str, now: Timestamp) -> String {
    let Ok(moment) = time.parse::<jiff::Timestamp>() else { return time.to_owned() };
    let moment = Timestamp::from_millis(moment.as_millisecond());
    match (span(now.since(moment)), span(moment.since(now))) {
        (None, None) => "just now".to_owned(),
        (Some(past), _) => format!("{past} ago"),
        (None, Some(ahead)) => format!("in {ahead}"),
    }
}

/// `5 min`; none if it is no time worth telling.
fn span(elapsed: Duration) -> Option<String> {
    let seconds = elapsed.as_secs();
    let (number, unit) = match seconds {
        0..10 => return None,
        10..60 => (seconds, "s"),
        60..3_600 => (seconds / 60, "min"),
        3_600..86_400 => (seconds / 3_600, "h"),
        86_400..172_800 => (1, "day"),
        _ => (seconds / 86_400, "days"),
    };
    Some(format!("{number} {unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_say_them() {
        let now = Timestamp::from_millis(1_795_228_786_000);
        assert_eq!(ago("2026-11-21T02:39:46Z", now), "just now");
        assert_eq!(ago("2026-11-21T02:35:00Z", now), "4 min ago");
        assert_eq!(ago("2026-11-20T02:00:00Z", now), "1 day ago");
        assert_eq!(when("2026-11-21T00:39:46Z", now), "2026-11-21 00:39:46 UTC (2 h ago)");
        assert_eq!(ago("2026-11-24T02:39:46Z", now), "in 3 days");
        assert_eq!(ago("2026-11-21T02:39:50Z", now), "just now", "clocks are never quite the same");
        assert_eq!(ago("never", now), "never");
    }

    #[test]
    fn colours_are_for_terminals_whose_people_want_them() {
        let wants = |is_terminal, name: &str, value: &str| {
            wants_colors(is_terminal, |asked| (asked == name).then(|| value.to_owned()))
        };
        assert!(wants(true, "", "") && !wants(false, "", ""));
        assert!(!wants(true, "NO_COLOR", "1") && wants(true, "NO_COLOR", ""));
        assert!(!wants(true, "CLICOLOR", "0") && !wants(true, "TERM", "dumb"));
        assert!(wants(false, "CLICOLOR_FORCE", "1") && !wants(false, "CLICOLOR_FORCE", "0"));
    }

    #[test]
    fn what_comes_from_elsewhere_cannot_drive_the_terminal() {
        assert_eq!(Field::from("a\u{7}b\r\u{1b}[31mc\n").text, "a b  [31mc\n");
    }
}
