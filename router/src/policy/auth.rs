//! Basic authentication (RFC 7617). A password costs tens of milliseconds to check, by design: who was let in is remembered, and few
//! are checked at once.

use std::collections::HashSet;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use model::Credential;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::error_page::{self, Wants};
use crate::policy::lock::Lock;

/// Most that are remembered.
const REMEMBERED: usize = 4096;
/// How many are checked at once, of all apps.
static CHECKED_AT_ONCE: Semaphore = Semaphore::const_new(2);
/// How long one waits for that.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Guard {
    credentials: Vec<Credential>,
    /// Digests of what was right.
    known: Lock<HashSet<[u8; 32]>>,
}

impl Guard {
    pub(super) fn new(credentials: Vec<Credential>) -> Self {
        Self { credentials, known: Lock::default() }
    }

    /// The answer for who is not let in.
    pub(super) async fn check(&self, headers: &HeaderMap, wants: Wants) -> Result<(), Response<Bytes>> {
        let Some((user, password)) = headers.get(AUTHORIZATION).and_then(read) else { return Err(ask(wants)) };
        let digest: [u8; 32] = Sha256::digest(format!("{user}:{password}")).into();
        if self.known.lock().contains(&digest) {
            return Ok(());
        }
        let Ok(Ok(_turn)) = tokio::time::timeout(PATIENCE, CHECKED_AT_ONCE.acquire()).await else {
            let reason = "Too many passwords are being checked. Please try again in a moment.";
            let mut page = error_page::refused(StatusCode::SERVICE_UNAVAILABLE, reason, wants);
            page.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return Err(page);
        };
        // Somebody whom nobody knows takes as long as somebody with a wrong password.
        let known = self.credentials.iter().find(|credential| credential.user == user);
        let Some(credential) = known.or(self.credentials.first()).cloned() else { return Err(ask(wants)) };
        let is_right = tokio::task::spawn_blocking(move || {
            let hash = PasswordHash::new(&credential.hash);
            hash.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        });
        if !is_right.await.unwrap_or(false) || known.is_none() {
            return Err(ask(wants));
        }
        let mut remembered = self.known.lock();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(digest);
        Ok(())
    }
}

fn read(header: &HeaderValue) -> Option<(String, String)> {
    let (scheme, rest) = header.to_str().ok()?.split_once(' ')?;
    let text = String::from_utf8(BASE64.decode(rest.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| (user.to_owned(), password.to_owned()))
}

fn ask(wants: Wants) -> Response<Bytes> {
    let reason = "This application asks for a name and a password.";
    let mut page = error_page::refused(StatusCode::UNAUTHORIZED, reason, wants);
    let challenge = HeaderValue::from_static("Basic realm=\"app\", charset=\"UTF-8\"");
    page.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    page
}
