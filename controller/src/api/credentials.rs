//! What private registries and git hosts want to know. Heroku has no word for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use model::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Access, scope_of_team};
use super::error::ApiError;
use super::input::{Body, Text};
use super::output::{Id, List, Named, Time, UserAnswer, team_of};
use crate::store::{App, AppScope, Credential};
use crate::{Actor, Controller, NewCredential};

/// A credential: a password or a key, in place of the one that there is for the same host.
#[derive(Deserialize, ToSchema)]
pub(super) struct SetCredential {
    /// `ghcr.io`, `git.example.com`, `registry.example.com:5000`
    host: Text,
    /// Keys by which the SSH server is known, as `ssh-keyscan` prints them. Without them, it is trusted when it is met.
    host_key: Option<Text>,
    /// A password or a token.
    password: Option<Text>,
    /// In place of a password: an SSH key without a passphrase.
    private_key: Option<Text>,
    /// Who one is there; `git` for SSH if not said.
    username: Option<Text>,
}

/// A credential. Its secret is shown to nobody.
#[derive(Serialize, ToSchema)]
#[schema(as = HostCredential)]
pub(super) struct CredentialAnswer {
    /// The app that it is for; null if it is for more.
    app: Option<Named>,
    created_at: Time,
    host: String,
    /// `SHA256:…` of the keys by which the SSH server is known; none before it was met.
    host_fingerprints: Vec<String>,
    id: Id,
    /// `password` or `ssh-key`
    kind: String,
    /// Of the SSH key: what the host has to know.
    public_key: Option<String>,
    /// The team for whose apps it is; null, as the app, if it is for all.
    team: Option<Named>,
    /// Who set it.
    user: UserAnswer,
    username: String,
}

/// `GET /apps/{app}/credentials`: its own, its team's and the platform's; of one host the first is used.
pub(super) async fn list_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<CredentialAnswer>, ApiError> {
    let all = controller.store.credentials_over(access.app.id).await?;
    Ok(List(all.iter().map(|credential| answer(credential, Some(&access.app))).collect()))
}

/// `PUT /apps/{app}/credentials`
pub(super) async fn set_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<SetCredential>,
) -> Result<Json<CredentialAnswer>, ApiError> {
    let credential = set(&controller, &access.actor, AppScope::App(access.app.id), &wish).await?;
    Ok(Json(answer(&credential, Some(&access.app))))
}

/// `DELETE /apps/{app}/credentials/{credential}`
pub(super) async fn delete_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<CredentialAnswer>, ApiError> {
    let credential = delete(&controller, &access.actor, (&AppScope::App(access.app.id), &id)).await?;
    Ok(Json(answer(&credential, Some(&access.app))))
}

/// `GET /teams/{team}/credentials`
pub(super) async fn list_of_team(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
) -> Result<List<CredentialAnswer>, ApiError> {
    let scope = scope_of_team(&controller, &actor, (&team, Role::Deploy)).await?;
    all(&controller, &scope).await
}

/// `PUT /teams/{team}/credentials`
pub(super) async fn set_of_team(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
    Body(wish): Body<SetCredential>,
) -> Result<Json<CredentialAnswer>, ApiError> {
    let scope = scope_of_team(&controller, &actor, (&team, Role::Manage)).await?;
    Ok(Json(answer(&set(&controller, &actor, scope, &wish).await?, None)))
}

/// `DELETE /teams/{team}/credentials/{credential}`
pub(super) async fn delete_of_team(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path((team, id)): Path<(String, String)>,
) -> Result<Json<CredentialAnswer>, ApiError> {
    let scope = scope_of_team(&controller, &actor, (&team, Role::Manage)).await?;
    Ok(Json(answer(&delete(&controller, &actor, (&scope, &id)).await?, None)))
}

/// `GET /credentials`: those of the whole platform.
pub(super) async fn list(State(controller): State<Arc<Controller>>) -> Result<List<CredentialAnswer>, ApiError> {
    all(&controller, &AppScope::Platform).await
}

/// `PUT /credentials`
pub(super) async fn set_of_all(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<SetCredential>,
) -> Result<Json<CredentialAnswer>, ApiError> {
    Ok(Json(answer(&set(&controller, &actor, AppScope::Platform, &wish).await?, None)))
}

/// `DELETE /credentials/{credential}`
pub(super) async fn delete_of_all(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(id): Path<String>,
) -> Result<Json<CredentialAnswer>, ApiError> {
    Ok(Json(answer(&delete(&controller, &actor, (&AppScope::Platform, &id)).await?, None)))
}

async fn all(controller: &Controller, scope: &AppScope) -> Result<List<CredentialAnswer>, ApiError> {
    let all = controller.store.credentials(scope).await?;
    Ok(List(all.iter().map(|credential| answer(credential, None)).collect()))
}

async fn set(
    controller: &Controller,
    actor: &Actor,
    scope: AppScope,
    wish: &SetCredential,
) -> Result<Credential, ApiError> {
    let text = |text: &'_ Option<Text>| text.as_ref().map(|text| text.0.clone());
    let [username, password, private_key, host_key] =
        [&wish.username, &wish.password, &wish.private_key, &wish.host_key].map(text);
    let new = NewCredential {
        host: &wish.host.0,
        username: username.as_deref(),
        password: password.as_deref(),
        private_key: private_key.as_deref(),
        host_key: host_key.as_deref(),
    };
    Ok(controller.set_credential(actor, scope, new).await?)
}

async fn delete(
    controller: &Controller,
    actor: &Actor,
    (scope, id): (&AppScope, &str),
) -> Result<Credential, ApiError> {
    let credential = controller.find_credential(scope, id).await?;
    controller.remove_credential(actor, &credential).await?;
    Ok(credential)
}

/// `app` is the one that a credential of an app is of.
fn answer(credential: &Credential, app: Option<&App>) -> CredentialAnswer {
    CredentialAnswer {
        app: app.filter(|_| matches!(credential.scope, AppScope::App(_))).map(Named::from),
        created_at: credential.created_at.into(),
        host: credential.host.clone(),
        host_fingerprints: credential.host_fingerprints(),
        id: Id::of(&credential.id),
        kind: credential.kind.to_string(),
        public_key: credential.public_key.clone(),
        team: team_of(&credential.scope),
        user: UserAnswer::from(&credential.by),
        username: credential.username.clone(),
    }
}
