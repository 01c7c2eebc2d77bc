//! Keys of layers: what a layer was made from, by name, so that a build can say why it makes one anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::PackError;
use crate::files;

/// The part that stands for this program's own way of making a layer.
const WAY: &str = "the buildpack";
/// Bytes of a part's hash that are kept: enough that no two parts look alike by chance.
const KEPT: usize = 16;
/// Parts that are named when more have changed.
const NAMED: usize = 3;

/// What a layer is made from: the name of each part as a person would say it, and a hash of the part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Key(BTreeMap<String, String>);

impl Key {
    /// Begins with what makes this layer's way of making different from other programs' and versions'.
    pub(crate) fn new(way: &str) -> Self {
        Self(BTreeMap::new()).with(WAY, way.as_bytes())
    }

    /// Adds a part. What it is called is read by the user: `package-lock.json`, `Node.js version`.
    pub(crate) fn with(mut self, name: &str, part: &[u8]) -> Self {
        let hash = Sha256::digest(part);
        self.0.insert(name.to_owned(), hex::encode(&hash[..KEPT]));
        self
    }

    /// Adds files of the app, those that are missing as missing.
    pub(crate) fn with_files<'a>(mut self, app: &Path, names: impl IntoIterator<Item = &'a str>) -> Self {
        for name in names {
            if let Ok(content) = fs::read(app.join(name)) {
                self = self.with(name, &content);
            }
        }
        self
    }

    /// Adds every file in `folder` as one part, called `name`.
    pub(crate) fn with_tree(self, name: &str, folder: &Path) -> Result<Self, PackError> {
        let mut hash = Sha256::new();
        for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
            let entry = entry.map_err(|error| files::failed("read", folder)(error.into()))?;
            if entry.file_type().is_file() {
                let content = fs::read(entry.path()).map_err(files::failed("read", entry.path()))?;
                // Lengths keep two files from looking like one.
                hash.update(format!("{}:{}:", entry.path().display(), content.len()));
                hash.update(content);
            }
        }
        Ok(self.with(name, &hash.finalize()))
    }

    /// What has changed since `old`, in words; none if nothing has.
    pub(crate) fn change_since(&self, old: &Self) -> Option<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(old.0.keys()).collect();
        let changes: Vec<String> = names.into_iter().filter_map(|name| self.part_since(old, name)).collect();
        let (shown, more) = changes.split_at(changes.len().min(NAMED));
        match more.len() {
            0 if shown.is_empty() => None,
            0 => Some(shown.join(" and ")),
            more => Some(format!("{} and {more} more", shown.join(", "))),
        }
    }

    fn part_since(&self, old: &Self, name: &str) -> Option<String> {
        match (old.0.get(name), self.0.get(name)) {
            (Some(old), Some(new)) if old == new => None,
            (Some(_), Some(_)) => Some(format!("{name} changed")),
            (None, _) => Some(format!("{name} is new")),
            (_, None) => Some(format!("{name} is gone")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_by_the_names_of_what_changed() {
        let old = Key::new("npm 1").with("package-lock.json", b"1").with(".npmrc", b"a");
        assert_eq!(old.change_since(&old), None);
        let new = Key::new("npm 1").with("package-lock.json", b"2").with(".npmrc", b"a");
        assert_eq!(new.change_since(&old).unwrap(), "package-lock.json changed");
        let new = Key::new("npm 1").with("package-lock.json", b"2").with("Node.js version", b"24");
        assert_eq!(
            new.change_since(&old).unwrap(),
            ".npmrc is gone and Node.js version is new and package-lock.json changed"
        );
        let new = Key::new("npm 2").with("package-lock.json", b"2").with("Node.js version", b"24");
        assert_eq!(
            new.change_since(&old).unwrap(),
            ".npmrc is gone, Node.js version is new, package-lock.json changed and 1 more"
        );
    }

    #[test]
    fn a_missing_file_and_an_empty_one_are_told_apart() {
        let app = tempfile::tempdir().unwrap();
        let key = || Key::new("way").with_files(app.path(), [".npmrc"]).with_tree("the app", app.path()).unwrap();
        let missing = key();
        fs::write(app.path().join(".npmrc"), "").unwrap();
        assert_eq!(key().change_since(&missing).unwrap(), ".npmrc is new and the app changed");
    }
}
