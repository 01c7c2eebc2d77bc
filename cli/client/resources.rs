//! The API's resources, as far as commands print them (Heroku Platform API v3). What is not printed is not read,
//! so a newer platform with more fields works with an older program.

use serde::Deserialize;
use serde_json::Value;

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

/// `GET /platform`
#[derive(Debug, Deserialize)]
pub(crate) struct Platform {
    /// Its https entrance.
    pub(crate) https_url: Option<String>,
}

/// `GET /apps/:app`
#[derive(Debug, Deserialize)]
pub(crate) struct App {
    /// Its name.
    pub(crate) name: String,
    /// Where it is pushed to over SSH, if the platform has that.
    #[serde(default)]
    pub(crate) ssh_url: Option<String>,
    /// Where it answers.
    pub(crate) web_url: Option<String>,
    /// Requests get the maintenance page.
    pub(crate) maintenance: bool,
    /// Who made it.
    pub(crate) owner: Owner,
    /// What it is built and run on.
    pub(crate) stack: Named,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// RFC 3339; nothing released yet if missing.
    pub(crate) released_at: Option<String>,
}

/// A user, in other resources.
#[derive(Debug, Deserialize)]
pub(crate) struct Owner {
    /// Their address.
    pub(crate) email: String,
}

/// Anything that is only named.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    /// Its name.
    pub(crate) name: String,
}

/// `GET /apps/:app/dynos`
#[derive(Debug, Deserialize)]
pub(crate) struct Dyno {
    /// `web.1`
    pub(crate) name: String,
    /// `starting`, `up`, `crashed`, …
    pub(crate) state: String,
    /// As the Procfile has it.
    pub(crate) command: String,
    /// `Standard-1X`
    pub(crate) size: String,
    /// RFC 3339: since when it is in this state.
    pub(crate) updated_at: String,
    /// What it runs.
    pub(crate) release: DynoRelease,
    /// Where to attach, if asked for.
    pub(crate) attach_url: Option<String>,
}

/// The release of a dyno.
#[derive(Debug, Deserialize)]
pub(crate) struct DynoRelease {
    /// The N of vN.
    pub(crate) version: u32,
}

/// `GET /apps/:app/formation`
#[derive(Debug, Deserialize)]
pub(crate) struct Formation {
    /// `web`
    #[serde(rename = "type")]
    pub(crate) process_type: String,
    /// How many should run.
    pub(crate) quantity: u32,
    /// `Standard-1X`
    pub(crate) size: String,
    /// As the Procfile has it.
    pub(crate) command: String,
}

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

/// `GET /apps/:app/builds`
#[derive(Debug, Deserialize)]
pub(crate) struct Build {
    /// Which.
    pub(crate) id: String,
    /// `pending`, `succeeded`, `failed`.
    pub(crate) status: String,
    /// What was built.
    pub(crate) source_blob: SourceBlob,
    /// Who pushed.
    pub(crate) user: Owner,
    /// RFC 3339.
    pub(crate) created_at: String,
}

/// What a build was made of.
#[derive(Debug, Deserialize)]
pub(crate) struct SourceBlob {
    /// The commit.
    pub(crate) version: Option<String>,
}

/// `GET /apps/:app/domains`
#[derive(Debug, Deserialize)]
pub(crate) struct Domain {
    /// The host name.
    pub(crate) hostname: String,
    /// `heroku` for the app's own name, `custom` for those added.
    pub(crate) kind: String,
    /// What a DNS record should point at.
    pub(crate) cname: Option<String>,
}

/// `POST /apps/:app/log-sessions`
#[derive(Debug, Deserialize)]
pub(crate) struct LogSession {
    /// Where the lines are.
    pub(crate) logplex_url: String,
}

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

/// `GET /apps/:app/buildpack-installations`
#[derive(Debug, Deserialize)]
pub(crate) struct BuildpackInstallation {
    /// Its place, from 0.
    pub(crate) ordinal: u32,
    /// Which.
    pub(crate) buildpack: Buildpack,
}

/// A buildpack, in other resources.
#[derive(Debug, Deserialize)]
pub(crate) struct Buildpack {
    /// Its id, or where it is.
    pub(crate) url: String,
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

/// `GET /pipelines`
#[derive(Debug, Deserialize)]
pub(crate) struct Pipeline {
    /// Its name.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) owner: PipelineOwner,
}

/// Whose a pipeline is.
#[derive(Debug, Deserialize)]
pub(crate) struct PipelineOwner {
    /// `team` or `user`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// `GET /pipeline-couplings`
#[derive(Debug, Deserialize)]
pub(crate) struct Coupling {
    /// Its id.
    pub(crate) id: String,
    /// Which app.
    pub(crate) app: Named,
    /// Of which pipeline.
    pub(crate) pipeline: Named,
    /// Which stage that is.
    pub(crate) stage: String,
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
