use model::{AppId, DeliveryId, Timestamp, WebhookId};
use serde_json::{Value, json};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::words::words;
use super::{Action, Event, NewEvent, Resource, Stamp, Store, StoreError, row};

/// An address that is told of what happens to an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Of which app.
    pub app: AppId,
    /// Where.
    pub url: String,
    /// Of which kinds of things.
    pub include: Vec<Resource>,
    /// Whether deliveries that fail are tried again (`sync`), or not (`notify`).
    pub retries: bool,
    /// Events up to this number have their deliveries.
    pub sequence: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// What only the receiver of a webhook knows beside the platform.
#[derive(Clone, Default)]
pub struct WebhookSecrets {
    /// Signs every delivery.
    pub secret: String,
    /// The `Authorization` header of every delivery.
    pub authorization: Option<String>,
}

/// What a webhook was told, or is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// To which webhook.
    pub webhook: WebhookId,
    /// Of which event.
    pub sequence: u64,
    /// How far it is.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next; none once it is over.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was tried last.
    pub attempted_at: Option<Timestamp>,
    /// The status of the last answer, if there was one.
    pub code: Option<u16>,
    /// What was wrong with the last attempt.
    pub error: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

words! {
    /// How far a delivery is, in Heroku's words.
    DeliveryState, "A delivery is pending, retrying, succeeded or failed":
    /// It was not tried yet.
    Pending "pending";
    /// It failed and is tried again.
    Retrying "retrying";
    /// The receiver has it.
    Succeeded "succeeded";
    /// It will not be tried again by itself.
    Failed "failed";
}

/// What became of an attempt.
#[derive(Debug)]
pub struct Attempt {
    /// How far the delivery is now.
    pub state: DeliveryState,
    /// When it is tried again, if it is.
    pub next: Option<Timestamp>,
    /// The status of the answer, if there was one.
    pub code: Option<u16>,
    /// What was wrong.
    pub error: Option<String>,
}

impl<'r> FromRow<'r, AnyRow> for Webhook {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let include: Vec<String> = row::json(row, "include")?;
        Ok(Self {
            id: row::text(row, "id")?,
            app: row::text(row, "app_id")?,
            url: row.try_get("url")?,
            // A kind that only a newer version knows has no events here.
            include: include.iter().filter_map(|word| word.parse().ok()).collect(),
            retries: row.try_get::<String, _>("level")? == "sync",
            sequence: row::number(row, "sequence")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

impl<'r> FromRow<'r, AnyRow> for Delivery {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            webhook: row::text(row, "webhook_id")?,
            sequence: row::number(row, "sequence")?,
            state: row::text(row, "status")?,
            attempts: row::number(row, "attempts")?,
            next_attempt_at: row::optional_time(row, "next_attempt_at")?,
            attempted_at: row::optional_time(row, "attempted_at")?,
            code: row.try_get::<Option<i64>, _>("code")?.and_then(|code| u16::try_from(code).ok()),
            error: row.try_get("error")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

const SELECT: &str = "SELECT id, app_id, url, include, level, sequence, created_at, updated_at FROM webhooks";

const SELECT_DELIVERY: &str = "SELECT d.id, d.webhook_id, d.sequence, d.status, d.attempts, d.next_attempt_at, \
     d.attempted_at, d.code, d.error, d.created_at, d.updated_at FROM webhook_deliveries d";

impl Store {
    /// Keeps a new webhook, or what changed of one. It is told of what happens from its making on.
    pub async fn save_webhook(
        &self,
        webhook: &Webhook,
        secrets: &WebhookSecrets,
        (action, stamp): (Action, &Stamp),
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        // Locks the app, which a rotation of the key waits for.
        let sql = "UPDATE apps SET last_version = last_version WHERE id = $1";
        let locked = sqlx::query(sql).bind(webhook.app.to_string()).execute(&mut *tx).await?;
        if locked.rows_affected() == 0 {
            return Err(StoreError::Missing("App"));
        }
        let seal = |text: &String| self.secrets.seal(&authorization_row(webhook.id), text.as_bytes());
        let authorization = secrets.authorization.as_ref().map(seal).transpose()?;
        sqlx::query(
            "INSERT INTO webhooks (id, app_id, url, include, level, secret, authorization_header, sequence, \
             created_at, updated_at) \
             SELECT $1, $2, $3, $4, $5, $6, $7, value, $8, $9 FROM counters WHERE name = 'events' \
             ON CONFLICT (id) DO UPDATE SET url = excluded.url, include = excluded.include, level = excluded.level, \
             secret = excluded.secret, authorization_header = excluded.authorization_header, \
             updated_at = excluded.updated_at",
        )
        .bind(webhook.id.to_string())
        .bind(webhook.app.to_string())
        .bind(&webhook.url)
        .bind(serde_json::to_string(&webhook.words())?)
        .bind(webhook.level())
        .bind(self.secrets.seal(&secret_row(webhook.id), secrets.secret.as_bytes())?)
        .bind(authorization)
        .bind(webhook.created_at.as_millis())
        .bind(webhook.updated_at.as_millis())
        .execute(&mut *tx)
        .await?;
        tx.record(webhook.changed(action));
        tx.commit().await
    }

    /// Forgets a webhook and its deliveries.
    pub async fn delete_webhook(&self, webhook: &Webhook, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "DELETE FROM webhooks WHERE id = $1";
        let gone = sqlx::query(sql).bind(webhook.id.to_string()).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(webhook.changed(Action::Destroy));
        }
        tx.commit().await
    }

    /// What only the receiver knows beside the platform.
    pub async fn webhook_secrets(&self, id: WebhookId) -> Result<WebhookSecrets, StoreError> {
        let sql = "SELECT secret, authorization_header FROM webhooks WHERE id = $1";
        let found = sqlx::query(sql).bind(id.to_string()).fetch_optional(&self.pool).await?;
        let found = found.ok_or(StoreError::Missing("Webhook"))?;
        let open = |row: String, sealed: &str| {
            let bytes = self.secrets.unseal(&row, sealed)?;
            Ok::<_, StoreError>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let authorization: Option<String> = found.try_get("authorization_header")?;
        Ok(WebhookSecrets {
            secret: open(secret_row(id), &found.try_get::<String, _>("secret")?)?,
            authorization: authorization.map(|sealed| open(authorization_row(id), &sealed)).transpose()?,
        })
    }

    /// An app's webhooks, the oldest first.
    pub async fn webhooks(&self, app: AppId) -> Result<Vec<Webhook>, StoreError> {
        let sql = format!("{SELECT} WHERE app_id = $1 ORDER BY created_at, id");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// The webhooks of all apps for which events before `sequence` may wait.
    pub async fn webhooks_behind(&self, sequence: u64) -> Result<Vec<Webhook>, StoreError> {
        let sql = format!("{SELECT} WHERE sequence < $1 ORDER BY id");
        Ok(sqlx::query_as(&sql).bind(i64::try_from(sequence).unwrap_or(i64::MAX)).fetch_all(&self.pool).await?)
    }

    /// Makes a delivery for each of these events, and notes that a webhook has all up to `sequence`.
    pub async fn add_deliveries(
        &self,
        webhook: &Webhook,
        events: &[Event],
        sequence: u64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        // Whoever else does the same at this moment finds that it is done.
        let sql = "UPDATE webhooks SET sequence = $1 WHERE id = $2 AND sequence = $3";
        let moved = sqlx::query(sql)
            .bind(i64::try_from(sequence).unwrap_or(i64::MAX))
            .bind(webhook.id.to_string())
            .bind(i64::try_from(webhook.sequence).unwrap_or(i64::MAX))
            .execute(&mut *tx)
            .await?;
        if moved.rows_affected() == 0 {
            return Ok(());
        }
        for event in events {
            sqlx::query(
                "INSERT INTO webhook_deliveries (id, webhook_id, sequence, status, attempts, next_attempt_at, \
                 created_at, updated_at) VALUES ($1, $2, $3, 'pending', 0, $4, $4, $4)",
            )
            .bind(DeliveryId::random(&*self.random).to_string())
            .bind(webhook.id.to_string())
            .bind(i64::try_from(event.sequence).unwrap_or(i64::MAX))
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }

    /// The deliveries that are due at `now`, the oldest first, with their webhooks.
    pub async fn due_deliveries(&self, now: Timestamp, max: u32) -> Result<Vec<(Delivery, Webhook)>, StoreError> {
        let sql =
            format!("{SELECT_DELIVERY} WHERE d.next_attempt_at <= $1 ORDER BY d.next_attempt_at, d.sequence LIMIT $2");
        let due: Vec<Delivery> =
            sqlx::query_as(&sql).bind(now.as_millis()).bind(i64::from(max)).fetch_all(&self.pool).await?;
        let mut found = Vec::new();
        for delivery in due {
            let sql = format!("{SELECT} WHERE id = $1");
            let webhook: Option<Webhook> =
                sqlx::query_as(&sql).bind(delivery.webhook.to_string()).fetch_optional(&self.pool).await?;
            found.extend(webhook.map(|webhook| (delivery, webhook)));
        }
        Ok(found)
    }

    /// When the next delivery is due.
    pub async fn next_delivery(&self) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT MIN(next_attempt_at) FROM webhook_deliveries";
        let next: Option<i64> = sqlx::query_scalar(sql).fetch_one(&self.pool).await?;
        Ok(next.map(Timestamp::from_millis))
    }

    /// Notes what became of an attempt.
    pub async fn note_attempt(&self, id: DeliveryId, attempt: &Attempt, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE webhook_deliveries SET status = $1, attempts = attempts + 1, next_attempt_at = $2, \
             attempted_at = $3, code = $4, error = $5, updated_at = $3 WHERE id = $6",
        )
        .bind(attempt.state.as_str())
        .bind(attempt.next.map(Timestamp::as_millis))
        .bind(now.as_millis())
        .bind(attempt.code.map(i64::from))
        .bind(&attempt.error)
        .bind(id.to_string())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Makes a delivery due once more.
    pub async fn redeliver(&self, app: AppId, delivery: &Delivery, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        sqlx::query(
            "UPDATE webhook_deliveries SET status = 'retrying', next_attempt_at = $1, updated_at = $1 WHERE id = $2",
        )
        .bind(now)
        .bind(delivery.id.to_string())
        .execute(&mut *tx)
        .await?;
        let data = json!({ "redelivered": delivery.id.to_string() });
        let (resource, id) = (Resource::Webhook, delivery.webhook.to_string());
        tx.record(NewEvent { app: Some(app), resource, id, action: Action::Update, data });
        tx.commit().await
    }

    /// The deliveries of an app's webhooks, the newest first, at most `max`.
    pub async fn deliveries(&self, app: AppId, max: u32) -> Result<Vec<Delivery>, StoreError> {
        let sql = format!(
            "{SELECT_DELIVERY} JOIN webhooks w ON w.id = d.webhook_id WHERE w.app_id = $1 \
             ORDER BY d.created_at DESC, d.sequence DESC LIMIT $2"
        );
        Ok(sqlx::query_as(&sql).bind(app.to_string()).bind(i64::from(max)).fetch_all(&self.pool).await?)
    }

    /// Forgets the deliveries that were over before `end`.
    pub async fn delete_old_deliveries(&self, end: Timestamp) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM webhook_deliveries WHERE next_attempt_at IS NULL AND updated_at < $1")
            .bind(end.as_millis())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

impl Webhook {
    /// `notify` or `sync`, as Heroku says it.
    pub fn level(&self) -> &'static str {
        if self.retries { "sync" } else { "notify" }
    }

    fn words(&self) -> Vec<&'static str> {
        self.include.iter().map(|resource| resource.as_str()).collect()
    }

    fn changed(&self, action: Action) -> NewEvent {
        let data: Value = json!({ "include": self.words(), "level": self.level() });
        NewEvent { app: Some(self.app), resource: Resource::Webhook, id: self.id.to_string(), action, data }
    }
}

/// What the sealed secret of a webhook is bound to.
fn secret_row(webhook: WebhookId) -> String {
    format!("webhooks/{webhook}/secret")
}

/// What its sealed header is bound to.
fn authorization_row(webhook: WebhookId) -> String {
    format!("webhooks/{webhook}/authorization_header")
}
