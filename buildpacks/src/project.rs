//! project.toml, as far as our buildpacks read it: switches in tables named by domain.

use std::path::Path;

use crate::error::PackError;
use crate::files;

const FILE: &str = "project.toml";

/// The switch at `path`, if project.toml has one.
pub(crate) fn switch(app: &Path, path: &[&str]) -> Result<Option<bool>, PackError> {
    let Some(text) = files::read(app, FILE)? else { return Ok(None) };
    let table: toml::Value =
        toml::from_str(&text).map_err(|error| PackError::Malformed { file: FILE, reason: error.to_string() })?;
    Ok(path.iter().try_fold(&table, |value, key| value.get(key)).and_then(toml::Value::as_bool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_found_by_its_path() {
        let app = tempfile::tempdir().unwrap();
        assert_eq!(switch(app.path(), &["a", "b", "c"]).unwrap(), None);
        std::fs::write(app.path().join(FILE), "[a.b]\nc = false\n").unwrap();
        assert_eq!(switch(app.path(), &["a", "b", "c"]).unwrap(), Some(false));
        assert_eq!(switch(app.path(), &["a", "x"]).unwrap(), None);
        std::fs::write(app.path().join(FILE), "[a").unwrap();
        assert!(matches!(switch(app.path(), &["a"]), Err(PackError::Malformed { .. })));
    }
}
