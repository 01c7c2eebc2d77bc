//! The repository elsewhere that an app is deployed from. Heroku has no such resource in its public API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Access, MayBeHeld};
use super::builds::{self, BuildAnswer};
use super::error::ApiError;
use super::input::{Body, Text};
use super::output::{Created, Id, Named, Time, UserAnswer};
use crate::store::{App, Repository};
use crate::{Controller, Error};

/// A repository to deploy from.
#[derive(Deserialize, ToSchema)]
pub(super) struct SetRepository {
    /// `https` or `http`; a private one takes a token: `https://user:token@host/path`.
    url: Text,
    /// Which branch is deployed; `main` if not said.
    branch: Option<Text>,
}

/// A repository elsewhere that an app is deployed from.
#[derive(Serialize, ToSchema)]
#[schema(as = Repository)]
pub(super) struct RepositoryAnswer {
    app: Named,
    branch: String,
    created_at: Time,
    id: Id,
    updated_at: Time,
    /// Without name and password.
    url: String,
    /// Who linked it: what its webhook deploys is theirs.
    user: UserAnswer,
    webhook: RepositoryWebhook,
}

/// What to tell the code host, so that it tells the platform of pushes.
#[derive(Serialize, ToSchema)]
pub(super) struct RepositoryWebhook {
    /// Signs its requests; GitLab calls it the secret token.
    secret: String,
    /// Where they go.
    url: String,
}

/// `GET /apps/{app}/repository`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<RepositoryAnswer>, ApiError> {
    let linked = controller.find_repository(&access.app).await?;
    Ok(Json(answer(&controller, &access.app, linked)))
}

/// `PUT /apps/{app}/repository`: it is fetched to see that it can be; nothing is deployed yet.
pub(super) async fn set(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<SetRepository>,
) -> Result<Json<RepositoryAnswer>, ApiError> {
    let branch = wish.branch.as_ref().map(|branch| branch.0.as_str());
    let linked = controller.link_repository(&access.app, &access.actor, (&wish.url.0, branch)).await?;
    Ok(Json(answer(&controller, &access.app, linked)))
}

/// `DELETE /apps/{app}/repository`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<RepositoryAnswer>, ApiError> {
    let linked = controller.unlink_repository(&access.app, &access.actor).await?;
    Ok(Json(answer(&controller, &access.app, linked)))
}

/// `POST /apps/{app}/repository/deploys`: fetches it and builds what is new.
pub(super) async fn deploy(
    State(controller): State<Arc<Controller>>,
    access: Access,
    _: MayBeHeld,
) -> Result<Created<BuildAnswer>, ApiError> {
    let build = controller.deploy_linked(&access.app, &access.actor).await?;
    let build =
        build.ok_or_else(|| Error::Conflict("What is linked is deployed already: nothing is new there.".to_owned()))?;
    Ok(Created(builds::answer(&controller.settings, &access.app, &build)))
}

fn answer(controller: &Controller, app: &App, linked: Repository) -> RepositoryAnswer {
    RepositoryAnswer {
        app: Named::from(app),
        created_at: linked.created_at.into(),
        id: Id::of(&linked.id),
        updated_at: linked.updated_at.into(),
        url: linked.shown_url(),
        user: UserAnswer::from(&linked.user),
        webhook: RepositoryWebhook { url: controller.hook_url(&linked), secret: linked.secret },
        branch: linked.branch,
    }
}
