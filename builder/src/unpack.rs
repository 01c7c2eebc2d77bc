//! Archives and OCI layouts from strangers, unpacked into a folder and nowhere else.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::fetch::PACKAGE;
use crate::oci::Layout;

/// Most bytes and files that an archive may have, unpacked.
const MAX_BYTES: u64 = 2 << 30;
pub(crate) const MAX_ENTRIES: usize = 500_000;

/// Logarithm of the bytes that unpacking may look back at, and so needs of memory: registries' tools stay far below.
const MAX_WINDOW: u32 = 25;

/// Label of an image with the buildpack that it is named after.
const LABEL: &str = "io.buildpacks.buildpackage.metadata";
/// The same of one with an image extension.
const EXTENSION_LABEL: &str = "io.buildpacks.extension.metadata";

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("it cannot be unpacked: {0}")]
    Read(#[from] io::Error),
    #[error("{} would be outside of its folder", .0.display())]
    Outside(PathBuf),
    #[error("{} is neither a file, a folder nor a link", .0.display())]
    Kind(PathBuf),
    #[error("unpacked it has more than {}", crate::errors::size(*.0))]
    TooLarge(u64),
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

/// Unpacks a tar file, which may be compressed by gzip or zstd, into a new folder.
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

/// The tar stream of an archive, with a bound for everything that may be in it.
pub(crate) fn open(archive: &Path, limit_bytes: u64) -> Result<tar::Archive<impl Read>, UnpackError> {
    let mut file = File::open(archive)?;
    let mut magic = [0; 4];
    let known = file.read(&mut magic)?;
    file.rewind()?;
    let file = BufReader::new(file);
    let reader: Box<dyn Read> = match magic[..known] {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::Decoder::with_buffer(file)?;
            decoder.window_log_max(MAX_WINDOW)?;
            Box::new(decoder)
        }
        _ => Box::new(file),
    };
    // A tar file has a header of at most some blocks for each entry.
    let whole = reader.take(limit_bytes.saturating_add((MAX_ENTRIES as u64) * 2048));
    // Some tools leave out what pads the last file to a block, and the two empty blocks of the end.
    Ok(tar::Archive::new(whole.chain(io::repeat(0).take(3 * 512))))
}

fn extract(archive: &Path, target: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<(), UnpackError> {
    let mut archive = open(archive, MAX_BYTES)?;
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
            () if bytes > MAX_BYTES => return Err(UnpackError::TooLarge(MAX_BYTES)),
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

pub(crate) fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Unpacks the buildpacks and image extensions of the image in an OCI layout to `target/cnb/…`, and notes in `package.json` which one it is
/// named after (Distribution spec, "Buildpackage").
pub(crate) fn package(layout: &Path, target: &Path) -> Result<(), UnpackError> {
    fs::create_dir_all(target)?;
    let image = Layout::read(layout)?;
    let labels = &image.settings.labels;
    let label = labels.get(LABEL).or_else(|| labels.get(EXTENSION_LABEL)).ok_or(UnpackError::NoLabel)?;
    let is_wanted = |path: &Path| path.starts_with("cnb/buildpacks") || path.starts_with("cnb/extensions");
    for layer in &image.layers {
        extract(&image.blob(layer)?, target, &is_wanted)?;
    }
    fs::write(target.join(PACKAGE), label)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Entries, listing, put, tar_of};

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

    #[test]
    fn zstd_is_read_in_several_frames_and_gets_no_more_memory_than_it_needs() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let (archive, target) = (dir.path().join("a"), dir.path().join("files"));
        let whole = tar_of(&[("bin/build", tar::EntryType::Regular, "x")]);
        let frames = [&whole[..700], &whole[700..]].map(|part| zstd::encode_all(part, 3).unwrap());
        fs::write(&archive, frames.concat()).unwrap();
        tar(&archive, &target).unwrap();
        assert_eq!(listing(&target), "bin /\nbin/build x\n");

        let mut greedy = zstd::Encoder::new(Vec::new(), 3).unwrap();
        greedy.window_log(MAX_WINDOW + 2).unwrap();
        greedy.write_all(&whole).unwrap();
        fs::write(&archive, greedy.finish().unwrap()).unwrap();
        let error = tar(&archive, &target).unwrap_err().to_string();
        assert!(error.starts_with("it cannot be unpacked: "), "{error}");
    }
}
