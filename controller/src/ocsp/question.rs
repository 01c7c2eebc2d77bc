//! What is asked of whom about a certificate (RFC 6960, section 4.1, as RFC 5019 narrows it).

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha1::{Digest, Sha1};
use url::Url;
use x509_cert::der::asn1::{Null, ObjectIdentifier, OctetString};
use x509_cert::der::{self, Encode};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{CertId, OcspRequest, Request, TbsRequest, Version};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate, X509Extension};

/// The hash that every responder knows a certificate by. Nothing hangs on its strength: what is signed is the answer.
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
/// The responder among the ways to learn more of an issuer.
const OCSP: &str = "1.3.6.1.5.5.7.48.1";
/// Longest URL of one.
const MAX_URL: usize = 2000;

/// A certificate, and who can be asked about it.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) url: Url,
    pub(super) issuer: CertificateDer<'static>,
    id: CertId,
}

impl Question {
    /// About the first certificate of a chain in PEM; or why nobody can be asked.
    pub(super) fn of(chain: &str) -> Result<Self, String> {
        let damaged = || "the certificate is damaged".to_owned();
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let mut chain = chain.map_err(|_| damaged())?.into_iter();
        let leaf = chain.next().ok_or_else(damaged)?;
        let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|_| damaged())?;
        let url = responder(&leaf).ok_or("the certificate names no OCSP responder")?;
        let issuer = chain.next().ok_or("the chain has no certificate of the issuer")?;
        let id = identify(&leaf, &issuer).ok_or_else(damaged)?;
        Ok(Self { url, issuer, id })
    }

    /// In DER.
    pub(super) fn request(&self) -> der::Result<Vec<u8>> {
        let request = Request { req_cert: self.id.clone(), single_request_extensions: None };
        let tbs_request = TbsRequest {
            version: Version::V1,
            requestor_name: None,
            request_list: vec![request],
            request_extensions: None,
        };
        OcspRequest { tbs_request, optional_signature: None }.to_der()
    }

    /// Whether this is the certificate that was asked about.
    pub(super) fn is_about(&self, id: &CertId) -> bool {
        // Some write the parameters of the hash, some do not.
        id.hash_algorithm.oid == self.id.hash_algorithm.oid
            && id.issuer_name_hash == self.id.issuer_name_hash
            && id.issuer_key_hash == self.id.issuer_key_hash
            && id.serial_number == self.id.serial_number
    }
}

/// The first one that can be asked by HTTP.
fn responder(leaf: &X509Certificate<'_>) -> Option<Url> {
    let extensions = leaf.extensions().iter().map(X509Extension::parsed_extension);
    let access = extensions.filter_map(|parsed| match parsed {
        ParsedExtension::AuthorityInfoAccess(access) => Some(&access.accessdescs),
        _ => None,
    });
    let of_ocsp = access.flatten().filter(|access| access.access_method.to_id_string() == OCSP);
    let urls = of_ocsp.filter_map(|access| match &access.access_location {
        GeneralName::URI(url) if url.len() <= MAX_URL => url.parse::<Url>().ok(),
        _ => None,
    });
    urls.into_iter().find(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
}

fn identify(leaf: &X509Certificate<'_>, issuer: &CertificateDer<'_>) -> Option<CertId> {
    let (_, issuer) = X509Certificate::from_der(issuer).ok()?;
    let hash = |bytes: &[u8]| OctetString::new(Sha1::digest(bytes).to_vec()).ok();
    Some(CertId {
        hash_algorithm: AlgorithmIdentifierOwned { oid: SHA1, parameters: Some(Null.into()) },
        issuer_name_hash: hash(leaf.issuer().as_raw())?,
        issuer_key_hash: hash(&issuer.public_key().subject_public_key.data)?,
        serial_number: SerialNumber::new(leaf.raw_serial()).ok()?,
    })
}
