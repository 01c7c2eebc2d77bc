//! An app's scheduled jobs with their last runs, and running one now.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use controller::Controller;
use controller::store::{Job, JobRun, JobRunState};
use serde::Serialize;

use super::show as show_page;
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::live::{self, Part};
use crate::notice::Notice;
use crate::session::AppVisit;
use crate::templates;
use crate::view::{Head, Inside, Moment, Pill, duration, path};

/// So many of the last runs of each job are shown.
const RUNS: usize = 10;

#[derive(Debug, Serialize)]
pub(super) struct Jobs {
    page: Inside,
    app: Head,
    all: Vec<OneJob>,
}

#[derive(Debug, Serialize)]
struct OneJob {
    name: String,
    command: String,
    schedule: String,
    next: Option<Moment>,
    suspended: bool,
    alert: Option<String>,
    alerted: Option<Moment>,
    runs: Vec<OneRun>,
}

#[derive(Debug, Serialize)]
struct OneRun {
    number: u64,
    pill: Pill,
    due: Moment,
    took: Option<String>,
    why: Option<String>,
    exits: Option<String>,
}

/// `GET /console/apps/{app}/jobs`
pub(crate) async fn show(State(controller): State<Arc<Controller>>, by: AppVisit) -> Result<Response, PageError> {
    show_page(&by.visit, "jobs.html", &Jobs::load(&controller, &by).await?)
}

/// `GET /console/apps/{app}/jobs/live`
pub(crate) async fn live(State(controller): State<Arc<Controller>>, by: AppVisit) -> Response {
    live::follow(controller, by, |controller, by| async move {
        let page = Jobs::load(&controller, &by).await?;
        let part = |name| templates::block("jobs.html", name, &page);
        Ok::<Vec<Part>, PageError>(vec![("head", part("head")?), ("live", part("live")?)])
    })
}

/// `POST /console/apps/{app}/jobs/run`
pub(crate) async fn run(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let (app, actor) = (&form.by.app, &form.by.visit.actor);
    let job = controller.find_job(app, form.fields.get("job")).await?;
    let notice = match controller.run_job((app, &job), actor).await {
        Ok(run) => Notice::done(format!("Run {} of {} is on its way", run.number, job.name)),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&format!("{}/jobs", path(app))))
}

impl Jobs {
    async fn load(controller: &Controller, by: &AppVisit) -> Result<Self, PageError> {
        let mut jobs = Vec::new();
        for job in controller.store.jobs(by.app.id).await? {
            let runs = controller.store.job_runs(job.id).await?;
            jobs.push(OneJob::new(controller, &job, &runs));
        }
        Ok(Self {
            page: Inside::new(&format!("Jobs of {}", by.app.name), &by.visit),
            app: Head::load(controller, by, "jobs").await?,
            all: jobs,
        })
    }
}

impl OneJob {
    fn new(controller: &Controller, job: &Job, runs: &[JobRun]) -> Self {
        let (spec, now) = (job.spec(), controller.clock.now());
        Self {
            name: job.name.clone(),
            command: spec.command.clone(),
            schedule: format!("{} {}", spec.schedule, spec.timezone),
            next: job.next_due.map(|due| Moment::new(due, now)),
            suspended: spec.suspend,
            alert: job.alert.as_ref().map(|(text, _)| text.clone()),
            alerted: job.alert.as_ref().map(|(_, at)| Moment::new(*at, now)),
            runs: runs.iter().take(RUNS).map(|run| OneRun::new(run, Moment::new(run.due_at, now))).collect(),
        }
    }
}

impl OneRun {
    fn new(run: &JobRun, due: Moment) -> Self {
        let pill = match run.state {
            JobRunState::Queued => Pill::new("calm", "Waiting"),
            JobRunState::Running => Pill::new("busy", "Running"),
            JobRunState::Succeeded => Pill::new("good", "Succeeded"),
            JobRunState::Failed => Pill::new("bad", "Failed"),
            JobRunState::Stopped => Pill::new("warn", "Stopped"),
            JobRunState::Skipped => Pill::new("warn", "Did not run"),
        };
        let exits: Vec<_> =
            run.shards.iter().filter_map(|shard| Some(shard.exit?.shell_status().to_string())).collect();
        Self {
            number: run.number,
            pill,
            due,
            took: run.begun_at.zip(run.ended_at).map(|(begun, ended)| duration(ended.since(begun))),
            why: run.failure.clone(),
            exits: (!exits.is_empty()).then(|| exits.join(", ")),
        }
    }
}

#[cfg(test)]
impl Jobs {
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, head, inside, moment};
        let run = |number| OneRun {
            number,
            pill: Pill::new("bad", "Failed"),
            due: moment(),
            took: Some("5 s".to_owned()),
            why: Some(HOSTILE.to_owned()),
            exits: Some("3".to_owned()),
        };
        let job = |name: &str, next| OneJob {
            name: name.to_owned(),
            command: HOSTILE.to_owned(),
            schedule: HOSTILE.to_owned(),
            next,
            suspended: true,
            alert: Some(HOSTILE.to_owned()),
            alerted: Some(moment()),
            runs: vec![run(2), run(1)],
        };
        let page = |all| Self { page: inside(), app: head("jobs"), all };
        [page(vec![job("one", None), job("two", Some(moment()))]), page(Vec::new())]
    }
}
