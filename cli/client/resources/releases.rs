//! Releases: what each holds, and what differs between two.

use serde::Deserialize;
use serde_json::Value;

use super::{Named, Owner};

/// `GET /apps/:app/releases`
#[derive(Debug, Deserialize)]
pub(crate) struct Release {
    /// For rollback.
    pub(crate) id: String,
    /// The N of vN.
    pub(crate) version: u32,
    /// What it did: `Deploy 1a2b3c4`, `Set GREETING config vars`.
    pub(crate) description: String,
    /// `pending`, `succeeded`, `failed`, `expired`.
    pub(crate) status: String,
    /// It is what runs.
    pub(crate) current: bool,
    /// Who made it.
    pub(crate) user: Owner,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// Why it was made, in the words of who made it.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// Why it failed, if it did.
    #[serde(default)]
    pub(crate) failure: Option<String>,
    /// What its image was built from.
    #[serde(default)]
    pub(crate) slug: Option<Slug>,
    /// `postgres:mini`
    #[serde(default)]
    pub(crate) addon_plan_names: Vec<String>,
    /// How its app was scaled when it was made.
    #[serde(default)]
    pub(crate) formation: Option<Vec<Scaled>>,
    /// What became of config vars: the names.
    #[serde(default)]
    pub(crate) config_changes: Vec<ConfigVarChange>,
    /// Where the output of its release phase is.
    #[serde(default)]
    pub(crate) output_stream_url: Option<String>,
    /// What to know after a rollback.
    #[serde(default)]
    pub(crate) warnings: Vec<Warning>,
    /// There is an image to go back to.
    #[serde(default)]
    pub(crate) eligible_for_rollback: bool,
    /// There was one, and it was removed.
    #[serde(default)]
    pub(crate) image_removed: bool,
}

/// What an image was built from.
#[derive(Debug, Deserialize)]
pub(crate) struct Slug {
    /// In full.
    pub(crate) commit: String,
    /// First line of the commit's message.
    pub(crate) commit_description: Option<String>,
}

/// How a process type is scaled.
#[derive(Debug, Deserialize)]
pub(crate) struct Scaled {
    /// `web`
    #[serde(rename = "type")]
    pub(crate) process_type: String,
    /// How many.
    pub(crate) quantity: u32,
    /// `Standard-1X`
    pub(crate) size: String,
}

/// What became of a config var.
#[derive(Debug, Deserialize)]
pub(crate) struct ConfigVarChange {
    /// Its name.
    pub(crate) name: String,
    /// `added`, `changed` or `removed`.
    pub(crate) change: String,
}

/// Something to know before or after a rollback.
#[derive(Debug, Deserialize)]
pub(crate) struct Warning {
    /// One sentence.
    pub(crate) message: String,
}

/// `GET /apps/:app/releases/:release/rollback`
#[derive(Debug, Deserialize)]
pub(crate) struct RollbackPreview {
    /// What would change.
    pub(crate) changes: Changes,
    /// What to know before.
    pub(crate) warnings: Vec<Warning>,
}

/// `GET /apps/:app/releases/:release/diff/:other`
#[derive(Debug, Deserialize)]
pub(crate) struct Changes {
    /// Other code.
    pub(crate) code: Option<Change<Slug>>,
    /// Config vars.
    pub(crate) config_vars: Vec<ConfigVarChange>,
    /// Uses of add-ons.
    pub(crate) attachments: Vec<NamedChange<AttachedAddon>>,
    /// How process types are scaled.
    pub(crate) formation: Vec<TypeChange<Scale>>,
    /// Commands of process types.
    pub(crate) process_types: Vec<TypeChange<String>>,
}

/// From one thing to another; none if there is none.
#[derive(Debug, Deserialize)]
pub(crate) struct Change<T> {
    /// What was.
    pub(crate) from: Option<T>,
    /// What is to be.
    pub(crate) to: Option<T>,
}

/// The same for something that has a name.
#[derive(Debug, Deserialize)]
pub(crate) struct NamedChange<T> {
    /// Of what.
    pub(crate) name: String,
    /// What was.
    pub(crate) from: Option<T>,
    /// What is to be.
    pub(crate) to: Option<T>,
}

/// The same for a process type.
#[derive(Debug, Deserialize)]
pub(crate) struct TypeChange<T> {
    /// Which.
    #[serde(rename = "type")]
    pub(crate) process_type: String,
    /// What was.
    pub(crate) from: Option<T>,
    /// What is to be.
    pub(crate) to: Option<T>,
}

/// How often, and how large.
#[derive(Debug, Deserialize)]
pub(crate) struct Scale {
    /// How many.
    pub(crate) quantity: u32,
    /// `Standard-1X`
    pub(crate) size: String,
}

/// An add-on, as a release knows it.
#[derive(Debug, Deserialize)]
pub(crate) struct AttachedAddon {
    /// The add-on.
    pub(crate) addon: Named,
}

/// `POST /apps/:app/config-changes`
#[derive(Debug, Deserialize)]
pub(crate) struct ConfigChanged {
    /// The release that was made; none if nothing changed.
    pub(crate) release: Option<Value>,
    /// All config vars.
    pub(crate) config_vars: Value,
}
