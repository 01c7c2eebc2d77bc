//! Whether an answer of a responder can be shown: who signed it, about which certificate it is, and for how long it is good (RFC 6960,
//! section 3.2). Who sent it does not matter.

use std::time::Duration;

use model::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{self, Decode, Reader, SliceReader};
use x509_cert::ext::pkix::CrlReason;
use x509_ocsp::{BasicOcspResponse, CertStatus, OcspGeneralizedTime, OcspResponse, OcspResponseStatus, SingleResponse};

use super::question::Question;

/// `id-pkix-ocsp-basic`: the one kind of answer that there is.
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
/// `id-kp-OCSPSigning`, without its tag and length: whose certificate has it may answer in the name of its issuer.
const OCSP_SIGNING: KeyUsage = KeyUsage::required(&[0x2b, 6, 1, 5, 5, 7, 3, 9]);
/// Most certificates of those who sign that are looked at.
const MAX_SIGNERS: usize = 5;
/// How far ahead the clock of a responder may be.
const SKEW: Duration = Duration::from_secs(5 * 60);
/// How long an answer is good that does not say so.
const WITHOUT_END: Duration = Duration::from_secs(60 * 60);

/// What an authority says of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// When it took the certificate back and why, if it did.
    pub(super) revoked: Option<String>,
    /// From when it is good.
    pub(super) starts_at: Timestamp,
    /// Until when it is good.
    pub(super) expires_at: Timestamp,
}

/// What `der` says of the certificate in question; or why that is nothing.
pub(super) fn read(der: &[u8], question: &Question, now: Timestamp) -> Result<Answer, String> {
    let strange = "the responder sent what is no OCSP answer";
    let whole = OcspResponse::from_der(der).map_err(|_| strange)?;
    if whole.response_status != OcspResponseStatus::Successful {
        return Err(format!("the responder answered `{}`", word(whole.response_status)));
    }
    let basic = whole.response_bytes.filter(|bytes| bytes.response_type == BASIC).ok_or(strange)?;
    let parts = Parts::of(basic.response.as_bytes()).map_err(|_| strange)?;
    let basic = BasicOcspResponse::from_der(basic.response.as_bytes()).map_err(|_| strange)?;
    let signature = basic.signature.as_bytes().ok_or(strange)?;
    parts.check(signature, &question.issuer, now)?;
    let said = basic.tbs_response_data.responses.iter().find(|said| question.is_about(&said.cert_id));
    judge(said.ok_or("the responder's answer is about another certificate")?, now)
}

fn judge(said: &SingleResponse, now: Timestamp) -> Result<Answer, String> {
    let starts_at = time(said.this_update);
    let expires_at = said.next_update.map_or_else(|| starts_at.after(WITHOUT_END), time);
    if now.after(SKEW) < starts_at {
        return Err(format!("the responder's answer is good only from {starts_at} on"));
    }
    if expires_at <= now {
        return Err(format!("the responder's answer was good until {expires_at}"));
    }
    let revoked = match &said.cert_status {
        CertStatus::Good(_) => None,
        CertStatus::Revoked(revoked) => {
            let reason = revoked.revocation_reason.map(|reason| format!(" ({})", reason_word(reason)));
            Some(format!("its authority revoked it on {}{}", time(revoked.revocation_time), reason.unwrap_or_default()))
        }
        CertStatus::Unknown(_) => return Err("the responder does not know the certificate".to_owned()),
    };
    Ok(Answer { revoked, starts_at, expires_at })
}

/// The parts of a basic answer byte for byte, as they were signed.
struct Parts<'a> {
    signed: &'a [u8],
    /// The algorithm, without its tag and length.
    algorithm: &'a [u8],
    /// Certificates of those who sign for the issuer.
    certificates: Vec<CertificateDer<'a>>,
}

impl<'a> Parts<'a> {
    fn of(der: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(AnyRef::from_der(der)?.value())?;
        let signed = reader.tlv_bytes()?;
        let algorithm = AnyRef::decode(&mut reader)?.value();
        let _signature = reader.tlv_bytes()?;
        let mut certificates = Vec::new();
        if !reader.is_finished() {
            let tagged = AnyRef::decode(&mut reader)?;
            let mut list = SliceReader::new(AnyRef::from_der(tagged.value())?.value())?;
            while !list.is_finished() && certificates.len() < MAX_SIGNERS {
                certificates.push(list.tlv_bytes()?.into());
            }
        }
        Ok(Self { signed, algorithm, certificates })
    }

    /// The issuer has signed it, or somebody to whom the issuer gave a certificate for that.
    fn check(&self, signature: &[u8], issuer: &CertificateDer<'_>, now: Timestamp) -> Result<(), String> {
        let all = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        let fit: Vec<_> = all.iter().filter(|it| it.signature_alg_id().as_ref() == self.algorithm).copied().collect();
        if fit.is_empty() {
            return Err("the responder's answer is signed in a way that is not supported".to_owned());
        }
        let is_signer = |certificate: &CertificateDer<'_>| {
            let signer = EndEntityCert::try_from(certificate).ok();
            signer
                .is_some_and(|signer| fit.iter().any(|it| signer.verify_signature(*it, self.signed, signature).is_ok()))
        };
        let delegated = |certificate: &&CertificateDer<'_>| speaks_for(certificate, issuer, (all, now));
        if is_signer(issuer) || self.certificates.iter().filter(delegated).any(is_signer) {
            return Ok(());
        }
        Err("the responder's answer is signed by nobody who may speak for the certificate's issuer".to_owned())
    }
}

/// Whether the issuer itself has signed this certificate, for answers of this kind and for now.
fn speaks_for(
    certificate: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
    (algorithms, now): (&[&dyn SignatureVerificationAlgorithm], Timestamp),
) -> bool {
    let (Ok(signer), Ok(anchor)) = (EndEntityCert::try_from(certificate), anchor_from_trusted_cert(issuer)) else {
        return false;
    };
    let millis = u64::try_from(now.as_millis()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_millis(millis));
    signer.verify_for_usage(algorithms, &[anchor], &[], now, OCSP_SIGNING, None, None).is_ok()
}

fn time(time: OcspGeneralizedTime) -> Timestamp {
    Timestamp::from_millis(i64::try_from(time.0.to_unix_duration().as_millis()).unwrap_or(i64::MAX))
}

fn word(status: OcspResponseStatus) -> &'static str {
    match status {
        OcspResponseStatus::Successful => "successful",
        OcspResponseStatus::MalformedRequest => "malformedRequest",
        OcspResponseStatus::InternalError => "internalError",
        OcspResponseStatus::TryLater => "tryLater",
        OcspResponseStatus::SigRequired => "sigRequired",
        OcspResponseStatus::Unauthorized => "unauthorized",
    }
}

fn reason_word(reason: CrlReason) -> &'static str {
    match reason {
        CrlReason::Unspecified => "no reason given",
        CrlReason::KeyCompromise => "its key was compromised",
        CrlReason::CaCompromise => "its authority was compromised",
        CrlReason::AffiliationChanged => "its owner's affiliation changed",
        CrlReason::Superseded => "it was superseded",
        CrlReason::CessationOfOperation => "cessation of operation",
        CrlReason::CertificateHold => "on hold",
        CrlReason::RemoveFromCRL => "removed from a list",
        CrlReason::PrivilegeWithdrawn => "its privilege was withdrawn",
        CrlReason::AaCompromise => "an attribute authority was compromised",
    }
}
