//! What apps may reach outside. Heroku has no word for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::{Egress, EgressError, EgressRule, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Text};
use crate::store::App;
use crate::{Controller, Error};

/// What an app may reach outside from now on.
#[derive(Deserialize, ToSchema)]
pub(super) struct SetEgress {
    /// `allow` or `deny`: what happens to everything that no rule is about.
    default: Text,
    /// What the opposite happens to.
    rules: Option<Vec<SetRule>>,
}

/// Where something goes.
#[derive(Deserialize, ToSchema)]
struct SetRule {
    /// `public`, `private`, an IPv4 address or a network: `203.0.113.0/24`.
    to: Text,
    /// `443`, `80,443`, `8000-8999`; all ports and protocols if missing.
    ports: Option<Text>,
}

/// What an app may reach outside, beside its add-ons and name servers.
#[derive(Serialize, ToSchema)]
#[schema(as = Egress)]
pub(super) struct EgressAnswer {
    /// `allow` or `deny`: what happens to everything that no rule is about.
    default: String,
    /// Whether instances are held to it. If not, the platform tries until they are.
    in_force: bool,
    rules: Vec<RuleAnswer>,
}

/// What the opposite of the default happens to.
#[derive(Serialize, ToSchema)]
#[schema(as = EgressRule)]
struct RuleAnswer {
    /// Ports of TCP and UDP; null is all ports and protocols.
    ports: Option<String>,
    /// `public`, `private`, an IPv4 address or a network.
    to: String,
}

/// `GET /apps/{app}/egress`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<EgressAnswer>, ApiError> {
    answer(&controller, &access.app).await
}

/// `PUT /apps/{app}/egress`: for what runs as well, at once.
pub(super) async fn set(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<SetEgress>,
) -> Result<Json<EgressAnswer>, ApiError> {
    let policy = policy(wish).map_err(|error| Error::Invalid(error.to_string()))?;
    controller.set_egress(&access.app, &access.actor, Some(policy)).await?;
    answer(&controller, &access.app).await
}

/// `DELETE /apps/{app}/egress`: it may reach everything again that any app may.
pub(super) async fn clear(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<EgressAnswer>, ApiError> {
    controller.set_egress(&access.app, &access.actor, None).await?;
    answer(&controller, &access.app).await
}

fn policy(wish: SetEgress) -> Result<Egress, EgressError> {
    let rule = |rule: SetRule| {
        let ports = rule.ports.map(|ports| ports.0.parse()).transpose()?;
        Ok(EgressRule { to: rule.to.0.parse()?, ports })
    };
    let rules = wish.rules.unwrap_or_default().into_iter().map(rule).collect::<Result<_, EgressError>>()?;
    Ok(Egress { default: wish.default.0.parse()?, rules })
}

async fn answer(controller: &Controller, app: &App) -> Result<Json<EgressAnswer>, ApiError> {
    let (policy, in_force) = controller.egress(app).await?;
    let policy = policy.unwrap_or(Egress { default: Verdict::Allow, rules: Vec::new() });
    let rule =
        |rule: EgressRule| RuleAnswer { ports: rule.ports.map(|ports| ports.to_string()), to: rule.to.to_string() };
    Ok(Json(EgressAnswer {
        default: policy.default.to_string(),
        in_force,
        rules: policy.rules.into_iter().map(rule).collect(),
    }))
}
