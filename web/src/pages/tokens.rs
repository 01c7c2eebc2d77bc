//! The tokens of one's own account, by which programs come in.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use controller::accounts::TokenRequest;
use controller::grants::{Grant, Scope};
use controller::store::Token;
use controller::{Controller, Error};
use model::{Timestamp, TokenId};
use serde::Serialize;

use super::{show as show_page, show_again};
use crate::error::{PageError, refusal};
use crate::form::{Fields, Form};
use crate::notice::Notice;
use crate::session::Visit;
use crate::view::{Choice, Inside, Moment, Pill, day};

const PATH: &str = "/console/account/tokens";
const DAY: u64 = 24 * 60 * 60;

#[derive(Debug, Serialize)]
pub(super) struct TokenList {
    page: Inside,
    tab: &'static str,
    tokens: Vec<Row>,
    /// The text of one that was just made; shown this once.
    fresh: Option<String>,
    description: String,
    scopes: Vec<Choice>,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    id: String,
    description: String,
    /// What it is good for: `global`, `deploy on shop` …
    pill: Pill,
    made: Moment,
    used: Option<Moment>,
    /// The day from which on it is no longer good.
    until: Option<String>,
}

/// `GET /console/account/tokens`
pub(crate) async fn show(State(controller): State<Arc<Controller>>, visit: Visit) -> Result<Response, PageError> {
    show_page(&visit, "tokens.html", &TokenList::load(&controller, &visit).await?)
}

/// `POST /console/account/tokens`: the answer is the only page that ever shows the token.
pub(crate) async fn create(
    State(controller): State<Arc<Controller>>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let made = match request(&form.fields) {
        Ok(request) => controller.issue_token(&form.by.actor, request).await,
        Err(error) => Err(error),
    };
    let mut page = TokenList::load(&controller, &form.by).await?;
    match made {
        Ok(issued) => {
            page.fresh = Some(issued.text);
            show_page(&form.by, "tokens.html", &page)
        }
        Err(error) => {
            page.page.refuse(refusal(error)?);
            form.fields.get("description").clone_into(&mut page.description);
            show_again("tokens.html", &page)
        }
    }
}

/// `POST /console/account/tokens/revoke`
pub(crate) async fn revoke(
    State(controller): State<Arc<Controller>>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let id: TokenId = form.fields.get("token").parse().map_err(|_| PageError::NoPage)?;
    let gone = controller.revoke_token(&form.by.actor, id).await?;
    Ok(Notice::done(format!("{} is no longer good", name(&gone))).then(PATH))
}

/// What a form asks for.
fn request(fields: &Fields) -> Result<TokenRequest, Error> {
    let scope: Scope = fields.get("scope").parse()?;
    let grant = Grant { scopes: vec![scope], limit: None };
    Ok(TokenRequest { description: fields.get("description").trim().to_owned(), lifetime: lifetime(fields), grant })
}

/// How long a token is to be good; for ever unless said.
pub(super) fn lifetime(fields: &Fields) -> Option<Duration> {
    fields.get("days").parse().ok().map(|days: u64| Duration::from_secs(days.saturating_mul(DAY)))
}

/// What people call a token.
pub(super) fn name(token: &Token) -> &str {
    if token.description.is_empty() { "A token without a name" } else { &token.description }
}

impl TokenList {
    async fn load(controller: &Controller, visit: &Visit) -> Result<Self, PageError> {
        let now = controller.clock.now();
        let mut tokens = controller.store.tokens(visit.actor.user.id, now).await?;
        tokens.reverse();
        Ok(Self {
            page: Inside::new("Your tokens", visit),
            tab: "tokens",
            tokens: tokens.iter().map(|token| Row::new(token, now)).collect(),
            fresh: None,
            description: String::new(),
            scopes: choices(),
        })
    }

    #[cfg(test)]
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, inside};
        [vec![], vec![Row::sample(true), Row::sample(false)]].map(|tokens| Self {
            page: inside(),
            tab: "tokens",
            fresh: (!tokens.is_empty()).then(|| HOSTILE.to_owned()),
            tokens,
            description: HOSTILE.to_owned(),
            scopes: choices(),
        })
    }
}

impl Row {
    pub(super) fn new(token: &Token, now: Timestamp) -> Self {
        let scopes: Vec<String> = token.grant.scopes.iter().map(ToString::to_string).collect();
        let pill = match (token.grant.limit, &token.app_name) {
            (Some((_, role)), Some(app)) => Pill::new("calm", format!("{role} on {app}")),
            _ if token.grant == Grant::default() => Pill::new("warn", "everything"),
            _ => Pill::new("calm", scopes.join(", ")),
        };
        Self {
            id: token.id.to_string(),
            description: name(token).to_owned(),
            pill,
            made: Moment::new(token.created_at, now),
            used: token.last_used_at.map(|used| Moment::new(used, now)),
            until: token.expires_at.map(day),
        }
    }

    #[cfg(test)]
    pub(super) fn sample(is_used: bool) -> Self {
        use crate::view::samples::{HOSTILE, moment};
        Self {
            id: HOSTILE.to_owned(),
            description: HOSTILE.to_owned(),
            pill: Pill::new("calm", HOSTILE),
            made: moment(),
            used: is_used.then(moment),
            until: is_used.then(|| HOSTILE.to_owned()),
        }
    }
}

fn choices() -> Vec<Choice> {
    let text = |scope| match scope {
        Scope::Global => "everything, your account included",
        Scope::Identity => "to know who you are",
        Scope::Read => "to look at apps, but for config vars",
        Scope::Write => "to change apps, but for config vars",
        Scope::ReadProtected => "to look at apps and config vars",
        Scope::WriteProtected => "to change apps and config vars",
    };
    Scope::ALL.into_iter().map(|scope| Choice::new(scope.to_string(), text(scope))).collect()
}
