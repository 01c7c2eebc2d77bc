//! Webhooks: addresses of users that are told of what happens to their apps, signed, until they have it.
//!
//! What is to be told follows from the events: [`delivery`] makes a row for each before anything is sent, so that a controller
//! that is killed forgets none, and tells some twice at worst. Receivers know a delivery again by its id.

mod delivery;
#[cfg(test)]
mod tests;

use model::{Random, WebhookId};
use url::Url;

use crate::store::{Action, App, Delivery, Resource, Webhook, WebhookSecrets};
use crate::{Actor, Controller, Error};
pub(crate) use delivery::work;

/// Most webhooks of one app.
const MAX_WEBHOOKS: usize = 100;
/// Longest secret and longest `Authorization` header, in bytes.
const MAX_SECRET: usize = 4096;
/// So many deliveries of an app are shown.
const SHOWN: u32 = 1000;

/// What a user may say of a webhook; `None` leaves it, or takes what is usual.
#[derive(Default)]
pub struct WebhookRequest {
    /// Where.
    pub url: Option<String>,
    /// `api:release`, `api:build` …
    pub include: Option<Vec<String>>,
    /// `notify` or `sync`.
    pub level: Option<String>,
    /// Signs every delivery; the platform makes one.
    pub secret: Option<String>,
    /// The `Authorization` header of every delivery.
    pub authorization: Option<String>,
}

impl Controller {
    /// Makes a webhook, and returns it with the secret that signs what it is told.
    pub async fn create_webhook(
        &self,
        app: &App,
        actor: &Actor,
        request: WebhookRequest,
    ) -> Result<(Webhook, String), Error> {
        if self.store.webhooks(app.id).await?.len() >= MAX_WEBHOOKS {
            return Err(Error::Invalid(format!("An app can have at most {MAX_WEBHOOKS} webhooks")));
        }
        let missing = |field: &str| Error::Invalid(format!("{field} is missing"));
        for (field, is_missing) in
            [("url", request.url.is_none()), ("include", request.include.is_none()), ("level", request.level.is_none())]
        {
            if is_missing {
                return Err(missing(field));
            }
        }
        let now = self.clock.now();
        let blank = Webhook {
            id: WebhookId::random(&*self.random),
            app: app.id,
            url: String::new(),
            include: Vec::new(),
            retries: false,
            sequence: 0,
            created_at: now,
            updated_at: now,
        };
        let secret = new_secret(&*self.random);
        let (webhook, secrets) = merge(blank, WebhookSecrets { secret, authorization: None }, request)?;
        self.store.save_webhook(&webhook, &secrets, (Action::Create, &self.stamp(actor))).await?;
        Ok((webhook, secrets.secret))
    }

    /// Changes a webhook, and returns it with its secret.
    pub async fn update_webhook(
        &self,
        webhook: Webhook,
        actor: &Actor,
        request: WebhookRequest,
    ) -> Result<(Webhook, String), Error> {
        let secrets = self.store.webhook_secrets(webhook.id).await?;
        let (mut webhook, secrets) = merge(webhook, secrets, request)?;
        webhook.updated_at = self.clock.now();
        self.store.save_webhook(&webhook, &secrets, (Action::Update, &self.stamp(actor))).await?;
        Ok((webhook, secrets.secret))
    }

    /// Removes a webhook. What it was not told yet, it never is.
    pub async fn delete_webhook(&self, webhook: &Webhook, actor: &Actor) -> Result<(), Error> {
        Ok(self.store.delete_webhook(webhook, &self.stamp(actor)).await?)
    }

    /// The webhook of an app with this id.
    pub async fn find_webhook(&self, app: &App, id: &str) -> Result<Webhook, Error> {
        let all = self.store.webhooks(app.id).await?;
        all.into_iter().find(|webhook| webhook.id.to_string() == id).ok_or(Error::NotFound("webhook"))
    }

    /// What the webhooks of an app were told lately, or are to be told, the newest first.
    pub async fn deliveries(&self, app: &App) -> Result<Vec<Delivery>, Error> {
        Ok(self.store.deliveries(app.id, SHOWN).await?)
    }

    /// The delivery to a webhook of an app with this id.
    pub async fn find_delivery(&self, app: &App, id: &str) -> Result<Delivery, Error> {
        let all = self.deliveries(app).await?;
        all.into_iter().find(|delivery| delivery.id.to_string() == id).ok_or(Error::NotFound("webhook delivery"))
    }

    /// Tells a webhook once more what it was told, or what could not be delivered.
    pub async fn redeliver(&self, (app, actor): (&App, &Actor), delivery: &Delivery) -> Result<(), Error> {
        self.store.redeliver(app.id, delivery, &self.stamp(actor)).await?;
        self.live.deliveries.notify_one();
        Ok(())
    }
}

fn merge(
    webhook: Webhook,
    secrets: WebhookSecrets,
    request: WebhookRequest,
) -> Result<(Webhook, WebhookSecrets), Error> {
    let url = match request.url {
        Some(url) => check_url(&url)?,
        None => webhook.url,
    };
    let include = match request.include {
        Some(include) => check_include(&include)?,
        None => webhook.include,
    };
    let retries = match request.level.as_deref() {
        Some("sync") => true,
        Some("notify") => false,
        Some(_) => return Err(Error::Invalid("level must be notify or sync".to_owned())),
        None => webhook.retries,
    };
    for (field, value) in [("secret", &request.secret), ("authorization", &request.authorization)] {
        let fits = |text: &String| text.len() <= MAX_SECRET && text.bytes().all(|byte| (b' '..127).contains(&byte));
        if !value.as_ref().is_none_or(fits) {
            return Err(Error::Invalid(format!("{field} can have at most {MAX_SECRET} printable ASCII characters")));
        }
    }
    let secrets = WebhookSecrets {
        secret: request.secret.filter(|secret| !secret.is_empty()).unwrap_or(secrets.secret),
        authorization: request.authorization.or(secrets.authorization),
    };
    Ok((Webhook { url, include, retries, ..webhook }, secrets))
}

fn check_url(text: &str) -> Result<String, Error> {
    let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    match Url::parse(text).ok().filter(is_web) {
        Some(url) => Ok(url.to_string()),
        None => Err(Error::Invalid("url must begin with https:// or http:// and name a host".to_owned())),
    }
}

fn check_include(include: &[String]) -> Result<Vec<Resource>, Error> {
    let parse = |word: &String| {
        let found = word.strip_prefix("api:").unwrap_or(word).parse();
        found.map_err(|_| {
            let known: Vec<_> = Resource::ALL.iter().map(|resource| format!("api:{resource}")).collect();
            Error::Invalid(format!("include has {word:?}; possible are {}", known.join(", ")))
        })
    };
    let parsed: Vec<Resource> = include.iter().map(parse).collect::<Result<_, _>>()?;
    if parsed.is_empty() { Err(Error::Invalid("include must name what to tell of".to_owned())) } else { Ok(parsed) }
}

fn new_secret(random: &dyn Random) -> String {
    let mut bytes = [0; 32];
    random.fill(&mut bytes);
    hex::encode(bytes)
}
