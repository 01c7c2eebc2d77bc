use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use model::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::apps::AppAnswer;
use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Text};
use super::output::{Created, Id, Named, Time};
use super::range::{Page, Range};
use crate::Controller;
use crate::store::{App, SniEndpoint, Staple};

/// A certificate with its key.
#[derive(Deserialize, ToSchema)]
pub(super) struct CertificateWish {
    /// In PEM: the domain's own first, each followed by its issuer's.
    certificate_chain: Text,
    /// In PEM, without a passphrase. It is never shown.
    private_key: Text,
}

/// A certificate of an app.
#[derive(Serialize, ToSchema)]
#[schema(as = SniEndpoint)]
pub(super) struct SniEndpointAnswer {
    app: Named,
    certificate_chain: String,
    created_at: Time,
    display_name: Option<String>,
    /// Ids of the domains that show it.
    domains: Vec<Id>,
    id: Id,
    name: String,
    ocsp: Ocsp,
    ssl_cert: SslCert,
    updated_at: Time,
}

/// What the authority of a certificate says of it by now.
#[derive(Serialize, ToSchema)]
pub(super) struct Ocsp {
    /// Until when visitors are shown that it is good.
    expires_at: Option<Time>,
    /// Whether browsers refuse the certificate if it is shown without that.
    must_staple: bool,
    /// Why, or why there is no newer answer.
    reason: Option<String>,
    /// `pending`, `none` (nobody can be asked), `good`, `failing` (there is no answer), or `revoked`.
    status: &'static str,
}

/// What a certificate says of itself.
#[derive(Serialize, ToSchema)]
pub(super) struct SslCert {
    /// Whether the platform got it.
    acm: bool,
    #[serde(rename = "ca_signed?")]
    ca_signed: bool,
    cert_domains: Vec<String>,
    expires_at: Time,
    id: Id,
    issuer: String,
    #[serde(rename = "self_signed?")]
    self_signed: bool,
    starts_at: Time,
    subject: String,
}

/// `GET /apps/{app}/sni-endpoints`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<SniEndpointAnswer>, ApiError> {
    let (mut items, mut staples) = (Vec::new(), controller.store.staples(access.app.id).await?);
    for endpoint in controller.store.sni_endpoints(access.app.id).await? {
        items.push(with(&controller, &access.app, (&endpoint, staples.remove(&endpoint.id))).await?);
    }
    Ok(range.page(items, "name"))
}

/// `POST /apps/{app}/sni-endpoints`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<CertificateWish>,
) -> Result<Created<SniEndpointAnswer>, ApiError> {
    let pair = (wish.certificate_chain.0.as_str(), wish.private_key.0.as_str());
    let endpoint = controller.add_certificate(&access.app, &access.actor, pair).await?;
    Ok(Created(answer(&controller, &access.app, &endpoint).await?))
}

/// `GET /apps/{app}/sni-endpoints/{endpoint}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<SniEndpointAnswer>, ApiError> {
    let endpoint = controller.find_certificate(&access.app, &reference).await?;
    Ok(Json(answer(&controller, &access.app, &endpoint).await?))
}

/// `PATCH /apps/{app}/sni-endpoints/{endpoint}`: another certificate in its place.
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
    Body(wish): Body<CertificateWish>,
) -> Result<Json<SniEndpointAnswer>, ApiError> {
    let endpoint = controller.find_certificate(&access.app, &reference).await?;
    let change = (&endpoint, wish.certificate_chain.0.as_str(), wish.private_key.0.as_str());
    let endpoint = controller.update_certificate(&access.app, &access.actor, change).await?;
    Ok(Json(answer(&controller, &access.app, &endpoint).await?))
}

/// `DELETE /apps/{app}/sni-endpoints/{endpoint}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<SniEndpointAnswer>, ApiError> {
    let endpoint = controller.find_certificate(&access.app, &reference).await?;
    let gone = answer(&controller, &access.app, &endpoint).await?;
    controller.remove_certificate(&access.app, &access.actor, &endpoint).await?;
    Ok(Json(gone))
}

/// `POST /apps/{app}/acm`: the platform shall get certificates for the app's domains.
pub(super) async fn enable_acm(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Created<AppAnswer>, ApiError> {
    controller.set_acm(&access.app, &access.actor, true).await?;
    Ok(Created(app(&controller, &access.app).await?))
}

/// `PATCH /apps/{app}/acm`: as [`enable_acm`], once more.
pub(super) async fn refresh_acm(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<AppAnswer>, ApiError> {
    controller.set_acm(&access.app, &access.actor, true).await?;
    Ok(Json(app(&controller, &access.app).await?))
}

/// `DELETE /apps/{app}/acm`
pub(super) async fn disable_acm(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<AppAnswer>, ApiError> {
    controller.set_acm(&access.app, &access.actor, false).await?;
    Ok(Json(app(&controller, &access.app).await?))
}

async fn app(controller: &Controller, app: &App) -> Result<AppAnswer, ApiError> {
    let app = controller.store.app(app.id).await?.ok_or(crate::Error::NotFound("app"))?;
    Ok(super::apps::answer(&controller.settings, &app)?)
}

async fn answer(controller: &Controller, app: &App, endpoint: &SniEndpoint) -> Result<SniEndpointAnswer, ApiError> {
    let staple = controller.store.staples(app.id).await?.remove(&endpoint.id);
    with(controller, app, (endpoint, staple)).await
}

async fn with(
    controller: &Controller,
    app: &App,
    (endpoint, staple): (&SniEndpoint, Option<Staple>),
) -> Result<SniEndpointAnswer, ApiError> {
    let certificate = controller.read_certificate(&endpoint.chain)?;
    let domains = controller.store.domains_of_certificate(endpoint.id).await?;
    Ok(SniEndpointAnswer {
        app: Named::from(app),
        certificate_chain: endpoint.chain.clone(),
        created_at: endpoint.created_at.into(),
        display_name: None,
        domains: domains.iter().map(Id::of).collect(),
        id: Id::of(&endpoint.id),
        name: endpoint.name.clone(),
        ocsp: ocsp(staple, certificate.must_staple, controller.clock.now()),
        ssl_cert: SslCert {
            acm: endpoint.acm,
            ca_signed: certificate.ca_signed,
            cert_domains: certificate.domains,
            expires_at: certificate.expires_at.into(),
            id: Id::of(&endpoint.id),
            issuer: certificate.issuer,
            self_signed: certificate.self_signed,
            starts_at: certificate.starts_at.into(),
            subject: certificate.subject,
        },
        updated_at: endpoint.updated_at.into(),
    })
}

fn ocsp(staple: Option<Staple>, must_staple: bool, now: Timestamp) -> Ocsp {
    let Some(staple) = staple else { return Ocsp { expires_at: None, must_staple, reason: None, status: "pending" } };
    let expires_at = staple.answer.map(|answer| answer.expires_at).filter(|expires_at| now < *expires_at);
    Ocsp { expires_at: expires_at.map(Time::from), must_staple, reason: staple.reason, status: staple.status.as_str() }
}
