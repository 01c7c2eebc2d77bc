//! What builds and release phases print, as it comes. The address has a secret that opens it without a token, as Heroku's does.

use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use model::{AppId, BuildId, ReleaseId};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::store::{Build, Release, Status, StoreError};
use crate::{Controller, Settings};

/// How often a file is looked at that may grow.
const POLL: Duration = Duration::from_millis(100);
/// Bytes that are read at once.
const CHUNK: u64 = 64 * 1024;

/// Whose output is followed.
#[derive(Clone, Copy)]
enum Source {
    Build(BuildId),
    Phase(ReleaseId),
}

/// Where the output of a build can be read.
pub(crate) fn build_url(settings: &Settings, build: &Build) -> String {
    format!("{}/streams/builds/{}", settings.api_url(), build.output_secret)
}

/// Where the output of a release's phase can be read; none if it has none.
pub(crate) fn release_url(settings: &Settings, release: &Release) -> Option<String> {
    release.has_phase.then(|| format!("{}/streams/releases/{}", settings.api_url(), release.output_secret))
}

/// `GET /streams/builds/<secret>` and `GET /streams/releases/<secret>`, without a token.
pub(crate) fn routes(controller: Arc<Controller>) -> Router {
    Router::new()
        .route("/streams/builds/{secret}", get(of_build))
        .route("/streams/releases/{secret}", get(of_release))
        .with_state(controller)
}

async fn of_build(State(controller): State<Arc<Controller>>, Path(secret): Path<String>) -> Response {
    let found = controller.store.build_by_output(&secret).await;
    open(controller, found.map(|build| build.map(|it| (Source::Build(it.id), it.app)))).await
}

async fn of_release(State(controller): State<Arc<Controller>>, Path(secret): Path<String>) -> Response {
    let found = controller.store.release_by_output(&secret).await;
    open(controller, found.map(|release| release.map(|it| (Source::Phase(it.id), it.app)))).await
}

async fn open(controller: Arc<Controller>, found: Result<Option<(Source, AppId)>, StoreError>) -> Response {
    let (source, app) = match found {
        Ok(Some(found)) => found,
        Ok(None) => return not_yet(),
        Err(error) => return unreadable(&error),
    };
    let path = match source {
        Source::Build(id) => controller.build_output(app, id),
        Source::Phase(id) => controller.release_output(app, id),
    };
    match tokio::fs::try_exists(&path).await {
        Ok(true) => {}
        Ok(false) => return not_yet(),
        Err(error) => return unreadable(&error),
    }
    let (sender, body) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(error) = follow(&controller, path, source, &sender).await {
            tracing::warn!(%error, "output cannot be read");
        }
    });
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        // It is whatever the app prints.
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Body::from_stream(ReceiverStream::new(body))).into_response()
}

fn not_yet() -> Response {
    (StatusCode::NOT_FOUND, "There is no output here, or not yet.\n").into_response()
}

fn unreadable(error: &(dyn std::error::Error + 'static)) -> Response {
    tracing::error!(error, "output cannot be read");
    (StatusCode::INTERNAL_SERVER_ERROR, "The output cannot be read.\n").into_response()
}

/// Sends a file until nobody writes to it any more, or the client is gone.
async fn follow(
    controller: &Controller,
    path: PathBuf,
    source: Source,
    client: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut offset = 0;
    loop {
        // Looked at before the file: what was written until then is read.
        let over = controller.is_over(source).await;
        let mut file = match tokio::fs::File::open(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        file.seek(SeekFrom::Start(offset)).await?;
        loop {
            let mut bytes = Vec::new();
            let count = (&mut file).take(CHUNK).read_to_end(&mut bytes).await?;
            if count == 0 {
                break;
            }
            offset += count as u64;
            if client.send(Ok(bytes.into())).await.is_err() {
                return Ok(());
            }
        }
        if over {
            return Ok(());
        }
        tokio::select! {
            () = client.closed() => return Ok(()),
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

impl Controller {
    /// Whether nobody writes to this output any more. What cannot be found out counts as over: clients come again.
    async fn is_over(&self, source: Source) -> bool {
        match source {
            Source::Build(id) => {
                // A build that succeeded says how its release goes.
                let runs = self.live.building.lock().values().any(|running| running.build == id);
                let build = self.store.build(id).await.ok().flatten();
                !runs && build.is_none_or(|build| build.status != Status::Pending)
            }
            Source::Phase(id) => !self.live.phases.lock().contains(&id),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::store::Outcome;
    use crate::testing::{TestController, image, make_deploy};

    #[tokio::test]
    async fn output_is_sent_as_it_comes_and_ends_when_nobody_writes_any_more() {
        let test = TestController::new().await;
        let user = test.user("ada@example.com").await;
        let app = test.app(&user, "phased").await;
        let controller = &test.controller;
        let release = make_deploy(&controller.store, &app, &image(&["release", "web"])).await;
        let url = release_url(&controller.settings, &release).expect("a release command");
        let secret = url.rsplit('/').next().expect("a secret").to_owned();
        let open = async |secret: &str| of_release(State(controller.clone()), Path(secret.to_owned())).await;
        assert_eq!(open(&secret).await.status(), StatusCode::NOT_FOUND, "it has not begun");
        assert_eq!(open("0").await.status(), StatusCode::NOT_FOUND);

        let path = controller.release_output(app.id, release.id);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        controller.live.phases.lock().insert(release.id);
        std::fs::write(&path, "one\n").expect("written");
        let mut body = open(&secret).await.into_body();
        let first = body.frame().await.expect("a frame").expect("read").into_data().expect("data");
        assert_eq!(first, "one\n");
        std::fs::write(&path, "one\ntwo\n").expect("written");
        controller.live.phases.lock().remove(&release.id);
        assert_eq!(body.collect().await.expect("an end").to_bytes(), "two\n");
        test.finish(&release, Outcome::Succeeded).await;
        let again = open(&secret).await.into_body().collect().await.expect("an end");
        assert_eq!(again.to_bytes(), "one\ntwo\n", "and again");
    }
}
