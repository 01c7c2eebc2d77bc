//! Connections that left HTTP behind: `WebSocket` and whatever else answers 101.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::access_log::Record;
use crate::failure::Failure;
use crate::socket::Activity;
use crate::table::Tunnel;

/// The two ends, once both sides have agreed.
pub(crate) struct Ends {
    pub(crate) client: OnUpgrade,
    pub(crate) server: OnUpgrade,
}

/// What comes of a tunnel to an app: its load on the instance, its line in the log, its idle limit.
pub(crate) struct Watched {
    pub(crate) load: Tunnel,
    pub(crate) record: Record,
    pub(crate) activity: Arc<Activity>,
    pub(crate) idle: Duration,
}

/// Passes bytes of an app's tunnel until one side ends it or nobody has said anything for too long.
pub(crate) async fn watched(ends: Ends, mut watched: Watched) {
    let idle = watched.activity.idle_for(watched.idle);
    tokio::select! {
        passed = pass(ends) => {
            watched.record.complete = true;
            watched.record.bytes = passed.unwrap_or(0);
        }
        () = idle => watched.record.fail(Failure::IdleConnection),
    }
    drop(watched.load);
}

/// Passes bytes until both sides have ended; how many went to the client, if it ended well.
pub(crate) async fn pass(ends: Ends) -> Option<u64> {
    let (client, server) = tokio::try_join!(ends.client, ends.server).ok()?;
    let (mut client, mut server) = (TokioIo::<Upgraded>::new(client), TokioIo::<Upgraded>::new(server));
    match copy_bidirectional(&mut client, &mut server).await {
        Ok((_, to_client)) => Some(to_client),
        Err(error) => {
            tracing::trace!(error = %error, "a tunnel broke");
            None
        }
    }
}
