//! Which Rust an app asks for. It comes from where Rust is published, or from a mirror of that. Where neither can be reached, the
//! one of the stack's Debian has to do for an app that names no version.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{Build, Packages, Use};

/// Debian's version.
const OWN: &str = "1.85";
/// The newest release.
const STABLE: &str = "stable";
/// Rustup's own variable for where Rust comes from, and what it says without it.
const SOURCE: (&str, &str) = ("RUSTUP_DIST_SERVER", "https://static.rust-lang.org");
/// What compiles an app, of all that a release has.
const PARTS: [&str; 3] = ["rustc", "rust-std", "cargo"];

/// What the app asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `1.90.0`, `stable`, `nightly-2026-01-31`, …
    version: String,
    /// Which file says so, if one does.
    file: Option<&'static str>,
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
    /// What rust-toolchain(.toml) says, or else the newest: `rust-version` of Cargo.toml only says what is too old.
    pub(super) fn read(app: &Path) -> Result<Self, PackError> {
        for file in ["rust-toolchain.toml", "rust-toolchain"] {
            if let Some(text) = files::read(app, file)? {
                let parsed = toml::from_str::<ToolchainFile>(&text).map(|file| file.toolchain.channel);
                // The older form of the file is nothing but the channel.
                let channel = parsed.unwrap_or_else(|_| Some(text.trim().to_owned())).unwrap_or_default();
                return Ok(Self { version: version(&channel), file: Some(file) });
            }
        }
        Ok(Self { version: STABLE.to_owned(), file: None })
    }

    /// Debian's packages, in case the newest Rust cannot be downloaded.
    pub(super) fn packages(&self) -> Packages {
        let build = if self.version == STABLE { vec!["cargo".to_owned()] } else { Vec::new() };
        Packages { run: Vec::new(), build }
    }
}

/// A channel as it is published: a release has three numbers.
fn version(channel: &str) -> String {
    let is_short = channel.split('.').count() == 2 && channel.split('.').all(|part| part.parse::<u64>().is_ok());
    match channel {
        "" => STABLE.to_owned(),
        _ if is_short => format!("{channel}.0"),
        _ => channel.to_owned(),
    }
}

/// The folder of the toolchain's programs; none for the stack's own.
pub(super) fn install(build: &Build, wanted: &Wanted) -> Result<Option<PathBuf>, PackError> {
    let source = std::env::var(SOURCE.0).unwrap_or_else(|_| SOURCE.1.to_owned());
    let key =
        Key::new("rust 2").with("Rust version", wanted.version.as_bytes()).with("stack", build.stack().as_bytes());
    let layer = build.layer("toolchain", Use::Cache, key)?;
    let why = wanted.file.unwrap_or("no rust-toolchain.toml: the newest, kept until one names another");
    if !layer.is_kept {
        output::heading(&format!("Downloading Rust {} ({why})", wanted.version));
        match download(&source, wanted, build.arch(), &layer.path()) {
            Err(PackError::RustVersion { url, .. }) if wanted.version == STABLE => {
                output::warning(&format!(
                    "{url} could not be downloaded, so the stack's own Rust {OWN} compiles the app. To end this warning, name a mirror: platform config:set RUSTUP_DIST_SERVER=https://…"
                ));
                return Ok(None);
            }
            done => done?,
        }
        layer.finish()?;
    }
    let bin = layer.path().join("bin");
    let said = Run::new(Path::new("/"), "rustc", ["--version"]).path(&bin).read()?;
    output::heading(&format!("Using {} ({why})", said.trim()));
    Ok(Some(bin))
}

fn download(source: &str, wanted: &Wanted, arch: &str, folder: &Path) -> Result<(), PackError> {
    let unavailable = |url: &str| PackError::RustVersion {
        requested: wanted.version.clone(),
        file: wanted.file.unwrap_or_default(),
        url: url.to_owned(),
    };
    let mut version = wanted.version.clone();
    if version == STABLE {
        let url = format!("{}/dist/channel-rust-stable.toml", source.trim_end_matches('/'));
        let list = Run::new(Path::new("/"), "curl", ["-fsSL", "--retry", "3", &url]).read();
        version = list.ok().and_then(|list| newest(&list)).ok_or_else(|| unavailable(&url))?;
    }
    for part in PARTS {
        let url = url(source, part, &version, arch);
        unpack(&url, folder).map_err(|_| unavailable(&url))?;
    }
    Ok(())
}

/// The version of the compiler in a list of what a channel has: `1.99.1 (58cf8f9c3 2026-10-13)`.
fn newest(list: &str) -> Option<String> {
    let (_, compiler) = list.split_once("[pkg.rustc]\n")?;
    let version = compiler.lines().find_map(|line| line.strip_prefix("version = \""))?;
    Some(version.split([' ', '"']).next()?.to_owned())
}

/// Where a part of a release is; `nightly-2026-01-31` is in a folder of its day.
fn url(source: &str, part: &str, version: &str, arch: &str) -> String {
    let machine = if arch == "arm64" { "aarch64" } else { "x86_64" };
    let is_dated = |(channel, day): &(&str, &str)| ["nightly", "beta"].contains(channel) && day.len() == 10;
    let dated = version.split_once('-').filter(is_dated);
    let (folder, name) = dated.map_or((String::new(), version), |(channel, day)| (format!("/{day}"), channel));
    format!("{}/dist{folder}/{part}-{name}-{machine}-unknown-linux-gnu.tar.xz", source.trim_end_matches('/'))
}

fn unpack(url: &str, folder: &Path) -> Result<(), PackError> {
    // The URL is an argument of the script, so nothing in it is read as shell.
    let script = "set -o pipefail
        curl -fsSL --retry 3 \"$1\" | tar --extract --xz --strip-components=2 --directory \"$2\"";
    Run::new(Path::new("/"), "bash", ["-c", script, "bash", url, &folder.to_string_lossy()]).show()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_where_rust_users_write_them() {
        for (name, text, expected) in [
            ("rust-toolchain.toml", "[toolchain]\nchannel = \"1.91.1\"", "1.91.1"),
            ("rust-toolchain.toml", "[toolchain]\nprofile = \"minimal\"", "stable"),
            ("rust-toolchain", "1.92\n", "1.92.0"),
            ("rust-toolchain", "nightly-2026-01-31", "nightly-2026-01-31"),
            ("Cargo.toml", "[package]\nrust-version = \"1.93\"", "stable"),
        ] {
            let app = tempfile::tempdir().unwrap();
            std::fs::write(app.path().join(name), text).unwrap();
            let wanted = Wanted::read(app.path()).unwrap();
            assert_eq!(wanted.version, expected, "{text}");
            assert_eq!(wanted.packages().build.is_empty(), expected != "stable", "{text}");
        }
    }

    #[test]
    fn the_newest_release_is_found_in_the_list_of_its_channel() {
        let list =
            "[pkg.cargo]\nversion = \"0.100.0 (5f9 2026-08-27)\"\n[pkg.rustc]\nversion = \"1.99.1 (58c 2026-10-13)\"\n";
        assert_eq!(newest(list).as_deref(), Some("1.99.1"));
        assert_eq!(newest("<html>"), None);
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
