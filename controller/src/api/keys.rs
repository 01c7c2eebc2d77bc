//! SSH keys of whoever asks.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ApiError;
use super::input::{Body, Text};
use super::output::{Created, Id, Time};
use super::range::{Page, Range};
use crate::store::{SshKey, User};
use crate::{Actor, Controller, Error};

/// A key to let in.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateKey {
    /// One line as in `id_ed25519.pub`.
    public_key: Text,
}

/// A public key that lets its owner in over SSH.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(super) struct KeyAnswer {
    /// What its owner calls it.
    comment: String,
    created_at: Time,
    /// Whose it is.
    email: String,
    /// `SHA256:…`, as OpenSSH prints it.
    fingerprint: String,
    id: Id,
    /// When somebody last came in with it.
    last_used_at: Option<Time>,
    /// As in `id_ed25519.pub`, with its comment.
    public_key: String,
    updated_at: Time,
}

/// `GET /account/keys`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    range: Range,
) -> Result<Page<KeyAnswer>, ApiError> {
    let keys = controller.store.keys(actor.user.id).await?;
    Ok(range.page(keys.iter().map(|key| answer(key, &actor.user)), "created_at"))
}

/// `POST /account/keys`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<CreateKey>,
) -> Result<Created<KeyAnswer>, ApiError> {
    let key = controller.add_key(&actor, &wish.public_key.0).await?;
    Ok(Created(answer(&key, &actor.user)))
}

/// `GET /account/keys/{key}`: by its id or its fingerprint.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
) -> Result<Json<KeyAnswer>, ApiError> {
    let keys = controller.store.keys(actor.user.id).await?;
    let is_meant = |key: &&SshKey| key.id.to_string() == reference || key.fingerprint == reference;
    let key = keys.iter().find(is_meant).ok_or(Error::NotFound("key"))?;
    Ok(Json(answer(key, &actor.user)))
}

/// `DELETE /account/keys/{key}`: by its id, its fingerprint, its comment or itself.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
) -> Result<Json<KeyAnswer>, ApiError> {
    let gone = controller.remove_key(&actor, &reference).await?;
    Ok(Json(answer(&gone, &actor.user)))
}

fn answer(key: &SshKey, user: &User) -> KeyAnswer {
    KeyAnswer {
        comment: key.comment.clone(),
        created_at: key.created_at.into(),
        email: user.email.to_string(),
        fingerprint: key.fingerprint.clone(),
        id: Id::of(&key.id),
        last_used_at: key.last_used_at.map(Time::from),
        public_key: format!("{} {}", key.public_key, key.comment).trim_end().to_owned(),
        updated_at: key.created_at.into(),
    }
}
