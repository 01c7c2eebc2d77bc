//! Where the lines of a build go.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{AppId, LogSource};
use tokio::sync::mpsc;

use crate::Controller;

/// A client that takes no line for this long is gone, or stopped; nobody's build waits for it any longer.
const CLIENT_LIMIT: Duration = Duration::from_secs(20);

/// To whoever pushed, to the build's own file, to the app's log.
pub(crate) struct Output {
    pub(super) controller: Arc<Controller>,
    pub(super) app: AppId,
    /// None if the disk is full.
    pub(super) file: Option<File>,
    pub(super) client: Option<mpsc::Sender<String>>,
    /// How long the client may take for a line.
    pub(super) patience: Duration,
}

impl Output {
    pub(crate) fn new(controller: Arc<Controller>, app: AppId, client: Option<mpsc::Sender<String>>) -> Self {
        Self { controller, app, file: None, client, patience: CLIENT_LIMIT }
    }

    /// The same into a new file as well, in a folder that may be new too.
    pub(super) fn into_file(self, file: &Path) -> Self {
        let folder = file.parent().map(std::fs::create_dir_all);
        Self { file: folder.and_then(Result::ok).and_then(|()| File::create(file).ok()), ..self }
    }

    /// A line for everybody.
    pub(crate) async fn line(&mut self, text: &str) {
        self.controller.logs.write(self.app, self.controller.clock.now(), &LogSource::app("build"), text);
        self.show(text).await;
    }

    /// A line that is in the app's log already.
    pub(crate) async fn show(&mut self, text: &str) {
        if let Some(file) = &mut self.file {
            // The file is a copy; a full disk must not end a build that got this far.
            let _ = writeln!(file, "{text}");
        }
        if let Some(client) = &self.client
            && client.send_timeout(text.to_owned(), self.patience).await.is_err()
        {
            self.client = None;
        }
    }

    /// Shows the whole lines of a file from `offset`, which are in the app's log already; says how many bytes that were.
    pub(super) async fn show_file(&mut self, path: &Path, offset: u64) -> u64 {
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || crate::logs::read(&path, offset));
        // What cannot be read is in the app's log all the same.
        let Ok(Ok(Some(text))) = read.await else { return 0 };
        for line in text.lines() {
            self.show(line).await;
        }
        text.len() as u64
    }
}
