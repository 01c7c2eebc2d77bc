use model::routes::Place;
use model::{AppId, AppName, DomainId, SniEndpointId, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, row};

/// A custom domain of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// Of which app.
    pub app: AppId,
    /// A host, or a path of one. Unique on this platform.
    pub place: Place,
    /// The certificate that it shows: its id and its name.
    pub sni_endpoint: Option<(SniEndpointId, String)>,
    /// Nobody added it: it came with a visitor, and the app said that it is its own.
    pub on_demand: bool,
    /// When it was added.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// How many domains an app has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainCounts {
    /// All.
    pub all: usize,
    /// Of those that came with a visitor, those that did lately.
    pub new: u32,
    /// Of the same, those without a certificate.
    pub waiting: u32,
}

impl<'r> FromRow<'r, AnyRow> for Domain {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            app: row::text(row, "app_id")?,
            place: place(row)?,
            sni_endpoint: row::optional_text(row, "sni_endpoint_id")?.zip(row.try_get("sni_endpoint_name")?),
            on_demand: row::flag(row, "on_demand")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

/// Where a row of the table says that its app answers.
pub(super) fn place(row: &AnyRow) -> Result<Place, sqlx::Error> {
    let (address, path): (String, Option<_>) = (row.try_get("hostname")?, row::optional_text(row, "path")?);
    let host = address.split('/').next().unwrap_or_default().parse();
    let host = host.map_err(|error| sqlx::Error::ColumnDecode { index: "hostname".into(), source: Box::new(error) })?;
    Ok(Place { host, path, strip: row::flag(row, "strip")? })
}

const SELECT: &str = "SELECT d.id, d.app_id, d.hostname, d.path, d.strip, d.sni_endpoint_id, s.name AS sni_endpoint_name, d.on_demand, \
     d.created_at, d.updated_at FROM domains d LEFT JOIN sni_endpoints s ON s.id = d.sni_endpoint_id";

impl Store {
    /// Adds a custom domain.
    pub async fn insert_domain(&self, domain: &Domain, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let Place { host, path, strip } = &domain.place;
        sqlx::query(
            "INSERT INTO domains (id, app_id, hostname, path, strip, host_id, on_demand, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, (SELECT id FROM domains WHERE hostname = $6), $7, $8, $9)",
        )
        .bind(domain.id.to_string())
        .bind(domain.app.to_string())
        .bind(domain.place.to_string())
        .bind(path.as_ref().map(model::PathPrefix::as_str))
        .bind(i64::from(*strip))
        .bind(path.as_ref().map(|_| host.as_str()))
        .bind(i64::from(domain.on_demand))
        .bind(domain.created_at.as_millis())
        .bind(domain.updated_at.as_millis())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::taken("Hostname"))?;
        tx.record(changed(domain, Action::Create));
        tx.commit().await
    }

    /// An app's custom domains by host name.
    pub async fn domains(&self, app: AppId) -> Result<Vec<Domain>, StoreError> {
        let sql = format!("{SELECT} WHERE d.app_id = $1 ORDER BY d.hostname");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// The domain that is a whole host.
    pub async fn domain_of_host(&self, host: &model::Hostname) -> Result<Option<Domain>, StoreError> {
        let sql = format!("{SELECT} WHERE d.hostname = $1");
        Ok(sqlx::query_as(&sql).bind(host.as_str()).fetch_optional(&self.pool).await?)
    }

    /// The paths of a host, with the apps that answer there.
    pub async fn paths_of_host(&self, host: DomainId) -> Result<Vec<(Place, AppName)>, StoreError> {
        self.paths("d.host_id = $1", &host.to_string()).await
    }

    /// The paths of the hosts of an app, with the other apps that answer there.
    pub async fn paths_of_others(&self, app: AppId) -> Result<Vec<(Place, AppName)>, StoreError> {
        let filter = "d.host_id IN (SELECT id FROM domains WHERE app_id = $1) AND d.app_id <> $1";
        self.paths(filter, &app.to_string()).await
    }

    /// The paths of hosts that an app and others share, with the apps that answer there.
    pub async fn shared_paths(&self, app: AppId) -> Result<Vec<(Place, AppName)>, StoreError> {
        let filter = "(d.app_id <> $1 AND d.host_id IN (SELECT id FROM domains WHERE app_id = $1)) \
             OR (d.app_id = $1 AND d.host_id IN (SELECT id FROM domains WHERE app_id <> $1))";
        self.paths(filter, &app.to_string()).await
    }

    async fn paths(&self, filter: &str, id: &str) -> Result<Vec<(Place, AppName)>, StoreError> {
        let sql = format!(
            "SELECT d.hostname, d.path, d.strip, a.name FROM domains d JOIN apps a ON a.id = d.app_id WHERE {filter} \
             ORDER BY d.hostname"
        );
        let rows = sqlx::query(&sql).bind(id).fetch_all(&self.pool).await?;
        let read = |row: &AnyRow| -> Result<_, sqlx::Error> { Ok((place(row)?, row::text(row, "name")?)) };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// The custom domains of all apps.
    pub async fn all_domains(&self) -> Result<Vec<Domain>, StoreError> {
        Ok(sqlx::query_as(&format!("{SELECT} ORDER BY d.hostname")).fetch_all(&self.pool).await?)
    }

    /// How many domains an app has, and of those that came with a visitor, how many since then and how many without a certificate.
    pub async fn on_demand_domains(&self, app: AppId, since: Timestamp) -> Result<DomainCounts, StoreError> {
        let sql = "SELECT COUNT(*) AS total, COALESCE(SUM(CASE WHEN on_demand = 1 AND created_at > $2 THEN 1 ELSE 0 END), 0) AS fresh, \
             COALESCE(SUM(CASE WHEN on_demand = 1 AND sni_endpoint_id IS NULL THEN 1 ELSE 0 END), 0) AS waiting \
             FROM domains WHERE app_id = $1";
        let row = sqlx::query(sql).bind(app.to_string()).bind(since.as_millis()).fetch_one(&self.pool).await?;
        let all = usize::try_from(row.try_get::<i64, _>("total")?).unwrap_or(usize::MAX);
        Ok(DomainCounts { all, new: row::number(&row, "fresh")?, waiting: row::number(&row, "waiting")? })
    }

    /// Takes a custom domain away from its app.
    pub async fn delete_domain(&self, domain: &Domain, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "DELETE FROM domains WHERE id = $1";
        let gone = sqlx::query(sql).bind(domain.id.to_string()).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(domain, Action::Destroy));
        }
        tx.commit().await
    }
}

fn changed(domain: &Domain, action: Action) -> NewEvent {
    let data = json!({ "hostname": domain.place.to_string() });
    NewEvent { app: Some(domain.app), resource: Resource::Domain, id: domain.id.to_string(), action, data }
}
