//! Certificates that the platform gets by itself: its account, and how far it is with each domain.

use std::collections::HashMap;

use model::{AppId, DomainId, Hostname, SniEndpointId, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::words::words;
use super::{Action, NewEvent, Resource, SniEndpoint, Stamp, Store, StoreError, row};

words! {
    /// How far the platform is with a certificate for a domain, in Heroku's words.
    AcmStatus, "That is no state of a certificate":
    /// Nothing was tried yet.
    Pending "pending";
    /// The last attempt failed; another one comes soon.
    Failing "failing";
    /// Many attempts failed; there is one a day.
    Failed "failed";
    /// It is there.
    Issued "cert issued";
}

/// How far the platform is with a certificate for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainOrder {
    /// In one word.
    pub status: AcmStatus,
    /// Why there is none yet, or why it was not renewed.
    pub reason: Option<String>,
    /// Attempts in a row that failed.
    pub failures: u32,
    /// When it is looked at next.
    pub due_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// A domain that the platform is to get a certificate for.
#[derive(Debug, Clone)]
pub(crate) struct ManagedDomain {
    pub(crate) id: DomainId,
    pub(crate) app: AppId,
    pub(crate) hostname: Hostname,
    /// It came with a visitor: the app is asked again.
    pub(crate) on_demand: bool,
    /// The certificate that the platform got for it before, in PEM.
    pub(crate) shown: Option<(SniEndpointId, String)>,
    /// When that came, if its authority has taken it back since.
    pub(crate) revoked: Option<Timestamp>,
    /// None if nothing was tried yet.
    pub(crate) order: Option<DomainOrder>,
}

impl<'r> FromRow<'r, AnyRow> for ManagedDomain {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let status: Option<AcmStatus> = row::optional_text(row, "status")?;
        Ok(Self {
            id: row::text(row, "id")?,
            app: row::text(row, "app_id")?,
            hostname: row::text(row, "hostname")?,
            on_demand: row::flag(row, "on_demand")?,
            shown: row::optional_text(row, "endpoint_id")?.zip(row.try_get("certificate_chain")?),
            revoked: row::optional_time(row, "revoked_one")?,
            order: status.map(|status| order(row, status)).transpose()?,
        })
    }
}

fn order(row: &AnyRow, status: AcmStatus) -> Result<DomainOrder, sqlx::Error> {
    Ok(DomainOrder {
        status,
        reason: row.try_get("reason")?,
        failures: row::number(row, "failures")?,
        due_at: row::time(row, "due_at")?,
        updated_at: row::time(row, "order_updated_at")?,
    })
}

const MANAGED: &str = "FROM domains d JOIN apps a ON a.id = d.app_id AND (a.acm = 1 OR d.on_demand = 1) \
     LEFT JOIN sni_endpoints s ON s.id = d.sni_endpoint_id LEFT JOIN domain_orders o ON o.domain_id = d.id \
     WHERE d.path IS NULL AND (s.id IS NULL OR s.acm = 1)";
const ORDER: &str = "o.status, o.reason, o.failures, o.due_at, o.updated_at AS order_updated_at";

impl Store {
    /// The next few domains whose certificate is to be looked at now.
    pub(crate) async fn due_certificates(&self, now: Timestamp, most: i64) -> Result<Vec<ManagedDomain>, StoreError> {
        let sql = format!(
            "SELECT d.id, d.app_id, d.hostname, d.on_demand, s.id AS endpoint_id, s.certificate_chain, {ORDER}, \
             (SELECT t.certificate_at FROM staples t WHERE t.endpoint_id = s.id AND t.certificate_at = s.updated_at \
             AND t.status = 'revoked') AS revoked_one {MANAGED} \
             AND (o.domain_id IS NULL OR o.due_at <= $1) ORDER BY o.due_at, d.created_at LIMIT $2"
        );
        Ok(sqlx::query_as(&sql).bind(now.as_millis()).bind(most).fetch_all(&self.pool).await?)
    }

    /// When the next certificate is to be looked at.
    pub(crate) async fn next_certificate(&self) -> Result<Option<Timestamp>, StoreError> {
        let sql = format!("SELECT MIN(o.due_at) {MANAGED}");
        let due: Option<i64> = sqlx::query_scalar(&sql).fetch_one(&self.pool).await?;
        Ok(due.map(Timestamp::from_millis))
    }

    /// How far the platform is with the domains of an app.
    pub async fn domain_orders(&self, app: AppId) -> Result<HashMap<DomainId, DomainOrder>, StoreError> {
        let sql = format!(
            "SELECT o.domain_id, {ORDER} FROM domain_orders o JOIN domains d ON d.id = o.domain_id WHERE d.app_id = $1"
        );
        let rows = sqlx::query(&sql).bind(app.to_string()).fetch_all(&self.pool).await?;
        let read = |row: &AnyRow| -> Result<_, sqlx::Error> {
            Ok((row::text(row, "domain_id")?, order(row, row::text(row, "status")?)?))
        };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// Notes how far the platform is with a domain. A change of its status or the reason is an event.
    pub(crate) async fn save_order(
        &self,
        domain: &ManagedDomain,
        order: &DomainOrder,
        stamp: &Stamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        upsert(domain.id, order).execute(&mut *tx).await?;
        let said = domain.order.as_ref().map(|before| (before.status, &before.reason));
        if said != Some((order.status, &order.reason)) {
            tx.record(told(domain, order));
        }
        tx.commit().await
    }

    /// Lets a domain show a certificate that the platform got, in place of the one before.
    pub(crate) async fn save_managed(
        &self,
        domain: &ManagedDomain,
        (endpoint, key, order): (&SniEndpoint, &str, &DomainOrder),
        stamp: &Stamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query(
            "INSERT INTO sni_endpoints (id, app_id, name, certificate_chain, private_key, acm, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, 1, $6, $6) ON CONFLICT (id) DO UPDATE SET \
             certificate_chain = excluded.certificate_chain, private_key = excluded.private_key, updated_at = excluded.updated_at",
        )
        .bind(endpoint.id.to_string())
        .bind(endpoint.app.to_string())
        .bind(&endpoint.name)
        .bind(&endpoint.chain)
        .bind(self.seal_certificate_key(endpoint.id, key)?)
        .bind(tx.now())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::taken("Name"))?;
        // Whoever chose another one meanwhile keeps it.
        sqlx::query(
            "UPDATE domains SET sni_endpoint_id = $1, updated_at = $2 WHERE id = $3 AND (sni_endpoint_id IS NULL OR \
             sni_endpoint_id IN (SELECT id FROM sni_endpoints WHERE acm = 1))",
        )
        .bind(endpoint.id.to_string())
        .bind(tx.now())
        .bind(domain.id.to_string())
        .execute(&mut *tx)
        .await?;
        upsert(domain.id, order).execute(&mut *tx).await?;
        tx.record(told(domain, order));
        tx.commit().await
    }

    /// Tries the domains of an app that have no certificate yet again, as if nothing had failed.
    pub(crate) async fn retry_orders(&self, app: AppId, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE domain_orders SET due_at = $1, failures = 0 WHERE status <> $2 \
             AND domain_id IN (SELECT id FROM domains WHERE app_id = $3)",
        )
        .bind(now.as_millis())
        .bind(AcmStatus::Issued.as_str())
        .bind(app.to_string())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Removes what the platform got for domains that somebody added to an app, or only what no domain of any app shows any more.
    pub(crate) async fn forget_managed(&self, app: Option<AppId>) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        if let Some(app) = app.map(|app| app.to_string()) {
            for sql in [
                "UPDATE domains SET sni_endpoint_id = NULL WHERE app_id = $1 AND on_demand = 0 \
                 AND sni_endpoint_id IN (SELECT id FROM sni_endpoints WHERE acm = 1)",
                "DELETE FROM domain_orders WHERE domain_id IN (SELECT id FROM domains WHERE app_id = $1 AND on_demand = 0)",
            ] {
                sqlx::query(sql).bind(&app).execute(&mut *tx).await?;
            }
        }
        let unused = "DELETE FROM sni_endpoints WHERE acm = 1 AND id NOT IN \
             (SELECT sni_endpoint_id FROM domains WHERE sni_endpoint_id IS NOT NULL)";
        sqlx::query(unused).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    /// The platform's account at an authority, if it has one.
    pub(crate) async fn acme_account(&self, directory: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT id, credentials FROM acme_accounts WHERE directory = $1")
            .bind(directory)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let text = self.secrets.unseal(&account_row(row.try_get("id")?), row.try_get("credentials")?)?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Forgets the platform's account at an authority that knows nothing of it.
    pub(crate) async fn forget_acme_account(&self, directory: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM acme_accounts WHERE directory = $1").bind(directory).execute(&self.pool).await?;
        Ok(())
    }

    /// Remembers the platform's account at an authority, in place of one before.
    pub(crate) async fn save_acme_account(
        &self,
        (id, directory): (&str, &str),
        credentials: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("DELETE FROM acme_accounts WHERE directory = $1").bind(directory).execute(&mut *tx).await?;
        sqlx::query("INSERT INTO acme_accounts (id, directory, credentials, created_at) VALUES ($1, $2, $3, $4)")
            .bind(id)
            .bind(directory)
            .bind(self.secrets.seal(&account_row(id), credentials.as_bytes())?)
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments<'q>>;

fn upsert(domain: DomainId, order: &DomainOrder) -> Query<'_> {
    sqlx::query(
        "INSERT INTO domain_orders (domain_id, status, reason, failures, due_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (domain_id) DO UPDATE SET status = excluded.status, reason = excluded.reason, \
         failures = excluded.failures, due_at = excluded.due_at, updated_at = excluded.updated_at",
    )
    .bind(domain.to_string())
    .bind(order.status.as_str())
    .bind(order.reason.as_deref())
    .bind(i64::from(order.failures))
    .bind(order.due_at.as_millis())
    .bind(order.updated_at.as_millis())
}

fn told(domain: &ManagedDomain, order: &DomainOrder) -> NewEvent {
    let data = json!({
        "hostname": domain.hostname, "acm_status": order.status.as_str(), "acm_status_reason": order.reason,
    });
    let (app, id) = (Some(domain.app), domain.id.to_string());
    NewEvent { app, resource: Resource::Domain, id, action: Action::Update, data }
}

fn account_row(id: &str) -> String {
    format!("acme_accounts/{id}/credentials")
}
