//! The names half of the route table: under which names visitors reach an app, and what answers them.
//!
//! The rollout publishes an app whenever it looks at it, and whoever changes one publishes it before answering: a new name
//! works as soon as its owner is told so.

use std::time::Duration;

use engine::WorkloadId;
use model::routes::{AppRoute, RouteMode};
use model::{AppId, Hostname};

use crate::store::App;
use crate::{Controller, Error, Settings};

/// A router that does not acknowledge a table for this long is not waited for.
const ACKNOWLEDGE_LIMIT: Duration = Duration::from_secs(5);

impl Controller {
    /// Tells everybody of a committed change of an app: the rollout, and routers, who work by it when this returns.
    pub(crate) async fn announce(&self, app: AppId) {
        self.changed.app(app);
        match self.publish_app(app).await {
            Ok(()) => {
                self.acknowledged().await;
            }
            // The change is made all the same; the rollout publishes it when it looks.
            Err(error) => tracing::warn!(error = crate::errors::chain(&error), "Routers could not be told of a change"),
        }
    }

    /// Publishes one app as it is in the store now.
    pub(super) async fn publish_app(&self, id: AppId) -> Result<(), Error> {
        let serving = self.live.serving.lock().await;
        let route = match self.store.app(id).await? {
            Some(app) => {
                let domains = self.store.domains(id).await?.into_iter().map(|domain| domain.hostname).collect();
                let current = self.store.release(app.current_release).await?;
                let deployed = current.is_some_and(|release| release.image.is_some());
                Some(route(&self.settings, &app, domains, deployed, serving.get(&id).cloned())?)
            }
            None => None,
        };
        self.live.names.set(&id, route);
        Ok(())
    }

    /// Waits until every router works by the newest names; false if one does not say so for a while.
    pub(super) async fn acknowledged(&self) -> bool {
        let names = &self.live.names;
        names.served(names.version(), ACKNOWLEDGE_LIMIT).await
    }
}

/// What routers are told of an app. `deployed` is false until it has something to run; `serve` takes its requests.
pub(super) fn route(
    settings: &Settings,
    app: &App,
    domains: Vec<Hostname>,
    deployed: bool,
    serve: Option<WorkloadId>,
) -> Result<AppRoute, Error> {
    let default = settings.default_host(&app.name).map_err(|error| Error::Invalid(error.to_string()))?;
    let mode = match serve {
        _ if app.maintenance => RouteMode::Maintenance,
        Some(workload) => RouteMode::serve(workload),
        None if deployed => RouteMode::NoWeb,
        None => RouteMode::Blank,
    };
    let hosts = std::iter::once(default).chain(domains).collect();
    Ok(AppRoute { name: app.name.clone(), hosts, mode })
}
