//! Archives that clients send to build from them: a URL to send one to, and one to read it from, each with a secret, for an hour.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use model::SourceId;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;
use url::Url;

use crate::accounts::digest;
use crate::store::{Source, SourceUse};
use crate::{Actor, Controller, Error};

/// How long the URLs are good, and the file is kept.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Sources of one user that have not expired.
const MAX_SOURCES: i64 = 50;
/// After so many bytes the disk is looked at again.
const DISK_STEP: u64 = 64 << 20;
/// Begins the path of both URLs.
const PATH: &str = "/sources/";

/// Where an archive goes, and where it is read from. No token is needed for either.
#[derive(Debug, Clone)]
pub struct SourceUrls {
    /// PUT it here.
    pub put: String,
    /// GET it here.
    pub get: String,
}

/// Why an archive is not taken.
enum Refusal {
    TooLarge(u64),
    NoRoom,
    Broken(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Controller {
    /// Makes room for an archive.
    pub async fn create_source(&self, actor: &Actor) -> Result<SourceUrls, Error> {
        let now = self.clock.now();
        if self.store.count_sources(actor.user.id, now).await? >= MAX_SOURCES {
            return Err(Error::TooMany {
                message: "You have asked for many sources. They go an hour after they were made.",
                retry_after: LIFETIME,
            });
        }
        let (put, get) = (self.new_secret(), self.new_secret());
        let id = SourceId::random(&*self.random);
        let source = Source { id, user: actor.user.id, expires_at: now.after(LIFETIME), created_at: now };
        self.store.insert_source(&source, &digest(&put), &digest(&get)).await?;
        let url = |secret: &str| format!("{}{PATH}{secret}", self.settings.api_url());
        Ok(SourceUrls { put: url(&put), get: url(&get) })
    }

    /// The source that a URL of ours means, with its file; none if the URL is somebody else's.
    pub(crate) async fn own_source(&self, url: &Url) -> Result<Option<(SourceId, PathBuf)>, Error> {
        let Some(secret) = url.as_str().strip_prefix(&format!("{}{PATH}", self.settings.api_url())) else {
            return Ok(None);
        };
        let source = self.store.source(SourceUse::Get, &digest(secret), self.clock.now()).await?;
        let source = source.ok_or(Error::NotFound("source"))?;
        Ok(Some((source.id, self.source_file(source.id))))
    }

    /// Removes the files of sources that have expired; says how many.
    pub(crate) async fn sweep_sources(&self) -> Result<usize, Error> {
        let kept: BTreeSet<String> =
            self.store.expire_sources(self.clock.now()).await?.iter().map(ToString::to_string).collect();
        let Ok(entries) = self.sources().read_dir() else { return Ok(0) };
        let is_kept = |name: &str| name.split('.').next().is_some_and(|id| kept.contains(id));
        let gone = entries.flatten().filter(|entry| !entry.file_name().to_str().is_some_and(is_kept));
        let mut count = 0;
        for entry in gone {
            let failed = |source: io::Error| Error::System { action: "remove an old source", source: source.into() };
            std::fs::remove_file(entry.path()).map_err(failed)?;
            count += 1;
        }
        Ok(count)
    }

    fn sources(&self) -> PathBuf {
        self.settings.home.join("sources")
    }

    fn source_file(&self, id: SourceId) -> PathBuf {
        self.sources().join(format!("{id}.tar.gz"))
    }

    /// Writes an archive beside its place as it comes, and puts it there once it is whole.
    async fn receive_source(&self, id: SourceId, body: Body) -> Result<(), Refusal> {
        let limit = self.settings.push_limit;
        tokio::fs::create_dir_all(self.sources()).await?;
        let draft = self.sources().join(format!("{id}.{}", &self.new_secret()[..8]));
        let write = async {
            let mut file = File::create(&draft).await?;
            let mut stream = body.into_data_stream();
            let (mut bytes, mut checked) = (0, 0);
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(io::Error::other)?;
                bytes += chunk.len() as u64;
                if bytes > limit {
                    return Err(Refusal::TooLarge(limit));
                }
                if checked == 0 || bytes - checked > DISK_STEP {
                    checked = bytes;
                    self.builder.check_disk().map_err(|_| Refusal::NoRoom)?;
                }
                file.write_all(&chunk).await?;
            }
            file.flush().await?;
            Ok(tokio::fs::rename(&draft, self.source_file(id)).await?)
        };
        let result = write.await;
        if result.is_err() {
            // If that fails too, it goes when the source expires.
            let _ = tokio::fs::remove_file(&draft).await;
        }
        result
    }
}

/// `PUT /sources/<secret>` and `GET /sources/<secret>`, without a token.
pub(crate) fn routes(controller: Arc<Controller>) -> Router {
    Router::new().route("/sources/{secret}", get(read).put(write)).with_state(controller)
}

async fn find(controller: &Controller, usage: SourceUse, secret: &str) -> Result<SourceId, Response> {
    match controller.store.source(usage, &digest(secret), controller.clock.now()).await {
        Ok(Some(source)) => Ok(source.id),
        Ok(None) => Err((StatusCode::NOT_FOUND, "This source does not exist or has expired.\n").into_response()),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "A source cannot be looked up");
            Err(StatusCode::INTERNAL_SERVER_ERROR.into_response())
        }
    }
}

async fn write(State(controller): State<Arc<Controller>>, Path(secret): Path<String>, request: Request) -> Response {
    let id = match find(&controller, SourceUse::Put, &secret).await {
        Ok(id) => id,
        Err(response) => return response,
    };
    match controller.receive_source(id, request.into_body()).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(Refusal::TooLarge(limit)) => {
            let text = format!("The archive has more than {limit} bytes.\n");
            (StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
        }
        Err(Refusal::NoRoom) => {
            let text = "There is too little disk space for it. Ask the operator to make room.\n";
            (StatusCode::INSUFFICIENT_STORAGE, text).into_response()
        }
        Err(Refusal::Broken(error)) => {
            tracing::info!(%error, "An archive did not come whole");
            (StatusCode::BAD_REQUEST, "The archive did not come whole.\n").into_response()
        }
    }
}

async fn read(State(controller): State<Arc<Controller>>, Path(secret): Path<String>) -> Response {
    let id = match find(&controller, SourceUse::Get, &secret).await {
        Ok(id) => id,
        Err(response) => return response,
    };
    match File::open(controller.source_file(id)).await {
        Ok(file) => {
            let headers = [(CONTENT_TYPE, "application/gzip"), (CACHE_CONTROL, "no-store")];
            (headers, Body::from_stream(ReaderStream::new(file))).into_response()
        }
        Err(_) => (StatusCode::NOT_FOUND, "Nothing was sent here yet.\n").into_response(),
    }
}
