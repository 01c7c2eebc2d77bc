//! What holds releases back. Heroku has no word for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use model::{Role, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Access, scope_of_team};
use super::error::ApiError;
use super::input::{Body, Text};
use super::output::{Created, Id, List, Named, Time, UserAnswer, team_of};
use crate::store::{App, AppScope, FreezeWindow, Lock};
use crate::{Actor, Controller};

/// A lock.
#[derive(Deserialize, ToSchema)]
pub(super) struct SetLock {
    /// Why, for whoever is stopped by it; at most 500 characters.
    message: Option<Text>,
}

/// A time in which nothing is deployed.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateFreezeWindow {
    /// `fri 16:00 - mon 08:00 Europe/Berlin` is a part of every week, `2026-12-23 18:00 - 2027-01-02 UTC` is once.
    period: Text,
    /// Why, for whoever is stopped by it; at most 500 characters.
    reason: Option<Text>,
}

/// A lock: nobody deploys or configures the app until it ends.
#[derive(Serialize, ToSchema)]
#[schema(as = Lock)]
pub(super) struct LockAnswer {
    app: Named,
    created_at: Time,
    message: Option<String>,
    /// Who locked it.
    user: UserAnswer,
}

/// A freeze window: nobody deploys or configures the apps meanwhile.
#[derive(Serialize, ToSchema)]
#[schema(as = FreezeWindow)]
pub(super) struct FreezeWindowAnswer {
    /// When it ends, if it is now.
    active_until: Option<Time>,
    /// The app that it is for; null if it is for more.
    app: Option<Named>,
    created_at: Time,
    id: Id,
    /// Whether it is past and does not come again.
    over: bool,
    /// When, as it was said: `fri 16:00 - mon 08:00 Europe/Berlin`.
    period: String,
    reason: Option<String>,
    /// The team for whose apps it is; null, as the app, if it is for all.
    team: Option<Named>,
    /// Who made it.
    user: UserAnswer,
}

/// `GET /apps/{app}/lock`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<LockAnswer>, ApiError> {
    let lock = controller.find_lock(&access.app).await?;
    Ok(Json(locked(&access.app, &lock)))
}

/// `PUT /apps/{app}/lock`
pub(super) async fn set(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<SetLock>,
) -> Result<Json<LockAnswer>, ApiError> {
    let message = wish.message.map(|text| text.0);
    let lock = controller.lock(&access.app, &access.actor, message.as_deref()).await?;
    Ok(Json(locked(&access.app, &lock)))
}

/// `DELETE /apps/{app}/lock`
pub(super) async fn end(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<LockAnswer>, ApiError> {
    let lock = controller.unlock(&access.app, &access.actor).await?;
    Ok(Json(locked(&access.app, &lock)))
}

/// `GET /apps/{app}/freeze-windows`: its own, its team's and the platform's.
pub(super) async fn list_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<FreezeWindowAnswer>, ApiError> {
    let windows = controller.store.freezes_over(&access.app).await?;
    Ok(all(&controller, &windows, Some(&access.app)))
}

/// `POST /apps/{app}/freeze-windows`
pub(super) async fn create_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<CreateFreezeWindow>,
) -> Result<Created<FreezeWindowAnswer>, ApiError> {
    let window = create(&controller, &access.actor, AppScope::App(access.app.id), wish).await?;
    Ok(Created(answer(&window, Some(&access.app), controller.clock.now())))
}

/// `DELETE /apps/{app}/freeze-windows/{window}`
pub(super) async fn delete_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<FreezeWindowAnswer>, ApiError> {
    let window = delete(&controller, &access.actor, (&AppScope::App(access.app.id), &id)).await?;
    Ok(Json(answer(&window, Some(&access.app), controller.clock.now())))
}

/// `GET /teams/{team}/freeze-windows`
pub(super) async fn list_of_team(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
) -> Result<List<FreezeWindowAnswer>, ApiError> {
    let scope = scope_of_team(&controller, &actor, (&team, Role::View)).await?;
    Ok(all(&controller, &controller.store.freezes(&scope).await?, None))
}

/// `POST /teams/{team}/freeze-windows`
pub(super) async fn create_of_team(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
    Body(wish): Body<CreateFreezeWindow>,
) -> Result<Created<FreezeWindowAnswer>, ApiError> {
    let scope = scope_of_team(&controller, &actor, (&team, Role::Manage)).await?;
    let window = create(&controller, &actor, scope, wish).await?;
    Ok(Created(answer(&window, None, controller.clock.now())))
}

/// `DELETE /teams/{team}/freeze-windows/{window}`
pub(super) async fn delete_of_team(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path((team, id)): Path<(String, String)>,
) -> Result<Json<FreezeWindowAnswer>, ApiError> {
    let scope = scope_of_team(&controller, &actor, (&team, Role::Manage)).await?;
    let window = delete(&controller, &actor, (&scope, &id)).await?;
    Ok(Json(answer(&window, None, controller.clock.now())))
}

/// `GET /freeze-windows`: those of the whole platform.
pub(super) async fn list(State(controller): State<Arc<Controller>>) -> Result<List<FreezeWindowAnswer>, ApiError> {
    Ok(all(&controller, &controller.store.freezes(&AppScope::Platform).await?, None))
}

/// `POST /freeze-windows`
pub(super) async fn create_of_all(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<CreateFreezeWindow>,
) -> Result<Created<FreezeWindowAnswer>, ApiError> {
    let window = create(&controller, &actor, AppScope::Platform, wish).await?;
    Ok(Created(answer(&window, None, controller.clock.now())))
}

/// `DELETE /freeze-windows/{window}`
pub(super) async fn delete_of_all(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(id): Path<String>,
) -> Result<Json<FreezeWindowAnswer>, ApiError> {
    let window = delete(&controller, &actor, (&AppScope::Platform, &id)).await?;
    Ok(Json(answer(&window, None, controller.clock.now())))
}

async fn create(
    controller: &Controller,
    actor: &Actor,
    scope: AppScope,
    wish: CreateFreezeWindow,
) -> Result<FreezeWindow, ApiError> {
    let reason = wish.reason.map(|text| text.0);
    Ok(controller.freeze(actor, scope, (&wish.period.0, reason.as_deref())).await?)
}

async fn delete(
    controller: &Controller,
    actor: &Actor,
    (scope, id): (&AppScope, &str),
) -> Result<FreezeWindow, ApiError> {
    let window = controller.find_freeze(scope, id).await?;
    controller.unfreeze(actor, &window).await?;
    Ok(window)
}

fn all(controller: &Controller, windows: &[FreezeWindow], app: Option<&App>) -> List<FreezeWindowAnswer> {
    let now = controller.clock.now();
    List(windows.iter().map(|window| answer(window, app, now)).collect())
}

fn locked(app: &App, lock: &Lock) -> LockAnswer {
    LockAnswer {
        app: Named::from(app),
        created_at: lock.created_at.into(),
        message: lock.message.clone(),
        user: UserAnswer::from(&lock.by),
    }
}

/// `app` is the one that a window of an app is of.
fn answer(window: &FreezeWindow, app: Option<&App>, now: Timestamp) -> FreezeWindowAnswer {
    FreezeWindowAnswer {
        active_until: window.period.end_of(now).map(Time::from),
        app: app.filter(|_| matches!(window.scope, AppScope::App(_))).map(Named::from),
        created_at: window.created_at.into(),
        id: Id::of(&window.id),
        over: window.period.is_over(now),
        period: window.period.to_string(),
        reason: window.reason.clone(),
        team: team_of(&window.scope),
        user: UserAnswer::from(&window.by),
    }
}
