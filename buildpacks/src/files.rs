//! Small things about files that more than one buildpack needs.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::PackError;

/// The text of a file of the app; none if there is no such file.
pub(crate) fn read(app: &Path, name: &str) -> Result<Option<String>, PackError> {
    match fs::read(app.join(name)) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| PackError::NotText { file: name.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PackError::File { action: "read", path: name.to_owned(), source }),
    }
}

/// Turns a failure to do `action` to `path` into the user's words.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PackError {
    let path = path.display().to_string();
    move |source| PackError::File { action, path, source }
}

/// Removes a file, link or folder, if there is one.
pub(crate) fn remove(path: &Path) -> Result<(), PackError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(failed("remove", path))
}

/// Makes `link` a link to `target`, whatever it was. A link that is right already is not touched: its layer stays unchanged.
pub(crate) fn link(target: &Path, link: &Path) -> Result<(), PackError> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    remove(link)?;
    std::os::unix::fs::symlink(target, link).map_err(failed("link", link))
}

/// Hash of parts, so that a layer's key changes with any of them.
pub(crate) struct Key(Sha256);

impl Key {
    /// Begins with what makes this layer's way of making different from other programs' and versions'.
    pub(crate) fn new(way: &str) -> Self {
        Self(Sha256::new()).with("way", way.as_bytes())
    }

    /// Adds a named part.
    pub(crate) fn with(mut self, name: &str, part: &[u8]) -> Self {
        // Lengths keep two parts from looking like one.
        self.0.update(format!("{name}:{}:", part.len()));
        self.0.update(part);
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

    /// Adds every file of the app.
    pub(crate) fn with_tree(mut self, app: &Path) -> Result<Self, PackError> {
        for entry in walkdir::WalkDir::new(app).sort_by_file_name() {
            let entry = entry.map_err(|error| failed("read", app)(error.into()))?;
            if entry.file_type().is_file() {
                let content = fs::read(entry.path()).map_err(failed("read", entry.path()))?;
                self = self.with(&entry.path().to_string_lossy(), &content);
            }
        }
        Ok(self)
    }

    /// The key.
    pub(crate) fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_apart_what_joins_to_the_same_bytes() {
        let key = |a: &str, b: &str| Key::new("way").with("file", a.as_bytes()).with("file", b.as_bytes()).finish();
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_eq!(key("ab", "c"), key("ab", "c"));
    }
}
