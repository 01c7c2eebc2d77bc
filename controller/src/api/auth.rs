//! Who asks, and for which app.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::Method;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use model::Role;

use super::envelope::{Remaining, RequestId};
use super::error::ApiError;
use crate::grants::Deed;
use crate::store::{App, AppScope};
use crate::{Actor, Controller, Error, Origin};

pub(super) const NO_CREDENTIALS: &str = "Invalid credentials provided.";

/// What a route wants of whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// Nothing.
    Anyone,
    /// A good token.
    SignedIn,
    /// The token of somebody who keeps the platform.
    Operator,
    /// A role on the app that the path names, or on the app of what it names.
    View,
    Deploy,
    Operate,
    Manage,
    Admin,
}

impl Right {
    /// The role on an app.
    pub(super) fn role(self) -> Option<Role> {
        match self {
            Self::Anyone | Self::SignedIn | Self::Operator => None,
            Self::View => Some(Role::View),
            Self::Deploy => Some(Role::Deploy),
            Self::Operate => Some(Role::Operate),
            Self::Manage => Some(Role::Manage),
            Self::Admin => Some(Role::Admin),
        }
    }
}

/// An app that the path names, and who works on it: they may do what the route does.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) actor: Actor,
    pub(super) app: App,
}

/// What a handler takes that makes a release: the app may be locked or frozen, and `?force=true` insists.
#[derive(Debug, Clone, Copy)]
pub(super) struct MayBeHeld;

impl<S: Send + Sync> FromRequestParts<S> for MayBeHeld {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self)
    }
}

/// The role that a route wants on the app of what it names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need(pub(super) Role);

/// What a request says about who sends it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// `Bearer <token>`
    Bearer(String),
    /// `Basic <name:password>`; clients put a token where the password goes.
    Basic { name: String, password: String },
}

impl Credentials {
    pub(crate) fn of(parts: &Parts) -> Option<Self> {
        let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, rest) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(rest.trim().to_owned()));
        }
        let decoded = String::from_utf8(BASE64.decode(rest.trim()).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        let basic = Self::Basic { name: name.to_owned(), password: password.to_owned() };
        scheme.eq_ignore_ascii_case("basic").then_some(basic)
    }

    pub(crate) fn token(&self) -> &str {
        match self {
            Self::Bearer(token) => token,
            Self::Basic { password, .. } => password,
        }
    }
}

/// Lets a request through to its handler if whoever sends it may do that. Stands before every handler, so that none can
/// forget to ask.
pub(super) async fn guard(
    State((controller, right)): State<(Arc<Controller>, Right)>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let params = RawPathParams::from_request_parts(&mut parts, &()).await;
    // What is no text or has a NUL in it names nothing.
    let params = params.ok().filter(|params| params.iter().all(|(_, value)| !value.contains('\0')));
    if right == Right::Anyone {
        let _ = params.ok_or(Error::NotFound("resource"))?;
        return Ok(next.run(Request::from_parts(parts, body)).await);
    }
    let credentials = Credentials::of(&parts).ok_or_else(|| ApiError::unauthorized(NO_CREDENTIALS))?;
    let mut actor = controller.authenticate(credentials.token(), origin(&parts)).await?;
    actor.insists = parts.uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "force=true"));
    let now = controller.clock.now();
    let remaining = match controller.live.limits.take(&actor, controller.settings.requests_per_hour.get(), now) {
        Ok(remaining) => Extension(Remaining(remaining)),
        Err(wait) => return Ok((Extension(Remaining(0)), ApiError::rate_limit(wait)).into_response()),
    };
    let passed = admit((&controller, right), (&mut parts, params), actor).await;
    match passed {
        Ok(()) => Ok((remaining, next.run(Request::from_parts(parts, body)).await).into_response()),
        Err(error) => Ok((remaining, error).into_response()),
    }
}

/// Finds what the handler works on, if whoever asks has the right to.
async fn admit(
    (controller, right): (&Controller, Right),
    (parts, params): (&mut Parts, Option<RawPathParams>),
    actor: Actor,
) -> Result<(), ApiError> {
    let params = params.ok_or(Error::NotFound("resource"))?;
    actor.grant.check(deed(parts, right, &actor))?;
    if right == Right::Operator && !actor.user.operator {
        return Err(Error::Forbidden("Only whoever keeps this platform may do that.".to_owned()).into());
    }
    if let Some(need) = right.role() {
        if let Some((_, name)) = params.iter().find(|(key, _)| *key == "app") {
            let app = controller.find_app(&actor, name, need).await?;
            parts.extensions.insert(Access { actor: actor.clone(), app });
        }
        parts.extensions.insert(Need(need));
    }
    parts.extensions.insert(actor);
    Ok(())
}

/// What a request is about to do, as far as the scopes of tokens tell it apart.
fn deed(parts: &Parts, right: Right, actor: &Actor) -> Deed {
    let path = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let reads = parts.method == Method::GET || (parts.method == Method::POST && right == Right::View);
    // Every token may be looked at and given up by whoever has it.
    let is_itself = path == "/oauth/authorizations/{authorization}" && parts.uri.path().ends_with("/~");
    if (reads && IDENTITY.contains(&path)) || is_itself {
        return Deed::Identify;
    }
    // A token for one app has no business where none is named.
    let is_personal = PERSONAL.iter().any(|prefix| path.starts_with(prefix)) && right.role().is_none();
    if right == Right::Operator || is_personal || (actor.grant.limit.is_some() && right == Right::SignedIn) {
        return Deed::Account;
    }
    let is_protected = path.ends_with("/config-vars") || path.ends_with("/config");
    match (reads, is_protected) {
        (true, false) => Deed::Read,
        (true, true) => Deed::ReadProtected,
        (false, false) => Deed::Write,
        (false, true) => Deed::WriteProtected,
    }
}

/// Where everybody sees only who they are.
const IDENTITY: &[&str] = &["/account", "/account/rate-limits", "/users/{user}"];

/// What is about people and not about their apps.
const PERSONAL: &[&str] = &["/account", "/oauth", "/users/{user}", "/teams", "/invitations"];

/// Where a request comes from. The router in front says which address it saw, behind what clients said of themselves.
pub fn origin(parts: &Parts) -> Origin {
    let forwarded = parts.headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
    let address = forwarded.and_then(|list| list.rsplit(',').next()).and_then(|last| last.trim().parse().ok());
    Origin { address, request: parts.extensions.get::<RequestId>().map(|id| id.0.clone()) }
}

/// The apps of a team in which whoever asks has this role.
pub(super) async fn scope_of_team(
    controller: &Controller,
    actor: &Actor,
    (team, need): (&str, Role),
) -> Result<AppScope, ApiError> {
    Ok(AppScope::Team(controller.find_team(actor, team, need).await?.to_ref()))
}

macro_rules! from_guard {
    ($($name:ident)*) => {$(
        impl FromRequestParts<Arc<Controller>> for $name {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, _: &Arc<Controller>) -> Result<Self, ApiError> {
                // Without it the table gives the route less right than its handler works with: a mistake of ours.
                parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::internal)
            }
        }
    )*};
}

from_guard! { Access Actor Need }

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(value: &str) -> Option<Credentials> {
        let request = axum::http::Request::builder().header(AUTHORIZATION, value).body(()).expect("a request");
        Credentials::of(&request.into_parts().0)
    }

    #[test]
    fn reads_what_clients_send() {
        assert_eq!(credentials("Bearer t").expect("read").token(), "t");
        assert_eq!(credentials("bearer t").expect("read").token(), "t");
        assert_eq!(credentials("Basic OnQ=").expect("read").token(), "t");
        let password = credentials("Basic YUBiOmM6ZA==");
        assert_eq!(password, Some(Credentials::Basic { name: "a@b".to_owned(), password: "c:d".to_owned() }));
        for bad in ["", "Bearer", "Basic ?", "Basic dA==", "Digest OnQ="] {
            assert_eq!(credentials(bad), None, "{bad}");
        }
    }
}
