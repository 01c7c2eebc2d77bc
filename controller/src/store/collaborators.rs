use model::{AppId, Email, Role, TeamId, Timestamp, UserId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, App, NewEvent, Resource, Stamp, Store, StoreError, UserRef, Write, row};

/// Somebody who may work on an app by their own name, not by that of a team.
#[derive(Debug, Clone)]
pub struct Collaborator {
    /// The id of this access.
    pub id: String,
    /// Who.
    pub user: UserRef,
    /// Whether they have yet to accept an invitation: then they are no user, and the ids are those of the invitation.
    pub is_invited: bool,
    /// Whether the app is theirs.
    pub is_owner: bool,
    /// What they may do.
    pub role: Role,
    /// Since when.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// Whose an app is to be.
#[derive(Debug, Clone)]
pub enum NewOwner {
    /// A user's.
    User(UserRef),
    /// A team's; for those who read only users, this one's.
    Team(TeamId, UserRef),
}

impl<'r> FromRow<'r, AnyRow> for Collaborator {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let role: String = row.try_get("role")?;
        let is_owner = role == OWNER;
        let created_at = row::time(row, "created_at")?;
        Ok(Self {
            id: row.try_get("id")?,
            user: UserRef { id: row::text(row, "user_id")?, email: row::text::<Email>(row, "email")? },
            is_invited: row::flag(row, "is_invited")?,
            is_owner,
            role: if is_owner { Role::Admin } else { row::text(row, "role")? },
            created_at,
            updated_at: row::optional_time(row, "updated_at")?.unwrap_or(created_at),
        })
    }
}

/// What the row of an app's owner says.
const OWNER: &str = "owner";

/// The ids of the apps that the user `$1` may see. A team's app has a row for its owner too, which says nothing. A query with it
/// that is asked often is to be planned for each user ([`Store::keeps_plan`]): PostgreSQL keeps a plan for users of as many
/// apps as is usual, and goes through all apps with it for somebody who has few.
pub(super) const APPS_OF: &str = "SELECT c.app_id FROM collaborators c JOIN apps x ON x.id = c.app_id \
     WHERE c.user_id = $1 AND (c.role <> 'owner' OR x.team_id IS NULL) \
     UNION ALL SELECT x.id FROM team_members m JOIN apps x ON x.team_id = m.team_id WHERE m.user_id = $1";

/// The condition that the user `$1` may see the app `a`, found from the app's side …
pub(super) const SEEN: &str = "(EXISTS (SELECT v.id FROM collaborators v WHERE v.app_id = a.id AND v.user_id = $1 \
     AND (v.role <> 'owner' OR a.team_id IS NULL)) \
     OR EXISTS (SELECT m.role FROM team_members m WHERE m.team_id = a.team_id AND m.user_id = $1))";

/// … and the same, found from the user's side.
pub(super) fn visible() -> String {
    format!("a.id IN ({APPS_OF})")
}

fn changed(app: AppId, user: &UserRef, role: Option<Role>, action: Action) -> NewEvent {
    let data = json!({ "email": user.email, "role": role.map(|role| role.to_string()) });
    NewEvent { app: Some(app), resource: Resource::Collaborator, id: user.id.to_string(), action, data }
}

impl Store {
    /// What a user may do with an app, by their own name and by those of their teams; none if not even look at it.
    pub async fn role(&self, user: UserId, app: AppId) -> Result<Option<Role>, StoreError> {
        let sql = "SELECT c.role FROM collaborators c JOIN apps x ON x.id = c.app_id \
             WHERE c.user_id = $1 AND c.app_id = $2 AND (c.role <> 'owner' OR x.team_id IS NULL) \
             UNION ALL SELECT m.role FROM team_members m JOIN apps x ON x.team_id = m.team_id \
             WHERE m.user_id = $1 AND x.id = $2";
        let roles: Vec<String> =
            sqlx::query_scalar(sql).bind(user.to_string()).bind(app.to_string()).fetch_all(&self.pool).await?;
        // The owner's row says so; it gives the rights of an admin.
        Ok(roles.iter().map(|role| role.parse().unwrap_or(Role::Admin)).max())
    }

    /// Who may work on an app by their own name, or may come to by an invitation that is good at `now`; the first one
    /// first. Of a team's app nobody is the owner.
    pub async fn collaborators(&self, app: AppId, now: Timestamp) -> Result<Vec<Collaborator>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT c.id, c.user_id, u.email, c.role, c.created_at, c.updated_at, CAST(0 AS BIGINT) AS is_invited \
             FROM collaborators c JOIN users u ON u.id = c.user_id JOIN apps a ON a.id = c.app_id \
             WHERE c.app_id = $1 AND (c.role <> 'owner' OR a.team_id IS NULL) \
             UNION ALL SELECT i.id, i.id, i.email, i.role, i.created_at, i.updated_at, CAST(1 AS BIGINT) \
             FROM invitations i WHERE i.app_id = $1 AND i.expires_at > $2 ORDER BY 5, 1",
        )
        .bind(app.to_string())
        .bind(now.as_millis())
        .fetch_all(&self.pool)
        .await?)
    }

    /// Lets somebody work on an app, or gives them another role there. Not for owners.
    pub async fn set_collaborator(
        &self,
        app: AppId,
        user: &UserRef,
        role: Role,
        stamp: &Stamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        put_collaborator(&mut tx, self.new_uuid(), app, (user, role)).await?;
        tx.commit().await
    }

    /// Ends somebody's work on an app. Not for owners.
    pub async fn remove_collaborator(&self, app: AppId, user: &UserRef, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let gone = sqlx::query("DELETE FROM collaborators WHERE app_id = $1 AND user_id = $2 AND role <> 'owner'")
            .bind(app.to_string())
            .bind(user.id.to_string())
            .execute(&mut *tx)
            .await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(app, user, None, Action::Destroy));
        }
        tx.commit().await
    }

    /// Gives an app to somebody else. Who owned it before has no more to do with it.
    pub async fn set_owner(&self, app: &App, owner: &NewOwner, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        put_owner(&mut tx, self.new_uuid(), app, owner).await?;
        tx.commit().await
    }
}

/// Lets a user work on an app, or gives them another role there; the invitations that they had to it are over.
pub(super) async fn put_collaborator(
    tx: &mut Write<'_>,
    id: String,
    app: AppId,
    (user, role): (&UserRef, Role),
) -> Result<(), StoreError> {
    let now = tx.now();
    // The owner's row of a team's app makes room: the team is the owner now, and keeps the row for who reads only users.
    let sql = "UPDATE collaborators SET role = $1, updated_at = $2 \
         WHERE app_id = $3 AND user_id = $4 AND role <> 'owner'";
    let updated = sqlx::query(sql)
        .bind(role.to_string())
        .bind(now)
        .bind(app.to_string())
        .bind(user.id.to_string())
        .execute(&mut **tx)
        .await?;
    let is_new = updated.rows_affected() == 0;
    if is_new {
        sqlx::query(
            "INSERT INTO collaborators (id, app_id, user_id, role, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $5)",
        )
        .bind(id)
        .bind(app.to_string())
        .bind(user.id.to_string())
        .bind(role.to_string())
        .bind(now)
        .execute(&mut **tx)
        .await
        .map_err(StoreError::taken("User"))?;
    }
    sqlx::query("DELETE FROM invitations WHERE app_id = $1 AND email = $2")
        .bind(app.to_string())
        .bind(user.email.as_str())
        .execute(&mut **tx)
        .await?;
    tx.record(changed(app, user, Some(role), if is_new { Action::Create } else { Action::Update }));
    Ok(())
}

/// Makes somebody the owner of an app; what was offered of it is off.
pub(super) async fn put_owner(tx: &mut Write<'_>, id: String, app: &App, owner: &NewOwner) -> Result<(), StoreError> {
    let now = tx.now();
    let (team, user) = match owner {
        NewOwner::User(user) => (None, user),
        NewOwner::Team(team, user) => (Some(team.to_string()), user),
    };
    sqlx::query("UPDATE apps SET team_id = $1, updated_at = $2 WHERE id = $3")
        .bind(team.clone())
        .bind(now)
        .bind(app.id.to_string())
        .execute(&mut **tx)
        .await?;
    sqlx::query("DELETE FROM collaborators WHERE app_id = $1 AND (user_id = $2 OR role = 'owner')")
        .bind(app.id.to_string())
        .bind(user.id.to_string())
        .execute(&mut **tx)
        .await?;
    let sql = "INSERT INTO collaborators (id, app_id, user_id, role, created_at, updated_at) \
         VALUES ($1, $2, $3, 'owner', $4, $4)";
    sqlx::query(sql).bind(id).bind(app.id.to_string()).bind(user.id.to_string()).bind(now).execute(&mut **tx).await?;
    sqlx::query("UPDATE app_transfers SET state = 'declined', updated_at = $1 WHERE app_id = $2 AND state = 'pending'")
        .bind(now)
        .bind(app.id.to_string())
        .execute(&mut **tx)
        .await?;
    let data = json!({ "owner": user.email, "team": team });
    let action = Action::Update;
    tx.record(NewEvent { app: Some(app.id), resource: Resource::App, id: app.id.to_string(), action, data });
    Ok(())
}
