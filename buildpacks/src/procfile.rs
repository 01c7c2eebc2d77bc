//! Procfile: what an app runs, in the app's own words.
//!
//! A line is `name: command`. Comments begin with `#`. Names are process types: letters, digits and dashes; Heroku's older
//! rules also allowed upper case and `_`, which become lower case and `-`.

use std::collections::BTreeMap;
use std::path::Path;

use libcnb::data::launch::Process;

use crate::error::PackError;
use crate::pack::{self, Build, Language};
use crate::{files, output};

pub(crate) struct Procfile;

const FILE: &str = "Procfile";
/// Longest name of a process type, in bytes.
const NAME_LIMIT: usize = 63;

/// Heroku starts every process in a shell that read these (Dev Center, "Dynos and the dyno manager").
const PROFILE: &str = "for f in .profile.d/*.sh .profile; do [ -f \"$f\" ] && . \"./$f\"; done; ";

impl Language for Procfile {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join(FILE).is_file() { Ok(()) } else { Err("Procfile: no Procfile at the top of the app".to_owned()) }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let text = files::read(build.app(), FILE)?.unwrap_or_default();
        let parsed = parse(&text);
        if let Some(error) = parsed.errors.into_iter().next() {
            return Err(error);
        }
        for warning in &parsed.warnings {
            output::warning(&warning.message);
        }
        if parsed.processes.is_empty() {
            return Err(PackError::ProcfileEmpty);
        }
        let names: Vec<&str> = parsed.processes.keys().map(String::as_str).collect();
        output::heading("Discovering process types");
        output::line(&format!("Procfile declares types -> {}", names.join(", ")));
        let has_profile = build.app().join(".profile").is_file() || build.app().join(".profile.d").is_dir();
        let prelude = if has_profile { PROFILE } else { "" };
        let process = |(name, command): (&String, &String)| pack::shell_process(name, &format!("{prelude}{command}"));
        parsed.processes.iter().map(process).collect()
    }
}

/// What is wrong with a Procfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// From 1.
    pub line: usize,
    /// What.
    pub message: String,
    /// A build would be refused.
    pub fatal: bool,
}

/// What a build would say to a Procfile: refusals and warnings, by line.
pub fn check(text: &str) -> Vec<Remark> {
    let parsed = parse(text);
    let is_empty = parsed.processes.is_empty() && parsed.errors.is_empty();
    let refusal = |error: &PackError| match error {
        PackError::ProcfileLine { number, reason, .. } => {
            Remark { line: *number, message: (*reason).to_owned(), fatal: true }
        }
        other => Remark { line: 1, message: other.to_string(), fatal: true },
    };
    let mut remarks: Vec<Remark> = parsed.errors.iter().map(refusal).chain(parsed.warnings).collect();
    if is_empty {
        remarks.push(Remark { line: 1, message: "it declares nothing".to_owned(), fatal: true });
    }
    remarks.sort_by_key(|remark| remark.line);
    remarks
}

/// A Procfile, as far as it was understood.
#[derive(Debug, Default)]
struct Parsed {
    processes: BTreeMap<String, String>,
    warnings: Vec<Remark>,
    errors: Vec<PackError>,
}

fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line) {
            Ok((written, command)) => parsed.declare(number, written, command),
            Err(reason) => parsed.errors.push(PackError::ProcfileLine { number, line: line.to_owned(), reason }),
        }
    }
    parsed
}

impl Parsed {
    fn declare(&mut self, line: usize, written: &str, command: &str) {
        let name = canonical(written);
        let mut warn = |message: String| self.warnings.push(Remark { line, message, fatal: false });
        if name != written {
            warn(format!("process type `{written}` is called `{name}` here"));
        }
        if self.processes.insert(name.clone(), command.to_owned()).is_some() {
            warn(format!("process type `{name}` is declared more than once; line {line} counts"));
        }
    }
}

/// The name as it is written, and the command.
fn parse_line(line: &str) -> Result<(&str, &str), &'static str> {
    let (name, command) = line.split_once(':').ok_or("there is no colon after the name")?;
    let (name, command) = (name.trim(), command.trim());
    if command.is_empty() {
        return Err("there is no command after the colon");
    }
    if !is_process_type(&canonical(name)) {
        return Err("a name is 1 to 63 letters, digits and dashes, and begins and ends with a letter or digit");
    }
    Ok((name, command))
}

fn canonical(written: &str) -> String {
    written.to_ascii_lowercase().replace('_', "-")
}

fn is_process_type(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_LIMIT).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_procfile_as_people_write_it() {
        let text = "\u{feff}# what runs\nweb:   gunicorn app:app --bind 0.0.0.0:$PORT  \r\n\nworker:rake jobs:work\nRelease_Task: ./x # not a comment\nweb: other\n";
        let parsed = parse(text);
        let processes: Vec<_> =
            parsed.processes.iter().map(|(name, command)| (name.as_str(), command.as_str())).collect();
        assert_eq!(
            processes,
            [("release-task", "./x # not a comment"), ("web", "other"), ("worker", "rake jobs:work")]
        );
        let warnings: Vec<_> = check(text).into_iter().map(|remark| remark.message).collect();
        assert_eq!(
            warnings,
            [
                "process type `Release_Task` is called `release-task` here",
                "process type `web` is declared more than once; line 6 counts"
            ]
        );
    }

    #[test]
    fn a_line_that_is_none_is_refused_with_its_number_and_the_reason() {
        for text in ["web python app.py", "web:", "-web: x", ": x", "we b: x"] {
            let parsed = parse(&format!("# first\n{text}"));
            let error = parsed.errors.first().unwrap().to_string();
            assert!(error.starts_with(&format!("Line 2 of the Procfile, `{}`", text.trim())), "{error}");
        }
    }

    #[test]
    fn all_of_a_procfile_is_checked_before_a_build() {
        let remarks = check("web\nWorker: x\nweb:\n");
        let said: Vec<_> = remarks.iter().map(|remark| (remark.line, remark.fatal)).collect();
        assert_eq!(said, [(1, true), (2, false), (3, true)]);
        assert_eq!(check("# nothing\n")[0].message, "it declares nothing");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            for remark in check(&text) {
                prop_assert!((1..=text.lines().count().max(1)).contains(&remark.line));
            }
            for (name, command) in parse(&text).processes {
                prop_assert!(is_process_type(&name));
                prop_assert!(!command.trim().is_empty());
            }
        }

        #[test]
        fn what_is_declared_is_found(name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", command in "[!-~]([ -~]{0,40}[!-~])?") {
            let parsed = parse(&format!("# x\n\n{name}: {command}\n"));
            prop_assert_eq!(parsed.processes.get(&name), Some(&command));
        }
    }
}
