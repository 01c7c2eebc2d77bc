//! The database: the only place with SQL, the same for SQLite and PostgreSQL.
//!
//! To keep it portable: columns are `TEXT` and `BIGINT`, binds are `$1`, rows are read by hand, and a unique violation is
//! told by its kind, since SQLite does not name the constraint. To keep it free of races: **a transaction begins with its
//! write.** SQLite then takes its one write lock before anything is read, and waits for it instead of failing half-way;
//! PostgreSQL locks the row that the rest of the transaction depends on, an app's above all.

mod acme;
mod addons;
mod app_scope;
mod apps;
mod backup;
mod builds;
mod collaborators;
mod contents;
mod credentials;
mod domains;
mod drains;
mod egress;
mod events;
mod features;
mod formation;
mod freezes;
mod images;
mod invitations;
mod job_runs;
mod jobs;
mod keys;
mod leases;
mod links;
mod locks;
mod making;
mod migrate;
mod migrations;
mod offers;
mod people;
mod pipelines;
mod releases;
mod repositories;
mod requests;
mod rollouts;
mod rotation;
mod routing;
mod row;
mod runs;
mod scaling;
mod secrets;
mod select;
mod sessions;
mod setups;
mod sizes;
mod slice;
mod sni_endpoints;
mod sources;
mod sqlite;
mod standing;
mod staples;
mod status;
mod summaries;
mod tcp_routes;
mod teams;
#[cfg(test)]
mod tests;
mod tokens;
mod transfers;
mod two_factor;
mod users;
mod volumes;
mod webhooks;
mod words;

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::{ConfigVarName, ProcessType, Random, VolumeName};
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, Connection, Executor};

pub(crate) use acme::ManagedDomain;
pub use acme::{AcmStatus, DomainOrder};
pub use addons::{Addon, AddonState, Attachment, NewAddon};
pub use app_scope::AppScope;
pub use apps::{App, AppChange, NewApp};
pub use backup::BackupError;
pub use builds::{Build, NewBuild};
pub use collaborators::{Collaborator, NewOwner};
pub use contents::{
    Attached, AttachedAddon, Attachments, ConfigChange, ConfigChanges, Contents, Formation, MountedVolume,
    ProcessScale, Scope, Scopes, Volumes,
};
pub use credentials::{Credential, CredentialKind};
pub use domains::{Domain, DomainCounts};
pub use drains::Drain;
pub(crate) use events::NewEvent;
use events::Write;
pub use events::{Action, Event, EventFilter, Resource, Stamp};
pub use features::FeatureRow;
pub use formation::{FormationRow, Quantity, Scale, Start};
pub use freezes::FreezeWindow;
pub use invitations::{Invitation, Place};
pub use job_runs::{JobCause, JobRun, JobRunState, JobWorld, Shard, ShardState};
pub(crate) use job_runs::{JobChanges, JobsAhead};
pub use jobs::Job;
pub use keys::SshKey;
pub use leases::Lease;
pub use links::AppLink;
pub use locks::Lock;
pub use making::{Change, Deploy, NewRelease};
pub use migrate::{Migrated, MigrationError, Mode, migrate};
pub use offers::{Offer, OfferState};
pub use pipelines::{Coupling, Couplings, Pipeline, Stage};
pub use releases::{Outcome, Release, Slug};
pub use repositories::Repository;
pub use requests::Known;
pub use rollouts::{Beginning, Ending, RolloutRow, RolloutState};
pub use runs::{Run, RunEnd, RunState};
pub use scaling::{NewScaling, ScalingDecision, ScalingTexts};
pub use secrets::{SecretError, Secrets};
pub use sessions::{KnownSession, NewSession};
pub use slice::{Edge, Part, Slice};
pub(crate) use sni_endpoints::DomainCertificate;
pub use sni_endpoints::SniEndpoint;
pub use sources::{Source, SourceUse};
pub use standing::Standing;
pub(crate) use staples::Stapled;
pub use staples::{Staple, StapleStatus};
pub use status::Status;
pub use summaries::{AppSummary, Newest};
pub use tcp_routes::{NewTcpRoute, NoPort, TcpRoute};
pub use teams::{Member, Team, TeamRef};
pub use tokens::{Bearer, NewToken, Token};
pub use transfers::{Transfer, TransferAction, TransferState};
pub use two_factor::Totp;
pub use users::{User, UserRef};
pub use volumes::{DataChoice, NewVolume, Snapshot, Volume, VolumeChange};
pub use webhooks::{Attempt, Delivery, DeliveryState, Webhook, WebhookSecrets};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened or brought up to date.
    #[error("cannot open the database {url}")]
    Open {
        /// Which, without its password.
        url: String,
        /// What the driver said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database cannot be brought up to date.
    #[error("cannot bring the database up to date")]
    Migration(#[from] MigrationError),
    /// Another controller has taken over what this one wanted to write about.
    #[error("another controller has taken over {0}")]
    Fenced(String),
    /// The database refused or broke.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// Something of that name or address exists already.
    #[error("{0} is taken")]
    Taken(&'static str),
    /// What was to be changed does not exist, or no longer.
    #[error("{0} does not exist")]
    Missing(&'static str),
    /// A config var comes from an attachment and cannot be changed otherwise.
    #[error("{0} comes from an add-on")]
    Attached(ConfigVarName),
    /// A config var is not set.
    #[error("{0} is not set")]
    NoConfigVar(ConfigVarName),
    /// The config vars of an app would have so many bytes together.
    #[error("the config vars would have {0} bytes")]
    ConfigSize(usize),
    /// An app is locked: no release of it is made.
    #[error("the app is locked")]
    Locked(Box<Lock>),
    /// What a change was thought out for is not what is there any more.
    #[error("it was changed meanwhile")]
    Stale,
    /// A process type cannot run that often.
    #[error("{process_type} cannot be scaled to {quantity}")]
    Quantity {
        /// Which.
        process_type: ProcessType,
        /// What was asked for.
        quantity: i64,
    },
    /// A process type with a volume runs one dyno.
    #[error("{process_type} cannot run {quantity} dynos and have the volume {volume}")]
    OneDyno {
        /// Which.
        process_type: ProcessType,
        /// What was asked for, or is there.
        quantity: u32,
        /// What it has, or was to have.
        volume: VolumeName,
    },
    /// Two volumes of a process type would be at one place, or one in the other.
    #[error("the volume {0} is there already")]
    Overlap(VolumeName),
    /// A sealed value cannot be opened: wrong key file or a damaged database.
    #[error("a secret in the database cannot be read")]
    Secret(#[from] SecretError),
    /// A document in the database is not what this version writes.
    #[error("a document in the database cannot be read")]
    Document(#[from] serde_json::Error),
}

impl StoreError {
    /// Whether there was no room to write.
    pub fn is_disk_full(&self) -> bool {
        // SQLITE_FULL, and PostgreSQL's disk_full.
        matches!(self.code().as_deref(), Some("13" | "53100"))
    }

    /// Whether the database may answer again if it is asked again: it starts anew, it cannot be reached, or too much is asked
    /// of it.
    pub fn is_away(&self) -> bool {
        use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
        match self {
            Self::Database(Io(_) | PoolClosed | PoolTimedOut | Tls(_) | WorkerCrashed) => true,
            // SQLITE_BUSY; too_many_connections, admin_shutdown, crash_shutdown, cannot_connect_now, and class 08 about
            // connections.
            _ => self.code().is_some_and(|code| {
                matches!(&*code, "5" | "53300" | "57P01" | "57P02" | "57P03") || code.starts_with("08")
            }),
        }
    }

    /// What the database calls it.
    fn code(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Database(cause) => cause.as_database_error()?.code(),
            _ => None,
        }
    }

    /// Whether what was to be added belongs to something that is gone by now.
    pub fn is_orphan(&self) -> bool {
        let is_orphan = |cause: &dyn sqlx::error::DatabaseError| cause.is_foreign_key_violation();
        matches!(self, Self::Database(cause) if cause.as_database_error().is_some_and(is_orphan))
    }

    /// Turns a unique violation into "`what` is taken".
    fn taken(what: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |error| match error.as_database_error() {
            Some(cause) if cause.is_unique_violation() => Self::Taken(what),
            _ => Self::Database(error),
        }
    }
}

/// The database and the key of its secrets. Clones share both.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    secrets: Arc<Secrets>,
    random: Arc<dyn Random>,
    newest_event: Arc<tokio::sync::watch::Sender<u64>>,
    /// Of SQLite: whose turn it is to write.
    turn: Option<Arc<tokio::sync::Mutex<()>>>,
    /// What only this controller does, as it believes.
    duties: Arc<OnceLock<Vec<Lease>>>,
}

impl Store {
    /// Opens the database at `url` (`sqlite://<path>` or `postgres://…`), brings its tables up to date, and reads the key of
    /// its secrets from `key_file`, both made if they are missing. Copies that are made before go beside that file.
    pub async fn open(url: &str, key_file: &Path, random: Arc<dyn Random>) -> Result<Self, StoreError> {
        let secrets = Arc::new(Secrets::open(key_file, Arc::clone(&random))?);
        migrate(url, &key_file.with_file_name(BACKUPS), Mode::Apply).await?;
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open { url: without_password(url), source };
        let sqlite = url.starts_with("sqlite:");
        let pool = AnyPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(PATIENCE)
            .test_before_acquire(false)
            // When SQLite finds the disk full it may end a transaction by itself, or not end it with COMMIT. The driver miscounts
            // then, and such a connection would hold the lock of all writers, or an old state of everything, for ever.
            .before_acquire(move |connection, meta| {
                Box::pin(async move {
                    if !sqlite && meta.idle_for > TRUSTED {
                        connection.ping().await?;
                    }
                    Ok(!connection.is_in_transaction())
                })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    connection.execute(if sqlite { SQLITE_SETTINGS } else { POSTGRESQL_SETTINGS }).await?;
                    Ok(())
                })
            })
            .connect(&address(url))
            .await
            .map_err(|error| failed(error.into()))?;
        let newest: i64 = sqlx::query_scalar("SELECT value FROM counters WHERE name = 'events'")
            .fetch_one(&pool)
            .await
            .map_err(|error| failed(error.into()))?;
        let newest_event = Arc::new(tokio::sync::watch::Sender::new(u64::try_from(newest).unwrap_or_default()));
        // One at a time in the order in which they came: left to itself SQLite lets whoever looks in the right moment go first,
        // and others wait for seconds, each with a connection that somebody could read with.
        let turn = sqlite.then(Arc::default);
        Ok(Self { pool, secrets, random, newest_event, turn, duties: Arc::default() })
    }

    /// From now on it is away.
    #[cfg(test)]
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// An id of something that is never referred to by type.
    fn new_uuid(&self) -> String {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// 160 bits that nobody guesses, for a URL.
    fn new_secret(&self) -> String {
        let mut bytes = [0; 20];
        self.random.fill(&mut bytes);
        hex::encode(bytes)
    }
}

/// So long whoever wants something of the database waits for a connection, before they are told that it is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// So long after its last use a connection is taken to be alive: to ask before each query would make each twice as far away.
const TRUSTED: Duration = Duration::from_secs(1);

/// Readers never wait for the writer (WAL), and what was committed survives a power cut (FULL): a push that was told "v7
/// is live" stays so. 8 MB of each connection hold what most queries of a large database go through.
const SQLITE_SETTINGS: &str = "PRAGMA busy_timeout = 20000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA foreign_keys = ON; PRAGMA cache_size = -8000;";

/// A page somewhere costs hardly more than the next one. PostgreSQL takes the disk for one that turns, unless it is told: rather
/// than look up two hundred apps one by one, it reads all there are.
const POSTGRESQL_SETTINGS: &str = "SET random_page_cost = 1.1";

/// Folder of the copies that are made before the database is changed by a migration, beside the key of its secrets.
pub const BACKUPS: &str = "backups/database";

/// What the driver is told: a database of SQLite is made if it is missing.
fn address(url: &str) -> String {
    if url.starts_with("sqlite:") && !url.contains('?') { format!("{url}?mode=rwc") } else { url.to_owned() }
}

fn without_password(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else { return "(not a URL)".to_owned() };
    // Fails only for URLs that cannot have a password.
    let _ = parsed.set_password(None);
    parsed.to_string()
}
