//! Who asks, and for which app.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::error::ApiError;
use crate::accounts::Session;
use crate::store::App;
use crate::{Controller, Error};

const NO_CREDENTIALS: &str = "Invalid credentials provided.";

/// An app that the path names, and who works on it.
pub(super) struct Access {
    pub(super) session: Session,
    pub(super) app: App,
}

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

impl FromRequestParts<Arc<Controller>> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> Result<Self, ApiError> {
        let credentials = Credentials::of(parts).ok_or_else(|| ApiError::unauthorized(NO_CREDENTIALS))?;
        Ok(controller.authenticate(credentials.token()).await?)
    }
}

impl FromRequestParts<Arc<Controller>> for Access {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> Result<Self, ApiError> {
        let session = Session::from_request_parts(parts, controller).await?;
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, controller).await;
        let name = path.ok().and_then(|Path(mut parameters)| parameters.remove("app")).ok_or(Error::NotFound("app"))?;
        let app = controller.find_app(&session.user, &name).await?;
        Ok(Self { session, app })
    }
}

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
