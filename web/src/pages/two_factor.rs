//! The second factor of one's own account: turned on with a phone, off with a code.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use controller::{Controller, Error};
use qrcode::QrCode;
use qrcode::render::svg;

use super::security::{PATH, Security, notice};
use super::show as show_page;
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::notice::Notice;
use crate::respond::see_other;
use crate::session::Visit;

/// Side of the picture of the secret, in pixels: large enough for any camera.
const SIDE: u32 = 220;

/// `POST /console/account/two-factor`: the page then shows the secret and asks for the first code.
pub(crate) async fn begin(State(controller): State<Arc<Controller>>, form: Form<Visit>) -> Result<Response, PageError> {
    match controller.begin_two_factor(&form.by.actor).await {
        Ok(_) => Ok(see_other(&format!("{PATH}#two-factor"))),
        Err(error) => Ok(Notice::refused(refusal(error)?).then(PATH)),
    }
}

/// `GET /console/account/two-factor.svg`: the secret that waits for its first code, for the camera of a phone.
pub(crate) async fn picture(State(controller): State<Arc<Controller>>, visit: Visit) -> Result<Response, PageError> {
    let pending = controller.pending_two_factor(&visit.actor).await?.ok_or(PageError::NoPage)?;
    // Far below what a QR code holds.
    let code = QrCode::new(pending.url.as_bytes()).map_err(|_| PageError::NoPage)?;
    let picture = code.render::<svg::Color<'_>>().min_dimensions(SIDE, SIDE).build();
    Ok(([(CONTENT_TYPE, "image/svg+xml")], picture).into_response())
}

/// `POST /console/account/two-factor/confirm`: the answer is the only page that ever shows the recovery codes.
pub(crate) async fn confirm(
    State(controller): State<Arc<Controller>>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let codes = controller.confirm_two_factor(&form.by.actor, form.fields.get("code")).await;
    show_codes(&controller, &form.by, codes).await
}

/// `POST /console/account/two-factor/codes`: others in place of those that are left.
pub(crate) async fn codes(State(controller): State<Arc<Controller>>, form: Form<Visit>) -> Result<Response, PageError> {
    let codes = controller.new_recovery_codes(&form.by.actor, form.fields.get("code")).await;
    show_codes(&controller, &form.by, codes).await
}

/// `POST /console/account/two-factor/end`
pub(crate) async fn end(State(controller): State<Arc<Controller>>, form: Form<Visit>) -> Result<Response, PageError> {
    let ended = controller.end_two_factor(&form.by.actor, form.fields.get("code")).await;
    notice(ended, "Two-factor authentication is off: the password alone lets you in.")
}

async fn show_codes(
    controller: &Controller,
    visit: &Visit,
    codes: Result<Vec<String>, Error>,
) -> Result<Response, PageError> {
    match codes {
        Ok(codes) => show_page(visit, "security.html", &Security::load(controller, visit).await?.with_codes(&codes)),
        Err(error) => Ok(Notice::refused(refusal(error)?).then(PATH)),
    }
}
