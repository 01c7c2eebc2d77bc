//! The key by which clients know this platform again.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::Random;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{PrivateKey, PublicKey};

use crate::keys;

fn path(home: &Path) -> PathBuf {
    home.join("ssh/host_ed25519")
}

/// The key, made if it is missing.
pub(super) fn open(home: &Path, random: &dyn Random) -> io::Result<PrivateKey> {
    let path = path(home);
    match PrivateKey::read_openssh_file(&path) {
        Ok(key) => Ok(key),
        Err(_) if !path.exists() => make(&path, random),
        Err(error) => Err(io::Error::other(format!("{} is no host key: {error}", path.display()))),
    }
}

/// What a client is shown before it trusts a platform: `SHA256:…`; none before the platform ran for the first time.
pub fn fingerprint(home: &Path) -> Option<String> {
    let key = PublicKey::read_openssh_file(path(home).with_extension("pub")).ok()?;
    Some(keys::fingerprint(&key))
}

fn make(path: &Path, random: &dyn Random) -> io::Result<PrivateKey> {
    let mut seed = [0; 32];
    random.fill(&mut seed);
    let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
    let key = PrivateKey::new(pair, "platform").map_err(io::Error::other)?;
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let public = key.public_key().to_openssh().map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    write(&path.with_extension("pub"), format!("{public}\n").as_bytes())?;
    // Last: while it is missing, both are made again.
    write(path, text.as_bytes())?;
    Ok(key)
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use model::clock::SystemRandom;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().expect("a folder");
        assert_eq!(fingerprint(home.path()), None);
        let made = open(home.path(), &SystemRandom).expect("made");
        let again = open(home.path(), &SystemRandom).expect("read");
        assert_eq!(made.public_key(), again.public_key());
        assert_eq!(fingerprint(home.path()), Some(keys::fingerprint(made.public_key())));
        let permissions = path(home.path()).metadata().expect("a file").permissions();
        assert_eq!(permissions.mode() & 0o077, 0);
        std::fs::write(path(home.path()), "broken").expect("written");
        assert!(open(home.path(), &SystemRandom).is_err(), "never replaced behind the clients' backs");
    }
}
