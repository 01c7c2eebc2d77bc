//! Pipelines, and which app is which stage of one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use model::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::apps::{AppAnswer, answer as app_answer};
use super::auth::Access;
use super::catalog::STACK_ID;
use super::describe::{Description, Input};
use super::error::ApiError;
use super::input::{Body, Reference, Text};
use super::output::{Created, Id, Named, Time};
use super::range::{Page, Range};
use crate::store::{Coupling, Couplings, Pipeline};
use crate::{Actor, Controller, Error};

/// Most apps that one request may ask for.
const MAX_APPS: usize = 1000;

/// A new pipeline.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreatePipeline {
    /// Its name.
    name: Text,
    /// Whose it is; without it, that of whoever asks.
    owner: Option<CreateOwner>,
}

/// Whose a pipeline is to be.
#[derive(Deserialize, ToSchema)]
struct CreateOwner {
    /// The id of a team, or that of whoever asks.
    id: Text,
    /// `team` or `user`.
    r#type: Text,
}

/// What a pipeline is to become.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdatePipeline {
    /// Its new name.
    name: Option<Text>,
}

/// An app that is to be a stage.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateCoupling {
    /// Which app.
    app: Reference,
    /// Of which pipeline.
    pipeline: Reference,
    /// test, review, development, staging or production.
    stage: Text,
}

/// What becomes of a stage.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateCoupling {
    /// test, review, development, staging or production.
    stage: Option<Text>,
}

/// Which apps are wanted.
#[derive(Deserialize, ToSchema)]
pub(super) struct FilterApps {
    /// All of them, without it.
    r#in: Option<AppsIn>,
}

/// Apps by what they have.
#[derive(Deserialize, ToSchema)]
struct AppsIn {
    /// Those with these ids.
    id: Option<Vec<Reference>>,
}

/// Apps that are the stages of one product.
#[derive(Serialize, ToSchema)]
#[schema(as = Pipeline)]
pub(super) struct PipelineAnswer {
    created_at: Time,
    generation: Named,
    id: Id,
    name: String,
    owner: OwnerAnswer,
    updated_at: Time,
}

/// Whose a pipeline is.
#[derive(Serialize, ToSchema)]
#[schema(as = PipelineOwner)]
struct OwnerAnswer {
    id: Id,
    /// `team` or `user`.
    r#type: &'static str,
}

/// An app's place in a pipeline.
#[derive(Serialize, ToSchema)]
#[schema(as = PipelineCoupling)]
pub(super) struct CouplingAnswer {
    app: Named,
    created_at: Time,
    id: Id,
    pipeline: Named,
    /// test, review, development, staging or production.
    stage: &'static str,
    updated_at: Time,
}

/// Which pipelines are wanted, in the query.
#[derive(Deserialize)]
pub(super) struct Wish {
    #[serde(rename = "eq[name]")]
    name: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Wish {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let read = Query::<Self>::try_from_uri(&parts.uri);
        read.map(|Query(wish)| wish).map_err(|error| ApiError::bad_request(format!("The query is not valid: {error}.")))
    }
}

impl Input for Wish {
    fn describe(description: &mut Description<'_>) {
        description.query("eq[name]", "Only that with this name.");
        description.errors(&[400]);
    }
}

/// `GET /pipelines`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    wish: Wish,
    range: Range,
) -> Result<Page<PipelineAnswer>, ApiError> {
    let pipelines = controller.pipelines(&actor).await?;
    let is_wanted = |pipeline: &&Pipeline| wish.name.as_ref().is_none_or(|name| *name == pipeline.name.as_str());
    Ok(range.page(pipelines.iter().filter(is_wanted).map(answer), "name"))
}

/// `POST /pipelines`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<CreatePipeline>,
) -> Result<Created<PipelineAnswer>, ApiError> {
    let team = match &wish.owner {
        Some(owner) if owner.r#type.0 == "team" => Some(owner.id.0.as_str()),
        Some(owner) if owner.r#type.0 != "user" => return Err(ApiError::invalid("owner.type must be team or user")),
        Some(owner) if owner.id.0 != actor.user.id.to_string() => {
            return Err(ApiError::invalid("owner.id must be that of a team, or yours"));
        }
        _ => None,
    };
    Ok(Created(answer(&controller.create_pipeline(&actor, &wish.name.0, team).await?)))
}

/// `GET /pipelines/{pipeline}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
) -> Result<Json<PipelineAnswer>, ApiError> {
    Ok(Json(answer(&controller.find_pipeline(&actor, &reference, Role::View).await?)))
}

/// `PATCH /pipelines/{pipeline}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
    Body(wish): Body<UpdatePipeline>,
) -> Result<Json<PipelineAnswer>, ApiError> {
    let mut pipeline = controller.find_pipeline(&actor, &reference, Role::Manage).await?;
    if let Some(name) = wish.name {
        pipeline = controller.rename_pipeline(&actor, &pipeline, &name.0).await?;
    }
    Ok(Json(answer(&pipeline)))
}

/// `DELETE /pipelines/{pipeline}`: its apps go on.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
) -> Result<Json<PipelineAnswer>, ApiError> {
    let pipeline = controller.find_pipeline(&actor, &reference, Role::Manage).await?;
    controller.delete_pipeline(&actor, &pipeline).await?;
    Ok(Json(answer(&pipeline)))
}

/// `GET /pipelines/{pipeline}/pipeline-couplings`
pub(super) async fn couplings_of_pipeline(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
    range: Range,
) -> Result<Page<CouplingAnswer>, ApiError> {
    let pipeline = controller.find_pipeline(&actor, &reference, Role::View).await?;
    page(&controller, &actor, (Couplings::Pipeline(pipeline.id), &range)).await
}

/// `GET /teams/{team}/pipeline-couplings`
pub(super) async fn couplings_of_team(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
    range: Range,
) -> Result<Page<CouplingAnswer>, ApiError> {
    let team = controller.find_team(&actor, &team, Role::View).await?;
    page(&controller, &actor, (Couplings::Team(team.id), &range)).await
}

/// `GET /pipeline-couplings`, `GET /users/~/pipeline-couplings`
pub(super) async fn couplings(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    range: Range,
) -> Result<Page<CouplingAnswer>, ApiError> {
    page(&controller, &actor, (Couplings::All, &range)).await
}

/// `GET /apps/{app}/pipeline-couplings`: the one that the app has, not a list.
pub(super) async fn coupling_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<CouplingAnswer>, ApiError> {
    let found = controller.couplings(&access.actor, Couplings::App(access.app.id)).await?.pop();
    Ok(Json(coupling_answer(&found.ok_or(Error::NotFound("pipeline coupling"))?)))
}

/// `POST /pipeline-couplings`
pub(super) async fn create_coupling(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<CreateCoupling>,
) -> Result<Created<CouplingAnswer>, ApiError> {
    let stage = wish.stage.0.parse().map_err(Error::from)?;
    let app = controller.find_app(&actor, &wish.app.0, Role::Operate).await?;
    let pipeline = controller.find_pipeline(&actor, &wish.pipeline.0, Role::Operate).await?;
    Ok(Created(coupling_answer(&controller.couple(&actor, &app, (&pipeline, stage)).await?)))
}

/// `GET /pipeline-couplings/{coupling}`
pub(super) async fn coupling_info(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(id): Path<String>,
) -> Result<Json<CouplingAnswer>, ApiError> {
    Ok(Json(coupling_answer(&controller.find_coupling(&actor, &id, Role::View).await?)))
}

/// `PATCH /pipeline-couplings/{coupling}`
pub(super) async fn update_coupling(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(id): Path<String>,
    Body(wish): Body<UpdateCoupling>,
) -> Result<Json<CouplingAnswer>, ApiError> {
    let mut coupling = controller.find_coupling(&actor, &id, Role::Operate).await?;
    if let Some(stage) = wish.stage {
        coupling = controller.restage(&actor, coupling, stage.0.parse().map_err(Error::from)?).await?;
    }
    Ok(Json(coupling_answer(&coupling)))
}

/// `DELETE /pipeline-couplings/{coupling}`: the app goes on.
pub(super) async fn delete_coupling(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(id): Path<String>,
) -> Result<Json<CouplingAnswer>, ApiError> {
    let coupling = controller.find_coupling(&actor, &id, Role::Operate).await?;
    controller.uncouple(&actor, &coupling).await?;
    Ok(Json(coupling_answer(&coupling)))
}

/// `POST /filters/apps`: of the apps that are asked for, those that whoever asks may see.
pub(super) async fn filter_apps(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    range: Range,
    Body(wish): Body<FilterApps>,
) -> Result<Page<AppAnswer>, ApiError> {
    let ids = wish.r#in.and_then(|apps| apps.id).unwrap_or_default();
    if ids.len() > MAX_APPS {
        return Err(ApiError::invalid(format!("in.id has {} ids; at most {MAX_APPS} are possible", ids.len())));
    }
    let mut apps = Vec::new();
    for id in &ids {
        match controller.find_app(&actor, &id.0, Role::View).await {
            Ok(app) => apps.push(app_answer(&controller.settings, &app)?),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(range.page(apps, "name"))
}

async fn page(
    controller: &Controller,
    actor: &Actor,
    (wanted, range): (Couplings<'_>, &Range),
) -> Result<Page<CouplingAnswer>, ApiError> {
    let couplings = controller.couplings(actor, wanted).await?;
    Ok(range.page(couplings.iter().map(coupling_answer), "created_at"))
}

fn answer(pipeline: &Pipeline) -> PipelineAnswer {
    PipelineAnswer {
        created_at: pipeline.created_at.into(),
        generation: Named::new(STACK_ID, "cedar"),
        id: Id::of(&pipeline.id),
        name: pipeline.name.to_string(),
        owner: match &pipeline.team {
            Some(team) => OwnerAnswer { id: Id::of(team), r#type: "team" },
            None => OwnerAnswer { id: Id::of(&pipeline.user), r#type: "user" },
        },
        updated_at: pipeline.updated_at.into(),
    }
}

fn coupling_answer(coupling: &Coupling) -> CouplingAnswer {
    let ((pipeline, name), (app, app_name)) = (&coupling.pipeline, &coupling.app);
    CouplingAnswer {
        app: Named::new(app, app_name),
        created_at: coupling.created_at.into(),
        id: Id::of(&coupling.id),
        pipeline: Named::new(pipeline, name),
        stage: coupling.stage.as_str(),
        updated_at: coupling.updated_at.into(),
    }
}
