use model::{AppId, AppName, Email, InvitationId, Role, TeamId, TeamName, Timestamp};
use serde_json::json;
use sqlx::FromRow;
use sqlx::any::AnyRow;

use super::collaborators::put_collaborator;
use super::teams::{lock, put_member};
use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, TeamRef, User, UserRef, row};

/// Somebody who may come in by a link.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// Whom it is for.
    pub email: Email,
    /// Where to.
    pub place: Place,
    /// What they may do there; none on the platform.
    pub role: Option<Role>,
    /// Who invited them.
    pub invited_by: UserRef,
    /// No longer good from then on.
    pub expires_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its link was last changed.
    pub updated_at: Timestamp,
}

/// Where an invitation lets somebody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// To the platform alone.
    Platform,
    /// To a team.
    Team(TeamRef),
    /// To one app, as its collaborator.
    App(AppId, AppName),
}

impl Place {
    /// The two columns that say it.
    fn columns(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::Platform => (None, None),
            Self::Team(team) => (Some(team.id.to_string()), None),
            Self::App(id, _) => (None, Some(id.to_string())),
        }
    }
}

impl<'r> FromRow<'r, AnyRow> for Invitation {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let team: Option<TeamId> = row::optional_text(row, "team_id")?;
        let name: Option<TeamName> = row::optional_text(row, "team_name")?;
        let team = team.zip(name).map(|(id, name)| Place::Team(TeamRef { id, name }));
        let app: Option<AppId> = row::optional_text(row, "app_id")?;
        let name: Option<AppName> = row::optional_text(row, "app_name")?;
        let app = app.zip(name).map(|(id, name)| Place::App(id, name));
        Ok(Self {
            id: row::text(row, "id")?,
            email: row::text(row, "email")?,
            place: team.or(app).unwrap_or(Place::Platform),
            role: row::optional_text(row, "role")?,
            invited_by: UserRef { id: row::text(row, "invited_by")?, email: row::text(row, "inviter_email")? },
            expires_at: row::time(row, "expires_at")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

const SELECT: &str = "SELECT i.id, i.email, i.team_id, t.name AS team_name, i.app_id, a.name AS app_name, i.role, i.invited_by, u.email AS inviter_email, \
     i.expires_at, i.created_at, i.updated_at FROM invitations i JOIN users u ON u.id = i.invited_by \
     LEFT JOIN teams t ON t.id = i.team_id LEFT JOIN apps a ON a.id = i.app_id";

/// The condition that an invitation is to the team `$1`, the app `$2`, or, if both are null, to the platform.
const TO: &str = "COALESCE(i.team_id, '') = COALESCE($1, '') AND COALESCE(i.app_id, '') = COALESCE($2, '')";

impl Invitation {
    fn event(&self, action: Action) -> NewEvent {
        let (team, app) = match &self.place {
            Place::Platform => (None, None),
            Place::Team(team) => (Some(&team.name), None),
            Place::App(id, _) => (None, Some(*id)),
        };
        let data = json!({ "email": self.email, "team": team, "role": self.role.map(|role| role.to_string()) });
        NewEvent { app, resource: Resource::Invitation, id: self.id.to_string(), action, data }
    }
}

impl Store {
    /// Keeps an invitation, in place of those that the same person had to the same place.
    pub async fn insert_invitation(&self, new: &Invitation, digest: &str, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let (team, app) = new.place.columns();
        let sql = format!("DELETE FROM invitations AS i WHERE i.expires_at <= $3 OR (i.email = $4 AND {TO})");
        sqlx::query(&sql)
            .bind(team.clone())
            .bind(app.clone())
            .bind(stamp.now.as_millis())
            .bind(new.email.as_str())
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO invitations \
             (id, digest, email, team_id, app_id, role, invited_by, expires_at, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
        )
        .bind(new.id.to_string())
        .bind(digest)
        .bind(new.email.as_str())
        .bind(team)
        .bind(app)
        .bind(new.role.map(|role| role.to_string()))
        .bind(new.invited_by.id.to_string())
        .bind(new.expires_at.as_millis())
        .bind(new.created_at.as_millis())
        .execute(&mut *tx)
        .await?;
        tx.record(new.event(Action::Create));
        tx.commit().await
    }

    /// The invitation whose link has this digest, if it is good at `now`.
    pub async fn invitation(&self, digest: &str, now: Timestamp) -> Result<Option<Invitation>, StoreError> {
        let sql = format!("{SELECT} WHERE i.digest = $1 AND i.expires_at > $2");
        Ok(sqlx::query_as(&sql).bind(digest).bind(now.as_millis()).fetch_optional(&self.pool).await?)
    }

    /// The invitations to a place that are good at `now`; the oldest first.
    pub async fn invitations(&self, place: &Place, now: Timestamp) -> Result<Vec<Invitation>, StoreError> {
        let sql = format!("{SELECT} WHERE {TO} AND i.expires_at > $3 ORDER BY i.created_at, i.id");
        let (team, app) = place.columns();
        Ok(sqlx::query_as(&sql).bind(team).bind(app).bind(now.as_millis()).fetch_all(&self.pool).await?)
    }

    /// Takes an invitation back; whether it was there.
    pub async fn delete_invitation(&self, invitation: &Invitation, stamp: &Stamp) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let gone = sqlx::query("DELETE FROM invitations WHERE id = $1")
            .bind(invitation.id.to_string())
            .execute(&mut *tx)
            .await?;
        if gone.rows_affected() == 0 {
            return Ok(false);
        }
        tx.record(invitation.event(Action::Destroy));
        tx.commit().await?;
        Ok(true)
    }

    /// Lets in who was invited, once: a new user with the hash of a password, or one who is there already. False if the
    /// invitation was used before, or taken back.
    pub async fn accept_invitation(
        &self,
        invitation: &Invitation,
        (user, new): (&User, Option<&str>),
        stamp: &Stamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let taken = sqlx::query("DELETE FROM invitations WHERE id = $1 AND expires_at > $2")
            .bind(invitation.id.to_string())
            .bind(stamp.now.as_millis())
            .execute(&mut *tx)
            .await?;
        if taken.rows_affected() == 0 {
            return Ok(false);
        }
        if let Some(hash) = new {
            super::users::put_user(&mut tx, user, Some(hash)).await?;
        }
        match (&invitation.place, invitation.role) {
            (Place::Team(team), Some(role)) => {
                lock(&mut tx, team.id).await?;
                put_member(&mut tx, self.new_uuid(), team.id, (user.id, role)).await?;
            }
            (Place::App(app, _), Some(role)) => {
                put_collaborator(&mut tx, self.new_uuid(), *app, (&user.to_ref(), role)).await?;
            }
            _ => {}
        }
        tx.record(invitation.event(Action::Update));
        tx.commit().await?;
        Ok(true)
    }
}
