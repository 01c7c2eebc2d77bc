//! One release, what it changed, and going back to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use controller::Controller;
use controller::changes::Changes;
use controller::releases::{RollbackWish, is_eligible};
use controller::store::{App, AttachedAddon, ConfigChange, ProcessScale, Release, Slug};
use model::ConfigVarName;
use serde::Serialize;

use super::activity::short;
use super::show as show_page;
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::notice::Notice;
use crate::session::AppVisit;
use crate::view::{Head, Inside, Moment, Pill, became, path};

#[derive(Debug, Serialize)]
pub(super) struct ReleasePage {
    page: Inside,
    app: Head,
    version: u64,
    what: String,
    reason: Option<String>,
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
    warnings: Vec<String>,
    /// The app is scaled otherwise than it was then.
    is_scaled: bool,
    action: String,
}

/// What changes from one release to another.
#[derive(Debug, Serialize)]
struct Diff {
    code: Option<Code>,
    rows: Vec<Row>,
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
struct Row {
    /// What kind of thing it is; none for config vars, of which there are most.
    kind: Option<&'static str>,
    name: String,
    /// `added`, `changed` or `removed`.
    change: &'static str,
    /// From what to what.
    detail: Option<String>,
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
    let preview = controller.preview_rollback((&by.app, &by.visit.actor), &target, false).await?;
    let page = Rollback {
        page: Inside::new(&format!("Roll back to v{}", target.version), &by.visit),
        app: Head::load(&controller, &by, "activity").await?,
        from: current.version,
        to: target.version,
        is_scaled: !preview.changes.formation.is_empty(),
        diff: Diff::new(preview.changes),
        warnings: preview.warnings.into_iter().map(|warning| warning.message).collect(),
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
    let app = &form.by.app;
    let target = find(&controller, app, &named).await?;
    let wish = RollbackWish {
        keep_formation: form.fields.filled("keep_formation").is_some(),
        reason: form.fields.filled("reason").map(str::to_owned),
    };
    let notice = match controller.rollback((app, &form.by.visit.actor), &target, &wish).await {
        Ok(done) if done.is_new => {
            let version = done.release.version;
            Notice::done(format!("Rolling back to v{}: this is v{version}", target.version))
        }
        Ok(_) => Notice::done(format!("The app is what v{} was, so there is no new release.", target.version)),
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
            Some(before) => Some(Diff::new(controller.changes(before, &release).await?)),
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
            reason: release.reason,
            failure: release.failure,
            diff,
        })
    }
}

impl Diff {
    fn new(changes: Changes) -> Self {
        let commit = |slug: Slug| Commit { short: short(&slug.commit).to_owned(), subject: slug.subject };
        let code = changes.code.map(|code| Code { old: code.from.map(commit), new: code.to.map(commit) });
        let mut rows: Vec<_> = changes.config.iter().map(|(name, change)| Row::of_config(name, *change)).collect();
        let addon = |it: AttachedAddon| it.name.to_string();
        let attachments = changes.attachments.into_iter();
        rows.extend(attachments.map(|it| Row::new("add-on", &it.name, (it.from.map(addon), it.to.map(addon)))));
        let processes = changes.process_types.into_iter();
        rows.extend(processes.map(|it| Row::new("process type", &it.process_type, (it.from, it.to))));
        let scale = |it: ProcessScale| format!("{} × {}", it.quantity, it.size);
        let formation = changes.formation.into_iter();
        rows.extend(formation.map(|it| Row::new("dynos", &it.process_type, (it.from.map(scale), it.to.map(scale)))));
        Self { code, rows }
    }
}

impl Row {
    fn of_config(name: &ConfigVarName, change: ConfigChange) -> Self {
        Self { kind: None, name: name.to_string(), change: became(change), detail: None }
    }

    fn new(kind: &'static str, name: &impl ToString, change: (Option<String>, Option<String>)) -> Self {
        let (change, detail) = match change {
            (Some(from), Some(to)) => ("changed", Some(format!("{from} → {to}"))),
            (Some(from), None) => ("removed", Some(from)),
            (None, to) => ("added", to),
        };
        Self { kind: Some(kind), name: name.to_string(), change, detail }
    }
}

#[cfg(test)]
mod samples {
    use super::*;
    use crate::view::samples::{HOSTILE, head, inside, moment};

    fn diff(full: bool) -> Diff {
        let commit = |subject: bool| Commit { short: HOSTILE.to_owned(), subject: subject.then(|| HOSTILE.to_owned()) };
        let row = |change| Row {
            kind: (change != "changed").then_some("add-on"),
            name: HOSTILE.to_owned(),
            change,
            detail: (change != "changed").then(|| HOSTILE.to_owned()),
        };
        Diff {
            code: full.then(|| Code { old: Some(commit(false)), new: Some(commit(true)) }),
            rows: if full { ["added", "changed", "removed"].map(row).into() } else { vec![] },
        }
    }

    impl ReleasePage {
        pub(in crate::pages) fn samples() -> [Self; 2] {
            let page = |full: bool| Self {
                page: inside(),
                app: head("activity"),
                version: 3,
                what: HOSTILE.to_owned(),
                reason: full.then(|| HOSTILE.to_owned()),
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
                warnings: if full { vec![HOSTILE.to_owned()] } else { vec![] },
                is_scaled: full,
                action: HOSTILE.to_owned(),
            };
            [page(true), page(false)]
        }
    }
}
