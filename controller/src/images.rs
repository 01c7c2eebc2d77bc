//! Images for whoever runs them elsewhere: as a stream, or pushed to a registry.

use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use model::Image;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::interval;
use tokio_stream::wrappers::ReceiverStream;

use crate::registry::push::{Push, Tally};
use crate::registry::{ImageName, Repository};
use crate::store::{Action, App, NewEvent, Release, Resource, Stamp};
use crate::{Actor, Controller, Error};

/// Parts of a stream that wait for a slow reader.
const PARTS: usize = 4;
/// Bytes of a part.
const PART: usize = 256 * 1024;
/// How often it is said how far a push is.
const REPORT: Duration = Duration::from_secs(1);

/// How far a push is, and how it ended.
#[derive(Debug, Clone)]
pub(crate) struct Pushing {
    /// Of all its layers and its config.
    pub(crate) bytes_total: u64,
    /// Sent so far.
    pub(crate) bytes_sent: u64,
    /// That the registry had before.
    pub(crate) bytes_present: u64,
    /// Once it is over: by what name the image is there for ever, or why it is not.
    pub(crate) end: Option<Result<String, String>>,
}

/// What a push needs to go on by itself.
struct Job {
    controller: Arc<Controller>,
    app: App,
    release: Release,
    name: ImageName,
    /// As it was written.
    to: String,
    image: Image,
    /// By whom, and when.
    stamp: Stamp,
}

impl Controller {
    /// The image of a release, if it is still there.
    pub(crate) async fn exportable(&self, release: &Release) -> Result<Image, Error> {
        if release.image_removed_at.is_some() {
            return Err(Error::NotFound("image"));
        }
        self.image_of(release).await
    }

    /// Pushes the image of a release to a registry, with what its app may show there. First comes something once the registry takes
    /// it; the last has an end. It is given up when nobody listens any more.
    pub(crate) async fn push_image(
        self: &Arc<Self>,
        (app, actor): (&App, &Actor),
        release: &Release,
        to: &str,
    ) -> Result<mpsc::Receiver<Pushing>, Error> {
        let name = ImageName::parse_tag(to).map_err(Error::Invalid)?;
        let job = Job {
            controller: Arc::clone(self),
            app: app.clone(),
            image: self.exportable(release).await?,
            release: release.clone(),
            name,
            to: to.to_owned(),
            stamp: self.stamp(actor),
        };
        let (sender, receiver) = mpsc::channel(PARTS);
        tokio::spawn(async move { job.run(&sender).await });
        Ok(receiver)
    }
}

impl Job {
    async fn run(&self, listener: &mpsc::Sender<Pushing>) {
        let tally = Arc::new(Tally::default());
        let mut state = Pushing { bytes_total: 0, bytes_sent: 0, bytes_present: 0, end: None };
        let Some(end) = self.push(listener, &tally, &mut state).await else { return };
        (state.bytes_sent, state.bytes_present) = (tally.sent(), tally.present());
        state.end = Some(end.map_err(|error| error.to_string()));
        // Whoever has gone knows the end by the event.
        let _ = listener.send(state).await;
    }

    /// How it ended; not at all if nobody listened any more.
    async fn push(
        &self,
        listener: &mpsc::Sender<Pushing>,
        tally: &Arc<Tally>,
        state: &mut Pushing,
    ) -> Option<io::Result<String>> {
        let push = match self.prepare(tally).await {
            Ok(push) => push,
            Err(error) => return Some(Err(error)),
        };
        state.bytes_total = push.bytes();
        let mut reports = interval(REPORT);
        {
            let mut blobs = pin!(push.blobs());
            loop {
                tokio::select! {
                    sent = &mut blobs => match sent {
                        Ok(()) => break,
                        Err(error) => return Some(Err(error)),
                    },
                    () = listener.closed() => return None,
                    _ = reports.tick() => {
                        (state.bytes_sent, state.bytes_present) = (tally.sent(), tally.present());
                        if tally.is_welcome() {
                            // A reader that is slow misses some.
                            let _ = listener.try_send(state.clone());
                        }
                    }
                }
            }
        }
        // From here on somebody may find it there, and then it is known who pushed it.
        match push.tag().await {
            Ok(image) => Some(self.record(&image, tally).await.map(|()| image)),
            Err(error) => Some(Err(error)),
        }
    }

    async fn prepare(&self, tally: &Arc<Tally>) -> io::Result<Push<'_>> {
        let controller = &self.controller;
        let credential =
            controller.credential_for(self.app.id, self.name.registry()).await.map_err(|error| away(&error))?;
        let (layers, image) = (controller.builder.layers.clone(), self.image.clone());
        let documents = tokio::task::spawn_blocking(move || builder::documents(&layers, &image)).await?;
        let documents = documents.map_err(|error| {
            tracing::error!(%error, release = %self.release.id, "The layers of an image cannot be read");
            io::Error::other(
                "The layers of this image cannot be read here; the platform's log says why. An operator should look",
            )
        })?;
        let repository = Repository::new(&controller.outbound, &self.name, credential);
        Ok(Push::new(repository, controller.builder.layers.clone(), documents, Arc::clone(tally)))
    }

    async fn record(&self, image: &str, tally: &Tally) -> io::Result<()> {
        let data = json!({
            "description": format!("Push v{} to {}", self.release.version, self.to),
            "pushed": image,
            "bytes_sent": tally.sent(),
        });
        let (resource, id) = (Resource::Release, self.release.id.to_string());
        let event = NewEvent { app: Some(self.app.id), resource, id, action: Action::Update, data };
        let stamp = Stamp { now: self.controller.clock.now(), ..self.stamp.clone() };
        self.controller.store.record(&stamp, event).await.map_err(|error| away(&error.into()))
    }
}

/// What is said of a failure that is ours. The cause goes to the log.
fn away(error: &Error) -> io::Error {
    tracing::error!(error = error as &dyn std::error::Error, "A push failed");
    io::Error::other("The platform's database does not answer just now. Push again in a moment")
}

/// What is written in another thread, as a stream. The writer waits for a slow reader, and fails once that has gone.
pub(crate) fn written(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> ReceiverStream<io::Result<Bytes>> {
    let (sender, parts) = mpsc::channel(PARTS);
    tokio::task::spawn_blocking(move || {
        let mut writer = io::BufWriter::with_capacity(PART, Parts(sender.clone()));
        if let Err(error) = write(&mut writer).and_then(|()| writer.flush()) {
            // The reader may be gone; else it sees a stream that breaks off.
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(parts)
}

/// Writes into a stream; waits for its reader.
struct Parts(mpsc::Sender<io::Result<Bytes>>);

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(part)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
