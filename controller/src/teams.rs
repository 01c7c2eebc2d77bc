//! Teams: people who own apps together.

use model::{Role, TeamId};

use crate::store::{App, Member, Team, TeamRef};
use crate::{Actor, Controller, Error};

/// Most teams that one user may be in, and most members of one team.
const MAX_TEAMS: usize = 100;
const MAX_MEMBERS: usize = 1000;

impl Controller {
    /// Makes a team; who makes it is its first admin.
    pub async fn create_team(&self, actor: &Actor, name: &str) -> Result<Team, Error> {
        if self.store.teams_of(actor.user.id).await?.len() >= MAX_TEAMS {
            return Err(Error::Invalid(format!("You can be in at most {MAX_TEAMS} teams")));
        }
        let team = TeamRef { id: TeamId::random(&*self.random), name: name.parse()? };
        self.store.insert_team(&team, &actor.user.to_ref(), &self.stamp(actor)).await?;
        self.find_team(actor, name, Role::Admin).await
    }

    /// The team that `reference`, a name or an id, means to somebody who has at least this role in it.
    pub async fn find_team(&self, actor: &Actor, reference: &str, need: Role) -> Result<Team, Error> {
        let team = self.store.find_team(actor.user.id, reference).await?.ok_or(Error::NotFound("team"))?;
        if team.role < need {
            return Err(Error::Forbidden(format!(
                "You have the role {} in the team {}; this needs {need}. Ask one of its admins for it.",
                team.role, team.name
            )));
        }
        Ok(team)
    }

    /// Gives a team another name.
    pub async fn rename_team(&self, actor: &Actor, team: &Team, name: &str) -> Result<Team, Error> {
        let name = name.parse()?;
        self.store.rename_team(team.id, &name, &self.stamp(actor)).await?;
        self.find_team(actor, name.as_str(), Role::Admin).await
    }

    /// Ends a team that owns no app.
    pub async fn delete_team(&self, actor: &Actor, team: &Team) -> Result<(), Error> {
        if self.store.delete_team(&team.to_ref(), &self.stamp(actor)).await? {
            return Ok(());
        }
        let apps = self.store.apps_of_team(team.id).await?;
        if apps.is_empty() {
            return Err(Error::Conflict(format!(
                "Volumes are kept for the team {}. `platform volumes --kept` lists them: adopt or destroy them first.",
                team.name
            )));
        }
        let names: Vec<&str> = apps.iter().map(|app| app.name.as_str()).collect();
        Err(Error::Conflict(format!(
            "The team {} owns apps: {}. Transfer or delete them first.",
            team.name,
            names.join(", ")
        )))
    }

    /// Takes a user into a team, or gives a member another role.
    pub async fn set_member(&self, actor: &Actor, team: &Team, (email, role): (&str, Role)) -> Result<Member, Error> {
        let user = self.find_user(email).await?;
        let known = self.store.members(team.id).await?;
        if known.len() >= MAX_MEMBERS && known.iter().all(|known| known.user.id != user.id) {
            return Err(Error::Invalid(format!("A team can have at most {MAX_MEMBERS} members")));
        }
        if !self.store.set_member(&team.to_ref(), &user, role, &self.stamp(actor)).await? {
            return Err(needs_admin(team));
        }
        self.find_member(team, user.email.as_str()).await
    }

    /// Takes somebody out of a team; everybody may go by themselves.
    pub async fn remove_member(&self, actor: &Actor, team: &Team, reference: &str) -> Result<Member, Error> {
        let gone = self.find_member(team, reference).await?;
        if gone.user.id != actor.user.id {
            self.find_team(actor, team.name.as_str(), Role::Admin).await?;
        }
        if !self.store.remove_member(&team.to_ref(), &gone.user, &self.stamp(actor)).await? {
            return Err(needs_admin(team));
        }
        Ok(gone)
    }

    /// The member that `reference` means: an address, or the id of the user or of the membership.
    pub async fn find_member(&self, team: &Team, reference: &str) -> Result<Member, Error> {
        let email = reference.to_lowercase();
        let is_meant = |known: &Member| {
            known.user.email.as_str() == email || known.id == reference || known.user.id.to_string() == reference
        };
        let known = self.store.members(team.id).await?;
        known.into_iter().find(is_meant).ok_or(Error::NotFound("team member"))
    }

    /// The apps that a team owns.
    pub async fn apps_of_team(&self, team: &Team) -> Result<Vec<App>, Error> {
        Ok(self.store.apps_of_team(team.id).await?)
    }
}

fn needs_admin(team: &Team) -> Error {
    Error::Conflict(format!("The team {} would have no admin. Make somebody else one first.", team.name))
}
