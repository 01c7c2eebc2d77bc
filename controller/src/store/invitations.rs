use model::{Email, InvitationId, Role, TeamId, TeamName, Timestamp};
use serde_json::json;
use sqlx::FromRow;
use sqlx::any::AnyRow;

use super::teams::{lock, put_member};
use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, TeamRef, User, UserRef, row};

/// Somebody who may come in, and perhaps into a team, by a link.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// Whom it is for.
    pub email: Email,
    /// The team that they will be in, and what they may do there.
    pub team: Option<(TeamRef, Role)>,
    /// Who invited them.
    pub invited_by: UserRef,
    /// No longer good from then on.
    pub expires_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its link was last changed.
    pub updated_at: Timestamp,
}

impl<'r> FromRow<'r, AnyRow> for Invitation {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let team: Option<TeamId> = row::optional_text(row, "team_id")?;
        let name: Option<TeamName> = row::optional_text(row, "team_name")?;
        let role: Option<Role> = row::optional_text(row, "role")?;
        Ok(Self {
            id: row::text(row, "id")?,
            email: row::text(row, "email")?,
            team: team.zip(name).zip(role).map(|((id, name), role)| (TeamRef { id, name }, role)),
            invited_by: UserRef { id: row::text(row, "invited_by")?, email: row::text(row, "inviter_email")? },
            expires_at: row::time(row, "expires_at")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

const SELECT: &str = "SELECT i.id, i.email, i.team_id, t.name AS team_name, i.role, i.invited_by, u.email AS inviter_email, \
     i.expires_at, i.created_at, i.updated_at FROM invitations i JOIN users u ON u.id = i.invited_by \
     LEFT JOIN teams t ON t.id = i.team_id";

impl Invitation {
    fn event(&self, action: Action) -> NewEvent {
        let (team, role) = match &self.team {
            Some((team, role)) => (Some(&team.name), Some(role.to_string())),
            None => (None, None),
        };
        let data = json!({ "email": self.email, "team": team, "role": role });
        NewEvent { app: None, resource: Resource::Invitation, id: self.id.to_string(), action, data }
    }
}

impl Store {
    /// Keeps an invitation, in place of those that the same person had to the same team.
    pub async fn insert_invitation(&self, new: &Invitation, digest: &str, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let team = new.team.as_ref().map(|(team, _)| team.id.to_string());
        sqlx::query(
            "DELETE FROM invitations WHERE expires_at <= $1 OR (email = $2 AND COALESCE(team_id, '') = COALESCE($3, ''))",
        )
        .bind(stamp.now.as_millis())
        .bind(new.email.as_str())
        .bind(team.clone())
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO invitations (id, digest, email, team_id, role, invited_by, expires_at, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
        )
        .bind(new.id.to_string())
        .bind(digest)
        .bind(new.email.as_str())
        .bind(team)
        .bind(new.team.as_ref().map(|(_, role)| role.to_string()))
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

    /// The invitations to a team, or to the platform alone, that are good at `now`; the oldest first.
    pub async fn invitations(&self, team: Option<TeamId>, now: Timestamp) -> Result<Vec<Invitation>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE COALESCE(i.team_id, '') = COALESCE($1, '') AND i.expires_at > $2 ORDER BY i.created_at, i.id"
        );
        let team = team.map(|team| team.to_string());
        Ok(sqlx::query_as(&sql).bind(team).bind(now.as_millis()).fetch_all(&self.pool).await?)
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
        if let Some((team, role)) = &invitation.team {
            lock(&mut tx, team.id).await?;
            put_member(&mut tx, self.new_uuid(), team.id, (user.id, *role)).await?;
        }
        tx.record(invitation.event(Action::Update));
        tx.commit().await?;
        Ok(true)
    }
}
