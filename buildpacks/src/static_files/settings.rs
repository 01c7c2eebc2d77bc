//! static.json.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::PackError;
use crate::{files, output};

pub(super) const SETTINGS: &str = "static.json";

/// What static.json may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    /// Folder of the files.
    pub(super) root: Option<String>,
    /// `/about` serves `about.html`.
    pub(super) clean_urls: bool,
    /// Answers to not found.
    pub(super) error_page: Option<String>,
    /// Plain HTTP is sent on to HTTPS.
    pub(super) https_only: bool,
    /// Pattern of paths (`/**`) to the file that answers when there is no file of that name.
    pub(super) routes: BTreeMap<String, String>,
    /// Path to where it moved.
    pub(super) redirects: BTreeMap<String, Redirect>,
    /// Pattern of paths to headers.
    pub(super) headers: BTreeMap<String, BTreeMap<String, String>>,
    /// What this buildpack does not know.
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, serde_json::Value>,
}

/// Where a path moved.
#[derive(Debug, Deserialize)]
pub(super) struct Redirect {
    pub(super) url: String,
    /// 301 unless said.
    pub(super) status: Option<u16>,
}

impl Settings {
    pub(super) fn read(app: &Path) -> Result<Self, PackError> {
        let Some(text) = files::read(app, SETTINGS)? else { return Ok(Self::default()) };
        let settings: Self = serde_json::from_str(&text)
            .map_err(|error| PackError::Malformed { file: SETTINGS, reason: error.to_string() })?;
        for key in settings.unknown.keys() {
            output::warning(&format!("static.json: `{key}` has no effect here"));
        }
        settings.check()?;
        Ok(settings)
    }

    /// Everything becomes a part of nginx's configuration, in quotes: what would end them there is refused.
    fn check(&self) -> Result<(), PackError> {
        let root = self.root.iter().map(|value| ("root", value));
        let error_page = self.error_page.iter().map(|value| ("error_page", value));
        let routes = self.routes.iter().flat_map(|(path, file)| [("routes", path), ("routes", file)]);
        let redirects = self.redirects.iter().flat_map(|(path, to)| [("redirects", path), ("redirects", &to.url)]);
        let headers = self.headers.iter().flat_map(|(path, headers)| {
            headers.iter().flat_map(move |(name, value)| [("headers", path), ("headers", name), ("headers", value)])
        });
        for (key, value) in root.chain(error_page).chain(routes).chain(redirects).chain(headers) {
            let forbidden = |character: &char| character.is_control() || ['"', '\\', '$', '{', '}'].contains(character);
            if let Some(character) = value.chars().find(forbidden) {
                return Err(PackError::StaticCharacter { key, value: value.clone(), character });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_would_break_out_of_their_quotes_are_refused() {
        let app = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(app.path().join(SETTINGS), text).unwrap();
            Settings::read(app.path())
        };
        assert!(
            read(r#"{"root": "dist", "clean_urls": true, "routes": {"/**": "index.html"}, "proxies": {}}"#).is_ok()
        );
        for text in [
            r#"{"root": "a\"; b"}"#,
            r#"{"routes": {"/{x}": "y"}}"#,
            r#"{"headers": {"/": {"X-A": "a\nb"}}}"#,
            r#"{"redirects": {"/a": {"url": "/$b"}}}"#,
        ] {
            assert!(matches!(read(text), Err(PackError::StaticCharacter { .. })), "{text}");
        }
        assert!(matches!(read("{"), Err(PackError::Malformed { .. })));
    }
}
