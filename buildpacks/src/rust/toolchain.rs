//! Which Rust an app asks for: the one of the stack's Debian, or one from where Rust is published, or a mirror of it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::MANIFEST;
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{Build, Packages, Use};

/// The minor version of 1 that Debian has.
const OFFERED: u64 = 85;
/// Rustup's own variable for where Rust comes from, and what it says without it.
const SOURCE: (&str, &str) = ("RUSTUP_DIST_SERVER", "https://static.rust-lang.org");

/// What compiles an app, of all that a release has.
const PARTS: [&str; 3] = ["rustc", "rust-std", "cargo"];

/// What the app asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `1.90.0`, `nightly`, …; none if the stack's will do.
    other: Option<String>,
    /// Which file says so.
    file: &'static str,
}

#[derive(Deserialize)]
struct ToolchainFile {
    toolchain: Toolchain,
}

#[derive(Deserialize)]
struct Toolchain {
    channel: Option<String>,
}

impl Wanted {
    /// rust-toolchain(.toml), or else `rust-version` of Cargo.toml.
    pub(super) fn read(app: &Path) -> Result<Self, PackError> {
        for file in ["rust-toolchain.toml", "rust-toolchain"] {
            if let Some(text) = files::read(app, file)? {
                let parsed = toml::from_str::<ToolchainFile>(&text).map(|file| file.toolchain.channel);
                // The older form of the file is nothing but the channel.
                let channel = parsed.unwrap_or_else(|_| Some(text.trim().to_owned())).unwrap_or_default();
                return Ok(Self { other: other(&channel), file });
            }
        }
        let manifest: toml::Table = files::read(app, MANIFEST)?
            .unwrap_or_default()
            .parse()
            .map_err(|error: toml::de::Error| PackError::Malformed { file: MANIFEST, reason: error.to_string() })?;
        let tables =
            [manifest.get("package"), manifest.get("workspace").and_then(|workspace| workspace.get("package"))];
        let version = tables.into_iter().flatten().find_map(|package| package.get("rust-version")?.as_str());
        Ok(Self { other: version.and_then(other), file: MANIFEST })
    }

    /// Debian's packages, if its Rust will do.
    pub(super) fn packages(&self) -> Packages {
        let build = if self.other.is_none() { vec!["cargo".to_owned()] } else { Vec::new() };
        Packages { run: Vec::new(), build }
    }
}

/// The release that is to be downloaded. A stable Rust compiles what was written for an older one, so those are no reason.
fn other(channel: &str) -> Option<String> {
    let numbers: Vec<u64> = channel.split('.').map_while(|number| number.parse().ok()).collect();
    match numbers.as_slice() {
        [1, minor, ..] if *minor <= OFFERED => None,
        [1, minor] => Some(format!("1.{minor}.0")),
        [1, minor, patch] => Some(format!("1.{minor}.{patch}")),
        _ if channel.is_empty() || channel == "stable" => None,
        _ => Some(channel.to_owned()),
    }
}

/// The folder of the toolchain's programs; none for the stack's own.
pub(super) fn install(build: &Build, wanted: &Wanted) -> Result<Option<PathBuf>, PackError> {
    let Some(version) = &wanted.other else {
        output::heading(&format!("Using Rust 1.{OFFERED} (the stack's own)"));
        return Ok(None);
    };
    let source = std::env::var(SOURCE.0).unwrap_or_else(|_| SOURCE.1.to_owned());
    let key = Key::new("rust 1").with("Rust version", version.as_bytes()).with("stack", build.stack().as_bytes());
    let layer = build.layer("toolchain", Use::Cache, key)?;
    if !layer.is_kept {
        output::heading(&format!("Downloading Rust {version} ({})", wanted.file));
        for part in PARTS {
            let url = url(&source, part, version, build.arch());
            download(&url, &layer.path()).map_err(|_| PackError::RustVersion {
                requested: version.clone(),
                file: wanted.file,
                available: format!("1.{OFFERED}"),
                url,
            })?;
        }
        layer.finish()?;
    }
    output::heading(&format!("Using Rust {version} ({})", wanted.file));
    Ok(Some(layer.path().join("bin")))
}

/// Where a part of a release is; `nightly-2026-01-31` is in a folder of its day.
fn url(source: &str, part: &str, version: &str, arch: &str) -> String {
    let machine = if arch == "arm64" { "aarch64" } else { "x86_64" };
    let is_dated = |(channel, day): &(&str, &str)| ["nightly", "beta"].contains(channel) && day.len() == 10;
    let dated = version.split_once('-').filter(is_dated);
    let (folder, name) = dated.map_or((String::new(), version), |(channel, day)| (format!("/{day}"), channel));
    format!("{}/dist{folder}/{part}-{name}-{machine}-unknown-linux-gnu.tar.xz", source.trim_end_matches('/'))
}

fn download(url: &str, folder: &Path) -> Result<(), PackError> {
    // The URL is an argument of the script, so nothing in it is read as shell.
    let script = "set -o pipefail
        curl -fsSL --retry 3 \"$1\" | tar --extract --xz --strip-components=2 --directory \"$2\"";
    Run::new(Path::new("/"), "bash", ["-c", script, "bash", url, &folder.to_string_lossy()]).show()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_newer_than_the_stacks_is_downloaded() {
        for (channel, expected) in [
            ("stable", None),
            ("1.70", None),
            ("1.85.1", None),
            ("1.90", Some("1.90.0")),
            ("1.90.1", Some("1.90.1")),
            ("nightly-2026-01-31", Some("nightly-2026-01-31")),
        ] {
            assert_eq!(other(channel).as_deref(), expected, "{channel}");
        }
    }

    #[test]
    fn versions_are_taken_where_rust_users_write_them() {
        for (name, text, expected) in [
            ("rust-toolchain.toml", "[toolchain]\nchannel = \"1.91.0\"", Some("1.91.0")),
            ("rust-toolchain.toml", "[toolchain]\nprofile = \"minimal\"", None),
            ("rust-toolchain", "1.92\n", Some("1.92.0")),
            ("Cargo.toml", "[package]\nrust-version = \"1.93\"", Some("1.93.0")),
            ("Cargo.toml", "[workspace.package]\nrust-version = \"1.70\"", None),
        ] {
            let app = tempfile::tempdir().unwrap();
            std::fs::write(app.path().join(name), text).unwrap();
            assert_eq!(Wanted::read(app.path()).unwrap().other.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_release_has_an_address_at_any_mirror() {
        assert_eq!(
            url("https://mirror/rust/", "rustc", "1.90.0", "amd64"),
            "https://mirror/rust/dist/rustc-1.90.0-x86_64-unknown-linux-gnu.tar.xz"
        );
        assert_eq!(
            url("https://m", "cargo", "nightly-2026-01-31", "arm64"),
            "https://m/dist/2026-01-31/cargo-nightly-aarch64-unknown-linux-gnu.tar.xz"
        );
    }
}
