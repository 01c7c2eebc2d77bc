//! Teams: those that one is in, and the people and apps of one of them.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use controller::store::{Invitation, Member, Place, Team};
use controller::{Actor, Controller, Error};
use model::{Email, Role, Timestamp};
use serde::Serialize;

use super::{show as show_page, show_again};
use crate::error::{PageError, refusal};
use crate::form::{Fields, Form};
use crate::notice::Notice;
use crate::session::Visit;
use crate::view::{Choice, Inside, Moment, roles};

const PATH: &str = "/console/teams";

#[derive(Debug, Serialize)]
pub(super) struct TeamList {
    page: Inside,
    teams: Vec<Listed>,
    /// What the form holds.
    name: String,
}

#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    role: String,
}

#[derive(Debug, Serialize)]
pub(super) struct TeamPage {
    page: Inside,
    name: String,
    path: String,
    role: String,
    /// Whether whoever looks may change the team.
    is_admin: bool,
    members: Vec<Row>,
    invitations: Vec<Invited>,
    apps: Vec<String>,
    roles: Vec<Choice>,
    /// The link of an invitation that was just made; shown this once.
    link: Option<String>,
    /// What the form holds.
    email: String,
}

#[derive(Debug, Serialize)]
struct Row {
    id: String,
    email: String,
    role: String,
    has_two_factor: bool,
    is_self: bool,
    since: Moment,
}

#[derive(Debug, Serialize)]
struct Invited {
    id: String,
    email: String,
    role: String,
    by: String,
    since: Moment,
    /// The day from which on it is no longer good.
    until: String,
}

/// `GET /console/teams`
pub(crate) async fn list(State(controller): State<Arc<Controller>>, visit: Visit) -> Result<Response, PageError> {
    show_page(&visit, "teams.html", &TeamList::load(&controller, &visit).await?)
}

/// `POST /console/teams`
pub(crate) async fn create(
    State(controller): State<Arc<Controller>>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let name = form.fields.get("name").trim();
    match controller.create_team(&form.by.actor, name).await {
        Ok(team) => Ok(Notice::done(format!("The team {} is there. You are its admin.", team.name)).then(&path(&team))),
        Err(error) => {
            let mut page = TeamList::load(&controller, &form.by).await?;
            page.page.refuse(refusal(error)?);
            name.clone_into(&mut page.name);
            show_again("teams.html", &page)
        }
    }
}

/// `GET /console/teams/{team}`
pub(crate) async fn show(
    State(controller): State<Arc<Controller>>,
    visit: Visit,
    Path(team): Path<String>,
) -> Result<Response, PageError> {
    let team = controller.find_team(&visit.actor, &team, Role::View).await?;
    show_page(&visit, "team.html", &TeamPage::load(&controller, &visit, &team).await?)
}

/// `POST /console/teams/{team}/members`: who is a user is in at once; whoever is not gets a link, which only this answer shows.
pub(crate) async fn add(
    State(controller): State<Arc<Controller>>,
    Path(team): Path<String>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let (actor, email) = (&form.by.actor, form.fields.get("email").trim());
    let team = controller.find_team(actor, &team, Role::Admin).await?;
    match take_in(&controller, actor, &team, &form.fields).await {
        Ok(Some(link)) => {
            let mut page = TeamPage::load(&controller, &form.by, &team).await?;
            page.link = Some(link);
            show_page(&form.by, "team.html", &page)
        }
        Ok(None) => Ok(Notice::done(format!("{email} is in the team now")).then(&path(&team))),
        Err(error) => {
            let mut page = TeamPage::load(&controller, &form.by, &team).await?;
            page.page.refuse(refusal(error)?);
            email.clone_into(&mut page.email);
            show_again("team.html", &page)
        }
    }
}

/// `POST /console/teams/{team}/members/role`
pub(crate) async fn set_role(
    State(controller): State<Arc<Controller>>,
    Path(team): Path<String>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let actor = &form.by.actor;
    let team = controller.find_team(actor, &team, Role::Admin).await?;
    let member = controller.find_member(&team, form.fields.get("member")).await?;
    let set = match form.fields.get("role").parse() {
        Ok(role) => controller.set_member(actor, &team, (member.user.email.as_str(), role)).await,
        Err(rule) => Err(Error::from(rule)),
    };
    let notice = match set {
        Ok(member) => Notice::done(format!("{} has the role {} now", member.user.email, member.role)),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&path(&team)))
}

/// `POST /console/teams/{team}/members/remove`: everybody may go by themselves.
pub(crate) async fn remove(
    State(controller): State<Arc<Controller>>,
    Path(team): Path<String>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let actor = &form.by.actor;
    let team = controller.find_team(actor, &team, Role::View).await?;
    match controller.remove_member(actor, &team, form.fields.get("member")).await {
        Ok(gone) if gone.user.id == actor.user.id => {
            Ok(Notice::done(format!("You have left the team {}", team.name)).then(PATH))
        }
        Ok(gone) => Ok(Notice::done(format!("{} is no longer in the team", gone.user.email)).then(&path(&team))),
        Err(error) => Ok(Notice::refused(refusal(error)?).then(&path(&team))),
    }
}

/// `POST /console/teams/{team}/uninvite`
pub(crate) async fn uninvite(
    State(controller): State<Arc<Controller>>,
    Path(team): Path<String>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let actor = &form.by.actor;
    let team = controller.find_team(actor, &team, Role::Admin).await?;
    let gone = controller.uninvite(actor, &Place::Team(team.to_ref()), form.fields.get("invitation")).await?;
    Ok(Notice::done(format!("The invitation of {} is off", gone.email)).then(&path(&team)))
}

/// `POST /console/teams/{team}/rename`
pub(crate) async fn rename(
    State(controller): State<Arc<Controller>>,
    Path(team): Path<String>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let actor = &form.by.actor;
    let team = controller.find_team(actor, &team, Role::Admin).await?;
    match controller.rename_team(actor, &team, form.fields.get("name").trim()).await {
        Ok(team) => Ok(Notice::done(format!("The team is {} now", team.name)).then(&path(&team))),
        Err(error) => Ok(Notice::refused(refusal(error)?).then(&path(&team))),
    }
}

/// `POST /console/teams/{team}/delete`
pub(crate) async fn delete(
    State(controller): State<Arc<Controller>>,
    Path(team): Path<String>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let actor = &form.by.actor;
    let team = controller.find_team(actor, &team, Role::Admin).await?;
    if form.fields.get("confirm").trim() != team.name.as_str() {
        return Ok(Notice::refused(format!("Nothing was ended: type {} to confirm.", team.name)).then(&path(&team)));
    }
    match controller.delete_team(actor, &team).await {
        Ok(()) => Ok(Notice::done(format!("The team {} is no more", team.name)).then(PATH)),
        Err(error) => Ok(Notice::refused(refusal(error)?).then(&path(&team))),
    }
}

/// Makes somebody a member, or invites them; the link that lets them in, if it takes one.
async fn take_in(
    controller: &Controller,
    actor: &Actor,
    team: &Team,
    fields: &Fields,
) -> Result<Option<String>, Error> {
    let email = fields.get("email").trim().to_lowercase();
    let role: Role = fields.get("role").parse()?;
    let known = match email.parse::<Email>() {
        Ok(email) => controller.store.user_with_password(&email).await?,
        Err(_) => None,
    };
    if known.is_some() {
        controller.set_member(actor, team, (&email, role)).await?;
        return Ok(None);
    }
    Ok(Some(controller.invite_to_team(actor, &email, (team, role)).await?.url))
}

fn path(team: &Team) -> String {
    format!("{PATH}/{}", team.name)
}

impl TeamList {
    async fn load(controller: &Controller, visit: &Visit) -> Result<Self, PageError> {
        let teams = controller.store.teams_of(visit.actor.user.id).await?;
        let listed = |team: &Team| Listed { name: team.name.to_string(), role: team.role.to_string() };
        Ok(Self { page: Inside::new("Teams", visit), teams: teams.iter().map(listed).collect(), name: String::new() })
    }
}

impl TeamPage {
    async fn load(controller: &Controller, visit: &Visit, team: &Team) -> Result<Self, PageError> {
        let now = controller.clock.now();
        let members = controller.store.members(team.id).await?;
        let invitations = controller.invitations(&Place::Team(team.to_ref())).await?;
        let apps = controller.apps_of_team(team).await?;
        Ok(Self {
            page: Inside::new(&format!("Team {}", team.name), visit),
            name: team.name.to_string(),
            path: path(team),
            role: team.role.to_string(),
            is_admin: team.role == Role::Admin,
            members: members.iter().map(|member| Row::new(member, &visit.actor, now)).collect(),
            invitations: invitations.iter().filter_map(|one| Invited::new(one, now)).collect(),
            apps: apps.iter().map(|app| app.name.to_string()).collect(),
            roles: roles(Role::Admin),
            link: None,
            email: String::new(),
        })
    }
}

impl Row {
    fn new(member: &Member, actor: &Actor, now: Timestamp) -> Self {
        Self {
            id: member.id.clone(),
            email: member.user.email.to_string(),
            role: member.role.to_string(),
            has_two_factor: member.two_factor,
            is_self: member.user.id == actor.user.id,
            since: Moment::new(member.created_at, now),
        }
    }
}

impl Invited {
    fn new(invitation: &Invitation, now: Timestamp) -> Option<Self> {
        Some(Self {
            id: invitation.id.to_string(),
            email: invitation.email.to_string(),
            role: invitation.role?.to_string(),
            by: invitation.invited_by.email.to_string(),
            since: Moment::new(invitation.updated_at, now),
            until: crate::view::day(invitation.expires_at),
        })
    }
}

#[cfg(test)]
mod samples {
    use super::*;
    use crate::view::samples::{HOSTILE, inside, moment};

    impl TeamList {
        pub(in crate::pages) fn samples() -> [Self; 2] {
            let team = || Listed { name: HOSTILE.to_owned(), role: HOSTILE.to_owned() };
            [vec![], vec![team(), team()]].map(|teams| Self { page: inside(), teams, name: HOSTILE.to_owned() })
        }
    }

    impl TeamPage {
        pub(in crate::pages) fn samples() -> [Self; 2] {
            let hostile = || HOSTILE.to_owned();
            let row = |is_self| Row {
                id: hostile(),
                email: hostile(),
                role: hostile(),
                has_two_factor: is_self,
                is_self,
                since: moment(),
            };
            let invited = || Invited {
                id: hostile(),
                email: hostile(),
                role: hostile(),
                by: hostile(),
                since: moment(),
                until: hostile(),
            };
            [true, false].map(|is_admin| Self {
                page: inside(),
                name: hostile(),
                path: "/console/teams/sample".to_owned(),
                role: hostile(),
                is_admin,
                members: vec![row(true), row(false)],
                invitations: if is_admin { vec![invited()] } else { vec![] },
                apps: if is_admin { vec![hostile()] } else { vec![] },
                roles: roles(Role::Admin),
                link: is_admin.then(hostile),
                email: hostile(),
            })
        }
    }
}
