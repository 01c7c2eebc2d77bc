//! One sentence about what a form did, on the page that is shown after it. It travels in a cookie that the page clears.

use axum::http::header::{HeaderValue, SET_COOKIE};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::respond::see_other;

/// Name of the cookie.
pub(crate) const COOKIE: &str = "platform_notice";

/// What to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// Whether something was refused.
    pub(crate) refused: bool,
    /// The sentence.
    pub(crate) text: String,
}

impl Notice {
    /// Something was done.
    pub(crate) fn done(text: impl Into<String>) -> Self {
        Self { refused: false, text: text.into() }
    }

    /// Something was refused.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self { refused: true, text: text.into() }
    }

    /// From the cookie's value; none if it is not ours.
    pub(crate) fn read(value: &str) -> Option<Self> {
        serde_json::from_slice(&hex::decode(value).ok()?).ok()
    }

    /// The page to look at next, which shows this.
    pub(crate) fn then(&self, path: &str) -> Response {
        let mut response = see_other(path);
        let value = serde_json::to_vec(self).map(hex::encode).unwrap_or_default();
        set(&mut response, &format!("{COOKIE}={value}; Path=/console; HttpOnly; SameSite=Lax; Max-Age=60"));
        response
    }
}

/// Clears the cookie with a page that shows the notice.
pub(crate) fn clear(response: &mut Response) {
    set(response, &format!("{COOKIE}=; Path=/console; HttpOnly; SameSite=Lax; Max-Age=0"));
}

fn set(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn travels_and_is_not_made_of_anything_else() {
        let notice = Notice::refused("Name \"é\" is taken; try another\n<b>one</b>");
        let response = notice.then("/console");
        let cookie = response.headers()[SET_COOKIE].to_str().expect("text").to_owned();
        let value = cookie.split(['=', ';']).nth(1).expect("a value");
        assert_eq!(Notice::read(value), Some(notice));
        for bad in ["", "zz", "7b7d", "<script>"] {
            assert_eq!(Notice::read(bad), None, "{bad}");
        }
    }
}
