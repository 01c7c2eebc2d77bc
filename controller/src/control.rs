//! The control socket: what only root on this machine may ask. Git hooks come here, and whoever makes the first user.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::accounts::TokenRequest;
use crate::api::ApiError;
use crate::builds::Commit;
use crate::git::Options;
use crate::git::hook::{Received, RefUpdate, Reply};
use crate::releases::reason;
use crate::{Actor, Controller, Error, Origin, Via};

/// Branches that deploy.
const DEPLOY: [&str; 2] = ["refs/heads/main", "refs/heads/master"];

/// The routes of the control socket.
pub fn routes(controller: Arc<Controller>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/hooks/pre-receive", post(pre_receive))
        .route("/users", post(create_user))
        .route("/setup", get(setup))
        .route("/secrets/rotate", post(rotate_secrets))
        .with_state(controller)
}

/// Succeeds once pushes and one-offs are taken.
async fn health(State(controller): State<Arc<Controller>>) -> (StatusCode, Json<Value>) {
    let ready = controller.live.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "version": env!("CARGO_PKG_VERSION") })))
}

#[derive(Debug, Deserialize)]
struct NewUser {
    email: String,
    /// Without one the user can only use tokens.
    password: Option<String>,
}

/// Makes a user, or finds the one of this address, and issues a token.
async fn create_user(
    State(controller): State<Arc<Controller>>,
    Json(new): Json<NewUser>,
) -> Result<Json<Value>, ApiError> {
    let user = controller.ensure_user(&new.email, new.password.as_deref()).await?;
    let request = TokenRequest { description: "Made on the machine".to_owned(), ..TokenRequest::default() };
    let actor = Actor::new(user, Via::Machine, Origin::default());
    let token = controller.issue_token(&actor, request).await?;
    Ok(Json(json!({ "id": actor.user.id, "email": actor.user.email, "token": token.text })))
}

/// Where the first user is made in a browser; null once there is one.
async fn setup(State(controller): State<Arc<Controller>>) -> Result<Json<Value>, ApiError> {
    let secret = controller.setup_secret().await?;
    let url = secret.map(|secret| format!("{}/console/setup?token={secret}", controller.settings.api_url()));
    Ok(Json(json!({ "url": url })))
}

/// Gives every secret a new key. Goes on when whoever asked has left.
async fn rotate_secrets(State(controller): State<Arc<Controller>>) -> Result<Json<Value>, ApiError> {
    let rotation = tokio::spawn(async move { controller.rotate_secrets().await });
    let failed = |source| Error::System { action: "rotate the key of the secrets", source };
    let count = rotation.await.map_err(|error| failed(error.into()))??;
    Ok(Json(json!({ "resealed": count })))
}

/// A push that has arrived. The deploy runs on whether or not the hook stays to listen.
async fn pre_receive(State(controller): State<Arc<Controller>>, Json(received): Json<Received>) -> Response {
    let (lines, mut said) = mpsc::channel::<String>(64);
    let (replies, answer) = mpsc::channel::<Reply>(64);
    tokio::spawn(async move {
        let decision = tokio::spawn(async move { decide(&controller, received, lines).await });
        while let Some(line) = said.recv().await {
            let _ = replies.send(Reply::Line(line)).await;
        }
        let accepted = decision.await.unwrap_or(false);
        let _ = replies.send(Reply::Done { accepted }).await;
    });
    let encode = |reply: Reply| {
        let mut line = serde_json::to_vec(&reply).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    };
    (StatusCode::OK, Body::from_stream(ReceiverStream::new(answer).map(encode))).into_response()
}

/// Whether the branches may move; deploys if one of them is the deploy branch.
async fn decide(controller: &Arc<Controller>, received: Received, lines: mpsc::Sender<String>) -> bool {
    let say = async |text: &str| {
        let _ = lines.send(text.to_owned()).await;
    };
    let is_deploy = |update: &&RefUpdate| DEPLOY.contains(&update.name.as_str());
    let deploys: Vec<&RefUpdate> = received.updates.iter().filter(is_deploy).collect();
    let update = match deploys.as_slice() {
        [] => {
            say("Pushed to a branch that does not deploy: only main and master do. Nothing was built.").await;
            return true;
        }
        [update] => *update,
        _ => {
            say(" !     Push main or master, not both at once: each deploys.").await;
            return false;
        }
    };
    if update.is_deletion() {
        say(" !     The deploy branch cannot be deleted. `platform destroy` removes the whole app.").await;
        return false;
    }
    let options = match Options::parse(&received.options) {
        Ok(options) => options,
        Err(text) => {
            say(&format!(" !     {text}")).await;
            return false;
        }
    };
    let reason = match reason(options.reason.as_deref()) {
        Ok(reason) => reason,
        Err(error) => {
            say(&format!(" !     {error}")).await;
            return false;
        }
    };
    let received_in = controller.clock.now().since(received.push.began);
    let commit = Commit {
        app: received.push.app,
        by: received.push.by,
        // Whoever is less is told so as if they had not said it.
        insists: options.force && received.push.may_insist,
        reason,
        id: update.new.clone(),
        branch: update.name.clone(),
        before: update.previous().map(str::to_owned),
        env: received.env,
        received: received_in,
    };
    controller.deploy(commit, lines).await
}
