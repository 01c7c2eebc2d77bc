//! The platform's own buildpacks: Node.js, Python, Go, static files, Procfile. One program, on libcnb.
//!
//! A buildpack is a folder with a `buildpack.toml` and a module here that implements [`pack::Language`]; the order in which they
//! are tried is `order.toml`. The program finds out which buildpack it is by the folder that the lifecycle names in
//! `CNB_BUILDPACK_DIR`, and which phase by the name it is called by (`bin/detect`, `bin/build`).

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;

mod aptfile;
mod bill;
mod classic;
mod command;
mod concurrency;
mod deno;
mod dotnet;
mod downloads;
mod elixir;
mod error;
mod files;
mod go;
mod java;
mod key;
mod memory;
mod nodejs;
mod output;
mod pack;
mod php;
pub mod procfile;
mod project;
mod python;
mod ruby;
mod rust;
mod shell;
mod static_files;

use error::PackError;
use pack::{Language, Pack};

/// A buildpack of this program.
struct Entry {
    /// Its `buildpack.toml`.
    descriptor: &'static str,
    language: &'static dyn Language,
}

const ENTRIES: [Entry; 14] = [
    Entry { descriptor: include_str!("../nodejs/buildpack.toml"), language: &nodejs::NodeJs },
    Entry { descriptor: include_str!("../python/buildpack.toml"), language: &python::Python },
    Entry { descriptor: include_str!("../go/buildpack.toml"), language: &go::Go },
    Entry { descriptor: include_str!("../deno/buildpack.toml"), language: &deno::Deno },
    Entry { descriptor: include_str!("../static/buildpack.toml"), language: &static_files::StaticFiles },
    Entry { descriptor: include_str!("../aptfile/buildpack.toml"), language: &aptfile::Aptfile },
    Entry { descriptor: include_str!("../ruby/buildpack.toml"), language: &ruby::Ruby },
    Entry { descriptor: include_str!("../php/buildpack.toml"), language: &php::Php },
    Entry { descriptor: include_str!("../java/buildpack.toml"), language: &java::Java },
    Entry { descriptor: include_str!("../elixir/buildpack.toml"), language: &elixir::Elixir },
    Entry { descriptor: include_str!("../rust/buildpack.toml"), language: &rust::Rust },
    Entry { descriptor: include_str!("../shell/buildpack.toml"), language: &shell::Shell },
    Entry { descriptor: include_str!("../dotnet/buildpack.toml"), language: &dotnet::Dotnet },
    Entry { descriptor: include_str!("../procfile/buildpack.toml"), language: &procfile::Procfile },
];

const ORDER: &str = include_str!("../order.toml");

/// Where builds have the program (the builder mounts it there).
const PROGRAM: &str = "/cnb/lifecycle/platform";

/// Becomes the buildpack and phase that the lifecycle asks for (Buildpack spec, "Buildpack Interface").
pub fn main() -> ExitCode {
    let folder = std::env::var_os("CNB_BUILDPACK_DIR").unwrap_or_default();
    if Path::new(&folder).join(classic::FOLDER).is_dir() {
        libcnb::libcnb_runtime(&classic::Classic);
    }
    let descriptor = std::fs::read_to_string(Path::new(&folder).join("buildpack.toml")).unwrap_or_default();
    let wanted = id_and_version(&descriptor);
    match ENTRIES.iter().find(|entry| wanted.is_some() && id_and_version(entry.descriptor) == wanted) {
        Some(entry) => libcnb::libcnb_runtime(&Pack(entry.language)),
        None => output::error(&format!("{} is not a buildpack of this platform", Path::new(&folder).display())),
    }
    ExitCode::FAILURE
}

/// Makes a toolchain ready for builds, in the place where they find it: `toolchain LANGUAGE VERSION`.
pub fn make_toolchain(argv: &[OsString]) -> ExitCode {
    let words: Vec<&str> = argv.iter().skip(1).filter_map(|word| word.to_str()).collect();
    let made = match words.as_slice() {
        ["go", version] => go::make_ready(&pack::toolchains("go").join(version), version),
        ["node", version] => nodejs::make_ready(&pack::toolchains("node").join(version), version),
        _ => Err(PackError::Internal(format!("nobody can make a toolchain of {}", words.join(" ")))),
    };
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Writes the buildpacks into `folder`, as the lifecycle expects them (`<id with / as _>/<version>/`), and `order.toml`. The
/// programs are links to where builds have the `platform` program. What is there already is replaced.
pub fn install(folder: &Path) -> io::Result<()> {
    for entry in &ENTRIES {
        let (id, version) = id_and_version(entry.descriptor)
            .ok_or_else(|| io::Error::other("a buildpack.toml of this program has no id or version"))?;
        let home = folder.join(id.replace('/', "_")).join(version);
        std::fs::create_dir_all(home.join("bin"))?;
        std::fs::write(home.join("buildpack.toml"), entry.descriptor)?;
        for phase in ["detect", "build"] {
            let link = home.join("bin").join(phase);
            if let Err(error) = std::fs::remove_file(&link)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            symlink(PROGRAM, &link)?;
        }
    }
    std::fs::write(folder.join("order.toml"), ORDER)
}

fn id_and_version(descriptor: &str) -> Option<(String, String)> {
    let table: toml::Table = descriptor.parse().ok()?;
    let text = |key: &str| Some(table.get("buildpack")?.get(key)?.as_str()?.to_owned());
    Some((text("id")?, text("version")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_names_every_buildpack_and_no_other() {
        let order: toml::Table = ORDER.parse().unwrap();
        let mut named: Vec<(String, String)> = order["order"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["group"].as_array().unwrap())
            .map(|member| (member["id"].as_str().unwrap().to_owned(), member["version"].as_str().unwrap().to_owned()))
            .collect();
        named.sort();
        named.dedup();
        let mut ours: Vec<_> = ENTRIES.iter().map(|entry| id_and_version(entry.descriptor).unwrap()).collect();
        ours.sort();
        assert_eq!(named, ours);
    }

    #[test]
    fn installing_twice_leaves_what_the_lifecycle_expects() {
        let folder = tempfile::tempdir().unwrap();
        install(folder.path()).unwrap();
        install(folder.path()).unwrap();
        let home = folder.path().join("platform_nodejs/0.1.0");
        assert!(home.join("buildpack.toml").is_file());
        assert_eq!(std::fs::read_link(home.join("bin/detect")).unwrap(), Path::new(PROGRAM));
        assert!(folder.path().join("order.toml").is_file());
    }
}
