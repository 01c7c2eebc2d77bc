//! Add-ons, what is offered of them, and their backups.

use serde::Deserialize;

use super::Named;

/// `GET /addons/:addon`
#[derive(Debug, Deserialize)]
pub(crate) struct Addon {
    /// Its name.
    pub(crate) name: String,
    /// `provisioning`, `provisioned`, or `deprovisioned` if it never came up.
    pub(crate) state: String,
    /// `postgres:mini`
    pub(crate) plan: Named,
    /// The app that it was made for.
    pub(crate) app: Named,
    /// What that app gets.
    pub(crate) config_vars: Vec<String>,
    /// What to know about its state.
    pub(crate) provision_message: Option<String>,
    /// RFC 3339.
    pub(crate) created_at: String,
}

/// `GET /addon-attachments`
#[derive(Debug, Deserialize)]
pub(crate) struct AddonAttachment {
    /// Its id.
    pub(crate) id: String,
    /// `DATABASE`
    pub(crate) name: String,
    /// The add-on.
    pub(crate) addon: Named,
    /// The app that uses it.
    pub(crate) app: Named,
}

/// `GET /addon-services`
#[derive(Debug, Deserialize)]
pub(crate) struct AddonService {
    /// `postgres`
    pub(crate) name: String,
    /// `PostgreSQL`
    pub(crate) human_name: String,
}

/// `GET /addon-services/:service/plans`
#[derive(Debug, Deserialize)]
pub(crate) struct AddonPlan {
    /// `postgres:mini`
    pub(crate) name: String,
    /// What it is good for.
    pub(crate) description: String,
    /// What one gets without saying.
    pub(crate) default: bool,
}

/// `GET /addons/:addon/backups`
#[derive(Debug, Deserialize)]
pub(crate) struct Transfer {
    /// `b001`, or `r002` for a restore.
    pub(crate) name: String,
    /// `capture`, `upload` or `restore`.
    pub(crate) action: String,
    /// The backup that a restore takes.
    pub(crate) source: Option<String>,
    /// `running`, `succeeded` or `failed`.
    pub(crate) state: String,
    /// Why it failed.
    pub(crate) failure: Option<String>,
    /// Its size.
    pub(crate) bytes: u64,
    /// RFC 3339.
    pub(crate) created_at: String,
}
