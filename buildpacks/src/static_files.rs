//! Static files: a folder, served by nginx.
//!
//! The settings are those of Heroku's `static.json`, as far as they are about files.

use std::path::Path;

use libcnb::data::launch::Process;

use crate::error::PackError;
use crate::files;
use crate::output;
use crate::pack::{self, Build, Language};

mod nginx;
mod settings;

use settings::{SETTINGS, Settings};

pub(crate) struct StaticFiles;

const INDEX: &str = "index.html";
/// Where files are if static.json is there and does not say.
const HEROKU_ROOT: &str = "public_html";
const PUBLIC: &str = "public";

/// Puts the port into the configuration: nginx cannot read it from the environment.
const START: &str = "#!/bin/sh
set -e
here=$(dirname \"$0\")/..
umask 077
configuration=$(mktemp -d)/nginx.conf
sed \"s/listen PORT/listen ${PORT:-5000}/\" \"$here/nginx.conf\" > \"$configuration\"
exec nginx -e stderr -c \"$configuration\"
";

impl Language for StaticFiles {
    fn detect(&self, app: &Path) -> Result<(), String> {
        let signs = [SETTINGS.to_owned(), INDEX.to_owned(), format!("{PUBLIC}/{INDEX}")];
        if signs.iter().any(|name| app.join(name).is_file()) {
            Ok(())
        } else {
            Err(format!("Static files: none of {} in the app", signs.join(", ")))
        }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let settings = Settings::read(app)?;
        let root = root(app, &settings)?;
        output::heading(&format!("Serving {} with nginx", if root == "." { "the app's top folder" } else { &root }));
        let layer = build.launch_layer("nginx")?;
        let folder = layer.path();
        let configuration = nginx::configuration(&settings, &root, &Pages::of(&app.join(&root)));
        let file = folder.join("nginx.conf");
        std::fs::write(&file, configuration).map_err(files::failed("write", &file))?;
        let start = folder.join("bin/serve-files");
        files::write_program(&start, START)?;
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
fn root(app: &Path, settings: &Settings) -> Result<String, PackError> {
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
    let has_index = |folder: &&str| app.join(folder).join(INDEX).is_file();
    Ok([HEROKU_ROOT, PUBLIC].into_iter().find(has_index).unwrap_or(".").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_what_is_named_or_where_the_index_is() {
        let app = tempfile::tempdir().unwrap();
        let found = |root: Option<&str>| root_of(app.path(), root).map_err(|error| error.to_string());
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

    fn root_of(app: &Path, named: Option<&str>) -> Result<String, PackError> {
        root(app, &Settings { root: named.map(str::to_owned), ..Settings::default() })
    }
}
