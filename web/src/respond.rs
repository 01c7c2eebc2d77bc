//! What every answer of the console carries.

use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Scripts and styles are files of ours; nothing is in line, nothing comes from elsewhere, nobody frames us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// A page to load instead of replacing a part of the present one.
const HX_REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// Middleware that adds the headers that protect a browser.
pub(crate) async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let fixed = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`, under which browsers also hide the origin of a form (Fetch standard, "serializing a request origin").
        (REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// A page.
pub(crate) fn html(status: StatusCode, html: String) -> Response {
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}

/// The page to look at after a form was taken.
pub(crate) fn see_other(path: &str) -> Response {
    match HeaderValue::try_from(path) {
        Ok(path) => (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// To the sign-in page, and from there to where one wanted to go.
pub(crate) fn to_sign_in(back: Option<&str>, htmx: bool) -> Response {
    let query =
        back.map(|back| url::form_urlencoded::Serializer::new(String::new()).append_pair("back", back).finish());
    let path = query.map_or("/console/sign-in".to_owned(), |query| format!("/console/sign-in?{query}"));
    match HeaderValue::try_from(&path) {
        // htmx would follow a redirect itself and put the sign-in form into the middle of a page.
        Ok(path) if htmx => (StatusCode::OK, [(HX_REDIRECT, path)]).into_response(),
        _ => see_other(&path),
    }
}

/// Whether htmx makes a request.
pub(crate) fn is_htmx(headers: &HeaderMap) -> bool {
    headers.contains_key("hx-request")
}
