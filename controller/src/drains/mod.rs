//! Log drains: an app's log, sent on to wherever its users read it.
//!
//! The files of the stream are what a drain reads, so an app never waits for one. What a receiver does not take in time is
//! dropped, the oldest first, and the drain itself says how much that was ([`buffer`]).

mod buffer;
mod delivery;
mod frame;
#[cfg(test)]
mod tests;

use model::DrainId;
use tokio::sync::Notify;
use url::Url;

use crate::store::{App, Drain};
use crate::{Actor, Controller, Error};
pub(crate) use delivery::work;

/// Most drains of one app.
const MAX_DRAINS: usize = 5;
/// Longest URL.
const MAX_URL: usize = 2048;

/// What a controller knows of drains only while it lives.
#[derive(Default)]
pub struct Drains {
    /// Told after every change of what drains there are.
    changed: Notify,
}

/// How a drain's receiver takes lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// RFC 5424 in octet-counted frames (RFC 6587, section 3.4.1), over TCP or TLS (RFC 5425).
    Syslog { tls: bool },
    /// POST requests of `application/logplex-1`.
    Http,
}

impl Protocol {
    /// What the scheme of a drain's URL says.
    fn of(url: &Url) -> Option<Self> {
        match url.scheme() {
            "syslog" => Some(Self::Syslog { tls: false }),
            "syslog+tls" => Some(Self::Syslog { tls: true }),
            "http" | "https" => Some(Self::Http),
            _ => None,
        }
    }
}

impl Controller {
    /// Sends an app's log to one more place.
    pub async fn add_drain(&self, app: &App, actor: &Actor, url: &str) -> Result<Drain, Error> {
        check(url)?;
        let drains = self.store.drains(app.id).await?;
        if drains.iter().any(|drain| drain.url == url) {
            return Err(Error::Invalid("Url has already been taken".to_owned()));
        }
        if drains.len() >= MAX_DRAINS {
            return Err(Error::Invalid(format!("An app can have at most {MAX_DRAINS} log drains")));
        }
        let id = DrainId::random(&*self.random);
        let token = format!("d.{}", self.new_uuid());
        let drain = Drain { id, app: app.id, url: url.to_owned(), token, created_at: self.clock.now() };
        self.store.insert_drain(&drain, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Add log drain {}", drain.token));
        self.drains.changed.notify_one();
        Ok(drain)
    }

    /// The drain of an app that `reference`, an id, a token or a URL, means.
    pub async fn find_drain(&self, app: &App, reference: &str) -> Result<Drain, Error> {
        let is_meant =
            |drain: &Drain| drain.url == reference || drain.token == reference || drain.id.to_string() == reference;
        self.store.drains(app.id).await?.into_iter().find(is_meant).ok_or(Error::NotFound("log drain"))
    }

    /// Sends an app's log to one place less.
    pub async fn remove_drain(&self, app: &App, actor: &Actor, drain: &Drain) -> Result<(), Error> {
        self.store.delete_drain(drain, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Remove log drain {}", drain.token));
        self.drains.changed.notify_one();
        Ok(())
    }
}

fn check(url: &str) -> Result<(), Error> {
    let refused =
        || Error::Invalid("url must be like syslog://host:514, syslog+tls://host:6514 or https://host/path".to_owned());
    if url.len() > MAX_URL {
        return Err(Error::Invalid(format!("url can have at most {MAX_URL} characters")));
    }
    let parsed = Url::parse(url).map_err(|_| refused())?;
    let has_host = parsed.host_str().is_some_and(|host| !host.is_empty());
    if Protocol::of(&parsed).is_none() || !has_host {
        return Err(refused());
    }
    Ok(())
}
