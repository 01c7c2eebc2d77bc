use model::{AppId, AppName, ReleaseId, TeamId, TeamName, Timestamp, UserId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::collaborators::{SEEN, visible};
use super::select::Select;
use super::volumes::{DataChoice, let_go};
use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, TeamRef, UserRef, row};

/// An app.
#[derive(Debug, Clone)]
pub struct App {
    /// Its id, for ever.
    pub id: AppId,
    /// Its name, which may change.
    pub name: AppName,
    /// Uid and gid of its builds and instances; no other app ever had it.
    pub uid: u32,
    /// Who owns it; of a team's app, only who brought it there.
    pub owner: UserRef,
    /// The team that owns it, if one does.
    pub team: Option<TeamRef>,
    /// The router answers for it.
    pub maintenance: bool,
    /// The platform shall get certificates for its domains.
    pub acm: bool,
    /// Name of its stack.
    pub stack: String,
    /// Buildpacks that the user chose, in order; empty means detect.
    pub buildpacks: Vec<String>,
    /// The release that really serves.
    pub current_release: ReleaseId,
    /// When a release last became current.
    pub released_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Last change of the app itself.
    pub updated_at: Timestamp,
}

/// An app to make.
#[derive(Debug)]
pub struct NewApp<'a> {
    /// Its id.
    pub id: AppId,
    /// Its name.
    pub name: &'a AppName,
    /// Who will own it.
    pub owner: UserId,
    /// The team that will own it instead.
    pub team: Option<TeamId>,
    /// Name of its stack.
    pub stack: &'a str,
}

/// What to change of an app; `None` leaves it.
#[derive(Debug, Default)]
pub struct AppChange<'a> {
    /// Another name.
    pub name: Option<&'a AppName>,
    /// Maintenance on or off.
    pub maintenance: Option<bool>,
    /// Another list of buildpacks.
    pub buildpacks: Option<&'a [String]>,
}

impl App {
    /// Whose it is, in words.
    pub fn owner_name(&self) -> String {
        match &self.team {
            Some(team) => format!("the team {}", team.name),
            None => self.owner.email.to_string(),
        }
    }
}

impl<'r> FromRow<'r, AnyRow> for App {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let team: Option<TeamId> = row::optional_text(row, "team_id")?;
        let team_name: Option<TeamName> = row::optional_text(row, "team_name")?;
        Ok(Self {
            id: row::text(row, "id")?,
            name: row::text(row, "name")?,
            uid: row::number(row, "uid")?,
            owner: UserRef { id: row::text(row, "owner_id")?, email: row::text(row, "owner_email")? },
            team: team.zip(team_name).map(|(id, name)| TeamRef { id, name }),
            maintenance: row::flag(row, "maintenance")?,
            acm: row::flag(row, "acm")?,
            stack: row.try_get("stack")?,
            buildpacks: row::json(row, "buildpacks")?,
            current_release: row::text(row, "current_release_id")?,
            released_at: row::optional_time(row, "released_at")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

impl AppChange<'_> {
    /// What it changes of an app; none if that is nothing.
    fn against(&self, app: &App) -> Option<serde_json::Value> {
        let mut data = serde_json::Map::new();
        if let Some(name) = self.name.filter(|name| **name != app.name) {
            data.insert("name".to_owned(), json!(name));
            data.insert("previous_name".to_owned(), json!(app.name));
        }
        if let Some(maintenance) = self.maintenance.filter(|maintenance| *maintenance != app.maintenance) {
            data.insert("maintenance".to_owned(), json!(maintenance));
        }
        if let Some(buildpacks) = self.buildpacks.filter(|buildpacks| *buildpacks != app.buildpacks) {
            data.insert("buildpacks".to_owned(), json!(buildpacks));
        }
        (!data.is_empty()).then_some(data.into())
    }
}

fn changed(app: AppId, action: Action, data: serde_json::Value) -> NewEvent {
    NewEvent { app: Some(app), resource: Resource::App, id: app.to_string(), action, data }
}

/// The event of a new release.
pub(super) fn release_made(app: AppId, release: ReleaseId, data: serde_json::Value) -> NewEvent {
    let (resource, action) = (Resource::Release, Action::Create);
    NewEvent { app: Some(app), resource, id: release.to_string(), action, data }
}

/// The owner is looked up for each app: of a join PostgreSQL makes a look through the owners of all apps.
pub(super) const SELECT: Select = Select {
    columns: "a.id, a.name, a.uid, u.id AS owner_id, u.email AS owner_email, a.team_id, t.name AS team_name, a.maintenance, \
         a.acm, a.stack, a.buildpacks, a.current_release_id, a.released_at, a.created_at, a.updated_at",
    from: ("apps", "a"),
    joins: "JOIN users u ON u.id = (SELECT o.user_id FROM collaborators o WHERE o.app_id = a.id AND o.role = 'owner') \
         LEFT JOIN teams t ON t.id = a.team_id",
};

impl Store {
    /// Makes an app with its owner, its uid and its first, empty release.
    pub async fn create_app(&self, new: NewApp<'_>, stamp: &Stamp) -> Result<App, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let uid: i64 =
            sqlx::query_scalar("UPDATE counters SET value = value + 1 WHERE name = 'app_uid' RETURNING value")
                .fetch_one(&mut *tx)
                .await?;
        let release = ReleaseId::random(&*self.random);
        sqlx::query(
            "INSERT INTO apps (id, name, uid, maintenance, stack, buildpacks, last_version, current_release_id, \
             released_at, created_at, updated_at, team_id) VALUES ($1, $2, $3, 0, $4, '[]', 1, $5, $6, $6, $6, $7)",
        )
        .bind(new.id.to_string())
        .bind(new.name.as_str())
        .bind(uid)
        .bind(new.stack)
        .bind(release.to_string())
        .bind(tx.now())
        .bind(new.team.map(|team| team.to_string()))
        .execute(&mut *tx)
        .await
        .map_err(StoreError::taken("Name"))?;
        sqlx::query(
            "INSERT INTO collaborators (id, app_id, user_id, role, created_at) VALUES ($1, $2, $3, 'owner', $4)",
        )
        .bind(self.new_uuid())
        .bind(new.id.to_string())
        .bind(new.owner.to_string())
        .bind(tx.now())
        .execute(&mut *tx)
        .await?;
        tx.record(changed(new.id, Action::Create, json!({ "name": new.name })));
        self.insert_first_release(&mut tx, (new.id, release), new.owner).await?;
        tx.commit().await?;
        self.app(new.id).await?.ok_or(StoreError::Missing("App"))
    }

    /// The app with this id.
    pub async fn app(&self, id: AppId) -> Result<Option<App>, StoreError> {
        let sql = format!("{SELECT} WHERE a.id = $1");
        Ok(sqlx::query_as(&sql).bind(id.to_string()).fetch_optional(&self.pool).await?)
    }

    /// The app that `reference`, a name or an id, means to this user; none if the user has no access to it.
    pub async fn find_app(&self, user: UserId, reference: &str) -> Result<Option<App>, StoreError> {
        let name = reference.parse::<AppName>().ok().map(String::from);
        let id = reference.parse::<AppId>().ok().map(|id| id.to_string());
        let sql = format!("{SELECT} WHERE {SEEN} AND (a.name = $2 OR a.id = $3)");
        Ok(sqlx::query_as(&sql).bind(user.to_string()).bind(name).bind(id).fetch_optional(&self.pool).await?)
    }

    /// The apps that a user may work on, by name.
    pub async fn apps_of(&self, user: UserId) -> Result<Vec<App>, StoreError> {
        let sql = format!("{SELECT} WHERE {} ORDER BY a.name", visible());
        Ok(sqlx::query_as(&sql).bind(user.to_string()).fetch_all(&self.pool).await?)
    }

    /// Every app, by name.
    pub async fn apps(&self) -> Result<Vec<App>, StoreError> {
        Ok(sqlx::query_as(&format!("{SELECT} ORDER BY a.name")).fetch_all(&self.pool).await?)
    }

    /// Gives somebody a role on an app.
    #[cfg(test)]
    pub(crate) async fn give_role(&self, app: AppId, email: &str, role: model::Role) {
        sqlx::query(
            "INSERT INTO collaborators (id, app_id, user_id, role, created_at) \
             SELECT $1, $2, id, $3, 0 FROM users WHERE email = $4 \
             ON CONFLICT (app_id, user_id) DO UPDATE SET role = excluded.role",
        )
        .bind(self.new_uuid())
        .bind(app.to_string())
        .bind(role.to_string())
        .bind(email)
        .execute(&self.pool)
        .await
        .expect("given");
    }

    /// Changes an app and returns it as it is then.
    pub async fn update_app(&self, app: &App, change: AppChange<'_>, stamp: &Stamp) -> Result<App, StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query(
            "UPDATE apps SET name = COALESCE($1, name), maintenance = COALESCE($2, maintenance), \
             buildpacks = COALESCE($3, buildpacks), updated_at = $4 WHERE id = $5",
        )
        .bind(change.name.map(|name| name.as_str().to_owned()))
        .bind(change.maintenance.map(i64::from))
        .bind(change.buildpacks.map(serde_json::to_string).transpose()?)
        .bind(tx.now())
        .bind(app.id.to_string())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::taken("Name"))?;
        if let Some(data) = change.against(app) {
            tx.record(changed(app.id, Action::Update, data));
        }
        tx.commit().await?;
        self.app(app.id).await?.ok_or(StoreError::Missing("App"))
    }

    /// Forgets an app and everything that belongs to it. What runs and lies on disk is the caller's to remove; both are
    /// named by the app's id, so that what has no app any more can be told. Refused with [`StoreError::Stale`] if it has volumes and
    /// nobody says what becomes of them.
    pub async fn delete_app(&self, app: &App, volumes: Option<DataChoice>, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        // Its jobs go with it.
        super::jobs::lock(&mut tx).await?;
        let_go(&mut tx, app, volumes).await?;
        // Add-ons outlive their app until their servers and their data are gone.
        sqlx::query("UPDATE addons SET state = 'deprovisioning' WHERE app_id = $1")
            .bind(app.id.to_string())
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM addon_attachments WHERE addon_id IN (SELECT id FROM addons WHERE app_id = $1)")
            .bind(app.id.to_string())
            .execute(&mut *tx)
            .await?;
        let gone = sqlx::query("DELETE FROM apps WHERE id = $1").bind(app.id.to_string()).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(app.id, Action::Destroy, json!({ "name": app.name })));
        }
        tx.commit().await
    }
}
