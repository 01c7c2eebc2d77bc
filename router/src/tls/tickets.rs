//! Session tickets (RFC 8446, section 4.6.1; RFC 5077): a client that comes again skips most of the handshake, whichever worker it meets, and
//! also after the router started anew.
//!
//! For that the keys are in a file, in a folder that is in memory and gone after a reboot, for root alone: whoever can read it can read the
//! router's memory, too. A key seals for six hours and opens for twelve, so a stolen one opens no session that is older.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chacha20poly1305::aead::Aead;
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use model::{Clock, Random, Timestamp};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

/// How long a key seals tickets.
const SEALS: Duration = Duration::from_secs(6 * 60 * 60);
/// How long it opens them after that.
const OPENS: Duration = SEALS;
/// Tells a ticket's key from others.
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;

/// What seals tickets and opens them.
pub(crate) struct Tickets {
    file: PathBuf,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// The newest first.
    keys: Mutex<Vec<TicketKey>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct TicketKey {
    id: [u8; ID_BYTES],
    secret: [u8; 32],
    /// In milliseconds since 1970.
    born: i64,
}

impl TicketKey {
    /// Whether it is for that at this time. One from the future is from a clock that was wrong.
    fn is_younger(&self, than: Duration, now: Timestamp) -> bool {
        let born = Timestamp::from_millis(self.born);
        born <= now && now < born.after(than)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(Key::from_slice(&self.secret))
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(..)")
    }
}

impl Tickets {
    /// With the keys in `file`, if there are any.
    pub(crate) fn open(file: &Path, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Arc<Self> {
        let keys = fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Arc::new(Self { file: file.to_owned(), clock, random, keys: Mutex::new(keys) })
    }

    /// The key that seals now; a new one if the last one did so for long enough.
    fn sealing(&self) -> TicketKey {
        let now = self.clock.now();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.first().filter(|key| key.is_younger(SEALS, now)) {
            return key.clone();
        }
        let mut key = TicketKey { id: [0; ID_BYTES], secret: [0; 32], born: now.as_millis() };
        self.random.fill(&mut key.id);
        self.random.fill(&mut key.secret);
        keys.retain(|key| key.is_younger(SEALS + OPENS, now));
        keys.insert(0, key.clone());
        if let Err(error) = save(&self.file, &keys) {
            tracing::info!(error = %error, "clients that come again after a restart of the router will not be known");
        }
        key
    }

    fn opening(&self, id: &[u8]) -> Option<TicketKey> {
        let now = self.clock.now();
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|key| key.id == id && key.is_younger(SEALS + OPENS, now)).cloned()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// In seconds.
    fn lifetime(&self) -> u32 {
        u32::try_from(OPENS.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.sealing();
        let mut nonce = [0; NONCE_BYTES];
        self.random.fill(&mut nonce);
        let sealed = key.cipher().encrypt(XNonce::from_slice(&nonce), plain).ok()?;
        Some([&key.id[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = ticket.split_at_checked(ID_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES)?;
        self.opening(id)?.cipher().decrypt(XNonce::from_slice(nonce), sealed).ok()
    }
}

fn save(file: &Path, keys: &[TicketKey]) -> io::Result<()> {
    let draft = file.with_extension("new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    out.write_all(&serde_json::to_vec(keys)?)?;
    fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicI64, Ordering};

    use model::clock::SystemRandom;

    use super::*;

    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_ticket_opens_after_a_restart_and_until_its_key_is_too_old() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tickets.json");
        let clock = Arc::new(Hands(AtomicI64::new(1_795_228_786_000)));
        let open = || Tickets::open(&file, clock.clone(), Arc::new(SystemRandom));
        let tickets = open();
        let first = tickets.encrypt(b"session").expect("sealed");
        assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        let again = open();
        assert_eq!(again.decrypt(&first).as_deref(), Some(&b"session"[..]), "also by a router that started since");
        for place in [0, ID_BYTES, first.len() - 1] {
            let mut wrong = first.clone();
            wrong[place] ^= 1;
            assert_eq!(again.decrypt(&wrong), None);
        }
        assert_eq!(again.decrypt(&first[..9]), None);

        let hour = 60 * 60 * 1000;
        clock.0.fetch_add(7 * hour, Ordering::Relaxed);
        let second = again.encrypt(b"other").expect("sealed");
        assert_ne!(first[..ID_BYTES], second[..ID_BYTES], "another key");
        assert_eq!(again.decrypt(&first).as_deref(), Some(&b"session"[..]));
        clock.0.fetch_add(6 * hour, Ordering::Relaxed);
        assert_eq!(again.decrypt(&first), None, "too old");
        assert_eq!(again.decrypt(&second).as_deref(), Some(&b"other"[..]));
        std::fs::write(&file, "{").expect("written");
        assert_eq!(open().decrypt(&second), None, "a damaged file is none");
    }
}
