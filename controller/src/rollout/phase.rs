//! The release phase: the process type `release`, run once before a release becomes current.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::{Lines, OneOff, OneOffId};
use model::{AppId, Exit, LogSource, ReleaseId};

use super::container::Task;
use crate::admission::demand_of;
use crate::sizes::DEFAULT_SIZE;
use crate::store::{App, Release};
use crate::{Controller, Error};

/// The process type that is run once for each release.
pub(super) const PROCESS_TYPE: &str = "release";
/// Bytes of output that are kept of one release; the app's log gets the rest as well.
const OUTPUT_LIMIT: u64 = 1 << 20;
/// What the phase is called in the log and in its own environment (Heroku's dyno metadata), where apps look to tell a platform
/// from a laptop.
const DYNO: &str = "release.1";

impl Controller {
    /// Where the output of a release's phase is kept.
    pub fn release_output(&self, app: AppId, release: ReleaseId) -> PathBuf {
        self.settings.home.join("releases").join(app.to_string()).join(format!("{release}.log"))
    }

    /// Runs the release phase. A phase that an earlier controller left running is ended first: it must
    /// stand being run again, as on Heroku. The answer is the reason for failing, if it fails.
    pub(super) async fn release_phase(&self, app: &App, release: &Release) -> Result<Option<String>, Error> {
        let id = OneOffId(format!("release-{}-{}", app.id, release.version));
        self.engine.kill(&id).await?;
        let formation = self.store.formation(app.id).await?;
        let row = formation.iter().find(|row| row.process_type.as_str() == PROCESS_TYPE);
        let size = row.map_or_else(|| DEFAULT_SIZE.to_owned(), |row| release.scale(row).size);
        let who = format!("The release command of v{}, a dyno of {},", release.version, size.to_ascii_lowercase());
        match self.admit_one(&who, demand_of(&self.sizes().await?, &size, 1)).await {
            Err(Error::Conflict(refusal)) => return Ok(Some(format!("{refusal} No instance was replaced."))),
            admitted => admitted?,
        }
        let mut container = self.container(app, release, Task::Process(PROCESS_TYPE), &size).await?;
        container.env.insert("DYNO".to_owned(), DYNO.to_owned());
        // Migrations of large tables take their time; a phase that hangs must not block an app for ever.
        let policy = self.store.rollout(release.id).await?.map(|rollout| rollout.policy).unwrap_or_default();
        let time_limit = policy.release_timeout;
        let stop_grace = self.settings.stop_grace;
        let oneoff =
            OneOff { id, app: app.id, container, tty: None, time_limit, stop_grace, is_build: false, log: None };
        let path = self.release_output(app.id, release.id);
        let failed =
            |source: io::Error| Error::System { action: "keep the output of a release phase", source: source.into() };
        let _running = Running::new(self, release.id);
        let mut kept = Kept { file: create(&path).map_err(failed)?, bytes: 0 };
        let began = Instant::now();
        let mut running = self.engine.run(oneoff).await?;
        let mut keep = |line: &str| {
            self.logs.write(app.id, self.clock.now(), &LogSource::app(DYNO), line);
            kept.line(line);
        };
        let mut lines = Lines::default();
        while let Some(bytes) = running.output.recv().await {
            lines.push(&bytes).iter().for_each(|line| keep(line));
        }
        lines.rest().iter().for_each(|line| keep(line));
        let exit = running.exit.await.unwrap_or(Exit::Lost);
        let what = if began.elapsed() >= time_limit {
            format!("took longer than {} and was ended", policy.get("release_timeout"))
        } else {
            exit.to_string()
        };
        Ok((!exit.is_success())
            .then(|| format!("The release command {what}. Its output is above; no instance was replaced.")))
    }
}

/// The output of a phase, as far as there is room for it.
struct Kept {
    file: File,
    bytes: u64,
}

impl Kept {
    fn line(&mut self, line: &str) {
        if self.bytes > OUTPUT_LIMIT {
            return;
        }
        self.bytes += line.len() as u64 + 1;
        let line = if self.bytes > OUTPUT_LIMIT { "[The rest is in the app's log only]" } else { line };
        // The file is a copy; a full disk must not end a migration half-way.
        let _ = writeln!(self.file, "{line}");
    }
}

/// A phase that runs, until it is dropped. Whoever follows its output waits for that.
struct Running<'a> {
    controller: &'a Controller,
    release: ReleaseId,
}

impl<'a> Running<'a> {
    fn new(controller: &'a Controller, release: ReleaseId) -> Self {
        controller.live.phases.lock().insert(release);
        Self { controller, release }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.controller.live.phases.lock().remove(&self.release);
    }
}

fn create(path: &Path) -> io::Result<File> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    File::create(path)
}
