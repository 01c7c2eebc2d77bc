//! One release, what it changed, and going back to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use controller::Controller;
use controller::overview::{Changes, ConfigChange};
use controller::releases::is_eligible;
use controller::store::{App, Release};
use serde::Serialize;

use super::activity::short;
use super::show as show_page;
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::notice::Notice;
use crate::session::AppVisit;
use crate::view::{Head, Inside, Moment, Pill, path};

#[derive(Debug, Serialize)]
pub(super) struct ReleasePage {
    page: Inside,
    app: Head,
    version: u64,
    what: String,
    pill: Pill,
    who: String,
    when: Moment,
    failure: Option<String>,
    build: Option<String>,
    rollback: Option<String>,
    /// Against the release before; none for the first.
    diff: Option<Diff>,
}

#[derive(Debug, Serialize)]
pub(super) struct Rollback {
    page: Inside,
    app: Head,
    from: u64,
    to: u64,
    what: String,
    who: String,
    when: Moment,
    diff: Diff,
    action: String,
}

/// What changes from one release to another.
#[derive(Debug, Serialize)]
struct Diff {
    code: Option<Code>,
    config: Vec<Var>,
}

#[derive(Debug, Serialize)]
struct Code {
    old: Option<Commit>,
    new: Option<Commit>,
}

#[derive(Debug, Serialize)]
struct Commit {
    short: String,
    subject: Option<String>,
}

#[derive(Debug, Serialize)]
struct Var {
    name: String,
    change: &'static str,
}

/// `GET /console/apps/{app}/releases/{release}`
pub(crate) async fn show(
    State(controller): State<Arc<Controller>>,
    by: AppVisit,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Response, PageError> {
    let release = find(&controller, &by.app, &path).await?;
    show_page(&by.visit, "release.html", &ReleasePage::load(&controller, &by, release).await?)
}

/// `GET /console/apps/{app}/releases/{release}/rollback`: what going back would change.
pub(crate) async fn confirm(
    State(controller): State<Arc<Controller>>,
    by: AppVisit,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Response, PageError> {
    let target = find(&controller, &by.app, &path).await?;
    let current = controller.store.release(by.app.current_release).await?.ok_or(PageError::NoPage)?;
    let page = Rollback {
        page: Inside::new(&format!("Roll back to v{}", target.version), &by.visit),
        app: Head::load(&controller, &by, "activity").await?,
        from: current.version,
        to: target.version,
        diff: Diff::new(controller.rollback_changes(&by.app, &current, &target).await?),
        action: format!("{}/rollback", release_path(&by.app, &target)),
        who: target.user.email.to_string(),
        when: Moment::new(target.created_at, controller.clock.now()),
        what: target.description,
    };
    show_page(&by.visit, "rollback.html", &page)
}

/// `POST /console/apps/{app}/releases/{release}/rollback`
pub(crate) async fn rollback(
    State(controller): State<Arc<Controller>>,
    Path(named): Path<BTreeMap<String, String>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let (app, actor) = (&form.by.app, &form.by.visit.actor);
    let target = find(&controller, app, &named).await?;
    let notice = match controller.rollback(app, actor, &target).await {
        Ok(made) => Notice::done(format!("Rolling back to v{}: this is v{}", target.version, made.version)),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&format!("{}/activity", path(app))))
}

async fn find(controller: &Controller, app: &App, path: &BTreeMap<String, String>) -> Result<Release, PageError> {
    let reference = path.get("release").ok_or(PageError::NoPage)?;
    Ok(controller.find_release(app, reference).await?)
}

fn release_path(app: &App, release: &Release) -> String {
    format!("{}/releases/v{}", path(app), release.version)
}

impl ReleasePage {
    async fn load(controller: &Controller, by: &AppVisit, release: Release) -> Result<Self, PageError> {
        let app = &by.app;
        let before = match release.version {
            0 | 1 => None,
            version => controller.store.release_by_version(app.id, version - 1).await?,
        };
        let diff = match &before {
            Some(before) => Some(Diff::new(controller.changes(app, before, &release).await?)),
            None => None,
        };
        let can_go_back = !release.current && is_eligible(&release, controller.store.was_deployed(app.id).await?);
        Ok(Self {
            page: Inside::new(&format!("v{} of {}", release.version, app.name), &by.visit),
            app: Head::load(controller, by, "activity").await?,
            version: release.version,
            pill: Pill::of_release(&release),
            who: release.user.email.to_string(),
            when: Moment::new(release.created_at, controller.clock.now()),
            build: release.build.map(|build| format!("{}/builds/{build}", path(app))),
            rollback: can_go_back.then(|| format!("{}/rollback", release_path(app, &release))),
            what: release.description,
            failure: release.failure,
            diff,
        })
    }
}

impl Diff {
    fn new(changes: Changes) -> Self {
        let commit = |commit: controller::overview::Commit| Commit {
            short: short(&commit.id).to_owned(),
            subject: commit.subject,
        };
        let code = Code { old: changes.old_commit.map(commit), new: changes.new_commit.map(commit) };
        let var = |(name, change)| Var {
            name,
            change: match change {
                ConfigChange::Added => "added",
                ConfigChange::Changed => "changed",
                ConfigChange::Removed => "removed",
            },
        };
        Self { code: changes.code.then_some(code), config: changes.config.into_iter().map(var).collect() }
    }
}

#[cfg(test)]
mod samples {
    use super::*;
    use crate::view::samples::{HOSTILE, head, inside, moment};

    fn diff(full: bool) -> Diff {
        let commit = |subject: bool| Commit { short: HOSTILE.to_owned(), subject: subject.then(|| HOSTILE.to_owned()) };
        let var = |change| Var { name: HOSTILE.to_owned(), change };
        Diff {
            code: full.then(|| Code { old: Some(commit(false)), new: Some(commit(true)) }),
            config: if full { ["added", "changed", "removed"].map(var).into() } else { vec![] },
        }
    }

    impl ReleasePage {
        pub(in crate::pages) fn samples() -> [Self; 2] {
            let page = |full: bool| Self {
                page: inside(),
                app: head("activity"),
                version: 3,
                what: HOSTILE.to_owned(),
                pill: Pill::new("bad", "Failed"),
                who: HOSTILE.to_owned(),
                when: moment(),
                failure: full.then(|| HOSTILE.to_owned()),
                build: full.then(|| HOSTILE.to_owned()),
                rollback: full.then(|| HOSTILE.to_owned()),
                diff: full.then(|| diff(true)),
            };
            [page(true), page(false)]
        }
    }

    impl Rollback {
        pub(in crate::pages) fn samples() -> [Self; 2] {
            let page = |full| Self {
                page: inside(),
                app: head("activity"),
                from: 4,
                to: 3,
                what: HOSTILE.to_owned(),
                who: HOSTILE.to_owned(),
                when: moment(),
                diff: diff(full),
                action: HOSTILE.to_owned(),
            };
            [page(true), page(false)]
        }
    }
}
