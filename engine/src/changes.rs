//! Telling those who follow an engine what changed.

use futures::StreamExt;
use futures::stream::BoxStream;
use model::AppId;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// So many changes may wait for a follower; one that is slower is told [`Change::All`].
const BEHIND: usize = 1024;

/// Of what something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Of any app, or of several.
    All,
    /// Of this one: of its workloads, its instances or its one-offs.
    App(AppId),
}

/// Where an engine says what changed, for any number of followers. Clones share them.
#[derive(Debug, Clone)]
pub struct Changes(broadcast::Sender<Change>);

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }
}

impl Changes {
    /// Tells all who follow now.
    pub fn tell(&self, change: Change) {
        // Nobody need follow.
        let _ = self.0.send(change);
    }

    /// What changes from now on.
    pub fn follow(&self) -> BoxStream<'static, Change> {
        // An error is a follower who was too slow.
        BroadcastStream::new(self.0.subscribe()).map(|change| change.unwrap_or(Change::All)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_is_slow_hears_of_everything() {
        let changes = Changes::default();
        let app: AppId = "00000000-0000-4000-8000-000000000001".parse().expect("an id");
        let mut follower = changes.follow();
        changes.tell(Change::App(app));
        assert_eq!(follower.next().await, Some(Change::App(app)));
        assert_eq!(follower.next().now_or_never(), None);
        for _ in 0..=2 * BEHIND {
            changes.tell(Change::App(app));
        }
        assert_eq!(follower.next().await, Some(Change::All));
        drop(changes);
        assert_eq!(follower.collect::<Vec<_>>().await.last(), Some(&Change::App(app)), "and then it ends");
    }
}
