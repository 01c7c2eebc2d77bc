use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Reference, Text};
use super::output::{Id, List, Named, Time};
use super::range::{Page, Range};
use super::sizes::named;
use crate::formation::{ProcessFormation, ScaleRequest};
use crate::sizes::Sizes;
use crate::store::App;
use crate::{Controller, Error};

/// What a process type is to become.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateFormation {
    /// How many dynos: a number or, with a sign, more or less than there are.
    quantity: Option<Text>,
    /// Of which size.
    size: Option<Reference>,
    /// The same.
    dyno_size: Option<Reference>,
}

/// What one of several process types is to become.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateOneFormation {
    /// Which.
    r#type: Text,
    /// How many dynos: a number or, with a sign, more or less than there are.
    quantity: Option<Text>,
    /// Of which size.
    size: Option<Reference>,
    /// The same.
    dyno_size: Option<Reference>,
}

/// What several process types are to become.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateFormations {
    updates: Option<Vec<UpdateOneFormation>>,
}

/// How many dynos of a process type should run.
#[derive(Serialize, ToSchema)]
#[schema(as = Formation)]
pub(super) struct FormationAnswer {
    app: Named,
    command: String,
    created_at: Time,
    dyno_size: Named,
    id: Id,
    quantity: u32,
    size: String,
    r#type: String,
    updated_at: Time,
}

/// `GET /apps/{app}/formation`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<FormationAnswer>, ApiError> {
    let (formation, sizes) = (controller.formation(&access.app).await?, controller.sizes().await?);
    Ok(range.page(formation.iter().map(|process| answer(&access.app, process, &sizes)), "type"))
}

/// `GET /apps/{app}/formation/{type}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<FormationAnswer>, ApiError> {
    let process = find(&controller, &access.app, &reference).await?;
    Ok(Json(answer(&access.app, &process, &controller.sizes().await?)))
}

/// `PATCH /apps/{app}/formation`: all of `updates` or none.
pub(super) async fn batch_update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<UpdateFormations>,
) -> Result<List<FormationAnswer>, ApiError> {
    let updates = wish.updates.unwrap_or_default().into_iter();
    let requests: Vec<_> = updates
        .map(|UpdateOneFormation { r#type, quantity, size, dyno_size }| {
            request(r#type.0, UpdateFormation { quantity, size, dyno_size })
        })
        .collect();
    let changed = controller.scale(&access.app, &access.actor, &requests).await?;
    let sizes = controller.sizes().await?;
    Ok(List(changed.iter().map(|process| answer(&access.app, process, &sizes)).collect()))
}

/// `PATCH /apps/{app}/formation/{type}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
    Body(wish): Body<UpdateFormation>,
) -> Result<Json<FormationAnswer>, ApiError> {
    let process = find(&controller, &access.app, &reference).await?;
    let request = request(process.row.process_type.to_string(), wish);
    let changed = controller.scale(&access.app, &access.actor, &[request]).await?;
    let changed = changed.first().ok_or(Error::NotFound("process type"))?;
    Ok(Json(answer(&access.app, changed, &controller.sizes().await?)))
}

fn request(process_type: String, wish: UpdateFormation) -> ScaleRequest {
    let size = wish.dyno_size.or(wish.size).map(|it| it.0);
    ScaleRequest { process_type, quantity: wish.quantity.map(|it| it.0), size }
}

pub(super) async fn find(controller: &Controller, app: &App, reference: &str) -> Result<ProcessFormation, Error> {
    let named = |process: &ProcessFormation| {
        process.row.process_type.as_str() == reference || process.row.id.to_string() == reference
    };
    controller.formation(app).await?.into_iter().find(named).ok_or(Error::NotFound("process type"))
}

fn answer(app: &App, process: &ProcessFormation, sizes: &Sizes) -> FormationAnswer {
    let row = &process.row;
    FormationAnswer {
        app: Named::from(app),
        command: process.command.clone(),
        created_at: row.created_at.into(),
        dyno_size: named(sizes, &row.size),
        id: Id::of(&row.id),
        quantity: row.quantity,
        size: row.size.clone(),
        r#type: row.process_type.to_string(),
        updated_at: row.updated_at.into(),
    }
}
