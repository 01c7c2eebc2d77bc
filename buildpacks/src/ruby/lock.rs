//! Gemfile.lock, as far as the build needs it.

use std::collections::BTreeSet;

/// What a lock file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lock {
    /// Names and versions; a gem may be there for several platforms.
    gems: BTreeSet<(String, String)>,
    /// `3.3.8`
    pub(super) ruby: Option<String>,
    /// `2.6.7`
    bundler: Option<String>,
}

impl Lock {
    pub(super) fn parse(text: &str) -> Self {
        let mut lock = Self::default();
        let mut section = "";
        for line in text.lines() {
            let word = line.trim();
            if !line.starts_with(' ') {
                section = word;
            } else if section == "RUBY VERSION" {
                lock.ruby = word.strip_prefix("ruby ").map(|version| released(version).to_owned());
            } else if section == "BUNDLED WITH" {
                lock.bundler = Some(word.to_owned());
            } else if let Some((name, version)) =
                line.strip_prefix("    ").and_then(|spec| spec.strip_suffix(')')?.split_once(" ("))
            {
                // Deeper lines are what a gem depends on; it is listed by itself too.
                if !name.starts_with(' ') {
                    lock.gems.insert((name.to_owned(), version.to_owned()));
                }
            }
        }
        lock
    }

    pub(super) fn has(&self, gem: &str) -> bool {
        self.gems.iter().any(|(name, _)| name == gem)
    }

    /// Names and versions of the gems for which `is_installed` says so of both, joined as the names of gems' files are.
    pub(super) fn installed(&self, is_installed: impl Fn(&str) -> bool) -> impl Iterator<Item = (String, String)> {
        self.gems.iter().filter(move |(name, version)| is_installed(&format!("{name}-{version}"))).cloned()
    }

    /// Which Bundler made the file, if it says so.
    pub(super) fn bundler_note(&self) -> String {
        self.bundler.as_ref().map_or_else(String::new, |version| format!(" (Gemfile.lock is by Bundler {version})"))
    }
}

/// `3.3.8p144` is the release 3.3.8.
fn released(version: &str) -> &str {
    version.split(['p', ' ']).next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gems_of_every_source_ruby_and_bundler_are_found() {
        let text = "GIT\n  remote: https://host/x\n  specs:\n    x (1.0)\n      rack\n\nGEM\n  remote: https://rubygems.org/\n  specs:\n    \
                    nokogiri (1.18.1-x86_64-linux-gnu)\n      racc (~> 1.4)\n    rake (13.2.1)\n\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n  rails (8)\n\n\
                    RUBY VERSION\n   ruby 3.3.8p144\n\nBUNDLED WITH\n   2.6.7\n";
        let lock = Lock::parse(text);
        assert!(["nokogiri", "rake", "x"].iter().all(|gem| lock.has(gem)) && !lock.has("racc"));
        let native = "nokogiri-1.18.1-x86_64-linux-gnu";
        let installed: Vec<_> = lock.installed(|name| name == native || name == "rake-1").collect();
        assert_eq!(installed, [("nokogiri".to_owned(), "1.18.1-x86_64-linux-gnu".to_owned())]);
        assert_eq!(lock.ruby.as_deref(), Some("3.3.8"));
        assert_eq!(lock.bundler_note(), " (Gemfile.lock is by Bundler 2.6.7)");
        assert_eq!(Lock::parse(""), Lock::default());
    }
}
