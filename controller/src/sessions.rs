//! Who is signed in to the console, and how the very first user comes to be there.

use std::time::Duration;

use model::SessionId;

use crate::store::{KnownSession, NewSession, User};
use crate::{Actor, Controller, Error, Origin, Via, accounts};

/// How long a session lasts.
pub const LIFETIME: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Longest name of a browser that is kept, in characters.
const MAX_AGENT: usize = 255;

impl Controller {
    /// Begins a session of a user, and returns the secret that proves it; it is kept nowhere.
    /// `agent` is the browser, in its own words.
    pub async fn open_session(&self, user: &User, origin: Origin, agent: Option<&str>) -> Result<String, Error> {
        let agent = agent.map(|agent| agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect::<String>());
        let agent = agent.as_deref();
        let secret = self.new_secret();
        let id = SessionId::random(&*self.random);
        let actor = Actor::new(user.clone(), Via::Session(Some(id)), origin);
        let stamp = self.stamp(&actor);
        let digest = accounts::digest(&secret);
        let expires_at = stamp.now.after(LIFETIME);
        self.store.insert_session(NewSession { digest: &digest, user: user.id, expires_at, id, agent }, &stamp).await?;
        Ok(secret)
    }

    /// Who is signed in by this secret.
    pub async fn session_actor(&self, secret: &str, origin: Origin) -> Result<Option<Actor>, Error> {
        let found = self.store.user_of_session(&accounts::digest(secret), self.clock.now()).await?;
        Ok(found.map(|(user, id)| Actor::new(user, Via::Session(id), origin)))
    }

    /// The browsers that are signed in as a user.
    pub async fn sessions(&self, actor: &Actor) -> Result<Vec<KnownSession>, Error> {
        Ok(self.store.sessions(actor.user.id, self.clock.now()).await?)
    }

    /// Ends one of the sessions of a user.
    pub async fn end_session(&self, actor: &Actor, id: SessionId) -> Result<KnownSession, Error> {
        let ended = self.store.end_session(actor.user.id, id, &self.stamp(actor)).await?;
        ended.ok_or(Error::NotFound("session"))
    }

    /// Ends a session.
    pub async fn close_session(&self, actor: &Actor, secret: &str) -> Result<(), Error> {
        Ok(self.store.delete_session(actor.user.id, &accounts::digest(secret), &self.stamp(actor)).await?)
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
        if !self.store.insert_first_user(&user, hash.as_deref(), &self.own_stamp()).await? {
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
            controller.open_session(&ada, Origin::default(), None).await.expect("opened"),
            controller.open_session(&ada, Origin::default(), None).await.expect("opened"),
        );
        for secret in [&first, &second] {
            assert_eq!(
                controller.session_actor(secret, Origin::default()).await.expect("readable").map(|actor| actor.user.id),
                Some(ada.id)
            );
        }
        controller.close_session(&test.actor(&ada), &first).await.expect("closed");
        assert!(controller.session_actor(&first, Origin::default()).await.expect("readable").is_none(), "signed out");
        assert!(
            controller.session_actor(&second, Origin::default()).await.expect("readable").is_some(),
            "elsewhere still signed in"
        );
        test.clock.advance(LIFETIME);
        assert!(controller.session_actor(&second, Origin::default()).await.expect("readable").is_none(), "over");
        assert!(controller.authenticate(&second, Origin::default()).await.is_err(), "never a token of the API");
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
