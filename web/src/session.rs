//! Who looks at a page: the session cookie, and what pages get of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, Path};
use axum::http::header::{COOKIE, HeaderValue, SET_COOKIE, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use controller::api::origin;
use controller::store::App;
use controller::{Actor, Controller, Origin, sessions};
use model::Role;
use sha2::{Digest, Sha256};

use crate::error::PageError;
use crate::notice::{self, Notice};
use crate::respond::is_htmx;

/// The secret of a session.
const SESSION: &str = "platform_session";
/// A secret that ties the sign-in form to the browser that was shown it.
const STRANGER: &str = "platform_form";

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    /// Who.
    pub(crate) actor: Actor,
    /// What the form before has to say.
    pub(crate) notice: Option<Notice>,
    secret: String,
}

/// Somebody who is signed in and may work on the app that the path names.
#[derive(Debug, Clone)]
pub(crate) struct AppVisit {
    /// Who.
    pub(crate) visit: Visit,
    /// On what.
    pub(crate) app: App,
    /// What they may do with it.
    pub(crate) role: Role,
}

/// The role that a route of an app wants of whoever comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need(pub(crate) Role);

/// Somebody who need not be signed in.
#[derive(Debug, Clone)]
pub(crate) struct Stranger {
    secret: String,
    is_new: bool,
    is_secure: bool,
    /// Where the request comes from.
    pub(crate) origin: Origin,
    /// Their browser, in its own words.
    pub(crate) agent: Option<String>,
}

/// Whoever fills in a form that only the pages shown to them contain.
pub(crate) trait Guarded {
    /// What such a form says in its field `csrf`.
    fn csrf(&self) -> String;
}

impl Guarded for Visit {
    fn csrf(&self) -> String {
        csrf(&self.secret)
    }
}

impl Guarded for AppVisit {
    fn csrf(&self) -> String {
        self.visit.csrf()
    }
}

impl Guarded for Stranger {
    fn csrf(&self) -> String {
        csrf(&self.secret)
    }
}

impl Stranger {
    /// Gives the browser what ties the form of this page to it.
    pub(crate) fn mark(&self, response: &mut Response) {
        if self.is_new {
            set(response, STRANGER, &self.secret, &format!("Path=/console{}", secure(self.is_secure)));
        }
    }

    /// Signs a user in, for as long as a session lasts.
    pub(crate) fn sign_in(&self, response: &mut Response, session: &str) {
        let seconds = sessions::LIFETIME.as_secs();
        set(response, SESSION, session, &format!("Path=/console; Max-Age={seconds}{}", secure(self.is_secure)));
    }
}

impl Visit {
    /// Ends the session.
    pub(crate) async fn sign_out(&self, controller: &Controller, response: &mut Response) -> Result<(), PageError> {
        controller.close_session(&self.actor, &self.secret).await?;
        set(response, SESSION, "", "Path=/console; Max-Age=0");
        Ok(())
    }

    /// Whether the session goes on; asked by answers that last.
    pub(crate) async fn goes_on(&self, controller: &Controller) -> bool {
        matches!(controller.session_actor(&self.secret, Origin::default()).await, Ok(Some(_)))
    }
}

impl FromRequestParts<Arc<Controller>> for Visit {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> Result<Self, PageError> {
        let notice = cookie(&parts.headers, notice::COOKIE).and_then(Notice::read);
        if let Some(secret) = cookie(&parts.headers, SESSION)
            && let Some(actor) = controller.session_actor(secret, origin(parts)).await?
        {
            return Ok(Self { actor, notice, secret: secret.to_owned() });
        }
        let back = parts.uri.path_and_query().filter(|_| parts.method == Method::GET);
        Err(PageError::SignIn { back: back.map(ToString::to_string), htmx: is_htmx(&parts.headers) })
    }
}

impl FromRequestParts<Arc<Controller>> for AppVisit {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> Result<Self, PageError> {
        let visit = Visit::from_request_parts(parts, controller).await?;
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, controller).await;
        let name = path.ok().and_then(|Path(mut named)| named.remove("app")).ok_or(PageError::NoPage)?;
        let Extension(Need(need)) =
            Extension::from_request_parts(parts, controller).await.map_err(|_| PageError::NoPage)?;
        let app = controller.find_app(&visit.actor, &name, need).await?;
        let role = controller.check_role(&visit.actor, &app, need).await?;
        Ok(Self { visit, app, role })
    }
}

impl FromRequestParts<Arc<Controller>> for Stranger {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> Result<Self, PageError> {
        let proto = parts.headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        let is_secure = proto == Some("https");
        let agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if let Some(secret) = cookie(&parts.headers, STRANGER).filter(|secret| secret.len() == 40) {
            return Ok(Self { secret: secret.to_owned(), is_new: false, is_secure, origin: origin(parts), agent });
        }
        let mut bytes = [0; 20];
        controller.random.fill(&mut bytes);
        Ok(Self { secret: hex::encode(bytes), is_new: true, is_secure, origin: origin(parts), agent })
    }
}

/// What proves that a form was made for the holder of a secret, and tells nothing of it.
fn csrf(secret: &str) -> String {
    hex::encode(Sha256::digest(format!("form of {secret}")))
}

/// The value of a cookie; of several the first, which has the longest path (RFC 6265, section 5.4).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// No script can read it, and no other site's form carries it.
fn set(response: &mut Response, name: &str, value: &str, attributes: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("{name}={value}; {attributes}; HttpOnly; SameSite=Lax")) {
        response.headers_mut().append(SET_COOKIE, value);
    }
}

fn secure(is_secure: bool) -> &'static str {
    if is_secure { "; Secure" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; platform_session=first;b=2"));
        headers.append(COOKIE, HeaderValue::from_static("platform_session=second; platform_sessions=x"));
        assert_eq!(cookie(&headers, SESSION), Some("first"));
        assert_eq!(cookie(&headers, "b"), Some("2"));
        assert_eq!(cookie(&headers, "c"), None);
    }

    #[test]
    fn a_form_of_one_session_is_none_of_another() {
        assert_ne!(csrf("a"), csrf("b"));
        assert!(!csrf("secret").contains("secret"));
    }
}
