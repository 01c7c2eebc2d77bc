//! Users, passwords and tokens.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use model::{Email, Random, Timestamp, TokenId, UserId};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::store::{NewToken, Token, User};
use crate::{Actor, Controller, Error, Origin, Via};

/// Shortest password.
pub const MIN_PASSWORD: usize = 8;
/// Longest password, in bytes: hashing more costs time that a stranger could make us spend.
pub const MAX_PASSWORD: usize = 1024;

/// Wrong passwords for one address that are let through within [`ATTEMPTS_WINDOW`].
const ATTEMPTS: usize = 10;
const ATTEMPTS_WINDOW: Duration = Duration::from_secs(10 * 60);
/// Addresses whose failures are remembered at once; the oldest go first.
const ATTEMPTS_MEMORY: usize = 10_000;
/// Passwords hashed at the same time; each takes 19 MiB and a core, and strangers decide how many come.
const HASHES_AT_ONCE: usize = 2;

const WRONG_PASSWORD: Error = Error::Unauthorized("Invalid credentials provided.");

/// A token to make.
#[derive(Debug, Default)]
pub struct TokenRequest {
    /// What it is for; empty means nobody said.
    pub description: String,
    /// How long it is good; `None` is for ever.
    pub lifetime: Option<Duration>,
}

/// A token that was just made: the only time that its text is known.
pub struct IssuedToken {
    /// What is kept of it.
    pub token: Token,
    /// What its owner sends from now on.
    pub text: String,
}

/// Remembers failed logins, in memory only (a restart forgives), and keeps the hashing of passwords within bounds.
#[derive(Debug)]
pub struct LoginLimiter {
    failures: Mutex<VecDeque<(Timestamp, Email)>>,
    hashing: Semaphore,
}

impl Default for LoginLimiter {
    fn default() -> Self {
        Self { failures: Mutex::default(), hashing: Semaphore::new(HASHES_AT_ONCE) }
    }
}

impl Controller {
    /// Adds a user. Without a password they get in by token only. The first one keeps the platform.
    pub async fn create_user(&self, email: &str, password: Option<&str>) -> Result<User, Error> {
        let (mut user, hash) = self.new_user(email, password).await?;
        if self.store.has_no_users().await? {
            user.operator = true;
        }
        self.store.insert_user(&user, hash.as_deref(), &self.own_stamp()).await?;
        Ok(user)
    }

    /// A user to keep, and the hash of the password.
    pub(crate) async fn new_user(&self, email: &str, password: Option<&str>) -> Result<(User, Option<String>), Error> {
        let email: Email =
            email.to_lowercase().parse().map_err(|rule| Error::Invalid(format!("email is not valid: {rule}")))?;
        let hash = match password {
            Some(password) => Some(self.hash_password(password).await?),
            None => None,
        };
        let now = self.clock.now();
        let id = UserId::random(&*self.random);
        Ok((User { id, email, operator: false, last_login_at: None, created_at: now, updated_at: now }, hash))
    }

    /// The user of this address, made if there is none; with a password, theirs from now on.
    pub async fn ensure_user(&self, email: &str, password: Option<&str>) -> Result<User, Error> {
        let known = match email.to_lowercase().parse::<Email>() {
            Ok(email) => self.store.user_with_password(&email).await?,
            Err(_) => None,
        };
        match (known, password) {
            (None, _) => self.create_user(email, password).await,
            (Some((user, _)), None) => Ok(user),
            (Some((user, _)), Some(password)) => {
                self.set_password(&user.email, password).await?;
                Ok(user)
            }
        }
    }

    /// Gives a user another password. Tokens stay good.
    pub async fn set_password(&self, email: &Email, password: &str) -> Result<(), Error> {
        let hash = self.hash_password(password).await?;
        let (user, _) = self.store.user_with_password(email).await?.ok_or(Error::NotFound("user"))?;
        Ok(self.store.set_password(user.id, &hash, &self.own_stamp()).await?)
    }

    /// The user with this address and password. Refuses for a while after too many failures for one address.
    pub async fn check_password(&self, email: &str, password: &str) -> Result<User, Error> {
        let Ok(email) = email.to_lowercase().parse::<Email>() else { return Err(WRONG_PASSWORD) };
        let now = self.clock.now();
        if !self.logins.allows(&email, now) {
            return Err(Error::TooMany("Too many failed logins for this address. Try again in ten minutes."));
        }
        let found = self.store.user_with_password(&email).await?;
        // An unknown address costs the same time as a wrong password, so that nobody learns which addresses exist.
        let hash = found.as_ref().and_then(|(_, hash)| hash.clone()).unwrap_or_else(|| ABSENT_HASH.to_owned());
        // Waiting here is what a flood of logins gets; an error would mean that the semaphore was closed, which nobody does.
        let turn = self.logins.hashing.acquire().await;
        let fits = verify(hash, password.to_owned()).await?;
        drop(turn);
        match found {
            Some((user, _)) if fits => {
                self.store.note_login(user.id, now).await?;
                Ok(user)
            }
            _ => {
                self.logins.note_failure(email, now);
                Err(WRONG_PASSWORD)
            }
        }
    }

    /// Makes a token for an actor's user.
    pub async fn issue_token(&self, actor: &Actor, request: TokenRequest) -> Result<IssuedToken, Error> {
        let stamp = self.stamp(actor);
        let now = stamp.now;
        self.store.delete_expired_tokens(now).await?;
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes);
        let text = hex::encode(bytes);
        let token = Token {
            id: TokenId::random(&*self.random),
            user: actor.user.id,
            description: request.description,
            expires_at: request.lifetime.map(|lifetime| now.after(lifetime)),
            created_at: now,
        };
        self.store.insert_token(NewToken { token: &token, digest: &digest(&text) }, &stamp).await?;
        Ok(IssuedToken { token, text })
    }

    /// Who sends this token.
    pub async fn authenticate(&self, token: &str, origin: Origin) -> Result<Actor, Error> {
        let found = self.store.user_of_token(&digest(token), self.clock.now()).await?;
        let (user, token) = found.ok_or(WRONG_PASSWORD)?;
        Ok(Actor { user, via: Via::Token(token), origin })
    }

    async fn hash_password(&self, password: &str) -> Result<String, Error> {
        if password.chars().count() < MIN_PASSWORD || password.len() > MAX_PASSWORD {
            let rule =
                format!("password must have at least {MIN_PASSWORD} characters and at most {MAX_PASSWORD} bytes");
            return Err(Error::Invalid(rule));
        }
        hash(&*self.random, password.to_owned()).await
    }
}

impl LoginLimiter {
    fn allows(&self, email: &Email, now: Timestamp) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        while failures.front().is_some_and(|(time, _)| now.since(*time) > ATTEMPTS_WINDOW) {
            failures.pop_front();
        }
        failures.iter().filter(|(_, failed)| failed == email).count() < ATTEMPTS
    }

    fn note_failure(&self, email: Email, now: Timestamp) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() == ATTEMPTS_MEMORY {
            failures.pop_front();
        }
        failures.push_back((now, email));
    }
}

/// What is kept of a token. It has 256 random bits, so that a plain hash cannot be guessed back, and the look-up by hash
/// gives no timing to compare.
pub(crate) fn digest(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

/// Hash of a password that nobody has.
const ABSENT_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

/// Hashes on a thread of its own: it takes tens of milliseconds of computing by design.
async fn hash(random: &dyn Random, password: String) -> Result<String, Error> {
    let mut salt = [0; 16];
    random.fill(&mut salt);
    let hashed = tokio::task::spawn_blocking(move || {
        let salt = SaltString::encode_b64(&salt)?;
        Argon2::default().hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string())
    });
    joined(hashed.await)
}

async fn verify(hash: String, password: String) -> Result<bool, Error> {
    if password.len() > MAX_PASSWORD {
        return Ok(false);
    }
    let verified = tokio::task::spawn_blocking(move || {
        let hash = PasswordHash::new(&hash)?;
        match Argon2::default().verify_password(password.as_bytes(), &hash) {
            Err(argon2::password_hash::Error::Password) => Ok(false),
            result => result.map(|()| true),
        }
    });
    joined(verified.await)
}

fn joined<T>(result: Result<argon2::password_hash::Result<T>, tokio::task::JoinError>) -> Result<T, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::System { action: "hash a password", source };
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(error.to_string().into())),
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{PASSWORD, TestController};

    #[tokio::test]
    async fn a_password_lets_its_user_in_and_a_token_is_shown_once() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let user = test.user("Ada@Example.com").await;
        assert_eq!(user.email.as_str(), "ada@example.com");
        assert_eq!(controller.check_password("ADA@example.com", PASSWORD).await.expect("let in").id, user.id);

        let issued = controller.issue_token(&test.actor(&user), TokenRequest::default()).await.expect("a token");
        let session = controller.authenticate(&issued.text, Origin::default()).await.expect("good");
        assert_eq!((session.user.id, session.via), (user.id, Via::Token(issued.token.id)));
        assert!(matches!(controller.authenticate("guess", Origin::default()).await, Err(Error::Unauthorized(_))));
        for bad in ["short", &"x".repeat(MAX_PASSWORD + 1)] {
            assert!(matches!(controller.create_user("b@example.com", Some(bad)).await, Err(Error::Invalid(_))));
        }
        assert!(matches!(controller.create_user("ada@example.com", None).await, Err(Error::Invalid(_))), "taken");
    }

    #[tokio::test]
    async fn a_user_without_a_password_gets_in_by_token_only() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let user = controller.create_user("ci@example.com", None).await.expect("a user");
        for guess in ["", "password", "unknown"] {
            assert!(matches!(controller.check_password("ci@example.com", guess).await, Err(Error::Unauthorized(_))));
        }
        let issued = controller.issue_token(&test.actor(&user), TokenRequest::default()).await.expect("a token");
        controller.authenticate(&issued.text, Origin::default()).await.expect("let in");
    }

    #[tokio::test]
    async fn guessing_is_stopped_for_one_address_and_only_for_a_while() {
        let test = TestController::new().await;
        let controller = &test.controller;
        test.user("ada@example.com").await;
        test.user("bob@example.com").await;
        for _ in 0..ATTEMPTS {
            assert!(matches!(controller.check_password("ada@example.com", "wrong").await, Err(Error::Unauthorized(_))));
        }
        assert!(matches!(controller.check_password("ada@example.com", PASSWORD).await, Err(Error::TooMany(_))));
        controller.check_password("bob@example.com", PASSWORD).await.expect("others are let in");
        test.clock.advance(ATTEMPTS_WINDOW + Duration::from_secs(1));
        controller.check_password("ada@example.com", PASSWORD).await.expect("let in again");
    }
}
