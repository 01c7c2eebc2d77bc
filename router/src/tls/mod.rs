//! TLS of the https entrance. A host shows the certificate of its own that the controller told of; any other one shows the platform's, which
//! is read again when its file changes.

mod authority;
mod kept;
mod shown;
mod tickets;

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig};
use tokio_rustls::TlsAcceptor;

pub use authority::{Authority, AuthorityError};
pub(crate) use kept::Kept;
pub(crate) use shown::Shown;
pub(crate) use tickets::Tickets;

/// What a certificate authority speaks that looks whether a host is this platform's (RFC 8737).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

/// What a client that speaks HTTP/2 says during the handshake (RFC 9113 section 3.2).
pub(crate) const HTTP_2: &[u8] = b"h2";
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("cannot read {0}")]
    File(PathBuf, #[source] io::Error),
    /// The file is no PEM, or has no certificate or no key.
    #[error("{0} does not hold a key and its certificates")]
    Pem(PathBuf, #[source] pem::Error),
    /// The key does not fit the certificate, or is of a kind that is not supported.
    #[error("the key and the certificates of {0} cannot be used")]
    Key(PathBuf, #[source] rustls::Error),
}

/// The certificate of a file, as it is now.
#[derive(Debug)]
pub(crate) struct Certificate {
    file: PathBuf,
    current: ArcSwap<(Version, Arc<CertifiedKey>)>,
}

/// Tells a file from one that was renamed into its place.
#[derive(Debug, PartialEq, Eq)]
struct Version(u64, i64, i64);

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
    }
}

impl Certificate {
    pub(crate) fn open(file: &Path) -> Result<Arc<Self>, CertificateError> {
        let current = ArcSwap::from_pointee(read(file)?);
        Ok(Arc::new(Self { file: file.to_owned(), current }))
    }

    /// Reads the file again whenever it has changed. What cannot be used leaves the present one in place.
    pub(crate) async fn follow(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.refresh() {
                tracing::warn!(error = &error as &dyn std::error::Error, "a new certificate cannot be used");
            }
        }
    }

    fn refresh(&self) -> Result<(), CertificateError> {
        let unreadable = |error| CertificateError::File(self.file.clone(), error);
        let version = Version::of(&self.file.metadata().map_err(unreadable)?);
        if version != self.current.load().0 {
            self.current.store(Arc::new(read(&self.file)?));
        }
        Ok(())
    }
}

/// Makes TLS of connections. `protocols` is what is spoken inside, the best first.
pub(crate) fn acceptor(
    own: &Arc<Certificate>,
    shown: &Arc<Shown>,
    tickets: Arc<Tickets>,
    protocols: &[&[u8]],
) -> Result<TlsAcceptor, rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions()?;
    let chooser = Chooser { own: Arc::clone(own), shown: Arc::clone(shown) };
    let mut config = config.with_no_client_auth().with_cert_resolver(Arc::new(chooser));
    config.alpn_protocols = protocols.iter().copied().chain([ACME_TLS]).map(<[u8]>::to_vec).collect();
    config.ticketer = tickets;
    // All of ours are good; which is best is not the client's to say.
    config.ignore_client_order = true;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What does the arithmetic. AES with keys of 128 bits comes first: it is as good as anybody needs, and its hash is one that processors know.
pub(crate) fn provider() -> CryptoProvider {
    const FIRST: [CipherSuite; 3] = [
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !FIRST.contains(&suite.suite()));
    provider
}

/// Says what a client is shown.
#[derive(Debug)]
struct Chooser {
    own: Arc<Certificate>,
    shown: Arc<Shown>,
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().map(str::to_ascii_lowercase);
        // Who looks for a proof offers nothing else, and is refused if there is none.
        if hello.alpn().is_some_and(|mut offered| offered.next() == Some(ACME_TLS) && offered.next().is_none()) {
            return self.shown.proof(&host?);
        }
        let shown = host.and_then(|host| self.shown.find(&host));
        Some(shown.unwrap_or_else(|| Arc::clone(&self.own.current.load().1)))
    }
}

fn read(file: &Path) -> Result<(Version, Arc<CertifiedKey>), CertificateError> {
    let unreadable = |error| CertificateError::File(file.to_owned(), error);
    // The version first: a file that is replaced in between is read once more.
    let version = Version::of(&file.metadata().map_err(unreadable)?);
    let text = std::fs::read(file).map_err(unreadable)?;
    let no_pem = |error| CertificateError::Pem(file.to_owned(), error);
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(no_pem)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certified = CertifiedKey::from_der(chain.map_err(no_pem)?, key, &provider());
    let certified = certified.map_err(|error| CertificateError::Key(file.to_owned(), error))?;
    Ok((version, Arc::new(certified)))
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::*;

    #[test]
    fn a_renewed_certificate_takes_the_place_of_the_old_one_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(folder.path());
        let domain = "platform.example".parse().expect("a host name");
        let renew = |millis| authority.ensure(&domain, Timestamp::from_millis(millis)).expect("made");
        renew(0);
        let certificate = Certificate::open(&authority.server()).expect("readable");
        let serving = || certificate.current.load().1.cert[0].clone();
        let first = serving();
        certificate.refresh().expect("the same");
        assert_eq!(serving(), first);
        renew(70 * 24 * 60 * 60 * 1000);
        certificate.refresh().expect("readable");
        let second = serving();
        assert_ne!(second, first);
        std::fs::write(authority.server(), "nothing").expect("written");
        assert!(matches!(certificate.refresh(), Err(CertificateError::Pem(..))));
        assert_eq!(serving(), second);
    }
}
