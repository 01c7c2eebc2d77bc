//! A server on a port of its own, and users who speak HTTP to it.

use axum::body::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::TestController;
use crate::accounts::TokenRequest;
use crate::store::User;

/// A controller that serves its API.
pub(crate) struct Server {
    pub(crate) test: TestController,
    pub(crate) address: String,
    is_api: bool,
}

/// Somebody who makes requests.
#[derive(Clone)]
pub(crate) struct Caller {
    address: String,
    token: Option<String>,
    /// Whether answers must be as the API describes them.
    is_api: bool,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
    /// The body, null if it is not JSON.
    pub(crate) body: Value,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::over(TestController::new().await).await
    }

    /// Serves the API of a controller.
    pub(crate) async fn over(test: TestController) -> Self {
        let routes = crate::api::routes(test.controller.clone());
        Self { is_api: true, ..Self::serve(test, routes).await }
    }

    /// The API, and what is open to whoever has an address with a secret.
    pub(crate) async fn serve_all() -> Self {
        let test = TestController::new().await;
        let controller = &test.controller;
        let open = crate::addons::routes(controller.clone()).merge(crate::sources::routes(controller.clone()));
        let routes = open.merge(crate::api::routes(controller.clone()));
        Self::serve(test, routes).await
    }

    /// Serves any routes.
    pub(crate) async fn serve(test: TestController, routes: axum::Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { test, address, is_api: false }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        self.address.trim_start_matches("http://")
    }

    /// Somebody without a token.
    pub(crate) fn stranger(&self) -> Caller {
        Caller { address: self.address.clone(), token: None, is_api: self.is_api }
    }

    /// Whoever has this token.
    pub(crate) fn with_token(&self, token: &str) -> Caller {
        Caller { token: Some(token.to_owned()), ..self.stranger() }
    }

    /// A new user with a token.
    pub(crate) async fn user(&self, email: &str) -> Caller {
        self.token_of(&self.test.user(email).await).await
    }

    /// A user with a new token.
    pub(crate) async fn token_of(&self, user: &User) -> Caller {
        let actor = self.test.actor(user);
        let issued = self.test.controller.issue_token(&actor, TokenRequest::default()).await.expect("a token");
        self.with_token(&issued.text)
    }

    /// A new user with a token and an app.
    pub(crate) async fn user_with_app(&self, email: &str, app: &str) -> Caller {
        let caller = self.user(email).await;
        assert_eq!(caller.send("POST", "/apps", &[], serde_json::json!({ "name": app })).await.status, 201);
        caller
    }

    /// Deploys to the app of this name, whoever owns it.
    pub(crate) async fn deploy(&self, app: &str, types: &[&str]) {
        let apps = self.test.controller.store.apps().await.expect("readable");
        let app = apps.iter().find(|known| known.name.as_str() == app).expect("the app");
        self.test.deploy(app, types).await;
    }
}

impl Caller {
    /// Its token.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Value::Null).await
    }

    /// Sends JSON; null is an empty body.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).expect("JSON") };
        self.send_bytes(method, path, headers, bytes).await
    }

    /// Opens a stream of server-sent events.
    pub(crate) async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Messages {
        let headers: Vec<_> = headers.iter().copied().chain([("accept", "text/event-stream")]).collect();
        let body = self.request("GET", path, &headers, Vec::new()).await.into_body();
        Messages { body, text: String::new() }
    }

    pub(crate) async fn send_bytes(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let (parts, body) = self.request(method, path, headers, body).await.into_parts();
        let text = String::from_utf8(body.collect().await.expect("a body").to_bytes().to_vec()).expect("UTF-8");
        let body = serde_json::from_str(&text).unwrap_or_default();
        if self.is_api {
            crate::api::check(method, path, parts.status.as_u16(), &body);
        }
        Answer { status: parts.status.as_u16(), headers: parts.headers, text, body }
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> http::Response<hyper::body::Incoming> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        Client::builder(TokioExecutor::new()).build_http().request(request).await.expect("an answer")
    }
}

/// Server-sent events as they come.
pub(crate) struct Messages {
    body: hyper::body::Incoming,
    text: String,
}

impl Messages {
    /// The next one that is not a comment.
    pub(crate) async fn message(&mut self) -> String {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let message: String = self.text.drain(..end + 2).collect();
                if !message.starts_with(':') {
                    return message;
                }
                continue;
            }
            let frame = self.body.frame().await.expect("the stream goes on").expect("a frame");
            self.text += std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8");
        }
    }
}

impl Answer {
    /// The error's id; empty if this is no error.
    pub(crate) fn id(&self) -> &str {
        self.body["id"].as_str().unwrap_or_default()
    }

    /// A header; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// One field of every item of a list.
    pub(crate) fn each(&self, field: &str) -> Vec<&str> {
        self.body.as_array().into_iter().flatten().filter_map(|item| item[field].as_str()).collect()
    }
}
