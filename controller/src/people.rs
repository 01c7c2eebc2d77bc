//! Accounts: what people do with their own, and what whoever keeps the platform does with those of others.

use model::UserId;

use crate::store::User;
use crate::{Actor, Controller, Error, Via};

/// Longest name, in characters.
const MAX_NAME: usize = 100;

impl Controller {
    /// Everybody who has an account, by address; for operators.
    pub async fn users(&self) -> Result<Vec<User>, Error> {
        Ok(self.store.users().await?)
    }

    /// The account that `reference`, an address or an id, means; for operators.
    pub async fn user(&self, reference: &str) -> Result<User, Error> {
        let reference = reference.to_lowercase();
        let is_meant = |user: &User| user.email.as_str() == reference || user.id.to_string() == reference;
        self.store.users().await?.into_iter().find(is_meant).ok_or(Error::NotFound("user"))
    }

    /// Keeps somebody out, at once, or lets them in again. Their apps go on.
    pub async fn suspend(&self, actor: &Actor, user: &User, suspended: bool) -> Result<User, Error> {
        if user.id == actor.user.id {
            return Err(Error::Conflict("You cannot suspend yourself.".to_owned()));
        }
        self.store.set_suspended(user.id, suspended, &self.stamp(actor)).await?;
        self.user(user.email.as_str()).await
    }

    /// Lets somebody keep the platform, or no longer.
    pub async fn set_operator(&self, actor: &Actor, user: &User, operator: bool) -> Result<User, Error> {
        if !operator && self.is_last_operator(user.id).await? {
            return Err(last_operator());
        }
        self.store.set_operator(user.id, operator, &self.stamp(actor)).await?;
        self.user(user.email.as_str()).await
    }

    /// Says what somebody is called.
    pub async fn set_name(&self, actor: &Actor, name: &str) -> Result<(), Error> {
        if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(Error::Invalid(format!("name can have at most {MAX_NAME} characters, all of them printable")));
        }
        Ok(self.store.set_name(actor.user.id, name, &self.stamp(actor)).await?)
    }

    /// Gives oneself another password, by the one so far. Every session but this one ends; tokens stay good.
    pub async fn change_password(&self, actor: &Actor, current: &str, new: &str) -> Result<(), Error> {
        let user = self.check_password(actor.user.email.as_str(), current, &actor.origin).await?;
        let hash = self.hash_password(new).await?;
        let stamp = self.stamp(actor);
        self.store.set_password(user.id, &hash, &stamp).await?;
        let keep = match actor.via {
            Via::Session(id) => id,
            _ => None,
        };
        Ok(self.store.end_other_sessions(user.id, keep, &stamp).await?)
    }

    /// Checks the password of whoever is about to do something that a stolen token must not be enough for. Who has none is
    /// not asked.
    pub async fn confirm_password(&self, actor: &Actor, password: Option<&str>) -> Result<(), Error> {
        let has_password =
            self.store.user_with_password(&actor.user.email).await?.is_some_and(|(_, hash)| hash.is_some());
        if !has_password {
            return Ok(());
        }
        let password = password.ok_or_else(|| Error::Invalid("password is missing".to_owned()))?;
        self.check_password(actor.user.email.as_str(), password, &actor.origin).await.map(drop)
    }

    /// Removes an account: its tokens, keys and sessions are good no longer. Refused while apps or teams would be nobody's.
    pub async fn delete_account(&self, actor: &Actor, user: &User) -> Result<(), Error> {
        let apps = self.store.apps_owned_by(user.id).await?;
        if !apps.is_empty() {
            let names: Vec<&str> = apps.iter().map(|app| app.name.as_str()).collect();
            return Err(Error::Conflict(format!(
                "{} owns apps: {}. Transfer or destroy them first.",
                user.email,
                names.join(", ")
            )));
        }
        let kept = self.store.kept_volumes(user.id).await?.into_iter().filter(|volume| volume.team.is_none()).count();
        if kept > 0 {
            return Err(Error::Conflict(format!(
                "{kept} volumes are kept for {}. `platform volumes --kept` lists them: adopt or destroy them first.",
                user.email
            )));
        }
        let teams = self.store.teams_of_only_admin(user.id).await?;
        if !teams.is_empty() {
            return Err(Error::Conflict(format!(
                "{} is the only admin of teams: {}. Make somebody else one, or end them first.",
                user.email,
                teams.join(", ")
            )));
        }
        if self.is_last_operator(user.id).await? {
            return Err(last_operator());
        }
        Ok(self.store.delete_user(user, &self.stamp(actor)).await?)
    }

    async fn is_last_operator(&self, user: UserId) -> Result<bool, Error> {
        let operators: Vec<User> = self.store.users().await?.into_iter().filter(|user| user.operator).collect();
        Ok(operators.iter().all(|operator| operator.id == user) && !operators.is_empty())
    }
}

fn last_operator() -> Error {
    Error::Conflict("Nobody else keeps this platform. Make somebody else an operator first.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::TokenRequest;
    use crate::testing::{PASSWORD, TestController};
    use crate::{Origin, Via};

    #[tokio::test]
    async fn an_account_goes_once_nothing_is_left_that_would_be_nobodys() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let (root, ada) = (test.somebody("root@example.com").await, test.somebody("ada@example.com").await);
        let app = test.app(&ada.user, "keep-me").await;
        controller.create_team(&ada, "ours").await.expect("a team");
        let token = controller.issue_token(&ada, TokenRequest::default()).await.expect("a token");
        let refusal = controller.delete_account(&ada, &ada.user).await.expect_err("owns an app").to_string();
        assert!(refusal.contains("keep-me"), "{refusal}");
        controller.give_app(&ada, &app, "ours").await.expect("given");
        let refusal = controller.delete_account(&ada, &ada.user).await.expect_err("the only admin").to_string();
        assert!(refusal.contains("ours"), "{refusal}");
        let team = controller.find_team(&ada, "ours", model::Role::Admin).await.expect("there");
        controller.set_member(&ada, &team, ("root@example.com", model::Role::Admin)).await.expect("an admin");
        let session = controller.open_session(&ada.user, Origin::default(), None).await.expect("signed in");

        controller.delete_account(&ada, &ada.user).await.expect("gone");
        assert!(controller.authenticate(&token.text, Origin::default()).await.is_err());
        assert!(controller.session_actor(&session, Origin::default()).await.expect("readable").is_none());
        assert!(controller.sign_in(("ada@example.com", PASSWORD), None, &Origin::default()).await.is_err());
        assert!(controller.user("ada@example.com").await.is_err());
        controller.find_app(&root, "keep-me", model::Role::Admin).await.expect("the team has it");
        assert!(controller.delete_account(&root, &root.user).await.is_err(), "the last operator");
        controller.create_user("ada@example.com", None).await.expect("the address is free again");
    }

    #[tokio::test]
    async fn who_is_suspended_is_out_at_once_until_let_in_again() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let (root, ada) = (test.somebody("root@example.com").await, test.somebody("ada@example.com").await);
        assert!(controller.user("root@example.com").await.expect("there").operator, "the first user");
        let token = controller.issue_token(&ada, TokenRequest::default()).await.expect("a token");
        controller.suspend(&root, &ada.user, true).await.expect("suspended");
        assert!(controller.authenticate(&token.text, Origin::default()).await.is_err());
        let refused = controller.sign_in(("ada@example.com", PASSWORD), None, &Origin::default()).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
        controller.suspend(&root, &ada.user, false).await.expect("let in");
        let back = controller.authenticate(&token.text, Origin::default()).await.expect("good again");
        assert!(matches!(back.via, Via::Token(_)));
        assert!(controller.suspend(&root, &root.user, true).await.is_err(), "not oneself");
    }

    #[tokio::test]
    async fn another_password_ends_the_other_sessions() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let ada = test.user("ada@example.com").await;
        let open = async || controller.open_session(&ada, Origin::default(), None).await.expect("signed in");
        let (here, elsewhere) = (open().await, open().await);
        let actor = controller.session_actor(&here, Origin::default()).await.expect("readable").expect("signed in");
        assert!(controller.change_password(&actor, "wrong", "another password").await.is_err());
        controller.change_password(&actor, PASSWORD, "another password").await.expect("changed");
        let goes_on =
            async |secret: &str| controller.session_actor(secret, Origin::default()).await.expect("readable").is_some();
        assert!(goes_on(&here).await && !goes_on(&elsewhere).await);
        controller.sign_in(("ada@example.com", "another password"), None, &Origin::default()).await.expect("let in");
    }
}
