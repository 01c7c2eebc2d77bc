//! Invitations to the platform and to teams. The link is told once, to whoever invites.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use model::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ApiError;
use super::input::{Body, Text};
use super::output::{Created, Id, Named, Time, UserAnswer};
use super::range::{Page, Range};
use super::teams::{heroku_role, member_role};
use crate::store::{Invitation, Place};
use crate::{Actor, Controller};

/// Somebody to invite to the platform.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateInvitation {
    /// Their address.
    email: Text,
}

/// Somebody to invite to a team.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateTeamInvitation {
    /// Their address.
    email: Text,
    /// What they may do with the team's apps; Heroku's member means operate, viewer means view.
    role: Text,
}

/// Somebody who may come in.
#[derive(Serialize, ToSchema)]
#[schema(as = Invitation)]
pub(super) struct InvitationAnswer {
    /// The app that they are to work on.
    app: Option<Named>,
    created_at: Time,
    expires_at: Time,
    id: Id,
    invited_by: UserAnswer,
    /// admin or member, as Heroku has it; null for an invitation to the platform alone.
    role: Option<&'static str>,
    team: Option<Named>,
    updated_at: Time,
    /// Where to accept, for whoever is invited. Null but in the answer that makes it.
    url: Option<String>,
    user: Invitee,
}

/// Whom an invitation is for.
#[derive(Serialize, ToSchema)]
pub(super) struct Invitee {
    id: Option<Id>,
    email: String,
    name: Option<String>,
}

/// `GET /invitations`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    range: Range,
) -> Result<Page<InvitationAnswer>, ApiError> {
    let invitations = controller.invitations(&Place::Platform).await?;
    Ok(range.page(invitations.iter().map(|one| answer(one, None)), "created_at"))
}

/// `POST /invitations`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<CreateInvitation>,
) -> Result<Created<InvitationAnswer>, ApiError> {
    let made = controller.invite(&actor, &wish.email.0).await?;
    Ok(Created(answer(&made.invitation, Some(made.url))))
}

/// `DELETE /invitations/{invitation}`: by its id or its address.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
) -> Result<Json<InvitationAnswer>, ApiError> {
    Ok(Json(answer(&controller.uninvite(&actor, &Place::Platform, &reference).await?, None)))
}

/// `GET /teams/{team}/invitations`
pub(super) async fn list_of_team(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
    range: Range,
) -> Result<Page<InvitationAnswer>, ApiError> {
    let team = controller.find_team(&actor, &team, Role::View).await?;
    let invitations = controller.invitations(&Place::Team(team.to_ref())).await?;
    Ok(range.page(invitations.iter().map(|one| answer(one, None)), "created_at"))
}

/// `PUT /teams/{team}/invitations`: another one for the same address replaces the first.
pub(super) async fn create_of_team(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
    Body(wish): Body<CreateTeamInvitation>,
) -> Result<Created<InvitationAnswer>, ApiError> {
    let team = controller.find_team(&actor, &team, Role::Admin).await?;
    let role = member_role(&wish.role.0)?;
    let made = controller.invite_to_team(&actor, &wish.email.0, (&team, role)).await?;
    Ok(Created(answer(&made.invitation, Some(made.url))))
}

/// `DELETE /teams/{team}/invitations/{invitation}`: by its id or its address.
pub(super) async fn delete_of_team(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path((team, reference)): Path<(String, String)>,
) -> Result<Json<InvitationAnswer>, ApiError> {
    let team = controller.find_team(&actor, &team, Role::Admin).await?;
    Ok(Json(answer(&controller.uninvite(&actor, &Place::Team(team.to_ref()), &reference).await?, None)))
}

/// `GET /teams/invitations/{token}`: what a link is good for. Whoever has the link may know.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    Path(secret): Path<String>,
) -> Result<Json<InvitationAnswer>, ApiError> {
    Ok(Json(answer(&controller.find_invitation(&secret).await?, None)))
}

/// `POST /teams/invitations/{token}/accept`: by whom it is for, once they are a user.
pub(super) async fn accept(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(secret): Path<String>,
) -> Result<Json<InvitationAnswer>, ApiError> {
    Ok(Json(answer(&controller.join(&actor, &secret).await?, None)))
}

fn answer(invitation: &Invitation, url: Option<String>) -> InvitationAnswer {
    let (app, team) = match &invitation.place {
        Place::Platform => (None, None),
        Place::Team(team) => (None, Some(Named::new(&team.id, &team.name))),
        Place::App(id, name) => (Some(Named::new(id, name)), None),
    };
    InvitationAnswer {
        app,
        created_at: invitation.created_at.into(),
        expires_at: invitation.expires_at.into(),
        id: Id::of(&invitation.id),
        invited_by: UserAnswer::from(&invitation.invited_by),
        role: invitation.role.map(heroku_role),
        team,
        updated_at: invitation.updated_at.into(),
        url,
        user: Invitee { id: None, email: invitation.email.to_string(), name: None },
    }
}
