use model::{Email, Role, TeamId, TeamName, Timestamp, UserId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, App, NewEvent, Resource, Stamp, Store, StoreError, UserRef, Write, apps, row};

/// People who own apps together.
#[derive(Debug, Clone)]
pub struct Team {
    /// Its id.
    pub id: TeamId,
    /// Its name, which may change.
    pub name: TeamName,
    /// What the one who asks may do with its apps.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// A team as other things name one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamRef {
    /// Its id.
    pub id: TeamId,
    /// Its name.
    pub name: TeamName,
}

/// Somebody's place in a team.
#[derive(Debug, Clone)]
pub struct Member {
    /// The id of this membership.
    pub id: String,
    /// Who.
    pub user: UserRef,
    /// What they may do with its apps.
    pub role: Role,
    /// Whether they sign in with a code too.
    pub two_factor: bool,
    /// Since when.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

impl Team {
    /// The short form.
    pub fn to_ref(&self) -> TeamRef {
        TeamRef { id: self.id, name: self.name.clone() }
    }
}

impl<'r> FromRow<'r, AnyRow> for Team {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            name: row::text(row, "name")?,
            role: row::text(row, "role")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

impl<'r> FromRow<'r, AnyRow> for Member {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            user: UserRef { id: row::text(row, "user_id")?, email: row::text::<Email>(row, "email")? },
            role: row::text(row, "role")?,
            two_factor: row.try_get::<Option<i64>, _>("totp_confirmed_at")?.is_some(),
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

const TEAMS_OF: &str = "SELECT t.id, t.name, m.role, t.created_at, t.updated_at FROM teams t \
     JOIN team_members m ON m.team_id = t.id WHERE m.user_id = $1";

const MEMBERS: &str = "SELECT m.id, m.user_id, u.email, u.totp_confirmed_at, m.role, m.created_at, m.updated_at \
     FROM team_members m JOIN users u ON u.id = m.user_id WHERE m.team_id = $1";

fn team_event(team: &TeamRef, action: Action) -> NewEvent {
    let data = json!({ "name": team.name });
    NewEvent { app: None, resource: Resource::Team, id: team.id.to_string(), action, data }
}

fn member_event(team: &TeamRef, user: &UserRef, role: Option<Role>, action: Action) -> NewEvent {
    let role = role.map(|role| role.to_string());
    let data = json!({ "team": team.name, "email": user.email, "role": role });
    NewEvent { app: None, resource: Resource::TeamMember, id: user.id.to_string(), action, data }
}

impl Store {
    /// Makes a team whose first member is its admin.
    pub async fn insert_team(&self, team: &TeamRef, admin: &UserRef, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        sqlx::query("INSERT INTO teams (id, name, created_at, updated_at) VALUES ($1, $2, $3, $3)")
            .bind(team.id.to_string())
            .bind(team.name.as_str())
            .bind(now)
            .execute(&mut *tx)
            .await
            .map_err(StoreError::taken("Name"))?;
        put_member(&mut tx, self.new_uuid(), team.id, (admin.id, Role::Admin)).await?;
        tx.record(team_event(team, Action::Create));
        tx.record(member_event(team, admin, Some(Role::Admin), Action::Create));
        tx.commit().await
    }

    /// The teams that a user is in, by name.
    pub async fn teams_of(&self, user: UserId) -> Result<Vec<Team>, StoreError> {
        let sql = format!("{TEAMS_OF} ORDER BY t.name");
        Ok(sqlx::query_as(&sql).bind(user.to_string()).fetch_all(&self.pool).await?)
    }

    /// The team that `reference`, a name or an id, means to this user; none if the user is not in it.
    pub async fn find_team(&self, user: UserId, reference: &str) -> Result<Option<Team>, StoreError> {
        let sql = format!("{TEAMS_OF} AND (t.name = $2 OR t.id = $2)");
        Ok(sqlx::query_as(&sql).bind(user.to_string()).bind(reference).fetch_optional(&self.pool).await?)
    }

    /// Gives a team another name.
    pub async fn rename_team(&self, team: TeamId, name: &TeamName, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        sqlx::query("UPDATE teams SET name = $1, updated_at = $2 WHERE id = $3")
            .bind(name.as_str())
            .bind(now)
            .bind(team.to_string())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::taken("Name"))?;
        tx.record(team_event(&TeamRef { id: team, name: name.clone() }, Action::Update));
        tx.commit().await
    }

    /// Forgets a team that owns no app and for which no volume is kept; whether it did.
    pub async fn delete_team(&self, team: &TeamRef, stamp: &Stamp) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let gone = sqlx::query(
            "DELETE FROM teams WHERE id = $1 AND NOT EXISTS (SELECT id FROM apps WHERE team_id = $1) \
             AND NOT EXISTS (SELECT id FROM volumes WHERE team_id = $1)",
        )
        .bind(team.id.to_string())
        .execute(&mut *tx)
        .await?;
        if gone.rows_affected() == 0 {
            return Ok(false);
        }
        tx.record(team_event(team, Action::Destroy));
        tx.commit().await?;
        Ok(true)
    }

    /// Who is in a team, the oldest member first.
    pub async fn members(&self, team: TeamId) -> Result<Vec<Member>, StoreError> {
        let sql = format!("{MEMBERS} ORDER BY m.created_at, m.id");
        Ok(sqlx::query_as(&sql).bind(team.to_string()).fetch_all(&self.pool).await?)
    }

    /// Takes somebody into a team, or gives a member another role. False if the team would have no admin then.
    pub async fn set_member(
        &self,
        team: &TeamRef,
        user: &UserRef,
        role: Role,
        stamp: &Stamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        lock(&mut tx, team.id).await?;
        let is_new = put_member(&mut tx, self.new_uuid(), team.id, (user.id, role)).await?;
        if !has_admin(&mut tx, team.id).await? {
            return Ok(false);
        }
        let action = if is_new { Action::Create } else { Action::Update };
        tx.record(member_event(team, user, Some(role), action));
        tx.commit().await?;
        Ok(true)
    }

    /// Takes somebody out of a team. False if the team would have no admin then.
    pub async fn remove_member(&self, team: &TeamRef, user: &UserRef, stamp: &Stamp) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        lock(&mut tx, team.id).await?;
        sqlx::query("DELETE FROM team_members WHERE team_id = $1 AND user_id = $2")
            .bind(team.id.to_string())
            .bind(user.id.to_string())
            .execute(&mut *tx)
            .await?;
        if !has_admin(&mut tx, team.id).await? {
            return Ok(false);
        }
        tx.record(member_event(team, user, None, Action::Destroy));
        tx.commit().await?;
        Ok(true)
    }

    /// A team's apps, by name.
    pub async fn apps_of_team(&self, team: TeamId) -> Result<Vec<App>, StoreError> {
        let sql = format!("{} WHERE a.team_id = $1 ORDER BY a.name", apps::SELECT);
        Ok(sqlx::query_as(&sql).bind(team.to_string()).fetch_all(&self.pool).await?)
    }
}

/// Whether they were not in it before.
pub(super) async fn put_member(
    tx: &mut Write<'_>,
    id: String,
    team: TeamId,
    (user, role): (UserId, Role),
) -> Result<bool, StoreError> {
    let now = tx.now();
    let changed = sqlx::query("UPDATE team_members SET role = $1, updated_at = $2 WHERE team_id = $3 AND user_id = $4")
        .bind(role.to_string())
        .bind(now)
        .bind(team.to_string())
        .bind(user.to_string())
        .execute(&mut **tx)
        .await?;
    if changed.rows_affected() > 0 {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO team_members (id, team_id, user_id, role, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)",
    )
    .bind(id)
    .bind(team.to_string())
    .bind(user.to_string())
    .bind(role.to_string())
    .bind(now)
    .execute(&mut **tx)
    .await?;
    Ok(true)
}

/// Whoever changes the members of a team at this moment is waited for.
pub(super) async fn lock(tx: &mut Write<'_>, team: TeamId) -> Result<(), StoreError> {
    let now = tx.now();
    let locked = sqlx::query("UPDATE teams SET updated_at = $1 WHERE id = $2")
        .bind(now)
        .bind(team.to_string())
        .execute(&mut **tx)
        .await?;
    if locked.rows_affected() == 0 { Err(StoreError::Missing("Team")) } else { Ok(()) }
}

async fn has_admin(tx: &mut Write<'_>, team: TeamId) -> Result<bool, StoreError> {
    let admins: i64 = sqlx::query_scalar("SELECT count(*) FROM team_members WHERE team_id = $1 AND role = 'admin'")
        .bind(team.to_string())
        .fetch_one(&mut **tx)
        .await?;
    Ok(admins > 0)
}
