//! Forms: read only if they came from a page of ours that was shown to whoever sends them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use controller::Controller;

use crate::error::PageError;
use crate::session::Guarded;

/// A form and who sent it.
#[derive(Debug)]
pub(crate) struct Form<V> {
    /// Who.
    pub(crate) by: V,
    /// What it says.
    pub(crate) fields: Fields,
}

/// What a form says. Of a field that is there twice, the last counts.
#[derive(Debug, Default)]
pub(crate) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// From `application/x-www-form-urlencoded`. Browsers send lines of a text area with CR LF; people mean LF.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let pairs = url::form_urlencoded::parse(body);
        Self(pairs.map(|(name, value)| (name.into_owned(), value.replace("\r\n", "\n"))).collect())
    }

    /// A field; empty if it is not there.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A field that was filled in.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|value| !value.is_empty())
    }
}

impl<V> FromRequest<Arc<Controller>> for Form<V>
where
    V: FromRequestParts<Arc<Controller>, Rejection = PageError> + Guarded + Send,
{
    type Rejection = PageError;

    async fn from_request(request: Request, controller: &Arc<Controller>) -> Result<Self, PageError> {
        let (mut parts, body) = request.into_parts();
        let by = V::from_request_parts(&mut parts, controller).await?;
        // Apps run on subdomains of ours: to a browser they are the same site, and SameSite cookies come with their forms.
        if !is_same_origin(&parts.headers) {
            return Err(PageError::Forged);
        }
        let body = Bytes::from_request(Request::from_parts(parts, body), controller).await;
        let fields = Fields::parse(&body.map_err(|_| PageError::BadForm)?);
        if fields.get("csrf") != by.csrf() {
            return Err(PageError::Forged);
        }
        Ok(Self { by, fields })
    }
}

/// Whether a browser that says where a form is from says that it is from here.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    origin.is_some() && origin == host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_people_meant_them() {
        let fields = Fields::parse(b"name=A+B&value=one%0D%0Atwo%3C&name=last&empty=");
        assert_eq!(fields.get("name"), "last");
        assert_eq!(fields.get("value"), "one\ntwo<");
        assert_eq!((fields.get("absent"), fields.filled("empty")), ("", None));
    }

    #[test]
    fn forms_of_other_origins_are_told() {
        let is_ours = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "localhost:8080".parse().expect("a value"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().expect("a value"));
            }
            is_same_origin(&headers)
        };
        assert!(is_ours(None) && is_ours(Some("http://localhost:8080")) && is_ours(Some("https://localhost:8080")));
        for other in ["http://app.localhost:8080", "http://localhost", "null", "http://evil.example"] {
            assert!(!is_ours(Some(other)), "{other}");
        }
    }
}
