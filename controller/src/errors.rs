use std::time::Duration;

use engine::EngineError;

use crate::store::StoreError;

/// Why a verb of the controller refused or failed. The first group is the user's to mend, and `Display` says how; the API
/// gives each a status (`api/error.rs`).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for cannot be: one sentence that names the field.
    #[error("{0}")]
    Invalid(String),
    /// It does not exist, or the user has no access to it: `app`, `release`, …
    #[error("Couldn't find that {0}.")]
    NotFound(&'static str),
    /// What was named may be any of several; one sentence that names them.
    #[error("{0}")]
    Ambiguous(String),
    /// It cannot be done now; one sentence that says why.
    #[error("{0}")]
    Conflict(String),
    /// The app is locked or frozen: no release of it is made now. Says who did that, why, and what lifts it.
    #[error("{0}")]
    Held(String),
    /// Somebody may see it, and not do that; one sentence that says what it needs.
    #[error("{0}")]
    Forbidden(String),
    /// Wrong e-mail address or password, or a token that is no good.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The password is right, and a code is needed too.
    #[error("A second authentication factor is needed: the code that your phone shows, or a recovery code.")]
    TwoFactor,
    /// Too many attempts.
    #[error("{message}")]
    TooMany {
        /// One sentence.
        message: &'static str,
        /// When it can be tried again.
        retry_after: Duration,
    },
    /// The database is away for a moment, or too busy.
    #[error("The platform's database does not answer just now. What is live goes on serving. Try again in a moment.")]
    StoreAway(#[source] StoreError),
    /// There is no room to write.
    #[error("The platform's disk is full: nothing was changed, what runs goes on. Its operator must make room.")]
    DiskFull(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// What runs containers.
    #[error("the engine failed")]
    Engine(#[from] EngineError),
    /// Files, processes and other parts of the machine.
    #[error("cannot {action}")]
    System {
        /// `read the log of a build`, …
        action: &'static str,
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<model::NameError> for Error {
    fn from(rule: model::NameError) -> Self {
        Self::Invalid(rule.to_string())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken(what) => Self::Invalid(format!("{what} is already taken")),
            // In Heroku's words.
            StoreError::Attached(name) => Self::Invalid(format!(
                "Cannot overwrite attachment values {name}. See whose it is with `platform addons`; `platform addons:detach` takes it away."
            )),
            StoreError::NoConfigVar(name) => Self::Invalid(format!("Config var {name} is not set")),
            StoreError::ConfigSize(bytes) => Self::Invalid(format!(
                "The config vars would have {bytes} bytes together, names and values; at most {} are possible. \
                 Keep large files elsewhere and put their address here.",
                crate::config_vars::MAX_TOTAL_BYTES
            )),
            StoreError::Stale => {
                Self::Conflict("Somebody else changed this app in the same moment. Try again.".to_owned())
            }
            StoreError::Locked(lock) => Self::Held(crate::holds::locked(&lock)),
            StoreError::Quantity { .. } => Self::Invalid(error.to_string()),
            StoreError::OneDyno { process_type, quantity, volume } => Self::Invalid(format!(
                "{process_type} cannot run {quantity} dynos and have the volume {volume}: a volume is for one dyno at a time. Scale \
                 it to one (`platform ps:scale {process_type}=1`), or let another process type have the volume."
            )),
            StoreError::Overlap(volume) => Self::Invalid(format!(
                "The volume {volume} of this process type is at that path, or above or below it. Choose another path."
            )),
            StoreError::Missing("Volume") => Self::NotFound("volume"),
            StoreError::Missing("Snapshot") => Self::NotFound("snapshot"),
            // It was there a moment ago, when the request found it.
            StoreError::Missing("App") => Self::NotFound("app"),
            StoreError::Missing("Release") => Self::NotFound("release"),
            StoreError::Missing("Build") => Self::NotFound("build"),
            StoreError::Missing("Process type") => Self::NotFound("process type"),
            StoreError::Missing("Add-on") => Self::NotFound("add-on"),
            StoreError::Missing("Attachment") => Self::NotFound("add-on attachment"),
            StoreError::Missing("User") => Self::NotFound("user"),
            error if error.is_orphan() => Self::NotFound("app"),
            error if error.is_away() => Self::StoreAway(error),
            error if error.is_disk_full() => Self::DiskFull(error.into()),
            other => Self::Store(other),
        }
    }
}

/// An error with its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += ": ";
        text += &error.to_string();
        source = error.source();
    }
    text
}
