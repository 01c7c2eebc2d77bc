//! Host names that come with a visitor: customers of an app point their domains at the platform, and the app says which are its own
//! (`domain_ask`). Routers ask here about a name that nobody knows. What was not said yes to is remembered for a while; what was is a domain
//! of the app from then on, and the rest is as for any other one: `acm/worker.rs` gets the certificate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use model::{AppId, DomainId, Hostname, LogSource, Timestamp};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::ask::Said;
use crate::domains::MAX_DOMAINS;
use crate::errors::chain;
use crate::live::Locked;
use crate::store::{AcmStatus, Domain, StoreError};
use crate::{Controller, Error};

/// How long a name is not asked about again to which nobody said yes.
const REFUSED: Duration = Duration::from_secs(2 * 60);
/// The same if apps gave no answer, or were in the way of each other.
const UNCLEAR: Duration = Duration::from_secs(30);
/// Most names of which that is known.
const MOST_REFUSED: usize = 10_000;
/// Most names that apps are asked about at one time.
const AT_ONCE: usize = 32;
/// Most names of one app that come in an hour: certificate authorities allow an account few more than that.
const HOUR: Duration = Duration::from_secs(60 * 60);
const MOST_IN_AN_HOUR: u32 = 50;
/// Most names of one app that wait for their certificate.
const MOST_WAITING: u32 = 20;
/// How long somebody waits here for a certificate.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is known of them while the process lives.
pub(crate) struct OnDemand {
    refused: Locked<HashMap<Hostname, Timestamp>>,
    /// Whoever deals with a name holds its lock.
    turns: Locked<HashMap<Hostname, Arc<tokio::sync::Mutex<()>>>>,
    asking: Semaphore,
    /// Told of every domain that got a certificate, or did not.
    pub(super) settled: Notify,
}

impl Default for OnDemand {
    fn default() -> Self {
        let (refused, turns) = (Locked::default(), Locked::default());
        Self { refused, turns, asking: Semaphore::new(AT_ONCE), settled: Notify::new() }
    }
}

impl OnDemand {
    /// Forgets what was refused: another rule holds.
    pub(crate) fn forget(&self) {
        self.refused.lock().clear();
    }

    /// Whether there is no use in asking.
    fn is_refused(&self, host: &Hostname, now: Timestamp) -> bool {
        let mut refused = self.refused.lock();
        if refused.len() >= MOST_REFUSED {
            refused.retain(|_, until| now < *until);
        }
        refused.len() >= MOST_REFUSED || refused.get(host).is_some_and(|until| now < *until)
    }

    fn refuse(&self, host: &Hostname, until: Timestamp) {
        self.refused.lock().insert(host.clone(), until);
    }
}

/// What routers ask: 200 once the name is an app's, or has a certificate; 404 if that will not be, or not soon.
pub(crate) fn routes(controller: Arc<Controller>) -> Router {
    Router::new()
        .route("/names/{host}", get(name))
        .route("/certificates/{host}", get(certificate))
        .with_state(controller)
}

async fn name(State(controller): State<Arc<Controller>>, Path(host): Path<String>) -> StatusCode {
    told(&host, controller.wanted_domain(&host).await.map(|domain| domain.is_some()))
}

async fn certificate(State(controller): State<Arc<Controller>>, Path(host): Path<String>) -> StatusCode {
    told(&host, controller.wanted_certificate(&host).await)
}

fn told(host: &str, there: Result<bool, Error>) -> StatusCode {
    match there {
        Ok(true) => StatusCode::OK,
        Ok(false) => StatusCode::NOT_FOUND,
        Err(error) => {
            tracing::warn!(error = chain(&error), domain.name = host, "A name could not be taken in");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

impl Controller {
    /// The domain of this name; a new one, if exactly one app says that it is its own.
    pub(crate) async fn wanted_domain(self: &Arc<Self>, host: &str) -> Result<Option<Domain>, Error> {
        let Some(host) = self.possible(host) else { return Ok(None) };
        // What has begun is done to its end, whether somebody still waits for it or not.
        let controller = Arc::clone(self);
        let work = tokio::spawn(async move { controller.take_in(host).await });
        work.await.map_err(|error| Error::System { action: "ask about a name", source: error.into() })?
    }

    /// Whether the name shows a certificate of its own, once there is nothing more to wait for.
    pub(super) async fn wanted_certificate(self: &Arc<Self>, host: &str) -> Result<bool, Error> {
        let Some(domain) = self.wanted_domain(host).await? else { return Ok(false) };
        let settled = async {
            loop {
                let changed = self.live.on_demand.settled.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                let Some(now) = self.store.domain_of_host(&domain.place.host).await? else { return Ok(false) };
                if now.sni_endpoint.is_some() {
                    self.announce_certificates(now.app).await;
                    return Ok(true);
                }
                let orders = self.store.domain_orders(now.app).await?;
                let has_failed = orders.get(&now.id).is_some_and(|order| order.status != AcmStatus::Pending);
                if !now.on_demand || self.settings.acme.is_none() || has_failed {
                    return Ok(false);
                }
                changed.await;
            }
        };
        timeout(PATIENCE, settled).await.unwrap_or(Ok(false))
    }

    /// A host name that a customer of an app may have: one that somebody could have registered.
    fn possible(&self, host: &str) -> Option<Hostname> {
        let host = self.check_hostname(host).ok()?;
        let registered = psl::domain(host.as_str().as_bytes())?;
        (!host.as_str().starts_with("*.") && registered.suffix().is_known()).then_some(host)
    }

    async fn take_in(&self, host: Hostname) -> Result<Option<Domain>, Error> {
        let on_demand = &self.live.on_demand;
        let turn = Arc::clone(on_demand.turns.lock().entry(host.clone()).or_default());
        let turn_taken = turn.lock().await;
        let taken = self.ask_about(&host).await;
        drop(turn_taken);
        drop(turn);
        on_demand.turns.lock().retain(|_, turn| Arc::strong_count(turn) > 1);
        taken
    }

    async fn ask_about(&self, host: &Hostname) -> Result<Option<Domain>, Error> {
        if let Some(domain) = self.store.domain_of_host(host).await? {
            return Ok(Some(domain));
        }
        let (on_demand, now) = (&self.live.on_demand, self.clock.now());
        if on_demand.is_refused(host, now) {
            return Ok(None);
        }
        let Ok(_seat) = on_demand.asking.try_acquire() else { return Ok(None) };
        let askers = self.askers();
        let said = self.ask_all(&askers, host).await;
        let is_clear = !said.iter().any(|said| matches!(said, Said::Nothing(_)));
        let owners: Vec<AppId> =
            askers.iter().zip(&said).filter(|(_, said)| **said == Said::Yes).map(|(asker, _)| asker.app).collect();
        for (asker, said) in askers.iter().zip(&said) {
            if let Said::Nothing(why) = said {
                self.tell(asker.app, &format!("Nobody says whether {host} is a domain of this app: {why}"));
            }
        }
        let refusal = match *owners {
            [app] => match self.too_many(app).await? {
                None => return self.add_wanted(app, host).await,
                Some(why) => why,
            },
            [] if is_clear => {
                on_demand.refuse(host, now.after(REFUSED));
                return Ok(None);
            }
            [] => String::new(),
            _ => "another app says that it is its own, too".to_owned(),
        };
        for app in owners {
            self.tell(app, &format!("No domain {host}: {refusal}"));
        }
        on_demand.refuse(host, now.after(UNCLEAR));
        Ok(None)
    }

    /// Why an app gets no more names just now.
    async fn too_many(&self, app: AppId) -> Result<Option<String>, Error> {
        let since = self.clock.now().as_millis().saturating_sub(i64::try_from(HOUR.as_millis()).unwrap_or(i64::MAX));
        let known = self.store.on_demand_domains(app, Timestamp::from_millis(since)).await?;
        Ok(if known.all >= MAX_DOMAINS {
            Some(format!("an app can have at most {MAX_DOMAINS} domains"))
        } else if known.new >= MOST_IN_AN_HOUR {
            Some(format!("{MOST_IN_AN_HOUR} came within the last hour"))
        } else if self.settings.acme.is_some() && known.waiting >= MOST_WAITING {
            Some(format!("{MOST_WAITING} wait for their certificate"))
        } else {
            None
        })
    }

    async fn add_wanted(&self, app: AppId, hostname: &Hostname) -> Result<Option<Domain>, Error> {
        let (id, now, place) = (DomainId::random(&*self.random), self.clock.now(), hostname.clone().into());
        let domain = Domain { id, app, place, sni_endpoint: None, on_demand: true, created_at: now, updated_at: now };
        match self.store.insert_domain(&domain, &self.own_stamp()).await {
            Ok(()) => {}
            // Somebody added it meanwhile.
            Err(StoreError::Taken(_)) => return Ok(self.store.domain_of_host(&domain.place.host).await?),
            Err(error) => return Err(error.into()),
        }
        self.tell(app, &format!("Add domain {}: it came with a visitor, and the app said yes", domain.place));
        self.begin_domain(&domain, &self.own_stamp()).await?;
        Ok(Some(domain))
    }

    pub(super) fn tell(&self, app: AppId, line: &str) {
        self.logs.write(app, self.clock.now(), &LogSource::app("api"), line);
    }
}

#[cfg(test)]
mod tests;
