//! Which apps reach which others. Heroku has no word for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Reference, Text};
use super::output::{Created, List, Named, Time};
use crate::Controller;
use crate::store::{App, AppLink};

/// A link to another app.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateLink {
    /// The app to reach, by name or id.
    app: Reference,
    /// `STOCK` makes the config var `STOCK_URL`; the app's own name if missing.
    name: Option<Text>,
}

/// An app that another one reaches.
#[derive(Serialize, ToSchema)]
#[schema(as = Link)]
pub(super) struct LinkAnswer {
    /// Whose instances come.
    app: Named,
    created_at: Time,
    /// Of its config var: `STOCK` of `STOCK_URL`.
    name: String,
    /// Whom they reach.
    target: Named,
    /// Where.
    url: String,
}

/// `GET /apps/{app}/links`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<LinkAnswer>, ApiError> {
    let links = controller.links(&access.app).await?;
    Ok(List(links.iter().map(|link| answer(&controller, &access.app, link)).collect()))
}

/// `POST /apps/{app}/links`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<CreateLink>,
) -> Result<Created<LinkAnswer>, ApiError> {
    let name = wish.name.map(|name| name.0);
    let link = controller.add_link(&access.app, &access.actor, &wish.app.0, name.as_deref()).await?;
    Ok(Created(answer(&controller, &access.app, &link)))
}

/// `DELETE /apps/{app}/links/{link}`: by the other app's name or id, or the link's own name.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<LinkAnswer>, ApiError> {
    let link = controller.find_link(&access.app, &reference).await?;
    controller.remove_link(&access.app, &access.actor, &link).await?;
    Ok(Json(answer(&controller, &access.app, &link)))
}

fn answer(controller: &Controller, app: &App, link: &AppLink) -> LinkAnswer {
    LinkAnswer {
        app: Named::from(app),
        created_at: link.created_at.into(),
        name: link.name.clone(),
        target: Named::new(&link.target, &link.target_name),
        url: controller.link_url(link),
    }
}
