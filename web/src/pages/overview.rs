//! An app's front page: what runs, how many of it, and what happened last.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use controller::Controller;
use controller::dynos::Dyno;
use controller::formation::{MAX_QUANTITY, ProcessFormation, ScaleRequest};
use controller::sizes::Sizes;
use model::Timestamp;
use serde::Serialize;

use super::activity::{self, Entry};
use super::show as show_page;
use super::traffic::Traffic;
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::live::{self, Part};
use crate::notice::Notice;
use crate::session::AppVisit;
use crate::templates;
use crate::view::{Head, Inside, Moment, Pill, path};

/// Entries of the activity that the front page shows.
const ENTRIES: usize = 5;

#[derive(Debug, Serialize)]
pub(super) struct Overview {
    page: Inside,
    app: Head,
    processes: Vec<Process>,
    /// Instances of releases that are on their way out, and others that no process type of now has.
    others: Vec<Instance>,
    entries: Vec<Entry>,
    /// None if nobody asked for the app in the last hour.
    traffic: Option<Traffic>,
    /// What runs containers does not answer.
    is_blind: bool,
    max_quantity: u32,
}

#[derive(Debug, Serialize)]
struct Process {
    name: String,
    command: String,
    quantity: u32,
    size: String,
    sizes: Vec<Size>,
    /// It runs once for each release and cannot be scaled.
    is_release_phase: bool,
    instances: Vec<Instance>,
}

#[derive(Debug, Serialize)]
struct Size {
    name: String,
    words: String,
}

#[derive(Debug, Serialize)]
struct Instance {
    name: String,
    pill: Pill,
    since: Moment,
    version: u64,
}

/// `GET /console/apps/{app}`
pub(crate) async fn show(State(controller): State<Arc<Controller>>, by: AppVisit) -> Result<Response, PageError> {
    show_page(&by.visit, "overview.html", &Overview::load(&controller, &by).await?)
}

/// `GET /console/apps/{app}/live`
pub(crate) async fn live(State(controller): State<Arc<Controller>>, by: AppVisit) -> Response {
    live::follow(controller, by, |controller, by| async move {
        let page = Overview::load(&controller, &by).await?;
        let part = |name| templates::block("overview.html", name, &page);
        Ok::<Vec<Part>, PageError>(vec![("head", part("head")?), ("live", part("live")?)])
    })
}

/// `POST /console/apps/{app}/scale`: a step, a number or a size.
pub(crate) async fn scale(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let (app, fields) = (&form.by.app, &form.fields);
    let quantity = fields.filled("step").or_else(|| fields.filled("quantity"));
    let request = ScaleRequest {
        process_type: fields.get("process").to_owned(),
        quantity: quantity.map(str::to_owned),
        size: fields.filled("size").map(str::to_owned),
    };
    let notice = match controller.scale(app, &form.by.visit.actor, &[request]).await {
        Ok(changed) => Notice::done(changed.iter().map(words).collect::<Vec<_>>().join(", ")),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&path(app)))
}

/// `POST /console/apps/{app}/restart`: one dyno, those of a process type, or all.
pub(crate) async fn restart(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let app = &form.by.app;
    let which = form.fields.filled("dyno");
    let notice = match controller.restart_dynos(app, &form.by.visit.actor, which).await {
        Ok(()) => Notice::done(format!("Restarting {}", which.unwrap_or("all dynos"))),
        Err(controller::Error::NotFound(_)) => Notice::refused("That dyno is gone already."),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&path(app)))
}

fn words(changed: &ProcessFormation) -> String {
    format!("{} is scaled to {} of size {}", changed.row.process_type, changed.row.quantity, changed.row.size)
}

impl Overview {
    async fn load(controller: &Controller, by: &AppVisit) -> Result<Self, PageError> {
        let app = &by.app;
        let now = controller.clock.now();
        let dynos = controller.dynos(app).await;
        let is_blind = dynos.is_err();
        let mut dynos = dynos.unwrap_or_default();
        let sizes = controller.sizes().await?;
        let mut processes = Vec::new();
        for formation in controller.formation(app).await? {
            let own: Vec<Dyno> =
                dynos.extract_if(.., |dyno| dyno.name.process_type == formation.row.process_type).collect();
            processes.push(Process::new(formation, &own, &sizes, now));
        }
        // What visitors reach comes first.
        processes.sort_by_key(|process| (process.name != "web", process.is_release_phase));
        Ok(Self {
            page: Inside::new(by.app.name.as_str(), &by.visit),
            app: Head::load(controller, by, "overview").await?,
            processes,
            others: dynos.iter().map(|dyno| Instance::new(dyno, now)).collect(),
            entries: activity::entries(controller, app, ENTRIES).await?,
            traffic: Traffic::of(&controller.app_metrics(app), &controller.app_paths(app).1, now),
            is_blind,
            max_quantity: MAX_QUANTITY,
        })
    }
}

impl Process {
    fn new(formation: ProcessFormation, dynos: &[Dyno], sizes: &Sizes, now: Timestamp) -> Self {
        let name = formation.row.process_type.to_string();
        Self {
            is_release_phase: name == "release",
            name,
            command: formation.command,
            quantity: formation.row.quantity,
            size: formation.row.size,
            sizes: choices(sizes),
            instances: dynos.iter().map(|dyno| Instance::new(dyno, now)).collect(),
        }
    }
}

impl Instance {
    fn new(dyno: &Dyno, now: Timestamp) -> Self {
        Self {
            name: dyno.name.to_string(),
            pill: Pill::of_dyno(dyno.state),
            since: Moment::new(dyno.since, now),
            version: dyno.release.version,
        }
    }
}

fn choices(sizes: &Sizes) -> Vec<Size> {
    let words = |memory: u64, millis: u32| {
        let memory = memory >> 20;
        let memory = if memory < 1024 { format!("{memory} MB") } else { format!("{} GB", memory.div_ceil(1024)) };
        let cores = millis / 1000;
        format!("{memory}, {cores} core{}", if cores == 1 { "" } else { "s" })
    };
    let sizes = sizes.all().iter();
    sizes.map(|size| Size { name: size.name.clone(), words: words(size.memory_bytes, size.cpu_millis) }).collect()
}

#[cfg(test)]
impl Overview {
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, head, inside, moment};
        let instance =
            |version| Instance { name: HOSTILE.to_owned(), pill: Pill::of_dyno("crashed"), since: moment(), version };
        let process = |is_release_phase| Process {
            name: HOSTILE.to_owned(),
            command: HOSTILE.to_owned(),
            quantity: 1,
            size: "Basic".to_owned(),
            sizes: choices(&Sizes::built_in()),
            is_release_phase,
            instances: vec![instance(u64::from(is_release_phase))],
        };
        let page = |processes: Vec<Process>, is_blind| Self {
            page: inside(),
            app: head("overview"),
            others: if is_blind { vec![] } else { vec![instance(3)] },
            entries: if is_blind { vec![] } else { activity::sample_entries() },
            traffic: (!is_blind).then(Traffic::sample),
            processes,
            is_blind,
            max_quantity: 100,
        };
        [page(vec![process(false), process(true)], false), page(vec![], true)]
    }
}
