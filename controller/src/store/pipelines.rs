use model::{AppId, AppName, PipelineId, PipelineName, Role, TeamId, Timestamp, UserId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::collaborators::SEEN;
use super::words::words;
use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, row};

/// Apps that are the stages of one product.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its id.
    pub id: PipelineId,
    /// Its name, which may change.
    pub name: PipelineName,
    /// Who made it; its owner, unless a team is.
    pub user: UserId,
    /// The team that owns it.
    pub team: Option<TeamId>,
    /// What the one who asks may do with it.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// An app's place in a pipeline.
#[derive(Debug, Clone)]
pub struct Coupling {
    /// Its id.
    pub id: String,
    /// Of which pipeline.
    pub pipeline: (PipelineId, PipelineName),
    /// Which app.
    pub app: (AppId, AppName),
    /// Which place.
    pub stage: Stage,
    /// Since when.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// Which couplings are wanted.
#[derive(Debug, Clone, Copy)]
pub enum Couplings<'a> {
    /// All.
    All,
    /// Those of a pipeline.
    Pipeline(PipelineId),
    /// Those of a team's pipelines.
    Team(TeamId),
    /// That of an app.
    App(AppId),
    /// The one that has this id.
    Id(&'a str),
}

words! {
    /// A place in a pipeline, in Heroku's words.
    Stage, "stage must be test, review, development, staging or production":
    /// Runs tests.
    Test "test";
    /// Shows a change that is not taken over yet.
    Review "review";
    /// For whoever develops.
    Development "development";
    /// The last look before production.
    Staging "staging";
    /// For its users.
    Production "production";
}

impl<'r> FromRow<'r, AnyRow> for Pipeline {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            name: row::text(row, "name")?,
            user: row::text(row, "user_id")?,
            team: row::optional_text(row, "team_id")?,
            // Who sees it only for one of its apps may look.
            role: row::optional_text(row, "role")?.unwrap_or(Role::View),
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

impl<'r> FromRow<'r, AnyRow> for Coupling {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            pipeline: (row::text(row, "pipeline_id")?, row::text(row, "pipeline_name")?),
            app: (row::text(row, "app_id")?, row::text(row, "app_name")?),
            stage: row::text(row, "stage")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

/// The pipelines that the user `$1` may see, and what they may do with each: their own, those of their teams, and those of
/// apps that they may see.
fn visible() -> String {
    format!(
        "SELECT p.id, p.name, p.user_id, p.team_id, p.created_at, p.updated_at, \
         CASE WHEN p.team_id IS NULL AND p.user_id = $1 THEN 'admin' ELSE \
         (SELECT o.role FROM team_members o WHERE o.team_id = p.team_id AND o.user_id = $1) END AS role FROM pipelines p \
         WHERE ((p.team_id IS NULL AND p.user_id = $1) \
         OR EXISTS (SELECT o.role FROM team_members o WHERE o.team_id = p.team_id AND o.user_id = $1) \
         OR EXISTS (SELECT k.id FROM pipeline_couplings k JOIN apps a ON a.id = k.app_id WHERE k.pipeline_id = p.id AND {SEEN}))"
    )
}

/// The couplings of apps that the user `$1` may see.
fn couplings() -> String {
    format!(
        "SELECT k.id, k.pipeline_id, p.name AS pipeline_name, k.app_id, a.name AS app_name, k.stage, k.created_at, \
         k.updated_at FROM pipeline_couplings k JOIN pipelines p ON p.id = k.pipeline_id JOIN apps a ON a.id = k.app_id \
         WHERE {SEEN}"
    )
}

fn pipeline_event(id: PipelineId, name: &PipelineName, action: Action) -> NewEvent {
    NewEvent { app: None, resource: Resource::Pipeline, id: id.to_string(), action, data: json!({ "name": name }) }
}

impl Coupling {
    fn event(&self, action: Action) -> NewEvent {
        let data = json!({ "pipeline": self.pipeline.1, "stage": self.stage.as_str() });
        NewEvent { app: Some(self.app.0), resource: Resource::PipelineCoupling, id: self.id.clone(), action, data }
    }
}

impl Store {
    /// The pipelines that a user may see, by name.
    pub async fn pipelines(&self, user: UserId) -> Result<Vec<Pipeline>, StoreError> {
        let sql = format!("{} ORDER BY p.name", visible());
        Ok(sqlx::query_as(&sql).bind(user.to_string()).fetch_all(&self.pool).await?)
    }

    /// The pipeline that `reference`, a name or an id, means to this user; none if they may not see it.
    pub async fn find_pipeline(&self, user: UserId, reference: &str) -> Result<Option<Pipeline>, StoreError> {
        let sql = format!("{} AND (p.name = $2 OR p.id = $2)", visible());
        Ok(sqlx::query_as(&sql).bind(user.to_string()).bind(reference).fetch_optional(&self.pool).await?)
    }

    /// Keeps a new pipeline.
    pub async fn insert_pipeline(&self, new: &Pipeline, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "INSERT INTO pipelines (id, name, user_id, team_id, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)";
        sqlx::query(sql)
            .bind(new.id.to_string())
            .bind(new.name.as_str())
            .bind(new.user.to_string())
            .bind(new.team.map(|team| team.to_string()))
            .bind(stamp.now.as_millis())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::taken("Name"))?;
        tx.record(pipeline_event(new.id, &new.name, Action::Create));
        tx.commit().await
    }

    /// Gives a pipeline another name.
    pub async fn rename_pipeline(&self, id: PipelineId, name: &PipelineName, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query("UPDATE pipelines SET name = $1, updated_at = $2 WHERE id = $3")
            .bind(name.as_str())
            .bind(stamp.now.as_millis())
            .bind(id.to_string())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::taken("Name"))?;
        tx.record(pipeline_event(id, name, Action::Update));
        tx.commit().await
    }

    /// Forgets a pipeline; its apps stay.
    pub async fn delete_pipeline(&self, gone: &Pipeline, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query("DELETE FROM pipelines WHERE id = $1").bind(gone.id.to_string()).execute(&mut *tx).await?;
        tx.record(pipeline_event(gone.id, &gone.name, Action::Destroy));
        tx.commit().await
    }

    /// Those of the wanted couplings whose app a user may see, in the order of the stages' apps.
    pub async fn couplings(&self, user: UserId, wanted: Couplings<'_>) -> Result<Vec<Coupling>, StoreError> {
        let (condition, value) = match wanted {
            Couplings::All => ("$2 = ''", String::new()),
            Couplings::Pipeline(id) => ("k.pipeline_id = $2", id.to_string()),
            Couplings::Team(id) => ("p.team_id = $2", id.to_string()),
            Couplings::App(id) => ("k.app_id = $2", id.to_string()),
            Couplings::Id(id) => ("k.id = $2", id.to_owned()),
        };
        let sql = format!("{} AND {condition} ORDER BY p.name, a.name", couplings());
        Ok(sqlx::query_as(&sql).bind(user.to_string()).bind(value).fetch_all(&self.pool).await?)
    }

    /// Makes an app a stage of a pipeline.
    pub async fn insert_coupling(&self, new: &Coupling, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "INSERT INTO pipeline_couplings (id, pipeline_id, app_id, stage, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $5)";
        sqlx::query(sql)
            .bind(&new.id)
            .bind(new.pipeline.0.to_string())
            .bind(new.app.0.to_string())
            .bind(new.stage.as_str())
            .bind(stamp.now.as_millis())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::taken("App"))?;
        tx.record(new.event(Action::Create));
        tx.commit().await
    }

    /// Makes an app another stage of its pipeline.
    pub async fn update_coupling(&self, changed: &Coupling, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query("UPDATE pipeline_couplings SET stage = $1, updated_at = $2 WHERE id = $3")
            .bind(changed.stage.as_str())
            .bind(stamp.now.as_millis())
            .bind(&changed.id)
            .execute(&mut *tx)
            .await?;
        tx.record(changed.event(Action::Update));
        tx.commit().await
    }

    /// Takes an app out of its pipeline.
    pub async fn delete_coupling(&self, gone: &Coupling, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query("DELETE FROM pipeline_couplings WHERE id = $1").bind(&gone.id).execute(&mut *tx).await?;
        tx.record(gone.event(Action::Destroy));
        tx.commit().await
    }
}
