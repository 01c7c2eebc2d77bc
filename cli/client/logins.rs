//! What the API says to a program that a browser lets in.

use serde::Deserialize;

/// `POST /auth`: where somebody lets this program in.
#[derive(Debug, Deserialize)]
pub(crate) struct BrowserLogin {
    /// Path of the page for the person.
    pub(crate) browser_url: String,
    /// Path at which to wait.
    pub(crate) cli_url: String,
    /// What the page shows too.
    pub(crate) code: String,
    /// What proves there who waits.
    pub(crate) token: String,
}

/// What was decided there.
#[derive(Debug, Deserialize)]
pub(crate) struct LoginDecision {
    /// The new token.
    pub(crate) access_token: Option<String>,
    /// Why there is none.
    pub(crate) error: Option<String>,
}
