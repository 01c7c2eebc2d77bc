//! npm's cache, with what builds of other apps have downloaded: npm looks there for everything whose hash a lock file has, and
//! compares the hash again before it unpacks anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::downloads::{self, Downloads};
use crate::error::PackError;
use crate::files;

/// The archives that a lock file names, by integrity.
pub(super) struct Locked(BTreeSet<String>);

impl Locked {
    /// Those of a `package-lock.json` or `npm-shrinkwrap.json`; none if it is not one. npm says what is wrong with it.
    pub(super) fn of(lock: &str) -> Self {
        let mut found = BTreeSet::new();
        collect(&serde_json::from_str(lock).unwrap_or_default(), &mut found);
        Self(found)
    }

    /// Puts into npm's `cache` what was downloaded before.
    pub(super) fn fill(&self, cache: &Path, downloads: &Downloads) -> Result<(), PackError> {
        for integrity in &self.0 {
            let (Some(kept), Some(place)) = (downloads.find(integrity), place(cache, integrity)) else { continue };
            if place.exists() {
                continue;
            }
            let folder = place.parent().unwrap_or(cache);
            fs::create_dir_all(folder).map_err(files::failed("make", folder))?;
            fs::copy(&kept, &place).map_err(files::failed("copy to", &place))?;
        }
        Ok(())
    }

    /// Keeps for other builds what npm has put into its `cache`.
    pub(super) fn offer(&self, cache: &Path, downloads: &Downloads) -> Result<(), PackError> {
        let places = self.0.iter().filter_map(|integrity| Some((integrity, place(cache, integrity)?)));
        places
            .filter(|(_, place)| place.is_file())
            .try_for_each(|(integrity, place)| downloads.offer(integrity, &place))
    }
}

/// Every version of the format has `integrity` beside what is resolved, at another depth.
fn collect(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("integrity").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| collect(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

/// Where npm's cache has a file (cacache, "content-v2").
fn place(cache: &Path, integrity: &str) -> Option<PathBuf> {
    let hash = downloads::hash(integrity)?;
    let (first, rest) = hash.split_at(2);
    let (second, rest) = rest.split_at(2);
    Some(cache.join("_cacache/content-v2/sha512").join(first).join(second).join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"{"lockfileVersion": 3, "packages": {"": {"name": "app"}, "node_modules/one": {"version": "1.0.0",
        "integrity": "sha512-BfcDQQeKz2oG1CPSFyD5ZD1flTYm2IoCY23DqeeVgq6wyCCFf9P43FAqqDYNLI+pephf2ltim4CcrRj/ti04mQ=="}}}"#;

    #[test]
    fn what_one_apps_npm_has_downloaded_is_in_the_next_ones_cache() {
        let folder = tempfile::tempdir().unwrap();
        let downloads = Downloads::at(folder.path());
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        let locked = Locked::of(LOCK);
        let integrity = locked.0.first().unwrap();
        let path = place(&first, integrity).unwrap();
        assert!(path.ends_with(
            "_cacache/content-v2/sha512/05/f7/0341078acf6a06d423d21720f9643d5f953626d88a02636dc3a9e79582aeb0c820857fd3f8dc502aa8360d2c8fa97a985fda5b629b809cad18ffb62d3899"
        ));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "one").unwrap();
        locked.offer(&first, &downloads).unwrap();
        downloads.take();
        locked.fill(&second, &downloads).unwrap();
        locked.fill(&second, &downloads).unwrap();
        assert_eq!(fs::read_to_string(place(&second, integrity).unwrap()).unwrap(), "one");
    }

    #[test]
    fn older_lock_files_nest_and_broken_ones_name_nothing() {
        let nested = r#"{"dependencies": {"a": {"integrity": "sha512-YQ==", "dependencies": {"b": {"integrity": "sha1-Yg=="}}}}}"#;
        assert_eq!(Locked::of(nested).0.len(), 2);
        assert!(Locked::of("{\"packages\": ").0.is_empty());
    }
}
