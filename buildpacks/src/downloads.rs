//! What builds of any app have downloaded before. The platform keeps it by the SHA-512 of its content (docs/buildpacks.md), and takes
//! more of it after each build.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::error::PackError;
use crate::files;

/// Where the platform keeps it, each file by its hash in hexadecimal digits. There is none on another platform.
const KEPT: &str = "/cnb/downloads";
/// Where the platform looks for more, below the folder of all layers.
const OFFERED: &str = "config/downloads";

/// Downloads before this build, and of it.
#[derive(Debug)]
pub(crate) struct Downloads {
    kept: PathBuf,
    offered: PathBuf,
}

impl Downloads {
    /// Those that a build with this folder of layers sees.
    pub(crate) fn of(layers: &Path) -> Self {
        Self { kept: PathBuf::from(KEPT), offered: layers.join(OFFERED) }
    }

    /// The file that has this integrity (Subresource Integrity, as npm's lock files have it), if it was downloaded before.
    pub(crate) fn find(&self, integrity: &str) -> Option<PathBuf> {
        Some(self.kept.join(hash(integrity)?)).filter(|path| path.is_file())
    }

    /// Keeps a file of this integrity for other builds. One that is kept already, or has no hash that counts, is left out.
    pub(crate) fn offer(&self, integrity: &str, file: &Path) -> Result<(), PackError> {
        let Some(hash) = hash(integrity) else { return Ok(()) };
        let to = self.offered.join(&hash);
        if !self.kept.is_dir() || self.kept.join(&hash).is_file() || to.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.offered).map_err(files::failed("make", &self.offered))?;
        fs::hard_link(file, &to).map_err(files::failed("link", &to))
    }
}

/// The SHA-512 in an integrity, in hexadecimal digits.
pub(crate) fn hash(integrity: &str) -> Option<String> {
    let encoded = integrity.split_whitespace().find_map(|hash| hash.strip_prefix("sha512-"))?;
    let bytes = BASE64.decode(encoded.split('?').next()?).ok()?;
    (bytes.len() == 64).then(|| hex::encode(bytes))
}

#[cfg(test)]
impl Downloads {
    /// Those of a test, in a folder of its own.
    pub(crate) fn at(folder: &Path) -> Self {
        let downloads = Self { kept: folder.join("kept"), offered: folder.join("offered") };
        fs::create_dir_all(&downloads.kept).unwrap();
        downloads
    }

    /// What the platform does after a build.
    pub(crate) fn take(&self) {
        for entry in self.offered.read_dir().unwrap() {
            let entry = entry.unwrap();
            fs::rename(entry.path(), self.kept.join(entry.file_name())).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the text `one`.
    const ONE: &str = "sha512-BfcDQQeKz2oG1CPSFyD5ZD1flTYm2IoCY23DqeeVgq6wyCCFf9P43FAqqDYNLI+pephf2ltim4CcrRj/ti04mQ==";

    #[test]
    fn what_one_build_offers_the_next_one_finds() {
        let folder = tempfile::tempdir().unwrap();
        let downloads = Downloads::at(folder.path());
        let file = folder.path().join("one.tgz");
        fs::write(&file, "one").unwrap();
        assert_eq!(downloads.find(ONE), None);
        downloads.offer(ONE, &file).unwrap();
        downloads.offer(ONE, &file).unwrap();
        assert_eq!(downloads.find(ONE), None, "only the platform keeps");
        downloads.take();
        assert_eq!(fs::read_to_string(downloads.find(&format!("sha1-AAAA {ONE}?opt")).unwrap()).unwrap(), "one");
        downloads.offer(ONE, &file).unwrap();
        assert_eq!(downloads.offered.read_dir().unwrap().count(), 0, "it is kept already");
    }

    #[test]
    fn a_hash_that_is_none_is_no_path() {
        for text in
            ["", "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "sha512-", "sha512-Li4vLi4v", "sha512-*", "../../etc/passwd"]
        {
            assert_eq!(hash(text), None, "{text}");
        }
    }
}
