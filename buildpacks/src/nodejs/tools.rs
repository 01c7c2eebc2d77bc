//! The app's package manager, unless it is the npm that is beside Node.js: from the npm registry, or the app's own.

use std::path::{Path, PathBuf};

use super::installed;
use super::manager::{Kind, Manager, Source};
use super::registry::{self, Wanted};
use crate::bill::Bill;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{Build, Use};

/// A folder with the program of `manager` in it; none for npm.
pub(super) fn install(build: &Build, manager: &Manager) -> Result<Option<PathBuf>, PackError> {
    if manager.kind == Kind::Npm {
        return Ok(None);
    }
    let program = manager.kind.program();
    match &manager.source {
        Source::InApp(path) => {
            // `yarn start` must find it in the running app too.
            let layer = build.launch_layer(program)?;
            let script = format!("#!/bin/sh\nexec node \"{}\" \"$@\"\n", build.app().join(path).display());
            files::write_program(&layer.path().join("bin").join(program), &script)?;
            output::heading(&format!("Using {program} of the app ({path})"));
            Ok(Some(layer.path().join("bin")))
        }
        Source::Range(range, file) => {
            let key = Key::new("tool 2")
                .with("the wanted version", range.as_bytes())
                .with("the architecture", build.arch().as_bytes());
            let layer = build.layer(program, Use::LaunchBuildCache, key)?;
            if !layer.is_kept {
                output::heading(&format!("Installing {program} {range}"));
                let wanted = Wanted { what: program, range, file };
                let bill = match manager.kind {
                    Kind::Bun => install_bun(build, &layer.path(), &wanted)?,
                    kind => install_package(&layer.path(), kind, &wanted)?,
                };
                layer.bill(&bill)?;
                layer.finish()?;
            }
            let cached = if layer.is_kept { ", cached" } else { "" };
            output::heading(&format!("Using {program} {range} ({file}{cached})"));
            Ok(Some(layer.path().join("bin")))
        }
        Source::Bundled => Ok(None),
    }
}

/// A package manager that runs on Node.js.
fn install_package(folder: &Path, kind: Kind, wanted: &Wanted) -> Result<Bill, PackError> {
    let package = if kind == Kind::Berry { "@yarnpkg/cli-dist" } else { kind.program() };
    registry::install(folder, package, wanted)?;
    // npm has put there what packages call their programs.
    files::link(&folder.join("node_modules/.bin"), &folder.join("bin"))?;
    Ok(installed::bill(folder))
}

fn install_bun(build: &Build, folder: &Path, wanted: &Wanted) -> Result<Bill, PackError> {
    let package = if build.arch() == "arm64" { "@oven/bun-linux-aarch64" } else { "@oven/bun-linux-x64" };
    let version = registry::unpack((folder, &build.downloads(), None), package, wanted, &["*/bin/bun"])?;
    files::link(Path::new("bun"), &folder.join("bin/bunx"))?;
    Ok(Bill::default().with_runtime("bun", &version))
}
