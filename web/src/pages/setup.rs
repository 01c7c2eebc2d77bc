//! The first user of a platform that has none.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use controller::Controller;
use controller::accounts::MIN_PASSWORD;
use serde::{Deserialize, Serialize};

use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::respond::{self, see_other};
use crate::session::{Guarded, Stranger};
use crate::templates;
use crate::view::Outside;

/// What `platform up` puts into the link that it prints.
#[derive(Debug, Deserialize)]
pub(crate) struct Link {
    token: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Setup {
    page: Outside,
    csrf: String,
    token: String,
    email: String,
    min_password: usize,
    refused: Option<String>,
}

/// `GET /console/setup`: without the secret, it says where to find it.
pub(crate) async fn show(
    State(controller): State<Arc<Controller>>,
    stranger: Stranger,
    Query(link): Query<Link>,
) -> Result<Response, PageError> {
    if controller.setup_secret().await?.is_none() {
        return Ok(see_other("/console/sign-in"));
    }
    form(&stranger, StatusCode::OK, &Setup::new(&stranger, link.token.unwrap_or_default(), String::new()))
}

/// `POST /console/setup`
pub(crate) async fn create(
    State(controller): State<Arc<Controller>>,
    form: Form<Stranger>,
) -> Result<Response, PageError> {
    let (stranger, fields) = (form.by, form.fields);
    let (token, email) = (fields.get("token"), fields.get("email").trim());
    match controller.create_first_user(token, email, fields.get("password")).await {
        Ok(user) => {
            let secret = controller.open_session(&user, stranger.origin.clone(), stranger.agent.as_deref()).await?;
            let mut response = see_other("/console/apps");
            stranger.sign_in(&mut response, &secret);
            Ok(response)
        }
        Err(error) => {
            let mut page = Setup::new(&stranger, token.to_owned(), email.to_owned());
            page.refused = Some(refusal(error)?);
            self::form(&stranger, StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

impl Setup {
    fn new(stranger: &Stranger, token: String, email: String) -> Self {
        let page = Outside::new("Welcome");
        Self { page, csrf: stranger.csrf(), token, email, min_password: MIN_PASSWORD, refused: None }
    }

    #[cfg(test)]
    pub(super) fn sample() -> Self {
        use crate::view::samples::{HOSTILE, outside};
        Self {
            page: outside(),
            csrf: "c5f".to_owned(),
            token: HOSTILE.to_owned(),
            email: HOSTILE.to_owned(),
            min_password: MIN_PASSWORD,
            refused: Some(HOSTILE.to_owned()),
        }
    }
}

fn form(stranger: &Stranger, status: StatusCode, page: &Setup) -> Result<Response, PageError> {
    let mut response = respond::html(status, templates::page("setup.html", page)?);
    stranger.mark(&mut response);
    Ok(response)
}
