//! CA certificates as Java reads them: a key store of the old kind, `JKS`, which every version takes in place of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// What everybody's has. It protects nothing: certificates are public.
const PASSWORD: &str = "changeit";
const MAGIC: u32 = 0xFEED_FEED;
const VERSION: u32 = 2;
/// Marks an entry that is a certificate to trust.
const TRUSTED: u32 = 2;

/// The certificates of a bundle in PEM; none if there are none in it.
pub(crate) fn from_pem(bundle: &str) -> Option<Vec<u8>> {
    let certificates = certificates(bundle);
    let count = u32::try_from(certificates.len()).ok().filter(|count| *count > 0)?;
    let mut store = [MAGIC, VERSION, count].map(u32::to_be_bytes).concat();
    for (number, certificate) in certificates.iter().enumerate() {
        store.extend(TRUSTED.to_be_bytes());
        store.extend(text(&format!("platform-{number}"))?);
        // When it was added: the same bundle gives the same store.
        store.extend(0u64.to_be_bytes());
        store.extend(text("X.509")?);
        store.extend(u32::try_from(certificate.len()).ok()?.to_be_bytes());
        store.extend(certificate);
    }
    let password: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let digest = Sha1::new().chain_update(password).chain_update("Mighty Aphrodite").chain_update(&store).finalize();
    store.extend(digest);
    Some(store)
}

/// What is between the lines that say so. Text around it, and what is no base64, is nobody's matter.
fn certificates(bundle: &str) -> Vec<Vec<u8>> {
    let ended = bundle.split("-----END CERTIFICATE-----");
    let encoded = ended.filter_map(|part| Some(part.rsplit_once("-----BEGIN CERTIFICATE-----")?.1));
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    encoded.filter_map(|text| STANDARD.decode(plain(text)).ok()).collect()
}

/// As Java's `DataOutput` writes it.
fn text(text: &str) -> Option<Vec<u8>> {
    let length = u16::try_from(text.len()).ok()?;
    Some([&length.to_be_bytes()[..], text.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_certificate_of_a_bundle_is_trusted() {
        let bundle = "# Company\n-----BEGIN CERTIFICATE-----\nAQID\nBA==\n-----END CERTIFICATE-----\n\n\
                      -----BEGIN CERTIFICATE-----\nno base64!\n-----END CERTIFICATE-----\n\
                      -----BEGIN CERTIFICATE-----\nBQ==\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(bundle), [vec![1, 2, 3, 4], vec![5]]);
        let store = from_pem(bundle).unwrap();
        let entry = |number: u8, length: u8, certificate: &[u8]| {
            let name = [&b"\0\x0Aplatform-"[..], &[number]].concat();
            [&[0, 0, 0, 2][..], &name, &[0; 8], b"\0\x05X.509", &[0, 0, 0, length], certificate].concat()
        };
        let head = [0xFE, 0xED, 0xFE, 0xED, 0, 0, 0, 2, 0, 0, 0, 2];
        let start = [&head[..], &entry(b'0', 4, &[1, 2, 3, 4]), &entry(b'1', 1, &[5])].concat();
        assert_eq!(store[..start.len()], start);
        assert_eq!(store.len(), start.len() + 20);
        assert_eq!(from_pem("CERTIFICATES"), None);
    }
}
