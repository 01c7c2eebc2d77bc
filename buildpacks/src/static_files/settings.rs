//! What an app says about its files: Heroku's static.json, or a Staticfile.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::PackError;
use crate::{files, output};

pub(super) const SETTINGS: &str = "static.json";
pub(super) const STATICFILE: &str = "Staticfile";

/// What static.json may say. Values may have `${NAME}` in them: a config var, put in when a dyno starts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "static.json has that many switches")]
pub(super) struct Settings {
    /// Folder of the files.
    pub(super) root: Option<String>,
    /// `/about` serves `about.html`.
    pub(super) clean_urls: bool,
    /// Answers to not found.
    pub(super) error_page: Option<String>,
    /// Plain HTTP is sent on to HTTPS.
    pub(super) https_only: bool,
    /// The one host name of the site; requests for others are sent there.
    pub(super) canonical_host: Option<String>,
    /// Character set of texts; UTF-8 unless said.
    pub(super) encoding: Option<String>,
    /// Asks for `BASIC_AUTH_USERNAME` and `BASIC_AUTH_PASSWORD`.
    pub(super) basic_auth: bool,
    /// Pattern of paths (`/**`) to the file that answers when there is no file of that name.
    pub(super) routes: BTreeMap<String, String>,
    /// Path to where it moved.
    pub(super) redirects: BTreeMap<String, Redirect>,
    /// Pattern of paths to headers.
    pub(super) headers: BTreeMap<String, BTreeMap<String, String>>,
    /// Beginning of paths to the server that answers them.
    pub(super) proxies: BTreeMap<String, Proxy>,
    /// The site is one page, which answers whatever has no file: not Heroku's, but what builders of such sites need.
    #[serde(skip)]
    pub(super) is_one_page: bool,
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

/// Who answers instead.
#[derive(Debug, Deserialize)]
pub(super) struct Proxy {
    /// `https://api.example.com/v1/`; what follows the beginning of the path is added.
    pub(super) origin: String,
}

impl Settings {
    pub(super) fn read(app: &Path) -> Result<Self, PackError> {
        let settings = match files::read(app, SETTINGS)? {
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| PackError::Malformed { file: SETTINGS, reason: error.to_string() })?,
            None => Self::of_staticfile(&files::read(app, STATICFILE)?.unwrap_or_default()),
        };
        for key in settings.unknown.keys().filter(|key| !["logging", "debug"].contains(&key.as_str())) {
            output::warning(&format!("{SETTINGS}: `{key}` has no effect here"));
        }
        settings.check()?;
        Ok(settings)
    }

    /// Lines of `key: value`.
    fn of_staticfile(text: &str) -> Self {
        let mut settings = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim().trim_matches(['"', '\'']);
            let is_on = ["true", "enabled", "yes", "index.html"].contains(&value);
            match key.trim() {
                "root" => settings.root = Some(value.to_owned()),
                "index_fallback" | "pushstate" => settings.is_one_page = is_on,
                "force_https" => settings.https_only = is_on,
                _ => {}
            }
        }
        settings
    }

    /// Everything becomes a part of nginx's configuration, in quotes: what would end them there is refused.
    fn check(&self) -> Result<(), PackError> {
        let root = self.root.iter().map(|value| ("root", value));
        let error_page = self.error_page.iter().map(|value| ("error_page", value));
        let host = self.canonical_host.iter().map(|value| ("canonical_host", value));
        let encoding = self.encoding.iter().map(|value| ("encoding", value));
        let routes = self.routes.iter().flat_map(|(path, file)| [("routes", path), ("routes", file)]);
        let redirects = self.redirects.iter().flat_map(|(path, to)| [("redirects", path), ("redirects", &to.url)]);
        let proxies = self.proxies.iter().flat_map(|(path, to)| [("proxies", path), ("proxies", &to.origin)]);
        let headers = self.headers.iter().flat_map(|(path, headers)| {
            headers.iter().flat_map(move |(name, value)| [("headers", path), ("headers", name), ("headers", value)])
        });
        let simple = root.chain(error_page).chain(host).chain(encoding);
        for (key, value) in simple.chain(routes).chain(redirects).chain(proxies).chain(headers) {
            let forbidden = |character: &char| character.is_control() || ['"', '\\', '$', '{', '}'].contains(character);
            if let Some(character) = without_variables(value).chars().find(forbidden) {
                return Err(PackError::StaticCharacter { key, value: value.clone(), character });
            }
        }
        Ok(())
    }
}

/// The text less every `${NAME}`.
fn without_variables(text: &str) -> String {
    let mut left = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        left.push_str(before);
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let named = after.split_once('}').filter(|(name, _)| !name.is_empty() && name.bytes().all(is_part));
        if let Some((_, following)) = named {
            rest = following;
        } else {
            left.push_str("${");
            rest = after;
        }
    }
    left + rest
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
        for text in [
            r#"{"root": "dist", "clean_urls": true, "routes": {"/**": "index.html"}, "more": {}}"#,
            r#"{"proxies": {"/api/": {"origin": "https://${API_HOST}/v1/${API_PATH}"}}}"#,
        ] {
            assert!(read(text).is_ok(), "{text}");
        }
        for text in [
            r#"{"root": "a\"; b"}"#,
            r#"{"routes": {"/{x}": "y"}}"#,
            r#"{"headers": {"/": {"X-A": "a\nb"}}}"#,
            r#"{"redirects": {"/a": {"url": "/$b"}}}"#,
            r#"{"redirects": {"/a": {"url": "${}"}}}"#,
            r#"{"canonical_host": "${A${B}"}"#,
        ] {
            assert!(matches!(read(text), Err(PackError::StaticCharacter { .. })), "{text}");
        }
        assert!(matches!(read("{"), Err(PackError::Malformed { .. })));
    }

    #[test]
    fn a_staticfile_says_the_same_in_lines() {
        let settings = Settings::of_staticfile("root: dist\nindex_fallback: true\n# x\n");
        assert_eq!(settings.root.as_deref(), Some("dist"));
        assert!(settings.is_one_page);
        assert!(!Settings::of_staticfile("pushstate: disabled\n").is_one_page);
    }
}
