//! What builds have downloaded, kept for the builds of all apps: a language, say, is fetched once for a machine and not once for
//! an app.
//!
//! Files are kept by the SHA-512 of their content, which is calculated here, after the build. A build that wants a file knows its hash
//! from elsewhere (a lock file, a registry), so no app can give another one anything that it did not ask for. What was downloaded may be
//! private: the folder cannot be listed, and only who knows a hash already can read the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::OFlag;
use sha2::{Digest, Sha512};

use crate::tree::make_dir;

/// Where builds find what is kept, each file by its hash in hexadecimal digits.
pub(crate) const TARGET: &str = "/cnb/downloads";
/// Where builds leave what they have downloaded, under any name, below `<layers>`.
const OFFERED: &str = "config/downloads";
/// All that is kept, in bytes. Beyond it, what has been there longest goes.
const LIMIT_BYTES: u64 = 2 << 30;
/// A larger file is not kept.
const FILE_LIMIT_BYTES: u64 = 256 << 20;

/// The folder of what is kept.
pub(crate) struct Downloads {
    folder: PathBuf,
    limit_bytes: u64,
}

impl Downloads {
    /// Those in `folder`, which need not be there yet.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, limit_bytes: LIMIT_BYTES }
    }

    /// The folder, made if it was missing: anybody may enter it and nobody list it.
    pub(crate) fn folder(&self) -> io::Result<&Path> {
        if !self.folder.is_dir() {
            make_dir(&self.folder, 0o711)?;
        }
        Ok(&self.folder)
    }

    /// Takes over what a build that has ended left in `layers`. Whatever it made of the folder, only plain files count.
    pub(crate) fn take(&self, layers: &Path) -> io::Result<()> {
        let offered = layers.join(OFFERED);
        let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
        if !(is_folder(&layers.join("config")) && is_folder(&offered)) {
            return Ok(());
        }
        for entry in offered.read_dir()? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                self.keep(&entry.path())?;
            }
        }
        self.prune()?;
        // It is no part of any layer.
        fs::remove_dir_all(&offered)
    }

    fn keep(&self, path: &Path) -> io::Result<()> {
        let mut source = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
        if source.metadata()?.len() > FILE_LIMIT_BYTES {
            return Ok(());
        }
        // A copy: the build's own file belongs to the app's user.
        let mut copy = tempfile::Builder::new().prefix(".new-").tempfile_in(self.folder()?)?;
        let mut hash = Sha512::new();
        io::copy(&mut Hashing { source: &mut source, hash: &mut hash }, copy.as_file_mut())?;
        fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
        // After a power cut a file must not be there by its hash with something else in it.
        copy.as_file().sync_all()?;
        copy.persist(self.folder.join(hex::encode(hash.finalize())))?;
        Ok(())
    }

    /// Removes what has been there longest, until the rest is within the limit.
    fn prune(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in self.folder()?.read_dir()? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in files {
            if bytes <= self.limit_bytes {
                break;
            }
            // Another build may have ended, and done the same, meanwhile.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => bytes -= size,
            }
        }
        Ok(())
    }
}

/// Hashes what is read.
struct Hashing<'a> {
    source: &'a mut File,
    hash: &'a mut Sha512,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// `printf one | sha512sum`
    const ONE: &str = "05f70341078acf6a06d423d21720f9643d5f953626d88a02636dc3a9e79582aeb0c820857fd3f8dc502aa8360d2c8fa97a985fda5b629b809cad18ffb62d3899";

    struct Machine {
        dir: tempfile::TempDir,
        downloads: Downloads,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let downloads = Downloads::new(dir.path().join("downloads"));
            Self { dir, downloads }
        }

        /// What a build offers, under names of its choice.
        fn build(&self, files: &[(&str, &[u8])]) -> PathBuf {
            let layers = self.dir.path().join("layers");
            fs::create_dir_all(layers.join(OFFERED)).unwrap();
            for (name, content) in files {
                fs::write(layers.join(OFFERED).join(name), content).unwrap();
            }
            layers
        }

        fn kept(&self) -> Vec<String> {
            let entries = self.downloads.folder().unwrap().read_dir().unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    #[test]
    fn a_file_is_kept_by_what_is_in_it_whatever_the_build_calls_it() {
        let machine = Machine::new();
        let layers = machine.build(&[("0000", b"one")]);
        machine.downloads.take(&layers).unwrap();
        assert_eq!(machine.kept(), [ONE]);
        assert!(!layers.join(OFFERED).exists());
        let metadata = fs::metadata(machine.downloads.folder().unwrap()).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o711, "nobody can list it");
        assert_eq!(fs::metadata(machine.downloads.folder.join(ONE)).unwrap().permissions().mode() & 0o777, 0o444);
    }

    #[test]
    fn links_and_folders_are_not_taken() {
        let machine = Machine::new();
        let layers = machine.build(&[]);
        symlink("/etc/shadow", layers.join(OFFERED).join("link")).unwrap();
        fs::create_dir(layers.join(OFFERED).join("folder")).unwrap();
        machine.downloads.take(&layers).unwrap();
        assert_eq!(machine.kept(), [""; 0]);

        let secret = machine.dir.path().join("host");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("file"), "one").unwrap();
        symlink(&secret, layers.join(OFFERED)).unwrap();
        machine.downloads.take(&layers).unwrap();
        assert_eq!(machine.kept(), [""; 0]);
        assert!(secret.join("file").exists());
    }

    #[test]
    fn beyond_the_limit_the_oldest_go() {
        let mut machine = Machine::new();
        machine.downloads.take(&machine.build(&[("a", b"one")])).unwrap();
        let old = File::options().write(true).open(machine.downloads.folder.join(ONE)).unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        machine.downloads.limit_bytes = 4;
        machine.downloads.take(&machine.build(&[("b", b"two!")])).unwrap();
        assert_eq!(machine.kept().len(), 1);
        assert!(!machine.downloads.folder.join(ONE).exists());
    }

    #[test]
    fn a_build_that_offers_nothing_costs_nothing() {
        let machine = Machine::new();
        machine.downloads.take(&machine.dir.path().join("layers")).unwrap();
        assert!(!machine.downloads.folder.exists());
    }
}
