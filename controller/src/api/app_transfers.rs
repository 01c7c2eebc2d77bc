//! Apps on their way to another owner. To a user it takes two: who offers the app, and who takes it. To a team of one's own it
//! is done at once.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use model::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::apps::{AppAnswer, answer as app_answer};
use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Reference, Text};
use super::output::{Created, Id, Named, Time, UserAnswer};
use super::range::{Page, Range};
use crate::apps::AppRequest;
use crate::store::{Offer, OfferState};
use crate::{Actor, Controller};

/// An app to offer.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateTransfer {
    /// Which.
    app: Reference,
    /// The address of who may take it.
    recipient: Reference,
}

/// An answer to an offer.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateTransfer {
    /// accepted or declined.
    state: Text,
}

/// A new app of a team.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateTeamApp {
    /// Its name; one is chosen if it is absent.
    name: Option<Text>,
    /// The team that owns it; without it, whoever asks does.
    team: Option<Reference>,
    /// What it is built and run on.
    stack: Option<Reference>,
}

/// What becomes of an app of a team.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateTeamApp {
    /// The name of a team, or the address of whoever asks.
    owner: Reference,
}

/// An app on its way to another owner.
#[derive(Serialize, ToSchema)]
#[schema(as = AppTransfer)]
pub(super) struct TransferAnswer {
    app: Named,
    created_at: Time,
    id: Id,
    owner: UserAnswer,
    recipient: UserAnswer,
    /// pending, accepted or declined.
    state: String,
    updated_at: Time,
}

/// `GET /account/app-transfers`: those that whoever asks made or got.
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    range: Range,
) -> Result<Page<TransferAnswer>, ApiError> {
    let offers = controller.offers(&actor).await?;
    Ok(range.page(offers.iter().map(answer), "created_at"))
}

/// `POST /account/app-transfers`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<CreateTransfer>,
) -> Result<Created<TransferAnswer>, ApiError> {
    let app = controller.find_app(&actor, &wish.app.0, Role::Admin).await?;
    Ok(Created(answer(&controller.offer_app(&actor, &app, &wish.recipient.0).await?)))
}

/// `GET /account/app-transfers/{transfer}`: by its id or the app's name.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(transfer): Path<String>,
) -> Result<Json<TransferAnswer>, ApiError> {
    Ok(Json(answer(&controller.find_offer(&actor, &transfer).await?)))
}

/// `PATCH /account/app-transfers/{transfer}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(transfer): Path<String>,
    Body(wish): Body<UpdateTransfer>,
) -> Result<Json<TransferAnswer>, ApiError> {
    let accepts = match wish.state.0.parse() {
        Ok(OfferState::Accepted) => true,
        Ok(OfferState::Declined) => false,
        _ => return Err(ApiError::invalid("state must be accepted or declined")),
    };
    let offer = controller.find_offer(&actor, &transfer).await?;
    Ok(Json(answer(&controller.answer_offer(&actor, &offer, accepts).await?)))
}

/// `DELETE /account/app-transfers/{transfer}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(transfer): Path<String>,
) -> Result<Json<TransferAnswer>, ApiError> {
    let offer = controller.find_offer(&actor, &transfer).await?;
    controller.withdraw_offer(&actor, &offer).await?;
    Ok(Json(answer(&offer)))
}

/// `POST /teams/apps`
pub(super) async fn create_app(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<CreateTeamApp>,
) -> Result<Created<AppAnswer>, ApiError> {
    let request =
        AppRequest { name: wish.name.map(|it| it.0), stack: wish.stack.map(|it| it.0), team: wish.team.map(|it| it.0) };
    let app = controller.create_app(&actor, request).await?;
    Ok(Created(app_answer(&controller.settings, &app)?))
}

/// `PATCH /teams/apps/{app}`: to a team of one's own, or back out of it.
pub(super) async fn give_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<UpdateTeamApp>,
) -> Result<Json<AppAnswer>, ApiError> {
    let app = controller.give_app(&access.actor, &access.app, &wish.owner.0).await?;
    Ok(Json(app_answer(&controller.settings, &app)?))
}

fn answer(offer: &Offer) -> TransferAnswer {
    TransferAnswer {
        app: Named::new(&offer.app, &offer.app_name),
        created_at: offer.created_at.into(),
        id: Id::of(&offer.id),
        owner: UserAnswer::from(&offer.owner),
        recipient: UserAnswer::from(&offer.recipient),
        state: offer.state.to_string(),
        updated_at: offer.updated_at.into(),
    }
}
