//! What a controller process knows only while it lives; all of it is rebuilt or worthless after a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::details::Details;
use engine::feed::Feed;
use model::certificate::{AppCertificates, Challenge};
use model::routes::{AppRoute, Share};
use model::{AppId, Digest, ProcessType, ReleaseId, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::Error;
use crate::acm::OnDemand;
use crate::admission::Promised;
use crate::api::RateLimits;
use crate::attach::Attachment;
use crate::browser_logins::BrowserLogins;
use crate::builds::Building;
use crate::disk::LayerUsers;
use crate::jobs::Inside;
use crate::sign_in::Ticket;

/// How many settled releases are remembered for those who wait for one.
const SETTLED: usize = 1000;

/// A router that does not acknowledge names for this long is not waited for.
pub(crate) const ROUTER_PATIENCE: Duration = Duration::from_secs(5);

/// How long somebody waits for a platform that starts.
const START_LIMIT: Duration = Duration::from_secs(30);

/// See the module.
pub struct Live {
    /// The names half of the route table, on its way to the routers.
    pub names: Feed<AppId, AppRoute>,
    /// What routers count in detail.
    pub details: Details,
    /// Certificates of apps, on their way to the routers.
    pub certificates: Feed<AppId, AppCertificates>,
    /// What certificate authorities are going to ask routers for.
    pub(crate) challenges: Locked<BTreeMap<AppId, Vec<Challenge>>>,
    /// Host names that came with a visitor.
    pub(crate) on_demand: OnDemand,
    /// Told when a certificate may be due.
    pub(crate) certificates_wanted: Notify,
    /// Told when there may be a certificate whose authority was not asked yet.
    pub(crate) staples_wanted: Notify,
    /// Whoever tells routers of certificates holds it from reading the store to publishing.
    pub(crate) certifying: tokio::sync::Mutex<()>,
    /// What takes the requests of each app that has a web workload. Whoever tells routers holds the lock from reading
    /// the store to publishing: what is published last was read last.
    pub(crate) serving: tokio::sync::Mutex<BTreeMap<AppId, Served>>,
    /// How long a router is waited for that does not acknowledge names.
    pub(crate) router_patience: Locked<Duration>,
    /// Whether files and containers of apps that are gone wait to be removed.
    pub(crate) litter: Notify,
    /// What is known of processes of jobs.
    pub(crate) jobs: Inside,
    /// Told when a webhook is to be told something once more.
    pub(crate) deliveries: Notify,
    /// The ports by which apps are known to those that are linked to them.
    pub(crate) link_ports: Locked<BTreeMap<AppId, u16>>,
    /// Held while the engine is told what apps may reach outside.
    pub(crate) egress: tokio::sync::Mutex<()>,
    /// Told when the engine could not be told.
    pub(crate) egress_pending: Notify,
    /// Held while secrets move to a new key.
    pub(crate) rotating: tokio::sync::Mutex<()>,
    /// What of the machine was promised to apps lately.
    pub(crate) promised: tokio::sync::Mutex<Promised>,
    /// Apps that are being built right now.
    pub(crate) building: Locked<BTreeMap<AppId, Building>>,
    /// Apps whose linked repository is waited for.
    pub(crate) following: Locked<BTreeSet<AppId>>,
    /// Releases whose phase runs right now.
    pub(crate) phases: Locked<BTreeSet<ReleaseId>>,
    /// Terminals that wait for their client, by secret.
    pub(crate) attachments: Locked<BTreeMap<String, Attachment>>,
    /// How much each token may still ask.
    pub(crate) limits: RateLimits,
    /// When images were last given up; none before the first time, which looks at all apps.
    pub(crate) images_given_up: Locked<Option<Timestamp>>,
    /// What layers have on the disk that were measured.
    pub(crate) layer_sizes: Locked<HashMap<Digest, u64>>,
    /// How many apps have each layer, as it was found out last.
    pub(crate) layer_users: Locked<LayerUsers>,
    /// What lets its holder make the first user, once somebody asked for it.
    pub(crate) setup: Locked<Option<String>>,
    /// Who gave the right password and still has to give a code.
    pub(crate) sign_ins: Locked<VecDeque<Ticket>>,
    /// Programs that wait for somebody to let them in.
    pub(crate) browser_logins: Locked<BrowserLogins>,
    /// Releases that left pending and, if they succeeded, are routed to; with the time that each stage of their rollout took.
    settled: watch::Sender<VecDeque<(ReleaseId, Stages)>>,
    /// Whether what an earlier controller left has been ended.
    ready: watch::Sender<bool>,
}

/// What takes an app's requests, as routers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) shares: Vec<Share>,
    /// What takes the connections of other process types than web, of those that ports lead to.
    pub(crate) others: Others,
    /// The version of the names that said so first.
    pub(crate) since: u64,
}

/// Shares of connections, by process type.
pub(crate) type Others = BTreeMap<ProcessType, Vec<Share>>;

/// How long each stage of a rollout took, for `Timing:` lines.
pub(crate) type Stages = Vec<(&'static str, Duration)>;

impl Default for Live {
    fn default() -> Self {
        let details = Details::default();
        Self {
            names: Feed::new(BTreeMap::new()).with_details(&details),
            details,
            certificates: Feed::new(BTreeMap::new()),
            challenges: Locked::default(),
            on_demand: OnDemand::default(),
            certificates_wanted: Notify::new(),
            staples_wanted: Notify::new(),
            certifying: tokio::sync::Mutex::default(),
            serving: tokio::sync::Mutex::default(),
            router_patience: Locked(Mutex::new(ROUTER_PATIENCE)),
            litter: Notify::new(),
            jobs: Inside::default(),
            deliveries: Notify::new(),
            link_ports: Locked::default(),
            egress: tokio::sync::Mutex::default(),
            egress_pending: Notify::default(),
            rotating: tokio::sync::Mutex::default(),
            promised: tokio::sync::Mutex::default(),
            building: Locked::default(),
            following: Locked::default(),
            phases: Locked::default(),
            attachments: Locked::default(),
            limits: RateLimits::default(),
            images_given_up: Locked::default(),
            layer_sizes: Locked::default(),
            layer_users: Locked::default(),
            setup: Locked::default(),
            sign_ins: Locked::default(),
            browser_logins: Locked::default(),
            settled: watch::Sender::new(VecDeque::new()),
            ready: watch::Sender::new(false),
        }
    }
}

impl Live {
    /// Says that what an earlier controller left has been ended.
    pub(crate) fn set_ready(&self) {
        self.ready.send_replace(true);
    }

    /// Whether containers may be started already.
    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until containers may be started: those of an earlier controller end first, and could not be told from new ones.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        let mut ready = self.ready.subscribe();
        match timeout(START_LIMIT, ready.wait_for(|ready| *ready)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Conflict("The platform is still starting. Try again in a moment.".to_owned())),
        }
    }

    /// Says that a release left pending.
    pub(crate) fn settle(&self, release: ReleaseId, stages: Stages) {
        self.settled.send_modify(|settled| {
            if settled.len() >= SETTLED {
                settled.pop_front();
            }
            settled.push_back((release, stages));
        });
        // What is live now may have other jobs.
        self.jobs.wake();
    }

    /// Waits until a release left pending.
    pub(crate) async fn settled(&self, release: ReleaseId) -> Stages {
        let mut settled = self.settled.subscribe();
        let find =
            |settled: &VecDeque<(ReleaseId, Stages)>| settled.iter().rev().find(|(id, _)| *id == release).cloned();
        match settled.wait_for(|settled| find(settled).is_some()).await {
            Ok(settled) => find(&settled).map(|(_, stages)| stages).unwrap_or_default(),
            // The sender lives as long as `self`.
            Err(_) => Vec::new(),
        }
    }
}

/// A value under a lock that is never held across an await, and never in an unfinished state.
#[derive(Debug, Default)]
pub(crate) struct Locked<T>(Mutex<T>);

impl<T> Locked<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
