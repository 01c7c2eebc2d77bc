//! Users, passwords and tokens.

use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use model::{Email, Random, TokenId, UserId};
use sha2::{Digest, Sha256};

use crate::grants::Grant;
use crate::store::{NewToken, Token, User};
use crate::{Actor, Controller, Error, Origin, Via};

/// Shortest password.
pub const MIN_PASSWORD: usize = 8;
/// Longest password, in bytes: hashing more costs time that a stranger could make us spend.
pub const MAX_PASSWORD: usize = 1024;

/// Longest description of a token, in bytes.
const MAX_DESCRIPTION: usize = 1024;

/// How often the use of a token is written down.
const USE_NOTED_EVERY: Duration = Duration::from_secs(60);

const WRONG_PASSWORD: Error = Error::Unauthorized("Invalid credentials provided.");

/// A token to make.
#[derive(Debug, Default)]
pub struct TokenRequest {
    /// What it is for; empty means nobody said.
    pub description: String,
    /// How long it is good; `None` is for ever.
    pub lifetime: Option<Duration>,
    /// How much of what its user may do it lets do.
    pub grant: Grant,
}

/// A token that was just made: the only time that its text is known.
pub struct IssuedToken {
    /// What is kept of it.
    pub token: Token,
    /// What its owner sends from now on.
    pub text: String,
}

impl Controller {
    /// Adds a user. Without a password they get in by token only. The first one keeps the platform.
    pub async fn create_user(&self, email: &str, password: Option<&str>) -> Result<User, Error> {
        let (user, hash) = self.new_user(email, password).await?;
        Ok(self.store.insert_user(user, hash.as_deref(), &self.own_stamp()).await?)
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
        Ok((User::new(id, email, now), hash))
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

    /// The user with this address and password. Who has a second factor is not let in by this alone.
    pub(crate) async fn check_password(&self, email: &str, password: &str, origin: &Origin) -> Result<User, Error> {
        let Ok(email) = email.to_lowercase().parse::<Email>() else { return Err(WRONG_PASSWORD) };
        let now = self.clock.now();
        self.logins.attempt(&email, origin, now)?;
        let found = self.store.user_with_password(&email).await?;
        // An unknown address costs the same time as a wrong password, so that nobody learns which addresses exist.
        let hash = found.as_ref().and_then(|(_, hash)| hash.clone()).unwrap_or_else(|| ABSENT_HASH.to_owned());
        // Waiting here is what a flood of logins gets; an error would mean that the semaphore was closed, which nobody does.
        let turn = self.logins.hashing.acquire().await;
        let fits = verify(hash, password.to_owned()).await?;
        drop(turn);
        let (user, _) = found.filter(|_| fits).ok_or(WRONG_PASSWORD)?;
        if user.suspended_at.is_some() {
            return Err(Error::Forbidden("This account is suspended. Ask who keeps the platform.".to_owned()));
        }
        self.logins.forgive(&email, origin, now);
        Ok(user)
    }

    /// Makes a token for an actor's user.
    pub async fn issue_token(&self, actor: &Actor, request: TokenRequest) -> Result<IssuedToken, Error> {
        check_description(&request.description)?;
        let stamp = self.stamp(actor);
        let now = stamp.now;
        let text = self.new_token();
        let token = Token {
            id: TokenId::random(&*self.random),
            user: actor.user.id,
            description: request.description,
            grant: request.grant,
            app_name: None,
            expires_at: request.lifetime.map(|lifetime| now.after(lifetime)),
            last_used_at: None,
            created_at: now,
            updated_at: now,
        };
        self.store.insert_token(NewToken { token: &token, digest: &digest(&text) }, &stamp).await?;
        Ok(IssuedToken { token: self.find_token(&token).await?, text })
    }

    /// Says what a token is for.
    pub async fn describe_token(&self, actor: &Actor, token: &Token, description: &str) -> Result<Token, Error> {
        check_description(description)?;
        self.store.update_token(token, (Some(description), None), &self.stamp(actor)).await?;
        self.find_token(token).await
    }

    /// Makes a token anew: the old text is no longer good.
    pub async fn regenerate_token(&self, actor: &Actor, token: &Token) -> Result<IssuedToken, Error> {
        let text = self.new_token();
        self.store.update_token(token, (None, Some(&digest(&text))), &self.stamp(actor)).await?;
        Ok(IssuedToken { token: self.find_token(token).await?, text })
    }

    /// Forgets a token.
    pub async fn revoke_token(&self, actor: &Actor, token: TokenId) -> Result<Token, Error> {
        let gone = self.store.delete_token(actor.user.id, token, &self.stamp(actor)).await?;
        gone.ok_or(Error::NotFound("authorization"))
    }

    /// Who sends this token.
    pub async fn authenticate(&self, token: &str, origin: Origin) -> Result<Actor, Error> {
        let now = self.clock.now();
        let bearer = self.store.bearer(&digest(token), now).await?.ok_or(WRONG_PASSWORD)?;
        if bearer.last_used_at.is_none_or(|last| now.since(last) >= USE_NOTED_EVERY) {
            // Nobody waits for this, and it is no loss if it fails.
            let store = self.store.clone();
            tokio::spawn(async move { store.note_token_use(bearer.token, now).await });
        }
        Ok(Actor { grant: bearer.grant, ..Actor::new(bearer.user, Via::Token(bearer.token), origin) })
    }

    async fn find_token(&self, token: &Token) -> Result<Token, Error> {
        let known = self.store.tokens(token.user, token.created_at).await?;
        known.into_iter().find(|known| known.id == token.id).ok_or(Error::NotFound("authorization"))
    }

    /// 256 bits in hex.
    fn new_token(&self) -> String {
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes);
        hex::encode(bytes)
    }

    pub(crate) async fn hash_password(&self, password: &str) -> Result<String, Error> {
        if password.chars().count() < MIN_PASSWORD || password.len() > MAX_PASSWORD {
            let rule =
                format!("password must have at least {MIN_PASSWORD} characters and at most {MAX_PASSWORD} bytes");
            return Err(Error::Invalid(rule));
        }
        hash(&*self.random, password.to_owned()).await
    }
}

fn check_description(description: &str) -> Result<(), Error> {
    if description.len() > MAX_DESCRIPTION {
        return Err(Error::Invalid(format!("description can have at most {MAX_DESCRIPTION} bytes")));
    }
    Ok(())
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
pub(crate) async fn hash(random: &dyn Random, password: String) -> Result<String, Error> {
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
        assert_eq!(
            controller.sign_in(("ADA@example.com", PASSWORD), None, &Origin::default()).await.expect("let in").id,
            user.id
        );

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
            assert!(matches!(
                controller.sign_in(("ci@example.com", guess), None, &Origin::default()).await,
                Err(Error::Unauthorized(_))
            ));
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
        let sign_in =
            async |email: &str, password: &str| controller.sign_in((email, password), None, &Origin::default()).await;
        let mut wait = None;
        while wait.is_none() {
            match sign_in("ada@example.com", "wrong").await {
                Err(Error::TooMany { retry_after, .. }) => wait = Some(retry_after),
                refused => assert!(matches!(refused, Err(Error::Unauthorized(_))), "{refused:?}"),
            }
        }
        assert!(matches!(sign_in("ada@example.com", PASSWORD).await, Err(Error::TooMany { .. })));
        sign_in("bob@example.com", PASSWORD).await.expect("others are let in");
        test.clock.advance(wait.expect("stopped"));
        sign_in("ada@example.com", PASSWORD).await.expect("let in again");
    }
}
