//! The certificate authority: the platform's account there, and the way to it.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, StatusCode};
use instant_acme::{Account, BodyWrapper, BytesResponse, Error as AcmeError, HttpClient, NewAccount, Problem};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

use crate::settings::Acme;
use crate::{Controller, Error, Outbound};

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the kind of every error begins with (RFC 8555, section 6.7).
const ERROR: &str = "urn:ietf:params:acme:error:";

/// The account at the authority that the operator chose.
pub(super) struct Authority {
    pub(super) account: Account,
    /// How long the authority wanted to be left alone when it last said so.
    asked: Arc<Mutex<Option<Duration>>>,
}

impl Authority {
    /// With the account of before, or a new one.
    pub(super) async fn open(controller: &Controller, acme: &Acme) -> Result<Self, Error> {
        let asked = Arc::default();
        let http = || Ok::<_, Error>(Box::new(Http { way: Arc::new(way(acme)?), asked: Arc::clone(&asked) }));
        if let Some(text) = controller.store.acme_account(&acme.directory).await? {
            let credentials = serde_json::from_str(&text).map_err(|error| failed("read the ACME account", error))?;
            let account = Account::builder_with_http(http()?).from_credentials(credentials).await;
            return Ok(Self { account: account.map_err(refused)?, asked });
        }
        let contact = acme.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.as_deref().into_iter().collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let made = Account::builder_with_http(http()?).create(&new, acme.directory.clone(), None).await;
        let (account, credentials) = made.map_err(refused)?;
        let text = serde_json::to_string(&credentials).map_err(|error| failed("keep the ACME account", error))?;
        let (id, now) = (controller.new_uuid(), controller.clock.now());
        controller.store.save_acme_account((&id, &acme.directory), &text, now).await?;
        Ok(Self { account, asked })
    }

    /// How long it wants to be left alone, if it said so since it was asked last.
    pub(super) fn asked(&self) -> Option<Duration> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What an authority answers, in one sentence.
pub(super) fn sentence(error: &AcmeError) -> String {
    match error {
        AcmeError::Api(said) => problem(said),
        error => crate::errors::chain(error),
    }
}

/// The same of what it says of a part of a request.
pub(super) fn problem(said: &Problem) -> String {
    let kind = said.r#type.as_deref().unwrap_or_default().trim_start_matches(ERROR);
    let parts = said.subproblems.iter().filter_map(|part| part.detail.as_deref());
    let all: Vec<&str> = said.detail.as_deref().into_iter().chain(parts).collect();
    match (kind, all.join("; ")) {
        ("", text) => text,
        (kind, text) if text.is_empty() => kind.to_owned(),
        (kind, text) => format!("{text} ({kind})"),
    }
}

/// Whether the authority says this of a request.
pub(super) fn says(error: &AcmeError, kind: &str) -> bool {
    let AcmeError::Api(problem) = error else { return false };
    problem.r#type.as_deref().and_then(|it| it.strip_prefix(ERROR)) == Some(kind)
}

/// The operator chose the authority: it may be anywhere.
pub(crate) fn way(acme: &Acme) -> Result<Outbound, Error> {
    let mut trusted = rustls_native_certs::load_native_certs().certs;
    if let Some(file) = &acme.ca {
        let more: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
        trusted.extend(more.map_err(|error| failed_at("read the certificates of", file, error))?);
    }
    let everywhere = ["0.0.0.0/0", "::/0"].iter().filter_map(|network| network.parse().ok()).collect();
    Ok(Outbound::trusting(everywhere, trusted))
}

fn failed(action: &'static str, error: impl Into<axum::BoxError>) -> Error {
    Error::System { action, source: error.into() }
}

fn failed_at(action: &'static str, file: &Path, error: impl std::fmt::Display) -> Error {
    failed("use the setting acme_ca", io::Error::other(format!("cannot {action} {}: {error}", file.display())))
}

#[expect(clippy::needless_pass_by_value, reason = "so that map_err can name it")]
fn refused(error: AcmeError) -> Error {
    failed("use the certificate authority", io::Error::other(sentence(&error)))
}

/// Requests to the authority, and what it says of being asked too often.
struct Http {
    way: Arc<Outbound>,
    asked: Arc<Mutex<Option<Duration>>>,
}

impl HttpClient for Http {
    fn request(
        &self,
        mut request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, AcmeError>> + Send>> {
        let (way, asked) = (Arc::clone(&self.way), Arc::clone(&self.asked));
        Box::pin(async move {
            let other = |error: axum::BoxError| AcmeError::Other(error);
            let url: Url = request.uri().to_string().parse().map_err(|error| other(Box::new(error)))?;
            if !["http", "https"].contains(&url.scheme()) {
                return Err(AcmeError::Str("a URL of http or https"));
            }
            *request.version_mut() = http::Version::HTTP_11;
            let answer = way.send_while(&url, request, PATIENCE, || false).await;
            let answer = answer.map_err(|error| other(Box::new(error)))?;
            if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status()) {
                let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                let wait = Duration::from_secs(seconds.unwrap_or(3600));
                *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(wait);
            }
            Ok(BytesResponse::from(answer))
        })
    }
}
