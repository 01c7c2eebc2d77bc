//! The SSH keys of one's own account.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use controller::Controller;
use controller::store::SshKey;
use model::Timestamp;
use serde::Serialize;

use super::{show as show_page, show_again};
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::notice::Notice;
use crate::session::Visit;
use crate::view::{Inside, Moment};

const PATH: &str = "/console/account/keys";

#[derive(Debug, Serialize)]
pub(super) struct KeyList {
    page: Inside,
    tab: &'static str,
    keys: Vec<Key>,
    /// What the form holds.
    public_key: String,
}

#[derive(Debug, Serialize)]
struct Key {
    id: String,
    /// What its owner calls it, or its fingerprint.
    title: String,
    fingerprint: String,
    added: Moment,
    used: Option<Moment>,
}

/// `GET /console/account/keys`
pub(crate) async fn show(State(controller): State<Arc<Controller>>, visit: Visit) -> Result<Response, PageError> {
    show_page(&visit, "keys.html", &KeyList::load(&controller, &visit).await?)
}

/// `POST /console/account/keys`
pub(crate) async fn add(State(controller): State<Arc<Controller>>, form: Form<Visit>) -> Result<Response, PageError> {
    let text = form.fields.get("public_key").trim();
    match controller.add_key(&form.by.actor, text).await {
        Ok(key) => Ok(Notice::done(format!("{} was added", title(&key))).then(PATH)),
        Err(error) => {
            let mut page = KeyList::load(&controller, &form.by).await?;
            page.page.refuse(refusal(error)?);
            text.clone_into(&mut page.public_key);
            show_again("keys.html", &page)
        }
    }
}

/// `POST /console/account/keys/remove`
pub(crate) async fn remove(
    State(controller): State<Arc<Controller>>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let gone = controller.remove_key(&form.by.actor, form.fields.get("key")).await?;
    Ok(Notice::done(format!("{} was removed", title(&gone))).then(PATH))
}

impl KeyList {
    async fn load(controller: &Controller, visit: &Visit) -> Result<Self, PageError> {
        let now = controller.clock.now();
        let keys = controller.store.keys(visit.actor.user.id).await?;
        Ok(Self {
            page: Inside::new("Your SSH keys", visit),
            tab: "keys",
            keys: keys.iter().map(|key| Key::new(key, now)).collect(),
            public_key: String::new(),
        })
    }

    #[cfg(test)]
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, inside, moment};
        let key = |used| Key {
            id: HOSTILE.to_owned(),
            title: HOSTILE.to_owned(),
            fingerprint: HOSTILE.to_owned(),
            added: moment(),
            used,
        };
        [vec![], vec![key(None), key(Some(moment()))]].map(|keys| Self {
            page: inside(),
            tab: "keys",
            keys,
            public_key: HOSTILE.to_owned(),
        })
    }
}

impl Key {
    fn new(key: &SshKey, now: Timestamp) -> Self {
        Self {
            id: key.id.to_string(),
            title: title(key).to_owned(),
            fingerprint: key.fingerprint.clone(),
            added: Moment::new(key.created_at, now),
            used: key.last_used_at.map(|used| Moment::new(used, now)),
        }
    }
}

fn title(key: &SshKey) -> &str {
    if key.comment.is_empty() { &key.fingerprint } else { &key.comment }
}
