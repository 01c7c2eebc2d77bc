//! The jobs that the app.json of an app's current release has.

use std::collections::{BTreeMap, BTreeSet};

use manifest::CronJob;
use model::job::name_of_command;
use model::{AppId, JobId};

use super::{blank, changed, reschedule};
use crate::store::{Action, Job};
use crate::{Controller, Error};

impl Controller {
    /// Makes the jobs of apps those of the app.json of their current releases.
    pub(super) async fn declare_jobs(&self) -> Result<(), Error> {
        loop {
            let stale = self.store.stale_jobs().await?;
            for app in &stale {
                self.declare_jobs_of(*app).await?;
            }
            if stale.is_empty() {
                return Ok(());
            }
        }
    }

    async fn declare_jobs_of(&self, id: AppId) -> Result<(), Error> {
        let Some(app) = self.store.app(id).await? else { return Ok(()) };
        let Some(release) = self.store.release(app.current_release).await? else { return Ok(()) };
        let mut declared = named(self.kept_of(&release).await?.cron);
        let (now, stamp) = (self.clock.now(), self.own_stamp());
        let change = |there: Vec<Job>| {
            let (mut changes, mut events) = (Vec::new(), Vec::new());
            for mut job in there {
                let texts = declared.remove(&job.name);
                let is_new = job.removed && texts.is_some();
                let goes = texts.is_none() && !job.made && !job.removed;
                if job.declared == texts && !is_new && !goes {
                    continue;
                }
                let before = job.spec();
                (job.declared, job.updated_at) = (texts, now);
                if is_new {
                    (job.removed, job.set) = (false, BTreeMap::new());
                }
                if goes {
                    (job.removed, job.next_due) = (true, None);
                } else {
                    reschedule(&mut job, &before, now);
                }
                let action = if goes { Action::Destroy } else { Action::Update };
                events.push(changed(&job, action));
                changes.push(job);
            }
            for (name, texts) in declared {
                let mut job = blank(JobId::random(&*self.random), &app, &name, now);
                let before = job.spec();
                job.declared = Some(texts);
                reschedule(&mut job, &before, now);
                events.push(changed(&job, Action::Create));
                changes.push(job);
            }
            Ok::<_, Error>((changes, events, ()))
        };
        self.store.change_jobs(id, &stamp, change).await
    }
}

/// Jobs by name. One without a name is called like its command; if another one is, with a number behind it.
fn named(jobs: Vec<CronJob>) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut taken: BTreeSet<String> = jobs.iter().filter_map(|job| job.name.clone()).collect();
    let name = |job: CronJob| {
        let name = job.name.unwrap_or_else(|| {
            let command = job.settings.get("command").map(String::as_str).unwrap_or_default();
            let base = name_of_command(command);
            let numbered = (2..).map(|number| format!("{base}-{number}"));
            let mut names = std::iter::once(base.clone()).chain(numbered);
            names.find(|name| taken.insert(name.clone())).unwrap_or(base.clone())
        });
        (name, job.settings)
    };
    jobs.into_iter().map(name).collect()
}
