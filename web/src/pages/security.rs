//! One's own account: its password, its second factor, where it is signed in, and its end.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use controller::accounts::MIN_PASSWORD;
use controller::store::KnownSession;
use controller::{Actor, Controller, Error, Via};
use model::{SessionId, Timestamp};
use serde::Serialize;

use super::show as show_page;
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::notice::Notice;
use crate::respond::see_other;
use crate::session::Visit;
use crate::view::{Inside, Moment, plural};

/// Path of this page.
pub(super) const PATH: &str = "/console/account";

#[derive(Debug, Serialize)]
pub(super) struct Security {
    page: Inside,
    tab: &'static str,
    email: String,
    min_password: usize,
    /// Whether a code is asked for when they sign in.
    has_two_factor: bool,
    /// Of a second factor that waits for its first code: the secret, in groups as people type it.
    secret: Option<String>,
    /// `3 recovery codes`
    codes_left: String,
    /// Recovery codes that were just made, one a line; shown this once.
    codes: Option<String>,
    sessions: Vec<Session>,
}

#[derive(Debug, Serialize)]
struct Session {
    id: String,
    browser: String,
    /// The same in the browser's own words.
    agent: String,
    address: Option<String>,
    since: Moment,
    is_this: bool,
}

/// `GET /console/account`
pub(crate) async fn show(State(controller): State<Arc<Controller>>, visit: Visit) -> Result<Response, PageError> {
    show_page(&visit, "security.html", &Security::load(&controller, &visit).await?)
}

/// `POST /console/account/password`
pub(crate) async fn change_password(
    State(controller): State<Arc<Controller>>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let (current, new) = (form.fields.get("current"), form.fields.get("new"));
    let done = controller.change_password(&form.by.actor, current, new).await;
    notice(done.map_err(wrong_password), "Your password is changed. Other browsers are signed out.")
}

/// `POST /console/account/sessions/end`
pub(crate) async fn end_session(
    State(controller): State<Arc<Controller>>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let id: SessionId = form.fields.get("session").parse().map_err(|_| PageError::NoPage)?;
    let ended = controller.end_session(&form.by.actor, id).await;
    notice(ended, "That browser is signed out.")
}

/// `POST /console/account/delete`: with the password, and the address typed.
pub(crate) async fn delete(
    State(controller): State<Arc<Controller>>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let actor = &form.by.actor;
    if form.fields.get("confirm").trim() != actor.user.email.as_str() {
        let text = format!("Nothing was deleted: type {} to confirm.", actor.user.email);
        return Ok(Notice::refused(text).then(PATH));
    }
    let confirmed = controller.confirm_password(actor, Some(form.fields.get("password"))).await;
    let deleted = match confirmed.map_err(wrong_password) {
        Ok(()) => controller.delete_account(actor, &actor.user).await,
        Err(error) => Err(error),
    };
    match deleted {
        Ok(()) => {
            let mut response = see_other("/console/sign-in");
            form.by.sign_out(&controller, &mut response).await?;
            Ok(response)
        }
        Err(error) => Ok(Notice::refused(refusal(error)?).then(PATH)),
    }
}

/// Back to the page, which says how it went.
pub(super) fn notice<T>(result: Result<T, Error>, done: &str) -> Result<Response, PageError> {
    let notice = match result {
        Ok(_) => Notice::done(done),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(PATH))
}

/// Whoever is signed in gave a wrong password, not wrong credentials.
fn wrong_password(error: Error) -> Error {
    match error {
        Error::Unauthorized(_) => Error::Invalid("That is not your password. Nothing was changed.".to_owned()),
        error => error,
    }
}

impl Security {
    pub(super) async fn load(controller: &Controller, visit: &Visit) -> Result<Self, PageError> {
        let actor = &visit.actor;
        let now = controller.clock.now();
        let mut sessions: Vec<Session> =
            controller.sessions(actor).await?.iter().map(|session| Session::new(session, actor, now)).collect();
        sessions.reverse();
        let pending = controller.pending_two_factor(actor).await?;
        Ok(Self {
            page: Inside::new("Your account", visit),
            tab: "security",
            email: actor.user.email.to_string(),
            min_password: MIN_PASSWORD,
            has_two_factor: controller.has_two_factor(actor.user.id).await?,
            secret: pending.map(|pending| in_groups(&pending.secret)),
            codes_left: plural(controller.recovery_codes_left(actor).await?, "recovery code"),
            codes: None,
            sessions,
        })
    }

    /// Shows recovery codes that were just made.
    pub(super) fn with_codes(self, codes: &[String]) -> Self {
        Self { codes: Some(codes.join("\n")), ..self }
    }
}

impl Session {
    fn new(session: &KnownSession, actor: &Actor, now: Timestamp) -> Self {
        let agent = session.agent.clone().unwrap_or_default();
        Self {
            id: session.id.to_string(),
            browser: browser(&agent),
            agent,
            address: session.address.clone(),
            since: Moment::new(session.created_at, now),
            is_this: actor.via == Via::Session(Some(session.id)),
        }
    }
}

/// `Firefox on Linux`, as far as what a browser says of itself lets know. Most name others too: the first that fits counts.
fn browser(agent: &str) -> String {
    const PROGRAMS: &[(&str, &str)] = &[
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("CriOS/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: &[(&str, &str)] = &[
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let find =
        |names: &[(&str, &'static str)]| names.iter().find(|(part, _)| agent.contains(part)).map(|(_, name)| *name);
    match (find(PROGRAMS), find(SYSTEMS)) {
        (Some(program), Some(system)) => format!("{program} on {system}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "A browser".to_owned(),
    }
}

/// In groups of four.
fn in_groups(secret: &str) -> String {
    let letters: Vec<char> = secret.chars().collect();
    let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::{HOSTILE, inside, moment};

    impl Security {
        pub(in crate::pages) fn samples() -> [Self; 4] {
            let hostile = || HOSTILE.to_owned();
            let session = |is_this| Session {
                id: hostile(),
                browser: hostile(),
                agent: hostile(),
                address: Some(hostile()),
                since: moment(),
                is_this,
            };
            let page = |has_two_factor, secret, codes| Self {
                page: inside(),
                tab: "security",
                email: hostile(),
                min_password: MIN_PASSWORD,
                has_two_factor,
                secret,
                codes_left: hostile(),
                codes,
                sessions: vec![session(true), session(false)],
            };
            let (off, on) = (page(false, None, None), page(true, None, None));
            [off, on, page(false, Some(hostile()), None), page(true, None, Some(hostile()))]
        }
    }

    #[test]
    fn browsers_are_told_by_what_people_call_them() {
        for (agent, name) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/140.0.0.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            ("curl/8.5.0", "A browser"),
            ("", "A browser"),
        ] {
            assert_eq!(browser(agent), name, "{agent}");
        }
        assert_eq!(in_groups("ABCDEFGHIJ"), "ABCD EFGH IJ");
    }
}
