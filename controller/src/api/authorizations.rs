//! OAuth authorizations: the tokens of whoever asks. Heroku has a token and an authorization for it; here they are one.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use model::{Role, TokenId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Credentials, NO_CREDENTIALS, origin};
use super::describe::{Description, Input};
use super::error::ApiError;
use super::input::{Body, Count, Reference, Text};
use super::output::{Created, Id, Named, Time};
use super::range::{Page, Range};
use crate::accounts::TokenRequest;
use crate::grants::{Deed, Grant, Scope};
use crate::store::{Token, User};
use crate::{Actor, Controller, Error, Via};

/// Who may make a token: somebody with a token that is good for everything, or, here only, with a password.
pub(super) struct Login(Actor);

impl FromRequestParts<Arc<Controller>> for Login {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> Result<Self, ApiError> {
        let credentials = Credentials::of(parts).ok_or_else(|| ApiError::unauthorized(NO_CREDENTIALS))?;
        let by_token = controller.authenticate(credentials.token(), origin(parts)).await;
        match (credentials, by_token) {
            // Terraform's provider sends the address with a token, the heroku program with the password.
            (Credentials::Basic { name, password }, Err(_)) if name.contains('@') => {
                let origin = origin(parts);
                let code = parts.headers.get("heroku-two-factor-code").and_then(|code| code.to_str().ok());
                let user = controller.sign_in((&name, &password), code, &origin).await?;
                Ok(Self(Actor::new(user, Via::Password, origin)))
            }
            (_, by_token) => {
                let actor = by_token?;
                actor.grant.check(Deed::Account)?;
                Ok(Self(actor))
            }
        }
    }
}

impl Input for Login {
    fn describe(description: &mut Description<'_>) {
        description.header("Heroku-Two-Factor-Code", "The code of the second factor, beside a password.");
        description.errors(&[401, 403, 429]);
    }
}

/// A new token.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateAuthorization {
    /// What it is for.
    description: Option<Text>,
    /// Seconds until it is no longer good; without it, never.
    expires_in: Option<Count>,
    /// Any of global, identity, read, write, read-protected, write-protected; without it, global.
    scope: Option<Vec<Text>>,
    /// The one app that it is good for: a deploy token.
    app: Option<Reference>,
    /// The most that it may do with that app; without it, deploy.
    role: Option<Text>,
}

/// What a token is to become.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateAuthorization {
    /// What it is for.
    description: Option<Text>,
}

/// A token, but for the token itself, which is told once.
#[derive(Serialize, ToSchema)]
#[schema(as = OauthAuthorization)]
pub(super) struct AuthorizationAnswer {
    access_token: Option<AccessToken>,
    /// The one app that it is good for.
    app: Option<Named>,
    client: Option<Named>,
    created_at: Time,
    description: String,
    /// When it is no longer good; null for never.
    expires_at: Option<Time>,
    grant: Option<Named>,
    id: Id,
    /// When somebody last came in with it, to the minute.
    last_used_at: Option<Time>,
    refresh_token: Option<Named>,
    /// The most that it may do with that app.
    role: Option<String>,
    scope: Vec<String>,
    session: Option<Named>,
    updated_at: Time,
    user: AuthorizedUser,
}

/// The token itself.
#[derive(Serialize, ToSchema)]
pub(super) struct AccessToken {
    /// Seconds from its making.
    expires_in: Option<u64>,
    id: Id,
    /// Null but in the answer that makes it.
    token: Option<String>,
}

/// Whose a token is.
#[derive(Serialize, ToSchema)]
pub(super) struct AuthorizedUser {
    id: Id,
    email: String,
    full_name: Option<String>,
}

/// `POST /oauth/authorizations`: besides `regenerate`, the only answer that holds the token itself.
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    Login(actor): Login,
    Body(wish): Body<CreateAuthorization>,
) -> Result<Created<AuthorizationAnswer>, ApiError> {
    let grant = grant(&controller, &actor, &wish).await?;
    let request = TokenRequest {
        description: wish.description.map(|text| text.0).unwrap_or_default(),
        lifetime: wish.expires_in.map(|seconds| Duration::from_secs(seconds.0)),
        grant,
    };
    let issued = controller.issue_token(&actor, request).await?;
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
    Path(reference): Path<String>,
) -> Result<Json<AuthorizationAnswer>, ApiError> {
    let token = find(&controller, &actor, &reference).await?;
    Ok(Json(answer(&token, &actor.user, None)))
}

/// `PATCH /oauth/authorizations/{authorization}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
    Body(wish): Body<UpdateAuthorization>,
) -> Result<Json<AuthorizationAnswer>, ApiError> {
    let mut token = find(&controller, &actor, &reference).await?;
    if let Some(Text(description)) = wish.description {
        token = controller.describe_token(&actor, &token, &description).await?;
    }
    Ok(Json(answer(&token, &actor.user, None)))
}

/// `POST /oauth/authorizations/{authorization}/actions/regenerate-tokens`: the same authorization with another token.
pub(super) async fn regenerate(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
) -> Result<Json<AuthorizationAnswer>, ApiError> {
    let token = find(&controller, &actor, &reference).await?;
    let issued = controller.regenerate_token(&actor, &token).await?;
    Ok(Json(answer(&issued.token, &actor.user, Some(issued.text))))
}

/// `DELETE /oauth/authorizations/{authorization}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
) -> Result<Json<AuthorizationAnswer>, ApiError> {
    let token = find(&controller, &actor, &reference).await?;
    let gone = controller.revoke_token(&actor, token.id).await?;
    Ok(Json(answer(&gone, &actor.user, None)))
}

async fn grant(controller: &Controller, actor: &Actor, wish: &CreateAuthorization) -> Result<Grant, Error> {
    let scopes: Vec<Scope> = match wish.scope.as_deref() {
        None | Some([]) => vec![Scope::Global],
        Some(scopes) => scopes.iter().map(|scope| scope.0.parse()).collect::<Result<_, _>>()?,
    };
    let limit = match (&wish.app, &wish.role) {
        (None, None) => None,
        (None, Some(_)) => return Err(Error::Invalid("role needs app: it is a role on one app".to_owned())),
        (Some(app), role) => {
            let role: Role = role.as_ref().map_or(Ok(Role::Deploy), |role| role.0.parse())?;
            // Nobody gives more than they have.
            Some((controller.find_app(actor, &app.0, role).await?.id, role))
        }
    };
    Ok(Grant { scopes, limit })
}

async fn find(controller: &Controller, actor: &Actor, reference: &str) -> Result<Token, Error> {
    let id: Option<TokenId> = match (reference, actor.via) {
        ("~", Via::Token(id)) => Some(id),
        (id, _) => id.parse().ok(),
    };
    let tokens = controller.store.tokens(actor.user.id, controller.clock.now()).await?;
    tokens.into_iter().find(|token| Some(token.id) == id).ok_or(Error::NotFound("authorization"))
}

fn answer(token: &Token, user: &User, text: Option<String>) -> AuthorizationAnswer {
    let expires_in = token.expires_at.map(|end| end.since(token.created_at).as_secs());
    let role = token.grant.limit.map(|(_, role)| role.to_string());
    AuthorizationAnswer {
        access_token: text.map(|text| AccessToken { expires_in, id: Id::of(&token.id), token: Some(text) }),
        app: token.grant.limit.zip(token.app_name.as_ref()).map(|((app, _), name)| Named::new(&app, name)),
        client: None,
        created_at: token.created_at.into(),
        description: token.description.clone(),
        grant: None,
        id: Id::of(&token.id),
        expires_at: token.expires_at.map(Time::from),
        last_used_at: token.last_used_at.map(Time::from),
        refresh_token: None,
        role,
        scope: token.grant.scopes.iter().map(ToString::to_string).collect(),
        session: None,
        updated_at: token.updated_at.into(),
        user: AuthorizedUser { id: Id::of(&user.id), email: user.email.to_string(), full_name: user.name.clone() },
    }
}
