//! The names half of the route table.

use engine::WorkloadId;
use model::Hostname;
use model::routes::{AppRoute, RouteMode};

use crate::store::App;
use crate::{Error, Settings};

/// What routers are told of an app. `deployed` is false until it has something to run; `serve` is the plan's answer.
pub(super) fn route(
    settings: &Settings,
    app: &App,
    domains: &[Hostname],
    deployed: bool,
    serve: Option<WorkloadId>,
) -> Result<AppRoute, Error> {
    let default = settings.default_host(&app.name).map_err(|error| Error::Invalid(error.to_string()))?;
    let mode = match serve {
        _ if app.maintenance => RouteMode::Maintenance,
        Some(workload) => RouteMode::Serve(workload),
        None if deployed => RouteMode::NoWeb,
        None => RouteMode::Blank,
    };
    let hosts = std::iter::once(default).chain(domains.iter().cloned()).collect();
    Ok(AppRoute { name: app.name.clone(), hosts, mode })
}
