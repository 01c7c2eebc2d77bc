//! package.json and the lock files beside it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::MANIFEST;
use crate::error::PackError;
use crate::files;

/// Scripts of the app itself that npm runs after it has installed dependencies.
const AFTER_INSTALL: [&str; 3] = ["install", "postinstall", "prepare"];
/// What of package.json decides what is installed.
const DEPENDENCY_KEYS: [&str; 18] = [
    "name",
    "bin",
    "dependencies",
    "devDependencies",
    "optionalDependencies",
    "peerDependencies",
    "peerDependenciesMeta",
    "dependenciesMeta",
    "bundleDependencies",
    "bundledDependencies",
    "overrides",
    "resolutions",
    "allowScripts",
    "trustedDependencies",
    "patchedDependencies",
    "catalog",
    "pnpm",
    "workspaces",
];

/// A package.json, as far as a build cares.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Manifest {
    // Once it could also be a list, which npm no longer reads either.
    engines: Value,
    pub(super) scripts: BTreeMap<String, Value>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl Manifest {
    pub(super) fn read(app: &Path) -> Result<Self, PackError> {
        Self::parse(&files::read(app, MANIFEST)?.unwrap_or_default())
    }

    pub(super) fn parse(text: &str) -> Result<Self, PackError> {
        serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| PackError::Malformed { file: MANIFEST, reason: error.to_string() })
    }

    /// `engines.node` and the like; none if it is missing, empty or says that any version does.
    pub(super) fn engine(&self, name: &str) -> Option<&str> {
        let range = self.engines.get(name)?.as_str()?.trim();
        (!["", "*", "x", "latest", "current", "lts", "lts/*"].contains(&range)).then_some(range)
    }

    /// `packageManager`: `pnpm@9.1.0+sha512.…`
    pub(super) fn package_manager(&self) -> Option<&str> {
        self.other.get("packageManager")?.as_str().map(str::trim).filter(|written| !written.is_empty())
    }

    /// A version that volta pins.
    pub(super) fn volta(&self, name: &str) -> Option<&str> {
        self.other.get("volta")?.get(name)?.as_str()
    }

    /// The line of a script.
    pub(super) fn script(&self, name: &str) -> Option<&str> {
        self.scripts.get(name)?.as_str()
    }

    pub(super) fn has_dependencies(&self) -> bool {
        ["dependencies", "devDependencies", "optionalDependencies", "workspaces"].iter().any(|key| self.has(key))
    }

    pub(super) fn has_dev_dependencies(&self) -> bool {
        self.has("devDependencies")
    }

    fn has(&self, key: &str) -> bool {
        match self.other.get(key) {
            Some(Value::Object(entries)) => !entries.is_empty(),
            Some(Value::Array(entries)) => !entries.is_empty(),
            _ => false,
        }
    }

    pub(super) fn has_workspaces(&self) -> bool {
        self.has("workspaces")
    }

    /// The app's own scripts that run before its dependencies are installed.
    pub(super) fn scripts_before_install(&self) -> Vec<&'static str> {
        self.present(["heroku-prebuild", "preinstall"])
    }

    /// What builds the app, in Heroku's order; `heroku-build` replaces `build`.
    pub(super) fn scripts_of_a_build(&self) -> Vec<&'static str> {
        let build = if self.scripts.contains_key("heroku-build") { "heroku-build" } else { "build" };
        self.present([build, "heroku-postbuild"])
    }

    /// What runs when everything else is done.
    pub(super) fn scripts_at_the_end(&self) -> Vec<&'static str> {
        self.present(["heroku-cleanup"])
    }

    /// The app's own scripts that run after its dependencies were installed.
    pub(super) fn scripts_after_install(&self) -> Vec<&'static str> {
        self.present(AFTER_INSTALL)
    }

    fn present<const N: usize>(&self, names: [&'static str; N]) -> Vec<&'static str> {
        names.into_iter().filter(|name| self.scripts.contains_key(*name)).collect()
    }

    /// This package.json with nothing in it but dependencies: two of the same are installed alike.
    pub(super) fn only_dependencies(&self) -> String {
        let kept = self.other.iter().filter(|(key, _)| DEPENDENCY_KEYS.contains(&key.as_str()));
        Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_depends_on_dependencies_only() {
        let one = Manifest::parse(r#"{"name": "a", "dependencies": {"x": "1"}, "scripts": {"build": "b"}}"#).unwrap();
        let other = Manifest::parse(r#"{"name": "a", "version": "2.0.0", "dependencies": {"x": "1"}}"#).unwrap();
        assert_eq!(one.only_dependencies(), r#"{"dependencies":{"x":"1"},"name":"a"}"#);
        assert_eq!(one.only_dependencies(), other.only_dependencies());
    }

    #[test]
    fn scripts_run_in_herokus_order() {
        let text = r#"{"scripts": {"heroku-postbuild": "", "build": "", "heroku-build": "", "prepare": "", "postinstall": ""}}"#;
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.scripts_of_a_build(), ["heroku-build", "heroku-postbuild"]);
        assert_eq!(manifest.scripts_after_install(), ["postinstall", "prepare"]);
        assert_eq!(Manifest::parse(r#"{"scripts": {"build": ""}}"#).unwrap().scripts_of_a_build(), ["build"]);
    }

    #[test]
    fn engines_that_say_nothing_count_as_missing() {
        for (engines, expected) in [
            (r#"{"node": "20.x"}"#, Some("20.x")),
            (r#"{"node": " >=18 <20 || 22 "}"#, Some(">=18 <20 || 22")),
            (r#"{"node": "*"}"#, None),
            (r#"{"node": ""}"#, None),
            (r#"["node >= 0.8"]"#, None),
            ("{}", None),
        ] {
            let manifest = Manifest::parse(&format!(r#"{{"engines": {engines}}}"#)).unwrap();
            assert_eq!(manifest.engine("node"), expected);
        }
        assert!(Manifest::parse("{").unwrap_err().to_string().starts_with("package.json cannot be understood"));
    }
}
