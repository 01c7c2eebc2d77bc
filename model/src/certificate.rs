//! What routers need to know for TLS: the certificates of apps with their keys, and the proofs that a certificate authority asks for.
//! The controller publishes it as a feed of its own ([`crate::routes::Update`]), one row an app, on a socket that only root may use.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::AppId;
use crate::name::Hostname;
use crate::routes::Update;

/// Rows of certificates, by app.
pub type CertificatesUpdate = Update<AppId, AppCertificates>;

/// What a router shows for the hosts of one app.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AppCertificates {
    /// Those that its domains show. Hosts without one show the platform's own.
    #[serde(default)]
    pub certificates: Vec<HostCertificate>,
    /// What a certificate authority is going to ask for.
    #[serde(default)]
    pub challenges: Vec<Challenge>,
}

/// A certificate and who shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCertificate {
    /// The hosts that show it; the first label may be `*`.
    pub hosts: Vec<Hostname>,
    /// PEM, the hosts' own certificate first.
    pub chain: String,
    /// Its key.
    pub key: PrivateKey,
    /// What its authority said of it lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staple: Option<Staple>,
}

/// An OCSP answer that is shown with a certificate (RFC 6066, section 8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staple {
    /// DER, in base64.
    pub answer: String,
    /// From then on it says nothing any more, and is not shown.
    pub expires_at: Timestamp,
}

/// A private key in PEM, which no log shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrivateKey(pub String);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// What shows a certificate authority that a host is this platform's (RFC 8555, section 8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Whose.
    pub host: Hostname,
    /// How it asks.
    pub kind: ChallengeKind,
    /// What it asks for.
    pub token: String,
    /// The key authorization.
    pub answer: String,
}

/// How a certificate authority asks a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeKind {
    /// By a request for `/.well-known/acme-challenge/<token>`.
    Http,
    /// By TLS, with the protocol `acme-tls/1` (RFC 8737).
    TlsAlpn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_was_kept_before_there_were_staples_has_none() {
        let kept = r#"{"hosts":["www.example.com"],"chain":"chain","key":"key"}"#;
        let certificate: HostCertificate = serde_json::from_str(kept).expect("readable");
        assert_eq!(certificate.staple, None);
        assert_eq!(serde_json::to_string(&certificate).expect("JSON"), kept);
    }

    #[test]
    fn a_key_is_in_no_log() {
        let key = PrivateKey("secret".to_owned());
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        assert_eq!(serde_json::to_string(&key).expect("JSON"), "\"secret\"");
    }
}
