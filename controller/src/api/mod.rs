//! The Heroku Platform API v3 on the wire. This file is its table of contents: every route, nothing else.

mod account;
mod addon_services;
mod addons;
mod apps;
mod attachments;
mod auth;
mod authorizations;
mod backups;
mod builds;
mod catalog;
mod config_vars;
mod describe;
mod domains;
mod dynos;
mod envelope;
mod error;
mod fields;
mod formation;
mod input;
mod log_sessions;
mod openapi;
mod output;
mod range;
mod releases;
mod routing;
#[cfg(test)]
mod tests;
mod unused;

use std::sync::Arc;

use axum::Router;

use crate::Controller;
pub(crate) use auth::Credentials;
pub use error::ApiError;
use routing::{Route, delete, get, patch, post, put};

/// The API as a router. What it does not know gets a 404 in JSON, also when other routers were merged into it.
pub fn routes(controller: Arc<Controller>) -> Router {
    routing::router(controller, table())
}

/// Every route. All of them want a token, but for the first two.
fn table() -> Vec<Route> {
    vec![
        get("/openapi.json", openapi::openapi),
        get("/schema", openapi::schema),
        get("/account", account::info),
        get("/account/features", unused::list),
        get("/account/keys", unused::list),
        get("/account/rate-limits", account::rate_limits),
        get("/users/{user}", account::info),
        get("/users/{user}/apps", apps::list),
        get("/oauth/authorizations", authorizations::list),
        post("/oauth/authorizations", authorizations::create),
        get("/oauth/authorizations/{authorization}", authorizations::info),
        delete("/oauth/authorizations/{authorization}", authorizations::delete),
        delete("/oauth/sessions/{session}", unused::no_session),
        get("/apps", apps::list),
        post("/apps", apps::create),
        get("/apps/{app}", apps::info),
        patch("/apps/{app}", apps::update),
        delete("/apps/{app}", apps::delete),
        get("/apps/{app}/config-vars", config_vars::info),
        patch("/apps/{app}/config-vars", config_vars::update),
        get("/apps/{app}/releases", releases::list),
        post("/apps/{app}/releases", releases::rollback),
        get("/apps/{app}/releases/{release}", releases::info),
        get("/apps/{app}/releases/{release}/config-vars", releases::config_vars),
        get("/apps/{app}/formation", formation::list),
        patch("/apps/{app}/formation", formation::batch_update),
        get("/apps/{app}/formation/{type}", formation::info),
        patch("/apps/{app}/formation/{type}", formation::update),
        get("/apps/{app}/dynos", dynos::list),
        post("/apps/{app}/dynos", dynos::create),
        delete("/apps/{app}/dynos", dynos::restart_all),
        get("/apps/{app}/dynos/{dyno}", dynos::info),
        delete("/apps/{app}/dynos/{dyno}", dynos::restart),
        delete("/apps/{app}/formations/{dyno}", dynos::restart),
        post("/apps/{app}/log-sessions", log_sessions::create),
        get("/apps/{app}/builds", builds::list),
        get("/apps/{app}/builds/{build}", builds::info),
        get("/apps/{app}/domains", domains::list),
        post("/apps/{app}/domains", domains::create),
        get("/apps/{app}/domains/{domain}", domains::info),
        delete("/apps/{app}/domains/{domain}", domains::delete),
        get("/apps/{app}/buildpack-installations", apps::buildpacks),
        put("/apps/{app}/buildpack-installations", apps::set_buildpacks),
        get("/apps/{app}/collaborators", apps::collaborators),
        get("/apps/{app}/addons", addons::list_of_app),
        post("/apps/{app}/addons", addons::create),
        get("/apps/{app}/addons/{addon}", addons::info),
        patch("/apps/{app}/addons/{addon}", addons::update),
        delete("/apps/{app}/addons/{addon}", addons::delete),
        post("/apps/{app}/addons/{addon}/log-sessions", log_sessions::create_of_addon),
        get("/apps/{app}/addon-attachments", attachments::list_of_app),
        get("/apps/{app}/addon-attachments/{attachment}", attachments::info),
        get("/apps/{app}/features", unused::list_of_app),
        get("/apps/{app}/log-drains", unused::list_of_app),
        get("/apps/{app}/pipeline-couplings", unused::no_pipeline),
        get("/apps/{app}/sni-endpoints", unused::list_of_app),
        get("/apps/{app}/webhooks", unused::list_of_app),
        get("/addons", addons::list),
        get("/addons/{addon}", addons::info),
        get("/addons/{addon}/addon-attachments", attachments::list_of_addon),
        get("/addons/{addon}/config", addons::config),
        post("/addons/{addon}/actions/restart", addons::restart),
        post("/addons/{addon}/sessions", addons::open_session),
        get("/addons/{addon}/backups", backups::list),
        post("/addons/{addon}/backups", backups::create),
        get("/addons/{addon}/backups/{backup}", backups::info),
        delete("/addons/{addon}/backups/{backup}", backups::delete),
        get("/addons/{addon}/backups/{backup}/content", backups::content),
        post("/addons/{addon}/backups/{backup}/actions/restore", backups::restore),
        get("/addon-attachments", attachments::list),
        post("/addon-attachments", attachments::create),
        get("/addon-attachments/{attachment}", attachments::info),
        delete("/addon-attachments/{attachment}", attachments::delete),
        post("/actions/addons/resolve", addons::resolve),
        post("/actions/addon-attachments/resolve", attachments::resolve),
        get("/addon-services", addon_services::list),
        get("/addon-services/{service}", addon_services::info),
        get("/addon-services/{service}/plans", addon_services::plans),
        get("/addon-services/{service}/plans/{plan}", addon_services::plan),
        get("/plans/{plan}", addon_services::any_plan),
        get("/pipelines", unused::list),
        get("/teams", unused::list),
        get("/dyno-sizes", catalog::dyno_sizes_list),
        get("/regions", catalog::regions),
        get("/stacks", catalog::stacks),
    ]
}
