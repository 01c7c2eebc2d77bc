//! composer.json and composer.lock, as far as the build needs them.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{LOCK, MANIFEST};
use crate::bill::{Bill, Registry};
use crate::error::PackError;
use crate::files;

/// What the app says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Extensions that the app or a package of its asks for, without `ext-`.
    pub(super) extensions: BTreeSet<String>,
    /// Whether there is anything to install.
    pub(super) has_requirements: bool,
    /// Whether the app has a script that Heroku runs after the installation.
    pub(super) has_compile_script: bool,
    /// Folder of what is installed.
    pub(super) vendor: String,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            extensions: BTreeSet::new(),
            has_requirements: false,
            has_compile_script: false,
            vendor: "vendor".to_owned(),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Composer {
    require: Value,
    scripts: Map<String, Value>,
    config: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Lock {
    packages: Vec<Package>,
    platform: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Package {
    name: String,
    version: String,
    require: Value,
}

/// What Composer says that it installed: the text of its `installed.json`.
pub(super) fn bill(installed: &str) -> Bill {
    let packages = serde_json::from_str::<Lock>(installed).unwrap_or_default().packages;
    Bill::of(Registry::Composer, packages.into_iter().map(|package| (package.name, package.version)))
}

impl Manifest {
    /// Reads both files; those that are missing say nothing.
    pub(super) fn read(app: &Path) -> Result<Self, PackError> {
        let composer: Composer = parse(app, MANIFEST)?;
        let lock: Lock = parse(app, LOCK)?;
        let mut manifest = Self::default();
        let packages = lock.packages.iter().map(|package| &package.require);
        for require in [&composer.require, &lock.platform].into_iter().chain(packages) {
            // PHP writes an empty table as an empty list.
            let names = require.as_object().into_iter().flat_map(Map::keys);
            manifest
                .extensions
                .extend(names.filter_map(|name| Some(name.to_lowercase().strip_prefix("ext-")?.to_owned())));
        }
        let is_package = |name: &String| name.contains('/');
        manifest.has_requirements = composer.require.as_object().is_some_and(|require| require.keys().any(is_package));
        manifest.has_compile_script = composer.scripts.contains_key("compile");
        if let Some(vendor) = composer.config.get("vendor-dir").and_then(Value::as_str) {
            // Only a folder of the app's own may be filled.
            if Path::new(vendor).components().all(|part| matches!(part, std::path::Component::Normal(_))) {
                vendor.clone_into(&mut manifest.vendor);
            }
        }
        Ok(manifest)
    }
}

fn parse<T: Default + for<'a> Deserialize<'a>>(app: &Path, name: &'static str) -> Result<T, PackError> {
    match files::read(app, name)? {
        None => Ok(T::default()),
        Some(text) if text.trim().is_empty() => Ok(T::default()),
        Some(text) => {
            serde_json::from_str(&text).map_err(|error| PackError::Malformed { file: name, reason: error.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_composer_installed_is_billed() {
        let text = r#"{"packages": [{"name": "monolog/monolog", "version": "3.8.0", "require": {}}], "dev": false}"#;
        let expected = Bill::of(Registry::Composer, [("monolog/monolog".to_owned(), "3.8.0".to_owned())]);
        assert_eq!(bill(text), expected);
        assert_eq!(bill(""), Bill::default());
    }

    #[test]
    fn extensions_are_collected_from_the_app_and_its_packages() {
        let app = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(app.path().join(name), text).unwrap();
        assert_eq!(Manifest::read(app.path()).unwrap(), Manifest::default());
        write(
            MANIFEST,
            r#"{"require": {"php": "^8.2", "ext-Redis": "*", "a/b": "1"}, "scripts": {"compile": "x"}, "config": {"vendor-dir": "lib/php"}}"#,
        );
        write(LOCK, r#"{"packages": [{"require": {"ext-mbstring": "*"}}, {"require": []}], "platform": []}"#);
        let manifest = Manifest::read(app.path()).unwrap();
        assert_eq!(manifest.extensions.iter().map(String::as_str).collect::<Vec<_>>(), ["mbstring", "redis"]);
        assert!(manifest.has_requirements && manifest.has_compile_script);
        assert_eq!(manifest.vendor, "lib/php");
        write(MANIFEST, "{,}");
        assert!(Manifest::read(app.path()).unwrap_err().to_string().starts_with("composer.json cannot be understood"));
    }
}
