//! One build and its output, line by line while it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use controller::Controller;
use controller::store::{App, Build, Status};
use model::BuildId;
use serde::{Deserialize, Serialize};

use super::activity::short;
use super::show as show_page;
use crate::error::PageError;
use crate::live;
use crate::session::AppVisit;
use crate::view::{Head, Inside, Moment, Pill, duration, path, size, uncoloured};

#[derive(Debug, Serialize)]
pub(super) struct BuildPage {
    page: Inside,
    app: Head,
    commit: String,
    short: String,
    subject: Option<String>,
    pill: Pill,
    who: String,
    when: Moment,
    took: Option<String>,
    buildpacks: Vec<String>,
    size: Option<String>,
    release: Option<Link>,
    output: String,
    /// Where more of the output comes from; none once it is whole.
    more: Option<String>,
}

#[derive(Debug, Serialize)]
struct Link {
    version: u64,
    path: String,
}

/// From where on a page needs the output.
#[derive(Debug, Deserialize)]
pub(crate) struct From {
    #[serde(default)]
    from: usize,
}

/// `GET /console/apps/{app}/builds/{build}`
pub(crate) async fn show(
    State(controller): State<Arc<Controller>>,
    by: AppVisit,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Response, PageError> {
    let build = find(&controller, &by.app, &path).await?;
    show_page(&by.visit, "build.html", &BuildPage::load(&controller, &by, &build).await?)
}

/// `GET /console/apps/{app}/builds/{build}/live`
pub(crate) async fn live(
    State(controller): State<Arc<Controller>>,
    by: AppVisit,
    Path(path): Path<BTreeMap<String, String>>,
    Query(from): Query<From>,
) -> Result<Response, PageError> {
    let build = find(&controller, &by.app, &path).await?;
    let file = controller.build_output(by.app.id, build.id);
    Ok(live::lines(from.from, move |offset| {
        let (controller, file, app) = (Arc::clone(&controller), file.clone(), by.app.clone());
        async move {
            // In this order: once it is over, all of it is there to be read.
            let is_over = is_over(&controller, build.id, &app).await;
            (read(file, offset).await, !is_over)
        }
    }))
}

async fn find(controller: &Controller, app: &App, path: &BTreeMap<String, String>) -> Result<Build, PageError> {
    let id = path.get("build").and_then(|id| id.parse().ok()).ok_or(PageError::NoPage)?;
    build_of(controller, id, app).await
}

async fn build_of(controller: &Controller, id: BuildId, app: &App) -> Result<Build, PageError> {
    let build = controller.store.build(id).await?.filter(|build| build.app == app.id);
    build.ok_or(PageError::NoPage)
}

/// Whether all of the output is there: the release's part of it comes after the build's.
async fn is_over(controller: &Controller, id: BuildId, app: &App) -> bool {
    let Ok(build) = build_of(controller, id, app).await else { return true };
    match (build.status, build.release) {
        (Status::Pending, _) => false,
        (_, None) => true,
        (_, Some(release)) => {
            let release = controller.store.release(release).await;
            let is_pending = matches!(release, Ok(Some(release)) if release.status == Status::Pending);
            !is_pending && !controller.is_building(app)
        }
    }
}

/// Whole lines of a build's output from an offset on.
async fn read(file: PathBuf, offset: usize) -> String {
    let text = tokio::fs::read_to_string(file).await.unwrap_or_default();
    let new = text.get(offset..).unwrap_or_default();
    new[..new.rfind('\n').map_or(0, |end| end + 1)].to_owned()
}

impl BuildPage {
    async fn load(controller: &Controller, by: &AppVisit, build: &Build) -> Result<Self, PageError> {
        let is_over = is_over(controller, build.id, &by.app).await;
        let output = read(controller.build_output(by.app.id, build.id), 0).await;
        let (pill, took) = match build.status {
            Status::Pending => (Pill::new("busy", "Building"), None),
            Status::Succeeded => (Pill::new("good", "Succeeded"), Some(build.updated_at)),
            Status::Failed => (Pill::new("bad", "Failed"), Some(build.updated_at)),
        };
        let release = match build.release {
            Some(id) => controller.store.release(id).await?,
            None => None,
        };
        let app_path = path(&by.app);
        let more = format!("{app_path}/builds/{}/live?from={}", build.id, output.len());
        Ok(Self {
            page: Inside::new(&format!("Build {}", short(&build.commit)), &by.visit),
            app: Head::load(controller, by, "activity").await?,
            short: short(&build.commit).to_owned(),
            subject: build.subject.clone(),
            commit: build.commit.clone(),
            pill,
            who: build.user.email.to_string(),
            when: Moment::new(build.created_at, controller.clock.now()),
            took: took.map(|end| duration(end.since(build.created_at))),
            buildpacks: build.buildpacks.clone(),
            size: build.size_bytes.map(size),
            release: release.map(|release| Link {
                version: release.version,
                path: format!("{app_path}/releases/v{}", release.version),
            }),
            output: uncoloured(&output),
            more: (!is_over).then_some(more),
        })
    }
}

#[cfg(test)]
impl BuildPage {
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, head, inside, moment};
        let page = |is_over: bool| Self {
            page: inside(),
            app: head("activity"),
            commit: HOSTILE.to_owned(),
            short: HOSTILE.to_owned(),
            subject: is_over.then(|| HOSTILE.to_owned()),
            pill: Pill::new("good", "Succeeded"),
            who: HOSTILE.to_owned(),
            when: moment(),
            took: is_over.then(|| "5 s".to_owned()),
            buildpacks: vec![HOSTILE.to_owned()],
            size: is_over.then(|| size(1_250_000)),
            release: is_over.then(|| Link { version: 3, path: HOSTILE.to_owned() }),
            output: if is_over { HOSTILE.to_owned() } else { String::new() },
            more: (!is_over).then(|| HOSTILE.to_owned()),
        };
        [page(true), page(false)]
    }
}
