//! Cargo.lock: the crates that an app is compiled from.

use serde::Deserialize;

use crate::bill::{Bill, Registry};

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    /// None for the app's own.
    source: Option<String>,
}

/// All crates that a build may use, also those for other systems: the programs do not say which are in them. None if this is no lock
/// file, which cargo has told by then.
pub(super) fn bill(text: &str) -> Option<Bill> {
    let lock: Lock = toml::from_str(text).ok()?;
    let foreign = lock.package.into_iter().filter(|package| package.source.is_some());
    Some(Bill::of(Registry::Cargo, foreign.map(|package| (package.name, package.version))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_the_app_itself_are_not_billed() {
        let text = "version = 4\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\"libc\"]\n\
                    [[package]]\nname = \"libc\"\nversion = \"0.2.1\"\nsource = \"registry+https://host\"\nchecksum = \"ab\"\n";
        assert_eq!(bill(text), Some(Bill::of(Registry::Cargo, [("libc".to_owned(), "0.2.1".to_owned())])));
        assert_eq!(bill("version = 4"), Some(Bill::default()));
        assert_eq!(bill("["), None);
    }
}
