//! The route table in its two halves and the messages that carry them (DESIGN: "Route table").
//!
//! *Names* (host → app → which workload is current) come from the controller, *addresses* (workload → healthy
//! instances) from the engine's own role. Each publisher listens on a socket; a router connects to both, sends nothing
//! first, and reads one JSON [`Update`] a line: the first has `reset` set and is the whole table, later ones are changes.
//! The router answers on the same connection with one JSON [`Ack`] a line.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::AppId;
use crate::name::{AppName, Hostname, PathPrefix};
use crate::routing::RoutePolicy;
use crate::tcp::TcpRoute;
use crate::traffic::{self, Counts, Detail, Dropped, PathCount};

/// Names one process type of one release of one app: `<app id>.v<version>.<process type>`. Also a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkloadId(pub String);

impl WorkloadId {
    /// The release and the process type that are in the name.
    pub fn parts(&self) -> Option<(u64, &str)> {
        let mut parts = self.0.split('.').skip(1);
        let version = parts.next()?.strip_prefix('v')?.parse().ok()?;
        Some((version, parts.next()?))
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A change of a keyed table. `version` grows by at least one with every update of one publisher's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update<K, V> {
    /// Version of the table once this update is applied.
    pub version: u64,
    /// The update is the whole table: forget everything held from this publisher before.
    #[serde(default)]
    pub reset: bool,
    /// Rows that are new or changed.
    pub set: Vec<(K, V)>,
    /// Rows that are gone.
    pub unset: Vec<K>,
    /// The publisher wants to know everything that is counted: [`Ack::Details`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub details: bool,
}

/// From a router to a publisher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// Every request from now on is routed by at least this version.
    Serving(u64),
    /// These instances, which are not in the whole table that was sent, still have requests: each is yet to be drained. Said before the first
    /// [`Ack::Serving`].
    Holding(Vec<String>),
    /// No request is left on this instance, which an update took away earlier.
    Drained(String),
    /// What was counted of these workloads' requests since the router started. Said about once a second, of those that got any, and of all to
    /// a publisher that the router has just reached.
    Traffic(Vec<(WorkloadId, Counts)>),
    /// The same by instance, and in detail, to a publisher that asks for it.
    Details {
        /// These are all that there are: the router has just reached the publisher, and what it says here it may have counted long ago.
        whole: bool,
        /// What was counted in each place since the router started.
        rows: Vec<(traffic::Place, Detail)>,
        /// What it left out since it started.
        #[serde(default, skip_serializing_if = "Dropped::is_none")]
        dropped: Dropped,
    },
    /// What came of requests by path since this was last said, to a publisher that asks for details.
    Paths(Vec<(AppId, Vec<PathCount>)>),
    /// A request waits for this workload, which has no instance at all.
    Wanted(WorkloadId),
    /// What became of the instances that are to rest by this version of the table; see [`WorkloadAddresses::resting`]. Said before
    /// its [`Ack::Serving`].
    Rest {
        /// Of the table.
        version: u64,
        /// These get nothing more from here.
        gone: Vec<String>,
        /// These have a request or a tunnel, and go on to take more.
        busy: Vec<String>,
    },
}

/// Rows of the names half, by app.
pub type NamesUpdate = Update<AppId, AppRoute>;
/// Rows of the addresses half, by workload.
pub type AddressesUpdate = Update<WorkloadId, WorkloadAddresses>;

/// What a router knows of an app by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRoute {
    /// For log lines and error pages.
    pub name: AppName,
    /// Every host name that means this app, the default one first.
    pub hosts: Vec<Hostname>,
    /// Parts of hosts that mean this app, whoever has the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
    /// What to do with a request.
    pub mode: RouteMode,
    /// How to do it, if its owner says anything about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Box<RoutePolicy>>,
    /// Ports whose connections it takes as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<TcpRoute>,
}

/// Where an app answers: a host, or a path of one and what is below that.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Of requests.
    pub host: Hostname,
    /// None is the whole host, but for the paths that others have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathPrefix>,
    /// The app does not see the path, only what follows it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip: bool,
}

impl Place {
    /// Whether it cannot be had beside the other one: strip or not.
    pub fn is_where(&self, other: &Self) -> bool {
        self.host == other.host && self.path == other.path
    }
}

impl From<Hostname> for Place {
    fn from(host: Hostname) -> Self {
        Self { host, path: None, strip: false }
    }
}

/// As in an address: `www.example.com/api`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path.as_ref().map(PathPrefix::as_str).unwrap_or_default())
    }
}

/// What to do with a request to an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteMode {
    /// Nothing was ever deployed (H81).
    Blank,
    /// The owner switched maintenance on (H80).
    Maintenance,
    /// The current release has no web process, or it is scaled to zero (H14).
    NoWeb,
    /// Send it to a healthy instance of one of these workloads. That of the newest release is the last one.
    Serve(#[serde(deserialize_with = "shares")] Vec<Share>),
}

impl RouteMode {
    /// All requests go to this workload.
    pub fn serve(workload: WorkloadId) -> Self {
        Self::Serve(vec![Share { workload, weight: 1 }])
    }
}

/// A workload that takes a part of an app's requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Whose instances take it.
    pub workload: WorkloadId,
    /// Its part, compared with the weights of the others. Zero is none, also while nobody else can take a request; otherwise, the
    /// requests of a workload without a healthy instance go to the others.
    pub weight: u32,
}

/// Earlier versions knew one workload for all requests.
fn shares<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Share>, D::Error> {
    struct Form;

    impl<'de> Visitor<'de> for Form {
        type Value = Vec<Share>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a workload, or a list of workloads with their weights")
        }

        fn visit_str<E: Error>(self, workload: &str) -> Result<Self::Value, E> {
            Ok(vec![Share { workload: WorkloadId(workload.to_owned()), weight: 1 }])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, shares: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(shares))
        }
    }

    // Of many rows each is read in no time: nothing is tried first and then read again.
    deserializer.deserialize_any(Form)
}

/// What a router knows of a workload's instances.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkloadAddresses {
    /// Instances that take requests.
    pub healthy: Vec<Endpoint>,
    /// Instances that are healthy, and to be stopped if nobody uses them: a router without any request or tunnel on one lets go of
    /// it, another keeps it among the healthy ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resting: Vec<Endpoint>,
    /// How many are still booting (H20 while none is healthy).
    pub starting: u32,
    /// How many crashed and wait for their restart (H10 while none is healthy or starting).
    pub crashed: u32,
    /// How long an instance that is taken away has to end its requests and tunnels. Whoever is left is cut off after that.
    #[serde(default)]
    pub drain: Duration,
}

/// One instance that takes requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The instance's id: unique for ever, so that a reused address is never mistaken for its former owner.
    pub instance: String,
    /// `web.1`, for log lines.
    pub dyno: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What shows, without asking its publisher, that it still runs and has this address. None if nothing does, as on another machine.
    #[serde(default)]
    pub proof: Option<Proof>,
}

/// A process that lives in the network namespace of an address, for as long as the machine runs: nobody else can have the address while it
/// does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proof {
    /// Its id on the machine.
    pub pid: u32,
    /// When it started, as the kernel counts: another process of the same id started at another time.
    pub started: u64,
    /// The inode of its network namespace.
    pub netns: u64,
}

impl Proof {
    /// Of a process, from its `/proc/<pid>/stat` and the inode of its `/proc/<pid>/ns/net`; none if the text is no such file.
    pub fn new(pid: u32, stat: &str, netns: u64) -> Option<Self> {
        // The second field is a name in parentheses, which may hold anything; the 22nd is the start (proc(5)).
        let started = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started, netns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_whatever_its_name() {
        let rest = "S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1000 200";
        let proof = Proof { pid: 7, started: 4711, netns: 12 };
        assert_eq!(Proof::new(7, &format!("7 (python) {rest}"), 12), Some(proof));
        assert_eq!(Proof::new(7, &format!("7 (a) b (c) {rest}"), 12), Some(proof));
        assert_eq!(Proof::new(7, "7 (python) S 1", 12), None);
    }

    #[test]
    fn a_workload_is_named_after_its_release_and_process_type() {
        let parts = |name: &str| WorkloadId(name.to_owned()).parts().map(|(version, it)| (version, it.to_owned()));
        assert_eq!(parts("a.v12.web.standard-1x"), Some((12, "web".to_owned())));
        assert_eq!((parts("a.12.web"), parts("a.v12"), parts("web")), (None, None, None));
    }

    #[test]
    fn what_an_earlier_version_wrote_of_an_app_is_still_read() {
        let web = |version| WorkloadId(format!("a.v{version}.web"));
        let old: RouteMode = serde_json::from_str(r#"{"serve":"a.v1.web"}"#).expect("readable");
        assert_eq!(old, RouteMode::serve(web(1)));
        let shares = [(1, 95), (2, 5)].map(|(version, weight)| Share { workload: web(version), weight });
        let new = RouteMode::Serve(shares.into());
        let text = serde_json::to_string(&new).expect("JSON");
        assert_eq!(text, r#"{"serve":[{"workload":"a.v1.web","weight":95},{"workload":"a.v2.web","weight":5}]}"#);
        assert_eq!(serde_json::from_str::<RouteMode>(&text).expect("readable"), new);
        assert_eq!(serde_json::from_str::<RouteMode>("\"no_web\"").expect("readable"), RouteMode::NoWeb);
    }
}
