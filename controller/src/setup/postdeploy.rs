//! `scripts.postdeploy`: run once, after the first release that is live.

use std::time::Duration;

use engine::{Lines, OneOff, OneOffId};
use manifest::Script;
use model::{Exit, LogSource};

use crate::admission::demand_of;
use crate::builds::Output;
use crate::rollout::Task;
use crate::sizes::DEFAULT_SIZE;
use crate::store::{App, Release};
use crate::{Controller, Error};

/// As long as a release phase may take.
const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);
/// What it is called in the log and in its own environment.
const DYNO: &str = "postdeploy.1";

impl Controller {
    /// Runs the script if it is due. What becomes of it does not change that the release is live.
    pub(crate) async fn postdeploy(
        &self,
        (app, release): (&App, &Release),
        script: Option<&Script>,
        output: &mut Output,
    ) -> Result<(), Error> {
        let Some(script) = script else { return Ok(()) };
        if !self.store.is_postdeploy_due(app.id).await? {
            return Ok(());
        }
        output.line(&format!("-----> Running postdeploy: {}", script.command)).await;
        let failure = match self.run_script((app, release), script, output).await {
            Ok(exit) if exit.is_success() => None,
            Ok(exit) => Some(exit.to_string()),
            Err(Error::Conflict(refusal)) => Some(format!("did not run: {}", refusal.trim_end_matches('.'))),
            Err(error) => {
                tracing::warn!(app.name = %app.name, error = crate::errors::chain(&error), "A postdeploy script did not start");
                Some(Exit::Lost.to_string())
            }
        };
        self.store.set_postdeploy_due(app.id, false).await?;
        if let Some(failure) = failure {
            let again = format!("platform run -a {} -- {}", app.name, script.command);
            output
                .line(&format!(" !     postdeploy {failure}. The app is live all the same; to run it again: {again}"))
                .await;
        }
        Ok(())
    }

    async fn run_script(
        &self,
        (app, release): (&App, &Release),
        script: &Script,
        output: &mut Output,
    ) -> Result<Exit, Error> {
        let id = OneOffId(format!("postdeploy-{}", app.id));
        // One that an earlier controller left running is not in this push.
        self.engine.kill(&id).await?;
        let size = script.size.as_deref().unwrap_or(DEFAULT_SIZE);
        let who = format!("A dyno of {}", size.to_ascii_lowercase());
        self.admit_one(&who, demand_of(&self.sizes().await?, size, 1)).await?;
        let mut container = self.container(app, release, Task::Line(&script.command), size).await?;
        container.env.insert("DYNO".to_owned(), DYNO.to_owned());
        let stop_grace = self.settings.stop_grace;
        let oneoff = OneOff {
            id,
            app: app.id,
            container,
            tty: None,
            time_limit: TIME_LIMIT,
            stop_grace,
            is_build: false,
            log: None,
        };
        let mut running = self.engine.run(oneoff).await?;
        let mut lines = Lines::default();
        while let Some(bytes) = running.output.recv().await {
            for line in lines.push(&bytes) {
                self.say(app, &line, output).await;
            }
        }
        if let Some(line) = lines.rest() {
            self.say(app, &line, output).await;
        }
        Ok(running.exit.await.unwrap_or(Exit::Lost))
    }

    async fn say(&self, app: &App, line: &str, output: &mut Output) {
        self.logs.write(app.id, self.clock.now(), &LogSource::app(DYNO), line);
        output.show(&format!("       {line}")).await;
    }
}
