//! What is in `node_modules`, whoever installed it.

use std::path::Path;

use serde::Deserialize;
use walkdir::WalkDir;

use crate::bill::{Bill, Registry};
use crate::files;

const MODULES: &str = "node_modules";
/// Where package managers that only link into `node_modules` have the packages: each in a folder with a `node_modules` of its own.
const STORES: [&str; 2] = [".pnpm", ".bun"];

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

/// The packages in every `node_modules` below `folder`.
pub(crate) fn bill(folder: &Path) -> Bill {
    let mut found = Vec::new();
    let mut walk = WalkDir::new(folder).into_iter();
    while let Some(entry) = walk.next() {
        let Ok(entry) = entry else { continue };
        if entry.file_type().is_dir() && entry.file_name() == MODULES {
            collect(entry.path(), &mut found);
            walk.skip_current_dir();
        }
    }
    Bill::of(Registry::Npm, found)
}

/// Packages of a `node_modules`, or of a scope in it, with those that they have for themselves. Links lead to what is found anyway,
/// or to the app's own files.
fn collect(modules: &Path, found: &mut Vec<(String, String)>) {
    for name in files::names(modules) {
        let path = modules.join(&name);
        if STORES.contains(&name.as_str()) {
            for package in files::names(&path) {
                collect(&path.join(package).join(MODULES), found);
            }
        } else if name.starts_with('@') {
            collect(&path, found);
        } else if !name.starts_with('.') && !path.is_symlink() {
            let text = std::fs::read(path.join(super::MANIFEST)).unwrap_or_default();
            if let Ok(Package { name, version }) = serde_json::from_slice(&text) {
                found.push((name, version));
            }
            collect(&path.join(MODULES), found);
        }
    }
}

/// What Yarn's plug'n'play runs from archives, as `yarn.lock` names it.
pub(super) fn bill_of_archives(lock: &str) -> Bill {
    let resolved = lock.lines().filter_map(|line| line.trim().strip_prefix("resolution: \"")?.strip_suffix('"'));
    let packages = resolved.filter_map(|resolved| resolved.rsplit_once("@npm:"));
    // `name@npm:1.0.0::__archiveUrl=…` names the archive too.
    let version = |text: &str| text.split("::").next().unwrap_or(text).to_owned();
    Bill::of(Registry::Npm, packages.map(|(name, rest)| (name.to_owned(), version(rest))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bill_of(packages: &[(&str, &str)]) -> Bill {
        Bill::of(Registry::Npm, packages.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())))
    }

    #[test]
    fn every_installed_package_is_found_once_whatever_the_manager() {
        let app = tempfile::tempdir().unwrap();
        let package = |folder: &str, name: &str, version: &str| {
            let folder = app.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("package.json"), format!(r#"{{"name":"{name}","version":"{version}"}}"#))
                .unwrap();
            folder
        };
        package("node_modules/a", "a", "1.0.0");
        package("node_modules/a/node_modules/b", "b", "2.0.0");
        package("node_modules/a/test/fixture", "no", "0.0.0");
        package("node_modules/@s/c", "@s/c", "3.0.0");
        package("node_modules/.cache/x", "no", "0.0.0");
        let stored = package("node_modules/.pnpm/d@4.0.0/node_modules/d", "d", "4.0.0");
        std::os::unix::fs::symlink(stored, app.path().join("node_modules/d")).unwrap();
        let own = package("packages/own", "own", "9.0.0");
        std::os::unix::fs::symlink(own, app.path().join("node_modules/own")).unwrap();
        package("packages/own/node_modules/a", "a", "1.1.0");
        std::fs::create_dir_all(app.path().join("node_modules/.bin")).unwrap();
        let expected = [("a", "1.0.0"), ("b", "2.0.0"), ("@s/c", "3.0.0"), ("d", "4.0.0"), ("a", "1.1.0")];
        assert_eq!(bill(app.path()), bill_of(&expected));
    }

    #[test]
    fn archives_are_named_by_the_lock_file() {
        let lock = "\"lodash@npm:^4\":\n  version: 4.17.21\n  resolution: \"lodash@npm:4.17.21\"\n\n\
                    \"@a/b@npm:1\":\n  resolution: \"@a/b@npm:1.0.0::__archiveUrl=https%3A%2F%2Fh\"\n\
                    \"own@workspace:.\":\n  resolution: \"own@workspace:.\"\n";
        assert_eq!(bill_of_archives(lock), bill_of(&[("lodash", "4.17.21"), ("@a/b", "1.0.0")]));
    }
}
