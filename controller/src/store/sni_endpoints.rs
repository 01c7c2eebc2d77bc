use model::certificate::Staple;
use model::{AppId, DomainId, Hostname, SniEndpointId, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, App, Domain, NewEvent, Resource, Stamp, Store, StoreError, row, staples};

/// A certificate of an app. Its key is read apart from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SniEndpoint {
    /// Its id.
    pub id: SniEndpointId,
    /// Of which app.
    pub app: AppId,
    /// Unique on this platform.
    pub name: String,
    /// PEM, the leaf first.
    pub chain: String,
    /// Whether the platform got it.
    pub acm: bool,
    /// When it was added.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

impl<'r> FromRow<'r, AnyRow> for SniEndpoint {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            app: row::text(row, "app_id")?,
            name: row.try_get("name")?,
            chain: row.try_get("certificate_chain")?,
            acm: row::flag(row, "acm")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

/// A certificate that a domain shows, with its key.
#[derive(Debug)]
pub(crate) struct DomainCertificate {
    /// Which.
    pub(crate) endpoint: SniEndpointId,
    /// Of which app.
    pub(crate) app: AppId,
    /// Who shows it.
    pub(crate) hostname: Hostname,
    /// PEM, the leaf first.
    pub(crate) chain: String,
    /// PEM; or why it cannot be opened.
    pub(crate) key: Result<String, StoreError>,
    /// What its authority said of it lately.
    pub(crate) staple: Option<Staple>,
}

const SELECT: &str = "SELECT id, app_id, name, certificate_chain, acm, created_at, updated_at FROM sni_endpoints";

impl Store {
    /// Adds a certificate with its key, in PEM.
    pub async fn insert_sni_endpoint(&self, new: &SniEndpoint, key: &str, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query(
            "INSERT INTO sni_endpoints (id, app_id, name, certificate_chain, private_key, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $6)",
        )
        .bind(new.id.to_string())
        .bind(new.app.to_string())
        .bind(&new.name)
        .bind(&new.chain)
        .bind(self.seal_certificate_key(new.id, key)?)
        .bind(new.created_at.as_millis())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::taken("Name"))?;
        tx.record(changed(new, Action::Create));
        tx.commit().await
    }

    /// Puts another certificate and key in the place of one.
    pub async fn update_sni_endpoint(
        &self,
        endpoint: &SniEndpoint,
        (chain, key): (&str, &str),
        stamp: &Stamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "UPDATE sni_endpoints SET certificate_chain = $1, private_key = $2, updated_at = $3 WHERE id = $4";
        sqlx::query(sql)
            .bind(chain)
            .bind(self.seal_certificate_key(endpoint.id, key)?)
            .bind(tx.now())
            .bind(endpoint.id.to_string())
            .execute(&mut *tx)
            .await?;
        tx.record(changed(endpoint, Action::Update));
        tx.commit().await
    }

    /// An app's certificates, the oldest first.
    pub async fn sni_endpoints(&self, app: AppId) -> Result<Vec<SniEndpoint>, StoreError> {
        let sql = format!("{SELECT} WHERE app_id = $1 ORDER BY created_at, id");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// The key of a certificate, in PEM.
    pub async fn sni_key(&self, id: SniEndpointId) -> Result<String, StoreError> {
        let sealed: Option<String> = sqlx::query_scalar("SELECT private_key FROM sni_endpoints WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?;
        let key = self.secrets.unseal(&key_row(id), &sealed.ok_or(StoreError::Missing("Certificate"))?)?;
        Ok(String::from_utf8_lossy(&key).into_owned())
    }

    /// What the domains of an app show, or those of all.
    pub(crate) async fn shown_certificates(&self, app: Option<AppId>) -> Result<Vec<DomainCertificate>, StoreError> {
        let sql = format!(
            "SELECT s.id, s.certificate_chain, s.private_key, d.app_id, d.hostname, t.answer, \
             t.expires_at AS answer_expires_at FROM domains d \
             JOIN sni_endpoints s ON s.id = d.sni_endpoint_id AND s.app_id = d.app_id {}",
            staples::JOIN
        );
        let rows = match app {
            Some(app) => {
                let sql = format!("{sql} WHERE d.app_id = $1 ORDER BY d.hostname");
                sqlx::query(&sql).bind(app.to_string()).fetch_all(&self.pool).await?
            }
            None => sqlx::query(&format!("{sql} ORDER BY d.hostname")).fetch_all(&self.pool).await?,
        };
        rows.iter().map(|row| self.read_shown(row)).collect()
    }

    pub(super) fn seal_certificate_key(&self, id: SniEndpointId, key: &str) -> Result<String, StoreError> {
        Ok(self.secrets.seal(&key_row(id), key.as_bytes())?)
    }

    fn read_shown(&self, row: &AnyRow) -> Result<DomainCertificate, StoreError> {
        let endpoint = row::text(row, "id")?;
        let key = self.secrets.unseal(&key_row(endpoint), row.try_get("private_key")?).map_err(StoreError::from);
        Ok(DomainCertificate {
            endpoint,
            app: row::text(row, "app_id")?,
            hostname: row::text(row, "hostname")?,
            chain: row.try_get("certificate_chain")?,
            key: key.map(|key| String::from_utf8_lossy(&key).into_owned()),
            staple: staples::answer(row)?,
        })
    }

    /// Removes a certificate. Domains that showed it show none of the user's.
    pub async fn delete_sni_endpoint(&self, endpoint: &SniEndpoint, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let gone = sqlx::query("DELETE FROM sni_endpoints WHERE id = $1")
            .bind(endpoint.id.to_string())
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE domains SET sni_endpoint_id = NULL WHERE sni_endpoint_id = $1")
            .bind(endpoint.id.to_string())
            .execute(&mut *tx)
            .await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(endpoint, Action::Destroy));
        }
        tx.commit().await
    }

    /// Lets a domain show a certificate, or none.
    pub async fn set_domain_certificate(
        &self,
        domain: &Domain,
        endpoint: Option<&SniEndpoint>,
        stamp: &Stamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query("UPDATE domains SET sni_endpoint_id = $1, updated_at = $2 WHERE id = $3")
            .bind(endpoint.map(|endpoint| endpoint.id.to_string()))
            .bind(tx.now())
            .bind(domain.id.to_string())
            .execute(&mut *tx)
            .await?;
        let data =
            json!({ "hostname": domain.place.to_string(), "sni_endpoint": endpoint.map(|endpoint| &endpoint.name) });
        let (id, action) = (domain.id.to_string(), Action::Update);
        tx.record(NewEvent { app: Some(domain.app), resource: Resource::Domain, id, action, data });
        tx.commit().await
    }

    /// The domains that show a certificate.
    pub async fn domains_of_certificate(&self, id: SniEndpointId) -> Result<Vec<DomainId>, StoreError> {
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM domains WHERE sni_endpoint_id = $1 ORDER BY hostname")
                .bind(id.to_string())
                .fetch_all(&self.pool)
                .await?;
        ids.iter().map(|id| id.parse().map_err(|_| StoreError::Missing("Domain"))).collect()
    }

    /// Says whether the platform shall get certificates for an app's domains.
    pub async fn set_acm(&self, app: &App, acm: bool, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let changed = sqlx::query("UPDATE apps SET acm = $1, updated_at = $2 WHERE id = $3 AND acm <> $1")
            .bind(i64::from(acm))
            .bind(tx.now())
            .bind(app.id.to_string())
            .execute(&mut *tx)
            .await?;
        if changed.rows_affected() > 0 {
            let (id, data) = (app.id.to_string(), json!({ "name": app.name, "acm": acm }));
            tx.record(NewEvent { app: Some(app.id), resource: Resource::App, id, action: Action::Update, data });
        }
        tx.commit().await
    }
}

fn changed(endpoint: &SniEndpoint, action: Action) -> NewEvent {
    let data = json!({ "name": endpoint.name });
    NewEvent { app: Some(endpoint.app), resource: Resource::SniEndpoint, id: endpoint.id.to_string(), action, data }
}

/// What the sealed key of a certificate is bound to.
fn key_row(id: SniEndpointId) -> String {
    format!("sni_endpoints/{id}/private_key")
}
