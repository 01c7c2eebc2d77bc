//! People: accounts, tokens, teams, and who may work on an app.

use serde::Deserialize;

use super::{Named, Owner};

/// `GET /account`
#[derive(Debug, Deserialize)]
pub(crate) struct Account {
    /// Who is logged in.
    pub(crate) email: String,
}

/// `POST /oauth/authorizations`
#[derive(Debug, Deserialize)]
pub(crate) struct Authorization {
    /// The new token.
    pub(crate) access_token: AccessToken,
}

/// The secret part of an authorization.
#[derive(Debug, Deserialize)]
pub(crate) struct AccessToken {
    /// Goes into `Authorization: Bearer`.
    pub(crate) token: String,
}

/// `POST /users` on the control socket.
#[derive(Debug, Deserialize)]
pub(crate) struct NewUser {
    /// The new user.
    pub(crate) email: String,
    /// A first token of theirs, shown this once.
    pub(crate) token: String,
}

/// `GET /apps/:app/collaborators`
#[derive(Debug, Deserialize)]
pub(crate) struct Collaborator {
    /// Who.
    pub(crate) user: Owner,
    /// `owner`, `admin` or `collaborator`; none for who has yet to accept an invitation.
    pub(crate) role: Option<String>,
    permissions: Vec<Permission>,
}

/// `GET /teams`
#[derive(Debug, Deserialize)]
pub(crate) struct Team {
    /// Its name.
    pub(crate) name: String,
    permissions: Vec<Permission>,
}

/// `GET /teams/:team/members`
#[derive(Debug, Deserialize)]
pub(crate) struct Member {
    /// Who.
    pub(crate) email: String,
    /// Whether they sign in with a code too.
    pub(crate) two_factor_authentication: bool,
    /// RFC 3339.
    pub(crate) created_at: String,
    permissions: Vec<Permission>,
}

/// What somebody may do.
#[derive(Debug, Deserialize)]
struct Permission {
    name: String,
}

impl Collaborator {
    /// The one word for what they may do.
    pub(crate) fn highest(&self) -> String {
        highest(&self.permissions)
    }
}

impl Team {
    /// The one word for what you may do.
    pub(crate) fn highest(&self) -> String {
        highest(&self.permissions)
    }
}

impl Member {
    /// The one word for what they may do.
    pub(crate) fn highest(&self) -> String {
        highest(&self.permissions)
    }
}

/// The API lists them from the least to the most.
fn highest(permissions: &[Permission]) -> String {
    permissions.last().map(|permission| permission.name.clone()).unwrap_or_default()
}

/// `GET /account/app-transfers`
#[derive(Debug, Deserialize)]
pub(crate) struct AppTransfer {
    /// Which app.
    pub(crate) app: Named,
    /// Who offers it.
    pub(crate) owner: Owner,
    /// To whom.
    pub(crate) recipient: Owner,
    /// pending, accepted or declined.
    pub(crate) state: String,
    /// RFC 3339.
    pub(crate) created_at: String,
}

/// `GET /account/keys`
#[derive(Debug, Deserialize)]
pub(crate) struct Key {
    /// Its id.
    pub(crate) id: String,
    /// What its owner calls it.
    pub(crate) comment: String,
    /// `SHA256:…`
    pub(crate) fingerprint: String,
    /// One line, as in its file.
    #[serde(rename = "public_key")]
    pub(crate) line: String,
    /// RFC 3339.
    pub(crate) last_used_at: Option<String>,
}

/// `GET /users`
#[derive(Debug, Deserialize)]
pub(crate) struct KnownUser {
    /// Who.
    pub(crate) email: String,
    /// Whether they keep the platform.
    pub(crate) operator: bool,
    /// RFC 3339: since when they may not come in.
    pub(crate) suspended_at: Option<String>,
    /// Whether they sign in with a code too.
    pub(crate) two_factor_authentication: bool,
    /// RFC 3339.
    pub(crate) last_login: Option<String>,
}

/// `POST /invitations`, `PUT /teams/:team/invitations`
#[derive(Debug, Deserialize)]
pub(crate) struct Invited {
    /// Where whoever is invited goes.
    pub(crate) url: String,
}

/// `GET /account/two-factor`
#[derive(Debug, Deserialize)]
pub(crate) struct TwoFactor {
    /// Whether a code is asked for.
    pub(crate) enabled: bool,
    /// Recovery codes that were not used.
    pub(crate) recovery_codes_left: u64,
}

/// `POST /account/two-factor`
#[derive(Debug, Deserialize)]
pub(crate) struct TwoFactorSecret {
    /// In base32.
    pub(crate) secret: String,
    /// `otpauth://…`
    pub(crate) url: String,
}

/// `PATCH /account/two-factor`
#[derive(Debug, Deserialize)]
pub(crate) struct RecoveryCodes {
    /// Shown this once.
    pub(crate) recovery_codes: Vec<String>,
}
