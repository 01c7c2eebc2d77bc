//! Heroku's API for data services, which is apart from its Platform API, as far as `heroku pg:…` and `heroku redis:…` read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use super::addons::AddonAccess;
use super::error::ApiError;
use super::input::{Body, Text};
use super::output::{Accepted, Created, Id, List, Named, Time};
use crate::store::{Addon, AddonState};
use crate::{Controller, Error};

/// A database.
#[derive(Serialize, ToSchema)]
#[schema(as = Database)]
pub(super) struct PostgresDatabase {
    addon_id: Id,
    created_at: Time,
    database_name: String,
    database_password: String,
    database_user: String,
    host: String,
    /// What people are shown.
    info: Vec<InfoRow>,
    name: String,
    num_bytes: u64,
    num_connections: u64,
    num_tables: u64,
    plan: Named,
    port: u16,
    postgres_version: Option<String>,
    /// What its app gets as a config var.
    resource_url: String,
    #[serde(rename = "waiting?")]
    waiting: bool,
}

/// One line of what people are shown.
#[derive(Serialize, ToSchema)]
pub(super) struct InfoRow {
    name: &'static str,
    values: Vec<String>,
}

/// Whether something still has to be waited for.
#[derive(Serialize, ToSchema)]
pub(super) struct WaitStatus {
    #[serde(rename = "error?")]
    error: bool,
    message: String,
    #[serde(rename = "waiting?")]
    waiting: bool,
}

/// A way into a database. There is one, which owns it.
#[derive(Serialize, ToSchema)]
pub(super) struct Credential {
    credentials: Vec<UserPassword>,
    database: String,
    host: String,
    name: &'static str,
    port: u16,
    state: &'static str,
    uuid: Id,
}

/// A name and its password.
#[derive(Serialize, ToSchema)]
pub(super) struct UserPassword {
    password: String,
    state: &'static str,
    user: String,
}

/// A Redis server.
#[derive(Serialize, ToSchema)]
pub(super) struct RedisDatabase {
    addon_id: Id,
    created_at: Time,
    info: Vec<InfoRow>,
    name: String,
    plan: String,
    port: u16,
    resource_url: String,
}

/// When backups are made by themselves.
#[derive(Serialize, ToSchema)]
pub(super) struct TransferSchedule {}

/// A backup to restore.
#[derive(Deserialize, ToSchema)]
pub(super) struct RestoreWish {
    /// Its `to_url`.
    backup_url: Text,
}

/// An add-on's URL in its parts.
struct Address {
    url: String,
    user: String,
    password: String,
    host: String,
    port: u16,
    database: String,
}

/// `GET /client/v11/databases/{addon}`
pub(super) async fn database(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
) -> Result<Json<PostgresDatabase>, ApiError> {
    let addon = &access.addon;
    let address = address(&controller, addon, "postgres").await?;
    let facts = controller.postgres_facts(addon).await;
    let row = |name, value: String| InfoRow { name, values: vec![value] };
    let mut info = vec![row("Plan", addon.plan.clone()), row("Status", "Available".to_owned())];
    if let Some(version) = &facts.version {
        info.push(row("Connections", format!("{}/{}", facts.connections, facts.max_connections)));
        info.push(row("PG Version", version.clone()));
        info.push(row("Data Size", format!("{}.{} MB", facts.bytes / 1_000_000, facts.bytes % 1_000_000 / 100_000)));
        info.push(row("Tables", facts.tables.to_string()));
    }
    info.push(row("Created", addon.created_at.to_rfc3339()));
    info.push(row("Continuous Protection", "Off".to_owned()));
    Ok(Json(PostgresDatabase {
        addon_id: Id::of(&addon.id),
        created_at: addon.created_at.into(),
        database_name: address.database,
        database_password: address.password,
        database_user: address.user,
        host: address.host,
        info,
        name: addon.name.to_string(),
        num_bytes: facts.bytes,
        num_connections: facts.connections,
        num_tables: facts.tables,
        plan: Named::new(&addon.id, &addon.plan),
        port: address.port,
        postgres_version: facts.version,
        resource_url: address.url,
        waiting: false,
    }))
}

/// `GET /client/v11/databases/{addon}/wait_status`, `GET /redis/v0/databases/{addon}/wait`
pub(super) async fn wait_status(access: AddonAccess) -> Json<WaitStatus> {
    let addon = &access.addon;
    let (waiting, message) = match addon.state {
        AddonState::Provisioning => (true, "preparing".to_owned()),
        AddonState::Provisioned => (false, "available".to_owned()),
        AddonState::Failed | AddonState::Removing => (false, crate::addons::failure(addon).to_owned()),
    };
    let error = matches!(addon.state, AddonState::Failed | AddonState::Removing);
    Json(WaitStatus { error, message, waiting })
}

/// `POST /client/v11/databases/{addon}/connection_reset`: sends every client away.
pub(super) async fn reset_connections(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
) -> Result<Accepted, ApiError> {
    address(&controller, &access.addon, "postgres").await?;
    controller.reset_connections(&access.addon, &access.actor).await?;
    Ok(Accepted {})
}

/// `POST /client/v11/databases/{addon}/backups`
pub(super) async fn capture(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
) -> Result<Created<super::transfers::TransferAnswer>, ApiError> {
    let transfer = controller.capture_backup(&access.addon, &access.actor).await?;
    Ok(Created(super::transfers::answer(&controller, &access.addon, &transfer)))
}

/// `POST /client/v11/databases/{addon}/restores`
pub(super) async fn restore(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    Body(wish): Body<RestoreWish>,
) -> Result<Created<super::transfers::TransferAnswer>, ApiError> {
    let prefix = format!("{}/addons/{}/backups/", controller.settings.api_url(), access.addon.id);
    let name = wish.backup_url.0.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix("/content"));
    let name = name.ok_or_else(|| {
        ApiError::invalid(
            "backup_url must be that of a backup of the same database. Others: `platform pg:backups:upload`, then restore",
        )
    })?;
    let source = controller.find_transfer(access.addon.id, name).await?;
    let transfer = controller.restore_backup((&access.addon, &access.actor), &source).await?;
    Ok(Created(super::transfers::answer(&controller, &access.addon, &transfer)))
}

/// `GET /client/v11/databases/{addon}/transfer-schedules`: backups are made when somebody asks for one.
pub(super) async fn schedules(_: AddonAccess) -> List<TransferSchedule> {
    List(Vec::new())
}

/// `GET /postgres/v0/databases/{addon}/credentials`
pub(super) async fn credentials(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
) -> Result<List<Credential>, ApiError> {
    Ok(List(vec![own_credential(&controller, &access.addon).await?]))
}

/// `GET /postgres/v0/databases/{addon}/credentials/{credential}`
pub(super) async fn credential(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Json<Credential>, ApiError> {
    if path.get("credential").map(String::as_str) != Some("default") {
        return Err(Error::NotFound("credential").into());
    }
    Ok(Json(own_credential(&controller, &access.addon).await?))
}

/// `GET /redis/v0/databases/{addon}`
pub(super) async fn redis(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
) -> Result<Json<RedisDatabase>, ApiError> {
    let addon = &access.addon;
    let address = address(&controller, addon, "redis").await?;
    let facts = controller.redis_facts(addon).await;
    let fact = |name, key: &str| InfoRow { name, values: facts.get(key).cloned().into_iter().collect() };
    let row = |name, value: &str| InfoRow { name, values: vec![value.to_owned()] };
    let info = vec![
        row("Plan", &addon.plan),
        row("Status", "available"),
        row("Created", &addon.created_at.to_rfc3339()),
        fact("Version", "redis_version"),
        fact("Memory", "used_memory_human"),
        fact("Maxmemory", "maxmemory_policy"),
        fact("Connections", "connected_clients"),
        row("Persistence", "AOF"),
    ];
    Ok(Json(RedisDatabase {
        addon_id: Id::of(&addon.id),
        created_at: addon.created_at.into(),
        info: info.into_iter().filter(|row| !row.values.is_empty()).collect(),
        name: addon.name.to_string(),
        plan: addon.plan.clone(),
        port: address.port,
        resource_url: address.url,
    }))
}

async fn own_credential(controller: &Controller, addon: &Addon) -> Result<Credential, ApiError> {
    let address = address(controller, addon, "postgres").await?;
    Ok(Credential {
        credentials: vec![UserPassword { password: address.password, state: "active", user: address.user }],
        database: address.database,
        host: address.host,
        name: "default",
        port: address.port,
        state: "active",
        uuid: Id::of(&addon.id),
    })
}

/// Where an add-on of this kind answers; none of another kind, or not yet, is as good as none.
async fn address(controller: &Controller, addon: &Addon, kind: &str) -> Result<Address, ApiError> {
    let url = controller.addon_url(addon).await?.filter(|_| addon.kind == kind).ok_or(Error::NotFound("database"))?;
    let parsed = Url::parse(&url).map_err(|_| Error::NotFound("database"))?;
    Ok(Address {
        user: parsed.username().to_owned(),
        password: parsed.password().unwrap_or_default().to_owned(),
        host: parsed.host_str().unwrap_or_default().to_owned(),
        port: parsed.port().unwrap_or_default(),
        database: parsed.path().trim_start_matches('/').to_owned(),
        url,
    })
}
