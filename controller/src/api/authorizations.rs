use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Credentials, NO_CREDENTIALS, origin};
use super::describe::{Description, Input};
use super::error::ApiError;
use super::input::{Body, Count, Text};
use super::output::{Created, Id, Identified, Time};
use super::range::{Page, Range};
use crate::accounts::TokenRequest;
use crate::store::{Token, User};
use crate::{Actor, Controller, Error, Via};

const MAX_DESCRIPTION: usize = 1024;

/// A new token.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateAuthorization {
    /// What it is for.
    description: Option<Text>,
    /// How many seconds it lasts; for ever if absent.
    expires_in: Option<Count>,
}

/// A token of the API.
#[derive(Serialize, ToSchema)]
#[schema(as = Authorization)]
pub(super) struct AuthorizationAnswer {
    /// The token itself, only where it is made.
    access_token: Option<AccessToken>,
    client: Option<Identified>,
    created_at: Time,
    /// What it is for.
    description: String,
    grant: Option<Identified>,
    id: Id,
    refresh_token: Option<AccessToken>,
    scope: Vec<&'static str>,
    session: Option<Identified>,
    updated_at: Time,
    user: AuthorizingUser,
}

/// A token as it is sent.
#[derive(Serialize, ToSchema)]
pub(super) struct AccessToken {
    /// Seconds from when it was made; null if it never ends.
    expires_in: Option<u64>,
    id: Id,
    token: String,
}

/// Whose token it is.
#[derive(Serialize, ToSchema)]
pub(super) struct AuthorizingUser {
    id: Id,
    email: String,
    full_name: Option<String>,
}

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
    Body(wish): Body<CreateAuthorization>,
) -> Result<Created<AuthorizationAnswer>, ApiError> {
    let description = wish.description.map(|it| it.0).unwrap_or_default();
    if description.len() > MAX_DESCRIPTION {
        return Err(ApiError::invalid(format!("description can have at most {MAX_DESCRIPTION} bytes")));
    }
    let lifetime = wish.expires_in.map(|it| Duration::from_secs(it.0));
    let issued = controller.issue_token(&actor, TokenRequest { description, lifetime }).await?;
    Ok(Created(answer(&issued.token, &actor.user, Some(issued.text))))
}

/// `GET /oauth/authorizations`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    range: Range,
) -> Result<Page<AuthorizationAnswer>, ApiError> {
    let tokens = controller.store.tokens(actor.user.id, controller.clock.now()).await?;
    Ok(range.page(tokens.iter().map(|token| answer(token, &actor.user, None)), "created_at"))
}

/// `GET /oauth/authorizations/{authorization}`; `~` is the one that this request is made with.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(authorization): Path<String>,
) -> Result<Json<AuthorizationAnswer>, ApiError> {
    let id = parse(&authorization, &actor)?;
    let tokens = controller.store.tokens(actor.user.id, controller.clock.now()).await?;
    let token = tokens.iter().find(|token| token.id == id).ok_or(Error::NotFound("authorization"))?;
    Ok(Json(answer(token, &actor.user, None)))
}

/// `DELETE /oauth/authorizations/{authorization}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(authorization): Path<String>,
) -> Result<Json<AuthorizationAnswer>, ApiError> {
    let id = parse(&authorization, &actor)?;
    let deleted = controller.store.delete_token(actor.user.id, id, &controller.stamp(&actor)).await?;
    Ok(Json(answer(&deleted.ok_or(Error::NotFound("authorization"))?, &actor.user, None)))
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

fn answer(token: &Token, user: &User, text: Option<String>) -> AuthorizationAnswer {
    let expires_in = token.expires_at.map(|end| end.since(token.created_at).as_secs());
    AuthorizationAnswer {
        access_token: text.map(|token_text| AccessToken { expires_in, id: Id::of(&token.id), token: token_text }),
        client: None,
        created_at: token.created_at.into(),
        description: token.description.clone(),
        grant: None,
        id: Id::of(&token.id),
        refresh_token: None,
        scope: vec!["global"],
        session: None,
        updated_at: token.created_at.into(),
        user: AuthorizingUser { id: Id::of(&user.id), email: user.email.to_string(), full_name: None },
    }
}
