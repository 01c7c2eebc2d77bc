//! The web console: pages on the server, one style sheet, and as little script as it can do with.
//!
//! A page is a file of `pages/` (handlers and the struct that its template is filled with) and one of `templates/`. Handlers
//! call the verbs of [`Controller`], the same as the API, and know nothing else of the platform. Every form is an ordinary
//! form that is answered with a redirect (`respond::see_other`), but for what makes a secret, which only its own answer shows;
//! htmx only puts the page that follows in place without loading everything anew. Reading needs no script at all.
//!
//! `session.rs` says who may come in, `form.rs` which forms are taken, `respond.rs` what every answer carries.

mod assets;
pub mod dotenv;
mod error;
mod form;
mod live;
mod notice;
mod pages;
mod respond;
mod session;
mod templates;
mod view;

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Extension, Router};
use controller::Controller;
use model::Role;
use pages::{
    access, activity, addon, addons, apps, audit, builds, config, domains, front, invitations, jobs, keys, login, logs,
    overview, releases, security, settings, setup, sign_in, teams, tokens, two_factor,
};
use session::Need;

/// The console. Every path but the front door begins with `/console`, where no path of the API does.
pub fn routes(controller: Arc<Controller>) -> Router {
    Router::new()
        .route("/", get(front::door))
        .route("/console", get(front::start))
        .route("/console/static/{name}", get(assets::serve))
        .route("/console/sign-in", get(sign_in::show).post(sign_in::enter))
        .route("/console/sign-out", post(sign_in::leave))
        .route("/console/setup", get(setup::show).post(setup::create))
        .route("/console/invitations/{token}", get(invitations::show).post(invitations::accept))
        .route("/console/invitations/{token}/join", get(invitations::ask).post(invitations::join))
        .route("/console/login/{login}", get(login::show).post(login::decide))
        .route("/console/apps", get(apps::list).post(apps::create))
        .route("/console/new", get(apps::new))
        .route("/console/{*path}", get(front::unknown))
        .nest("/console/account", of_account())
        .nest("/console/teams", of_teams())
        .nest("/console/apps/{app}", of_app())
        .layer(axum::middleware::from_fn(respond::protect))
        .with_state(controller)
}

/// Those of one's own account.
fn of_account() -> Router<Arc<Controller>> {
    Router::new()
        .route("/", get(security::show))
        .route("/password", post(security::change_password))
        .route("/sessions/end", post(security::end_session))
        .route("/delete", post(security::delete))
        .route("/two-factor", post(two_factor::begin))
        .route("/two-factor.svg", get(two_factor::picture))
        .route("/two-factor/confirm", get(security::show).post(two_factor::confirm))
        .route("/two-factor/codes", get(security::show).post(two_factor::codes))
        .route("/two-factor/end", post(two_factor::end))
        .route("/keys", get(keys::show).post(keys::add))
        .route("/keys/remove", post(keys::remove))
        .route("/tokens", get(tokens::show).post(tokens::create))
        .route("/tokens/revoke", post(tokens::revoke))
        .route("/audit", get(audit::of_account))
}

/// Those of teams. Each finds out itself what whoever comes may do in the team.
fn of_teams() -> Router<Arc<Controller>> {
    Router::new()
        .route("/", get(teams::list).post(teams::create))
        .route("/{team}", get(teams::show))
        .route("/{team}/members", get(teams::show).post(teams::add))
        .route("/{team}/members/role", post(teams::set_role))
        .route("/{team}/members/remove", post(teams::remove))
        .route("/{team}/uninvite", post(teams::uninvite))
        .route("/{team}/rename", post(teams::rename))
        .route("/{team}/delete", post(teams::delete))
}

/// The pages of an app, by the role on it that they want: the same as the API's routes of the same verbs.
fn of_app() -> Router<Arc<Controller>> {
    let with = |role: Role, routes: Router<Arc<Controller>>| routes.route_layer(Extension(Need(role)));
    let view = Router::new()
        .route("/", get(overview::show))
        .route("/live", get(overview::live))
        .route("/activity", get(activity::show))
        .route("/activity/live", get(activity::live))
        .route("/builds/{build}", get(builds::show))
        .route("/builds/{build}/live", get(builds::live))
        .route("/releases/{release}", get(releases::show))
        .route("/domains", get(domains::show))
        .route("/addons", get(addons::show))
        .route("/addons/live", get(addons::live))
        .route("/addons/{addon}", get(addon::show))
        .route("/addons/{addon}/live", get(addon::live))
        .route("/access", get(access::show))
        .route("/access/remove", post(access::remove))
        .route("/audit", get(audit::of_app))
        .route("/jobs", get(jobs::show))
        .route("/jobs/live", get(jobs::live))
        .route("/logs", get(logs::show))
        .route("/settings", get(settings::show));
    let deploy = Router::new()
        .route("/config", get(config::show))
        .route("/access/tokens", get(access::show).post(access::create_token))
        .route("/access/tokens/revoke", post(access::revoke_token))
        .route("/releases/{release}/rollback", get(releases::confirm).post(releases::rollback));
    let operate = Router::new()
        .route("/scale", post(overview::scale))
        .route("/restart", post(overview::restart))
        .route("/config", post(config::set))
        .route("/config/remove", post(config::remove))
        .route("/config/paste", get(config::paste).post(config::preview))
        .route("/config/apply", get(config::paste).post(config::apply))
        .route("/domains", post(domains::add))
        .route("/domains/remove", post(domains::remove))
        .route("/addons", post(addons::create))
        .route("/addons/attach", post(addons::attach))
        .route("/addons/detach", post(addons::detach))
        .route("/addons/{addon}/restart", post(addon::restart))
        .route("/addons/{addon}/backups", post(addon::capture))
        .route("/addons/{addon}/restore", post(addon::restore))
        .route("/jobs/run", post(jobs::run))
        .route("/maintenance", post(settings::maintenance));
    let manage = Router::new()
        .route("/access", post(access::set))
        .route("/addons/{addon}/destroy", post(addon::destroy))
        .route("/lock", post(settings::lock))
        .route("/freezes", post(settings::freeze))
        .route("/freezes/remove", post(settings::unfreeze));
    let admin = Router::new().route("/rename", post(settings::rename)).route("/delete", post(settings::delete));
    with(Role::View, view)
        .merge(with(Role::Deploy, deploy))
        .merge(with(Role::Operate, operate))
        .merge(with(Role::Manage, manage))
        .merge(with(Role::Admin, admin))
}
