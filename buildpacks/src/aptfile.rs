//! Aptfile: Debian packages that an app needs, one a line, as Heroku's apt buildpack reads them.
//!
//! The platform installs them before the build begins (see `packages` in the build plan); here is only what is said about them.

use std::path::Path;

use libcnb::data::launch::Process;

use crate::error::PackError;
use crate::pack::{Build, Language, Packages};
use crate::{files, output};

pub(crate) struct Aptfile;

const FILE: &str = "Aptfile";
/// Longest name of a package that is looked up, in bytes.
const NAME_LIMIT: usize = 100;

impl Language for Aptfile {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join(FILE).is_file() { Ok(()) } else { Err("Aptfile: no Aptfile at the top of the app".to_owned()) }
    }

    fn packages(&self, app: &Path) -> Packages {
        // What cannot be understood stops the build with a message; nothing is installed before it.
        let parsed = files::read(app, FILE).and_then(|text| parse(&text.unwrap_or_default()));
        Packages { run: parsed.unwrap_or_default(), build: Vec::new() }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let packages = parse(&files::read(build.app(), FILE)?.unwrap_or_default())?;
        output::heading(&format!("Using the Debian packages of the Aptfile: {}", packages.join(", ")));
        Ok(Vec::new())
    }
}

fn parse(text: &str) -> Result<Vec<String>, PackError> {
    let mut packages = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        for word in line.split_whitespace() {
            check(word).map_err(|reason| PackError::AptfileLine {
                number: index + 1,
                line: line.to_owned(),
                reason,
            })?;
            packages.push(word.to_owned());
        }
    }
    Ok(packages)
}

/// Debian Policy's rule for names, and the reason why something else is none.
fn check(word: &str) -> Result<(), &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if word.starts_with(":repo:") {
        return Err("other repositories than this platform's Debian mirrors are not offered");
    }
    if word.contains("://") || Path::new(word).extension().is_some_and(|end| end == "deb") {
        return Err("packages come from this platform's Debian mirrors only; a file or URL cannot be installed");
    }
    let is_name = (2..=NAME_LIMIT).contains(&word.len())
        && word.bytes().next().is_some_and(is_plain)
        && word.bytes().all(|byte| is_plain(byte) || b"+-.".contains(&byte));
    if is_name {
        Ok(())
    } else {
        Err("a name is of small letters, digits, `+`, `-` and `.`; versions cannot be chosen")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_and_comments_are_not() {
        assert_eq!(parse("# why\nlibvips42t64 # images\n\ng++ ffmpeg\n").unwrap(), ["libvips42t64", "g++", "ffmpeg"]);
        assert_eq!(parse("").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_line() {
        for (text, reason) in [
            ("ok\n:repo:deb http://host/debian sid main", "other repositories"),
            ("ok\nhttps://host/x.deb", "mirrors only"),
            ("ok\n./x.deb", "mirrors only"),
            ("ok\nimagemagick=8:6.9", "a name is"),
            ("ok\n--force-yes", "a name is"),
            ("ok\nImageMagick", "a name is"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("Line 2 of the Aptfile") && error.contains(reason), "{error}");
        }
    }
}
