//! Who works on an app, and what each may do. Heroku has one set of paths for the apps of users and one for those of teams;
//! here both mean the same.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use model::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Reference, Text};
use super::output::{Created, Id, List, Named, Time, Warned};
use super::range::{Page, Range};
use crate::store::{App, Collaborator};
use crate::{Controller, Error};

/// What a collaborator may do of whom nobody says it: what Heroku's may.
const USUAL: Role = Role::Operate;

/// Somebody who is to work on an app.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateCollaborator {
    /// Their address.
    user: Reference,
    /// view, deploy, operate, manage or admin; the highest counts. Without it, operate.
    permissions: Option<Vec<Reference>>,
    /// The same in one word.
    role: Option<Text>,
}

/// What a collaborator is to do.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateCollaborator {
    /// view, deploy, operate, manage or admin; the highest counts.
    permissions: Option<Vec<Reference>>,
    /// The same in one word.
    role: Option<Text>,
}

/// Somebody who works on an app.
#[derive(Serialize, ToSchema)]
#[schema(as = Collaborator)]
pub(super) struct CollaboratorAnswer {
    app: Named,
    created_at: Time,
    id: Id,
    /// What they may do: a role, and all below it.
    permissions: Vec<Permission>,
    /// owner, admin or collaborator, as Heroku has it. Null for who is no user yet and has to accept an invitation first; until
    /// then their ids are those of the invitation.
    role: Option<&'static str>,
    updated_at: Time,
    user: CollaboratingUser,
}

/// Who that is.
#[derive(Serialize, ToSchema)]
pub(super) struct CollaboratingUser {
    id: Id,
    email: String,
    federated: bool,
}

/// What somebody may do with an app.
#[derive(Serialize, ToSchema)]
pub(super) struct Permission {
    name: String,
    description: &'static str,
}

/// `GET /apps/{app}/collaborators`, `GET /teams/apps/{app}/collaborators`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<CollaboratorAnswer>, ApiError> {
    let collaborators = controller.collaborators(&access.app).await?;
    let items = collaborators.iter().map(|collaborator| answer(&access.app, collaborator));
    Ok(range.page(items, "created_at"))
}

/// `POST /apps/{app}/collaborators`, `POST /teams/apps/{app}/collaborators`: who is no user yet is invited.
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<CreateCollaborator>,
) -> Result<Warned<Created<CollaboratorAnswer>>, ApiError> {
    let role = role(wish.role, wish.permissions)?.unwrap_or(USUAL);
    let (made, link) = controller.set_collaborator(&access.actor, &access.app, (&wish.user.0, role)).await?;
    Ok(Warned(warning(&made, link), Created(answer(&access.app, &made))))
}

/// `GET /apps/{app}/collaborators/{collaborator}` and its like for teams.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<CollaboratorAnswer>, ApiError> {
    let known = controller.find_collaborator(&access.app, &reference).await?;
    Ok(Json(answer(&access.app, &known)))
}

/// `PATCH /apps/{app}/collaborators/{collaborator}` and its like for teams.
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
    Body(wish): Body<UpdateCollaborator>,
) -> Result<Warned<Json<CollaboratorAnswer>>, ApiError> {
    let role = role(wish.role, wish.permissions)?.ok_or_else(|| ApiError::invalid("permissions is missing"))?;
    let known = controller.find_collaborator(&access.app, &reference).await?;
    let email = known.user.email.as_str();
    let (changed, link) = controller.set_collaborator(&access.actor, &access.app, (email, role)).await?;
    Ok(Warned(warning(&changed, link), Json(answer(&access.app, &changed))))
}

/// `DELETE /apps/{app}/collaborators/{collaborator}` and its like for teams. Everybody may go, so the table asks for little;
/// the verb asks for more where it is somebody else.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<CollaboratorAnswer>, ApiError> {
    let gone = controller.remove_collaborator(&access.actor, &access.app, &reference).await?;
    Ok(Json(answer(&access.app, &gone)))
}

/// `GET /teams/permissions`: every role that there is.
pub(super) async fn permissions_list() -> List<Permission> {
    List(permissions(Role::Admin))
}

/// A role and all below it.
pub(super) fn permissions(role: Role) -> Vec<Permission> {
    let permission = |role: Role| Permission { name: role.to_string(), description: describe(role) };
    Role::ALL.into_iter().filter(|each| *each <= role).map(permission).collect()
}

/// The role that a client names by itself or by a list of permissions.
pub(super) fn role(role: Option<Text>, permissions: Option<Vec<Reference>>) -> Result<Option<Role>, Error> {
    let names = role.map(|role| role.0).into_iter().chain(permissions.into_iter().flatten().map(|name| name.0));
    let roles: Vec<Role> = names.map(|name| name.parse()).collect::<Result<Vec<_>, _>>()?;
    Ok(roles.into_iter().max())
}

const fn describe(role: Role) -> &'static str {
    match role {
        Role::View => "Look at it",
        Role::Deploy => "Push, build and roll back, and see config vars",
        Role::Operate => "Change config vars, domains, add-ons and dynos",
        Role::Manage => "Decide who works on it, and where its logs and events go",
        Role::Admin => "Rename, transfer and destroy it",
    }
}

/// The link goes where every client shows it: Heroku's schema has no place for it in the answer.
fn warning(invited: &Collaborator, link: Option<String>) -> Option<String> {
    link.map(|link| format!("{} is no user of this platform yet. Pass this link on: {link}", invited.user.email))
}

fn answer(app: &App, collaborator: &Collaborator) -> CollaboratorAnswer {
    CollaboratorAnswer {
        app: Named::from(app),
        created_at: collaborator.created_at.into(),
        id: Id::of(&collaborator.id),
        permissions: permissions(collaborator.role),
        role: match collaborator.role {
            _ if collaborator.is_invited => None,
            _ if collaborator.is_owner => Some("owner"),
            Role::Admin => Some("admin"),
            _ => Some("collaborator"),
        },
        updated_at: collaborator.updated_at.into(),
        user: CollaboratingUser {
            id: Id::of(&collaborator.user.id),
            email: collaborator.user.email.to_string(),
            federated: false,
        },
    }
}
