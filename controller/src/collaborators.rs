//! Who may work on an app beside its owner, and how an app goes to another one.

use model::{Email, Role};

use crate::store::{App, Collaborator, NewOwner, Offer, OfferState, Place, UserRef};
use crate::{Actor, Controller, Error};

/// Most collaborators of an app.
const MAX_COLLABORATORS: usize = 1000;

impl Controller {
    /// Who may work on an app by their own name, or is invited to.
    pub async fn collaborators(&self, app: &App) -> Result<Vec<Collaborator>, Error> {
        Ok(self.store.collaborators(app.id, self.clock.now()).await?)
    }

    /// Lets somebody work on an app, or gives them another role there. Nobody gives more than they have, nor changes who has
    /// more. Who is no user of the platform yet is invited: the second part of the answer is the link for them.
    pub async fn set_collaborator(
        &self,
        actor: &Actor,
        app: &App,
        (email, role): (&str, Role),
    ) -> Result<(Collaborator, Option<String>), Error> {
        let own = self.check_role(actor, app, Role::Manage).await?;
        let email: Email = email.to_lowercase().parse()?;
        let known = self.collaborators(app).await?;
        match known.iter().find(|known| known.user.email == email) {
            Some(known) if known.is_owner => {
                return Err(Error::Invalid(format!("{email} owns {} and needs no other role", app.name)));
            }
            Some(known) => may_change(own, known)?,
            None if known.len() >= MAX_COLLABORATORS => {
                return Err(Error::Invalid(format!("An app can have at most {MAX_COLLABORATORS} collaborators")));
            }
            None => {}
        }
        if app.team.is_some() && app.owner.email == email {
            let team = "brought the app to its team: make them a member of it";
            return Err(Error::Invalid(format!("{email} {team}")));
        }
        if role > own {
            return Err(Error::Forbidden(format!("You have the role {own} on {}; you cannot give {role}.", app.name)));
        }
        let mut link = None;
        if let Some((user, _)) = self.store.user_with_password(&email).await? {
            self.store.set_collaborator(app.id, &user.to_ref(), role, &self.stamp(actor)).await?;
            self.note(app, actor, &format!("Made {email} a collaborator with the role {role}"));
        } else {
            let place = Place::App(app.id, app.name.clone());
            link = Some(self.invite_to(actor, email.clone(), (place, Some(role))).await?.url);
            self.note(app, actor, &format!("Invited {email} as a collaborator with the role {role}"));
        }
        Ok((self.find_collaborator(app, email.as_str()).await?, link))
    }

    /// Ends somebody's work on an app. Everybody may end their own.
    pub async fn remove_collaborator(&self, actor: &Actor, app: &App, reference: &str) -> Result<Collaborator, Error> {
        let own = self.check_role(actor, app, Role::View).await?;
        let gone = self.find_collaborator(app, reference).await?;
        if gone.is_owner {
            return Err(Error::Invalid(format!(
                "{} owns {}; give it to somebody else first: `platform apps:transfer`",
                gone.user.email, app.name
            )));
        }
        if gone.user.id != actor.user.id {
            self.check_role(actor, app, Role::Manage).await?;
            may_change(own, &gone)?;
        }
        if gone.is_invited {
            self.uninvite(actor, &Place::App(app.id, app.name.clone()), &gone.id).await?;
        } else {
            self.store.remove_collaborator(app.id, &gone.user, &self.stamp(actor)).await?;
        }
        self.note(app, actor, &format!("Removed the collaborator {}", gone.user.email));
        Ok(gone)
    }

    /// The collaborator that `reference` means: an address, or the id of the user or of the access.
    pub async fn find_collaborator(&self, app: &App, reference: &str) -> Result<Collaborator, Error> {
        let email = reference.to_lowercase();
        let is_meant = |known: &Collaborator| {
            known.user.email.as_str() == email || known.id == reference || known.user.id.to_string() == reference
        };
        let known = self.collaborators(app).await?;
        known.into_iter().find(is_meant).ok_or(Error::NotFound("collaborator"))
    }

    /// Gives an app to a team that the actor may bring apps to, or back out of a team to one of its admins.
    pub async fn give_app(&self, actor: &Actor, app: &App, recipient: &str) -> Result<App, Error> {
        self.check_role(actor, app, Role::Admin).await?;
        self.check_shares_no_host(app).await?;
        let owner = if recipient.contains('@') {
            let user = self.find_user(recipient).await?;
            if user.id != actor.user.id {
                return Err(Error::Invalid(
                    "Somebody else must take the app themselves: `platform apps:transfer` offers it".to_owned(),
                ));
            }
            NewOwner::User(user)
        } else {
            let team = self.find_team(actor, recipient, Role::Operate).await?;
            NewOwner::Team(team.id, actor.user.to_ref())
        };
        self.store.set_owner(app, &owner, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Given to {recipient}"));
        self.store.app(app.id).await?.ok_or(Error::NotFound("app"))
    }

    /// Offers an app to a user, who may take it or not.
    pub async fn offer_app(&self, actor: &Actor, app: &App, recipient: &str) -> Result<Offer, Error> {
        self.check_role(actor, app, Role::Admin).await?;
        self.check_shares_no_host(app).await?;
        let recipient = self.find_user(recipient).await?;
        if app.team.is_none() && recipient.id == app.owner.id {
            return Err(Error::Invalid(format!("recipient {} owns the app already", recipient.email)));
        }
        Ok(self.store.insert_offer(app, (&actor.user.to_ref(), &recipient), &self.stamp(actor)).await?)
    }

    /// The offers that a user made or got.
    pub async fn offers(&self, actor: &Actor) -> Result<Vec<Offer>, Error> {
        Ok(self.store.offers(actor.user.id).await?)
    }

    /// The offer that `reference`, its id or the app's name, means to a user who made it or got it; of several, the newest.
    pub async fn find_offer(&self, actor: &Actor, reference: &str) -> Result<Offer, Error> {
        let is_meant = |offer: &Offer| offer.id == reference || offer.app_name.as_str() == reference;
        let offers = self.store.offers(actor.user.id).await?;
        offers.into_iter().rev().find(is_meant).ok_or(Error::NotFound("app transfer"))
    }

    /// Takes an app that was offered, or not; only who got the offer says so, and only while who made it owns the app.
    pub async fn answer_offer(&self, actor: &Actor, offer: &Offer, accepts: bool) -> Result<Offer, Error> {
        if offer.recipient.id != actor.user.id {
            return Err(Error::Forbidden(format!("Only {} can take the app or decline it.", offer.recipient.email)));
        }
        if offer.state != OfferState::Pending {
            return Err(Error::Conflict(format!("The app was {} already.", offer.state)));
        }
        let app = self.store.app(offer.app).await?.ok_or(Error::NotFound("app"))?;
        let giver = self.store.role(offer.owner.id, app.id).await?;
        if accepts && giver != Some(Role::Admin) {
            return Err(Error::Conflict(format!("{} cannot give the app any more.", offer.owner.email)));
        }
        if accepts {
            self.check_shares_no_host(&app).await?;
        }
        let stamp = self.stamp(actor);
        if !self.store.answer_offer(offer, accepts.then_some(&app), &stamp).await? {
            return Err(Error::Conflict("The offer is over.".to_owned()));
        }
        if accepts {
            self.note(&app, actor, &format!("Taken over from {}", offer.owner.email));
        }
        let state = if accepts { OfferState::Accepted } else { OfferState::Declined };
        Ok(Offer { state, updated_at: stamp.now, ..offer.clone() })
    }

    /// Takes an offer back.
    pub async fn withdraw_offer(&self, actor: &Actor, offer: &Offer) -> Result<(), Error> {
        if offer.owner.id != actor.user.id {
            return Err(Error::Forbidden(format!("Only {} can take the offer back.", offer.owner.email)));
        }
        if self.store.answer_offer(offer, None, &self.stamp(actor)).await? {
            Ok(())
        } else {
            Err(Error::Conflict("The offer is over.".to_owned()))
        }
    }

    /// The user of an address, who must be there already.
    pub(crate) async fn find_user(&self, email: &str) -> Result<UserRef, Error> {
        let email: Email = email.to_lowercase().parse()?;
        let found = self.store.user_with_password(&email).await?;
        found.map(|(user, _)| user.to_ref()).ok_or_else(|| {
            Error::Invalid(format!("{email} is no user of this platform; `platform users:invite {email}` lets them in"))
        })
    }
}

fn may_change(own: Role, known: &Collaborator) -> Result<(), Error> {
    if known.role > own {
        let reason = format!("{} has the role {}, which is more than your {own}.", known.user.email, known.role);
        return Err(Error::Forbidden(reason));
    }
    Ok(())
}
