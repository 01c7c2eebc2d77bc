use model::{AppId, DomainId, Hostname, SniEndpointId, Timestamp};
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
    /// Unique on this platform.
    pub hostname: Hostname,
    /// The certificate that it shows: its id and its name.
    pub sni_endpoint: Option<(SniEndpointId, String)>,
    /// When it was added.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

impl<'r> FromRow<'r, AnyRow> for Domain {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            app: row::text(row, "app_id")?,
            hostname: row::text(row, "hostname")?,
            sni_endpoint: row::optional_text(row, "sni_endpoint_id")?.zip(row.try_get("sni_endpoint_name")?),
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

const SELECT: &str = "SELECT d.id, d.app_id, d.hostname, d.sni_endpoint_id, s.name AS sni_endpoint_name, d.created_at, \
     d.updated_at FROM domains d LEFT JOIN sni_endpoints s ON s.id = d.sni_endpoint_id";

impl Store {
    /// Adds a custom domain.
    pub async fn insert_domain(&self, domain: &Domain, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query("INSERT INTO domains (id, app_id, hostname, created_at, updated_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(domain.id.to_string())
            .bind(domain.app.to_string())
            .bind(domain.hostname.as_str())
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

    /// The custom domains of all apps.
    pub async fn all_domains(&self) -> Result<Vec<Domain>, StoreError> {
        Ok(sqlx::query_as(&format!("{SELECT} ORDER BY d.hostname")).fetch_all(&self.pool).await?)
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
    let data = json!({ "hostname": domain.hostname });
    NewEvent { app: Some(domain.app), resource: Resource::Domain, id: domain.id.to_string(), action, data }
}
