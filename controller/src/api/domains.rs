use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Flag, Reference, Text};
use super::output::{Created, Id, Named, Time};
use super::range::{Page, Range};
use crate::domains::AppDomain;
use crate::store::{AcmStatus, App};
use crate::{Controller, Error, Settings};

/// A new custom domain.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateDomain {
    /// The host name that its visitors use, and after it a path, if the app is to answer only that and what is below it.
    hostname: Text,
    /// The app does not see the path, but as `X-Forwarded-Prefix`.
    strip: Option<Flag>,
    /// A certificate of the app's that it shows, by name or id.
    sni_endpoint: Option<Reference>,
}

/// What can be changed of a domain.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateDomain {
    /// A certificate of the app's that it shows, by name or id; null for none.
    sni_endpoint: Option<Reference>,
}

/// A host name of an app.
#[derive(Serialize, ToSchema)]
#[schema(as = Domain)]
pub(super) struct DomainAnswer {
    /// How far the platform is with a certificate for it; null unless it shall get one.
    acm_status: Option<&'static str>,
    acm_status_reason: Option<String>,
    app: Named,
    /// What its owner makes it an alias of.
    cname: Option<String>,
    created_at: Time,
    hostname: String,
    id: Id,
    /// `custom`, or `heroku` for the app's own.
    kind: &'static str,
    /// Of the host name, if the app answers only that and what is below it.
    path: Option<String>,
    sni_endpoint: Option<Named>,
    status: &'static str,
    /// Whether the app does not see the path.
    strip: bool,
    updated_at: Time,
}

/// `GET /apps/{app}/domains`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<DomainAnswer>, ApiError> {
    let mut items = Vec::new();
    for domain in controller.domains(&access.app).await? {
        items.push(answer(&controller.settings, &access.app, &domain)?);
    }
    Ok(range.page(items, "hostname"))
}

/// `POST /apps/{app}/domains`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<CreateDomain>,
) -> Result<Created<DomainAnswer>, ApiError> {
    // A wrong one is refused before anything is made.
    if let Some(certificate) = &wish.sni_endpoint {
        controller.find_certificate(&access.app, &certificate.0).await?;
    }
    let mut domain = controller
        .add_domain(&access.app, &access.actor, (&wish.hostname.0, wish.strip.is_some_and(|strip| strip.0)))
        .await?;
    if let Some(certificate) = &wish.sni_endpoint {
        domain = controller.set_certificate(&access.app, &access.actor, (&domain, Some(&certificate.0))).await?;
    }
    Ok(Created(answer(&controller.settings, &access.app, &domain)?))
}

/// `GET /apps/{app}/domains/{domain}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<DomainAnswer>, ApiError> {
    let domain = controller.find_domain(&access.app, &reference).await?;
    Ok(Json(answer(&controller.settings, &access.app, &domain)?))
}

/// `PATCH /apps/{app}/domains/{domain}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
    Body(wish): Body<UpdateDomain>,
) -> Result<Json<DomainAnswer>, ApiError> {
    let domain = controller.find_domain(&access.app, &reference).await?;
    let certificate = wish.sni_endpoint.as_ref().map(|certificate| certificate.0.as_str());
    let domain = controller.set_certificate(&access.app, &access.actor, (&domain, certificate)).await?;
    Ok(Json(answer(&controller.settings, &access.app, &domain)?))
}

/// `DELETE /apps/{app}/domains/{domain}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<DomainAnswer>, ApiError> {
    let domain = controller.find_domain(&access.app, &reference).await?;
    controller.remove_domain(&access.app, &access.actor, &domain).await?;
    Ok(Json(answer(&controller.settings, &access.app, &domain)?))
}

fn answer(settings: &Settings, app: &App, domain: &AppDomain) -> Result<DomainAnswer, Error> {
    // A custom name works once its owner makes it an alias of the default one.
    let target = settings.default_host(&app.name).map_err(|rule| Error::Invalid(rule.to_string()))?;
    let (acm_status, acm_status_reason) = domain.acm.clone().unzip();
    Ok(DomainAnswer {
        acm_status: acm_status.map(AcmStatus::as_str),
        acm_status_reason: acm_status_reason.flatten(),
        app: Named::from(app),
        cname: domain.custom.then(|| target.to_string()),
        created_at: domain.created_at.into(),
        hostname: domain.place.to_string(),
        id: Id::of(&domain.id),
        kind: if domain.custom { "custom" } else { "heroku" },
        sni_endpoint: domain.sni_endpoint.as_ref().map(|(id, name)| Named::new(id, name)),
        path: domain.place.path.as_ref().map(ToString::to_string),
        status: "none",
        strip: domain.place.strip,
        updated_at: domain.updated_at.into(),
    })
}
