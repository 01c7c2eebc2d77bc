//! Pipelines: apps that are the stages of one product.

use model::{PipelineId, Role};

use crate::store::{App, Coupling, Couplings, Pipeline, Stage};
use crate::{Actor, Controller, Error};

/// Most pipelines that one user may see, and make.
const MAX_PIPELINES: usize = 1000;

impl Controller {
    /// Makes a pipeline of one's own, or of a team whose apps one may operate.
    pub async fn create_pipeline(&self, actor: &Actor, name: &str, team: Option<&str>) -> Result<Pipeline, Error> {
        if self.store.pipelines(actor.user.id).await?.len() >= MAX_PIPELINES {
            return Err(Error::Invalid(format!("You can have at most {MAX_PIPELINES} pipelines")));
        }
        let team = match team {
            Some(team) => Some(self.find_team(actor, team, Role::Operate).await?.id),
            None => None,
        };
        let stamp = self.stamp(actor);
        let pipeline = Pipeline {
            id: PipelineId::random(&*self.random),
            name: name.parse()?,
            user: actor.user.id,
            team,
            role: Role::Admin,
            created_at: stamp.now,
            updated_at: stamp.now,
        };
        self.store.insert_pipeline(&pipeline, &stamp).await?;
        self.find_pipeline(actor, name, Role::View).await
    }

    /// The pipelines that somebody may see, by name.
    pub async fn pipelines(&self, actor: &Actor) -> Result<Vec<Pipeline>, Error> {
        Ok(self.store.pipelines(actor.user.id).await?)
    }

    /// The pipeline that `reference`, a name or an id, means to somebody who may do this much with it.
    pub async fn find_pipeline(&self, actor: &Actor, reference: &str, need: Role) -> Result<Pipeline, Error> {
        let found = self.store.find_pipeline(actor.user.id, reference).await?;
        let pipeline = found.ok_or(Error::NotFound("pipeline"))?;
        if pipeline.role < need {
            return Err(Error::Forbidden(format!(
                "You have the role {} on the pipeline {}; this needs {need}. Ask its owner.",
                pipeline.role, pipeline.name
            )));
        }
        Ok(pipeline)
    }

    /// Gives a pipeline another name.
    pub async fn rename_pipeline(&self, actor: &Actor, pipeline: &Pipeline, name: &str) -> Result<Pipeline, Error> {
        let name = name.parse()?;
        self.store.rename_pipeline(pipeline.id, &name, &self.stamp(actor)).await?;
        self.find_pipeline(actor, name.as_str(), Role::View).await
    }

    /// Ends a pipeline. Its apps go on.
    pub async fn delete_pipeline(&self, actor: &Actor, pipeline: &Pipeline) -> Result<(), Error> {
        Ok(self.store.delete_pipeline(pipeline, &self.stamp(actor)).await?)
    }

    /// The places of the apps that somebody may see.
    pub async fn couplings(&self, actor: &Actor, wanted: Couplings<'_>) -> Result<Vec<Coupling>, Error> {
        Ok(self.store.couplings(actor.user.id, wanted).await?)
    }

    /// Makes an app a stage of a pipeline; whoever does may operate both.
    pub async fn couple(
        &self,
        actor: &Actor,
        app: &App,
        (pipeline, stage): (&Pipeline, Stage),
    ) -> Result<Coupling, Error> {
        self.check_role(actor, app, Role::Operate).await?;
        if let Some(known) = self.couplings(actor, Couplings::App(app.id)).await?.first() {
            return Err(Error::Invalid(format!("{} is in the pipeline {} already", app.name, known.pipeline.1)));
        }
        let stamp = self.stamp(actor);
        let coupling = Coupling {
            id: self.new_uuid(),
            pipeline: (pipeline.id, pipeline.name.clone()),
            app: (app.id, app.name.clone()),
            stage,
            created_at: stamp.now,
            updated_at: stamp.now,
        };
        self.store.insert_coupling(&coupling, &stamp).await?;
        Ok(coupling)
    }

    /// The place with this id, of an app with which somebody may do this much.
    pub async fn find_coupling(&self, actor: &Actor, id: &str, need: Role) -> Result<Coupling, Error> {
        let found = self.couplings(actor, Couplings::Id(id)).await?.pop();
        let coupling = found.ok_or(Error::NotFound("pipeline coupling"))?;
        self.find_app(actor, &coupling.app.0.to_string(), need).await?;
        Ok(coupling)
    }

    /// Makes an app another stage of its pipeline.
    pub async fn restage(&self, actor: &Actor, coupling: Coupling, stage: Stage) -> Result<Coupling, Error> {
        let stamp = self.stamp(actor);
        let changed = Coupling { stage, updated_at: stamp.now, ..coupling };
        self.store.update_coupling(&changed, &stamp).await?;
        Ok(changed)
    }

    /// Takes an app out of its pipeline.
    pub async fn uncouple(&self, actor: &Actor, coupling: &Coupling) -> Result<(), Error> {
        Ok(self.store.delete_coupling(coupling, &self.stamp(actor)).await?)
    }
}
