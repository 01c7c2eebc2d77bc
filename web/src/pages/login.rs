//! A program asks to be let in: whoever is signed in decides.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use controller::Controller;
use serde::Serialize;

use super::show as show_page;
use crate::error::PageError;
use crate::form::Form;
use crate::notice::Notice;
use crate::session::Visit;
use crate::view::Inside;

#[derive(Debug, Serialize)]
pub(super) struct Login {
    page: Inside,
    id: String,
    email: String,
    /// What the program says of itself.
    program: String,
    code: String,
    address: String,
    /// Whether it asks from where this page is looked at.
    is_here: bool,
}

/// `GET /console/login/{login}`
pub(crate) async fn show(
    State(controller): State<Arc<Controller>>,
    visit: Visit,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let waiting = controller.waiting_login(&id)?;
    let address = waiting.origin.address;
    let page = Login {
        page: Inside::new("Let a program in", &visit),
        id,
        email: visit.actor.user.email.to_string(),
        program: waiting.description,
        code: waiting.code,
        address: address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string()),
        is_here: address.is_some() && address == visit.actor.origin.address,
    };
    show_page(&visit, "login.html", &page)
}

/// `POST /console/login/{login}`
pub(crate) async fn decide(
    State(controller): State<Arc<Controller>>,
    Path(id): Path<String>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let actor = &form.by.actor;
    let is_welcome = form.fields.get("decision") == "yes";
    controller.decide_login(&id, actor, is_welcome)?;
    let notice = if is_welcome {
        Notice::done(format!("The program is logged in as {}. Go on there; you can close this page.", actor.user.email))
    } else {
        Notice::done("The program was turned away.")
    };
    Ok(notice.then("/console/apps"))
}

#[cfg(test)]
impl Login {
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, inside};
        [true, false].map(|is_here| Self {
            page: inside(),
            id: HOSTILE.to_owned(),
            email: HOSTILE.to_owned(),
            program: HOSTILE.to_owned(),
            code: HOSTILE.to_owned(),
            address: HOSTILE.to_owned(),
            is_here,
        })
    }
}
