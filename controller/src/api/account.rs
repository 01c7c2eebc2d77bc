//! Accounts: one's own, and for whoever keeps the platform those of others.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ApiError;
use super::input::{Body, Flag, Text};
use super::output::{Id, Named, Time};
use super::range::{Page, Range};
use crate::store::User;
use crate::{Actor, Controller, Error};

/// What one's own account is to become.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateAccount {
    /// What to be called.
    name: Option<Text>,
}

/// Another password.
#[derive(Deserialize, ToSchema)]
pub(super) struct SetPassword {
    /// The one so far.
    current_password: Text,
    /// The new one.
    new_password: Text,
}

/// The end of one's own account.
#[derive(Deserialize, ToSchema)]
pub(super) struct DeleteAccount {
    /// The password, so that a stolen token is not enough.
    password: Option<Text>,
}

/// What somebody else's account is to become.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateUser {
    /// Whether they may not come in.
    suspended: Option<Flag>,
    /// Whether they keep the platform.
    operator: Option<Flag>,
}

/// Somebody who may come in.
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
    /// Whether they keep the platform.
    operator: bool,
    pipeline_cost_consent_at: Option<Time>,
    sms_number: Option<String>,
    /// Since when they may not come in.
    suspended_at: Option<Time>,
    two_factor_authentication: bool,
    updated_at: Time,
    verified: bool,
}

/// How much more may be asked.
#[derive(Serialize, ToSchema)]
pub(super) struct RateLimit {
    remaining: u32,
}

/// `GET /account`
pub(super) async fn info(actor: Actor) -> Json<AccountAnswer> {
    Json(answer(&actor.user))
}

/// `PATCH /account`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<UpdateAccount>,
) -> Result<Json<AccountAnswer>, ApiError> {
    if let Some(Text(name)) = wish.name {
        controller.set_name(&actor, &name).await?;
    }
    Ok(Json(answer(&controller.user(actor.user.email.as_str()).await?)))
}

/// `PUT /account/password`
pub(super) async fn set_password(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<SetPassword>,
) -> Result<Json<AccountAnswer>, ApiError> {
    controller.change_password(&actor, &wish.current_password.0, &wish.new_password.0).await?;
    Ok(Json(answer(&actor.user)))
}

/// `DELETE /account`: with the password of whoever has one.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<DeleteAccount>,
) -> Result<Json<AccountAnswer>, ApiError> {
    let password = wish.password.map(|password| password.0);
    controller.confirm_password(&actor, password.as_deref()).await?;
    controller.delete_account(&actor, &actor.user).await?;
    Ok(Json(answer(&actor.user)))
}

/// `GET /account/rate-limits`
pub(super) async fn rate_limits(State(controller): State<Arc<Controller>>, actor: Actor) -> Json<RateLimit> {
    let per_hour = controller.settings.requests_per_hour.get();
    Json(RateLimit { remaining: controller.live.limits.left(&actor, per_hour, controller.clock.now()) })
}

/// `GET /users`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    range: Range,
) -> Result<Page<AccountAnswer>, ApiError> {
    Ok(range.page(controller.users().await?.iter().map(answer), "email"))
}

/// `GET /users/{user}`: oneself as `~`, by address or by id. Operators see everybody.
pub(super) async fn info_of(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
) -> Result<Json<AccountAnswer>, ApiError> {
    let own = [actor.user.email.to_string(), actor.user.id.to_string(), "~".to_owned()];
    if own.contains(&reference.to_lowercase()) {
        return Ok(Json(answer(&actor.user)));
    }
    if !actor.user.operator {
        return Err(Error::NotFound("user").into());
    }
    Ok(Json(answer(&controller.user(&reference).await?)))
}

/// `PATCH /users/{user}`
pub(super) async fn update_of(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
    Body(wish): Body<UpdateUser>,
) -> Result<Json<AccountAnswer>, ApiError> {
    let mut user = controller.user(&reference).await?;
    if let Some(Flag(suspended)) = wish.suspended {
        user = controller.suspend(&actor, &user, suspended).await?;
    }
    if let Some(Flag(operator)) = wish.operator {
        user = controller.set_operator(&actor, &user, operator).await?;
    }
    Ok(Json(answer(&user)))
}

/// `DELETE /users/{user}`
pub(super) async fn delete_of(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(reference): Path<String>,
) -> Result<Json<AccountAnswer>, ApiError> {
    let user = controller.user(&reference).await?;
    controller.delete_account(&actor, &user).await?;
    Ok(Json(answer(&user)))
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
        mfa_enabled: user.two_factor,
        mfa_exemption: false,
        mfa_exemption_reason: None,
        mfa_experience: "legacy",
        name: user.name.clone(),
        operator: user.operator,
        pipeline_cost_consent_at: None,
        sms_number: None,
        suspended_at: user.suspended_at.map(Time::from),
        two_factor_authentication: user.two_factor,
        updated_at: user.updated_at.into(),
        verified: true,
    }
}
