//! Which Ruby an app asks for, against the one that there is.

use std::path::Path;

use super::{GEMFILE, VERSION, lock::Lock};
use crate::command::Run;
use crate::error::PackError;
use crate::{files, output};

const VERSION_FILE: &str = ".ruby-version";

/// What Gemfile asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// `ruby "3.3.1"`: exactly this, as Bundler reads it.
    Exactly(String),
    /// `ruby file: ".ruby-version"`
    InFile,
    /// Nothing, or a range that Bundler judges.
    Whatever,
}

/// The Ruby to build with. Another minor version than the stack's is refused. Another patch is not, though Bundler would: what
/// asks for it is changed in the image.
pub(super) fn choose(app: &Path, lock: &Lock) -> Result<String, PackError> {
    let own = Run::new(Path::new("/"), "ruby", ["-e", "print RUBY_VERSION"]).read()?;
    let gemfile = files::read(app, GEMFILE)?.unwrap_or_default();
    let asked = asked(&gemfile);
    let in_file = files::read(app, VERSION_FILE)?.map(|text| text.trim().trim_start_matches("ruby-").to_owned());
    let (version, file) = match &asked {
        Asked::Exactly(version) => (Some(version.clone()), GEMFILE),
        Asked::InFile => (in_file, VERSION_FILE),
        Asked::Whatever => (lock.ruby.clone(), super::LOCK),
    };
    let Some(version) = version else {
        output::heading(&format!("Using Ruby {own} (the app names none: the stack's own)"));
        return Ok(own);
    };
    if minor_of(&version) != VERSION {
        return Err(PackError::RubyVersion { requested: version, available: own, file });
    }
    output::heading(&format!("Using Ruby {own} ({file})"));
    if version != own && asked != Asked::Whatever {
        output::warning(&format!(
            "{file} asks for {version}; the stack has {own}. Ask for \"~> {VERSION}.0\" to end this warning."
        ));
        let (path, text) = match asked {
            Asked::InFile => (app.join(VERSION_FILE), own.clone()),
            _ => (app.join(GEMFILE), with_version(&gemfile, &own)),
        };
        std::fs::write(&path, text).map_err(files::failed("write", &path))?;
    }
    Ok(own)
}

fn asked(gemfile: &str) -> Asked {
    let Some(rest) = gemfile.lines().find_map(directive) else { return Asked::Whatever };
    match quoted(rest) {
        _ if rest.starts_with("file:") || rest.starts_with(":file") => Asked::InFile,
        Some(version) if version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            Asked::Exactly(version.to_owned())
        }
        _ => Asked::Whatever,
    }
}

/// What follows `ruby` in a line that says which.
fn directive(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix("ruby")?;
    rest.starts_with([' ', '(', '\t']).then(|| rest.trim_start_matches([' ', '(', '\t']))
}

/// The first text in quotes.
fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|first| ['"', '\''].contains(first))?;
    text[1..].split(quote).next()
}

fn with_version(gemfile: &str, version: &str) -> String {
    let replaced = gemfile.lines().map(|line| match directive(line) {
        Some(_) => format!("ruby \"{version}\""),
        None => line.to_owned(),
    });
    replaced.collect::<Vec<_>>().join("\n") + "\n"
}

fn minor_of(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gemfiles_own_words_are_understood() {
        for (gemfile, expected) in [
            ("source 'x'\nruby '3.3.1'\n", Asked::Exactly("3.3.1".into())),
            ("  ruby(\"3.2.0\")\n", Asked::Exactly("3.2.0".into())),
            ("ruby '~> 3.3'\n", Asked::Whatever),
            ("ruby file: '.ruby-version'\n", Asked::InFile),
            ("ruby ENV['RUBY']\n", Asked::Whatever),
            ("rubygems '1'\n# ruby '1.0'\n", Asked::Whatever),
        ] {
            assert_eq!(asked(gemfile), expected, "{gemfile}");
        }
    }

    #[test]
    fn only_the_line_that_names_a_ruby_is_changed() {
        assert_eq!(with_version("gem 'a'\nruby '3.3.1'\ngem 'b'", "3.3.8"), "gem 'a'\nruby \"3.3.8\"\ngem 'b'\n");
        assert_eq!(minor_of("3.3.8"), "3.3");
    }
}
