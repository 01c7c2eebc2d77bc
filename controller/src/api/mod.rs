//! The Heroku Platform API v3 on the wire. This file is its table of contents: every route, nothing else.

mod account;
mod addon_services;
mod addons;
mod app_transfers;
mod apps;
mod attachments;
mod auth;
mod authorizations;
mod backups;
#[cfg(test)]
mod bad_input;
mod buildpacks;
mod builds;
mod catalog;
mod collaborators;
mod config_changes;
mod config_vars;
#[cfg(test)]
mod conformance;
mod credentials;
mod data;
mod describe;
mod disk;
mod domains;
mod dyno_health;
mod dynos;
mod egress;
mod envelope;
mod error;
mod events;
mod features;
mod formation;
mod idempotency;
mod images;
mod input;
mod inside;
mod invitations;
mod jobs;
mod keys;
mod limits;
mod links;
#[cfg(test)]
mod lock_tests;
mod locks;
mod log_drains;
mod log_sessions;
mod logins;
mod metrics;
mod openapi;
mod output;
#[cfg(test)]
mod people_tests;
mod pipelines;
mod platform;
mod range;
mod releases;
mod repositories;
mod rollbacks;
mod rollouts;
mod routing;
mod routing_policy;
mod runs;
mod sboms;
mod scaling;
#[cfg(test)]
mod schemathesis;
mod sessions;
mod sizes;
mod slugs;
mod sni_endpoints;
mod sources;
mod tcp_routes;
mod teams;
#[cfg(test)]
mod tests;
mod transfers;
mod two_factor;
mod volumes;
mod webhooks;

use std::sync::Arc;

use axum::Router;

use crate::Controller;
pub(crate) use auth::Credentials;
use auth::Right;
pub use auth::origin;
#[cfg(test)]
pub(crate) use conformance::check;
pub use error::ApiError;
pub use limits::RateLimits;
pub use range::parse as parse_range;
use routing::{Route, delete, get, patch, post, put};

/// The API as a router. What it does not know gets a 404 in JSON, also when other routers were merged into it.
pub fn routes(controller: Arc<Controller>) -> Router {
    routing::router(controller, table())
}

/// Every route, and what it wants of whoever asks.
fn table() -> Vec<Route> {
    let mut table = things();
    table.extend(people());
    table.extend(ways());
    table.extend(lanes());
    table.extend(processes());
    table.extend(data());
    table
}

/// Those about processes beside the formation.
fn processes() -> Vec<Route> {
    use Right::{Manage, Operate, Operator, SignedIn, View};
    vec![
        get("/apps/{app}/volumes", View, volumes::list),
        post("/apps/{app}/volumes", Operate, volumes::create),
        get("/apps/{app}/volumes/{volume}", View, volumes::info),
        patch("/apps/{app}/volumes/{volume}", Operate, volumes::update),
        delete("/apps/{app}/volumes/{volume}", Manage, volumes::delete),
        get("/apps/{app}/volumes/{volume}/content", Operate, volumes::content),
        get("/apps/{app}/volumes/{volume}/snapshots", View, volumes::snapshots),
        post("/apps/{app}/volumes/{volume}/snapshots", Operate, volumes::create_snapshot),
        delete("/apps/{app}/volumes/{volume}/snapshots/{snapshot}", Manage, volumes::delete_snapshot),
        get("/apps/{app}/volumes/{volume}/snapshots/{snapshot}/content", Operate, volumes::snapshot_content),
        post("/apps/{app}/volumes/{volume}/snapshots/{snapshot}/actions/restore", Manage, volumes::restore),
        get("/volumes", SignedIn, volumes::kept),
        delete("/volumes/{volume}", SignedIn, volumes::delete_kept),
        get("/apps/{app}/metrics", View, metrics::of_app),
        get("/apps/{app}/metrics/paths", View, metrics::paths),
        get("/metrics", Operator, metrics::of_platform),
        get("/apps/{app}/disk", View, disk::of_app),
        get("/disk", Operator, disk::of_platform),
        get("/disk/waste", Operator, disk::waste),
        post("/disk/actions/collect", Operator, disk::collect),
        get("/apps/{app}/formation/{type}/scaling-policy", View, scaling::policy),
        patch("/apps/{app}/formation/{type}/scaling-policy", Operate, scaling::set_policy),
        get("/apps/{app}/jobs", View, jobs::list),
        post("/apps/{app}/jobs", Operate, jobs::create),
        get("/apps/{app}/jobs/{job}", View, jobs::info),
        patch("/apps/{app}/jobs/{job}", Operate, jobs::update),
        delete("/apps/{app}/jobs/{job}", Operate, jobs::delete),
        get("/apps/{app}/jobs/{job}/runs", View, jobs::runs),
        post("/apps/{app}/jobs/{job}/runs", Operate, jobs::run),
        get("/apps/{app}/jobs/{job}/runs/{run}", View, jobs::run_info),
        post("/apps/{app}/jobs/{job}/runs/{run}/actions/stop", Operate, jobs::stop_run),
        get("/apps/{app}/formation/{type}/scaling-decisions", View, scaling::decisions),
        post("/apps/{app}/dynos/{dyno}", Operate, dynos::run_inside),
        post("/apps/{app}/dynos/{dyno}/ports/{port}", Operate, inside::forward),
        get("/apps/{app}/dynos/{dyno}/files", Operate, inside::download),
        put("/apps/{app}/dynos/{dyno}/files", Operate, inside::upload),
        get("/apps/{app}/runs", View, runs::list),
        get("/apps/{app}/runs/{run}", View, runs::info),
        post("/apps/{app}/runs/{run}/actions/stop", Operate, runs::stop),
    ]
}

/// Those about pipelines.
fn lanes() -> Vec<Route> {
    use Right::{SignedIn, View};
    vec![
        get("/apps/{app}/pipeline-couplings", View, pipelines::coupling_of_app),
        get("/pipelines", SignedIn, pipelines::list),
        post("/pipelines", SignedIn, pipelines::create),
        get("/pipelines/{pipeline}", SignedIn, pipelines::info),
        patch("/pipelines/{pipeline}", SignedIn, pipelines::update),
        delete("/pipelines/{pipeline}", SignedIn, pipelines::delete),
        get("/pipelines/{pipeline}/pipeline-couplings", SignedIn, pipelines::couplings_of_pipeline),
        get("/pipeline-couplings", SignedIn, pipelines::couplings),
        post("/pipeline-couplings", SignedIn, pipelines::create_coupling),
        get("/pipeline-couplings/{coupling}", SignedIn, pipelines::coupling_info),
        patch("/pipeline-couplings/{coupling}", SignedIn, pipelines::update_coupling),
        delete("/pipeline-couplings/{coupling}", SignedIn, pipelines::delete_coupling),
        get("/users/~/pipeline-couplings", SignedIn, pipelines::couplings),
        get("/teams/{team}/pipeline-couplings", SignedIn, pipelines::couplings_of_team),
        post("/filters/apps", SignedIn, pipelines::filter_apps),
    ]
}

/// Those about how code gets to an app, and requests and logs to where they go.
fn ways() -> Vec<Route> {
    use Right::{Deploy, Manage, Operate, SignedIn, View};
    vec![
        get("/apps/{app}/builds", View, builds::list),
        post("/apps/{app}/builds", Deploy, builds::create),
        get("/apps/{app}/builds/{build}", View, builds::info),
        delete("/apps/{app}/builds/{build}", Deploy, builds::cancel),
        delete("/apps/{app}/build-cache", Deploy, builds::purge_cache),
        get("/apps/{app}/repository", Deploy, repositories::info),
        put("/apps/{app}/repository", Manage, repositories::set),
        delete("/apps/{app}/repository", Manage, repositories::delete),
        post("/apps/{app}/repository/deploys", Deploy, repositories::deploy),
        get("/apps/{app}/credentials", Deploy, credentials::list_of_app),
        put("/apps/{app}/credentials", Manage, credentials::set_of_app),
        delete("/apps/{app}/credentials/{credential}", Manage, credentials::delete_of_app),
        get("/apps/{app}/builds/{build}/sbom", View, sboms::list),
        get("/apps/{app}/lock", View, locks::info),
        put("/apps/{app}/lock", Manage, locks::set),
        delete("/apps/{app}/lock", Manage, locks::end),
        get("/apps/{app}/freeze-windows", View, locks::list_of_app),
        post("/apps/{app}/freeze-windows", Manage, locks::create_of_app),
        delete("/apps/{app}/freeze-windows/{window}", Manage, locks::delete_of_app),
        get("/apps/{app}/slugs/{slug}", View, slugs::info),
        get("/apps/{app}/oci-images/{image}", View, slugs::image),
        post("/sources", SignedIn, sources::create),
        post("/apps/{app}/sources", Deploy, sources::create),
        get("/apps/{app}/domains", View, domains::list),
        post("/apps/{app}/domains", Operate, domains::create),
        get("/apps/{app}/domains/{domain}", View, domains::info),
        patch("/apps/{app}/domains/{domain}", Operate, domains::update),
        delete("/apps/{app}/domains/{domain}", Operate, domains::delete),
        get("/apps/{app}/sni-endpoints", View, sni_endpoints::list),
        post("/apps/{app}/sni-endpoints", Manage, sni_endpoints::create),
        get("/apps/{app}/sni-endpoints/{endpoint}", View, sni_endpoints::info),
        patch("/apps/{app}/sni-endpoints/{endpoint}", Manage, sni_endpoints::update),
        delete("/apps/{app}/sni-endpoints/{endpoint}", Manage, sni_endpoints::delete),
        post("/apps/{app}/acm", Manage, sni_endpoints::enable_acm),
        patch("/apps/{app}/acm", Manage, sni_endpoints::refresh_acm),
        delete("/apps/{app}/acm", Manage, sni_endpoints::disable_acm),
        get("/apps/{app}/features", View, features::list),
        get("/apps/{app}/features/{feature}", View, features::info),
        patch("/apps/{app}/features/{feature}", Operate, features::update),
        get("/account/features", SignedIn, features::list_of_user),
        get("/account/features/{feature}", SignedIn, features::none_of_user),
        patch("/account/features/{feature}", SignedIn, features::none_of_user),
        get("/dyno-sizes/{size}", SignedIn, sizes::info),
        get("/regions/{region}", SignedIn, catalog::region),
        get("/stacks/{stack}", SignedIn, catalog::stack),
        get("/apps/{app}/links", View, links::list),
        post("/apps/{app}/links", Manage, links::create),
        delete("/apps/{app}/links/{link}", Manage, links::delete),
        get("/apps/{app}/tcp-routes", View, tcp_routes::list),
        post("/apps/{app}/tcp-routes", Operate, tcp_routes::create),
        get("/apps/{app}/tcp-routes/{route}", View, tcp_routes::info),
        delete("/apps/{app}/tcp-routes/{route}", Operate, tcp_routes::delete),
        get("/apps/{app}/egress", View, egress::info),
        put("/apps/{app}/egress", Manage, egress::set),
        delete("/apps/{app}/egress", Manage, egress::clear),
        get("/apps/{app}/routing-policy", View, routing_policy::info),
        patch("/apps/{app}/routing-policy", Manage, routing_policy::set),
        get("/apps/{app}/log-drains", View, log_drains::list),
        post("/apps/{app}/log-drains", Manage, log_drains::create),
        get("/apps/{app}/log-drains/{drain}", View, log_drains::info),
        delete("/apps/{app}/log-drains/{drain}", Manage, log_drains::delete),
    ]
}

/// Those of Heroku's other API, about databases.
fn data() -> Vec<Route> {
    use Right::{Deploy, Manage, Operate, View};
    vec![
        get("/client/v11/databases/{addon}", Deploy, data::database),
        get("/client/v11/databases/{addon}/wait_status", View, data::wait_status),
        post("/client/v11/databases/{addon}/connection_reset", Operate, data::reset_connections),
        post("/client/v11/databases/{addon}/backups", Operate, data::capture),
        post("/client/v11/databases/{addon}/restores", Operate, data::restore),
        get("/client/v11/databases/{addon}/transfer-schedules", View, data::schedules),
        get("/client/v11/apps/{app}/transfers", View, transfers::list),
        get("/client/v11/apps/{app}/transfers/{transfer}", View, transfers::info),
        delete("/client/v11/apps/{app}/transfers/{transfer}", Manage, transfers::delete),
        post("/client/v11/apps/{app}/transfers/{transfer}/actions/public-url", Deploy, transfers::public_url),
        get("/postgres/v0/databases/{addon}/credentials", Deploy, data::credentials),
        get("/postgres/v0/databases/{addon}/credentials/{credential}", Deploy, data::credential),
        get("/redis/v0/databases/{addon}", Deploy, data::redis),
        get("/redis/v0/databases/{addon}/wait", View, data::wait_status),
    ]
}

/// Those about who asks, and about other people.
fn people() -> Vec<Route> {
    use Right::{Admin, Anyone, Manage, Operator, SignedIn, View};
    vec![
        get("/account", SignedIn, account::info),
        patch("/account", SignedIn, account::update),
        delete("/account", SignedIn, account::delete),
        put("/account/password", SignedIn, account::set_password),
        get("/account/two-factor", SignedIn, two_factor::info),
        post("/account/two-factor", SignedIn, two_factor::begin),
        patch("/account/two-factor", SignedIn, two_factor::confirm),
        delete("/account/two-factor", SignedIn, two_factor::end),
        post("/account/recovery-codes", SignedIn, two_factor::recovery_codes),
        get("/account/keys", SignedIn, keys::list),
        post("/account/keys", SignedIn, keys::create),
        get("/account/keys/{key}", SignedIn, keys::info),
        delete("/account/keys/{key}", SignedIn, keys::delete),
        get("/account/app-transfers", SignedIn, app_transfers::list),
        post("/account/app-transfers", SignedIn, app_transfers::create),
        get("/account/app-transfers/{transfer}", SignedIn, app_transfers::info),
        patch("/account/app-transfers/{transfer}", SignedIn, app_transfers::update),
        delete("/account/app-transfers/{transfer}", SignedIn, app_transfers::delete),
        get("/account/rate-limits", SignedIn, account::rate_limits),
        get("/users", Operator, account::list),
        get("/users/{user}", SignedIn, account::info_of),
        patch("/users/{user}", Operator, account::update_of),
        delete("/users/{user}", Operator, account::delete_of),
        get("/users/{user}/apps", SignedIn, apps::list),
        get("/oauth/authorizations", SignedIn, authorizations::list),
        post("/oauth/authorizations", Anyone, authorizations::create),
        get("/oauth/authorizations/{authorization}", SignedIn, authorizations::info),
        patch("/oauth/authorizations/{authorization}", SignedIn, authorizations::update),
        delete("/oauth/authorizations/{authorization}", SignedIn, authorizations::delete),
        post("/oauth/authorizations/{authorization}/actions/regenerate-tokens", SignedIn, authorizations::regenerate),
        post("/auth", Anyone, logins::create),
        get("/cli/{login}", Anyone, logins::decision),
        get("/oauth/sessions", SignedIn, sessions::list),
        delete("/oauth/sessions/{session}", SignedIn, sessions::delete),
        get("/invitations", Operator, invitations::list),
        post("/invitations", Operator, invitations::create),
        delete("/invitations/{invitation}", Operator, invitations::delete),
        get("/teams", SignedIn, teams::list),
        post("/teams", SignedIn, teams::create),
        get("/teams/permissions", SignedIn, collaborators::permissions_list),
        get("/teams/invitations/{token}", Anyone, invitations::info),
        post("/teams/invitations/{token}/accept", SignedIn, invitations::accept),
        post("/teams/apps", SignedIn, app_transfers::create_app),
        get("/teams/apps/{app}", View, apps::info),
        patch("/teams/apps/{app}", Admin, app_transfers::give_app),
        get("/teams/apps/{app}/collaborators", View, collaborators::list),
        post("/teams/apps/{app}/collaborators", Manage, collaborators::create),
        get("/teams/apps/{app}/collaborators/{collaborator}", View, collaborators::info),
        patch("/teams/apps/{app}/collaborators/{collaborator}", Manage, collaborators::update),
        delete("/teams/apps/{app}/collaborators/{collaborator}", View, collaborators::delete),
        get("/teams/{team}", SignedIn, teams::info),
        patch("/teams/{team}", SignedIn, teams::update),
        delete("/teams/{team}", SignedIn, teams::delete),
        get("/teams/{team}/apps", SignedIn, teams::apps),
        get("/teams/{team}/features", SignedIn, teams::features),
        get("/teams/{team}/freeze-windows", SignedIn, locks::list_of_team),
        post("/teams/{team}/freeze-windows", SignedIn, locks::create_of_team),
        delete("/teams/{team}/freeze-windows/{window}", SignedIn, locks::delete_of_team),
        get("/freeze-windows", SignedIn, locks::list),
        post("/freeze-windows", Operator, locks::create_of_all),
        delete("/freeze-windows/{window}", Operator, locks::delete_of_all),
        get("/teams/{team}/credentials", SignedIn, credentials::list_of_team),
        put("/teams/{team}/credentials", SignedIn, credentials::set_of_team),
        delete("/teams/{team}/credentials/{credential}", SignedIn, credentials::delete_of_team),
        post("/dyno-sizes", Operator, sizes::create),
        patch("/dyno-sizes/{size}", Operator, sizes::update),
        delete("/dyno-sizes/{size}", Operator, sizes::delete),
        get("/credentials", Operator, credentials::list),
        put("/credentials", Operator, credentials::set_of_all),
        delete("/credentials/{credential}", Operator, credentials::delete_of_all),
        get("/teams/{team}/invitations", SignedIn, invitations::list_of_team),
        put("/teams/{team}/invitations", SignedIn, invitations::create_of_team),
        delete("/teams/{team}/invitations/{invitation}", SignedIn, invitations::delete_of_team),
        get("/teams/{team}/members", SignedIn, teams::members),
        post("/teams/{team}/members", SignedIn, teams::set_member),
        put("/teams/{team}/members", SignedIn, teams::set_member),
        patch("/teams/{team}/members", SignedIn, teams::set_member),
        delete("/teams/{team}/members/{member}", SignedIn, teams::remove_member),
        get("/teams/{team}/members/{member}/apps", SignedIn, teams::apps_of_member),
    ]
}

/// Those about apps and what they are made of.
fn things() -> Vec<Route> {
    use Right::{Admin, Anyone, Deploy, Manage, Operate, SignedIn, View};
    vec![
        get("/openapi.json", Anyone, openapi::openapi),
        get("/schema", Anyone, openapi::schema),
        get("/apps", SignedIn, apps::list),
        post("/apps", SignedIn, apps::create),
        get("/apps/{app}", View, apps::info),
        patch("/apps/{app}", Operate, apps::update),
        delete("/apps/{app}", Admin, apps::delete),
        get("/apps/{app}/config-vars", Deploy, config_vars::info),
        patch("/apps/{app}/config-vars", Operate, config_vars::update),
        get("/apps/{app}/config-changes", Deploy, config_changes::list),
        post("/apps/{app}/config-changes", Operate, config_changes::create),
        get("/apps/{app}/config-var-scopes", Deploy, config_changes::scopes),
        get("/apps/{app}/releases", View, releases::list),
        post("/apps/{app}/releases", Deploy, releases::rollback),
        get("/apps/{app}/releases/{release}", View, releases::info),
        get("/apps/{app}/releases/{release}/config-vars", Deploy, releases::config_vars),
        get("/apps/{app}/releases/{release}/image", Deploy, images::download),
        post("/apps/{app}/releases/{release}/image/pushes", Deploy, images::push),
        post("/apps/{app}/actions/rebase", Deploy, releases::rebase),
        get("/apps/{app}/releases/{release}/rollback", Deploy, rollbacks::preview),
        get("/apps/{app}/releases/{release}/diff/{other}", View, rollbacks::diff),
        get("/apps/{app}/releases/{release}/rollout", View, rollouts::info),
        post("/apps/{app}/releases/{release}/rollout/actions/continue", Deploy, rollouts::go_on),
        post("/apps/{app}/releases/{release}/rollout/actions/abort", Deploy, rollouts::abort),
        get("/apps/{app}/rollouts", View, rollouts::list),
        get("/apps/{app}/rollout-policy", View, rollouts::policy),
        patch("/apps/{app}/rollout-policy", Operate, rollouts::set_policy),
        get("/apps/{app}/available-dyno-sizes", View, sizes::available),
        get("/apps/{app}/formation", View, formation::list),
        patch("/apps/{app}/formation", Operate, formation::batch_update),
        get("/apps/{app}/formation/{type}", View, formation::info),
        patch("/apps/{app}/formation/{type}", Operate, formation::update),
        get("/apps/{app}/dynos", View, dynos::list),
        post("/apps/{app}/dynos", Operate, dynos::create),
        delete("/apps/{app}/dynos", Operate, dynos::restart_all),
        get("/apps/{app}/dynos/{dyno}", View, dynos::info),
        delete("/apps/{app}/dynos/{dyno}", Operate, dynos::restart),
        post("/apps/{app}/dynos/{dyno}/actions/stop", Operate, dynos::stop),
        delete("/apps/{app}/formations/{dyno}", Operate, dynos::restart),
        post("/apps/{app}/formations/{dyno}/actions/stop", Operate, dynos::stop),
        post("/apps/{app}/log-sessions", View, log_sessions::create),
        get("/apps/{app}/events", View, events::list_of_app),
        get("/apps/{app}/buildpack-installations", View, apps::buildpacks),
        put("/apps/{app}/buildpack-installations", Deploy, apps::set_buildpacks),
        get("/apps/{app}/collaborators", View, collaborators::list),
        post("/apps/{app}/collaborators", Manage, collaborators::create),
        get("/apps/{app}/collaborators/{collaborator}", View, collaborators::info),
        patch("/apps/{app}/collaborators/{collaborator}", Manage, collaborators::update),
        delete("/apps/{app}/collaborators/{collaborator}", View, collaborators::delete),
        get("/apps/{app}/addons", View, addons::list_of_app),
        post("/apps/{app}/addons", Operate, addons::create),
        get("/apps/{app}/addons/{addon}", View, addons::info),
        patch("/apps/{app}/addons/{addon}", Operate, addons::update),
        delete("/apps/{app}/addons/{addon}", Manage, addons::delete),
        post("/apps/{app}/addons/{addon}/log-sessions", View, log_sessions::create_of_addon),
        get("/apps/{app}/addon-attachments", View, attachments::list_of_app),
        get("/apps/{app}/addon-attachments/{attachment}", View, attachments::info),
        get("/apps/{app}/webhooks", Manage, webhooks::list),
        post("/apps/{app}/webhooks", Manage, webhooks::create),
        get("/apps/{app}/webhooks/{webhook}", Manage, webhooks::info),
        patch("/apps/{app}/webhooks/{webhook}", Manage, webhooks::update),
        delete("/apps/{app}/webhooks/{webhook}", Manage, webhooks::delete),
        get("/apps/{app}/webhook-deliveries", Manage, webhooks::deliveries),
        get("/apps/{app}/webhook-deliveries/{delivery}", Manage, webhooks::delivery),
        post("/apps/{app}/webhook-deliveries/{delivery}/actions/redeliver", Manage, webhooks::redeliver),
        get("/apps/{app}/webhook-events", Manage, webhooks::events),
        get("/apps/{app}/webhook-events/{event}", Manage, webhooks::event),
        get("/addons", SignedIn, addons::list),
        get("/addons/{addon}", View, addons::info),
        get("/addons/{addon}/addon-attachments", View, attachments::list_of_addon),
        get("/addons/{addon}/config", Deploy, addons::config),
        post("/addons/{addon}/actions/restart", Operate, addons::restart),
        post("/addons/{addon}/sessions", Operate, addons::open_session),
        get("/addons/{addon}/backups", View, backups::list),
        post("/addons/{addon}/backups", Operate, backups::create),
        get("/addons/{addon}/backups/{backup}", View, backups::info),
        delete("/addons/{addon}/backups/{backup}", Manage, backups::delete),
        get("/addons/{addon}/backups/{backup}/content", Deploy, backups::content),
        post("/addons/{addon}/backups/{backup}/actions/restore", Operate, backups::restore),
        get("/addon-attachments", SignedIn, attachments::list),
        post("/addon-attachments", SignedIn, attachments::create),
        get("/addon-attachments/{attachment}", View, attachments::info),
        delete("/addon-attachments/{attachment}", Operate, attachments::delete),
        post("/actions/addons/resolve", SignedIn, addons::resolve),
        post("/actions/addon-attachments/resolve", SignedIn, attachments::resolve),
        get("/addon-services", SignedIn, addon_services::list),
        get("/addon-services/{service}", SignedIn, addon_services::info),
        get("/addon-services/{service}/plans", SignedIn, addon_services::plans),
        get("/addon-services/{service}/plans/{plan}", SignedIn, addon_services::plan),
        get("/plans/{plan}", SignedIn, addon_services::any_plan),
        get("/events", SignedIn, events::list),
        get("/buildpacks", SignedIn, buildpacks::list),
        get("/buildpacks/{buildpack}", Anyone, buildpacks::registry),
        get("/platform", Anyone, platform::info),
        get("/dyno-sizes", SignedIn, sizes::list),
        get("/regions", SignedIn, catalog::regions),
        get("/stacks", SignedIn, catalog::stacks),
    ]
}
