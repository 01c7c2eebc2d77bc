use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::catalog;
use super::error::ApiError;
use super::input::{Body, Flag, Reference, Text};
use super::output::{Created, Id, List, Named, Time, UserAnswer};
use super::range::{Page, Range};
use super::volumes::Fate;
use crate::apps::{AppRequest, AppUpdate};
use crate::store::{App, Part};
use crate::{Actor, Controller, Error, Settings};

const MAX_BUILDPACKS: usize = 20;

/// A new app.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateApp {
    /// Its name; one is chosen if it is absent.
    name: Option<Text>,
    /// There is one.
    region: Option<Reference>,
    /// What it is built and run on.
    stack: Option<Reference>,
    /// The team that owns it; without it, whoever asks does.
    team: Option<Reference>,
}

/// What an app is to become.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateApp {
    /// Its new name.
    name: Option<Text>,
    /// Whether its visitors see that it is being worked on.
    maintenance: Option<Flag>,
    /// What its next build is built and run on.
    build_stack: Option<Reference>,
}

/// The buildpacks of an app, all at once.
#[derive(Deserialize, ToSchema)]
pub(super) struct SetBuildpacks {
    /// In the order in which they run.
    updates: Option<Vec<SetBuildpack>>,
}

/// One buildpack.
#[derive(Deserialize, ToSchema)]
pub(super) struct SetBuildpack {
    /// Its id.
    buildpack: Text,
}

/// An app.
#[derive(Serialize, ToSchema)]
#[schema(as = App)]
pub(super) struct AppAnswer {
    acm: bool,
    archived_at: Option<Time>,
    base_image_name: Option<String>,
    build_stack: Named,
    buildpack_provided_description: Option<String>,
    buildpacks: Vec<Named>,
    /// Always `complete`.
    create_status: &'static str,
    created_at: Time,
    current_build_architecture: Vec<String>,
    generation: &'static str,
    /// Where to push to.
    git_url: String,
    id: Id,
    internal_routing: bool,
    /// Whether its visitors see that it is being worked on.
    maintenance: bool,
    name: String,
    organization: Option<Named>,
    owner: UserAnswer,
    region: Named,
    /// When its last release was made.
    released_at: Option<Time>,
    repo_size: Option<u64>,
    slug_size: Option<u64>,
    space: Option<Named>,
    stack: Named,
    /// Where to push to over SSH.
    ssh_url: Option<String>,
    team: Option<Named>,
    updated_at: Time,
    /// Where it answers.
    web_url: String,
}

/// A buildpack that an app is built with.
#[derive(Serialize, ToSchema)]
#[schema(as = BuildpackInstallation)]
pub(super) struct InstallationAnswer {
    ordinal: usize,
    buildpack: BuildpackAnswer,
}

/// A buildpack.
#[derive(Serialize, ToSchema)]
#[schema(as = Buildpack)]
pub(super) struct BuildpackAnswer {
    url: String,
    name: String,
}

/// `GET /apps`, `GET /users/{user}/apps`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    range: Range,
) -> Result<Page<AppAnswer>, ApiError> {
    let Part { items, field, next } = controller.store.apps_slice(actor.user.id, &range.0).await?;
    let items = items.iter().map(|app| answer(&controller.settings, app)).collect::<Result<_, _>>()?;
    Ok(range.part(Part { items, field, next }))
}

/// `POST /apps`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<CreateApp>,
) -> Result<Created<AppAnswer>, ApiError> {
    if let Some(Reference(region)) = wish.region {
        catalog::check_region(&region)?;
    }
    let request =
        AppRequest { name: wish.name.map(|it| it.0), stack: wish.stack.map(|it| it.0), team: wish.team.map(|it| it.0) };
    let app = controller.create_app(&actor, request).await?;
    Ok(Created(answer(&controller.settings, &app)?))
}

/// `GET /apps/{app}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<AppAnswer>, ApiError> {
    Ok(Json(answer(&controller.settings, &access.app)?))
}

/// `PATCH /apps/{app}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<UpdateApp>,
) -> Result<Json<AppAnswer>, ApiError> {
    let update = AppUpdate {
        name: wish.name.map(|it| it.0),
        maintenance: wish.maintenance.map(|it| it.0),
        stack: wish.build_stack.map(|it| it.0),
        buildpacks: None,
    };
    let app = controller.update_app(&access.app, &access.actor, update).await?;
    Ok(Json(answer(&controller.settings, &app)?))
}

/// `DELETE /apps/{app}`: if it has volumes, it must be said what becomes of their data.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    fate: Fate,
) -> Result<Json<AppAnswer>, ApiError> {
    let gone = answer(&controller.settings, &access.app)?;
    controller.delete_app(&access.app, &access.actor, fate.data).await?;
    Ok(Json(gone))
}

/// `GET /apps/{app}/buildpack-installations`
pub(super) async fn buildpacks(access: Access) -> List<InstallationAnswer> {
    installations(&access.app)
}

/// `PUT /apps/{app}/buildpack-installations`: the whole list at once; the next build uses it.
pub(super) async fn set_buildpacks(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<SetBuildpacks>,
) -> Result<List<InstallationAnswer>, ApiError> {
    let buildpacks: Vec<_> = wish.updates.unwrap_or_default().into_iter().map(|update| update.buildpack.0).collect();
    if buildpacks.len() > MAX_BUILDPACKS {
        return Err(ApiError::invalid(format!("updates can have at most {MAX_BUILDPACKS} buildpacks")));
    }
    for name in &buildpacks {
        name.parse::<builder::Reference>().map_err(|error| ApiError::invalid(error.to_string()))?;
    }
    let update = AppUpdate { buildpacks: Some(buildpacks), ..AppUpdate::default() };
    let app = controller.update_app(&access.app, &access.actor, update).await?;
    Ok(installations(&app))
}

impl BuildpackAnswer {
    pub(super) fn new(name: &str) -> Self {
        Self { url: name.to_owned(), name: name.to_owned() }
    }
}

fn installations(app: &App) -> List<InstallationAnswer> {
    let buildpacks = app.buildpacks.iter().map(|name| BuildpackAnswer::new(name));
    List(buildpacks.enumerate().map(|(ordinal, buildpack)| InstallationAnswer { ordinal, buildpack }).collect())
}

pub(super) fn answer(settings: &Settings, app: &App) -> Result<AppAnswer, Error> {
    let host = settings.default_host(&app.name).map_err(|rule| Error::Invalid(rule.to_string()))?;
    let stack = Named::new(catalog::STACK_ID, &app.stack);
    Ok(AppAnswer {
        acm: app.acm,
        archived_at: None,
        base_image_name: None,
        build_stack: stack.clone(),
        buildpack_provided_description: None,
        buildpacks: Vec::new(),
        create_status: "complete",
        created_at: app.created_at.into(),
        current_build_architecture: Vec::new(),
        // "fir" would make clients expect other names of dynos and other logs.
        generation: "cedar",
        git_url: settings.https_git_url(&app.name),
        id: Id::of(&app.id),
        internal_routing: false,
        maintenance: app.maintenance,
        name: app.name.to_string(),
        organization: None,
        owner: owner(app),
        region: Named::new(catalog::REGION_ID, catalog::REGION),
        released_at: app.released_at.map(Time::from),
        repo_size: None,
        slug_size: None,
        space: None,
        stack,
        ssh_url: settings.ssh_url(&app.name),
        team: app.team.as_ref().map(|team| Named::new(&team.id, &team.name)),
        updated_at: app.updated_at.into(),
        web_url: format!("{}/", settings.public_url(&host)),
    })
}

/// Clients tell the apps of teams by this domain (heroku-cli, `isTeamApp`).
fn owner(app: &App) -> UserAnswer {
    match &app.team {
        Some(team) => UserAnswer::new(&team.id, &format!("{}@herokumanager.com", team.name)),
        None => UserAnswer::from(&app.owner),
    }
}
