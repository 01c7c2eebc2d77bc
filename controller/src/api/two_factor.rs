//! The second factor of whoever asks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ApiError;
use super::input::{Body, Text};
use super::output::Created;
use crate::two_factor::Enrolment;
use crate::{Actor, Controller};

/// A code that proves who is there.
#[derive(Deserialize, ToSchema)]
pub(super) struct Code {
    /// What the phone shows, or a recovery code.
    code: Text,
}

/// The second factor.
#[derive(Serialize, ToSchema)]
#[schema(as = TwoFactor)]
pub(super) struct TwoFactorAnswer {
    /// Whether a code is asked for.
    enabled: bool,
    /// What waits for its first code.
    pending: Option<EnrolmentAnswer>,
    /// Recovery codes that were not used.
    recovery_codes_left: u64,
}

/// A second factor that waits for its first code.
#[derive(Serialize, ToSchema)]
#[schema(as = TwoFactorEnrolment)]
pub(super) struct EnrolmentAnswer {
    /// In base32, to type in.
    secret: String,
    /// `otpauth://…`, to show as a QR code.
    url: String,
}

/// Codes for when the phone is lost; each is good once, and they are shown this once.
#[derive(Serialize, ToSchema)]
pub(super) struct RecoveryCodes {
    recovery_codes: Vec<String>,
}

/// `GET /account/two-factor`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
) -> Result<Json<TwoFactorAnswer>, ApiError> {
    Ok(Json(TwoFactorAnswer {
        enabled: actor.user.two_factor,
        pending: controller.pending_two_factor(&actor).await?.map(EnrolmentAnswer::from),
        recovery_codes_left: controller.recovery_codes_left(&actor).await?,
    }))
}

/// `POST /account/two-factor`
pub(super) async fn begin(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
) -> Result<Created<EnrolmentAnswer>, ApiError> {
    Ok(Created(controller.begin_two_factor(&actor).await?.into()))
}

/// `PATCH /account/two-factor`: turns it on with its first code.
pub(super) async fn confirm(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<Code>,
) -> Result<Json<RecoveryCodes>, ApiError> {
    Ok(Json(RecoveryCodes { recovery_codes: controller.confirm_two_factor(&actor, &wish.code.0).await? }))
}

/// `DELETE /account/two-factor`
pub(super) async fn end(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<Code>,
) -> Result<Json<TwoFactorAnswer>, ApiError> {
    controller.end_two_factor(&actor, &wish.code.0).await?;
    Ok(Json(TwoFactorAnswer { enabled: false, pending: None, recovery_codes_left: 0 }))
}

/// `POST /account/recovery-codes`: others in place of those that are left.
pub(super) async fn recovery_codes(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Body(wish): Body<Code>,
) -> Result<Created<RecoveryCodes>, ApiError> {
    Ok(Created(RecoveryCodes { recovery_codes: controller.new_recovery_codes(&actor, &wish.code.0).await? }))
}

impl From<Enrolment> for EnrolmentAnswer {
    fn from(enrolment: Enrolment) -> Self {
        Self { secret: enrolment.secret, url: enrolment.url }
    }
}
