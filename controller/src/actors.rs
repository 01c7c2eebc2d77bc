//! Who does something: what every verb that changes something is told, and what its event remembers.

use std::net::IpAddr;

use model::{KeyId, Role, SessionId, TokenId};
use serde::{Deserialize, Serialize};

use crate::grants::Grant;
use crate::store::{App, Stamp, User, UserRef};
use crate::{Controller, Error};

/// Somebody, and how they came in.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Who.
    pub user: User,
    /// What proved it.
    pub via: Via,
    /// Where it comes from.
    pub origin: Origin,
    /// How much of what the user may do this lets them do.
    pub grant: Grant,
    /// They want it even if the app is locked or frozen; whether they may is asked where it matters.
    pub insists: bool,
}

/// What proved who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A token of the API.
    Token(TokenId),
    /// The password, to get a token.
    Password,
    /// An SSH key.
    Key(KeyId),
    /// A session of the console; those of an earlier version have no id.
    Session(Option<SessionId>),
    /// A link that lets somebody in for the first time.
    Invitation,
    /// What they pushed says it.
    Push,
    /// Whoever is root on the machine needs no more.
    Machine,
}

/// Where a request comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The id that its answer has.
    pub request: Option<String>,
}

/// An actor as an event remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// Who.
    pub user: UserRef,
    /// What proved it, in words.
    pub via: String,
    /// Where it came from.
    pub origin: Origin,
}

impl Actor {
    /// Somebody who may do all that the user may.
    pub fn new(user: User, via: Via, origin: Origin) -> Self {
        Self { user, via, origin, grant: Grant::default(), insists: false }
    }

    /// What an event remembers.
    pub fn by(&self) -> By {
        let via = match self.via {
            Via::Token(id) => format!("token {id}"),
            Via::Password => "password".to_owned(),
            Via::Key(id) => format!("key {id}"),
            Via::Session(_) => "session".to_owned(),
            Via::Invitation => "invitation".to_owned(),
            Via::Push => "push".to_owned(),
            Via::Machine => "machine".to_owned(),
        };
        By { user: self.user.to_ref(), via, origin: self.origin.clone() }
    }
}

impl Controller {
    /// An actor and the present moment, for the store.
    pub(crate) fn stamp(&self, actor: &Actor) -> Stamp {
        Stamp { by: Some(actor.by()), now: self.clock.now(), insists: actor.insists }
    }

    /// Whoever pushed something, for what it asks for.
    pub(crate) async fn pusher(&self, by: &By) -> Result<Actor, Error> {
        let user = self.store.user(by.user.id).await?.ok_or(Error::NotFound("user"))?;
        Ok(Actor::new(user, Via::Push, by.origin.clone()))
    }

    /// The present moment, for what the platform does by itself.
    pub(crate) fn own_stamp(&self) -> Stamp {
        Stamp { by: None, now: self.clock.now(), insists: false }
    }

    /// The app that `reference`, a name or an id, means to somebody who may do with it what `need` may.
    pub async fn find_app(&self, actor: &Actor, reference: &str, need: Role) -> Result<App, Error> {
        let app = self.store.find_app(actor.user.id, reference).await?.ok_or(Error::NotFound("app"))?;
        self.check_role(actor, &app, need).await?;
        Ok(app)
    }

    /// Refuses what somebody may not do with an app that they may look at; returns what they may.
    pub async fn check_role(&self, actor: &Actor, app: &App, need: Role) -> Result<Role, Error> {
        let role = self.store.role(actor.user.id, app.id).await?;
        let role = role.and_then(|role| actor.grant.cap(app, role)).ok_or(Error::NotFound("app"))?;
        if role < need {
            return Err(Error::Forbidden(format!(
                "You have the role {role} on {}; this needs {need}. Ask {} for it.",
                app.name,
                app.owner_name()
            )));
        }
        Ok(role)
    }
}
