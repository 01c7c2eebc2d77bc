use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::output::{Id, Named, Time};
use crate::store::User;
use crate::{Actor, Controller};

/// A user, as it sees itself.
#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
#[expect(clippy::struct_excessive_bools, reason = "clients expect them")]
pub(super) struct AccountAnswer {
    acknowledged_msa: bool,
    acknowledged_msa_at: Option<Time>,
    allow_tracking: bool,
    beta: bool,
    country_of_residence: Option<String>,
    created_at: Time,
    default_organization: Option<Named>,
    default_team: Option<Named>,
    delinquent_at: Option<Time>,
    eco_dynos_enabled: bool,
    eco_dynos_shutdown_at: Option<Time>,
    email: String,
    federated: bool,
    id: Id,
    identity_provider: Option<Named>,
    italian_customer_terms: Option<String>,
    italian_partner_terms: Option<String>,
    last_login: Option<Time>,
    mfa_enabled: bool,
    mfa_exemption: bool,
    mfa_exemption_reason: Option<String>,
    mfa_experience: &'static str,
    name: Option<String>,
    pipeline_cost_consent_at: Option<Time>,
    sms_number: Option<String>,
    suspended_at: Option<Time>,
    two_factor_authentication: bool,
    updated_at: Time,
    verified: bool,
}

/// How much may still be asked.
#[derive(Serialize, ToSchema)]
pub(super) struct RateLimit {
    /// How many requests.
    remaining: u32,
}

/// `GET /account`, and `GET /users/~`: everybody sees themselves only.
pub(super) async fn info(actor: Actor) -> Json<AccountAnswer> {
    Json(answer(&actor.user))
}

/// `GET /account/rate-limits`
pub(super) async fn rate_limits(State(controller): State<Arc<Controller>>, actor: Actor) -> Json<RateLimit> {
    let per_hour = controller.settings.requests_per_hour.get();
    Json(RateLimit { remaining: controller.live.limits.left(&actor, per_hour, controller.clock.now()) })
}

fn answer(user: &User) -> AccountAnswer {
    AccountAnswer {
        acknowledged_msa: false,
        acknowledged_msa_at: None,
        allow_tracking: false,
        beta: false,
        country_of_residence: None,
        created_at: user.created_at.into(),
        default_organization: None,
        default_team: None,
        delinquent_at: None,
        eco_dynos_enabled: true,
        eco_dynos_shutdown_at: None,
        email: user.email.to_string(),
        federated: false,
        id: Id::of(&user.id),
        identity_provider: None,
        italian_customer_terms: None,
        italian_partner_terms: None,
        last_login: user.last_login_at.map(Time::from),
        mfa_enabled: false,
        mfa_exemption: false,
        mfa_exemption_reason: None,
        mfa_experience: "legacy",
        name: None,
        pipeline_cost_consent_at: None,
        sms_number: None,
        suspended_at: None,
        two_factor_authentication: false,
        updated_at: user.updated_at.into(),
        verified: true,
    }
}
