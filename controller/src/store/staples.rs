//! What OCSP responders say of certificates. What is kept of one that has another in its place by now counts as nothing.

use std::collections::HashMap;

use model::certificate::Staple as Answer;
use model::{AppId, SniEndpointId, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::words::words;
use super::{Action, NewEvent, Resource, SniEndpoint, Stamp, Store, StoreError, row};

words! {
    /// What is known of whether a certificate was taken back.
    StapleStatus, "That is no state of a staple":
    /// There is nobody to ask.
    None "none";
    /// Its authority stands by it, and visitors are shown that.
    Good "good";
    /// Its authority could not be asked, and there is nothing to show.
    Failing "failing";
    /// Its authority has taken it back.
    Revoked "revoked";
}

/// What is known of a certificate from its authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staple {
    /// In one word.
    pub status: StapleStatus,
    /// Why, or why there is no newer answer.
    pub reason: Option<String>,
    /// What visitors are shown.
    pub answer: Option<Answer>,
    /// Attempts in a row that failed.
    pub failures: u32,
    /// When the authority is asked next.
    pub due_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// A certificate whose authority is to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Stapled {
    pub(crate) endpoint: SniEndpoint,
    /// None if nobody was asked yet.
    pub(crate) staple: Option<Staple>,
}

impl<'r> FromRow<'r, AnyRow> for Stapled {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let status: Option<StapleStatus> = row::optional_text(row, "status")?;
        let staple = status.map(|status| staple(row, status)).transpose()?;
        Ok(Self { endpoint: SniEndpoint::from_row(row)?, staple })
    }
}

fn staple(row: &AnyRow, status: StapleStatus) -> Result<Staple, sqlx::Error> {
    Ok(Staple {
        status,
        reason: row.try_get("reason")?,
        answer: answer(row)?,
        failures: row::number(row, "failures")?,
        due_at: row::time(row, "due_at")?,
        updated_at: row::time(row, "staple_updated_at")?,
    })
}

/// What there is in the columns `answer` and `answer_expires_at`.
pub(super) fn answer(row: &AnyRow) -> Result<Option<Answer>, sqlx::Error> {
    let (answer, expires_at): (Option<String>, _) =
        (row.try_get("answer")?, row::optional_time(row, "answer_expires_at")?);
    Ok(answer.zip(expires_at).map(|(answer, expires_at)| Answer { answer, expires_at }))
}

/// The staple `t` of the certificate that the endpoint `s` has now.
pub(super) const JOIN: &str = "LEFT JOIN staples t ON t.endpoint_id = s.id AND t.certificate_at = s.updated_at";
const COLUMNS: &str = "t.status, t.reason, t.answer, t.expires_at AS answer_expires_at, t.failures, t.due_at, t.updated_at AS staple_updated_at";

impl Store {
    /// The next few certificates whose authority is to be asked now; last those whose does not answer, for they take longest.
    pub(crate) async fn due_staples(&self, now: Timestamp, most: i64) -> Result<Vec<Stapled>, StoreError> {
        let sql = format!(
            "SELECT s.id, s.app_id, s.name, s.certificate_chain, s.acm, s.created_at, s.updated_at, {COLUMNS} \
             FROM sni_endpoints s {JOIN} WHERE t.endpoint_id IS NULL OR t.due_at <= $1 ORDER BY COALESCE(t.failures, 0), COALESCE(t.due_at, 0), s.id LIMIT $2"
        );
        Ok(sqlx::query_as(&sql).bind(now.as_millis()).bind(most).fetch_all(&self.pool).await?)
    }

    /// When the next authority is to be asked.
    pub(crate) async fn next_staple(&self) -> Result<Option<Timestamp>, StoreError> {
        let sql = format!("SELECT MIN(t.due_at) FROM sni_endpoints s {JOIN}");
        let due: Option<i64> = sqlx::query_scalar(&sql).fetch_one(&self.pool).await?;
        Ok(due.map(Timestamp::from_millis))
    }

    /// What is known of an app's certificates.
    pub async fn staples(&self, app: AppId) -> Result<HashMap<SniEndpointId, Staple>, StoreError> {
        let sql =
            format!("SELECT s.id, {COLUMNS} FROM sni_endpoints s {JOIN} WHERE s.app_id = $1 AND t.status IS NOT NULL");
        let rows = sqlx::query(&sql).bind(app.to_string()).fetch_all(&self.pool).await?;
        let read = |row: &AnyRow| -> Result<_, sqlx::Error> {
            Ok((row::text(row, "id")?, staple(row, row::text(row, "status")?)?))
        };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// Notes what became of asking, unless another certificate took the place of the one that was asked about. That an authority has taken a certificate
    /// back, or cannot be asked, is an event, as is the end of that. Says whether visitors are shown something else now.
    pub(crate) async fn save_staple(&self, asked: &Stapled, new: &Staple, stamp: &Stamp) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let saved = sqlx::query(
            "INSERT INTO staples (endpoint_id, certificate_at, status, reason, answer, expires_at, failures, due_at, updated_at) \
             SELECT s.id, s.updated_at, $3, $4, $5, $6, $7, $8, $9 FROM sni_endpoints s \
             WHERE s.id = $1 AND s.certificate_chain = $2 \
             ON CONFLICT (endpoint_id) DO UPDATE SET certificate_at = excluded.certificate_at, status = excluded.status, \
             reason = excluded.reason, answer = excluded.answer, expires_at = excluded.expires_at, failures = excluded.failures, \
             due_at = excluded.due_at, updated_at = excluded.updated_at",
        )
        .bind(asked.endpoint.id.to_string())
        .bind(&asked.endpoint.chain)
        .bind(new.status.as_str())
        .bind(new.reason.as_deref())
        .bind(new.answer.as_ref().map(|answer| answer.answer.as_str()))
        .bind(new.answer.as_ref().map(|answer| answer.expires_at.as_millis()))
        .bind(i64::from(new.failures))
        .bind(new.due_at.as_millis())
        .bind(tx.now())
        .execute(&mut *tx)
        .await?;
        if saved.rows_affected() == 0 {
            return Ok(false);
        }
        let before = asked.staple.as_ref();
        let is_calm = |status| matches!(status, StapleStatus::None | StapleStatus::Good);
        let status = before.map_or(StapleStatus::None, |before| before.status);
        if status != new.status && !(is_calm(status) && is_calm(new.status)) {
            tx.record(told(&asked.endpoint, new));
        }
        if new.status == StapleStatus::Revoked && status != StapleStatus::Revoked {
            // One that the platform got it gets anew.
            let sql = "UPDATE domain_orders SET due_at = $1 WHERE due_at > $1 AND domain_id IN \
                 (SELECT id FROM domains WHERE sni_endpoint_id = $2)";
            let now = tx.now();
            sqlx::query(sql).bind(now).bind(asked.endpoint.id.to_string()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(before.and_then(|before| before.answer.as_ref()) != new.answer.as_ref())
    }
}

fn told(endpoint: &SniEndpoint, staple: &Staple) -> NewEvent {
    let data = json!({ "name": endpoint.name, "ocsp_status": staple.status.as_str(), "ocsp_reason": staple.reason });
    let (app, id) = (Some(endpoint.app), endpoint.id.to_string());
    NewEvent { app, resource: Resource::SniEndpoint, id, action: Action::Update, data }
}
