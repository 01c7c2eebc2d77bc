//! Images on their way into a registry (OCI distribution spec, "Push"): what it has is not sent again, and no layer is ever in memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use builder::Documents;
use engine::LayerStore;
use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use model::Digest;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::{Repository, Scope, body};
use crate::credentials::{host_of, is_safe};
use crate::errors::chain;
use crate::images::written;

/// How long a registry may take no byte and say nothing: some put a large layer together once all of it has come.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Most characters of what a registry says of its reasons.
const MAX_REASON: usize = 300;

const BYTES: &str = "application/octet-stream";

/// How far a push is.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The registry takes what is sent, or has everything.
    is_welcome: AtomicBool,
    sent: AtomicU64,
    present: AtomicU64,
}

impl Tally {
    /// Whether the registry takes it.
    pub(crate) fn is_welcome(&self) -> bool {
        self.is_welcome.load(Ordering::Relaxed)
    }

    /// Bytes that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that the registry had.
    pub(crate) fn present(&self) -> u64 {
        self.present.load(Ordering::Relaxed)
    }
}

/// One image on its way. Errors are sentences that say what to do.
pub(crate) struct Push<'a> {
    repository: Repository<'a>,
    layers: LayerStore,
    documents: Documents,
    tally: Arc<Tally>,
}

/// What a request brings, as often as it is sent.
#[derive(Clone)]
enum Content {
    Nothing,
    Document(Bytes, &'static str),
    Layer(Digest, u64),
}

/// How registries say no.
#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    code: String,
    #[serde(default)]
    message: String,
}

impl<'a> Push<'a> {
    pub(crate) fn new(
        repository: Repository<'a>,
        layers: LayerStore,
        documents: Documents,
        tally: Arc<Tally>,
    ) -> Push<'a> {
        Self { repository: Repository { scope: Scope::Push, ..repository }, layers, documents, tally }
    }

    /// How many bytes its layers and its config have.
    pub(crate) fn bytes(&self) -> u64 {
        let layers = self.documents.layers.iter().map(|(_, size)| size);
        layers.sum::<u64>() + self.documents.config.len() as u64
    }

    /// Sends the layers and the config, as far as they are not there.
    pub(crate) async fn blobs(&self) -> io::Result<()> {
        for (digest, size) in &self.documents.layers {
            self.blob(digest, *size, Content::Layer(digest.clone(), *size)).await?;
        }
        let config = Bytes::from(self.documents.config.clone());
        let (digest, size) = (digest_of(&config), config.len() as u64);
        self.blob(&digest, size, Content::Document(config, BYTES)).await
    }

    /// Gives the tag to what was sent; says by what name it is there for ever.
    pub(crate) async fn tag(&self) -> io::Result<String> {
        let manifest = Bytes::from(self.documents.manifest.clone());
        let digest = digest_of(&manifest);
        let url = self.repository.url(&format!("manifests/{}", self.repository.name.reference))?;
        let answer = self.send(Method::PUT, &url, Content::Document(manifest, self.documents.media_type)).await?;
        self.accepted(answer).await?;
        Ok(self.repository.name.with_digest(digest.as_str()))
    }

    async fn blob(&self, digest: &Digest, size: u64, content: Content) -> io::Result<()> {
        if self.has(digest).await? {
            self.tally.present.fetch_add(size, Ordering::Relaxed);
            return Ok(());
        }
        let url = self.repository.url("blobs/uploads/")?;
        let answer = self.send(Method::POST, &url, Content::Nothing).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            let (host, name) = (self.host(), &self.repository.name.repository);
            let text = format!("{host} has no {name} and makes none by itself. Make it there, or name another");
            return Err(io::Error::other(text));
        }
        let answer = self.accepted(answer).await?;
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let mut location = location.and_then(|to| url.join(to).ok()).ok_or_else(|| {
            io::Error::other(format!("{} does not say where to send a layer: is it a registry?", self.host()))
        })?;
        if !is_safe(&location) || ![url.scheme(), "https"].contains(&location.scheme()) {
            let text = format!(
                "{} wants what is pushed sent over http: its operator must tell it that it is reached over https",
                self.host()
            );
            return Err(io::Error::other(text));
        }
        self.tally.is_welcome.store(true, Ordering::Relaxed);
        location.query_pairs_mut().append_pair("digest", digest.as_str());
        let sent = self.tally.sent();
        let answer = self.send(Method::PUT, &location, content).await?;
        self.accepted(answer).await?;
        self.tally.sent.store(sent + size, Ordering::Relaxed);
        Ok(())
    }

    async fn has(&self, digest: &Digest) -> io::Result<bool> {
        let url = self.repository.url(&format!("blobs/{digest}"))?;
        let answer = self.send(Method::HEAD, &url, Content::Nothing).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        self.accepted(answer).await.map(|_| true)
    }

    /// Asks the registry, and once more when it wants to know who asks.
    async fn send(&self, method: Method, url: &Url, content: Content) -> io::Result<Response<Incoming>> {
        let sent = self.tally.sent();
        let mut answer = self.send_once(&method, url, content.clone()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.is_registry(url) {
            self.tally.sent.store(sent, Ordering::Relaxed);
            self.repository.sign_in(answer.headers()).await?;
            answer = self.send_once(&method, url, content).await?;
        }
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.repository.unwelcome()),
            _ => Ok(answer),
        }
    }

    async fn send_once(&self, method: &Method, url: &Url, content: Content) -> io::Result<Response<Incoming>> {
        let outbound = self.repository.outbound;
        if method == Method::HEAD {
            let answer = outbound.head(url.clone(), &self.repository.headers()).await;
            return answer.map_err(|error| self.away(&error));
        }
        let mut request = Request::builder().method(method);
        // A registry may have its uploads elsewhere, where its own tokens are nobody's business.
        if let Some(headers) = request.headers_mut().filter(|_| self.is_registry(url)) {
            *headers = self.repository.headers();
        }
        let request = match content {
            Content::Nothing => request.header(CONTENT_LENGTH, HeaderValue::from_static("0")).body(Body::empty()),
            Content::Document(bytes, kind) => {
                request.header(CONTENT_TYPE, kind).header(CONTENT_LENGTH, bytes.len()).body(Body::from(bytes))
            }
            Content::Layer(digest, size) => {
                request.header(CONTENT_TYPE, BYTES).header(CONTENT_LENGTH, size).body(self.layer(&digest))
            }
        };
        let mut seen = self.tally.sent();
        let moved = || {
            let now = self.tally.sent();
            std::mem::replace(&mut seen, now) != now
        };
        let answer = outbound.send_while(url, request.map_err(io::Error::other)?, PATIENCE, moved).await;
        answer.map_err(|error| self.away(&error))
    }

    /// A layer as it is read from the store.
    fn layer(&self, digest: &Digest) -> Body {
        let (tree, tally) = (self.layers.path(digest), Arc::clone(&self.tally));
        let parts = written(move |writer| builder::write_tar(&tree, writer));
        Body::from_stream(parts.inspect_ok(move |part| {
            tally.sent.fetch_add(part.len() as u64, Ordering::Relaxed);
        }))
    }

    /// An answer that is a yes.
    async fn accepted(&self, answer: Response<Incoming>) -> io::Result<Response<Incoming>> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let refusal = body(answer.into_body()).await.ok().and_then(|text| serde_json::from_slice(&text).ok());
        let reason = refusal.and_then(|refusal: Refusal| refusal.errors.into_iter().next());
        let reason = reason.map_or_else(String::new, |reason| format!(" ({} {})", reason.code, reason.message));
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
        let what_to_do = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "Its operator, or that of a proxy before it, may allow larger layers",
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                "Push again in a while: what has arrived is not sent twice"
            }
            _ => "Is it a registry, and does it take such names and images?",
        };
        Err(io::Error::other(format!("{} answered {status}{reason}. {what_to_do}", self.host())))
    }

    fn away(&self, error: &io::Error) -> io::Error {
        let text = format!(
            "{} could not be reached: {}. Once it can be, push again: what has arrived is not sent twice",
            self.host(),
            chain(error)
        );
        io::Error::other(text)
    }

    fn is_registry(&self, url: &Url) -> bool {
        url.origin() == self.repository.name.registry.origin()
    }

    fn host(&self) -> String {
        host_of(&self.repository.name.registry)
    }
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}
