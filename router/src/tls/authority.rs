//! The platform's own certificate authority: for names that no public one vouches for, such as `localhost`, and for every
//! platform until its operator brings something better. Whoever trusts `ca.pem` trusts the platform's certificates from then on.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{Hostname, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Trusting it takes a person's hand; it should not come up again.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(20 * 365 * DAY.as_secs());
const SERVER_LIFETIME: Duration = Duration::from_secs(90 * DAY.as_secs());
/// Time left when a certificate is renewed.
const MARGIN: Duration = Duration::from_secs(30 * DAY.as_secs());
/// Clocks of clients may be a little behind.
const TOLERANCE: Duration = DAY;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of its folder cannot be read or written.
    #[error("cannot use {0}")]
    File(PathBuf, #[source] io::Error),
    /// What is in the files is not what was written, or the system has no randomness.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// A folder with an authority: `ca.pem` is public, `ca.key` and `server.pem` (key and certificate) are root's alone.
#[derive(Debug, Clone)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// That of `folder`, whether it is there yet or not.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The certificate to trust.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The key and the certificate to serve with.
    pub fn server(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// Makes the authority if there is none, and a server certificate for the platform's domain and the hosts below it, and
    /// for this machine's loopback, unless there is one that is good for another month. Says whether it made one.
    pub fn ensure(&self, domain: &Hostname, now: Timestamp) -> Result<bool, AuthorityError> {
        DirBuilder::new().recursive(true).mode(0o755).create(&self.folder).map_err(|e| self.failed("", e))?;
        let key = self.authority_key(now)?;
        let names = names(domain);
        if self.is_good(&names, now) {
            return Ok(false);
        }
        let ends = now.after(SERVER_LIFETIME);
        let server_key = KeyPair::generate()?;
        let certificate = server(&names, now, ends)?.signed_by(&server_key, &Issuer::new(authority(), &key))?;
        let text = format!(
            "{}\n{}{}",
            heading(&names, now.after(SERVER_LIFETIME.saturating_sub(MARGIN))),
            server_key.serialize_pem(),
            certificate.pem()
        );
        self.write("server.pem", &text, 0o600)?;
        Ok(true)
    }

    /// The authority's key. Both files are written before anything is signed, the certificate last: where that is, both are whole.
    fn authority_key(&self, now: Timestamp) -> Result<KeyPair, AuthorityError> {
        if self.certificate().exists() {
            let path = self.folder.join("ca.key");
            let text = std::fs::read_to_string(&path).map_err(|error| AuthorityError::File(path, error))?;
            return Ok(KeyPair::from_pem(&text)?);
        }
        // Signed by another key, it would be refused by all who trust this one.
        match std::fs::remove_file(self.server()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failed("server.pem", error)),
            _ => {}
        }
        let key = KeyPair::generate()?;
        let mut params = authority();
        params.not_before = date(before(now, TOLERANCE));
        params.not_after = date(now.after(AUTHORITY_LIFETIME));
        let certificate = params.self_signed(&key)?;
        self.write("ca.key", &key.serialize_pem(), 0o600)?;
        self.write("ca.pem", &certificate.pem(), 0o644)?;
        Ok(key)
    }

    /// Whether the server's certificate is there, for these names, and not about to end. Its file begins with what it is:
    /// text before the first PEM block means nothing to whoever reads PEM (RFC 7468, section 5.2).
    fn is_good(&self, names: &[String], now: Timestamp) -> bool {
        let text = std::fs::read_to_string(self.server()).unwrap_or_default();
        let found =
            text.lines().find_map(|line| line.strip_prefix("Renew at: ")?.parse().ok()).map(Timestamp::from_millis);
        found.is_some_and(|renew| text.starts_with(&heading(names, renew)) && now < renew)
    }

    /// Beside its place, synced, and renamed: it is there as a whole or not at all.
    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), AuthorityError> {
        let (path, fresh) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)
        })();
        written.map_err(|error| self.failed(name, error))
    }

    fn failed(&self, name: &str, error: io::Error) -> AuthorityError {
        AuthorityError::File(self.folder.join(name), error)
    }
}

fn names(domain: &Hostname) -> Vec<String> {
    let mut names = vec![domain.to_string(), format!("*.{domain}")];
    names.extend(["localhost", "*.localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.sort();
    names.dedup();
    names
}

fn heading(names: &[String], renew: Timestamp) -> String {
    format!("Names: {}\nRenew at: {}\n", names.join(", "), renew.as_millis())
}

/// All that a certificate says of its issuer follows from this and the key.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Platform local authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server(names: &[String], now: Timestamp, ends: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Platform");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(before(now, TOLERANCE));
    params.not_after = date(ends);
    Ok(params)
}

fn before(time: Timestamp, span: Duration) -> Timestamp {
    Timestamp::from_millis(time.as_millis().saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}

fn date(time: Timestamp) -> OffsetDateTime {
    // Out of range is only what lies thousands of years away.
    OffsetDateTime::from_unix_timestamp(time.as_millis().div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_kept_until_its_names_or_its_time_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(&folder.path().join("tls"));
        let (domain, other): (Hostname, Hostname) =
            ("platform.example".parse().expect("a name"), "other.example".parse().expect("a name"));
        let now = Timestamp::from_millis(1_795_228_786_000);
        let made = |domain, now| authority.ensure(domain, now).expect("made");
        assert!(made(&domain, now));
        let trusted = std::fs::read_to_string(authority.certificate()).expect("there");
        assert!(!made(&domain, now.after(DAY * 59)), "still good");
        assert!(made(&domain, now.after(DAY * 61)), "renewed before it ends");
        assert!(made(&other, now.after(DAY * 61)), "other names");
        assert_eq!(
            std::fs::read_to_string(authority.certificate()).expect("there"),
            trusted,
            "trusted once and for all"
        );
        let rights = |path: PathBuf| path.metadata().expect("there").permissions().mode() & 0o777;
        let private = authority.folder.join("ca.key");
        assert_eq!(
            (rights(authority.certificate()), rights(private), rights(authority.server())),
            (0o644, 0o600, 0o600)
        );
    }

    #[test]
    fn a_lost_authority_is_made_anew_with_all_that_it_signed() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(folder.path());
        let domain: Hostname = "localhost".parse().expect("a name");
        let now = Timestamp::from_millis(0);
        assert!(authority.ensure(&domain, now).expect("made"));
        std::fs::remove_file(authority.certificate()).expect("removed");
        assert!(authority.ensure(&domain, now).expect("made"));
        assert!(!authority.ensure(&domain, now).expect("kept"));
    }
}
