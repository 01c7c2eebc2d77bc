//! Which apps take the connections to which ports.

use std::time::Duration;

use model::{AppId, Hostname, Introduction, ProcessType, TcpPorts, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::events::Write;
use super::{Action, App, NewEvent, Resource, Stamp, Store, StoreError, row};

/// A port of the platform's whose connections an app takes as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRoute {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub app: AppId,
    /// Whose instances take the connections.
    pub process_type: ProcessType,
    /// Of routers.
    pub port: u16,
    /// Only connections over TLS that want this host name; none: those that nobody else takes.
    pub host: Option<Hostname>,
    /// Routers end TLS.
    pub terminate: bool,
    /// Of instances; none is that of their `PORT`.
    pub target_port: Option<u16>,
    /// How long a connection may be silent.
    pub idle: Duration,
    /// Instances are told who comes.
    pub introduce: Option<Introduction>,
    /// Since when.
    pub created_at: Timestamp,
}

/// A route to make.
#[derive(Debug, Clone)]
pub struct NewTcpRoute {
    /// Whose instances take the connections.
    pub process_type: ProcessType,
    /// None for the first that nobody has.
    pub port: Option<u16>,
    /// See [`TcpRoute::host`].
    pub host: Option<Hostname>,
    /// See [`TcpRoute::terminate`].
    pub terminate: bool,
    /// See [`TcpRoute::target_port`].
    pub target_port: Option<u16>,
    /// See [`TcpRoute::idle`].
    pub idle: Duration,
    /// See [`TcpRoute::introduce`].
    pub introduce: Option<Introduction>,
}

/// Why an app does not get a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPort {
    /// Some app has every one.
    Full,
    /// The app itself has it, for the same host if for any.
    Own,
    /// An app of somebody else's has it.
    Taken,
}

impl<'r> FromRow<'r, AnyRow> for TcpRoute {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let (host, target_port): (String, Option<i64>) = (row.try_get("host")?, row.try_get("target_port")?);
        let introduce: Option<String> = row.try_get("introduce")?;
        Ok(Self {
            id: row.try_get("id")?,
            app: row::text(row, "app_id")?,
            process_type: row::text(row, "process_type")?,
            port: row::number(row, "port")?,
            host: if host.is_empty() { None } else { Some(row::text(row, "host")?) },
            terminate: row::flag(row, "terminate")?,
            target_port: target_port.and_then(|port| u16::try_from(port).ok()),
            idle: Duration::from_millis(row::number(row, "idle")?),
            introduce: introduce.and_then(|version| version.parse().ok()),
            created_at: row::time(row, "created_at")?,
        })
    }
}

/// Columns of a route.
pub(super) const COLUMNS: &str =
    "id, app_id, process_type, port, host, terminate, target_port, idle, introduce, created_at";

impl Store {
    /// Gives an app a port, one of `ports`, or says why not.
    pub async fn insert_tcp_route(
        &self,
        app: &App,
        new: &NewTcpRoute,
        ports: &TcpPorts,
        stamp: &Stamp,
    ) -> Result<Result<TcpRoute, NoPort>, StoreError> {
        let mut tx = self.begin(stamp).await?;
        // Of two that want one at once, the second sees what the first has got.
        sqlx::query("UPDATE counters SET value = value + 1 WHERE name = 'tcp_routes'").execute(&mut *tx).await?;
        let port = match new.port {
            None => free_port(&mut tx, ports).await?.ok_or(NoPort::Full),
            Some(port) => may_have(&mut tx, app, (port, new.host.as_ref())).await?.map(|()| port),
        };
        let port = match port {
            Ok(port) => port,
            Err(why) => return Ok(Err(why)),
        };
        let route = TcpRoute {
            id: self.new_uuid(),
            app: app.id,
            process_type: new.process_type.clone(),
            port,
            host: new.host.clone(),
            terminate: new.terminate,
            target_port: new.target_port,
            idle: new.idle,
            introduce: new.introduce,
            created_at: stamp.now,
        };
        sqlx::query(&format!("INSERT INTO tcp_routes ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"))
            .bind(&route.id)
            .bind(app.id.to_string())
            .bind(route.process_type.as_str())
            .bind(i64::from(port))
            .bind(route.host.as_ref().map_or("", Hostname::as_str))
            .bind(i64::from(route.terminate))
            .bind(route.target_port.map(i64::from))
            .bind(i64::try_from(route.idle.as_millis()).unwrap_or(i64::MAX))
            .bind(route.introduce.map(Introduction::as_str))
            .bind(route.created_at.as_millis())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::taken("The port"))?;
        tx.record(changed(&route, Action::Create));
        tx.commit().await?;
        Ok(Ok(route))
    }

    /// Takes a port away from an app. One that it does not have is no error.
    pub async fn delete_tcp_route(&self, route: &TcpRoute, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let gone = sqlx::query("DELETE FROM tcp_routes WHERE id = $1").bind(&route.id).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(route, Action::Destroy));
        }
        tx.commit().await
    }

    /// The routes of an app by port.
    pub async fn tcp_routes(&self, app: AppId) -> Result<Vec<TcpRoute>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM tcp_routes WHERE app_id = $1 ORDER BY port, host");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }
}

/// The first port that no app has anything of.
async fn free_port(tx: &mut Write<'_>, ports: &TcpPorts) -> Result<Option<u16>, StoreError> {
    let Some((first, last)) = ports.ends() else { return Ok(None) };
    let taken: Vec<i64> =
        sqlx::query_scalar("SELECT DISTINCT port FROM tcp_routes ORDER BY port").fetch_all(&mut **tx).await?;
    Ok((first..=last).find(|port| taken.binary_search(&i64::from(*port)).is_err()))
}

/// Whether an app may have what it wants of a port. Who has all of one shares it only with apps of the same owner: what comes there would
/// not be taken as it is any more.
async fn may_have(
    tx: &mut Write<'_>,
    app: &App,
    (port, host): (u16, Option<&Hostname>),
) -> Result<Result<(), NoPort>, StoreError> {
    let sql = "SELECT r.app_id, r.host, a.team_id, \
               (SELECT o.user_id FROM collaborators o WHERE o.app_id = a.id AND o.role = 'owner') AS owner_id \
               FROM tcp_routes r JOIN apps a ON a.id = r.app_id WHERE r.port = $1";
    let rows = sqlx::query(sql).bind(i64::from(port)).fetch_all(&mut **tx).await?;
    for row in &rows {
        let (other, has): (AppId, String) = (row::text(row, "app_id")?, row.try_get("host")?);
        let team = row::optional_text(row, "team_id")?;
        let owner: model::UserId = row::text(row, "owner_id")?;
        let is_of_same = team == app.team.as_ref().map(|team| team.id) && (team.is_some() || owner == app.owner.id);
        let is_same = has == host.map_or("", Hostname::as_str);
        let is_all = has.is_empty() || host.is_none();
        match (is_same, other == app.id) {
            (true, true) => return Ok(Err(NoPort::Own)),
            (true, false) => return Ok(Err(NoPort::Taken)),
            (false, _) if is_all && !is_of_same => return Ok(Err(NoPort::Taken)),
            (false, _) => {}
        }
    }
    Ok(Ok(()))
}

fn changed(route: &TcpRoute, action: Action) -> NewEvent {
    let data = json!({ "tcp_route": {
        "port": route.port,
        "host": route.host.as_ref().map(Hostname::as_str),
        "process_type": route.process_type.as_str(),
        "action": action.to_string(),
    } });
    NewEvent { app: Some(route.app), resource: Resource::App, id: route.app.to_string(), action: Action::Update, data }
}
