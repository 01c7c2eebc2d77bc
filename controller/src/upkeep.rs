//! What the platform does for its own sake: it says which controller has the duties, gives secrets a new key, and forgets old
//! events.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::Timestamp;
use serde_json::json;
use tokio::time::sleep;

use crate::errors::chain;
use crate::store::{Action, Lease, NewEvent, Resource};
use crate::{Controller, Error};

/// What only one controller may do at a time. Today's single controller does all of it.
const DUTIES: [&str; 4] = ["addons", "jobs", "rollout", "sweep"];
/// How long a duty is had without a word. Whoever lost its database for longer may be replaced.
const TERM: Duration = Duration::from_secs(30);
const RENEWAL: Duration = Duration::from_secs(10);
/// Pause between attempts to get a duty that another controller has.
const RETRY: Duration = Duration::from_secs(1);

impl Controller {
    /// Takes every duty, and waits while another controller has one.
    pub(crate) async fn take_duties(&self) -> Result<Vec<Lease>, Error> {
        let holder = self.identity().map_err(|source| Error::System {
            action: "read or write the id of this controller",
            source: source.into(),
        })?;
        let mut leases = Vec::new();
        for duty in DUTIES {
            leases.push(self.take_duty(duty, &holder).await?);
        }
        self.store.hold(leases.clone());
        Ok(leases)
    }

    async fn take_duty(&self, duty: &str, holder: &str) -> Result<Lease, Error> {
        let mut told = false;
        loop {
            let now = self.clock.now();
            if let Some(lease) = self.store.take_lease((duty, holder), now, now.after(TERM)).await? {
                return Ok(lease);
            }
            if !std::mem::replace(&mut told, true) {
                let other = self.store.lease_holder(duty).await?;
                tracing::warn!(duty, other, "Another controller is at work on this database; waiting until it ends");
            }
            sleep(RETRY).await;
        }
    }

    /// Keeps the duties for as long as they are not taken away; the answer is which one was.
    pub(crate) async fn keep_duties(&self, leases: &[Lease]) -> Error {
        loop {
            sleep(RENEWAL).await;
            if let Some(lost) = self.renew_duties(leases).await {
                return Error::Conflict(format!("Another controller has taken over {}", lost.duty));
            }
        }
    }

    /// Keeps the duties for another term; the answer is one that was taken away.
    async fn renew_duties<'a>(&self, leases: &'a [Lease]) -> Option<&'a Lease> {
        for lease in leases {
            match self.store.renew_lease(lease, self.clock.now().after(TERM)).await {
                Ok(true) => {}
                Ok(false) => return Some(lease),
                // A full disk, a database that starts anew: nobody else can take it from there either.
                Err(error) => tracing::warn!(error = chain(&error), duty = lease.duty, "A duty cannot be renewed"),
            }
        }
        None
    }

    /// What tells this controller from those of other machines, in all its lives.
    fn identity(&self) -> io::Result<String> {
        let path = self.settings.home.join("controller.id");
        match std::fs::read_to_string(&path) {
            Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                let id = self.new_uuid();
                write_whole(&path, &id)?;
                Ok(id)
            }
        }
    }

    /// Seals every secret under a new key and forgets the old one; how many that were. Goes on with a rotation that was
    /// begun before.
    pub async fn rotate_secrets(&self) -> Result<u64, Error> {
        let _one_at_a_time = self.live.rotating.lock().await;
        let count = self.store.rotate_secrets().await?;
        let (id, data) = ("secrets".to_owned(), json!({ "resealed": count }));
        let event = NewEvent { app: None, resource: Resource::Platform, id, action: Action::Update, data };
        self.store.record(&self.own_stamp(), event).await?;
        Ok(count)
    }

    /// Forgets events that are older than the operator wants to keep.
    pub(crate) async fn forget_events(&self) -> Result<u64, Error> {
        let kept = i64::try_from(self.settings.event_retention.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(self.clock.now().as_millis().saturating_sub(kept));
        Ok(self.store.forget_events(before).await?)
    }
}

/// Goes on with a rotation that an earlier controller began.
pub(crate) async fn resume_rotation(controller: Arc<Controller>) {
    while controller.store.is_rotating() {
        match controller.rotate_secrets().await {
            Ok(count) => tracing::info!(count, "sealed the remaining secrets under the new key"),
            Err(error) => {
                tracing::warn!(error = chain(&error), "Secrets cannot be sealed under the new key yet");
                sleep(RENEWAL).await;
            }
        }
    }
}

/// Writes a small file so that a crash leaves all of it or nothing.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text)?;
    std::fs::File::open(&draft)?.sync_all()?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestController;

    #[tokio::test]
    async fn the_next_life_of_a_controller_has_its_duties_at_once_and_the_last_one_ends() {
        let test = TestController::new().await;
        let leases = test.controller.take_duties().await.expect("nobody else is there");
        assert_eq!(leases.iter().map(|lease| lease.duty.as_str()).collect::<Vec<_>>(), DUTIES);
        let next = test.next_life().await;
        let anew = next.controller.take_duties().await.expect("it is the same controller");
        assert!(leases.iter().zip(&anew).all(|(old, new)| old.holder == new.holder && old.epoch < new.epoch));
        assert_eq!(test.controller.renew_duties(&leases).await, Some(&leases[0]));
        assert_eq!(next.controller.renew_duties(&anew).await, None);
    }
}
