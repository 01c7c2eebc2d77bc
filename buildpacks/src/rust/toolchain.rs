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

/// Downloads what the list of a channel names, as rustup does: `nightly-2026-01-31` is in a folder of its day.
fn download(source: &str, wanted: &Wanted, arch: &str, folder: &Path) -> Result<(), PackError> {
    let unavailable = |url: &str| PackError::RustVersion {
        requested: wanted.version.clone(),
        file: wanted.file.unwrap_or_default(),
        url: url.to_owned(),
    };
    let source = source.trim_end_matches('/');
    let url = format!("{source}/dist/{}", list_of(&wanted.version));
    let list = Run::new(Path::new("/"), "curl", ["-fsSL", "--retry", "3", &url]).read();
    let archives = list.ok().and_then(|list| archives(&list, arch)).ok_or_else(|| unavailable(&url))?;
    for Archive { xz_url, xz_hash } in archives {
        // A mirror has what the list names by its first source.
        let url = xz_url.replacen(SOURCE.1, source, 1);
        unpack(&url, &xz_hash, folder).map_err(|_| unavailable(&url))?;
    }
    Ok(())
}

/// Where a channel's list is.
fn list_of(version: &str) -> String {
    let is_dated = |(channel, day): &(&str, &str)| ["nightly", "beta"].contains(channel) && day.len() == 10;
    match version.split_once('-').filter(is_dated) {
        Some((channel, day)) => format!("{day}/channel-rust-{channel}.toml"),
        None => format!("channel-rust-{version}.toml"),
    }
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Archive {
    xz_url: String,
    /// SHA-256.
    xz_hash: String,
}

/// The archives of all parts in a list; none if one is missing.
fn archives(list: &str, arch: &str) -> Option<Vec<Archive>> {
    let machine = if arch == "arm64" { "aarch64" } else { "x86_64" };
    let list: toml::Table = list.parse().ok()?;
    let target = format!("{machine}-unknown-linux-gnu");
    let archive = |part: &str| {
        let archive = list.get("pkg")?.get(part)?.get("target")?.get(&target)?;
        archive.clone().try_into().ok()
    };
    PARTS.into_iter().map(archive).collect()
}

fn unpack(url: &str, hash: &str, folder: &Path) -> Result<(), PackError> {
    // The URL is an argument of the script, so nothing in it is read as shell.
    let script = "set -e
        file=$(mktemp); trap 'rm -f \"$file\"' EXIT
        curl -fsSL --retry 3 --output \"$file\" \"$1\"
        echo \"$2  $file\" | sha256sum --check --quiet
        tar --extract --xz --strip-components=2 --directory \"$3\" --file \"$file\"";
    Run::new(Path::new("/"), "bash", ["-c", script, "bash", url, hash, &folder.to_string_lossy()]).show()
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
    fn archives_are_found_in_the_list_of_a_channel() {
        let part = |name: &str| {
            format!(
                "[pkg.{name}.target.x86_64-unknown-linux-gnu]\nxz_url = \"https://static.rust-lang.org/dist/d/{name}.tar.xz\"\nxz_hash = \"ab\"\n"
            )
        };
        let list = ["cargo", "rustc", "rust-std"].map(part).concat();
        let urls: Vec<String> = archives(&list, "amd64").unwrap().into_iter().map(|archive| archive.xz_url).collect();
        assert_eq!(urls[0], "https://static.rust-lang.org/dist/d/rustc.tar.xz");
        assert_eq!(urls.len(), 3);
        assert_eq!(archives(&list, "arm64"), None);
        assert_eq!(archives("<html>", "amd64"), None);
    }

    #[test]
    fn every_channel_has_a_list() {
        assert_eq!(list_of("stable"), "channel-rust-stable.toml");
        assert_eq!(list_of("1.90.0"), "channel-rust-1.90.0.toml");
        assert_eq!(list_of("nightly-2026-01-31"), "2026-01-31/channel-rust-nightly.toml");
    }
}
