use axum::Json;
use model::Timestamp;
use serde_json::{Value, json};

use super::envelope::REMAINING;
use crate::Actor;
use crate::store::User;

/// `GET /account`, and `GET /users/~`: everybody sees themselves only.
pub(super) async fn info(actor: Actor) -> Json<Value> {
    Json(wire(&actor.user))
}

/// `GET /account/rate-limits`
pub(super) async fn rate_limits(_: Actor) -> Json<Value> {
    Json(json!({ "remaining": REMAINING }))
}

fn wire(user: &User) -> Value {
    json!({
        "acknowledged_msa": false,
        "acknowledged_msa_at": null,
        "allow_tracking": false,
        "beta": false,
        "country_of_residence": null,
        "created_at": user.created_at.to_rfc3339(),
        "default_organization": null,
        "default_team": null,
        "delinquent_at": null,
        "eco_dynos_enabled": true,
        "eco_dynos_shutdown_at": null,
        "email": user.email,
        "federated": false,
        "id": user.id,
        "identity_provider": null,
        "italian_customer_terms": null,
        "italian_partner_terms": null,
        "last_login": user.last_login_at.map(Timestamp::to_rfc3339),
        "mfa_enabled": false,
        "mfa_exemption": false,
        "mfa_exemption_reason": null,
        "mfa_experience": "legacy",
        "name": null,
        "pipeline_cost_consent_at": null,
        "sms_number": null,
        "suspended_at": null,
        "two_factor_authentication": false,
        "updated_at": user.updated_at.to_rfc3339(),
        "verified": true,
    })
}
