//! Teams, and who is in them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use model::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::apps::{AppAnswer, answer as app_answer};
use super::collaborators::{Permission, permissions};
use super::error::ApiError;
use super::input::{Body, Text};
use super::output::{Created, Id, List, Named, Time, UserAnswer};
use super::range::{Page, Range};
use crate::store::{Member, Team};
use crate::{Actor, Controller, Error};

/// A new team.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateTeam {
    /// Its name.
    name: Text,
}

/// What a team is to become.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateTeam {
    /// Its new name.
    name: Option<Text>,
}

/// Somebody's place in a team.
#[derive(Deserialize, ToSchema)]
pub(super) struct SetMember {
    /// Their address.
    email: Text,
    /// view, deploy, operate, manage or admin, on all its apps; Heroku's member means operate, viewer means view.
    role: Text,
}

/// People who own apps together.
#[derive(Serialize, ToSchema)]
#[schema(as = Team)]
pub(super) struct TeamAnswer {
    created_at: Time,
    credit_card_collections: bool,
    default: bool,
    enterprise_account: Option<Named>,
    id: Id,
    identity_provider: Option<Named>,
    membership_limit: Option<u64>,
    name: String,
    pipeline_cost_consent_at: Option<Time>,
    pipeline_cost_consent_user_email: Option<String>,
    provisioned_licenses: bool,
    /// admin or member: what whoever asks is, as Heroku has it.
    role: &'static str,
    /// What whoever asks may do with its apps.
    permissions: Vec<Permission>,
    /// Always `team`.
    r#type: &'static str,
    updated_at: Time,
}

/// Somebody in a team.
#[derive(Serialize, ToSchema)]
#[schema(as = TeamMember)]
pub(super) struct MemberAnswer {
    created_at: Time,
    email: String,
    federated: bool,
    id: Id,
    identity_provider: Option<Named>,
    /// admin or member, as Heroku has it.
    role: &'static str,
    /// What they may do with the team's apps.
    permissions: Vec<Permission>,
    two_factor_authentication: bool,
    updated_at: Time,
    user: UserAnswer,
}

/// `GET /teams`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    range: Range,
) -> Result<Page<TeamAnswer>, ApiError> {
    let teams = controller.store.teams_of(actor.user.id).await?;
    Ok(range.page(teams.iter().map(answer), "name"))
}

/// `POST /teams`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<CreateTeam>,
) -> Result<Created<TeamAnswer>, ApiError> {
    Ok(Created(answer(&controller.create_team(&actor, &wish.name.0).await?)))
}

/// `GET /teams/{team}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
) -> Result<Json<TeamAnswer>, ApiError> {
    Ok(Json(answer(&controller.find_team(&actor, &team, Role::View).await?)))
}

/// `PATCH /teams/{team}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
    Body(wish): Body<UpdateTeam>,
) -> Result<Json<TeamAnswer>, ApiError> {
    let mut team = controller.find_team(&actor, &team, Role::Admin).await?;
    if let Some(Text(name)) = wish.name {
        team = controller.rename_team(&actor, &team, &name).await?;
    }
    Ok(Json(answer(&team)))
}

/// `DELETE /teams/{team}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
) -> Result<Json<TeamAnswer>, ApiError> {
    let team = controller.find_team(&actor, &team, Role::Admin).await?;
    controller.delete_team(&actor, &team).await?;
    Ok(Json(answer(&team)))
}

/// `GET /teams/{team}/apps`
pub(super) async fn apps(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
    range: Range,
) -> Result<Page<AppAnswer>, ApiError> {
    let team = controller.find_team(&actor, &team, Role::View).await?;
    let apps = controller.apps_of_team(&team).await?;
    let items = apps.iter().map(|app| app_answer(&controller.settings, app)).collect::<Result<Vec<_>, _>>()?;
    Ok(range.page(items, "name"))
}

/// `GET /teams/{team}/members`
pub(super) async fn members(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
    range: Range,
) -> Result<Page<MemberAnswer>, ApiError> {
    let team = controller.find_team(&actor, &team, Role::View).await?;
    let members = controller.store.members(team.id).await?;
    Ok(range.page(members.iter().map(member_answer), "email"))
}

/// `POST`, `PUT` and `PATCH /teams/{team}/members`: of somebody who is in it already, it changes the role.
pub(super) async fn set_member(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
    Body(wish): Body<SetMember>,
) -> Result<Json<MemberAnswer>, ApiError> {
    let team = controller.find_team(&actor, &team, Role::Admin).await?;
    let role = member_role(&wish.role.0)?;
    Ok(Json(member_answer(&controller.set_member(&actor, &team, (&wish.email.0, role)).await?)))
}

/// `DELETE /teams/{team}/members/{member}`
pub(super) async fn remove_member(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path((team, member)): Path<(String, String)>,
) -> Result<Json<MemberAnswer>, ApiError> {
    let team = controller.find_team(&actor, &team, Role::View).await?;
    Ok(Json(member_answer(&controller.remove_member(&actor, &team, &member).await?)))
}

/// `GET /teams/{team}/members/{member}/apps`: what a member may see by the team, which is all that it owns.
pub(super) async fn apps_of_member(
    state: State<Arc<Controller>>,
    actor: Actor,
    Path((name, member)): Path<(String, String)>,
    range: Range,
) -> Result<Page<AppAnswer>, ApiError> {
    let team = state.0.find_team(&actor, &name, Role::View).await?;
    state.0.find_member(&team, &member).await?;
    apps(state, actor, Path(name), range).await
}

/// `GET /teams/{team}/features`: clients look here for whether members have different rights.
pub(super) async fn features(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(team): Path<String>,
) -> Result<List<TeamFeature>, ApiError> {
    let team = controller.find_team(&actor, &team, Role::View).await?;
    Ok(List(vec![TeamFeature {
        created_at: team.created_at.into(),
        description: "Each collaborator has a role of their own",
        display_name: "Access controls",
        doc_url: String::new(),
        enabled: true,
        feedback_email: String::new(),
        id: Id::of(&team.id),
        name: "org-access-controls",
        state: "general",
        updated_at: team.created_at.into(),
    }]))
}

/// Something that a team has, by a name that clients know.
#[derive(Serialize, ToSchema)]
pub(super) struct TeamFeature {
    created_at: Time,
    description: &'static str,
    display_name: &'static str,
    doc_url: String,
    enabled: bool,
    feedback_email: String,
    id: Id,
    name: &'static str,
    state: &'static str,
    updated_at: Time,
}

/// A role in a team, in our words or Heroku's.
pub(super) fn member_role(word: &str) -> Result<Role, Error> {
    match word {
        "owner" => Ok(Role::Admin),
        "member" => Ok(Role::Operate),
        "viewer" | "collaborator" => Ok(Role::View),
        word => Ok(word.parse()?),
    }
}

/// As Heroku has it.
pub(super) fn heroku_role(role: Role) -> &'static str {
    if role == Role::Admin { "admin" } else { "member" }
}

fn answer(team: &Team) -> TeamAnswer {
    TeamAnswer {
        created_at: team.created_at.into(),
        credit_card_collections: false,
        default: false,
        enterprise_account: None,
        id: Id::of(&team.id),
        identity_provider: None,
        membership_limit: None,
        name: team.name.to_string(),
        pipeline_cost_consent_at: None,
        pipeline_cost_consent_user_email: None,
        provisioned_licenses: false,
        role: heroku_role(team.role),
        permissions: permissions(team.role),
        r#type: "team",
        updated_at: team.updated_at.into(),
    }
}

fn member_answer(member: &Member) -> MemberAnswer {
    MemberAnswer {
        created_at: member.created_at.into(),
        email: member.user.email.to_string(),
        federated: false,
        id: Id::of(&member.id),
        identity_provider: None,
        role: heroku_role(member.role),
        permissions: permissions(member.role),
        two_factor_authentication: member.two_factor,
        updated_at: member.updated_at.into(),
        user: UserAnswer::from(&member.user),
    }
}
