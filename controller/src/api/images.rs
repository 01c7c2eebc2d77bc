//! Images, for whoever runs them elsewhere.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body as Answer, Bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

use super::auth::Access;
use super::backups::Content;
use super::describe::{Description, Output};
use super::error::ApiError;
use super::input::{Body, Text};
use crate::images::{Pushing, written};
use crate::{Controller, Error};

/// One document of JSON a line.
const LINES: &str = "application/x-ndjson";

/// Where an image is wanted.
#[derive(Deserialize, ToSchema)]
pub(super) struct PushImage {
    /// Registry, repository and tag: `registry.example.com/team/app:v12`.
    to: Text,
}

/// An image on its way to a registry.
#[derive(Serialize, ToSchema)]
#[schema(as = ImagePush)]
pub(super) struct PushAnswer {
    /// That the registry had before.
    bytes_present: u64,
    bytes_sent: u64,
    /// Of its layers and its config.
    bytes_total: u64,
    /// Why it failed, and what to do.
    failure: Option<String>,
    /// `registry.example.com/team/app@sha256:…`, once it is there.
    image: Option<String>,
    /// `pending`, `succeeded` or `failed`.
    state: &'static str,
}

impl From<Pushing> for PushAnswer {
    fn from(push: Pushing) -> Self {
        let (state, image, failure) = match push.end {
            None => ("pending", None, None),
            Some(Ok(image)) => ("succeeded", Some(image), None),
            Some(Err(failure)) => ("failed", None, Some(failure)),
        };
        let Pushing { bytes_present, bytes_sent, bytes_total, .. } = push;
        Self { bytes_present, bytes_sent, bytes_total, failure, image, state }
    }
}

/// How a push goes, a line a second, and how it ends.
pub(super) struct Progress(Answer);

impl IntoResponse for Progress {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, LINES)], self.0).into_response()
    }
}

impl Output for Progress {
    fn describe(description: &mut Description<'_>) {
        description.stream("How far it is, one ImagePush a line; the last line says how it ended.", LINES);
        let schema = description.written::<PushAnswer>();
        description.responses["200"]["content"][LINES]["schema"] = schema;
        description.errors(&[409, 422]);
    }
}

/// `GET /apps/{app}/releases/{release}/image`: as an OCI layout in a tar file.
pub(super) async fn download(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Content, ApiError> {
    let release = controller.find_release(&access.app, &reference).await?;
    let image = controller.exportable(&release).await?;
    let (layers, name) = (controller.builder.layers.clone(), format!("v{}", release.version));
    let file = format!("{}-{name}.tar", access.app.name);
    let parts = written(move |writer| builder::write_layout(&layers, &image, &name, writer));
    Ok(Content::new(&file, Answer::from_stream(parts)))
}

/// `POST /apps/{app}/releases/{release}/image/pushes`: to a registry. Goes on for as long as somebody reads.
pub(super) async fn push(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
    Body(wish): Body<PushImage>,
) -> Result<Progress, ApiError> {
    let release = controller.find_release(&access.app, &reference).await?;
    let mut states = controller.push_image((&access.app, &access.actor), &release, &wish.to.0).await?;
    let first = states.recv().await.ok_or_else(ApiError::internal)?;
    if let Some(Err(failure)) = first.end {
        return Err(Error::Conflict(failure).into());
    }
    let states = stream::iter([first]).chain(ReceiverStream::new(states));
    let line = |state| serde_json::json!(PushAnswer::from(state)).to_string() + "\n";
    let lines = states.map(move |state| Ok::<_, Infallible>(Bytes::from(line(state))));
    Ok(Progress(Answer::from_stream(lines)))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Router;
    use axum::extract::{OriginalUri, Request};
    use axum::http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
    use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
    use axum::routing::get;
    use serde_json::{Value, json};
    use sha2::{Digest as _, Sha256};
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::http::{Answer as Got, Caller, Server};

    /// A registry with a token service, as far as pushes need one. It has one repository, and takes uploads under another name of its own.
    #[derive(Clone, Default)]
    struct Registry {
        address: Arc<Mutex<String>>,
        /// What it has, and which requests it got.
        blobs: Arc<Mutex<Vec<String>>>,
        requests: Arc<Mutex<Vec<String>>>,
    }

    impl Registry {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let registry = Self::default();
            *registry.address.lock().unwrap() = listener.local_addr().expect("an address").to_string();
            let all = registry.clone();
            let routes = Router::new()
                .route("/token", get(async move |uri: OriginalUri, headers: HeaderMap| Self::token(&uri, &headers)))
                .fallback(async move |request: Request| all.answer(request).await);
            tokio::spawn(async move { axum::serve(listener, routes).await });
            registry
        }

        fn address(&self) -> String {
            self.address.lock().unwrap().clone()
        }

        fn token(uri: &OriginalUri, headers: &HeaderMap) -> Response {
            let query = uri.query().unwrap_or_default();
            assert!(query.contains("scope=repository%3A") && query.ends_with("%3Apull%2Cpush"), "{query}");
            // ada:s3cret
            match headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) {
                Some(b"Basic YWRhOnMzY3JldA==") => r#"{"token": "good"}"#.into_response(),
                Some(_) => StatusCode::UNAUTHORIZED.into_response(),
                None => r#"{"token": "anybody"}"#.into_response(),
            }
        }

        async fn answer(&self, request: Request) -> Response {
            let (parts, body) = request.into_parts();
            let (path, token) = (parts.uri.path().to_owned(), parts.headers.get(AUTHORIZATION).cloned());
            let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
            self.requests.lock().unwrap().push(format!("{} {path}", parts.method));
            if path == "/upload" {
                assert_eq!(token, None, "tokens are the registry's alone");
                let digest = format!("sha256:{}", hex::encode(Sha256::digest(&body)));
                self.blobs.lock().unwrap().push(digest);
                return StatusCode::CREATED.into_response();
            }
            let address = self.address();
            match token.as_ref().map(HeaderValue::as_bytes) {
                None => {
                    let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"registry\"");
                    return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response();
                }
                Some(b"Bearer good") => {}
                Some(_) => return StatusCode::UNAUTHORIZED.into_response(),
            }
            let digest = path.rsplit('/').next().unwrap_or_default().to_owned();
            match parts.method {
                Method::HEAD if self.blobs.lock().unwrap().contains(&digest) => StatusCode::OK.into_response(),
                Method::POST if path == "/v2/team/app/blobs/uploads/" => {
                    let to = format!("http://{}/upload?session=1", address.replace("127.0.0.1", "localhost"));
                    (StatusCode::ACCEPTED, [(LOCATION, to)]).into_response()
                }
                Method::PUT if path.ends_with("/manifests/full") => {
                    let reason = r#"{"errors":[{"code":"DENIED","message":"the quota is used up"}]}"#;
                    (StatusCode::CONFLICT, reason).into_response()
                }
                Method::PUT if path.ends_with("/manifests/v1") => StatusCode::CREATED.into_response(),
                _ => StatusCode::NOT_FOUND.into_response(),
            }
        }
    }

    async fn shop(server: &Server) -> Caller {
        let ada = server.user_with_app("ada@example.com", "shop").await;
        server.deploy("shop", &["web"]).await;
        // The one layer of the test's images.
        let layer = server.test.controller.builder.layers.path(&model::Digest::from_sha256([7; 32]));
        std::fs::create_dir_all(&layer).expect("made");
        std::fs::write(layer.join("file"), "content").expect("written");
        ada
    }

    async fn push(caller: &Caller, to: &str) -> Got {
        caller.send("POST", "/apps/shop/releases/v2/image/pushes", &[], json!({ "to": to })).await
    }

    fn last(answer: &Got) -> Value {
        assert_eq!(answer.status, 200, "{}", answer.text);
        serde_json::from_str(answer.text.lines().last().unwrap_or_default()).expect("JSON")
    }

    #[tokio::test]
    async fn a_push_sends_what_is_not_there_by_a_token_that_only_the_registry_sees() {
        let (server, registry) = (Server::start().await, Registry::start().await);
        let ada = shop(&server).await;
        let address = registry.address();
        let to = format!("{address}/team/app:v1");
        let set = async |password: &str| {
            let wish = json!({ "host": address, "username": "ada", "password": password });
            assert_eq!(ada.send("PUT", "/apps/shop/credentials", &[], wish).await.status, 200);
        };
        let none = push(&ada, &to).await;
        assert_eq!(none.status, 409);
        assert!(none.text.contains(&format!("`platform credentials:set {address}` adds them")), "{}", none.text);
        set("wrong").await;
        let wrong = push(&ada, &to).await;
        assert!(wrong.status == 409 && wrong.text.contains("may not push to team/app"), "{}", wrong.text);
        set("s3cret").await;
        let pushed = last(&push(&ada, &to).await);
        assert_eq!((&pushed["state"], &pushed["bytes_present"]), (&json!("succeeded"), &json!(0)));
        assert_eq!(pushed["bytes_sent"], pushed["bytes_total"]);
        let image = pushed["image"].as_str().expect("a name").to_owned();
        assert!(image.starts_with(&format!("{address}/team/app@sha256:")), "{image}");

        // What the image of a test calls its layer is not what the layer's bytes are.
        registry.blobs.lock().unwrap().push(model::Digest::from_sha256([7; 32]).to_string());
        registry.requests.lock().unwrap().clear();
        let again = last(&push(&ada, &to).await);
        assert_eq!((&again["bytes_sent"], &again["bytes_present"]), (&json!(0), &pushed["bytes_total"]));
        assert_eq!(again["image"], pushed["image"]);
        let requests = registry.requests.lock().unwrap().clone();
        assert!(!requests.iter().any(|line| line.starts_with("POST") || line == "PUT /upload"), "{requests:?}");

        let events = ada.get("/apps/shop/events?resource=release&action=update").await;
        let told = events.body.as_array().expect("a list").iter().filter(|event| event["data"]["pushed"] == image);
        assert_eq!(told.count(), 2, "{}", events.text);
        assert!(!events.text.contains("s3cret"));
    }

    #[tokio::test]
    async fn what_cannot_be_pushed_is_said_with_what_to_do() {
        let (server, registry) = (Server::start().await, Registry::start().await);
        let ada = shop(&server).await;
        let address = registry.address();
        let wish = json!({ "host": address, "username": "ada", "password": "s3cret" });
        assert_eq!(ada.send("PUT", "/apps/shop/credentials", &[], wish).await.status, 200);
        // Freed at once: nobody listens there.
        let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let rows = [
            (format!("{address}/team/app@sha256:00"), 422, "give it a tag"),
            ("https://ghcr.io/app:v1".to_owned(), 422, "does not name an image"),
            (format!("{nobody}/team/app:v1"), 409, "could not be reached"),
            (format!("{address}/away:v1"), 409, "has no away and makes none by itself"),
            ("10.0.0.1/team/app:v1".to_owned(), 409, "outbound_networks"),
        ];
        for (to, status, text) in rows {
            let answer = push(&ada, &to).await;
            assert!(answer.status == status && answer.text.contains(text), "{to}: {}", answer.text);
        }
        let full = push(&ada, &format!("{address}/team/app:full")).await;
        assert!(full.text.contains("DENIED the quota is used up"), "{}", full.text);
        let eve = server.user("eve@example.com").await;
        assert_eq!(push(&eve, &format!("{address}/team/app:v1")).await.status, 404);
    }
}
