//! Who is signed in to the console, and how the very first user comes to be there.

use std::time::Duration;

use crate::store::{NewSession, User};
use crate::{Controller, Error, accounts};

/// How long a session lasts.
pub const LIFETIME: Duration = Duration::from_secs(14 * 24 * 60 * 60);

impl Controller {
    /// Begins a session of a user, and returns the secret that proves it; it is kept nowhere.
    pub async fn open_session(&self, user: &User) -> Result<String, Error> {
        let secret = self.new_secret();
        let created_at = self.clock.now();
        let digest = accounts::digest(&secret);
        let expires_at = created_at.after(LIFETIME);
        self.store.insert_session(NewSession { digest: &digest, user: user.id, created_at, expires_at }).await?;
        Ok(secret)
    }

    /// Who is signed in by this secret.
    pub async fn session_user(&self, secret: &str) -> Result<Option<User>, Error> {
        Ok(self.store.user_of_session(&accounts::digest(secret), self.clock.now()).await?)
    }

    /// Ends a session.
    pub async fn close_session(&self, secret: &str) -> Result<(), Error> {
        Ok(self.store.delete_session(&accounts::digest(secret)).await?)
    }

    /// While nobody was ever added: the secret that lets whoever has it make the first user. Root is told it on the control
    /// socket; a stranger who finds the port before the owner does must not become the owner. It ends with this process.
    pub async fn setup_secret(&self) -> Result<Option<String>, Error> {
        if !self.store.has_no_users().await? {
            return Ok(None);
        }
        let mut secret = self.live.setup.lock();
        Ok(Some(secret.get_or_insert_with(|| self.new_secret()).clone()))
    }

    /// Makes the first user. Of several at once, one succeeds.
    pub async fn create_first_user(&self, secret: &str, email: &str, password: &str) -> Result<User, Error> {
        let Some(expected) = self.setup_secret().await? else {
            return Err(made());
        };
        // As hashes, so that the time to compare them tells nothing.
        if accounts::digest(secret) != accounts::digest(&expected) {
            return Err(Error::Unauthorized("This link is not good. `platform up` prints the one that is."));
        }
        let (user, hash) = self.new_user(email, Some(password)).await?;
        if !self.store.insert_first_user(&user, hash.as_deref()).await? {
            return Err(made());
        }
        Ok(user)
    }
}

fn made() -> Error {
    Error::Conflict("The first user was made already. Sign in.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{PASSWORD, TestController};

    #[tokio::test]
    async fn a_session_ends_by_itself_and_on_demand() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let ada = test.user("ada@example.com").await;
        let (first, second) = (
            controller.open_session(&ada).await.expect("opened"),
            controller.open_session(&ada).await.expect("opened"),
        );
        for secret in [&first, &second] {
            assert_eq!(controller.session_user(secret).await.expect("readable").map(|user| user.id), Some(ada.id));
        }
        controller.close_session(&first).await.expect("closed");
        assert!(controller.session_user(&first).await.expect("readable").is_none(), "signed out");
        assert!(controller.session_user(&second).await.expect("readable").is_some(), "elsewhere still signed in");
        test.clock.advance(LIFETIME);
        assert!(controller.session_user(&second).await.expect("readable").is_none(), "over");
        assert!(controller.authenticate(&second).await.is_err(), "never a token of the API");
    }

    #[tokio::test]
    async fn only_whoever_has_the_secret_makes_the_first_user_and_only_once() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let secret = controller.setup_secret().await.expect("readable").expect("nobody is there");
        let make = |secret: &str, email: &'static str| {
            let secret = secret.to_owned();
            async move { controller.create_first_user(&secret, email, PASSWORD).await }
        };
        assert!(matches!(make("guess", "eve@example.com").await, Err(Error::Unauthorized(_))));
        assert!(matches!(make(&secret, "not an address").await, Err(Error::Invalid(_))));
        let (one, other) = tokio::join!(make(&secret, "ada@example.com"), make(&secret, "bob@example.com"));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        assert!(matches!(make(&secret, "eve@example.com").await, Err(Error::Conflict(_))));
        assert_eq!(controller.setup_secret().await.expect("readable"), None);
    }
}
