//! Which Node.js an app asks for.

use std::path::Path;

use super::manifest::Manifest;
use crate::error::PackError;
use crate::files;

/// The long-term support release: for apps that ask for none.
pub(super) const DEFAULT: &str = "24.x";

/// Names of nvm's for lines of long-term support.
const LTS_NAMES: [(&str, &str); 11] = [
    ("argon", "4.x"),
    ("boron", "6.x"),
    ("carbon", "8.x"),
    ("dubnium", "10.x"),
    ("erbium", "12.x"),
    ("fermium", "14.x"),
    ("gallium", "16.x"),
    ("hydrogen", "18.x"),
    ("iron", "20.x"),
    ("jod", "22.x"),
    ("krypton", "24.x"),
];

/// A version range, and where it is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) range: String,
    /// None if nothing asks for any.
    pub(super) file: Option<&'static str>,
}

/// The range of the first that names one: `engines.node`, `.nvmrc`, `.node-version`, `volta.node`.
pub(super) fn asked(app: &Path, manifest: &Manifest) -> Result<Asked, PackError> {
    let engine = manifest.engine("node").map(|range| (range.to_owned(), "package.json (engines.node)"));
    let mut all = vec![engine];
    for file in [".nvmrc", ".node-version"] {
        let text = files::read(app, file)?.unwrap_or_default();
        all.push(from_file(&text).map(|range| (range, file)));
    }
    all.push(manifest.volta("node").map(|range| (range.to_owned(), "package.json (volta.node)")));
    let found = all.into_iter().flatten().next();
    Ok(found.map_or_else(
        || Asked { range: DEFAULT.to_owned(), file: None },
        |(range, file)| Asked { range, file: Some(file) },
    ))
}

/// `v20.1.0`, `20`, `lts/iron`; none for what means the newest, or the newest with long-term support.
fn from_file(text: &str) -> Option<String> {
    let line =
        text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).find(|line| !line.is_empty())?;
    if let Some(name) = line.strip_prefix("lts/") {
        let known = LTS_NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        return known.map(|(_, range)| (*range).to_owned());
    }
    let is_newest = ["node", "stable", "latest", "current", "lts", "*"].contains(&line);
    (!is_newest).then(|| line.trim_start_matches(['v', 'V']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_names_a_version_counts() {
        let app = tempfile::tempdir().unwrap();
        let found = |text: &str| {
            let Asked { range, file } = asked(app.path(), &Manifest::parse(text).unwrap()).unwrap();
            (range, file.unwrap_or_default())
        };
        let said = |range: &str, file: &'static str| (range.to_owned(), file);
        assert_eq!(found("{}"), said(DEFAULT, ""));
        let volta = r#"{"volta": {"node": "18.1.0"}}"#;
        assert_eq!(found(volta), said("18.1.0", "package.json (volta.node)"));
        std::fs::write(app.path().join(".node-version"), "20.1\n").unwrap();
        assert_eq!(found(volta), said("20.1", ".node-version"));
        std::fs::write(app.path().join(".nvmrc"), "v22 # why\n").unwrap();
        assert_eq!(found(volta), said("22", ".nvmrc"));
        let engines = r#"{"engines": {"node": ">=20 <23"}}"#;
        assert_eq!(found(engines), said(">=20 <23", "package.json (engines.node)"));
    }

    #[test]
    fn nvms_names_are_understood() {
        for (text, expected) in [
            ("lts/Iron\n", Some("20.x")),
            ("lts/*", None),
            ("node", None),
            ("", None),
            ("# x\nv20.1.0\n", Some("20.1.0")),
        ] {
            assert_eq!(from_file(text).as_deref(), expected, "{text}");
        }
    }
}
