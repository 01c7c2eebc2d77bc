//! The cookie by which a client comes back to the instance that answered it first. Heroku's name for it.

use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use sha2::{Digest, Sha256};

const NAME: &str = "heroku-session-affinity";
/// Seconds that a browser keeps it: a day.
const KEPT: u32 = 86_400;

/// What the cookie says of an instance: nothing that leads back to it, and the same from every router.
pub(crate) fn token(instance: &str) -> String {
    let digest = Sha256::new().chain_update("affinity of ").chain_update(instance).finalize();
    digest.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        use std::fmt::Write;
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a client's cookie says.
pub(super) fn read(headers: &HeaderMap) -> Option<String> {
    cookie(headers, NAME).map(str::to_owned)
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// Apps that share a host each have their own, by its path.
pub(super) fn write(headers: &mut HeaderMap, (token, path): (&str, &str), is_secure: bool) {
    let secure = if is_secure { "; Secure" } else { "" };
    let text = format!("{NAME}={token}; Path={path}; Max-Age={KEPT}; HttpOnly; SameSite=Lax{secure}");
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.append(SET_COOKIE, value);
    }
}
