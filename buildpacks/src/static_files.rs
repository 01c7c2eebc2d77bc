//! Static files: a folder, served by nginx; one that is in the repository, or one that Node.js has built.
//!
//! The settings are those of Heroku's `static.json`.

use std::path::Path;

use libcnb::data::launch::Process;

use crate::error::PackError;
use crate::pack::{self, Build, Language};
use crate::{files, nodejs, output};

mod nginx;
mod settings;

use settings::{SETTINGS, STATICFILE, Settings};

pub(crate) struct StaticFiles;

const INDEX: &str = "index.html";
/// Where files are if static.json is there and does not say.
const HEROKU_ROOT: &str = "public_html";
const PUBLIC: &str = "public";
/// Where builders leave a site.
const BUILT: [&str; 6] = ["dist", "build", "out", "_site", ".output/public", HEROKU_ROOT];

const START: &str = include_str!("static_files/start.sh");
const START_AWK: &str = include_str!("static_files/start.awk");

impl Language for StaticFiles {
    fn detect(&self, app: &Path) -> Result<(), String> {
        let is_there = |name: &str| app.join(name).is_file();
        let index = format!("{PUBLIC}/{INDEX}");
        let is_site = if is_there(SETTINGS) || is_there(STATICFILE) {
            true
        } else if nodejs::is_node(app) {
            // Its index.html may be what the site is made from.
            nodejs::builds_a_site(app)
        } else {
            is_there(INDEX) || is_there(&index)
        };
        let looked_for = || format!("Static files: none of {SETTINGS}, {STATICFILE}, {INDEX}, {index} in the app");
        if is_site { Ok(()) } else { Err(looked_for()) }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let mut settings = Settings::read(app)?;
        let is_built = nodejs::is_node(app);
        let root = root(app, &settings, is_built)?;
        let pages = Pages::of(&app.join(&root));
        if is_built && !app.join(SETTINGS).is_file() && !app.join(STATICFILE).is_file() {
            settings.is_one_page = !pages.has_404;
            settings.clean_urls = pages.has_404;
        }
        output::heading(&format!("Serving {} with nginx", if root == "." { "the app's top folder" } else { &root }));
        let folder = build.launch_layer("nginx")?.path();
        let configuration = nginx::configuration(&settings, &root, &pages, Path::new(nginx::BROTLI).is_file());
        for (name, text) in [("nginx.conf", configuration), ("start.awk", START_AWK.to_owned())] {
            std::fs::write(folder.join(name), text).map_err(files::failed("write", &folder.join(name)))?;
        }
        files::write_program(&folder.join("bin/serve-files"), START)?;
        Ok(vec![pack::process("web", ["serve-files"])?])
    }
}

/// Pages with a meaning of their own that are among the files.
#[derive(Debug, Default)]
struct Pages {
    has_404: bool,
}

impl Pages {
    fn of(root: &Path) -> Self {
        Self { has_404: root.join("404.html").is_file() }
    }
}

/// The folder of the files, relative to the app.
fn root(app: &Path, settings: &Settings, is_built: bool) -> Result<String, PackError> {
    if let Some(root) = &settings.root {
        let root = root.trim_matches('/');
        let root = if root.is_empty() { "." } else { root };
        let is_inside = !root.split('/').any(|part| part == "..");
        return if is_inside && app.join(root).is_dir() {
            Ok(root.to_owned())
        } else {
            Err(PackError::StaticRoot { root: root.to_owned(), file: SETTINGS })
        };
    }
    let has_index = |folder: &str| app.join(folder).join(INDEX).is_file();
    if is_built {
        let found = BUILT.into_iter().find(|folder| has_index(folder)).map(str::to_owned);
        return found.or_else(|| angular(app)).ok_or(PackError::StaticNotBuilt);
    }
    Ok([HEROKU_ROOT, PUBLIC].into_iter().find(|folder| has_index(folder)).unwrap_or(".").to_owned())
}

/// `dist/<name>/browser` or `dist/<name>`, where Angular leaves a site.
fn angular(app: &Path) -> Option<String> {
    let projects = std::fs::read_dir(app.join("dist")).ok()?.flatten();
    let names = projects.filter_map(|entry| entry.file_name().into_string().ok());
    let candidates = names.flat_map(|name| [format!("dist/{name}/browser"), format!("dist/{name}")]);
    candidates.into_iter().find(|folder| app.join(folder).join(INDEX).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_what_is_named_or_where_the_index_is() {
        let app = tempfile::tempdir().unwrap();
        let found = |root: Option<&str>| root_of(app.path(), root, false).map_err(|error| error.to_string());
        assert_eq!(found(None).unwrap(), ".");
        std::fs::create_dir(app.path().join("public")).unwrap();
        std::fs::write(app.path().join("public/index.html"), "").unwrap();
        assert_eq!(found(None).unwrap(), "public");
        assert_eq!(found(Some("/public/")).unwrap(), "public");
        assert_eq!(found(Some("/")).unwrap(), ".");
        for outside in ["../..", "dist"] {
            assert!(found(Some(outside)).unwrap_err().starts_with(&format!("The folder `{outside}`")));
        }
    }

    #[test]
    fn a_built_site_is_where_its_builder_left_it() {
        let app = tempfile::tempdir().unwrap();
        let found = || root_of(app.path(), None, true);
        assert!(matches!(found(), Err(PackError::StaticNotBuilt)));
        for folder in ["dist/shop/browser", "build", "dist"] {
            std::fs::create_dir_all(app.path().join(folder)).unwrap();
            std::fs::write(app.path().join(folder).join(INDEX), "").unwrap();
            assert_eq!(found().unwrap(), folder);
        }
    }

    #[test]
    fn sites_are_told_from_apps_with_a_server() {
        for (files, expected) in [
            (vec![("index.html", "")], true),
            (vec![("Staticfile", "")], true),
            (vec![("package.json", r#"{"scripts": {"build": "vite build"}}"#), ("index.html", "")], true),
            (vec![("package.json", r#"{"scripts": {"build": "x", "start": "react-scripts start"}}"#)], true),
            (
                vec![("package.json", r#"{"scripts": {"build": "x", "start": "cross-env A=1 react-scripts start"}}"#)],
                true,
            ),
            (vec![("package.json", r#"{"scripts": {"build": "x", "start": "node ."}}"#), ("index.html", "")], false),
            (vec![("package.json", r#"{"scripts": {"build": "x", "start": "cross-env A=1 node ."}}"#)], false),
            (vec![("package.json", r#"{"scripts": {"build": "x"}}"#), ("Procfile", "")], false),
            (vec![("package.json", r#"{"scripts": {"build": "x"}}"#), ("server.js", "")], false),
            (vec![("package.json", "{}"), ("index.html", "")], false),
            (vec![("package.json", "{}"), ("static.json", "{}")], true),
            (vec![("readme", "")], false),
        ] {
            let app = tempfile::tempdir().unwrap();
            for (name, text) in &files {
                std::fs::write(app.path().join(name), text).unwrap();
            }
            assert_eq!(StaticFiles.detect(app.path()).is_ok(), expected, "{files:?}");
        }
    }

    fn root_of(app: &Path, named: Option<&str>, is_built: bool) -> Result<String, PackError> {
        root(app, &Settings { root: named.map(str::to_owned), ..Settings::default() }, is_built)
    }
}
