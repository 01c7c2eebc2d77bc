//! What add-ons there are to choose from.

use axum::Json;
use axum::extract::Path;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::catalog::SINCE;
use super::error::ApiError;
use super::output::{Id, Named, Time};
use super::range::{Page, Range};
use crate::Actor;
use crate::Error;
use crate::addons::{KINDS, Kind, Plan, find_kind};

/// Nothing costs anything.
pub(super) const PRICE: PriceAnswer = PriceAnswer { cents: 0, contract: false, metered: false, unit: "month" };

/// A kind of add-on.
#[derive(Serialize, ToSchema)]
#[schema(as = AddonService)]
pub(super) struct ServiceAnswer {
    cli_plugin_name: Option<String>,
    #[schema(value_type = Time)]
    created_at: &'static str,
    human_name: String,
    id: Id,
    name: String,
    state: &'static str,
    supported_generations: Vec<Named>,
    supports_multiple_installations: bool,
    supports_sharing: bool,
    #[schema(value_type = Time)]
    updated_at: &'static str,
}

/// What can be had of a kind of add-on.
#[derive(Serialize, ToSchema)]
#[schema(as = Plan)]
#[expect(clippy::struct_excessive_bools, reason = "clients expect them")]
pub(super) struct PlanAnswer {
    addon_service: Named,
    compliance: Option<Vec<String>>,
    #[schema(value_type = Time)]
    created_at: &'static str,
    /// Whether it is the one that the service's name alone means.
    default: bool,
    description: String,
    human_name: String,
    id: Id,
    installable_inside_private_network: bool,
    installable_outside_private_network: bool,
    /// With that of its service: `postgres:mini`.
    name: String,
    price: PriceAnswer,
    space_default: bool,
    state: &'static str,
    #[schema(value_type = Time)]
    updated_at: &'static str,
    visible: bool,
}

/// What it costs.
#[derive(Serialize, ToSchema)]
#[schema(as = Price)]
pub(super) struct PriceAnswer {
    cents: u32,
    contract: bool,
    metered: bool,
    unit: &'static str,
}

/// `GET /addon-services`: what can be had without knowing an address.
pub(super) async fn list(_: Actor, range: Range) -> Page<ServiceAnswer> {
    let run_here = KINDS.iter().filter(|kind| kind.server().is_some());
    range.page(run_here.map(|kind| ServiceAnswer::new(*kind)), "name")
}

/// `GET /addon-services/{service}`
pub(super) async fn info(_: Actor, Path(service): Path<String>) -> Result<Json<ServiceAnswer>, ApiError> {
    Ok(Json(ServiceAnswer::new(find_service(&service)?)))
}

/// `GET /addon-services/{service}/plans`
pub(super) async fn plans(_: Actor, Path(service): Path<String>, range: Range) -> Result<Page<PlanAnswer>, ApiError> {
    let kind = find_service(&service)?;
    Ok(range.page(kind.plans().iter().map(|plan| PlanAnswer::new(kind, plan)), "name"))
}

/// `GET /addon-services/{service}/plans/{plan}`, by the plan's name with or without that of the service, or its id.
pub(super) async fn plan(
    _: Actor,
    Path((service, plan)): Path<(String, String)>,
) -> Result<Json<PlanAnswer>, ApiError> {
    let kind = find_service(&service)?;
    find_plan(kind, &plan).map(Json).ok_or_else(|| Error::NotFound("plan").into())
}

/// `GET /plans/{plan}`
pub(super) async fn any_plan(_: Actor, Path(plan): Path<String>) -> Result<Json<PlanAnswer>, ApiError> {
    let found =
        KINDS.iter().find_map(|kind| find_plan(*kind, &plan).filter(|it| it.name == plan || it.id == Id::of(&plan)));
    found.map(Json).ok_or_else(|| Error::NotFound("plan").into())
}

fn find_service(reference: &str) -> Result<&'static dyn Kind, ApiError> {
    let by_id = KINDS.iter().copied().find(|kind| id(kind.slug()).to_string() == reference);
    by_id.map_or_else(
        || find_kind(reference).map(|(kind, _)| kind).map_err(|_| Error::NotFound("add-on service").into()),
        Ok,
    )
}

fn find_plan(kind: &dyn Kind, reference: &str) -> Option<PlanAnswer> {
    let is_wanted =
        |plan: &PlanAnswer| plan.name == reference || plan.human_name == reference || plan.id == Id::of(reference);
    kind.plans().iter().map(|plan| PlanAnswer::new(kind, plan)).find(is_wanted)
}

impl ServiceAnswer {
    pub(super) fn new(kind: &dyn Kind) -> Self {
        Self {
            cli_plugin_name: None,
            created_at: SINCE,
            human_name: kind.human_name().to_owned(),
            id: Id::of(&id(kind.slug())),
            name: kind.slug().to_owned(),
            state: "ga",
            supported_generations: vec![Named::new(&id("cedar"), "cedar")],
            supports_multiple_installations: true,
            supports_sharing: true,
            updated_at: SINCE,
        }
    }
}

impl PlanAnswer {
    pub(super) fn new(kind: &dyn Kind, plan: &Plan) -> Self {
        let name = format!("{}:{}", kind.slug(), plan.name);
        Self {
            addon_service: short_service(kind),
            compliance: None,
            created_at: SINCE,
            default: kind.plans().first().is_some_and(|first| first.name == plan.name),
            description: plan.description.to_owned(),
            human_name: plan.name.to_owned(),
            id: Id::of(&id(&name)),
            installable_inside_private_network: true,
            installable_outside_private_network: true,
            name,
            price: PRICE,
            space_default: false,
            state: "ga",
            updated_at: SINCE,
            visible: true,
        }
    }
}

/// A service, in short.
pub(super) fn short_service(kind: &dyn Kind) -> Named {
    Named::new(&id(kind.slug()), kind.slug())
}

/// A plan, in short.
pub(super) fn short_plan(kind: &dyn Kind, plan: &Plan) -> Named {
    let name = format!("{}:{}", kind.slug(), plan.name);
    Named::new(&id(&name), &name)
}

/// The API wants a UUID where names are enough for us; the same one every time.
fn id(name: &str) -> Uuid {
    let hash = Sha256::digest(format!("addon-service/{name}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
