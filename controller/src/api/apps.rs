use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::Timestamp;
use serde_json::{Value, json};

use super::auth::Access;
use super::catalog;
use super::error::ApiError;
use super::fields::Fields;
use super::range::{Page, Range};
use crate::accounts::Session;
use crate::apps::{AppRequest, AppUpdate};
use crate::store::App;
use crate::{Controller, Error, Settings};

const MAX_BUILDPACKS: usize = 20;

/// `GET /apps`, `GET /users/{user}/apps`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    session: Session,
    range: Range,
) -> Result<Page, ApiError> {
    let apps = controller.store.apps_of(session.user.id).await?;
    let mut items = Vec::with_capacity(apps.len());
    for app in &apps {
        items.push(wire(&controller.settings, app)?);
    }
    Ok(range.page(items, "name"))
}

/// `POST /apps`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    session: Session,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    if let Some(region) = fields.reference("region")? {
        catalog::check_region(&region)?;
    }
    let request = AppRequest { name: fields.text("name")?, stack: fields.reference("stack")? };
    let app = controller.create_app(&session.user, request).await?;
    Ok((StatusCode::CREATED, Json(wire(&controller.settings, &app)?)))
}

/// `GET /apps/{app}`
pub(super) async fn info(State(controller): State<Arc<Controller>>, access: Access) -> Result<Json<Value>, ApiError> {
    Ok(Json(wire(&controller.settings, &access.app)?))
}

/// `PATCH /apps/{app}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let update = AppUpdate {
        name: fields.text("name")?,
        maintenance: fields.flag("maintenance")?,
        stack: fields.reference("build_stack")?,
        buildpacks: None,
    };
    let app = controller.update_app(&access.app, &access.session.user, update).await?;
    Ok(Json(wire(&controller.settings, &app)?))
}

/// `DELETE /apps/{app}`
pub(super) async fn delete(State(controller): State<Arc<Controller>>, access: Access) -> Result<Json<Value>, ApiError> {
    let gone = wire(&controller.settings, &access.app)?;
    controller.delete_app(&access.app).await?;
    Ok(Json(gone))
}

/// `GET /apps/{app}/buildpack-installations`
pub(super) async fn buildpacks(access: Access) -> Json<Value> {
    Json(buildpacks_wire(&access.app))
}

/// `PUT /apps/{app}/buildpack-installations`: the whole list at once; the next build uses it.
pub(super) async fn set_buildpacks(
    State(controller): State<Arc<Controller>>,
    access: Access,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let mut buildpacks = Vec::new();
    for update in fields.objects("updates")? {
        buildpacks.push(update.required_text("buildpack")?);
    }
    if buildpacks.len() > MAX_BUILDPACKS {
        return Err(ApiError::invalid(format!("updates can have at most {MAX_BUILDPACKS} buildpacks")));
    }
    let update = AppUpdate { buildpacks: Some(buildpacks), ..AppUpdate::default() };
    let app = controller.update_app(&access.app, &access.session.user, update).await?;
    Ok(Json(buildpacks_wire(&app)))
}

/// `GET /apps/{app}/collaborators`
pub(super) async fn collaborators(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page, ApiError> {
    let app = &access.app;
    let collaborators = controller.store.collaborators(app.id).await?;
    let wire = |collaborator: &crate::store::Collaborator| {
        json!({
            "app": { "id": app.id, "name": app.name },
            "created_at": collaborator.created_at.to_rfc3339(),
            "id": collaborator.id,
            "permissions": [],
            "role": collaborator.role,
            "updated_at": collaborator.created_at.to_rfc3339(),
            "user": { "id": collaborator.user.id, "email": collaborator.user.email, "federated": false },
        })
    };
    Ok(range.page(collaborators.iter().map(wire).collect(), "created_at"))
}

fn buildpacks_wire(app: &App) -> Value {
    let wire = |(ordinal, buildpack): (usize, &String)| json!({ "ordinal": ordinal, "buildpack": { "url": buildpack, "name": buildpack } });
    app.buildpacks.iter().enumerate().map(wire).collect()
}

fn wire(settings: &Settings, app: &App) -> Result<Value, Error> {
    let host = settings.default_host(&app.name).map_err(|rule| Error::Invalid(rule.to_string()))?;
    let stack = json!({ "id": catalog::STACK_ID, "name": app.stack });
    Ok(json!({
        "acm": false,
        "archived_at": null,
        "base_image_name": null,
        "build_stack": stack,
        "buildpack_provided_description": null,
        "buildpacks": [],
        "create_status": "complete",
        "created_at": app.created_at.to_rfc3339(),
        "current_build_architecture": [],
        // "fir" would make clients expect other names of dynos and other logs.
        "generation": "cedar",
        "git_url": settings.git_url(&app.name),
        "id": app.id,
        "internal_routing": false,
        "maintenance": app.maintenance,
        "name": app.name,
        "organization": null,
        "owner": { "id": app.owner.id, "email": app.owner.email },
        "region": { "id": catalog::REGION_ID, "name": catalog::REGION },
        "released_at": app.released_at.map(Timestamp::to_rfc3339),
        "repo_size": null,
        "slug_size": null,
        "space": null,
        "stack": stack,
        "team": null,
        "updated_at": app.updated_at.to_rfc3339(),
        "web_url": format!("{}/", settings.public_url(&host)),
    }))
}
