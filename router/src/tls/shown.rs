//! The certificates of apps: what each host shows. One control thread writes, every handshake reads.
//!
//! A row is made ready for use when its first visitor comes: a restarted router has ten thousand of them at once, and one that is damaged
//! concerns only its own hosts, which then show the platform's certificate.
//!
//! With a certificate goes what its authority said of it (OCSP). A router sees by itself when that has expired: its controller may be away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use model::certificate::{AppCertificates, CertificatesUpdate, Challenge, ChallengeKind, HostCertificate};
use model::{AppId, Clock, Hostname, Timestamp};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::provider;

/// All rows, and what each host shows.
pub(crate) struct Shown {
    lookup: RwLock<Lookup>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("lookup", &self.lookup).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Lookup {
    rows: BTreeMap<AppId, Arc<AppCertificates>>,
    exact: HashMap<Box<str>, Entry>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Entry>,
    /// What hosts show to a certificate authority that asks by TLS.
    proofs: HashMap<Box<str>, Entry>,
    /// What it is answered by HTTP, by token.
    answers: HashMap<Box<str>, (AppId, Challenge)>,
}

type Entry = (AppId, Arc<Lazy>);

/// A certificate that is made ready when it is needed.
#[derive(Debug)]
struct Lazy {
    source: Source,
    ready: OnceLock<Option<Ready>>,
}

/// A certificate as it is shown: by itself, or until then with what its authority said of it.
#[derive(Debug)]
struct Ready {
    plain: Arc<CertifiedKey>,
    stapled: Option<(Timestamp, Arc<CertifiedKey>)>,
}

#[derive(Debug)]
enum Source {
    /// The one at this place of the app's row.
    Pem(Arc<AppCertificates>, usize),
    Proof(Challenge),
}

impl Shown {
    /// With these rows.
    pub(crate) fn new(rows: BTreeMap<AppId, AppCertificates>, clock: Arc<dyn Clock>) -> Self {
        let shown = Self { lookup: RwLock::default(), clock };
        shown.apply(
            CertificatesUpdate {
                version: 0,
                reset: true,
                set: rows.into_iter().collect(),
                unset: vec![],
                details: false,
            },
            &[],
        );
        shown
    }

    /// Once this returns, every handshake goes by the update; the rows of `kept` stay as they are. The answer is whose rows are not what they were.
    pub(crate) fn apply(&self, update: CertificatesUpdate, kept: &[AppId]) -> Vec<AppId> {
        let mut lookup = self.lookup.write().unwrap_or_else(PoisonError::into_inner);
        let mut gone = update.unset;
        if update.reset {
            let stay: HashSet<AppId> = update.set.iter().map(|(id, _)| *id).chain(kept.iter().copied()).collect();
            gone.extend(lookup.rows.keys().filter(|id| !stay.contains(id)));
        }
        let changed: Vec<_> =
            update.set.into_iter().filter(|(id, row)| lookup.rows.get(id).is_none_or(|old| **old != *row)).collect();
        let mut touched: Vec<AppId> = gone.into_iter().filter(|id| lookup.rows.contains_key(id)).collect();
        touched.extend(changed.iter().map(|(id, _)| *id));
        for id in &touched {
            lookup.take(*id);
        }
        for (id, row) in changed {
            lookup.give(id, Arc::new(row));
        }
        touched
    }

    /// The row of an app, for the disk.
    pub(crate) fn row(&self, app: AppId) -> Option<Arc<AppCertificates>> {
        self.lookup.read().unwrap_or_else(PoisonError::into_inner).rows.get(&app).cloned()
    }

    /// What a host (lower case) shows: that of its own name, else that of the closest wildcard above it; none is the platform's own.
    pub(crate) fn find(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let lookup = self.lookup.read().unwrap_or_else(PoisonError::into_inner);
        let entry = lookup.exact.get(host).or_else(|| lookup.above(host)).map(|(_, lazy)| Arc::clone(lazy));
        drop(lookup);
        entry?.ready(host, &*self.clock)
    }

    /// What a host shows to a certificate authority that asks by TLS.
    pub(crate) fn proof(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let lookup = self.lookup.read().unwrap_or_else(PoisonError::into_inner);
        let entry = lookup.proofs.get(host).map(|(_, lazy)| Arc::clone(lazy));
        drop(lookup);
        entry?.ready(host, &*self.clock)
    }

    /// What a certificate authority that asks `host` for this token by HTTP is answered.
    pub(crate) fn answer(&self, host: &str, token: &str) -> Option<String> {
        let lookup = self.lookup.read().unwrap_or_else(PoisonError::into_inner);
        let (_, challenge) = lookup.answers.get(token)?;
        (challenge.host.as_str() == host).then(|| challenge.answer.clone())
    }
}

impl Lookup {
    fn above(&self, host: &str) -> Option<&Entry> {
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(entry) = self.wildcard.get(parent) {
                return Some(entry);
            }
            rest = parent;
        }
        None
    }

    /// Forgets an app's row, and what its hosts show unless another app has them by now.
    fn take(&mut self, app: AppId) {
        let Some(row) = self.rows.remove(&app) else { return };
        for host in row.certificates.iter().flat_map(|certificate| &certificate.hosts) {
            let (entries, name) = self.place(host);
            if entries.get(name).is_some_and(|(owner, _)| *owner == app) {
                entries.remove(name);
            }
        }
        for challenge in &row.challenges {
            let host = challenge.host.as_str();
            if self.proofs.get(host).is_some_and(|(owner, _)| *owner == app) {
                self.proofs.remove(host);
            }
            self.answers.remove(challenge.token.as_str());
        }
    }

    fn give(&mut self, app: AppId, row: Arc<AppCertificates>) {
        for (index, certificate) in row.certificates.iter().enumerate() {
            let lazy = Arc::new(Lazy { source: Source::Pem(Arc::clone(&row), index), ready: OnceLock::new() });
            for host in &certificate.hosts {
                let (entries, name) = self.place(host);
                entries.insert(name.into(), (app, Arc::clone(&lazy)));
            }
        }
        for challenge in &row.challenges {
            match challenge.kind {
                ChallengeKind::Http => {
                    self.answers.insert(challenge.token.as_str().into(), (app, challenge.clone()));
                }
                ChallengeKind::TlsAlpn => {
                    let lazy = Lazy { source: Source::Proof(challenge.clone()), ready: OnceLock::new() };
                    self.proofs.insert(challenge.host.as_str().into(), (app, Arc::new(lazy)));
                }
            }
        }
        self.rows.insert(app, row);
    }

    fn place<'a>(&mut self, host: &'a Hostname) -> (&mut HashMap<Box<str>, Entry>, &'a str) {
        match host.as_str().strip_prefix("*.") {
            Some(parent) => (&mut self.wildcard, parent),
            None => (&mut self.exact, host.as_str()),
        }
    }
}

impl Lazy {
    /// None if it cannot be used, which is said once.
    fn ready(&self, host: &str, clock: &dyn Clock) -> Option<Arc<CertifiedKey>> {
        let ready = self.ready.get_or_init(|| {
            let made = match &self.source {
                Source::Pem(row, index) => row.certificates.get(*index).ok_or_else(gone).and_then(from_pem),
                Source::Proof(challenge) => {
                    proof(challenge).map(|proof| Ready { plain: Arc::new(proof), stapled: None })
                }
            };
            made.inspect_err(|error| tracing::warn!(error = %error, host, "the certificate of a host cannot be used"))
                .ok()
        });
        let Ready { plain, stapled } = ready.as_ref()?;
        let good = stapled.as_ref().filter(|(expires_at, _)| clock.now() < *expires_at);
        Some(Arc::clone(good.map_or(plain, |(_, stapled)| stapled)))
    }
}

/// It cannot happen: the row is as long as it was.
fn gone() -> io::Error {
    io::Error::other("there is none")
}

fn from_pem(certificate: &HostCertificate) -> io::Result<Ready> {
    let key = PrivateKeyDer::from_pem_slice(certificate.key.0.as_bytes()).map_err(io::Error::other)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.chain.as_bytes()).collect();
    let plain = CertifiedKey::from_der(chain.map_err(io::Error::other)?, key, &provider()).map_err(io::Error::other)?;
    let stapled = certificate.staple.as_ref().and_then(|staple| {
        // Who wrote it has looked at it; whatever became of it since, the certificate is good without.
        let ocsp = Some(BASE64.decode(&staple.answer).ok()?);
        Some((staple.expires_at, Arc::new(CertifiedKey { ocsp, ..plain.clone() })))
    });
    Ok(Ready { plain: Arc::new(plain), stapled })
}

/// A certificate of the host's own making with the answer in it (RFC 8737, section 3).
fn proof(challenge: &Challenge) -> io::Result<CertifiedKey> {
    use sha2::Digest;
    let make = || {
        let mut params = CertificateParams::new([challenge.host.to_string()])?;
        let digest = sha2::Sha256::digest(challenge.answer.as_bytes());
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok::<_, rcgen::Error>((certificate.der().clone(), key.serialize_der()))
    };
    let (certificate, key) = make().map_err(io::Error::other)?;
    let key = PrivateKeyDer::try_from(key).map_err(io::Error::other)?;
    // Whether they fit is not looked at: whoever reads the extension must know it, and rustls does not.
    let key = provider().key_provider.load_private_key(key).map_err(io::Error::other)?;
    Ok(CertifiedKey::new(vec![certificate], key))
}
