//! What callers ask of volumes.

use std::io;

use bytes::Bytes;
use engine::{EngineError, VolumeStatus, check_volume_name};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::Host;
use crate::error::Fault;
use crate::volumes::Volumes;

/// Bytes of an archive that are read at once.
const PIECE: usize = 64 << 10;

impl Host {
    /// Does something with volumes that may take a while.
    pub(crate) async fn with_volumes<T: Send + 'static>(
        &self,
        action: impl FnOnce(&Volumes) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let volumes = self.volumes.clone();
        let done = tokio::task::spawn_blocking(move || action(&volumes)).await;
        done.unwrap_or_else(|panic| Err(Fault::Refused(panic.to_string())))
    }

    pub(crate) async fn make_volume(&self, name: &str, bytes: u64) -> Result<(), EngineError> {
        check_volume_name(name)?;
        let own = name.to_owned();
        if self.with_volumes(move |volumes| volumes.set_size(&own, bytes)).await.map_err(failed)? {
            return Ok(());
        }
        self.with_unused_volume(name, || self.volumes.grow_at_rest(name, bytes).map_err(failed)).await
    }

    pub(crate) fn list_volumes(&self) -> Vec<VolumeStatus> {
        self.volumes.list()
    }

    pub(crate) async fn copy_volume(&self, from: &str, to: &str) -> Result<(), EngineError> {
        check_volume_name(from).and(check_volume_name(to))?;
        let (from, unique) = (from.to_owned(), self.new_id());
        let copy = self.with_volumes(move |volumes| volumes.copy(&from, &unique)).await.map_err(failed)?;
        let replaced = self.with_unused_volume(to, || self.volumes.replace(to, &copy).map_err(failed)).await;
        if replaced.is_err() {
            // Else it is there no more.
            let _ = std::fs::remove_file(&copy);
        }
        replaced
    }

    /// All that is in a volume, piece by piece. Whoever reads no further ends it.
    pub(crate) async fn volume_files(&self, name: &str) -> Result<mpsc::Receiver<io::Result<Bytes>>, EngineError> {
        check_volume_name(name)?;
        let name = name.to_owned();
        let mut child = self.with_volumes(move |volumes| volumes.archive(&name)).await.map_err(failed)?;
        let output = child.stdout.take().ok_or_else(|| EngineError::Failed("tar has no output".to_owned()))?;
        let (sender, pieces) = mpsc::channel(4);
        let failed = |error: io::Error| EngineError::Failed(format!("cannot read what tar writes: {error}"));
        let mut output = tokio::process::ChildStdout::from_std(output).map_err(failed)?;
        tokio::spawn(async move {
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                let read = output.read_buf(&mut piece).await;
                let is_over = matches!(read, Ok(0));
                if is_over || sender.send(read.map(|_| Bytes::from(piece))).await.is_err() {
                    break;
                }
            }
            drop(output);
            let ended = tokio::task::spawn_blocking(move || child.wait()).await;
            // What changes while it is read is the app's own affair.
            if !matches!(ended, Ok(Ok(status)) if matches!(status.code(), Some(0 | 1))) {
                let _ = sender.send(Err(io::Error::other("the volume could not be read to its end"))).await;
            }
        });
        Ok(pieces)
    }
}

fn failed(fault: Fault) -> EngineError {
    match fault {
        Fault::Files { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            EngineError::Exhausted("the platform's disk is full".to_owned())
        }
        other => EngineError::Failed(other.to_string()),
    }
}
