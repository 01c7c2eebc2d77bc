//! How people get in: somebody who may invites their address, and passes on a link that lets them choose a password. The
//! platform sends no mail.

use std::time::Duration;

use model::{Email, InvitationId, Role};

use crate::store::{Invitation, Place, Team, User};
use crate::{Actor, Controller, Error, Origin, Via, accounts};

/// How long a link is good.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// An invitation that was just made: the only time that its link is known.
#[derive(Debug)]
pub struct Invited {
    /// What is kept of it.
    pub invitation: Invitation,
    /// Where whoever is invited goes with a browser.
    pub url: String,
}

impl Controller {
    /// Invites an address to the platform alone.
    pub async fn invite(&self, actor: &Actor, email: &str) -> Result<Invited, Error> {
        let email: Email = email.to_lowercase().parse()?;
        if self.store.user_with_password(&email).await?.is_some() {
            return Err(Error::Invalid(format!("{email} is a user of this platform already")));
        }
        self.invite_to(actor, email, (Place::Platform, None)).await
    }

    /// Invites an address to a team; a user of the platform may be who that is.
    pub async fn invite_to_team(
        &self,
        actor: &Actor,
        email: &str,
        (team, role): (&Team, Role),
    ) -> Result<Invited, Error> {
        let email: Email = email.to_lowercase().parse()?;
        if let Some((user, _)) = self.store.user_with_password(&email).await?
            && self.store.find_team(user.id, team.name.as_str()).await?.is_some()
        {
            return Err(Error::Invalid(format!("{email} is in the team {} already", team.name)));
        }
        self.invite_to(actor, email, (Place::Team(team.to_ref()), Some(role))).await
    }

    /// Invites an address to where the actor may let people in.
    pub(crate) async fn invite_to(
        &self,
        actor: &Actor,
        email: Email,
        (place, role): (Place, Option<Role>),
    ) -> Result<Invited, Error> {
        let secret = self.new_secret();
        let stamp = self.stamp(actor);
        let invitation = Invitation {
            id: InvitationId::random(&*self.random),
            email,
            place,
            role,
            invited_by: actor.user.to_ref(),
            expires_at: stamp.now.after(LIFETIME),
            created_at: stamp.now,
            updated_at: stamp.now,
        };
        self.store.insert_invitation(&invitation, &accounts::digest(&secret), &stamp).await?;
        let url = format!("{}/console/invitations/{secret}", self.settings.api_url());
        Ok(Invited { invitation, url })
    }

    /// The invitations to a place that are good.
    pub async fn invitations(&self, place: &Place) -> Result<Vec<Invitation>, Error> {
        Ok(self.store.invitations(place, self.clock.now()).await?)
    }

    /// The invitation of a link.
    pub async fn find_invitation(&self, secret: &str) -> Result<Invitation, Error> {
        let found = self.store.invitation(&accounts::digest(secret), self.clock.now()).await?;
        found.ok_or(Error::NotFound("invitation"))
    }

    /// Whether whoever is invited is a user already, who signs in instead of choosing a password.
    pub async fn is_known(&self, invitation: &Invitation) -> Result<bool, Error> {
        Ok(self.store.user_with_password(&invitation.email).await?.is_some())
    }

    /// Lets a new user in with a password of their own.
    pub async fn accept_invitation(&self, secret: &str, password: &str, origin: &Origin) -> Result<User, Error> {
        let invitation = self.find_invitation(secret).await?;
        if self.is_known(&invitation).await? {
            return Err(Error::Conflict(format!("{} is a user already. Sign in to accept.", invitation.email)));
        }
        let (user, hash) = self.new_user(invitation.email.as_str(), Some(password)).await?;
        let actor = Actor::new(user.clone(), Via::Invitation, origin.clone());
        if !self.store.accept_invitation(&invitation, (&user, hash.as_deref()), &self.stamp(&actor)).await? {
            return Err(Error::NotFound("invitation"));
        }
        Ok(user)
    }

    /// Lets a user into the team or the app that they were invited to.
    pub async fn join(&self, actor: &Actor, secret: &str) -> Result<Invitation, Error> {
        let invitation = self.find_invitation(secret).await?;
        if invitation.email != actor.user.email {
            return Err(Error::Forbidden(format!("This invitation is for {}.", invitation.email)));
        }
        if !self.store.accept_invitation(&invitation, (&actor.user, None), &self.stamp(actor)).await? {
            return Err(Error::NotFound("invitation"));
        }
        Ok(invitation)
    }

    /// Takes back an invitation to a place, named by its id or address.
    pub async fn uninvite(&self, actor: &Actor, place: &Place, reference: &str) -> Result<Invitation, Error> {
        let known = self.invitations(place).await?;
        let is_meant =
            |one: &Invitation| one.id.to_string() == reference || one.email.as_str() == reference.to_lowercase();
        let invitation = known.into_iter().find(is_meant).ok_or(Error::NotFound("invitation"))?;
        if !self.store.delete_invitation(&invitation, &self.stamp(actor)).await? {
            return Err(Error::NotFound("invitation"));
        }
        Ok(invitation)
    }
}
