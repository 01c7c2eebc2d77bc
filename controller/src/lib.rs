//! The control plane: users, apps, config, builds, releases and what should run. Owns the database.
//!
//! Verbs (`impl Controller`, one file a noun) do the work and know nothing of HTTP; `api/` puts them on the wire as the
//! Heroku Platform API v3, and the console and the `platform` CLI use the same verbs. `store/` is the only place with SQL.
//! A verb that changes what should run commits it first and then wakes the rollout through [`Controller::changed`].

pub mod accounts;
mod acm;
pub mod actors;
pub mod addons;
mod admission;
pub mod api;
pub mod apps;
pub mod attach;
mod autoscale;
pub mod browser_logins;
pub mod builds;
mod certificate;
pub mod changes;
pub mod collaborators;
#[cfg(test)]
mod concurrency;
pub mod config_vars;
pub mod control;
mod credentials;
pub mod disk;
pub mod domains;
pub mod drains;
pub mod dynos;
mod egress;
mod errors;
pub mod features;
mod fetch;
pub mod formation;
pub mod git;
pub mod grants;
pub mod holds;
mod images;
pub mod invitations;
pub mod jobs;
pub mod keys;
mod links;
mod live;
pub mod logins;
pub mod logs;
pub mod metrics;
mod ocsp;
mod outbound;
pub mod overview;
pub mod people;
mod pipelines;
mod policy;
pub mod rebase;
mod registry;
pub mod releases;
mod repositories;
mod rollout;
pub mod rollouts;
pub mod routing;
mod scaling;
mod serve;
pub mod sessions;
mod settings;
pub mod setup;
pub mod sign_in;
pub mod sizes;
pub mod sni_endpoints;
pub mod sources;
pub mod store;
mod streams;
mod sweep;
pub mod tcp_routes;
pub mod teams;
#[cfg(test)]
pub(crate) mod testing;
pub mod two_factor;
mod upkeep;
pub mod volumes;
mod watch;
mod webhooks;

use std::sync::Arc;

pub use actors::{Actor, Origin, Via};
use builder::Builder;
pub use credentials::NewCredential;
use engine::Engine;
pub use errors::Error;
pub use live::Live;
use model::{Clock, LogSink, Random};
pub use outbound::Outbound;
pub use rollout::{Changed, Failure, Tally, Traffic};
pub use serve::{Sockets, serve};
pub use settings::{Acme, Settings};
use store::Store;

/// Everything that the verbs need. One exists in a controller process.
pub struct Controller {
    /// The database.
    pub store: Store,
    /// What runs containers.
    pub engine: Arc<dyn Engine>,
    /// What turns commits into images.
    pub builder: Arc<Builder>,
    /// Takes lines of every app's log.
    pub logs: Arc<dyn LogSink>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids, tokens, secrets.
    pub random: Arc<dyn Random>,
    /// What the operator decided.
    pub settings: Settings,
    /// Told of every committed change of what should run; the rollout waits on it.
    pub changed: Changed,
    /// What it knows of add-ons only while it lives.
    pub addons: addons::Addons,
    /// Reaches what users name.
    pub outbound: Outbound,
    /// What it knows of log drains only while it lives.
    pub drains: drains::Drains,
    /// Failed logins.
    pub logins: logins::LoginLimiter,
    /// Log sessions that can be opened.
    pub log_sessions: logs::Sessions,
    /// What it knows only while it lives.
    pub live: Live,
}

impl Controller {
    /// 160 bits in hex that nobody guesses, for a URL or a child process.
    fn new_secret(&self) -> String {
        let mut bytes = [0; 20];
        self.random.fill(&mut bytes);
        hex::encode(bytes)
    }

    /// An id of something that is never referred to by type.
    fn new_uuid(&self) -> String {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}
