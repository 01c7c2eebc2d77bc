//! Who may work on an app, and the tokens that are good for it alone.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use controller::accounts::TokenRequest;
use controller::grants::{Grant, Scope};
use controller::store::Collaborator;
use controller::{Actor, Controller, Error};
use model::{Role, Timestamp, TokenId};
use serde::Serialize;

use super::tokens::{self, lifetime};
use super::{show as show_page, show_again};
use crate::error::{PageError, refusal};
use crate::form::{Fields, Form};
use crate::notice::Notice;
use crate::session::AppVisit;
use crate::view::{Choice, Head, Inside, Moment, path, roles};

#[derive(Debug, Serialize)]
pub(super) struct Access {
    page: Inside,
    app: Head,
    /// What whoever looks may do.
    role: String,
    /// The team that owns the app; none if a user does.
    team: Option<Owner>,
    people: Vec<Row>,
    tokens: Vec<tokens::Row>,
    /// The roles that whoever looks may give.
    roles: Vec<Choice>,
    /// The text of a token that was just made; shown this once.
    fresh: Option<String>,
    /// The link of an invitation that was just made; shown this once.
    link: Option<String>,
    /// What the form holds.
    email: String,
}

/// A team that owns an app.
#[derive(Debug, Serialize)]
struct Owner {
    name: String,
    /// Whether whoever looks is in it.
    is_own: bool,
    members: Vec<Member>,
}

#[derive(Debug, Serialize)]
struct Member {
    email: String,
    role: String,
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that the template shows or does not")]
struct Row {
    id: String,
    email: String,
    role: String,
    is_owner: bool,
    is_invited: bool,
    is_self: bool,
    /// Whether whoever looks may give them another role, or none.
    can_change: bool,
    since: Moment,
}

/// `GET /console/apps/{app}/access`
pub(crate) async fn show(State(controller): State<Arc<Controller>>, by: AppVisit) -> Result<Response, PageError> {
    show_page(&by.visit, "access.html", &Access::load(&controller, &by).await?)
}

/// `POST /console/apps/{app}/access`: lets somebody in, or gives them another role. Who is no user yet gets a link, which only
/// this answer shows.
pub(crate) async fn set(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let by = &form.by;
    let email = form.fields.get("email").trim();
    let set = match form.fields.get("role").parse() {
        Ok(role) => controller.set_collaborator(&by.visit.actor, &by.app, (email, role)).await,
        Err(rule) => Err(Error::from(rule)),
    };
    match set {
        Ok((_, Some(link))) => {
            let mut page = Access::load(&controller, by).await?;
            page.link = Some(link);
            show_page(&by.visit, "access.html", &page)
        }
        Ok((known, None)) => {
            let text = format!("{} has the role {} now", known.user.email, known.role);
            Ok(Notice::done(text).then(&access_path(by)))
        }
        Err(error) => {
            let mut page = Access::load(&controller, by).await?;
            page.page.refuse(refusal(error)?);
            email.clone_into(&mut page.email);
            show_again("access.html", &page)
        }
    }
}

/// `POST /console/apps/{app}/access/remove`: everybody may go by themselves.
pub(crate) async fn remove(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let (by, actor) = (&form.by, &form.by.visit.actor);
    match controller.remove_collaborator(actor, &by.app, form.fields.get("person")).await {
        Ok(gone) if gone.user.id == actor.user.id => {
            Ok(Notice::done(format!("You no longer work on {}", by.app.name)).then("/console/apps"))
        }
        Ok(gone) => Ok(Notice::done(format!("{} is out", gone.user.email)).then(&access_path(by))),
        Err(error) => Ok(Notice::refused(refusal(error)?).then(&access_path(by))),
    }
}

/// `POST /console/apps/{app}/access/tokens`: the answer is the only page that ever shows the token.
pub(crate) async fn create_token(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let made = match request(&form.by, &form.fields) {
        Ok(request) => controller.issue_token(&form.by.visit.actor, request).await,
        Err(error) => Err(error),
    };
    let mut page = Access::load(&controller, &form.by).await?;
    match made {
        Ok(issued) => {
            page.fresh = Some(issued.text);
            show_page(&form.by.visit, "access.html", &page)
        }
        Err(error) => {
            page.page.refuse(refusal(error)?);
            show_again("access.html", &page)
        }
    }
}

/// `POST /console/apps/{app}/access/tokens/revoke`
pub(crate) async fn revoke_token(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let id: TokenId = form.fields.get("token").parse().map_err(|_| PageError::NoPage)?;
    let gone = controller.revoke_token(&form.by.visit.actor, id).await?;
    Ok(Notice::done(format!("{} is no longer good", tokens::name(&gone))).then(&access_path(&form.by)))
}

/// What a form asks for: a token for this app alone, with no more than its maker has.
fn request(by: &AppVisit, fields: &Fields) -> Result<TokenRequest, Error> {
    let role: Role = fields.get("role").parse()?;
    if role > by.role {
        return Err(Error::Forbidden(format!("You have the role {}; a token cannot have {role}.", by.role)));
    }
    let grant = Grant { scopes: vec![Scope::Global], limit: Some((by.app.id, role)) };
    Ok(TokenRequest { description: fields.get("description").trim().to_owned(), lifetime: lifetime(fields), grant })
}

fn access_path(by: &AppVisit) -> String {
    format!("{}/access", path(&by.app))
}

impl Access {
    async fn load(controller: &Controller, by: &AppVisit) -> Result<Self, PageError> {
        let (actor, now) = (&by.visit.actor, controller.clock.now());
        let people = controller.collaborators(&by.app).await?;
        let mut own = controller.store.tokens(actor.user.id, now).await?;
        own.retain(|token| token.grant.limit.is_some_and(|(app, _)| app == by.app.id));
        Ok(Self {
            page: Inside::new(&format!("Access to {}", by.app.name), &by.visit),
            app: Head::load(controller, by, "access").await?,
            role: by.role.to_string(),
            team: owner(controller, by).await?,
            people: people.iter().map(|person| Row::new(person, (actor, by.role), now)).collect(),
            tokens: own.iter().rev().map(|token| tokens::Row::new(token, now)).collect(),
            roles: roles(by.role),
            fresh: None,
            link: None,
            email: String::new(),
        })
    }
}

/// The team that owns an app, with its members for those who are in it.
async fn owner(controller: &Controller, by: &AppVisit) -> Result<Option<Owner>, PageError> {
    let Some(team) = &by.app.team else { return Ok(None) };
    let is_own = controller.store.find_team(by.visit.actor.user.id, team.name.as_str()).await?.is_some();
    let members = if is_own { controller.store.members(team.id).await? } else { Vec::new() };
    let member =
        |one: &controller::store::Member| Member { email: one.user.email.to_string(), role: one.role.to_string() };
    Ok(Some(Owner { name: team.name.to_string(), is_own, members: members.iter().map(member).collect() }))
}

impl Row {
    fn new(person: &Collaborator, (actor, role): (&Actor, Role), now: Timestamp) -> Self {
        let is_self = person.user.id == actor.user.id;
        Self {
            id: person.id.clone(),
            email: person.user.email.to_string(),
            role: person.role.to_string(),
            is_owner: person.is_owner,
            is_invited: person.is_invited,
            is_self,
            can_change: !person.is_owner && role >= Role::Manage && person.role <= role,
            since: Moment::new(person.created_at, now),
        }
    }
}

#[cfg(test)]
impl Access {
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, head, head_for, inside, moment};
        let hostile = || HOSTILE.to_owned();
        let row = |is_owner: bool, is_self: bool| Row {
            id: hostile(),
            email: hostile(),
            role: hostile(),
            is_owner,
            is_invited: !is_owner && !is_self,
            is_self,
            can_change: !is_owner,
            since: moment(),
        };
        let page = |app, team, tokens| Self {
            page: inside(),
            app,
            role: hostile(),
            team,
            people: vec![row(true, true), row(false, false), row(false, true)],
            tokens,
            roles: roles(Role::Manage),
            fresh: Some(hostile()),
            link: Some(hostile()),
            email: hostile(),
        };
        let member = Member { email: hostile(), role: hostile() };
        let team = Owner { name: hostile(), is_own: true, members: vec![member] };
        let tokens = vec![tokens::Row::sample(true)];
        [page(head("access"), None, tokens), page(head_for(Role::View, "access"), Some(team), vec![])]
    }
}
