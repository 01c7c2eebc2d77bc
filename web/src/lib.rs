//! The web console: pages on the server, one style sheet, and as little script as it can do with.
//!
//! A page is a file of `pages/` (handlers and the struct that its template is filled with) and one of `templates/`. Handlers
//! call the verbs of [`Controller`], the same as the API, and know nothing else of the platform. Every form is an ordinary
//! form that is answered with a redirect (`respond::see_other`); htmx only puts the page that follows in place without
//! loading everything anew. Reading needs no script at all.
//!
//! `session.rs` says who may come in, `form.rs` which forms are taken, `respond.rs` what every answer carries.

mod assets;
mod dotenv;
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

use axum::Router;
use axum::routing::{get, post};
use controller::Controller;
use pages::{
    activity, addon, addons, apps, builds, config, domains, front, logs, overview, releases, settings, setup, sign_in,
};

/// The console. Every path but the front door begins with `/console`, where no path of the API does.
pub fn routes(controller: Arc<Controller>) -> Router {
    Router::new()
        .route("/", get(front::door))
        .route("/console", get(front::start))
        .route("/console/static/{name}", get(assets::serve))
        .route("/console/sign-in", get(sign_in::show).post(sign_in::enter))
        .route("/console/sign-out", post(sign_in::leave))
        .route("/console/setup", get(setup::show).post(setup::create))
        .route("/console/apps", get(apps::list).post(apps::create))
        .route("/console/new", get(apps::new))
        .route("/console/apps/{app}", get(overview::show))
        .route("/console/apps/{app}/live", get(overview::live))
        .route("/console/apps/{app}/scale", post(overview::scale))
        .route("/console/apps/{app}/restart", post(overview::restart))
        .route("/console/apps/{app}/activity", get(activity::show))
        .route("/console/apps/{app}/activity/live", get(activity::live))
        .route("/console/apps/{app}/builds/{build}", get(builds::show))
        .route("/console/apps/{app}/builds/{build}/live", get(builds::live))
        .route("/console/apps/{app}/releases/{release}", get(releases::show))
        .route("/console/apps/{app}/releases/{release}/rollback", get(releases::confirm).post(releases::rollback))
        .route("/console/apps/{app}/config", get(config::show).post(config::set))
        .route("/console/apps/{app}/config/remove", post(config::remove))
        .route("/console/apps/{app}/config/paste", get(config::paste).post(config::preview))
        .route("/console/apps/{app}/config/apply", get(config::paste).post(config::apply))
        .route("/console/apps/{app}/domains", get(domains::show).post(domains::add))
        .route("/console/apps/{app}/domains/remove", post(domains::remove))
        .route("/console/apps/{app}/addons", get(addons::show).post(addons::create))
        .route("/console/apps/{app}/addons/live", get(addons::live))
        .route("/console/apps/{app}/addons/attach", post(addons::attach))
        .route("/console/apps/{app}/addons/detach", post(addons::detach))
        .route("/console/apps/{app}/addons/{addon}", get(addon::show))
        .route("/console/apps/{app}/addons/{addon}/live", get(addon::live))
        .route("/console/apps/{app}/addons/{addon}/restart", post(addon::restart))
        .route("/console/apps/{app}/addons/{addon}/backups", post(addon::capture))
        .route("/console/apps/{app}/addons/{addon}/restore", post(addon::restore))
        .route("/console/apps/{app}/addons/{addon}/destroy", post(addon::destroy))
        .route("/console/apps/{app}/logs", get(logs::show))
        .route("/console/apps/{app}/settings", get(settings::show))
        .route("/console/apps/{app}/rename", post(settings::rename))
        .route("/console/apps/{app}/maintenance", post(settings::maintenance))
        .route("/console/apps/{app}/delete", post(settings::delete))
        .route("/console/{*path}", get(front::unknown))
        .layer(axum::middleware::from_fn(respond::protect))
        .with_state(controller)
}
