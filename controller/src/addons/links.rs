//! URLs that give a backup to whoever has them, for an hour, as Heroku's `pg:backups:url` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use model::{AddonId, Timestamp};
use tokio_util::io::ReaderStream;

use crate::live::Locked;
use crate::store::Transfer;
use crate::{Controller, Error};

/// How long a URL is good.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// URLs at once; the oldest go first.
const MAX_LINKS: usize = 10_000;

/// What each secret opens. In memory only: after a restart, clients ask for another.
#[derive(Default)]
pub(super) struct Links(Locked<BTreeMap<String, Link>>);

#[derive(Clone)]
struct Link {
    addon: AddonId,
    backup: String,
    expires_at: Timestamp,
}

impl Controller {
    /// Makes a URL that gives a backup without a token; with the moment until which it does.
    pub fn link_backup(&self, transfer: &Transfer) -> Result<(String, Timestamp), Error> {
        if !transfer.is_backup() {
            return Err(Error::Invalid(format!("{} is {}: it has no file", transfer.name(), transfer.state)));
        }
        let (secret, now) = (self.new_secret(), self.clock.now());
        let expires_at = now.after(LIFETIME);
        let mut links = self.addons.links.0.lock();
        links.retain(|_, link| link.expires_at > now);
        if links.len() >= MAX_LINKS {
            let oldest = links.iter().min_by_key(|(_, link)| link.expires_at).map(|(secret, _)| secret.clone());
            oldest.and_then(|secret| links.remove(&secret));
        }
        links.insert(secret.clone(), Link { addon: transfer.addon, backup: transfer.name(), expires_at });
        Ok((format!("{}/backups/{secret}", self.settings.api_url()), expires_at))
    }
}

/// `GET /backups/<secret>`, without a token.
pub(crate) fn routes(controller: Arc<Controller>) -> Router {
    Router::new().route("/backups/{secret}", get(open)).with_state(controller)
}

async fn open(State(controller): State<Arc<Controller>>, Path(secret): Path<String>) -> Response {
    let link = controller.addons.links.0.lock().get(&secret).cloned();
    let opened = async {
        let link = link.filter(|link| link.expires_at > controller.clock.now()).ok_or(Error::NotFound("backup"))?;
        let transfer = controller.find_transfer(link.addon, &link.backup).await?;
        Ok::<_, Error>((transfer.name(), controller.open_backup(&transfer).await?))
    };
    match opened.await {
        Ok((name, (file, bytes))) => {
            let headers = [
                (CONTENT_TYPE, "application/octet-stream".to_owned()),
                (CONTENT_LENGTH, bytes.to_string()),
                (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.dump\"")),
                (CACHE_CONTROL, "no-store".to_owned()),
            ];
            (headers, Body::from_stream(ReaderStream::new(file))).into_response()
        }
        Err(error) => {
            tracing::info!(error = crate::errors::chain(&error), "A backup was asked for that cannot be given");
            (StatusCode::NOT_FOUND, "This backup is gone, or the URL has expired.\n").into_response()
        }
    }
}
