//! Encryption of what must not be readable in a copy of the database: config vars above all.
//!
//! XChaCha20-Poly1305, a random 24-byte nonce for each value, and the row's identity as associated data, so that a sealed value
//! copied into another row does not open. The key is in a file beside the database, not in it, and can be replaced
//! (`rotation.rs`).

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use model::Random;
use sha2::{Digest, Sha256};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// What the extension of a key begins with that is being made; the id of the process follows.
const DRAFT: &str = "new-";

/// Why a secret cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The key file cannot be read or made.
    #[error("cannot read or make the key file {path}")]
    KeyFile {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The key file does not hold a key.
    #[error("the key file {path} must hold exactly {KEY_BYTES} bytes")]
    KeyLength {
        /// Where.
        path: PathBuf,
    },
    /// Sealed under another key or for another row, or damaged.
    #[error("the sealed value does not fit its key and its row")]
    Sealed,
}

/// Seals and opens. A sealed value is `<id of its key>:<base64 of nonce and cipher text>`.
pub struct Secrets {
    key_file: PathBuf,
    keys: RwLock<Keys>,
    random: Arc<dyn Random>,
}

struct Keys {
    /// Seals everything.
    newest: SealingKey,
    /// Opens what was sealed before a rotation that is not over.
    before: Option<SealingKey>,
}

struct SealingKey {
    /// Tells it from others, and nothing about it: 8 hex digits of its hash.
    id: String,
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// With the key in `key_file`, which is made, readable by its owner only, if it does not exist; and with the key of a
    /// rotation that was begun and is not over.
    pub fn open(key_file: &Path, random: Arc<dyn Random>) -> Result<Self, SecretError> {
        remove_drafts(key_file);
        let oldest = SealingKey::open(key_file, &*random)?;
        let next = next_key_file(key_file);
        let keys = if next.exists() {
            Keys { newest: SealingKey::open(&next, &*random)?, before: Some(oldest) }
        } else {
            Keys { newest: oldest, before: None }
        };
        Ok(Self { key_file: key_file.to_owned(), keys: RwLock::new(keys), random })
    }

    /// Seals `plain` for the row named `row`.
    pub fn seal(&self, row: &str, plain: &[u8]) -> Result<String, SecretError> {
        let mut sealed = vec![0; NONCE_BYTES];
        self.random.fill(&mut sealed);
        let payload = Payload { msg: plain, aad: row.as_bytes() };
        let keys = self.keys();
        let cipher_text =
            keys.newest.cipher.encrypt(XNonce::from_slice(&sealed), payload).map_err(|_| SecretError::Sealed)?;
        sealed.extend(cipher_text);
        Ok(format!("{}:{}", keys.newest.id, BASE64.encode(sealed)))
    }

    /// Opens what was sealed for the row named `row`.
    pub fn unseal(&self, row: &str, sealed: &str) -> Result<Vec<u8>, SecretError> {
        // Values of the first version do not name their key.
        let (id, sealed) = sealed.split_once(':').map_or((None, sealed), |(id, sealed)| (Some(id), sealed));
        let sealed = BASE64.decode(sealed).map_err(|_| SecretError::Sealed)?;
        let (nonce, cipher_text) = sealed.split_at_checked(NONCE_BYTES).ok_or(SecretError::Sealed)?;
        let open = |key: &SealingKey| {
            let payload = Payload { msg: cipher_text, aad: row.as_bytes() };
            key.cipher.decrypt(XNonce::from_slice(nonce), payload).ok()
        };
        let keys = self.keys();
        let fitting = keys.before.iter().chain([&keys.newest]).filter(|key| id.is_none_or(|id| key.id == id));
        fitting.into_iter().find_map(open).ok_or(SecretError::Sealed)
    }

    /// The id of the key that seals.
    pub(super) fn key_id(&self) -> String {
        self.keys().newest.id.clone()
    }

    /// Whether values of two keys may be about.
    pub(super) fn is_rotating(&self) -> bool {
        self.keys().before.is_some()
    }

    /// Makes a new key, which seals everything from now on, unless there is one already.
    pub(super) fn begin_rotation(&self) -> Result<(), SecretError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.before.is_none() {
            let next = SealingKey::open(&next_key_file(&self.key_file), &*self.random)?;
            keys.before = Some(std::mem::replace(&mut keys.newest, next));
        }
        Ok(())
    }

    /// Forgets the old key: nothing needs it any more.
    pub(super) fn end_rotation(&self) -> Result<(), SecretError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let moved = std::fs::rename(next_key_file(&self.key_file), &self.key_file)
            .and_then(|()| File::open(self.key_file.parent().unwrap_or(Path::new(".")))?.sync_all());
        moved.map_err(|source| SecretError::KeyFile { path: self.key_file.clone(), source })?;
        keys.before = None;
        Ok(())
    }

    fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        // Nothing panics between two assignments that belong together.
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SealingKey {
    /// The key in this file, which is made if it does not exist.
    fn open(path: &Path, random: &dyn Random) -> Result<Self, SecretError> {
        let failed = |source| SecretError::KeyFile { path: path.to_owned(), source };
        let key = match File::open(path) {
            Ok(file) => read_key(file).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(path, random).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        };
        if key.len() != KEY_BYTES {
            return Err(SecretError::KeyLength { path: path.to_owned() });
        }
        let id = hex::encode(&Sha256::digest(&key)[..4]);
        Ok(Self { id, cipher: XChaCha20Poly1305::new(Key::from_slice(&key)) })
    }
}

/// Where the new key is during a rotation: `secrets.key.next`.
fn next_key_file(key_file: &Path) -> PathBuf {
    let mut name = key_file.as_os_str().to_owned();
    name.push(".next");
    PathBuf::from(name)
}

fn read_key(file: File) -> io::Result<Vec<u8>> {
    let mut key = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key)?;
    Ok(key)
}

/// Removes what processes left that were killed while they made a key: nothing was sealed with it.
fn remove_drafts(key_file: &Path) {
    let entries = key_file.parent().and_then(|folder| folder.read_dir().ok()).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let pid = path.extension().and_then(OsStr::to_str).and_then(|extension| extension.strip_prefix(DRAFT));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Whoever cannot remove it cannot use the folder either, and says so in a moment.
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Writes a new key beside its place and links it there, so that a crash never leaves half a key and two controllers that
/// start at once agree on one.
fn make_key(key_file: &Path, random: &dyn Random) -> io::Result<Vec<u8>> {
    let mut key = vec![0; KEY_BYTES];
    random.fill(&mut key);
    let draft = key_file.with_extension(format!("{DRAFT}{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&key)?;
        file.sync_all()?;
        std::fs::hard_link(&draft, key_file)?;
        File::open(key_file.parent().unwrap_or(Path::new(".")))?.sync_all()
    })();
    // Gone already, or rubbish that the next start removes.
    let _ = std::fs::remove_file(&draft);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_key(File::open(key_file)?),
        result => result.map(|()| key),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use model::clock::SystemRandom;

    use super::*;

    #[test]
    fn a_secret_opens_only_with_its_key_and_in_its_row() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secrets.key");
        let open = || Secrets::open(&path, Arc::new(SystemRandom)).expect("a key");
        let secrets = open();
        let sealed = secrets.seal("release 1", b"KEY=value").expect("sealed");
        assert_eq!(open().unseal("release 1", &sealed).expect("opened"), b"KEY=value");
        assert!(matches!(secrets.unseal("release 2", &sealed), Err(SecretError::Sealed)));
        assert!(matches!(secrets.unseal("release 1", "AAAA"), Err(SecretError::Sealed)));
        assert_ne!(sealed, secrets.seal("release 1", b"KEY=value").expect("sealed"), "a nonce is never used twice");

        let other = Secrets::open(&folder.path().join("other.key"), Arc::new(SystemRandom)).expect("a key");
        assert!(matches!(other.unseal("release 1", &sealed), Err(SecretError::Sealed)));
    }

    #[test]
    fn what_the_first_version_sealed_opens_before_and_during_a_rotation() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secrets.key");
        let secrets = Secrets::open(&path, Arc::new(SystemRandom)).expect("a key");
        let sealed = secrets.seal("row", b"text").expect("sealed");
        let (_, unnamed) = sealed.split_once(':').expect("the key is named");
        assert_eq!(secrets.unseal("row", unnamed).expect("opened"), b"text");
        secrets.begin_rotation().expect("begun");
        assert_eq!(secrets.unseal("row", unnamed).expect("opened"), b"text");
        secrets.end_rotation().expect("ended");
        assert!(secrets.unseal("row", unnamed).is_err() && secrets.unseal("row", &sealed).is_err());
    }

    #[test]
    fn the_key_file_is_private_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secrets.key");
        Secrets::open(&path, Arc::new(SystemRandom)).expect("a key");
        assert_eq!(path.metadata().expect("made").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1, "no draft is left");
        let of_the_dead = folder.path().join(format!("secrets.key.new-{}", u32::MAX));
        let of_the_living = folder.path().join(format!("secrets.key.new-{}", std::process::id()));
        for draft in [&of_the_dead, &of_the_living] {
            std::fs::write(draft, "half a key").expect("written");
        }
        Secrets::open(&path, Arc::new(SystemRandom)).expect("the same key");
        assert!(!of_the_dead.exists() && of_the_living.exists());
        std::fs::write(&path, "short").expect("written");
        assert!(matches!(Secrets::open(&path, Arc::new(SystemRandom)), Err(SecretError::KeyLength { .. })));
    }
}
