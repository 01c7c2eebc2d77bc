//! The app's package manager, unless it is the npm that is beside Node.js: from the npm registry, or the app's own.

use std::fs;
use std::path::{Path, PathBuf};

use super::installed;
use super::manager::{Kind, Manager, Source};
use super::registry::{self, Wanted};
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{Build, Use};

const MODULES: &str = "node_modules";

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
            let key = Key::new("tool 1")
                .with("the wanted version", range.as_bytes())
                .with("the architecture", build.arch().as_bytes());
            let layer = build.layer(program, Use::LaunchBuildCache, key)?;
            if !layer.is_kept {
                output::heading(&format!("Installing {program} {range}"));
                download(&layer.path(), manager.kind, build.arch(), &Wanted { what: program, range, file })?;
                layer.bill(&installed::bill(&layer.path()))?;
                layer.finish()?;
            }
            let cached = if layer.is_kept { ", cached" } else { "" };
            output::heading(&format!("Using {program} {range} ({file}{cached})"));
            Ok(Some(layer.path().join("bin")))
        }
        Source::Bundled => Ok(None),
    }
}

fn download(folder: &Path, kind: Kind, arch: &str, wanted: &Wanted) -> Result<(), PackError> {
    let package = match (kind, arch) {
        (Kind::Npm, _) => "npm",
        (Kind::Yarn, _) => "yarn",
        (Kind::Berry, _) => "@yarnpkg/cli-dist",
        (Kind::Pnpm, _) => "pnpm",
        (Kind::Bun, "arm64") => "@oven/bun-linux-aarch64",
        (Kind::Bun, _) => "@oven/bun-linux-x64",
    };
    registry::install(folder, package, wanted)?;
    if kind != Kind::Bun {
        // npm has put there what packages call their programs.
        return files::link(&folder.join(MODULES).join(".bin"), &folder.join("bin"));
    }
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).map_err(files::failed("make", &bin))?;
    let program = folder.join(MODULES).join(package).join("bin/bun");
    files::link(&program, &bin.join("bun"))?;
    files::link(&program, &bin.join("bunx"))
}
