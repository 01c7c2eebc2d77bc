//! Images, for whoever runs them elsewhere.

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::auth::Access;
use super::backups::Content;
use super::error::ApiError;
use crate::{Controller, Error};

/// Parts of a stream that wait for a slow reader.
const PARTS: usize = 4;
/// Bytes of a part.
const PART: usize = 256 * 1024;

/// `GET /apps/{app}/releases/{release}/image`: as an OCI layout in a tar file.
pub(super) async fn download(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Content, ApiError> {
    let release = controller.find_release(&access.app, &reference).await?;
    let digest = release.image.filter(|_| release.image_removed_at.is_none()).ok_or(Error::NotFound("image"))?;
    let image = controller.store.image(&digest).await?.ok_or(Error::NotFound("image"))?;
    let (layers, name) = (controller.builder.layers.clone(), format!("v{}", release.version));
    let file = format!("{}-{name}.tar", access.app.name);
    let (sender, parts) = mpsc::channel(PARTS);
    tokio::task::spawn_blocking(move || {
        let mut writer = io::BufWriter::with_capacity(PART, Parts(sender.clone()));
        let written = builder::write_layout(&layers, &image, &name, &mut writer).and_then(|()| writer.flush());
        if let Err(error) = written {
            // The reader may be gone; else it sees a stream that breaks off.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(Content::new(&file, Body::from_stream(ReceiverStream::new(parts))))
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
