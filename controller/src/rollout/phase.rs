//! The release phase: the process type `release`, run once before a release becomes current.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use engine::{OneOff, OneOffId};
use model::{AppId, Exit, LogSource, ReleaseId};

use crate::formation::DEFAULT_SIZE;
use crate::store::{App, Release};
use crate::{Controller, Error};

/// Migrations of large tables take their time; a phase that hangs must not block an app for ever.
const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);

impl Controller {
    /// Where the output of a release's phase is kept.
    pub fn release_output(&self, app: AppId, release: ReleaseId) -> PathBuf {
        self.settings.home.join("releases").join(app.to_string()).join(format!("{release}.log"))
    }

    /// Runs the release phase, if the image has one. A phase that an earlier controller left running is ended first: it must
    /// stand being run again, as on Heroku. The answer is the reason for failing, if it fails.
    pub(super) async fn release_phase(&self, app: &App, release: &Release) -> Result<Option<String>, Error> {
        let image = self.image_of(release).await?;
        if !image.processes.iter().any(|process| process.process_type.as_str() == "release") {
            return Ok(None);
        }
        let id = OneOffId(format!("release-{}", release.id));
        self.engine.kill(&id).await?;
        let args = vec!["/cnb/process/release".to_owned()];
        let container = self.container(app, release, args, DEFAULT_SIZE).await?;
        let oneoff = OneOff { id, app: app.id, container, tty: None, time_limit: TIME_LIMIT };
        let mut running = self.engine.run(oneoff).await?;
        let failed = |action| move |source: std::io::Error| Error::System { action, source: source.into() };
        let path = self.release_output(app.id, release.id);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed("keep the output of a release phase"))?;
        }
        let mut output = std::fs::File::create(&path).map_err(failed("keep the output of a release phase"))?;
        let source = LogSource::app("release.1");
        while let Some(bytes) = running.output.recv().await {
            output.write_all(&bytes).map_err(failed("keep the output of a release phase"))?;
            for line in String::from_utf8_lossy(&bytes).lines() {
                self.logs.write(app.id, self.clock.now(), &source, line);
            }
        }
        let exit = running.exit.await.unwrap_or(Exit::Lost);
        Ok((!exit.is_success())
            .then(|| format!("The release command {exit}. Its output is above; no instance was replaced.")))
    }
}
