//! Signing in and out.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use controller::sign_in::SignIn as Step;
use controller::{Controller, Error};
use serde::{Deserialize, Serialize};

use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::respond::{self, see_other};
use crate::session::{Guarded, Stranger, Visit};
use crate::templates;
use crate::view::Outside;

/// Where to go after signing in.
#[derive(Debug, Deserialize)]
pub(crate) struct Back {
    back: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct SignIn {
    page: Outside,
    csrf: String,
    email: String,
    back: String,
    /// What stands for the password while a code is asked for.
    ticket: Option<String>,
    refused: Option<String>,
}

const WRONG: &str = "That e-mail address and password do not go together.";

/// `GET /console/sign-in`
pub(crate) async fn show(
    State(controller): State<Arc<Controller>>,
    stranger: Stranger,
    Query(query): Query<Back>,
) -> Result<Response, PageError> {
    if controller.setup_secret().await?.is_some() {
        return Ok(see_other("/console/setup"));
    }
    let back = query.back.unwrap_or_default();
    form(&stranger, StatusCode::OK, &SignIn::new(&stranger, String::new(), back))
}

/// `POST /console/sign-in`
pub(crate) async fn enter(
    State(controller): State<Arc<Controller>>,
    form: Form<Stranger>,
) -> Result<Response, PageError> {
    let (stranger, fields) = (form.by, form.fields);
    let step = match fields.filled("ticket") {
        None => controller.begin_sign_in(fields.get("email").trim(), fields.get("password"), &stranger.origin).await,
        Some(ticket) => {
            let user = controller.finish_sign_in(ticket, fields.get("code"), &stranger.origin).await;
            user.map(|user| Step::Done(Box::new(user)))
        }
    };
    let mut page = SignIn::new(&stranger, fields.get("email").to_owned(), fields.get("back").to_owned());
    match step {
        Ok(Step::Done(user)) => {
            let secret = controller.open_session(&user, stranger.origin.clone(), stranger.agent.as_deref()).await?;
            let mut response = see_other(inside(fields.get("back")));
            stranger.sign_in(&mut response, &secret);
            Ok(response)
        }
        Ok(Step::NeedsCode(ticket)) => {
            page.ticket = Some(ticket);
            self::form(&stranger, StatusCode::OK, &page)
        }
        Err(error) => {
            let status = match &error {
                Error::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            page.ticket = fields.filled("ticket").map(str::to_owned);
            page.refused = Some(match error {
                // Says the same whatever was wrong.
                Error::Unauthorized(_) if page.ticket.is_none() => WRONG.to_owned(),
                error => refusal(error)?,
            });
            self::form(&stranger, status, &page)
        }
    }
}

/// `POST /console/sign-out`
pub(crate) async fn leave(State(controller): State<Arc<Controller>>, form: Form<Visit>) -> Result<Response, PageError> {
    let mut response = see_other("/console/sign-in");
    form.by.sign_out(&controller, &mut response).await?;
    Ok(response)
}

impl SignIn {
    fn new(stranger: &Stranger, email: String, back: String) -> Self {
        Self { page: Outside::new("Sign in"), csrf: stranger.csrf(), email, back, ticket: None, refused: None }
    }

    #[cfg(test)]
    pub(super) fn sample() -> Self {
        use crate::view::samples::{HOSTILE, outside};
        let hostile = || HOSTILE.to_owned();
        let (ticket, refused) = (None, Some(hostile()));
        Self { page: outside(), csrf: "c5f".to_owned(), email: hostile(), back: hostile(), ticket, refused }
    }

    #[cfg(test)]
    pub(super) fn second_step() -> Self {
        Self { ticket: Some(crate::view::samples::HOSTILE.to_owned()), ..Self::sample() }
    }
}

fn form(stranger: &Stranger, status: StatusCode, page: &SignIn) -> Result<Response, PageError> {
    let mut response = respond::html(status, templates::page("sign_in.html", page)?);
    stranger.mark(&mut response);
    Ok(response)
}

/// A page of ours, whatever somebody put into the link.
fn inside(back: &str) -> &str {
    let is_ours = back.starts_with("/console/") && back.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_ours { back } else { "/console/apps" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_comes_back_to_our_own_pages_only() {
        assert_eq!(inside("/console/apps/a/logs?x=1"), "/console/apps/a/logs?x=1");
        for bad in ["", "//evil.example", "https://evil.example", "/\\evil", "/console/\r\nx: y", "/apps"] {
            assert_eq!(inside(bad), "/console/apps", "{bad}");
        }
    }
}
