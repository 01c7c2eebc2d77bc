//! Archives and OCI layouts from strangers, unpacked into a folder and nowhere else.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::fetch::PACKAGE;

/// Most bytes and files that an archive may have, unpacked.
const MAX_BYTES: u64 = 2 << 30;
const MAX_ENTRIES: usize = 200_000;
/// A longer document of a layout is not read.
const MAX_DOCUMENT: u64 = 8 << 20;

/// Label of an image with the buildpack that it is named after.
const LABEL: &str = "io.buildpacks.buildpackage.metadata";

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("it cannot be unpacked: {0}")]
    Read(#[from] io::Error),
    #[error("{} would be outside of its folder", .0.display())]
    Outside(PathBuf),
    #[error("{} is neither a file, a folder nor a link", .0.display())]
    Kind(PathBuf),
    #[error("unpacked it has more than {} GiB", MAX_BYTES >> 30)]
    TooLarge,
    #[error("it has more than {MAX_ENTRIES} files")]
    TooMany,
    #[error("it is not an OCI layout: {0}")]
    Layout(String),
    #[error("its blob {0} does not have that digest")]
    Damaged(String),
    #[error("it is not a buildpack: its image has no label {LABEL}")]
    NoLabel,
}

/// SHA-256 of a file.
pub(crate) fn digest(file: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(file)?, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

/// Unpacks a tar file, which may be compressed by gzip, into a new folder.
pub(crate) fn tar(archive: &Path, target: &Path) -> Result<(), UnpackError> {
    fs::create_dir_all(target)?;
    extract(archive, target, &|_| true)
}

/// The only folder of `folder`, if there is nothing else in it: code hosts put everything into one.
pub(crate) fn inner(folder: PathBuf) -> PathBuf {
    let mut entries = folder.read_dir().into_iter().flatten().flatten();
    match (entries.next(), entries.next()) {
        (Some(only), None) if only.file_type().is_ok_and(|kind| kind.is_dir()) => only.path(),
        _ => folder,
    }
}

fn extract(archive: &Path, target: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<(), UnpackError> {
    let mut file = File::open(archive)?;
    let mut magic = [0; 2];
    let is_gzip = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
    file.rewind()?;
    let reader: Box<dyn Read> =
        if is_gzip { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(BufReader::new(file)) };
    // A tar file has a header of at most some blocks for each entry.
    let mut archive = tar::Archive::new(reader.take(MAX_BYTES + (MAX_ENTRIES as u64) * 2048));
    archive.set_preserve_mtime(false);
    let (mut bytes, mut count) = (0u64, 0);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let path = entry.path()?.into_owned();
        let relative = path.strip_prefix("/").unwrap_or(&path).to_owned();
        bytes = bytes.saturating_add(entry.size());
        count += 1;
        match () {
            () if bytes > MAX_BYTES => return Err(UnpackError::TooLarge),
            () if count > MAX_ENTRIES => return Err(UnpackError::TooMany),
            () if !is_inside(&relative) => return Err(UnpackError::Outside(path)),
            () if !wanted(&relative) => continue,
            () if kind.is_hard_link() && !entry.link_name()?.is_some_and(|to| is_inside(&to)) => {
                return Err(UnpackError::Outside(path));
            }
            () if !(kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()) => {
                return Err(UnpackError::Kind(path));
            }
            () => {}
        }
        // It refuses to go through links that lead elsewhere.
        if !entry.unpack_in(target)? {
            return Err(UnpackError::Outside(path));
        }
    }
    Ok(())
}

fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    media_type: String,
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    config: Settings,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Settings {
    #[serde(rename = "Labels")]
    labels: Option<std::collections::BTreeMap<String, String>>,
}

/// Unpacks the buildpacks of the image in an OCI layout to `target/cnb/buildpacks/…`, and notes in `package.json` which one it is
/// named after (Distribution spec, "Buildpackage").
pub(crate) fn package(layout: &Path, target: &Path) -> Result<(), UnpackError> {
    fs::create_dir_all(target)?;
    let manifest = manifest(layout)?;
    let config: Config = document(&blob(layout, &manifest.config.digest)?)?;
    let label = config.config.labels.unwrap_or_default().remove(LABEL).ok_or(UnpackError::NoLabel)?;
    for layer in &manifest.layers {
        extract(&blob(layout, &layer.digest)?, target, &|path| path.starts_with("cnb/buildpacks"))?;
    }
    fs::write(target.join(PACKAGE), label)?;
    Ok(())
}

/// The manifest for this machine, or the only one.
fn manifest(layout: &Path) -> Result<Manifest, UnpackError> {
    let mut file = layout.join("index.json");
    // An index may be within an index; nobody goes deeper.
    for _ in 0..3 {
        let index: Index = document(&file)?;
        let is_ours = |platform: &Platform| platform.os == "linux" && platform.architecture == crate::architecture();
        let found = index.manifests.iter().find(|one| one.platform.as_ref().is_none_or(is_ours));
        let found = found.ok_or_else(|| UnpackError::Layout("it has no image for this machine".to_owned()))?;
        file = blob(layout, &found.digest)?;
        if !found.media_type.ends_with("index.v1+json") && !found.media_type.ends_with("list.v2+json") {
            return document(&file);
        }
    }
    Err(UnpackError::Layout("its indexes lead to no image".to_owned()))
}

/// The file of a blob, which has this digest.
fn blob(layout: &Path, digest: &str) -> Result<PathBuf, UnpackError> {
    let parsed: model::Digest = digest.parse().map_err(|_| UnpackError::Layout(format!("{digest:?} is no digest")))?;
    let file = layout.join("blobs/sha256").join(parsed.hex());
    if self::digest(&file)? == parsed.hex() { Ok(file) } else { Err(UnpackError::Damaged(digest.to_owned())) }
}

fn document<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, UnpackError> {
    let mut text = Vec::new();
    File::open(file)?.take(MAX_DOCUMENT).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|error| UnpackError::Layout(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::listing;

    /// Path, kind, and content or target.
    type Entries<'a> = &'a [(&'a str, tar::EntryType, &'a str)];

    fn tar_of(entries: Entries<'_>) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            // Past the library's own check of what is written.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let data = if kind.is_file() { content.as_bytes() } else { &[] };
            header.set_size(data.len() as u64);
            if !kind.is_file() && !content.is_empty() {
                header.set_link_name_literal(content).unwrap();
            }
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn nothing_is_written_outside() {
        use tar::EntryType::{Char, Link, Regular, Symlink};
        let rows: [(Entries<'_>, &str); 6] = [
            (&[("bin/build", Regular, "x"), ("bin/detect", Symlink, "build")], ""),
            (&[("../x", Regular, "x")], "outside of its folder"),
            (&[("a/../../x", Regular, "x")], "outside of its folder"),
            (&[("link", Symlink, "/tmp"), ("link/x", Regular, "x")], "cannot be unpacked"),
            (&[("x", Link, "/etc/passwd")], "outside of its folder"),
            (&[("x", Char, "")], "neither a file"),
        ];
        for (entries, problem) in rows {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("a"), tar_of(entries)).unwrap();
            let said = tar(&dir.path().join("a"), &dir.path().join("files"))
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(said.contains(problem) && said.is_empty() == problem.is_empty(), "{entries:?}: {said}");
            assert!(!dir.path().join("x").exists());
        }
    }

    /// Writes a blob and returns its digest.
    fn put(layout: &Path, bytes: &[u8]) -> String {
        let hex = hex::encode(Sha256::digest(bytes));
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
        format!("sha256:{hex}")
    }

    #[test]
    fn a_package_is_taken_out_of_its_layout_and_a_damaged_one_is_not() {
        use tar::EntryType::Regular;
        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path().join("layout");
        let layer = put(
            &layout,
            &tar_of(&[("/cnb/buildpacks/a_b/1.0.0/buildpack.toml", Regular, "api"), ("etc/x", Regular, "")]),
        );
        let config = put(&layout, format!("{{\"config\":{{\"Labels\":{{\"{LABEL}\":\"{{}}\"}}}}}}").as_bytes());
        let manifest = put(
            &layout,
            format!("{{\"config\":{{\"digest\":\"{config}\"}},\"layers\":[{{\"digest\":\"{layer}\"}}]}}").as_bytes(),
        );
        let inner = put(&layout, format!("{{\"manifests\":[{{\"digest\":\"{manifest}\",\"platform\":{{\"os\":\"linux\",\"architecture\":\"{}\"}}}}]}}", crate::architecture()).as_bytes());
        let index = format!(
            "{{\"manifests\":[{{\"digest\":\"{inner}\",\"mediaType\":\"application/vnd.oci.image.index.v1+json\"}}]}}"
        );
        fs::write(layout.join("index.json"), index).unwrap();
        package(&layout, &dir.path().join("files")).unwrap();
        let files = listing(&dir.path().join("files"));
        assert_eq!(
            files,
            "cnb /\ncnb/buildpacks /\ncnb/buildpacks/a_b /\ncnb/buildpacks/a_b/1.0.0 /\ncnb/buildpacks/a_b/1.0.0/buildpack.toml api\npackage.json {}\n"
        );
        fs::write(layout.join("blobs/sha256").join(&layer["sha256:".len()..]), "other").unwrap();
        let error = package(&layout, &dir.path().join("again")).unwrap_err().to_string();
        assert!(error.contains("does not have that digest"), "{error}");
    }
}
