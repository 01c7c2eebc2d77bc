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
        let parsed = parse(&text)?;
        for warning in &parsed.warnings {
            output::warning(warning);
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

/// A Procfile that was understood.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    processes: BTreeMap<String, String>,
    warnings: Vec<String>,
}

fn parse(text: &str) -> Result<Parsed, PackError> {
    let mut parsed = Parsed::default();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let invalid = |reason: &'static str| PackError::ProcfileLine { number, line: line.to_owned(), reason };
        let (name, command) = line.split_once(':').ok_or_else(|| invalid("there is no colon after the name"))?;
        let (written, command) = (name.trim(), command.trim());
        if command.is_empty() {
            return Err(invalid("there is no command after the colon"));
        }
        let name = written.to_ascii_lowercase().replace('_', "-");
        if !is_process_type(&name) {
            return Err(invalid(
                "a name is 1 to 63 letters, digits and dashes, and begins and ends with a letter or digit",
            ));
        }
        if name != written {
            parsed.warnings.push(format!("process type `{written}` is called `{name}` here"));
        }
        if parsed.processes.insert(name.clone(), command.to_owned()).is_some() {
            parsed.warnings.push(format!("process type `{name}` is declared more than once; line {number} counts"));
        }
    }
    Ok(parsed)
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
        let parsed = parse(text).unwrap();
        let processes: Vec<_> =
            parsed.processes.iter().map(|(name, command)| (name.as_str(), command.as_str())).collect();
        assert_eq!(
            processes,
            [("release-task", "./x # not a comment"), ("web", "other"), ("worker", "rake jobs:work")]
        );
        assert_eq!(
            parsed.warnings,
            [
                "process type `Release_Task` is called `release-task` here",
                "process type `web` is declared more than once; line 6 counts"
            ]
        );
    }

    #[test]
    fn a_line_that_is_none_is_refused_with_its_number_and_the_reason() {
        for text in ["web python app.py", "web:", "-web: x", ": x", "we b: x"] {
            let error = parse(&format!("# first\n{text}")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("Line 2 of the Procfile, `{}`", text.trim())), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            if let Ok(parsed) = parse(&text) {
                for (name, command) in parsed.processes {
                    prop_assert!(is_process_type(&name));
                    prop_assert!(!command.trim().is_empty());
                }
            }
        }

        #[test]
        fn what_is_declared_is_found(name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", command in "[!-~]([ -~]{0,40}[!-~])?") {
            let parsed = parse(&format!("# x\n\n{name}: {command}\n")).unwrap();
            prop_assert_eq!(parsed.processes.get(&name), Some(&command));
        }
    }
}
