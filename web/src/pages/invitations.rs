//! Whoever was invited comes in here: with a password of their own, or, if they are a user already, by saying yes.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use controller::Controller;
use controller::accounts::MIN_PASSWORD;
use controller::store::{Invitation, Place};
use serde::Serialize;

use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::respond::{self, see_other};
use crate::session::{Guarded, Stranger, Visit};
use crate::templates;
use crate::view::Outside;

#[derive(Debug, Serialize)]
pub(super) struct Welcome {
    page: Outside,
    csrf: String,
    /// Where the form goes.
    action: String,
    email: String,
    invited_by: String,
    /// Where to: the team or the app, in words.
    place: Option<String>,
    /// Whether they are a user already, who chooses no password.
    known: bool,
    min_password: usize,
    refused: Option<String>,
}

/// `GET /console/invitations/{token}`
pub(crate) async fn show(
    State(controller): State<Arc<Controller>>,
    stranger: Stranger,
    Path(token): Path<String>,
) -> Result<Response, PageError> {
    let invitation = controller.find_invitation(&token).await?;
    if controller.is_known(&invitation).await? {
        return Ok(see_other(&format!("/console/invitations/{token}/join")));
    }
    answer(&stranger, StatusCode::OK, &Welcome::new(&stranger, &invitation, format!("/console/invitations/{token}")))
}

/// `POST /console/invitations/{token}`
pub(crate) async fn accept(
    State(controller): State<Arc<Controller>>,
    Path(token): Path<String>,
    form: Form<Stranger>,
) -> Result<Response, PageError> {
    let stranger = form.by;
    let invitation = controller.find_invitation(&token).await?;
    match controller.accept_invitation(&token, form.fields.get("password"), &stranger.origin).await {
        Ok(user) => {
            let secret = controller.open_session(&user, stranger.origin.clone(), stranger.agent.as_deref()).await?;
            let mut response = see_other("/console/apps");
            stranger.sign_in(&mut response, &secret);
            Ok(response)
        }
        Err(error) => {
            let mut page = Welcome::new(&stranger, &invitation, format!("/console/invitations/{token}"));
            page.refused = Some(refusal(error)?);
            answer(&stranger, StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

/// `GET /console/invitations/{token}/join`: for who is signed in.
pub(crate) async fn ask(
    State(controller): State<Arc<Controller>>,
    visit: Visit,
    Path(token): Path<String>,
) -> Result<Response, PageError> {
    let invitation = controller.find_invitation(&token).await?;
    let mut page = Welcome::new(&visit, &invitation, format!("/console/invitations/{token}/join"));
    page.known = true;
    Ok(respond::html(StatusCode::OK, templates::page("invitation.html", &page)?))
}

/// `POST /console/invitations/{token}/join`
pub(crate) async fn join(
    State(controller): State<Arc<Controller>>,
    Path(token): Path<String>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    controller.join(&form.by.actor, &token).await?;
    Ok(see_other("/console/apps"))
}

impl Welcome {
    fn new(guest: &impl Guarded, invitation: &Invitation, action: String) -> Self {
        Self {
            page: Outside::new("Welcome"),
            csrf: guest.csrf(),
            action,
            email: invitation.email.to_string(),
            invited_by: invitation.invited_by.email.to_string(),
            place: match &invitation.place {
                Place::Platform => None,
                Place::Team(team) => Some(format!("the team {}", team.name)),
                Place::App(_, name) => Some(format!("the app {name}")),
            },
            known: false,
            min_password: MIN_PASSWORD,
            refused: None,
        }
    }

    #[cfg(test)]
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, outside};
        let sample = |known| Self {
            page: outside(),
            csrf: "c5f".to_owned(),
            action: HOSTILE.to_owned(),
            email: HOSTILE.to_owned(),
            invited_by: HOSTILE.to_owned(),
            place: Some(HOSTILE.to_owned()),
            known,
            min_password: MIN_PASSWORD,
            refused: Some(HOSTILE.to_owned()),
        };
        [sample(false), sample(true)]
    }
}

fn answer(stranger: &Stranger, status: StatusCode, page: &Welcome) -> Result<Response, PageError> {
    let mut response = respond::html(status, templates::page("invitation.html", page)?);
    stranger.mark(&mut response);
    Ok(response)
}
