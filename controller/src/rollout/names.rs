//! The names half of the route table: under which names visitors reach an app, and what answers them.
//!
//! The rollout publishes an app whenever it looks at it, and whoever changes one publishes it before answering: a new name
//! works as soon as its owner is told so.

use std::time::Duration;

use engine::WorkloadId;
use model::routes::{AppRoute, Place, RouteMode, Share};
use model::{AppId, RoutePolicy};

use crate::formation::WEB;
use crate::live::{Others, ROUTER_PATIENCE, Served};
use crate::policy::Texts;
use crate::routing;
use crate::setup::Kept;
use crate::store::{App, TcpRoute};
use crate::{Controller, Error};

impl Controller {
    /// Tells everybody of a committed change of an app: the rollout, and routers, who work by it when this returns.
    pub(crate) async fn announce(&self, app: AppId) {
        self.changed.app(app);
        // First the certificate, so that nobody comes to a new name before.
        self.announce_certificates(app).await;
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
                let domains = self.store.domains(id).await?.into_iter().map(|domain| domain.place).collect();
                let current = self.store.release(app.current_release).await?;
                let (pages, kept) = match &current {
                    Some(release) => {
                        let pages = self.store.release_config(release.id).await.map(|config| routing::pages(&config));
                        (pages.unwrap_or_default(), self.kept_of(release).await.unwrap_or_default())
                    }
                    None => <(Texts, Kept)>::default(),
                };
                let policy = Self::route_policy(&pages, &kept, &self.store.routing_settings(id).await?);
                let deployed = current.is_some_and(|release| release.image.is_some());
                let serve = serving.get(&id).map(|served| (served.shares.clone(), served.others.clone()));
                let tcp = self.store.tcp_routes(id).await?;
                Some(route(self, &app, Visit { domains, policy, tcp }, deployed, serve.unwrap_or_default())?)
            }
            None => None,
        };
        self.live.names.set(&id, route);
        Ok(())
    }

    /// Tells routers what takes an app's requests from now on, and waits until they all say so; false if one does not for a while.
    pub(super) async fn serve(&self, app: AppId, (shares, others): Takers) -> Result<bool, Error> {
        self.live.serving.lock().await.insert(app, Served { shares, others, since: u64::MAX });
        self.publish_app(app).await?;
        let version = self.live.names.version();
        if let Some(served) = self.live.serving.lock().await.get_mut(&app) {
            served.since = served.since.min(version);
        }
        Ok(self.acknowledged().await)
    }

    /// The workloads that take an app's requests, if every router that there is says that it sends them there.
    pub(crate) async fn routed(&self, app: &App) -> Vec<WorkloadId> {
        let served = self.live.serving.lock().await.get(&app.id).filter(|_| !app.maintenance).cloned();
        let Some(Served { shares, since, .. }) = served else { return Vec::new() };
        let names = &self.live.names;
        let confirmed = names.is_followed() && names.served(since, Duration::ZERO).await;
        shares.into_iter().filter(|_| confirmed).map(|share| share.workload).collect()
    }

    /// Waits until every router works by the newest names; false if one does not say so for a while.
    pub(super) async fn acknowledged(&self) -> bool {
        let names = &self.live.names;
        let patience = *self.live.router_patience.lock();
        names.served(names.version(), patience).await
    }
}

/// How visitors come to an app.
pub(super) struct Visit {
    /// By which names and parts of names, beside its own.
    pub(super) domains: Vec<Place>,
    /// How routers treat them, if anybody says anything.
    pub(super) policy: Option<Box<RoutePolicy>>,
    /// By which ports, with what is no request.
    pub(super) tcp: Vec<TcpRoute>,
}

/// What takes an app's requests, and the connections of its other process types.
pub(super) type Takers = (Vec<Share>, Others);

/// What routers are told of an app. `deployed` is false until it has something to run; `serve` takes its requests.
pub(super) fn route(
    controller: &Controller,
    app: &App,
    visit: Visit,
    deployed: bool,
    (serve, others): Takers,
) -> Result<AppRoute, Error> {
    let default = controller.settings.default_host(&app.name).map_err(|error| Error::Invalid(error.to_string()))?;
    let tcp = visit.tcp.iter().map(|one| tcp_route(one, (&serve, &others))).collect();
    let mode = if app.maintenance {
        RouteMode::Maintenance
    } else if !serve.is_empty() {
        RouteMode::Serve(serve)
    } else if deployed {
        RouteMode::NoWeb
    } else {
        RouteMode::Blank
    };
    let (places, domains): (Vec<_>, Vec<_>) = visit.domains.into_iter().partition(|place| place.path.is_some());
    let domains = domains.into_iter().map(|place| place.host);
    let hosts = std::iter::once(default).chain(domains).chain(controller.link_host(app.id)).collect();
    Ok(AppRoute { name: app.name.clone(), hosts, places, mode, policy: visit.policy, tcp })
}

fn tcp_route(route: &TcpRoute, (web, others): (&[Share], &Others)) -> model::TcpRoute {
    let is_web = route.process_type.as_str() == WEB;
    let shares = if is_web { web.to_vec() } else { others.get(&route.process_type).cloned().unwrap_or_default() };
    let TcpRoute { port, host, terminate, target_port, idle, introduce, .. } = route.clone();
    model::TcpRoute { port, host, terminate, target_port, idle, introduce, shares }
}

/// What is said of a release that is live though a router did not say that it serves it.
pub(crate) fn unconfirmed(version: u64) -> String {
    let seconds = ROUTER_PATIENCE.as_secs();
    format!(
        "v{version} is live, but a router did not say within {seconds} s that it serves it; until it does, it may send requests to \
         the release before. See `platform status`."
    )
}
