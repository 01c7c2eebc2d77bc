use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde_json::{Value, json};

use super::auth::{Credentials, NO_CREDENTIALS, origin};
use super::describe::{Description, Input};
use super::error::ApiError;
use super::fields::Fields;
use super::range::{Page, Range};
use crate::accounts::TokenRequest;
use crate::store::{Token, User};
use crate::{Actor, Controller, Error, Via};

const MAX_DESCRIPTION: usize = 1024;

/// Who may make a token: somebody with a token, or, here only, with a password.
pub(super) struct Login(Actor);

impl FromRequestParts<Arc<Controller>> for Login {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> Result<Self, ApiError> {
        let credentials = Credentials::of(parts).ok_or_else(|| ApiError::unauthorized(NO_CREDENTIALS))?;
        let by_token = controller.authenticate(credentials.token(), origin(parts)).await;
        match (credentials, by_token) {
            // Terraform's provider sends the address with a token, the heroku program with the password.
            (Credentials::Basic { name, password }, Err(_)) if name.contains('@') => {
                let user = controller.check_password(&name, &password).await?;
                Ok(Self(Actor { user, via: Via::Password, origin: origin(parts) }))
            }
            (_, by_token) => Ok(Self(by_token?)),
        }
    }
}

impl Input for Login {
    fn describe(description: &mut Description<'_>) {
        description.errors(&[401, 429]);
    }
}

/// `POST /oauth/authorizations`: the only answer that holds the token itself.
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    Login(actor): Login,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let description = fields.text("description")?.unwrap_or_default();
    if description.len() > MAX_DESCRIPTION {
        return Err(ApiError::invalid(format!("description can have at most {MAX_DESCRIPTION} bytes")));
    }
    let lifetime = fields.number("expires_in")?.map(Duration::from_secs);
    let issued = controller.issue_token(&actor, TokenRequest { description, lifetime }).await?;
    Ok((StatusCode::CREATED, Json(wire(&issued.token, &actor.user, Some(&issued.text)))))
}

/// `GET /oauth/authorizations`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    range: Range,
) -> Result<Page<Value>, ApiError> {
    let tokens = controller.store.tokens(actor.user.id, controller.clock.now()).await?;
    Ok(range.page(tokens.iter().map(|token| wire(token, &actor.user, None)), "created_at"))
}

/// `GET /oauth/authorizations/{authorization}`; `~` is the one that this request is made with.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(authorization): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = parse(&authorization, &actor)?;
    let tokens = controller.store.tokens(actor.user.id, controller.clock.now()).await?;
    let token = tokens.iter().find(|token| token.id == id).ok_or(Error::NotFound("authorization"))?;
    Ok(Json(wire(token, &actor.user, None)))
}

/// `DELETE /oauth/authorizations/{authorization}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(authorization): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = parse(&authorization, &actor)?;
    let deleted = controller.store.delete_token(actor.user.id, id, &controller.stamp(&actor)).await?;
    Ok(Json(wire(&deleted.ok_or(Error::NotFound("authorization"))?, &actor.user, None)))
}

fn parse(authorization: &str, actor: &Actor) -> Result<model::TokenId, Error> {
    match authorization {
        "~" => match actor.via {
            Via::Token(id) => Ok(id),
            _ => Err(Error::NotFound("authorization")),
        },
        id => id.parse().map_err(|_| Error::NotFound("authorization")),
    }
}

fn wire(token: &Token, user: &User, text: Option<&str>) -> Value {
    let expires_in = token.expires_at.map(|end| end.since(token.created_at).as_secs());
    let access = text.map(|text| json!({ "expires_in": expires_in, "id": token.id, "token": text }));
    json!({
        "access_token": access,
        "client": null,
        "created_at": token.created_at.to_rfc3339(),
        "description": token.description,
        "grant": null,
        "id": token.id,
        "refresh_token": null,
        "scope": ["global"],
        "session": null,
        "updated_at": token.created_at.to_rfc3339(),
        "user": { "id": user.id, "email": user.email, "full_name": null },
    })
}
